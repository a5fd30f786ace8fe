//! Flow: reads. The acting primary is asked; when it fails, the next copy; when none is left, it is a miss.

use super::client::Reply;
use super::ids::LinkId;
use super::op::Op;
use super::order::bucket;
use super::sabotage::{is, Sabotage};
use super::server::{InFlight, Role};
use super::txn::TxnId;
use super::Proxy;
use crate::proto::token::{push_decimal, Token, Tokens};
use crate::proto::{replies, Verb};

/// The words a retrieval begins with.
pub(super) fn push_retrieval(out: &mut Vec<u8>, verb: Verb, exptime: i32) {
    out.extend_from_slice(match verb {
        Verb::Gets => b"gets ",
        Verb::Gat => b"gat ",
        Verb::Gats => b"gats ",
        _ => b"get ",
    });
    if verb.is_gat() {
        push_exptime(out, exptime);
        out.push(b' ');
    }
}

pub(super) fn push_exptime(out: &mut Vec<u8>, exptime: i32) {
    if exptime < 0 {
        out.push(b'-');
    }
    push_decimal(out, u64::from(exptime.unsigned_abs()));
}

impl Proxy {
    /// Asks for the keys of one retrieval.
    pub(super) fn retrieve(&mut self, op: &Op<'_>) {
        if op.key_count > 1 {
            self.gather(op);
            return;
        }
        let Some((link_id, id)) = self.open_read(op) else {
            return;
        };
        self.queue_key(link_id, op.verb, op.exptime, op.key.of(op.line), id);
    }

    /// Begins a read of one key: whom to ask, and the transaction. `None`: nobody is up, and that has been said.
    fn open_read(&mut self, op: &Op<'_>) -> Option<(LinkId, TxnId)> {
        let Some((rank, server)) = self.acting_with_room(op.route) else {
            self.answer_unreachable(op);
            return None;
        };
        let exclusive = self.claim(op.route, server);
        let id = self.txns.open(op);
        let txn = self.txns.at(id);
        txn.exclusive = exclusive;
        txn.rank = rank as u8;
        txn.epoch = self.order.short_epoch(bucket(op.route.hash));
        self.counters.failovers += u64::from(rank > 0);
        let mut link_id = self.link_for(server, op.route);
        if is(Sabotage::ReadNotOrdered) {
            link_id.conn = (link_id.conn + 1) % self.servers[server].conns as u16;
        }
        Some((link_id, id))
    }

    /// Queues a retrieval of one key.
    fn queue_key(&mut self, link_id: LinkId, verb: Verb, exptime: i32, key: &[u8], txn: TxnId) {
        let link = self.link_mut(link_id);
        let start = link.log.end();
        link.log
            .write_with(|out| push_retrieval(out, verb, exptime));
        let at = (link.log.end() - start) as usize;
        link.log.write(key);
        link.log.write(b"\r\n");
        let token = Token {
            start: at,
            end: at + key.len(),
        };
        self.put_in_flight(link_id, start, Role::Read, verb, Some(txn), token, None);
    }

    /// `mg` and `me`: like a retrieval of one key, passed on as they came.
    pub(super) fn read_one(&mut self, op: &Op<'_>) {
        self.counters.cmd_meta += u64::from(!self.is_resumed(op.client, op.seq));
        let Some((link_id, id)) = self.open_read(op) else {
            return;
        };
        self.queue_op(link_id, op, Role::Read, id);
    }

    /// No copy is up: the keys are misses, and counted as failed.
    fn answer_unreachable(&mut self, op: &Op<'_>) {
        self.count_failed_reads(op.verb, op.key_count as u64);
        let reply = miss_reply(op.verb, op.last, op.quiet, op.line);
        self.finish_slot(op.client, op.seq, op.key_count, &reply);
    }

    /// A read got no answer from the copy it was asked of: the next one is asked. `bytes` is the request.
    /// `server` is the one that failed.
    pub(super) fn reread(&mut self, id: TxnId, flight: &InFlight, bytes: &[u8], server: usize) {
        let txn = self.txns.at(id);
        if txn.part.is_some() || txn.keys > 1 {
            self.regather(id, flight, bytes, server);
            return;
        }
        let (client, seq, route, rank) = (txn.client, txn.seq, txn.route, txn.rank);
        let epoch = self.order.short_epoch(bucket(route.hash));
        let overtaken = std::mem::replace(&mut self.txns.at(id).epoch, epoch) != epoch;
        let gives_up =
            (overtaken && !is(Sabotage::PassingOvertaken)) || is(Sabotage::PassingGivenUp);
        if gives_up && self.client(client).is_some_and(|c| c.is_passing(seq)) {
            // The value that has gone out in part may be another one by now.
            self.txns.at(id).answered = true;
            return self.cut_off(client);
        }
        self.replace_reply(client, seq, Reply::None);
        let Some((rank, server)) = self.acting(route, usize::from(rank) + 1) else {
            self.fail_read(id, bytes);
            return;
        };
        self.counters.failovers += 1;
        let txn = self.txns.at(id);
        txn.rank = rank as u8;
        // What was brought over was brought to another one.
        txn.repaired = false;
        let link_id = self.link_for(server, route);
        let key = key_token(flight);
        if flight.verb.is_gat() {
            let verb = without_touch(flight.verb);
            return self.queue_key(link_id, verb, 0, key.of(bytes), id);
        }
        let purpose = (Role::Read, flight.verb, Some(id));
        self.queue_bytes(link_id, bytes, None, key, purpose);
    }

    /// No copy is left to be asked for the key of `request`.
    fn fail_read(&mut self, id: TxnId, request: &[u8]) {
        let txn = self.txns.at(id);
        txn.answered = true;
        let reply = miss_reply(txn.verb, txn.last, txn.quiet, request.trim_ascii_end());
        let (client, seq, verb, keys) = (txn.client, txn.seq, txn.verb, usize::from(txn.keys));
        self.count_failed_reads(verb, keys as u64);
        self.finish_slot(client, seq, keys, &reply);
    }
}

/// How the next copy is asked for what a `gat` got no answer to: it has been told the new time to live before, in the order
/// of the writes to the key, and may have got other writes since.
pub(super) fn without_touch(verb: Verb) -> Verb {
    match verb {
        Verb::Gat => Verb::Get,
        Verb::Gats => Verb::Gets,
        verb => verb,
    }
}

/// The key's place in a request that is in flight.
pub(super) fn key_token(flight: &InFlight) -> Token {
    let start = usize::from(flight.key_at);
    Token {
        start,
        end: start + usize::from(flight.key_len),
    }
}

/// What a client sees of a read that found nothing. `line` is the request.
pub(super) fn miss_reply(verb: Verb, last: bool, quiet: bool, line: &[u8]) -> Vec<u8> {
    match verb {
        Verb::MetaGet if quiet => Vec::new(),
        Verb::MetaGet => meta_miss(line),
        Verb::MetaDebug => replies::META_MISS.to_vec(),
        _ if last => replies::END.to_vec(),
        _ => Vec::new(),
    }
}

/// `EN` with what a client knows its request by: `k` (and `b`) and `O`, in the order asked for.
fn meta_miss(line: &[u8]) -> Vec<u8> {
    let tokens = Tokens::split(line);
    let base64 = tokens.as_slice().iter().skip(2).any(|t| t.of(line) == b"b");
    let mut reply = b"EN".to_vec();
    for token in tokens.as_slice().iter().skip(2) {
        match line[token.start] {
            b'O' => {
                reply.push(b' ');
                reply.extend_from_slice(token.of(line));
            }
            b'k' => {
                reply.extend_from_slice(b" k");
                reply.extend_from_slice(tokens.get(1).of(line));
                if base64 {
                    reply.extend_from_slice(b" b");
                }
            }
            _ => {}
        }
    }
    reply.extend_from_slice(b"\r\n");
    reply
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_miss_echoes_what_it_is_known_by() {
        assert_eq!(meta_miss(b"mg k O7 v k"), b"EN O7 kk\r\n");
        assert_eq!(meta_miss(b"mg YQ== b k t"), b"EN kYQ== b\r\n");
        assert_eq!(miss_reply(Verb::Get, false, false, b"get k"), b"");
    }
}
