//! Flow: bytes of a client become requests, and places in its order of replies.

use super::client::{Input, Reply, Swallow};
use super::crowd::Turn;
use super::ids::{Action, ClientId};
use super::op::{Data, Op};
use super::tail::Tail;
use super::Proxy;
use crate::proto::line::{find_line, LineEnd};
use crate::proto::meta;
use crate::proto::request::{self, Parsed, Request};
use crate::proto::{replies, Verb};
use crate::time::Time;

/// Longest line of any kind; a `get` of some 30,000 long keys.
const LINE_LIMIT: usize = 8 * 1024 * 1024;

/// What fixed bytes an item takes in memcached besides key and value: header, CAS, and a NUL after the key.
pub(super) const ITEM_OVERHEAD: usize = 48 + 8 + 1;

/// Requests of a client that are taken in a turn of the loop.
const WORK_MAX: u32 = 128;

/// What statistics count as.
pub(super) const WORK_OF_STATS: u32 = 64;

/// Whether to go on with a client's bytes.
pub(super) enum Step {
    /// This many bytes are used up; go on.
    Used(usize),
    /// More bytes are needed.
    Wait,
    /// The client has too much under way.
    Stall,
    /// No more is taken from this client.
    Close,
}

impl Proxy {
    /// Bytes from a client. After this returns, `wants_read` tells whether to go on reading it.
    pub fn client_received(&mut self, id: ClientId, bytes: &[u8], now: Time) {
        self.now = now;
        self.counters.bytes_read += bytes.len() as u64;
        let Some(client) = self.clients.get_mut(id.index as usize) else {
            return;
        };
        if client.generation != id.generation || client.closing {
            return;
        }
        client.last_active = now;
        client.note_request();
        if client.partial.is_empty() && !client.stalled {
            let used = self.take_in(id, bytes);
            self.keep_rest(id, &bytes[used..]);
        } else {
            client.partial.extend_from_slice(bytes);
            self.memory.take(bytes.len());
            if !client.stalled {
                self.take_in_partial(id);
            }
        }
        self.note_half();
    }

    /// Goes on with clients that had too much under way and have room again, or have read all that was not set aside.
    pub(super) fn resume_clients(&mut self) {
        if self.crowd.count() > 0 {
            self.let_go_on();
        }
        while let Some(id) = self.resumable.pop() {
            if self.ask_again(id) {
                continue;
            }
            let Some(client) = self.client_mut(id) else {
                continue;
            };
            if !client.stalled || client.closing || !client.may_resume() {
                continue;
            }
            client.stalled = false;
            client.turn = Turn::None;
            self.take_in_partial(id);
            let Some(client) = self.client_mut(id) else {
                continue;
            };
            if client.stalled {
                continue;
            }
            if client.finished {
                self.close_when_settled(id);
            } else {
                self.actions.push_back(Action::ReadClient(id));
            }
        }
    }

    /// Works through the bytes that the client's buffer holds.
    pub(super) fn take_in_partial(&mut self, id: ClientId) {
        let Some(client) = self.client_mut(id) else {
            return;
        };
        let partial = std::mem::take(&mut client.partial);
        let at = client.partial_at as usize;
        let used = at + self.take_in(id, &partial[at..]);
        let Some(client) = self.clients.get_mut(id.index as usize) else {
            // It went while its bytes were out of it.
            self.memory.give(partial.len());
            return;
        };
        if client.generation != id.generation || used == partial.len() || client.closing {
            self.memory.give(partial.len());
            if client.generation == id.generation {
                client.partial_at = 0;
            }
            self.memory.recycle(partial);
            return;
        }
        client.partial = partial;
        client.partial_at = used as u32;
        if used > client.partial.len() / 2 {
            client.partial.drain(..used);
            client.partial_at = 0;
            self.memory.give(used);
        }
    }

    fn keep_rest(&mut self, id: ClientId, rest: &[u8]) {
        if rest.is_empty() {
            return;
        }
        let mut buffer = self.memory.buffer();
        let Some(client) = self.clients.get_mut(id.index as usize) else {
            return;
        };
        if client.generation != id.generation || client.closing {
            return;
        }
        buffer.extend_from_slice(rest);
        self.memory.take(rest.len());
        client.partial = buffer;
        client.partial_at = 0;
    }

    /// Takes what it can from the front of `bytes`; how much that was.
    fn take_in(&mut self, id: ClientId, bytes: &[u8]) -> usize {
        let mut at = 0;
        self.work = 0;
        loop {
            if self.work >= WORK_MAX {
                self.put_behind(id);
                return at;
            }
            match self.step(id, &bytes[at..]) {
                Step::Used(count) => {
                    at += count;
                    self.work += 1;
                }
                Step::Wait => return at,
                Step::Stall => {
                    if let Some(client) = self.client_mut(id) {
                        client.stalled = true;
                        // It may be that nothing is due that would wake it: then this turn does.
                        if client.may_resume() {
                            self.resumable.push(id);
                        }
                    }
                    return at;
                }
                Step::Close => {
                    self.close_when_settled(id);
                    return bytes.len();
                }
            }
        }
    }

    fn step(&mut self, id: ClientId, bytes: &[u8]) -> Step {
        let Some(client) = self.client_mut(id) else {
            return Step::Close;
        };
        match &client.input {
            Input::Line if bytes.is_empty() => Step::Wait,
            Input::Line if !client.is_binary() => self.step_line(id, bytes),
            Input::Line => self.step_frame(id, bytes),
            Input::Fresh if bytes.is_empty() => Step::Wait,
            Input::Fresh => {
                client.begin_protocol(bytes[0]);
                Step::Used(0)
            }
            Input::Data(_) => self.step_data(id, bytes),
            Input::Swallow(_) => self.step_swallow(id, bytes),
            Input::Keys(_) => self.step_keys(id),
        }
    }

    fn step_line(&mut self, id: ClientId, bytes: &[u8]) -> Step {
        let sparing = self.sparing;
        let Some(client) = self.client_mut(id) else {
            return Step::Close;
        };
        if client.room() == 0 || (sparing && client.is_over()) {
            return Step::Stall;
        }
        let (end, next) = match find_line(bytes, client.searched as usize) {
            LineEnd::At { end, next } => (end, next),
            LineEnd::Missing if bytes.len() <= LINE_LIMIT => {
                client.searched = bytes.len() as u32;
                return Step::Wait;
            }
            LineEnd::Missing | LineEnd::TooLong => return Step::Close,
        };
        client.searched = 0;
        match request::parse(&bytes[..end], self.explicit_cas) {
            Parsed::Request(request) => self.take_request(id, &request, &bytes[next..], next),
            Parsed::Refused {
                reply,
                silent,
                swallow,
            } => {
                self.refuse(id, if silent { b"" } else { reply }, swallow);
                Step::Used(next)
            }
            Parsed::Last(reply) => {
                self.refuse(id, reply, 0);
                Step::Close
            }
            Parsed::Close => Step::Close,
        }
    }

    /// `following`: what the client sent behind the line; `used`: the length of the line with its end.
    fn take_request(
        &mut self,
        id: ClientId,
        request: &Request<'_>,
        following: &[u8],
        used: usize,
    ) -> Step {
        log::debug!(
            "client {}: {}",
            id.index,
            request.line[..request.line.len().min(120)].escape_ascii()
        );
        match request.verb {
            Verb::Get | Verb::Gets | Verb::Gat | Verb::Gats => {
                if !self.take_retrieval(id, request) {
                    return Step::Stall;
                }
                Step::Used(used)
            }
            Verb::Set
            | Verb::Add
            | Verb::Replace
            | Verb::Append
            | Verb::Prepend
            | Verb::Cas
            | Verb::MetaSet => match self.take_storage(id, request, following) {
                Some(more) => Step::Used(used + more),
                None => Step::Stall,
            },
            Verb::Version
            | Verb::Verbosity
            | Verb::Quit
            | Verb::Stats
            | Verb::MetaNoop
            | Verb::FlushAll => {
                if self.take_local(id, request) {
                    Step::Used(used)
                } else {
                    Step::Close
                }
            }
            _ => {
                if self.admits(id, request, 0) {
                    if self.holds_back(id, request, 0) {
                        return Step::Stall;
                    }
                    self.begin(id, request, Data::None);
                }
                Step::Used(used)
            }
        }
    }

    /// Whether the request may be worked on; otherwise it is refused here. `data`: bytes of its block.
    pub(super) fn admits(&mut self, id: ClientId, request: &Request<'_>, data: usize) -> bool {
        let reply = if self.is_stamp(request) {
            replies::STAMP_IS_OURS
        } else if request.verb.is_meta() && !self.meta {
            replies::NO_META
        } else if self.memory.refuses(data) {
            self.counters.store_no_memory += 1;
            self.memory_is_full();
            replies::OUT_OF_MEMORY
        } else {
            return true;
        };
        let silent = request.quiet && !request.verb.is_meta();
        self.refuse(id, if silent { b"" } else { reply }, data);
        false
    }

    /// Whether a client means to write this pool's stamp.
    fn is_stamp(&self, request: &Request<'_>) -> bool {
        let reads = request.verb.is_retrieval() || request.verb == Verb::MetaDebug;
        let key = request.key.of(request.line);
        // In base64 it would be a way round.
        !reads
            && (self.lists.is_reserved(key)
                || (request.meta.has(b'b')
                    && meta::decode_base64(key).is_some_and(|key| self.lists.is_reserved(&key))))
    }

    pub(super) fn begin(&mut self, id: ClientId, request: &Request<'_>, data: Data<'_>) {
        let touches = self.touches_apart(request.verb);
        let Some(client) = self.client_mut(id) else {
            return;
        };
        let touched = touches.then(|| client.open_silent_slots(1));
        let seq = client.open_slot(1);
        let mut op = Op::new(id, seq, request, data);
        op.route = self.route_of(&op);
        match touched {
            None => self.dispatch(&op),
            Some(first) => self.dispatch_touching(&op, first),
        }
    }

    /// Says `reply` (if any) once `swallow` bytes have been thrown away.
    pub(super) fn refuse(&mut self, id: ClientId, reply: &'static [u8], swallow: usize) {
        self.work += 1;
        let Some(client) = self.client_mut(id) else {
            return;
        };
        let seq = client.open_slot(0);
        if swallow > 0 {
            client.input = Input::Swallow(Box::new(Swallow {
                left: swallow,
                seq,
                reply,
            }));
        } else {
            self.finish_slot(id, seq, 0, reply);
        }
    }

    /// The reply of `seq` is complete but for `text`.
    pub(super) fn finish_slot(&mut self, id: ClientId, seq: u32, keys: usize, text: &[u8]) {
        self.finish_slot_with(id, seq, keys, &Tail::new(text));
    }

    /// The reply of `seq` is complete but for `tail`.
    pub(super) fn finish_slot_with(
        &mut self,
        id: ClientId,
        seq: u32,
        keys: usize,
        tail: &Tail<'_>,
    ) {
        let Some(client) = self.clients.get_mut(id.index as usize) else {
            return;
        };
        if client.generation != id.generation {
            return;
        }
        if client.finish(seq, keys, tail, &mut self.memory).is_err() {
            return self.cut_off(id);
        }
        if client.stalled && client.may_resume() {
            self.resumable.push(id);
        }
        if client.closing && client.is_settled() {
            self.remove_client(id);
            self.actions.push_back(Action::CloseClient(id));
        } else {
            self.mark_client(id);
        }
    }

    /// A reply that has partly gone out cannot be completed: the client's connection is given up, as by a server that dies.
    pub(super) fn cut_off(&mut self, id: ClientId) {
        self.counters.cut_off += 1;
        self.remove_client(id);
        self.actions.push_back(Action::CloseClient(id));
    }

    /// Answers `seq` with one of the proxy's own lines, in place of what may have come for it.
    pub(super) fn finish_with(&mut self, id: ClientId, seq: u32, keys: usize, line: &'static [u8]) {
        self.replace_reply(id, seq, Reply::Fixed(line));
        self.finish_slot(id, seq, keys, b"");
    }

    /// Puts `reply` in place of what came for `seq`, if the client is still there.
    pub(super) fn replace_reply(&mut self, id: ClientId, seq: u32, reply: Reply) {
        if let Some(client) = self.clients.get_mut(id.index as usize) {
            if client.generation == id.generation {
                client.replace(seq, reply, &mut self.memory);
            }
        }
    }
}
