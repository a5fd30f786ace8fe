//! Flow: writes. What has the same outcome everywhere goes to all copies at once; what depends on what is there is
//! decided by the acting primary, and its outcome is mirrored when its answer comes.
//!
//! The client is answered when every copy that is up has answered, with the words of the copy of the best rank.

use super::client::Reply;
use super::ids::LinkId;
use super::op::Op;
use super::order::bucket;
use super::read::key_token;
use super::server::{InFlight, Role};
use super::txn::{TxnId, NO_RANK};
use super::Proxy;
use crate::buf::Body;
use crate::proto::response::{took_effect, Code};
use crate::proto::{replies, Verb};

impl Proxy {
    /// Sends an unconditional write to all copies that are up.
    pub(super) fn write_all(&mut self, op: &Op<'_>) {
        self.count_write(op.verb);
        let Some((first, _)) = self.acting(op.route, 0) else {
            self.refuse_write(op);
            return;
        };
        let id = self.txns.open(op);
        for rank in first..self.routes.ranks() {
            let Some(server) = self.routes.server(op.route, rank) else {
                continue;
            };
            if self.servers[server].is_up() {
                let link_id = self.link_for(server, op.route);
                self.queue_op(link_id, op, Role::Copy(rank as u8), id);
            }
        }
        self.counters.mirrored += u64::from(self.txns.at(id).outstanding) - 1;
    }

    /// Asks the acting primary to decide.
    pub(super) fn write_deciding(&mut self, op: &Op<'_>) {
        self.count_write(op.verb);
        let Some((rank, server)) = self.acting(op.route, 0) else {
            self.refuse_write(op);
            return;
        };
        let id = self.txns.open(op);
        let txn = self.txns.at(id);
        txn.rank = rank as u8;
        txn.undecided = true;
        // With one copy the order of its stream is all the order there is.
        if self.routes.ranks() > 1 {
            self.order.begin(bucket(op.route.hash));
        }
        let link_id = self.link_for(server, op.route);
        self.queue_op(link_id, op, Role::Decide, id);
    }

    fn refuse_write(&mut self, op: &Op<'_>) {
        self.counters.failed_writes += 1;
        let silent = op.quiet && !op.verb.is_meta();
        let line = if silent { b"" } else { replies::NO_SERVER };
        self.finish_with(op.client, op.seq, 1, line);
    }

    /// A copy has answered an unconditional write.
    pub(super) fn copy_answered(&mut self, id: TxnId, rank: u8, code: Code, tail: &[u8]) {
        let txn = self.txns.at(id);
        if txn.best != NO_RANK && code.is_error() {
            self.counters.disagreements += 1;
        }
        if rank < txn.best && !txn.answered {
            if txn.best != NO_RANK {
                let (client, seq) = (txn.client, txn.seq);
                self.replace_reply(client, seq, Reply::None);
            }
            let txn = self.txns.at(id);
            txn.best = rank;
            // With one copy, or once the others have answered, nothing needs to be kept.
            if txn.waiting == 0 {
                self.answer_write(id, code, tail);
                return;
            }
            self.keep_reply(id, code, tail);
        }
        self.answer_if_all_did(id);
    }

    /// The acting primary has decided a conditional write.
    pub(super) fn decide_answered(
        &mut self,
        id: LinkId,
        txn_id: TxnId,
        flight: &InFlight,
        code: Code,
        tail: &[u8],
    ) {
        let txn = self.txns.at(txn_id);
        let route = txn.route;
        txn.undecided = false;
        txn.best = txn.rank;
        if took_effect(code) && self.routes.ranks() > 1 {
            self.mirror_outcome(id, txn_id, flight, code, tail);
        }
        let txn = self.txns.at(txn_id);
        if txn.waiting == 0 {
            if !txn.answered {
                self.answer_write(txn_id, code, tail);
            }
        } else if !txn.answered {
            self.keep_reply(txn_id, code, tail);
        }
        self.decided(bucket(route.hash));
    }

    /// A copy has taken over an outcome.
    pub(super) fn mirror_answered(&mut self, id: TxnId, code: Code) {
        if !took_effect(code) {
            self.counters.disagreements += 1;
        }
        self.answer_if_all_did(id);
    }

    /// Keeps the answer of the copy with the best rank until the other copies have answered.
    fn keep_reply(&mut self, id: TxnId, code: Code, tail: &[u8]) {
        let txn = self.txns.at(id);
        let (client_id, seq, verb) = (txn.client, txn.seq, txn.verb);
        txn.code = code;
        let silent = is_silent(verb, txn.quiet, code);
        let Some(client) = self.clients.get_mut(client_id.index as usize) else {
            return;
        };
        if client.generation != client_id.generation {
            return;
        }
        if silent {
            client.replace(seq, Reply::None, &mut self.memory);
        } else if let Some(line) = fixed(code, tail) {
            client.replace(seq, Reply::Fixed(line), &mut self.memory);
        } else {
            // The first pieces of a long answer are there already.
            client.extend(seq, tail, tail.len(), &mut self.memory);
        }
    }

    /// Answers the client with `tail`, behind what came before it.
    fn answer_write(&mut self, id: TxnId, code: Code, tail: &[u8]) {
        let txn = self.txns.at(id);
        txn.answered = true;
        let (client, seq, verb) = (txn.client, txn.seq, txn.verb);
        let silent = is_silent(verb, txn.quiet, code);
        self.count_reply(verb, code);
        if silent {
            self.finish_with(client, seq, 1, b"");
        } else {
            self.finish_slot(client, seq, 1, tail);
        }
    }

    /// When the last copy has answered (or is lost), the kept reply goes out.
    pub(super) fn answer_if_all_did(&mut self, id: TxnId) {
        let txn = self.txns.at(id);
        if txn.waiting > 0 || txn.answered || txn.undecided {
            return;
        }
        txn.answered = true;
        let (client, seq, quiet, verb) = (txn.client, txn.seq, txn.quiet, txn.verb);
        if txn.best == NO_RANK {
            self.counters.failed_writes += 1;
            let silent = quiet && !verb.is_meta();
            let line = if silent { b"" } else { replies::SERVER_LOST };
            self.finish_with(client, seq, 1, line);
        } else {
            let code = txn.code;
            self.count_reply(verb, code);
            self.finish_slot(client, seq, 1, b"");
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
        if txn.best != NO_RANK && !txn.undecided {
            self.answer_if_all_did(id);
            return;
        }
        txn.answered = true;
        let (client, seq, quiet, verb) = (txn.client, txn.seq, txn.quiet, txn.verb);
        self.counters.failed_writes += 1;
        let silent = quiet && !verb.is_meta();
        let line = if silent { b"" } else { replies::TIMED_OUT };
        self.finish_with(client, seq, 1, line);
    }

    /// The server that was to decide is lost before its answer came. The outcome was not mirrored, so the next copy
    /// still has what was there before, and decides. `bytes` and `body` are the request.
    pub(super) fn redecide(&mut self, id: TxnId, flight: &InFlight, bytes: &[u8]) {
        let txn = self.txns.at(id);
        let (client, seq, route, rank) = (txn.client, txn.seq, txn.route, txn.rank);
        // A client that was told "unknown" keeps that answer, which may still wait for its turn in the client's order.
        let next = if txn.answered {
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
        let link_id = self.link_for(server, route);
        let body: Option<&Body> = flight.body.as_ref();
        let purpose = (Role::Decide, flight.verb, Some(id));
        self.queue_bytes(link_id, bytes, body, key_token(flight), purpose);
    }
}

/// Whether a client that asked for quiet hears nothing of this.
fn is_silent(verb: Verb, quiet: bool, code: Code) -> bool {
    if !quiet {
        return false;
    }
    match verb {
        Verb::MetaGet => code == Code::MetaMiss,
        Verb::MetaSet | Verb::MetaDelete => code == Code::MetaDone,
        Verb::MetaArithmetic => matches!(code, Code::MetaDone | Code::MetaValue),
        // `noreply` silences errors too.
        _ => true,
    }
}

/// The commonest lines need not be kept as bytes.
fn fixed(code: Code, line: &[u8]) -> Option<&'static [u8]> {
    let fixed: &'static [u8] = match code {
        Code::Stored => b"STORED\r\n",
        Code::NotStored => b"NOT_STORED\r\n",
        Code::Exists => b"EXISTS\r\n",
        Code::NotFound => b"NOT_FOUND\r\n",
        Code::Deleted => b"DELETED\r\n",
        Code::Touched => b"TOUCHED\r\n",
        Code::Ok => b"OK\r\n",
        Code::MetaDone => b"HD\r\n",
        _ => return None,
    };
    (fixed == line).then_some(fixed)
}
