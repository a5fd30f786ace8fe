//! Flow: which servers may be trusted, and how one that returns is made safe.
//!
//! ```text
//!   connected --(stats, stamp)--> Waiting --same view--------------------------------> Up
//!                                    |  \--missed writes--> Entering: delete the journal's
//!                                    |                      keys, or flush; stamp ------> Up, cold
//!                                    \--a proxy without traffic only looks
//! ```

use super::events::Kind;
use super::ids::LinkId;
use super::journal::NotedKey;
use super::lists::Named;
use super::sabotage::{is, Sabotage};
use super::server::{Role, Server, State};
use super::view::{Stamp, View};
use super::Proxy;
use crate::config::{ReadRepair, Rejoin};
use crate::proto::response::Code;
use crate::proto::token::Token;
use crate::proto::Verb;
use crate::time::Span;

/// A proxy that was asked for nothing for so long does not count as the one that serves.
pub(super) const IDLE_AFTER: Span = Span::from_millis(1000);

/// Keys are copied in the background for so long after a request.
const COPIES_FOR: Span = Span::from_millis(300);

/// A stopped server that goes on may still carry out what its kernel holds of old connections; after this, no more.
const GRACE: Span = Span::from_millis(1000);

/// Seconds that clocks may differ, and be rounded.
const CLOCKS: u64 = 2;

/// Keys deleted on a returning server before it is asked whether they are gone.
const ENTRY_BATCH: usize = 512;

impl Proxy {
    /// Whether returning servers are looked at, and made safe.
    pub(super) fn is_safe(&self) -> bool {
        self.settings.rejoin == Rejoin::Safe
    }

    /// Whether a key may be at several servers, so that one of them can miss what another took.
    pub(super) fn has_views(&self) -> bool {
        self.routes.places() > 1
    }

    /// Whether this proxy serves traffic, and so decides; one that does not only looks.
    pub(super) fn is_active(&self) -> bool {
        self.last_request
            .is_some_and(|time| self.now.since(time) <= IDLE_AFTER)
    }

    /// Whether keys may be copied in the background. Another proxy that takes over decides at once, and a key on its way here
    /// would land behind what it writes: so this ends sooner than [`Proxy::is_active`], before clients have found the other one.
    pub(super) fn may_copy(&self) -> bool {
        self.last_request
            .is_some_and(|time| self.now.since(time) <= COPIES_FOR)
    }

    /// A client asks for a key. True: the stamps must be read first, as another proxy may have served until now.
    pub(super) fn note_request(&mut self) -> bool {
        let was_active = self.is_active();
        self.last_request = Some(self.now);
        !was_active && self.is_safe() && self.has_views()
    }

    /// This proxy was idle and is asked for something: from now on it decides, and another one may have done so until now.
    pub(super) fn take_charge(&mut self) {
        for server in self.servers.iter_mut().filter(|server| !server.is_up()) {
            // The other one may have let it into that view, and now it could pass for one that missed nothing.
            server.left_out = View::default();
            server.only_late = false;
        }
        self.call_missing();
        self.check_stamps();
        self.flush_when_due();
        self.consider();
    }

    /// Looks at all servers that wait, in the light of what all of them say.
    pub(super) fn consider(&mut self) {
        // Before all have been asked, the one that knows best may be missing.
        if self.servers.iter().any(|server| !server.tried) {
            return;
        }
        if self.is_safe() {
            let connected = self.servers.iter().filter(|server| server.is_connected());
            let best = connected.map(Server::view).max().unwrap_or_default();
            if best > self.view && self.has_views() {
                self.adopt(best);
            }
            self.view = self.view.max(best);
            let rechecked = self
                .recheck
                .is_some_and(|since| self.has_stamps_since(since));
            if rechecked {
                self.recheck = None;
                self.demote();
            }
        }
        // Where all are empty at the start, none lacks anything.
        let all_empty = self.servers.iter().all(|server| {
            server.known_process.is_none() && (!server.is_connected() || server.items == Some(0))
        });
        for index in 0..self.servers.len() {
            if self.servers[index].state == State::Waiting {
                self.consider_one(index, all_empty);
            }
        }
    }

    /// Another proxy has raised the view: what this one noted is not all that was missed. Which servers that view left
    /// out shows when all have been asked anew; until then nothing else is asked of them.
    fn adopt(&mut self, view: View) {
        self.adopt_ejected(view);
        self.view = view;
        let detail = format!("another proxy served: view {}", view.number);
        self.happened(Kind::TakeOver, "", detail, self.now);
        let mut stamps = self
            .servers
            .iter()
            .filter_map(|server| server.stamp.as_ref());
        let stamp = stamps.find(|stamp| stamp.view == view);
        self.origin = stamp.and_then(|stamp| stamp.origin.clone());
        let flush = stamp.and_then(|stamp| stamp.flush);
        self.adopt_flush(flush);
        for server in &mut self.servers {
            if !server.is_up() && server.known_process.is_some() {
                server.journal.note_others();
            }
        }
        if self.servers.iter().any(Server::is_up) {
            self.recheck = Some(self.now);
            self.check_stamps();
        }
    }

    /// Servers that another proxy's view left out are not used before they are made safe.
    fn demote(&mut self) {
        for index in 0..self.servers.len() {
            let missed = {
                let server = &self.servers[index];
                server.view() < self.view && server.restamps == 0 && !self.only_stamp_lost(server)
            };
            let server = &mut self.servers[index];
            if server.is_up() && missed {
                server.state = State::Waiting;
                server.journal.forget();
                // Counted when the connection was made: it may have been empty then.
                server.items = None;
                let detail = "missed writes of another proxy";
                self.happened_to(index, Kind::ServerStale, detail);
            } else if !server.is_up() && server.known_process.is_some() {
                // Perhaps lost before it was asked.
                server.journal.note_others();
            }
        }
        if std::mem::take(&mut self.raise_due) {
            self.raise_view();
        }
        self.stamp_cold();
    }

    fn consider_one(&mut self, index: usize, all_empty: bool) {
        let server = &self.servers[index];
        let alone = !self.has_views() && !server.joined;
        let view = self.view;
        let known = server.known_process.is_some();
        let changed = known && server.known_process != server.process;
        let other = changed && !self.is_new(server) && !is(Sabotage::OtherTrusted);
        let started_anew = changed && !other;
        let empty = server.items == Some(0) && server.stamp.is_none() && !all_empty && !other;
        let stranger = !known && self.is_stranger(server);
        // Under another ring it need not have had what belongs on it.
        let moved = !known && !alone && self.lists.ring_differs(&server.named);
        let kept_all = server.named.share.all && self.share(index).all;
        let regains = moved && !kept_all && server.leftovers;
        let trusted = !stranger && !regains && !other;
        let took_part = trusted && (server.view() == view || self.only_stamp_lost(server));
        let current = !self.is_safe() || alone || took_part;
        if started_anew {
            // Its memory is new, and so are its sockets: nothing old can come of it.
            self.servers[index].doubtful = false;
            self.servers[index].leftovers = false;
        }
        // Of a process that was not seen to start, having nothing says nothing: it may have been stopped, with writes
        // that its kernel holds.
        if self.must_settle(
            index,
            known && !started_anew,
            current,
            empty && started_anew,
        ) {
            return;
        }
        self.servers[index].entry_due &= usize::from(!current && !empty);
        if (current || stranger) && (started_anew || empty) {
            let cold = !alone && self.settings.read_repair != ReadRepair::Off;
            return self.let_in(index, cold);
        }
        let server = &self.servers[index];
        if current {
            let says_cold = server.stamp.as_ref().is_some_and(|stamp| stamp.cold);
            let cold = says_cold || (moved && self.settings.read_repair != ReadRepair::Off);
            // By its stamp it took part in everything. Without stamps the journal says so.
            let trusted = !alone && !server.owes;
            if !self.is_safe() || trusted || server.journal.is_empty() {
                self.servers[index].leftovers |= moved && !kept_all;
                return self.let_in(index, cold);
            }
        }
        if !self.is_active() {
            return;
        }
        if empty {
            return self.let_in(index, true);
        }
        if self.awaits_the_best() {
            return;
        }
        // Whether the journal tells all hangs on what the others say now.
        let server = &self.servers[index];
        let since = server.attempted;
        if !self.has_stamps_since(since) {
            if self.servers[index].entry_due == 0 {
                self.servers[index].entry_due = 1;
                self.ask_stamps();
            }
            return;
        }
        self.begin_entry(index, known && !changed);
    }

    /// Whether another process than before is a new one, and not an old one that the address leads to now: it started when
    /// the one before had been lost, and holds nothing, or took part in the present view since. If the clocks differ, a new one
    /// is flushed, which does little harm.
    fn is_new(&self, server: &Server) -> bool {
        let took_part = self.view != View::default() && server.view() == self.view;
        let lost = self.facts.unix_micros(server.since) / 1_000_000;
        let is_younger = server
            .process
            .is_some_and(|(start, _)| start + CLOCKS >= lost);
        // While another proxy served, that one has made it safe before it stamped it.
        (took_part && !server.lost_serving)
            || (is_younger && (took_part || server.items == Some(0)))
    }

    /// Whether nobody knows what a server holds that this proxy has not used yet: it has come with a reload, or others of this
    /// pool name its list, or one before, and it names none. With stamps it is seen by them.
    fn is_stranger(&self, server: &Server) -> bool {
        if self.view != View::default() || server.is_magent {
            return false;
        }
        let is_member = |server: &Server| self.lists.is_member(&server.named);
        server.joined
            || (!is_member(server) && self.has_views() && self.servers.iter().any(is_member))
    }

    /// Whether those that took part in the latest view are here, but may not be used yet. Another one, flushed and used in
    /// the meantime, would leave them out of the next view, and with that all that they hold would be gone.
    fn awaits_the_best(&self) -> bool {
        let best =
            |server: &&Server| server.view() == self.view && server.view() != View::default();
        let mut best = self.servers.iter().filter(best).peekable();
        best.peek().is_some() && best.all(|server| server.state == State::Waiting)
    }

    /// Whether the server may have been stopped, and may change under everybody's eyes when it goes on with what its kernel
    /// holds, of this proxy's old connections or another's. It is not used before.
    fn must_settle(
        &mut self,
        index: usize,
        same_process: bool,
        current: bool,
        empty: bool,
    ) -> bool {
        let (alone, active) = (!self.has_views(), self.is_active());
        let server = &mut self.servers[index];
        if self.settings.rejoin != Rejoin::Safe || is(Sabotage::NotSettled) {
            return false;
        }
        let view = server.view();
        if current
            && view.owner != self.me
            && view > server.lost_in
            && server.lost_in != View::default()
        {
            // Another proxy has stamped it since: it ran, only this proxy was cut off, and what it held of ours is over.
            server.doubtful = false;
            server.settled = true;
        }
        let only_late = server.only_late && active && current && server.journal.is_empty();
        let stopped = same_process && !only_late;
        let suspect = server.doubtful || (!alone && (stopped || !(current || empty)));
        if suspect && !server.settled {
            server.settled_at.get_or_insert(self.now + GRACE);
            return true;
        }
        // The stamp is read once more behind that.
        server.stamp_asked < server.attempted
    }

    fn begin_entry(&mut self, index: usize, same_process: bool) {
        let ours = self.view.owner == self.me || self.view == View::default();
        let server = &mut self.servers[index];
        server.state = State::Entering;
        server.entry_due = 0;
        if is(Sabotage::JournalIgnored) {
            server.journal.clear();
        }
        if same_process && ours && server.journal.is_complete() {
            let missed = server.journal.len();
            log::info!("server {}: {missed} keys to be forgotten", server.name);
            self.pump_entry(index);
        } else {
            let times = 1 + server.flush_repeats();
            server.entry_due = usize::from(times);
            server.named = Named::default();
            server.leftovers = false;
            server.journal.clear();
            self.counters.entry_flushes += 1;
            self.happened_to(index, Kind::ServerFlushed, "flushed, it missed writes");
            let purpose = (Role::Entry, Verb::FlushAll, None);
            let link = Server::link_id(index, 0);
            for _ in 0..times {
                self.queue_bytes(link, b"flush_all\r\n", None, Token::default(), purpose);
            }
        }
    }

    /// Deletes the next keys of the journal. With the last ones the server is let in: what it is asked from then on
    /// stands behind them.
    fn pump_entry(&mut self, index: usize) {
        let last = self.servers[index].journal.len() <= ENTRY_BATCH;
        for noted in self.servers[index].journal.take(ENTRY_BATCH) {
            self.servers[index].entry_due += 1;
            let route = self.route_of_noted(&noted);
            self.delete_on(index, route, &noted, Role::Entry);
        }
        if last {
            let cold = self.settings.read_repair != ReadRepair::Off;
            self.let_in(index, cold);
        }
    }

    /// Something that was to make the server safe is done.
    pub(super) fn entry_answered(&mut self, id: LinkId, verb: Verb, code: Code) {
        let index = usize::from(id.server);
        let server = &mut self.servers[index];
        server.entry_due = server.entry_due.saturating_sub(1);
        if server.entry_due > 0 {
            return;
        }
        if server.state == State::Up && self.view != View::default() {
            self.restamp(index);
        }
        if self.servers[index].state != State::Entering {
            return;
        }
        let server = &mut self.servers[index];
        if verb == Verb::FlushAll {
            if code.is_error() {
                server.state = State::Waiting;
                let detail = "it cannot be flushed, so it is not used";
                return self.happened_to(index, Kind::ServerStale, detail);
            }
            // What it missed meanwhile it does not hold either.
            self.let_in(index, self.settings.read_repair != ReadRepair::Off);
        } else {
            self.pump_entry(index);
        }
    }

    /// From now on the server is used.
    fn let_in(&mut self, index: usize, cold: bool) {
        let alone = self.routes.ranks() == 1 && !self.servers[index].joined;
        let cold = cold && !alone && !is(Sabotage::WarmTooEarly);
        let now = self.now;
        let (view, origin) = (self.view, self.origin.clone());
        if cold {
            self.happened_to(index, Kind::ServerCold, "up, cold");
        } else {
            self.happened_to(index, Kind::ServerUp, "up");
        }
        let server = &mut self.servers[index];
        server.state = State::Up;
        server.settled = true;
        server.joined = false;
        server.owes = false;
        server.left_out = View::default();
        server.since = now;
        server.proven = false;
        server.cold = cold;
        server.known_process = server.process;
        server.stamp_asked = now;
        server.journal.clear();
        let stamp = Stamp {
            view,
            origin,
            cold,
            ejected: self.ejects.said.clone(),
            list: self.lists.own.key,
            flush: self.flush_moment(),
        };
        let server = &mut self.servers[index];
        let stamped = server.stamp == Some(stamp);
        let may = self.may_stamp() && self.is_active() && self.is_safe();
        if view != View::default() && !stamped && may {
            self.restamp(index);
        }
        if self.lists.settled && self.is_active() {
            self.announce(index);
        }
        self.tell_flush(index);
        self.stamp_cold();
        self.note_abilities();
        self.plan_resync();
    }

    /// A write whose outcome on `server` nobody has heard.
    pub(super) fn doubt(&mut self, server: usize, key: &[u8], base64: bool) {
        let server = &mut self.servers[server];
        server.journal.note(NotedKey::new(key, base64));
        server.doubtful = true;
    }

    /// A server that this proxy has never used was silent. It may have been stopped, with writes of another proxy in its
    /// kernel. Not where none answered better: then it is more likely that the way to all of them was slow.
    pub(super) fn doubt_unknown(&mut self, index: usize) {
        let better = |server: &Server| server.is_connected() && !server.doubtful;
        let others = self.servers.iter().enumerate();
        let is_worst = others
            .filter(|&(other, _)| other != index)
            .any(|(_, server)| better(server));
        let is_suspect = is_worst && self.has_views();
        let server = &mut self.servers[index];
        server.doubtful |= is_suspect && server.known_process.is_none();
    }

    /// A server that was stopped has had the time for what its kernel still held of old connections: only now is it known
    /// what it holds.
    pub(super) fn settle_doubt(&mut self, index: usize) {
        let server = &mut self.servers[index];
        if server.settled_at.is_none_or(|at| at > self.now) {
            return;
        }
        server.settled_at = None;
        server.settled = true;
        server.doubtful = false;
        // Counted before.
        server.items = None;
        server.attempted = self.now;
        if server.known_process.is_none() {
            self.ask_process(Server::link_id(index, 0));
        }
        self.ask_stamp(index);
    }
}
