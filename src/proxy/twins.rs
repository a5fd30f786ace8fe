//! Flow: one memcached under two names, or in two roles, is one copy.
//!
//! The same word twice is known from the start (`Routes::identity`). Two words (an alias, `localhost` and an address) are known when
//! both answer as the same process, by its id and the second of its start. In containers that says little, so it is proven:
//!
//! ```text
//!   "set magent:stamp:twin:.. 0 10 .." -> by the one name
//!   "get magent:stamp:twin:.."         -> by the other name: VALUE .. the same
//! ```
//!
//! From then on one of the two is used for both, and the other is not connected to. It is when the first one is lost: a name may lead
//! elsewhere then, or the other way to the same process is open still.

use super::coverage::Coverage;
use super::events::Kind;
use super::ids::{Action, LinkId};
use super::sabotage::{is, Sabotage};
use super::server::{LinkState, Role, Server, State};
use super::Proxy;
use crate::config::ReadRepair;
use crate::proto::response::Code;
use crate::proto::token::Token;
use crate::proto::Verb;

/// The items that prove it: which proxy, and which of its servers.
pub const TWIN_KEYS: &[u8] = b"magent:stamp:twin:";

/// How long it is kept, in seconds: servers' seconds begin at different moments.
const KEPT: u32 = 10;

impl Proxy {
    /// Servers that are given twice by the same word are not connected to under the second one.
    pub(super) fn mark_twins(&mut self) {
        for index in 0..self.servers.len().min(self.routes.servers()) {
            let same = self.routes.identity(index);
            if same != index && self.servers[index].state != State::Twin {
                self.fold(index, None);
            }
        }
    }

    /// A server has said which process it is. True: another one says the same, and it is being looked at.
    pub(super) fn looks_like_another(&mut self, index: usize) -> bool {
        let server = &self.servers[index];
        if server.process.is_none() || server.is_magent || is(Sabotage::TwinsApart) {
            return false;
        }
        let same = |&other: &usize| {
            let candidate = &self.servers[other];
            // The same word with other connections is what a reload makes of a server.
            let is_new = candidate.name != server.name && !server.compared.contains(&other);
            is_new && candidate.is_connected() && candidate.process == server.process
        };
        let Some(other) = (0..self.servers.len()).find(same) else {
            return false;
        };
        let micros = self.facts.unix_micros(self.now);
        let mark = format!("{:x}.{micros}.{index}", self.me);
        let mut request = b"set ".to_vec();
        let key = self.push_mark_key(index, &mut request);
        request.extend_from_slice(format!(" 0 {KEPT} {}\r\n{mark}\r\n", mark.len()).as_bytes());
        let server = &mut self.servers[index];
        server.compared.push(other);
        server.mark = mark;
        let purpose = (Role::Mark(index as u16), Verb::Set, None);
        let link = Server::link_id(other, 0);
        self.queue_bytes(link, &request, None, key, purpose);
        true
    }

    /// Each proxy has items of its own for each server.
    fn push_mark_key(&self, index: usize, request: &mut Vec<u8>) -> Token {
        let start = request.len();
        request.extend_from_slice(TWIN_KEYS);
        request.extend_from_slice(format!("{:x}.{index}", self.me).as_bytes());
        Token {
            start,
            end: request.len(),
        }
    }

    /// The mark has been set by the other name, or not.
    pub(super) fn marked(&mut self, index: usize, code: Code) {
        let server = self.servers.get(index);
        if server.is_none_or(|server| !server.is_being_proven()) {
            return;
        }
        if code != Code::Stored {
            return self.is_no_twin(index);
        }
        self.servers[index].answer.clear();
        let mut request = b"get ".to_vec();
        let key = self.push_mark_key(index, &mut request);
        request.extend_from_slice(b"\r\n");
        let purpose = (Role::Seen, Verb::Get, None);
        self.queue_bytes(Server::link_id(index, 0), &request, None, key, purpose);
    }

    /// What is seen of it by this name.
    pub(super) fn seen(&mut self, link: LinkId) {
        let index = usize::from(link.server);
        let text = std::mem::take(&mut self.servers[index].answer);
        let server = &self.servers[index];
        if !server.is_being_proven() {
            return;
        }
        let is_there = memchr::memmem::find(&text, server.mark.as_bytes()).is_some();
        // It may have been lost, or turned out to be a third one, meanwhile.
        let other = server.compared.last().copied();
        let other = other.filter(|&other| is_there && self.servers[other].is_connected());
        match other {
            Some(other) => self.join(index, other),
            None => self.is_no_twin(index),
        }
    }

    /// That other name leads elsewhere. There may be one more.
    pub(super) fn is_no_twin(&mut self, index: usize) {
        let server = &mut self.servers[index];
        if server.is_being_proven() {
            server.mark.clear();
            self.link_ready(index);
        }
    }

    /// `new`, which has just been connected to, is `other`.
    fn join(&mut self, new: usize, other: usize) {
        let keeps_other = self.servers[other].is_up() || other < new;
        let (kept, gone) = if keeps_other {
            (other, new)
        } else {
            (new, other)
        };
        let missed = !self.servers[gone].journal.is_empty() || self.servers[gone].doubtful;
        if missed && !self.servers[kept].is_up() {
            // What was noted for the one name was missed by the other.
            self.servers[kept].distrust();
        }
        let name = self.servers[kept].name.clone();
        for index in 0..self.servers.len() {
            let follows = self.servers[index].twin_of.as_ref() == Some(&self.servers[gone].name);
            if index != gone && follows {
                self.servers[index].twin_of = Some(name.clone());
                self.routes.join(index, kept);
            }
        }
        self.routes.join(gone, kept);
        self.fold(gone, Some(name));
        if kept == new {
            self.servers[new].mark.clear();
            return self.link_ready(new);
        }
        self.note_abilities();
        self.gains_keys(kept);
        self.consider();
    }

    /// A server that is used has become the copy of more keys than it has been filled with.
    fn gains_keys(&mut self, index: usize) {
        let repairs = self.meta && self.settings.read_repair != ReadRepair::Off;
        if !self.servers[index].is_up() || !repairs {
            return;
        }
        self.servers[index].cold = true;
        if self.resync.target == Some(index) {
            self.end_resync();
        }
        self.stamp_cold();
        self.plan_resync();
    }

    /// A server is not used by its own name from now on. `twin_of`: by whose, if that had to be found out.
    fn fold(&mut self, index: usize, twin_of: Option<String>) {
        let server = &mut self.servers[index];
        server.state = State::Twin;
        server.tried = true;
        server.process = None;
        server.known_process = None;
        server.stamp = None;
        server.items = None;
        server.cold = false;
        server.doubtful = false;
        server.joined = false;
        server.entry_due = 0;
        server.restamps = 0;
        server.settled_at = None;
        server.mark.clear();
        server.journal.clear();
        for (conn, link) in server.links.iter_mut().enumerate() {
            if link.state != LinkState::Closed {
                self.actions
                    .push_back(Action::CloseLink(Server::link_id(index, conn)));
            }
            link.reset(&mut self.memory);
        }
        let was_found = twin_of.is_some();
        let detail = twin_of
            .as_ref()
            .map(|name| format!("the same memcached as {name}: one copy"));
        server.twin_of = twin_of;
        if was_found {
            self.happened_to(index, Kind::ServerTwin, detail.unwrap_or_default());
        }
        self.coverage = Coverage::new(&self.routes);
        self.resync.note_loss(index);
    }

    /// The server `index` is lost: those that were the same by another name are looked at by their own.
    pub(super) fn part_twins(&mut self, index: usize) {
        for other in 0..self.servers.len() {
            if self.servers[other].twin_of.as_ref() == Some(&self.servers[index].name) {
                self.part(other);
            }
        }
    }

    fn part(&mut self, index: usize) {
        let now = self.now;
        let server = &mut self.servers[index];
        server.twin_of = None;
        server.state = State::Down(now);
        server.since = now;
        server.tried = false;
        self.routes.part(index);
        self.coverage = Coverage::new(&self.routes);
    }

    /// Servers have other places, some are gone: who was the same as another one is it still, if that one is there.
    pub(super) fn find_twins(&mut self) {
        for index in 0..self.servers.len() {
            let Some(name) = self.servers[index].twin_of.clone() else {
                continue;
            };
            let kept = |server: &Server| server.name == name && server.state != State::Twin;
            match self.servers.iter().position(kept) {
                Some(kept) if index < self.routes.servers() && kept < self.routes.servers() => {
                    self.routes.join(index, kept);
                }
                _ => self.part(index),
            }
        }
        self.mark_twins();
    }
}
