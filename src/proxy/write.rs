//! Flow: writes. What has the same outcome everywhere goes to all copies at once; what depends on what is there is
//! decided by the acting primary, and its outcome is mirrored when its answer comes.
//!
//! The client is answered when every copy that is up has answered, with the words of the copy of the best rank.

use std::rc::Rc;

use super::client::Reply;
use super::ids::LinkId;
use super::op::{Data, Op};
use super::order::bucket;
use super::repair::{Redo, Then};
use super::sabotage::{is, Sabotage};
use super::server::{InFlight, Role};
use super::tail::Tail;
use super::txn::{TxnId, COLD, NO_RANK};
use super::version::{told, value_of};
use super::{cas, Proxy};
use crate::config::Ack;
use crate::proto::response::{took_effect, Code};
use crate::proto::token::{parse_decimal, Token};
use crate::proto::{replies, Verb};

impl Proxy {
    /// Sends an unconditional write to all copies that are up.
    pub(super) fn write_all(&mut self, op: &Op<'_>) {
        self.count_write(op.asked);
        let Some((first, server)) = self.acting(op.route, 0).filter(|_| !self.crowd.refusing)
        else {
            self.refuse_write(op);
            return;
        };
        self.leave_out_absent(op, first);
        self.leave_out_former(op);
        self.order.passes(bucket(op.route.hash));
        let id = self.txns.open(op);
        self.txns.at(id).exclusive = self.claim(op.route, server);
        self.txns.at(id).rank = first as u8;
        let copies = match self.routes.ejects() {
            // It is at one place only.
            true => first..first + 1,
            false => 0..self.routes.ranks(),
        };
        for rank in copies {
            let Some(server) = self.routes.server(op.route, rank) else {
                continue;
            };
            if self.servers[server].is_up() {
                let link_id = self.link_for(server, op.route);
                self.queue_op(link_id, op, Role::Copy(rank as u8), id);
            }
        }
        self.counters.mirrored += u64::from(self.txns.at(id).outstanding) - 1;
        self.delete_behind(id, op.route, || op.noted(), first);
        self.delete_former(id, op);
    }

    /// Asks the acting primary to decide.
    pub(super) fn write_deciding(&mut self, op: &Op<'_>) {
        self.count_write(op.asked);
        let Some((rank, server)) = self.acting(op.route, 0).filter(|_| !self.crowd.refusing) else {
            self.refuse_write(op);
            return;
        };
        let id = self.txns.open(op);
        let exclusive = self.claim(op.route, server);
        let txn = self.txns.at(id);
        txn.exclusive = exclusive;
        txn.rank = rank as u8;
        txn.undecided = true;
        self.leave_out_absent(op, rank);
        self.leave_out_former(op);
        self.delete_behind(id, op.route, || op.noted(), rank);
        self.order.passes(bucket(op.route.hash));
        // With one copy the order of its stream is all the order there is.
        if self.routes.ranks() > 1 {
            self.order.begin(bucket(op.route.hash));
        }
        if creates(op) && self.may_lack(server, op.route) {
            self.repair_first(id, op, server);
            return;
        }
        let link_id = self.link_for(server, op.route);
        let Some(token) = cas::condition(op.verb, op.line) else {
            self.queue_op(link_id, op, Role::Decide, id);
            self.mirror_early(link_id, id);
            return;
        };
        let mut line = std::mem::take(&mut self.scratch);
        line.clear();
        let tag = self.servers[server].tag;
        cas::open_request(op.line, token, Some(tag), self.explicit_cas, &mut line);
        // What is left out (`noreply`, `q`) may stand on either side of the token.
        let moved = if op.strip.start > token.start {
            line.len() as isize - op.line.len() as isize
        } else {
            0
        };
        let strip = Token {
            start: op.strip.start.wrapping_add_signed(moved),
            end: op.strip.end.wrapping_add_signed(moved),
        };
        let opened = Op {
            line: &line,
            strip,
            ..*op
        };
        self.queue_op(link_id, &opened, Role::Decide, id);
        self.scratch = line;
        self.mirror_early(link_id, id);
    }

    /// What stores where there is nothing must not be asked of a server that may lack the key.
    fn repair_first(&mut self, id: TxnId, op: &Op<'_>, server: usize) {
        let mut request = Vec::with_capacity(op.line.len() + 2);
        request.extend_from_slice(&op.line[..op.strip.start]);
        request.extend_from_slice(&op.line[op.strip.end..]);
        request.extend_from_slice(b"\r\n");
        let mut body = None;
        match op.data {
            Data::None => {}
            Data::Inline(data) => request.extend_from_slice(data),
            Data::Bare(data) => {
                request.extend_from_slice(data);
                request.extend_from_slice(b"\r\n");
            }
            Data::Shared(shared) => body = Some(Rc::clone(shared)),
        }
        let noted = op.noted();
        let redo = Redo {
            txn: id,
            role: Role::Decide,
            verb: op.verb,
            key: op.key,
            request,
            body,
        };
        let then = Then::Redo(Box::new(redo));
        self.begin_repair(&noted, op.route, server, then);
    }

    fn refuse_write(&mut self, op: &Op<'_>) {
        self.counters.failed_writes += 1;
        let silent = op.quiet && !op.asked.is_meta();
        let line = match self.crowd.refusing {
            _ if silent => b"",
            true => replies::SERVER_BUSY,
            false => replies::NO_SERVER,
        };
        self.finish_with(op.client, op.seq, 1, line);
    }

    /// Whether the client hears what the acting primary says before the other copies have answered.
    fn answers_early(&self) -> bool {
        self.settings.ack == Ack::Primary || is(Sabotage::AnsweredEarly)
    }

    /// A copy has answered an unconditional write.
    pub(super) fn copy_answered(
        &mut self,
        link: LinkId,
        id: TxnId,
        flight: &InFlight,
        rank: u8,
        code: Code,
        tail: &Tail<'_>,
    ) {
        if flight.verb == Verb::Touch && took_effect(code) {
            self.touched(link, id, flight);
        }
        let cold = self.servers[usize::from(link.server)].cold;
        let txn = self.txns.at(id);
        let bit = 1u64 << rank.min(63);
        if code.is_error() {
            txn.erred |= bit;
        } else if code != Code::NotFound && code != Code::MetaNotFound {
            txn.took |= bit;
        }
        // That a cold server lacks the key says nothing if another copy has it.
        let lacks = matches!(code, Code::NotFound | Code::MetaNotFound);
        let rank = if cold && lacks { rank | COLD } else { rank };
        if txn.erred != 0 {
            let bytes = self.flight_bytes(link, flight).to_vec();
            self.heal_if_refused(id, flight, || bytes);
        }
        let txn = self.txns.at(id);
        if rank < txn.best && !txn.answered {
            if txn.best != NO_RANK {
                let (client, seq) = (txn.client, txn.seq);
                self.replace_reply(client, seq, Reply::None);
            }
            let early = self.answers_early();
            let txn = self.txns.at(id);
            txn.best = rank;
            // With one copy, or once the others have answered, nothing needs to be kept.
            let enough = early && rank == txn.rank;
            if txn.waiting == 0 || enough {
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
        tail: &Tail<'_>,
    ) {
        let server = usize::from(id.server);
        let txn = self.txns.at(txn_id);
        let (route, repaired) = (txn.route, txn.repaired);
        // A client that was told that the outcome is unknown is not asked for again: its transaction ends here.
        let asks_again = !repaired && !txn.answered;
        if says_absent(flight.verb, code) && asks_again && self.may_lack(server, route) {
            let bytes = self.flight_bytes(id, flight).to_vec();
            self.repair_and_redo(txn_id, flight, &bytes, server);
            return;
        }
        let txn = self.txns.at(txn_id);
        txn.undecided = false;
        txn.best = txn.rank;
        txn.number = counter(flight.verb, code, tail.text);
        let mirrors = self.routes.ranks() > 1 && !is(Sabotage::MirroredEarly);
        if took_effect(code) && route.former().is_some() {
            let bytes = self.flight_bytes(id, flight).to_vec();
            self.delete_former_of(txn_id, route, flight, &bytes);
        }
        if took_effect(code) && mirrors {
            self.order.passes(bucket(route.hash));
            self.mirror_outcome(id, txn_id, flight);
        }
        let enough = self.answers_early();
        let txn = self.txns.at(txn_id);
        if txn.waiting == 0 || enough {
            if !txn.answered {
                self.answer_write(txn_id, code, tail);
            }
        } else if !txn.answered {
            self.keep_reply(txn_id, code, tail);
        }
        self.decided(bucket(route.hash));
    }

    /// Keeps the answer of the copy with the best rank until the other copies have answered.
    fn keep_reply(&mut self, id: TxnId, code: Code, tail: &Tail<'_>) {
        let txn = self.txns.at(id);
        let (client_id, seq, verb) = (txn.client, txn.seq, txn.verb);
        let (code, tail) = told(verb, code, tail);
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
        } else if tail.is_done_with_token() {
            client.replace(seq, Reply::Done(tail.cas()), &mut self.memory);
        } else if let Some(line) = fixed(code, tail.text) {
            client.replace(seq, Reply::Fixed(line), &mut self.memory);
        } else {
            // The first pieces of a long answer are there already.
            client.extend_with(seq, &tail, &mut self.memory);
        }
    }

    /// Answers the client with `tail`, behind what came before it.
    fn answer_write(&mut self, id: TxnId, code: Code, tail: &Tail<'_>) {
        let txn = self.txns.at(id);
        txn.answered = true;
        let (client, seq, verb) = (txn.client, txn.seq, txn.verb);
        let (code, tail) = told(verb, code, tail);
        let silent = is_silent(verb, txn.quiet, code);
        self.count_reply(verb, code);
        if silent {
            self.finish_with(client, seq, 1, b"");
        } else {
            self.finish_slot_with(client, seq, 1, &tail);
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
}

/// Whether a conditional write stores something where there is nothing.
fn creates(op: &Op<'_>) -> bool {
    match op.verb {
        Verb::Add => true,
        Verb::MetaSet => matches!(op.meta.mode, b'E' | b'e') || op.meta.has(b'N'),
        Verb::MetaArithmetic | Verb::MetaGet => op.meta.has(b'N'),
        _ => false,
    }
}

/// Whether the answer says that there is no such key (for `add` it says the contrary).
pub(super) fn says_absent(verb: Verb, code: Code) -> bool {
    match code {
        Code::NotFound | Code::MetaNotFound | Code::MetaMiss => true,
        Code::NotStored => verb != Verb::Add,
        Code::MetaNotStored => true,
        _ => false,
    }
}

/// What a counter stands at, where the answer tells.
pub(super) fn counter(verb: Verb, code: Code, tail: &[u8]) -> Option<u64> {
    match (verb, code) {
        (_, Code::Number) | (Verb::MetaArithmetic, Code::MetaValue) => {
            parse_decimal(value_of(tail).trim_ascii_end())
        }
        _ => None,
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
