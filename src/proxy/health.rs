//! Flow: which servers are up. Connects, probes, time limits, and what becomes of requests whose server is lost.
//!
//! ```text
//!   Down --retry--> Connecting --every connection has answered--> Up
//!     ^                 |                                          |
//!     +--refused, late--+---- silent, reset, nonsense -------------+
//! ```

use super::events::Kind;
use super::ids::{Action, CloseReason, LinkId};
use super::read::key_token;
use super::repair::is_base64;
use super::sabotage::{is, Sabotage};
use super::server::{InFlight, LinkState, Role, Server, State, PROBE_AFTER, STAMP_EVERY};
use super::Proxy;
use crate::proto::response::{self, Code};
use crate::proto::token::{next_token, Token};
use crate::proto::Verb;
use crate::time::{Span, Time};

/// How often silent clients are looked for.
const IDLE_CHECK: Span = Span::from_millis(500);

/// The first memcached with the meta commands as they are now.
const META_SINCE: [u32; 3] = [1, 6, 10];

/// The first memcached with explicit CAS.
const EXPLICIT_CAS_SINCE: [u32; 3] = [1, 6, 27];

impl Proxy {
    /// The connection is made. It counts once something has been answered on it.
    pub fn link_connected(&mut self, id: LinkId, now: Time) {
        self.now = now;
        let link = self.link_mut(id);
        if link.state != LinkState::Connecting {
            return;
        }
        link.last_received = now;
        if self.is_listing(id) {
            self.begin_listing(id);
        } else {
            self.link_mut(id).state = LinkState::Unproven;
            self.greet(id);
        }
    }

    /// The connection could not be made, or has ended.
    pub fn link_closed(&mut self, id: LinkId, why: CloseReason, now: Time) {
        self.now = now;
        let link = self.link_mut(id);
        if link.state == LinkState::Closed {
            return;
        }
        link.state = LinkState::Closed;
        if self.is_listing(id) {
            self.listing_closed(id);
        } else {
            self.server_lost(usize::from(id.server), why);
        }
    }

    /// Deadlines, probes, retries. Call when `next_timeout` has come, and at least once before sleeping.
    pub fn tick(&mut self, now: Time) {
        self.now = now;
        if now.since(self.last_tick) > Span(self.settings.timeout.0 / 2) {
            self.resumed = now;
        }
        self.last_tick = now;
        // Before the signs of life that this tick may ask for: they stand in the queues.
        if self.memory.rest(now) {
            self.rest();
        }
        for index in 0..self.servers.len() {
            match self.servers[index].state {
                State::Down(retry) if retry <= now => self.connect(index),
                State::Down(_) => {}
                State::Connecting if self.limit(self.servers[index].attempted) <= now => {
                    self.server_lost(index, CloseReason::ConnectTimeout);
                }
                State::Connecting => {}
                State::Waiting | State::Entering | State::Up => self.watch(index),
            }
        }
        self.pump_resync();
        self.tidy();
        self.advance_reload();
        self.look_at_limits();
        if self.settings.idle_timeout.is_some() && self.next_idle_check <= now {
            self.next_idle_check = now + IDLE_CHECK;
            self.close_idle_clients();
        }
    }

    /// Gives back the room of queues that were long and are empty now.
    fn rest(&mut self) {
        self.txns.rest();
        self.gathers.rest();
        for link in self.servers.iter_mut().flat_map(|server| &mut server.links) {
            link.rest();
        }
    }

    /// When `tick` must be called next.
    pub fn next_timeout(&self) -> Option<Time> {
        if self.reload.has_moved()
            || !self.actions.is_empty()
            || !self.resumable.is_empty()
            || !self.dirty.is_empty()
        {
            return Some(self.now);
        }
        let mut next = None;
        let mut earliest = |time: Time| {
            next = Some(next.map_or(time, |so_far: Time| so_far.min(time)));
        };
        for server in &self.servers {
            match server.state {
                State::Down(retry) => earliest(retry),
                State::Connecting => {
                    earliest(self.limit(server.attempted));
                    earliest(self.now + self.wake_interval());
                }
                State::Waiting | State::Entering | State::Up => {
                    server.settled_at.into_iter().for_each(&mut earliest);
                    for link in &server.links[..server.conns] {
                        match link.silent_since() {
                            Some(since) => {
                                earliest(self.limit(since));
                                if let Some(flight) = link.fifo.get(link.expired) {
                                    earliest(self.limit(flight.queued));
                                }
                                earliest(self.now + self.wake_interval());
                            }
                            None => earliest(link.last_received + PROBE_AFTER),
                        }
                    }
                }
            }
        }
        if self.settings.idle_timeout.is_some() {
            earliest(self.next_idle_check);
        }
        self.resync_timeout().into_iter().for_each(&mut earliest);
        self.reload_timeout().into_iter().for_each(&mut earliest);
        next
    }

    /// When something that began at `since` is over its time limit.
    fn limit(&self, since: Time) -> Time {
        since.max(self.resumed) + self.settings.timeout
    }

    /// While answers are due the proxy wakes this often, so that a longer gap shows that it was stopped itself.
    fn wake_interval(&self) -> Span {
        Span(self.settings.timeout.0 / 4)
    }

    pub(super) fn connect(&mut self, index: usize) {
        let now = self.now;
        let server = &mut self.servers[index];
        server.state = State::Connecting;
        server.attempted = now;
        server.stamp = None;
        server.process = None;
        server.items = None;
        server.entry_due = 0;
        for (conn, link) in server.links[..server.conns].iter_mut().enumerate() {
            link.state = LinkState::Connecting;
            self.actions
                .push_back(Action::Connect(Server::link_id(index, conn)));
        }
    }

    pub(super) fn probe(&mut self, id: LinkId) {
        let purpose = (Role::Probe, Verb::Version, None);
        self.queue_bytes(id, b"version\r\n", None, Token::default(), purpose);
        // Probes are not requests.
        self.servers[usize::from(id.server)].requests -= 1;
    }

    /// A sign of life: the version.
    pub(super) fn probe_answered(&mut self, id: LinkId, code: Code, tail: &[u8]) {
        let index = usize::from(id.server);
        let server = &mut self.servers[index];
        if code == Code::Version {
            server.version = response::version(tail.trim_ascii_end());
            let is_magent = memchr::memmem::find(tail, b"-magent-").is_some();
            server.is_magent = is_magent;
        }
        // The first connection is ready when the stamp is known.
        let link = &mut server.links[usize::from(id.conn)];
        if link.state == LinkState::Unproven && id.conn > 0 {
            link.state = LinkState::Ready;
            self.link_ready(index);
        }
    }

    /// What all servers that are up understand, and who they are.
    pub(super) fn note_abilities(&mut self) {
        if self.routes.wants_up() {
            let up = self.servers.iter().enumerate();
            let up = up.filter(|(_, server)| server.is_up());
            self.routes.note_up(up.map(|(index, _)| index));
        }
        let least = self.least_version();
        let before = self.meta;
        self.explicit_cas = least.is_some_and(|version| version >= EXPLICIT_CAS_SINCE);
        self.meta = least.is_none_or(|version| version >= META_SINCE);
        if before && !self.meta {
            log::warn!("a server is older than 1.6.10: meta commands are refused");
        }
    }

    /// The lowest version among the servers that are up, or were last up where none is.
    pub(super) fn least_version(&self) -> Option<[u32; 3]> {
        let up = self.servers.iter().filter(|server| server.is_up());
        let least = up.filter_map(|server| server.version).min();
        least.or_else(|| {
            self.servers
                .iter()
                .filter_map(|server| server.version)
                .min()
        })
    }

    /// Looks after the connections of a server that is up.
    fn watch(&mut self, index: usize) {
        self.settle_doubt(index);
        let stamps = self.has_views();
        let server = &self.servers[index];
        if stamps && server.is_up() && server.stamp_asked + STAMP_EVERY <= self.now {
            // Asked for while it is busy, too; the answer moves the time on.
            self.servers[index].stamp_asked = self.now;
            self.ask_stamp(index);
        }
        for conn in 0..self.servers[index].conns {
            let now = self.now;
            let link = &self.servers[index].links[conn];
            match link.silent_since() {
                Some(since) if self.limit(since) <= now => {
                    self.server_lost(index, CloseReason::Silent);
                    return;
                }
                Some(_) => self.expire(Server::link_id(index, conn)),
                None if link.last_received + PROBE_AFTER <= now => {
                    if conn == 0 && stamps {
                        self.ask_stamp(index);
                    } else {
                        self.probe(Server::link_id(index, conn));
                    }
                }
                None => {}
            }
        }
    }

    /// Requests over their time limit move on; their place in the stream stays.
    fn expire(&mut self, id: LinkId) {
        loop {
            let (now, resumed, timeout) = (self.now, self.resumed, self.settings.timeout);
            let server = &mut self.servers[usize::from(id.server)];
            let link = &mut server.links[usize::from(id.conn)];
            let Some(flight) = link.fifo.get_mut(link.expired) else {
                return;
            };
            if flight.queued.max(resumed) + timeout > now {
                return;
            }
            link.expired += 1;
            server.timeouts += 1;
            let Some(txn) = flight.txn else {
                match flight.role {
                    Role::Fetch(repair) => {
                        flight.role = Role::Abandoned;
                        self.fetch_next(repair);
                    }
                    Role::Inquire(inquiry) => {
                        flight.role = Role::Abandoned;
                        self.end_share(inquiry);
                    }
                    _ => {}
                }
                continue;
            };
            if flight.role != Role::Read {
                self.write_late(txn);
                continue;
            }
            let moved = InFlight {
                body: None,
                ..*flight
            };
            flight.role = Role::Abandoned;
            flight.txn = None;
            let bytes = link.log.bytes(moved.start, moved.end).to_vec();
            self.leave_read(txn);
            self.reread(txn, &moved, &bytes, usize::from(id.server));
            self.close_txn(txn);
        }
    }

    /// One request less is in flight for a read.
    fn leave_read(&mut self, txn: u32) {
        let txn = self.txns.at(txn);
        txn.outstanding -= 1;
        txn.waiting = txn.waiting.saturating_sub(1);
    }

    /// Gives a server up, and sends what was in flight on its way.
    pub(super) fn server_lost(&mut self, index: usize, why: CloseReason) {
        let now = self.now;
        let server = &mut self.servers[index];
        let first = !server.tried;
        if server.is_connected() || first {
            server.since = now;
            server.lost_in = self.view;
            self.happened_to(index, Kind::ServerDown, format!("down: {}", why.name()));
        }
        let server = &mut self.servers[index];
        server.tried = true;
        server.failures[why as usize] += 1;
        server.state = State::Down(now + server.retry);
        server.retry = Span((server.retry.0 * 2).min(self.settings.retry_max.0));
        server.cold = false;
        server.restamps = 0;
        server.entry_due = 0;
        server.settled_at = None;
        server.settled = false;
        let mut lost = Vec::with_capacity(server.links.len());
        for (conn, link) in server.links.iter_mut().enumerate() {
            if link.state != LinkState::Closed {
                self.actions
                    .push_back(Action::CloseLink(Server::link_id(index, conn)));
            }
            let expired = link.expired;
            let (fifo, log) = link.reset(&mut self.memory);
            lost.push((fifo, log, expired));
        }
        self.note_abilities();
        if self.resync.target == Some(index) {
            self.end_resync();
        } else if self.resync.source() == Some(index) {
            self.listing_closed(Server::link_id(index, self.servers[index].conns));
        }
        let missed = |flight: &InFlight| flight.may_be_missed() && !is(Sabotage::LossUnstamped);
        if lost.iter().any(|(fifo, ..)| fifo.iter().any(missed)) {
            // Ahead of what is asked of the others now: whoever takes over must see it.
            self.leave_out(index);
        }
        for (fifo, log, expired) in lost {
            for (n, flight) in fifo.into_iter().enumerate() {
                let bytes = log.bytes(flight.start, flight.end);
                self.lose(&flight, bytes, n < expired, index);
            }
        }
        if first {
            self.consider();
        }
    }

    /// Keeps in mind that a write may or may not have been carried out by a server that is lost.
    fn note_unknown(&mut self, flight: &InFlight, bytes: &[u8], server: usize) {
        if is(Sabotage::UnknownKept) {
            return;
        }
        match flight.role {
            Role::Copy(_)
            | Role::Decide
            | Role::Mirror
            | Role::Echo
            | Role::Heal
            | Role::Refill
            | Role::Behind
            | Role::Tidy
            | Role::Entry => {}
            Role::Flush(_) => {
                self.servers[server].doubtful = true;
                return self.servers[server].journal.note_flush();
            }
            Role::Restamp => {
                self.servers[server].doubtful = true;
                return;
            }
            Role::Read if flight.verb.is_gat() => {
                // Each of its keys may have got its new time to live.
                let line = bytes.trim_ascii_end();
                let mut at = usize::from(flight.key_at);
                while let Some(token) = next_token(line, at) {
                    at = token.end;
                    self.doubt(server, token.of(line), false);
                }
                return;
            }
            _ => return,
        }
        if flight.verb == Verb::FlushAll {
            self.servers[server].doubtful = true;
            return self.servers[server].journal.forget();
        }
        let key = key_token(flight).of(bytes);
        self.doubt(server, key, is_base64(flight.verb, bytes));
    }

    /// A request will never be answered by this server. `expired`: the client does not wait for it any more.
    fn lose(&mut self, flight: &InFlight, bytes: &[u8], expired: bool, server: usize) {
        self.note_unknown(flight, bytes, server);
        let Some(id) = flight.txn else {
            match flight.role {
                Role::Fetch(repair) => self.fetch_next(repair),
                Role::Tidy => self.tidied(),
                Role::Inquire(inquiry) => self.end_share(inquiry),
                _ => {}
            }
            return;
        };
        let txn = self.txns.at(id);
        txn.outstanding -= 1;
        if !expired {
            txn.waiting = txn.waiting.saturating_sub(1);
        }
        match flight.role {
            Role::Read => self.reread(id, flight, bytes, server),
            Role::Decide => self.redecide(id, flight, bytes),
            Role::Copy(_) | Role::Mirror | Role::Behind => {
                self.fence(id);
                self.answer_if_all_did(id);
            }
            Role::Refill => self.answer_if_all_did(id),
            Role::Flush(_) | Role::Fence => {
                if flight.role != Role::Fence {
                    self.ejects.flushed = false;
                    self.fence(id);
                }
                self.answer_if_all_did(id);
                self.flush_passed(id);
            }
            _ => {}
        }
        self.close_txn(id);
    }

    fn close_idle_clients(&mut self) {
        let Some(limit) = self.settings.idle_timeout else {
            return;
        };
        let now = self.now;
        let idle: Vec<_> = self
            .client_ids()
            .filter(|&id| {
                self.client(id)
                    .is_some_and(|client| client.is_idle() && client.last_active + limit <= now)
            })
            .collect();
        for id in idle {
            self.close_when_settled(id);
        }
    }
}
