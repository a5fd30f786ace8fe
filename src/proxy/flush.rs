//! Flow and room: the barrier, for what concerns many keys at once.
//!
//! `flush_all` concerns all keys, so nothing may pass it in either direction: what is in flight is finished first, what
//! comes after waits. A list of keys of which one has to wait stands here too, rather than in the queues of all its keys.

use std::collections::VecDeque;

use super::ids::{ClientId, LinkId};
use super::op::{Held, Op};
use super::sabotage::{is, Sabotage};
use super::server::{Role, Server};
use super::txn::{TxnId, NO_RANK};
use super::Proxy;
use crate::proto::request::Request;
use crate::proto::response::Code;
use crate::proto::token::{push_decimal, Token};
use crate::proto::{replies, Verb};
use crate::time::{Span, Time};

/// A `flush_all` that waits for its turn.
#[derive(Clone, Copy, Debug)]
struct Flush {
    client: ClientId,
    seq: u32,
    delay: i32,
    quiet: bool,
    /// The proxy's own: the moment of one with a delay has come.
    is_due: bool,
}

/// What stands at the barrier.
#[derive(Debug)]
enum Waiting {
    Flush(Flush),
    Op(Held),
    /// Another configuration, which is carried out when nothing is under way.
    Reload,
    /// The stamps of all servers that are up, as they were after this moment; and that it is known of those called then
    /// whether they answer.
    Stamps(Time),
}

/// Keeps order around `flush_all`.
#[derive(Debug, Default)]
pub struct Barrier {
    /// The flush under way, if it has been sent.
    sent: Option<TxnId>,
    queue: VecDeque<Waiting>,
}

impl Barrier {
    /// Whether requests have to wait.
    pub fn is_raised(&self) -> bool {
        self.sent.is_some() || !self.queue.is_empty()
    }

    /// Whether stamps are being read that others wait for.
    pub fn awaits_stamps(&self) -> bool {
        let mut waiting = self.queue.iter();
        waiting.any(|waiting| matches!(waiting, Waiting::Stamps(_)))
    }

    /// A reload comes next, ahead of all that waits.
    pub fn hold_reload(&mut self) {
        self.queue.push_front(Waiting::Reload);
    }

    /// It is not carried out after all.
    pub fn drop_reload(&mut self) {
        let stays = |waiting: &Waiting| !matches!(waiting, Waiting::Reload);
        self.queue.retain(stays);
    }

    /// Takes the requests out that wait, with their places; see [`Barrier::put_held`].
    pub fn take_held(&mut self) -> Vec<Held> {
        let mut held = Vec::new();
        for waiting in &mut self.queue {
            if let Waiting::Op(_) = waiting {
                if let Waiting::Op(op) = std::mem::replace(waiting, Waiting::Reload) {
                    held.push(op);
                }
            }
        }
        held
    }

    /// Puts them back in the same order.
    pub fn put_held(&mut self, held: Vec<Held>) {
        let mut held = held.into_iter();
        for waiting in &mut self.queue {
            if let Waiting::Reload = waiting {
                if let Some(op) = held.next() {
                    *waiting = Waiting::Op(op);
                }
            }
        }
    }

    /// Puts `op` at the end of the queue.
    pub fn hold(&mut self, op: Held) {
        self.queue.push_back(Waiting::Op(op));
    }
}

impl Proxy {
    /// Another proxy may have served until now: nothing is asked of the servers before their stamps are known.
    pub(super) fn check_stamps(&mut self) {
        let calls = self
            .servers
            .iter()
            .any(|server| server.called == Some(self.now));
        if calls || self.servers.iter().any(Server::is_up) {
            self.ask_stamps();
            // Ahead of all that waits already: it would be asked of servers that are not to be trusted.
            self.barrier.queue.push_front(Waiting::Stamps(self.now));
        }
    }

    /// A client asks for everything to be forgotten.
    pub(super) fn take_flush(&mut self, id: ClientId, request: &Request<'_>) {
        self.counters.cmd_flush += 1;
        if self.note_request() {
            self.take_charge();
        }
        let Some(client) = self.client_mut(id) else {
            return;
        };
        let seq = client.open_slot(1);
        self.barrier.queue.push_back(Waiting::Flush(Flush {
            client: id,
            seq,
            delay: request.exptime,
            quiet: request.quiet,
            is_due: false,
        }));
        self.pass_barrier();
    }

    /// Lets pass what can: called whenever something may have been finished while the barrier is up.
    pub(super) fn pass_barrier(&mut self) {
        while self.barrier.sent.is_none() && !self.reload.has_moved() {
            match self.barrier.queue.pop_front() {
                Some(Waiting::Flush(flush)) if flush.is_due && !self.is_flush_due() => {}
                Some(Waiting::Flush(flush)) => {
                    if !self.txns.is_empty() || self.order.is_holding() {
                        self.barrier.queue.push_front(Waiting::Flush(flush));
                        return;
                    }
                    self.send_flush(flush);
                }
                Some(Waiting::Stamps(since)) => {
                    if self.is_calling(since) || !self.has_stamps_since(since) {
                        self.barrier.queue.push_front(Waiting::Stamps(since));
                        return;
                    }
                    self.stamp_cold();
                }
                Some(Waiting::Op(held)) => {
                    let op = held.op();
                    if op.key_count > 1 && self.must_wait(&op) {
                        self.barrier.queue.push_front(Waiting::Op(held));
                        return;
                    }
                    let waited_for = "flush_all, or the stamps on take-over";
                    self.note_long_wait(&op, held.since, waited_for);
                    self.proceed(&op);
                    held.release(&mut self.memory);
                }
                Some(Waiting::Reload) => {
                    if !self.is_quiet() {
                        return self.barrier.hold_reload();
                    }
                    self.carry_out_reload();
                    // What waits goes on when the edge has followed.
                    return;
                }
                None => return,
            }
        }
    }

    fn send_flush(&mut self, flush: Flush) {
        if !self.lists.settled {
            self.settle_list();
        }
        let due = self.moment_of(flush.delay);
        let before = std::mem::replace(&mut self.flush_due, due);
        if (before.is_some() || due.is_some()) && self.has_views() && self.is_safe() {
            // The stamps tell of it.
            self.raise_view();
        }
        let mut line = b"flush_all".to_vec();
        if flush.delay > 0 {
            line.push(b' ');
            push_decimal(&mut line, u64::from(flush.delay.unsigned_abs()));
        }
        line.extend_from_slice(b"\r\n");
        let mut op = Op::of_keys(flush.client, flush.seq, Verb::FlushAll, flush.delay, 1);
        op.quiet = flush.quiet;
        let id = self.txns.open(&op);
        self.order.all_pass();
        self.ejects.flushed = flush.delay <= 0;
        for server in 0..self.servers.len() {
            if !self.servers[server].is_up_or_twin() {
                self.leave_out(server);
                if !is(Sabotage::FlushForgotten) {
                    self.servers[server].journal.note_flush();
                }
            }
        }
        for server in 0..self.servers.len() {
            if self.servers[server].is_up() {
                // On each connection: what this proxy asks for itself (a key on its way to a cold server) has no transaction
                // that could be waited for, and must not come in behind the flush on another one.
                let conns = self.servers[server].conns;
                for conn in 0..if is(Sabotage::FlushOvertaken) {
                    1
                } else {
                    conns
                } {
                    let link_id = Server::link_id(server, conn);
                    let more = match self.servers[server].flush_repeats() {
                        repeats if conn == 0 && flush.delay <= 0 => repeats,
                        _ => 0,
                    };
                    let purpose = (Role::Flush(more), Verb::FlushAll, Some(id));
                    self.queue_bytes(link_id, &line, None, Token::default(), purpose);
                }
                // The stamps are flushed with the rest.
                self.name_list(server);
                if self.servers[server].stamp.is_some() {
                    self.restamp(server);
                }
            }
        }
        if self.txns.at(id).outstanding == 0 {
            self.counters.failed_writes += 1;
            self.txns.at(id).answered = true;
            self.close_txn(id);
            let line = if flush.quiet { b"" } else { replies::NO_SERVER };
            self.finish_with(flush.client, flush.seq, 1, line);
        } else {
            self.barrier.sent = Some(id);
        }
    }

    /// A server has forgotten everything, or says why not.
    /// `more`: how often it is to be told again.
    pub(super) fn flush_answered(
        &mut self,
        link: LinkId,
        id: TxnId,
        more: u8,
        code: Code,
        tail: &[u8],
    ) {
        if more > 0 && !code.is_error() {
            let purpose = (Role::Flush(more - 1), Verb::FlushAll, Some(id));
            self.queue_bytes(link, b"flush_all\r\n", None, Token::default(), purpose);
            let server = usize::from(link.server);
            self.name_list(server);
            if self.servers[server].stamp.is_some() {
                self.restamp(server);
            }
        }
        if code.is_error() {
            self.ejects.flushed = false;
        }
        let txn = self.txns.at(id);
        if txn.best == NO_RANK || code.is_error() {
            txn.best = 0;
            let (client_id, seq, quiet) = (txn.client, txn.seq, txn.quiet);
            if let Some(client) = self.clients.get_mut(client_id.index as usize) {
                if client.generation == client_id.generation && !quiet {
                    client.discard(seq, &mut self.memory);
                    client.extend(seq, tail, tail.len(), &mut self.memory);
                }
            }
        }
        self.answer_if_all_did(id);
        self.flush_passed(id);
    }

    /// When the last server has answered (or is lost), the barrier goes down.
    pub(super) fn flush_passed(&mut self, id: TxnId) {
        if self.barrier.sent == Some(id) && self.txns.at(id).outstanding == 0 {
            self.barrier.sent = None;
            if std::mem::take(&mut self.ejects.flushed) && !self.ejects.known.is_empty() {
                self.end_ejection();
            }
        }
    }
}

/// memcached takes a longer delay for a moment since 1970.
const DELAY_MAX: u64 = super::refill::RELATIVE_MAX;

/// What a `flush_all` with a delay needs besides: the servers know its moment, the last one told; but one that restarts within
/// the delay forgets it, and one that was away has not heard of it. Both would be filled with what the others are about to forget.
/// So a server that is let in is told of what is left of the delay; and when the moment has come, all are flushed once more.
impl Proxy {
    /// When a `flush_all` with this delay takes effect; `None`: at once, or it has done so long ago.
    fn moment_of(&self, delay: i32) -> Option<Time> {
        let delay = u64::try_from(delay).ok().filter(|&delay| delay > 0)?;
        let unix = self.facts.unix(self.now);
        let left = match delay > DELAY_MAX {
            true => delay.checked_sub(unix).filter(|&left| left > 0)?,
            false => delay,
        };
        Some(self.now + Span::from_millis(left * 1000))
    }

    /// The same for stamps, in seconds since 1970.
    pub(super) fn flush_moment(&self) -> Option<u64> {
        let left = self.flush_due?.since(self.now).0.div_ceil(1_000_000);
        Some(self.facts.unix(self.now) + left)
    }

    /// The stamps of a view that another proxy has raised say when a flush takes effect, or that none does.
    pub(super) fn adopt_flush(&mut self, moment: Option<u64>) {
        let unix = self.facts.unix(self.now);
        let due = |moment: u64| self.now + Span::from_millis(moment.saturating_sub(unix) * 1000);
        self.flush_due = moment.map(due);
    }

    fn is_flush_due(&self) -> bool {
        self.flush_due.is_some_and(|due| due <= self.now)
    }

    /// Flushes all servers when the moment of a delayed flush has come. Where there is one copy of each key only, each server
    /// does that itself.
    pub(super) fn flush_when_due(&mut self) {
        if !self.is_flush_due() || !self.is_active() {
            return;
        }
        if !self.has_views() || !self.is_safe() {
            self.flush_due = None;
            return;
        }
        let queued = |waiting: &Waiting| matches!(waiting, Waiting::Flush(flush) if flush.is_due);
        if self.barrier.queue.iter().any(queued) {
            return;
        }
        let nobody = ClientId {
            index: u32::MAX,
            generation: 0,
        };
        self.barrier.queue.push_back(Waiting::Flush(Flush {
            client: nobody,
            seq: 0,
            delay: 0,
            quiet: true,
            is_due: true,
        }));
        self.pass_barrier();
    }

    /// A server that is let in hears of a flush that it may not know of.
    pub(super) fn tell_flush(&mut self, index: usize) {
        let Some(due) = self.flush_due else {
            return;
        };
        if !self.is_active() || due <= self.now {
            return;
        }
        let left = due.since(self.now).0.div_ceil(1_000_000);
        let line = match left > DELAY_MAX {
            true => format!("flush_all {}\r\n", self.facts.unix(self.now) + left),
            false => format!("flush_all {left}\r\n"),
        };
        let purpose = (Role::Heal, Verb::FlushAll, None);
        let link = Server::link_id(index, 0);
        self.queue_bytes(link, line.as_bytes(), None, Token::default(), purpose);
    }
}
