//! Flow: a server is lost, and what was in flight to it goes on its way.

use super::events::Kind;
use super::ids::{Action, CloseReason};
use super::read::key_token;
use super::repair::is_base64;
use super::sabotage::{is, Sabotage};
use super::server::{InFlight, LinkState, Role, Server, State};
use super::Proxy;
use crate::proto::token::next_token;
use crate::proto::Verb;
use crate::time::Span;

impl Proxy {
    /// Gives a server up, and sends what was in flight on its way.
    pub(super) fn server_lost(&mut self, index: usize, why: CloseReason) {
        let (now, active) = (self.now, self.is_active());
        let server = &mut self.servers[index];
        let first = !server.tried;
        if server.is_connected() || first {
            server.since = now;
            server.lost_in = self.view;
            server.lost_serving = active;
            self.happened_to(index, Kind::ServerDown, format!("down: {}", why.name()));
        }
        if self.servers[index].relapses() {
            let times = self.servers[index].relapsed;
            if times > 1 {
                let text =
                    format!("was lost {times} times in a row before it had answered a client");
                self.happened_to(index, Kind::ServerRelapses, text);
            }
        }
        let server = &mut self.servers[index];
        server.tried = true;
        let mut flights = server.links.iter().flat_map(|link| &link.fifo);
        let changes = flights.any(|flight| {
            !matches!(flight.role, Role::Read | Role::Probe | Role::Stamp) || flight.verb.is_gat()
        });
        server.only_late = match why {
            CloseReason::Silent if server.state == State::Up => active && !changes,
            CloseReason::ConnectTimeout | CloseReason::Silent => server.only_late,
            _ => false,
        };
        server.mark.clear();
        server.failures[why as usize] += 1;
        server.state = State::Down(now + server.retry);
        server.retry = Span((server.retry.0 * 2).min(self.settings.retry_max.0));
        server.cold = false;
        server.restamps = 0;
        server.entry_due = 0;
        server.settled_at = None;
        server.settled = false;
        server.window.clear();
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
        if matches!(why, CloseReason::ConnectTimeout | CloseReason::Silent) {
            self.doubt_unknown(index);
        }
        self.part_twins(index);
        self.note_abilities();
        self.resync.note_loss(index);
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
                if let (Role::Fetch(repair), CloseReason::Silent) = (flight.role, why) {
                    // It may live.
                    self.fetch_failed(repair);
                    continue;
                }
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
            | Role::Exact
            | Role::Echo
            | Role::Heal
            | Role::Refill
            | Role::Bring(_)
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
                Role::Fetch(repair) => self.fetch_failed(repair),
                Role::Bring(repair) => self.end_repair(repair, true),
                Role::Tidy => self.tidied(),
                Role::Mark(index) => self.is_no_twin(usize::from(index)),
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
            Role::Copy(_) | Role::Mirror | Role::Exact | Role::Behind => {
                if matches!(flight.role, Role::Copy(_)) {
                    self.heal_if_refused(id, flight, || bytes.to_vec());
                }
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
}
