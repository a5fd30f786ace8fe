//! Flow: bytes of a server become answers; each belongs to the oldest request in flight on its connection.
//!
//! An answer that does not fit its request means that the two ends have lost each other: the connection is given up
//! before one client reads what belongs to another.

use super::events::Kind;
use super::ids::{Action, CloseReason, LinkId};
use super::mirror::has_flag;
use super::sabotage::{is, Sabotage};
use super::server::{InFlight, LinkState, Role};
use super::tail::Tail;
use super::{cas, Proxy};
use crate::proto::response::{self, code, Code};
use crate::proto::Verb;
use crate::time::Time;

/// Longest line a server sends: a `VALUE` or meta reply with the longest key and every flag.
const LINE_MAX: usize = 4096;

/// How reading went on.
pub(super) enum Step {
    /// This many bytes are used up; go on.
    Used(usize),
    /// More bytes are needed.
    Wait,
    /// The connection has been given up.
    Gone,
}

impl Proxy {
    /// Bytes from a server, the first `count` of `chunk`. Most of a long value is passed on without being copied: then the
    /// core keeps `chunk`, and leaves another one of [`CHUNK`](crate::buf::CHUNK) bytes in its place.
    pub fn link_received_in(&mut self, id: LinkId, chunk: &mut Vec<u8>, count: usize, now: Time) {
        let link = self.link_mut(id);
        let open = matches!(link.state, LinkState::Unproven | LinkState::Ready);
        // Few bytes in a large buffer are better copied.
        let worth = count >= chunk.len() / 4 * 3;
        if open && worth && link.partial.is_empty() && self.pass_chunk(id, chunk, count) {
            self.now = now;
            let link = self.link_mut(id);
            link.last_received = now;
            link.note_moved(count, now);
        } else {
            self.link_received(id, &chunk[..count], now);
        }
    }

    /// Bytes from a server.
    pub fn link_received(&mut self, id: LinkId, bytes: &[u8], now: Time) {
        self.now = now;
        self.servers[usize::from(id.server)].bytes_received += bytes.len() as u64;
        let link = self.link_mut(id);
        if !matches!(link.state, LinkState::Unproven | LinkState::Ready) {
            return;
        }
        link.last_received = now;
        link.note_moved(bytes.len(), now);
        if link.partial.is_empty() {
            if let Some(used) = self.take_answers(id, bytes) {
                self.keep_answer(id, &bytes[used..]);
            }
            return;
        }
        let mut partial = std::mem::take(&mut link.partial);
        self.memory.give(partial.len());
        partial.extend_from_slice(bytes);
        if let Some(used) = self.take_answers(id, &partial) {
            self.keep_answer(id, &partial[used..]);
        }
        self.memory.recycle(partial);
    }

    fn keep_answer(&mut self, id: LinkId, rest: &[u8]) {
        if !rest.is_empty() {
            let mut buffer = self.memory.buffer();
            buffer.extend_from_slice(rest);
            self.memory.take(rest.len());
            self.link_mut(id).partial = buffer;
        }
    }

    /// Takes what it can from the front of `bytes`; how much that was. `None`: the connection has been given up.
    fn take_answers(&mut self, id: LinkId, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            let step = match self.link_mut(id).block {
                Some(block) => self.take_block(id, block, rest),
                None => self.take_line(id, rest),
            };
            match step {
                Step::Used(count) => at += count,
                Step::Wait => break,
                Step::Gone => return None,
            }
        }
        Some(at)
    }

    pub(super) fn nonsense(&mut self, id: LinkId, bytes: &[u8]) -> Step {
        if self.is_listing(id) {
            self.listing_closed(id);
            self.actions.push_back(Action::CloseLink(id));
            return Step::Gone;
        }
        let shown = bytes[..bytes.len().min(80)].escape_ascii();
        let detail = format!("unexpected answer: {shown}");
        self.happened_to(usize::from(id.server), Kind::ServerStrange, detail);
        self.server_lost(usize::from(id.server), CloseReason::Nonsense);
        Step::Gone
    }

    fn take_line(&mut self, id: LinkId, bytes: &[u8]) -> Step {
        let Some(newline) = memchr::memchr(b'\n', bytes) else {
            return if bytes.len() > LINE_MAX {
                self.nonsense(id, bytes)
            } else {
                Step::Wait
            };
        };
        let next = newline + 1;
        let line = if newline > 0 && bytes[newline - 1] == b'\r' {
            &bytes[..newline - 1]
        } else {
            &bytes[..newline]
        };
        let link = self.link_mut(id);
        let Some(head) = link.fifo.front() else {
            return self.nonsense(id, bytes);
        };
        let (role, verb) = (head.role, head.verb);
        if role == Role::Listing {
            return if self.take_listing(id, line) {
                Step::Used(next)
            } else {
                Step::Gone
            };
        }
        let code = code(line);
        if !response::fits(verb, code) {
            return self.nonsense(id, bytes);
        }
        if code == Code::Stat {
            match role {
                Role::Inquire(inquiry) => self.inquiry_line(inquiry, line),
                _ => self.note_process(usize::from(id.server), line),
            }
            return Step::Used(next);
        }
        if code == Code::Value {
            return self.take_value(id, line, next, bytes);
        }
        if verb == Verb::MetaGet {
            self.link_mut(id).won = has_flag(line, b'W');
        }
        let mut token = None;
        if verb.is_meta() {
            let tag = self.servers[usize::from(id.server)].tag;
            token = cas::token_of_meta(verb, line, tag);
        }
        if code == Code::MetaValue {
            return self.take_meta_value(id, line, token, next, bytes);
        }
        let text = &bytes[..next];
        let tail = match token {
            Some((token, cas)) => Tail::with_token(text, token, cas),
            None => Tail::new(text),
        };
        self.finish_answer(id, code, &tail);
        Step::Used(next)
    }

    /// The oldest request is answered; `tail` is the last piece of the answer.
    pub(super) fn finish_answer(&mut self, id: LinkId, code: Code, tail: &Tail<'_>) {
        let server_index = usize::from(id.server);
        let server = &mut self.servers[server_index];
        let link = &mut server.links[usize::from(id.conn)];
        let hits = link.hits;
        let is_late = link.expired > 0;
        let Some(flight) = link.pop() else { return };
        let micros = self.now.since(flight.queued).0;
        server.latency.note(micros);
        let delay = self.now.since(flight.sent);
        let limit = self.settings.timeout;
        server.window.leave(flight.cost, delay, self.now, limit);
        if flight.txn.is_some() {
            if !server.proven {
                server.prove();
            }
            self.commands.note(flight.verb, micros);
            if self.slow.is_slow(micros) {
                self.note_slow(id, &flight, micros);
            }
        }
        match flight.txn {
            Some(txn_id) => {
                let txn = self.txns.at(txn_id);
                txn.outstanding -= 1;
                if !is_late || is(Sabotage::LateCountedTwice) {
                    // Nobody waits any more for one that is late.
                    txn.waiting = txn.waiting.saturating_sub(1);
                }
                self.finish_role(id, txn_id, &flight, code, tail, hits);
            }
            None => self.finish_own(id, &flight, code, tail.text),
        }
        let link = &mut self.servers[server_index].links[usize::from(id.conn)];
        link.log.release(flight.start, flight.end, &mut self.memory);
    }

    /// The answer to something that the proxy asked for itself.
    fn finish_own(&mut self, id: LinkId, flight: &InFlight, code: Code, tail: &[u8]) {
        match flight.role {
            Role::Probe => self.probe_answered(id, code, tail),
            Role::Stamp => self.stamp_answered(id, flight, code),
            Role::Restamp => self.restamp_answered(id, code),
            Role::Mark(index) => self.marked(usize::from(index), code),
            Role::Seen => self.seen(id),
            Role::Fetch(repair) => {
                self.note_pace(repair, flight.queued);
                self.fetch_answered(repair, code, tail);
            }
            Role::Bring(repair) => {
                // Not taken: it was there already, or this server cannot hold it.
                self.note_pace(repair, flight.queued);
                self.end_repair(repair, true);
            }
            Role::Tidy => {
                self.tidied();
                self.tidy();
            }
            Role::Entry => self.entry_answered(id, flight.verb, code),
            Role::Inquire(inquiry) => self.inquiry_answered(inquiry, code, tail),
            // An item that did not fit, or was there already: absent, or newer.
            _ => {}
        }
    }

    fn finish_role(
        &mut self,
        id: LinkId,
        txn_id: u32,
        flight: &InFlight,
        code: Code,
        tail: &Tail<'_>,
        hits: u16,
    ) {
        match flight.role {
            Role::Read => self.read_answered(id, txn_id, flight, code, tail, hits),
            Role::Decide => self.decide_answered(id, txn_id, flight, code, tail),
            Role::Copy(rank) => self.copy_answered(id, txn_id, flight, rank, code, tail),
            Role::Mirror => self.mirror_answered(id, txn_id, flight, code, tail.text),
            Role::Behind => self.answer_if_all_did(txn_id),
            Role::Flush(more) => self.flush_answered(id, txn_id, more, code, tail.text),
            Role::Refill | Role::Exact => self.answer_if_all_did(txn_id),
            Role::Fence => {
                self.answer_if_all_did(txn_id);
                self.flush_passed(txn_id);
            }
            _ => {}
        }
        self.close_txn(txn_id);
    }

    fn read_answered(
        &mut self,
        id: LinkId,
        txn_id: u32,
        flight: &InFlight,
        code: Code,
        tail: &Tail<'_>,
        hits: u16,
    ) {
        let server = usize::from(id.server);
        let txn = self.txns.at(txn_id);
        let (client, seq, keys, part) = (txn.client, txn.seq, txn.keys, txn.part);
        if code.is_error() {
            let list = keys > 1 || part.is_some();
            let (route, rank) = (txn.route, usize::from(txn.rank));
            let another = self.acting(route, rank + 1).is_some();
            if list || (code == Code::ServerError && another) {
                let link = &self.servers[server].links[usize::from(id.conn)];
                let bytes = link.log.bytes(flight.start, flight.end).to_vec();
                self.reread(txn_id, flight, &bytes, server);
                return;
            }
        }
        let txn = self.txns.at(txn_id);
        let missed = hits == 0 && matches!(code, Code::End | Code::MetaMiss);
        if missed && part.is_none() && keys == 1 && !txn.repaired {
            let route = txn.route;
            if self.may_lack(server, route) {
                let bytes = self.flight_bytes(id, flight).to_vec();
                self.repair_and_redo(txn_id, flight, &bytes, server);
                return;
            }
        }
        if flight.verb == Verb::MetaGet && self.link_mut(id).won {
            self.mirror_win(id, txn_id, flight);
        }
        let txn = self.txns.at(txn_id);
        txn.answered = true;
        let (verb, quiet, last) = (txn.verb, txn.quiet, txn.last);
        // What a client is given once more for the same request is not counted twice.
        let may_be_resumed = keys == 1 && (!last || verb == Verb::MetaGet);
        let resumed = may_be_resumed && self.is_resumed(client, seq);
        if verb.is_retrieval() && !resumed {
            self.count_retrieval(verb, u64::from(hits), u64::from(keys));
        } else if !resumed {
            self.count_reply(verb, code);
        }
        if let Some(part) = part {
            if hits < keys {
                let bytes = self.flight_bytes(id, flight).to_vec();
                self.repair_missing(part, server, flight, &bytes);
            }
            self.end_part(part);
            return;
        }
        let silent = (quiet && code == Code::MetaMiss) || (code == Code::End && !last);
        let nothing = Tail::default();
        let tail = if silent { &nothing } else { tail };
        self.finish_slot_with(client, seq, usize::from(keys), tail);
    }

    /// The bytes of a request in flight on `id`.
    pub(super) fn flight_bytes(&self, id: LinkId, flight: &InFlight) -> &[u8] {
        let link = &self.servers[usize::from(id.server)].links[usize::from(id.conn)];
        link.log.bytes(flight.start, flight.end)
    }
}
