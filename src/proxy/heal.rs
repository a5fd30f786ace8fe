//! Flow: writes that went wrong at one server. The next copy decides in place of one that is lost, a late answer keeps no
//! client waiting, and a copy that differs forgets the key.

use super::client::Reply;
use super::journal::NotedKey;
use super::order::bucket;
use super::read::key_token;
use super::repair::{is_base64, Then};
use super::route::Route;
use super::sabotage::{is, Sabotage};
use super::server::{InFlight, Role};
use super::txn::{lacks_cold, TxnId, COLD, NO_RANK};
use super::{cas, Proxy};
use crate::buf::Body;
use crate::proto::replies;

impl Proxy {
    /// The server that was to decide is lost before its answer came. The outcome was not mirrored, so the next copy
    /// still has what was there before, and decides. `bytes` and `body` are the request.
    pub(super) fn redecide(&mut self, id: TxnId, flight: &InFlight, bytes: &[u8]) {
        let txn = self.txns.at(id);
        let (client, seq, route, rank) = (txn.client, txn.seq, txn.route, txn.rank);
        // A client that was told "unknown" keeps that answer, which may still wait for its turn in the client's order.
        // Nor can it be ejected before it is known which view that would be in.
        let next = if txn.answered || (self.routes.ejects() && self.recheck.is_some()) {
            None
        } else {
            self.replace_reply(client, seq, Reply::None);
            self.acting(route, usize::from(rank) + 1)
        };
        let Some((rank, server)) = next else {
            self.txns.at(id).undecided = false;
            self.answer_if_all_did(id);
            self.decided(bucket(route.hash));
            return;
        };
        self.txns.at(id).rank = rank as u8;
        if self.routes.ejects() {
            let key = key_token(flight).of(bytes);
            let noted = NotedKey::new(key, is_base64(flight.verb, bytes));
            self.note_ejected(route, &noted, rank);
            self.delete_behind(id, route, || noted, rank);
        }
        // What was brought over was brought to the one that is lost.
        self.txns.at(id).repaired = false;
        let line_end = memchr::memchr(b'\n', bytes).map_or(0, |newline| newline - 1);
        let Some(token) = cas::condition(flight.verb, &bytes[..line_end]) else {
            return self.decide_at(id, flight, bytes, server);
        };
        // The token was given by the server that is lost.
        let mut request = std::mem::take(&mut self.scratch);
        request.clear();
        cas::open_request(bytes, token, None, false, &mut request);
        self.decide_at(id, flight, &request, server);
        self.scratch = request;
    }

    /// Asks another server to decide. If that may lack the key, it gets it first, whatever the verb: so those that were in
    /// flight one behind the other stay in their order.
    fn decide_at(&mut self, id: TxnId, flight: &InFlight, bytes: &[u8], server: usize) {
        let route = self.txns.at(id).route;
        if self.may_lack(server, route) {
            self.claim_late(id, server);
            return self.repair_and_redo(id, flight, bytes, server);
        }
        let link_id = self.link_for(server, route);
        let body: Option<&Body> = flight.body.as_ref();
        let purpose = (Role::Decide, flight.verb, Some(id));
        self.queue_bytes(link_id, bytes, body, key_token(flight), purpose);
    }

    /// From now on nothing may overtake a request whose new server may lack the key.
    fn claim_late(&mut self, id: TxnId, server: usize) {
        let txn = self.txns.at(id);
        let (route, exclusive) = (txn.route, txn.exclusive);
        if !exclusive {
            self.txns.at(id).exclusive = self.claim(route, server);
        }
    }

    /// A write got no answer in time, but its connection lives: the client hears that the outcome is unknown, or what
    /// another copy said; the write itself stays in its place.
    pub(super) fn write_late(&mut self, id: TxnId) {
        let txn = self.txns.at(id);
        txn.waiting = txn.waiting.saturating_sub(1);
        if txn.waiting > 0 || txn.answered {
            return;
        }
        // That a cold copy lacks the key says nothing while another one has not answered.
        let told = txn.best != NO_RANK && (!lacks_cold(txn.best) || is(Sabotage::LateIsAbsent));
        if told && !txn.undecided {
            self.answer_if_all_did(id);
            return;
        }
        self.counters.failed_writes += 1;
        self.say_late(id);
    }

    /// A client that is still waiting hears that nothing came in time.
    pub(super) fn say_late(&mut self, id: TxnId) {
        let txn = self.txns.at(id);
        if std::mem::replace(&mut txn.answered, true) {
            return;
        }
        let (client, seq, quiet, verb) = (txn.client, txn.seq, txn.quiet, txn.verb);
        // Of one copy's answer, which was kept.
        self.replace_reply(client, seq, Reply::None);
        let silent = quiet && !verb.is_meta();
        let line = if silent { b"" } else { replies::TIMED_OUT };
        self.finish_with(client, seq, 1, line);
    }

    /// When the last copy has answered an unconditional write, or is lost, none must be left to differ.
    pub(super) fn heal_if_refused(
        &mut self,
        id: TxnId,
        flight: &InFlight,
        bytes: impl FnOnce() -> Vec<u8>,
    ) {
        let txn = self.txns.at(id);
        if txn.outstanding == 0 && txn.erred != 0 && txn.took != 0 {
            self.heal_refused(id, flight, &bytes());
        }
    }

    /// Some copies took an unconditional write and some refused it: where it differs from what its client was told, or else
    /// from the acting primary's outcome, the key is deleted. A copy of a better rank that refused it too late for the client
    /// to hear of it gets it from one that took it, if it has the memory now.
    fn heal_refused(&mut self, id: TxnId, flight: &InFlight, bytes: &[u8]) {
        if is(Sabotage::MirrorNotHealed) {
            return;
        }
        let txn = self.txns.at(id);
        let first = match txn.best {
            best if txn.answered && best != NO_RANK && !is(Sabotage::LateRefusalCounts) => {
                best & !COLD
            }
            _ => txn.rank,
        };
        let (route, first) = (txn.route, usize::from(first).min(63));
        let wrong = if txn.erred & (1 << first) != 0 {
            txn.took
        } else {
            txn.erred
        };
        let key = key_token(flight).of(bytes);
        let noted = NotedKey::new(key, is_base64(flight.verb, bytes));
        for rank in 0..self.routes.ranks().min(63) {
            let server = self.routes.server(route, rank);
            if let (Some(server), true) = (server, wrong & (1 << rank) != 0) {
                if self.servers[server].is_up() {
                    self.heal(server, route, &noted);
                    if rank < first {
                        self.wait_for_repair(id, &noted, server, Then::Answer(id));
                    }
                }
            }
        }
    }

    /// A copy differs: it forgets the key.
    pub(super) fn heal(&mut self, server: usize, route: Route, noted: &NotedKey) {
        self.counters.disagreements += 1;
        self.counters.heals += 1;
        self.delete_on(server, route, noted, Role::Heal);
    }
}
