//! Flow: which servers are up. Connects, probes, time limits, and what becomes of requests whose server is lost.
//!
//! ```text
//!   Down --retry--> Connecting --every connection has answered--> Up
//!     ^                 |                                          |
//!     +--refused, late--+---- silent, reset, nonsense -------------+
//! ```

use super::ids::{Action, CloseReason, LinkId};
use super::server::{InFlight, LinkState, Role, Server, State, PROBE_AFTER, STAMP_EVERY};
use super::Proxy;
use crate::proto::response::{self, Code};
use crate::proto::token::Token;
use crate::proto::Verb;
use crate::time::{Span, Time};

/// How often silent clients are looked for.
const IDLE_CHECK: Span = Span::from_millis(500);

/// Over this share of the memory limit clients are held short.
const SPARING: usize = 4;

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
        self.take_up_behind();
        self.sparing = self.memory.used() > self.memory.limit() / SPARING;
        if !self.rendered.0.is_empty() {
            self.rendered = Default::default();
        }
        // Before the signs of life that this tick may ask for: they stand in the queues.
        if self.memory.rest(now) {
            self.rest();
            self.limit_halves();
        }
        for index in 0..self.servers.len() {
            match self.servers[index].state {
                State::Down(retry) if retry <= now => self.connect(index),
                State::Down(_) | State::Twin => {}
                State::Connecting if self.limit(self.servers[index].attempted) <= now => {
                    self.server_lost(index, CloseReason::ConnectTimeout);
                }
                State::Connecting => {}
                State::Waiting | State::Entering | State::Up => self.watch(index),
            }
        }
        self.pump_resync();
        self.flush_when_due();
        self.tidy();
        self.advance_reload();
        self.advance_censuses();
        self.look_at_limits();
        self.look_at_stuck();
        self.look_at_crowd();
        if self.settings.idle_timeout.is_some() && self.next_idle_check <= now {
            self.next_idle_check = now + IDLE_CHECK;
            self.close_idle_clients();
        }
    }

    /// Gives back the room of queues that were long and are empty now.
    fn rest(&mut self) {
        self.txns.rest();
        self.gathers.rest();
        self.stuck.rest();
        for link in self.servers.iter_mut().flat_map(|server| &mut server.links) {
            link.rest();
        }
    }

    /// When `tick` must be called next.
    pub fn next_timeout(&self) -> Option<Time> {
        if self.reload.has_moved()
            || !self.actions.is_empty()
            || !self.resumable.is_empty()
            || !self.behind.is_empty()
            || !self.dirty_clients.is_empty()
            || !self.dirty_links.is_empty()
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
                State::Twin => {}
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
                                    earliest(self.limit(link.waits_since(flight)));
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
        if let Some(due) = self.flush_due.filter(|_| self.is_active()) {
            earliest(due);
        }
        self.crowd.due().into_iter().for_each(&mut earliest);
        self.stuck.due().into_iter().for_each(&mut earliest);
        self.resync_timeout().into_iter().for_each(&mut earliest);
        self.reload_timeout().into_iter().for_each(&mut earliest);
        self.census_due().into_iter().for_each(&mut earliest);
        next
    }

    /// When something that began at `since` is over its time limit.
    pub(super) fn limit(&self, since: Time) -> Time {
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
        server.is_magent = false;
        server.compared.clear();
        server.mark.clear();
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
            let Some(flight) = link.fifo.get(link.expired) else {
                return;
            };
            if link.waits_since(flight).max(resumed) + timeout > now {
                return;
            }
            let flight = &mut link.fifo[link.expired];
            link.expired += 1;
            server.timeouts += 1;
            let Some(txn) = flight.txn else {
                match flight.role {
                    Role::Fetch(repair) if self.repairs[repair as usize].is_for_a_copy() => {
                        self.copy_late(repair);
                    }
                    Role::Fetch(repair) => {
                        flight.role = Role::Abandoned;
                        self.fetch_failed(repair);
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
