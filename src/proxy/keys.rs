//! Flow: the keys of a retrieval, as many at a time as their client may have under way.

use super::client::{Input, KeyRun};
use super::ids::ClientId;
use super::intake::Step;
use super::op::{Data, Op};
use super::Proxy;
use crate::proto::request::Request;
use crate::proto::token::next_token;
use crate::proto::Verb;

/// Most keys of one retrieval that are asked for at a time.
const KEYS_MAX: usize = 256;

/// The same while memory is short; only one when half of it is used.
const KEYS_SPARING: usize = 8;

/// Most bytes of keys asked for at a time: memcached wants a `gat` line to fit into 2 KiB.
const KEYS_BYTES_MAX: usize = 1900;

/// A list of keys that is being worked through.
struct KeyList<'a> {
    verb: Verb,
    exptime: i32,
    line: &'a [u8],
    at: usize,
}

impl Proxy {
    /// False: it has to wait.
    pub(super) fn take_retrieval(&mut self, id: ClientId, request: &Request<'_>) -> bool {
        if !self.admits(id, request, 0) {
            return true;
        }
        if request.key.end == request.line.len() {
            if self.holds_back(id, request, 0) {
                return false;
            }
            self.begin(id, request, Data::None);
            return true;
        }
        let mut run = KeyList {
            verb: request.verb,
            exptime: request.exptime,
            line: request.line,
            at: request.key.start,
        };
        while run.at < run.line.len() {
            let typical = self.typical;
            let room = self.client_mut(id).map_or(0, |client| {
                client.expect_at_least(typical);
                client.room()
            });
            // While memory is short the first few have to be taken before the next are asked for.
            let rests = self.sparing && run.at > request.key.start;
            if room == 0 || rests || !self.take_keys(id, &mut run, room) {
                break;
            }
        }
        if run.at < run.line.len() {
            let rest = Box::new(KeyRun {
                verb: run.verb,
                exptime: run.exptime,
                line: run.line.to_vec(),
                at: run.at,
            });
            if let Some(client) = self.client_mut(id) {
                client.input = Input::Keys(rest);
            }
        }
        true
    }

    pub(super) fn step_keys(&mut self, id: ClientId) -> Step {
        let sparing = self.sparing;
        let Some(client) = self.client_mut(id) else {
            return Step::Close;
        };
        let room = client.room();
        if room == 0 || (sparing && client.is_over()) {
            return Step::Stall;
        }
        let Input::Keys(mut rest) = std::mem::take(&mut client.input) else {
            return Step::Close;
        };
        let mut run = KeyList {
            verb: rest.verb,
            exptime: rest.exptime,
            line: &rest.line,
            at: rest.at,
        };
        let taken = self.take_keys(id, &mut run, room);
        rest.at = run.at;
        if rest.at < rest.line.len() {
            if let Some(client) = self.client_mut(id) {
                client.input = Input::Keys(rest);
            }
        }
        if !taken {
            return Step::Stall;
        }
        Step::Used(0)
    }

    /// Asks for the next keys of a list, at most `room`. False: they have to wait.
    fn take_keys(&mut self, id: ClientId, run: &mut KeyList<'_>, room: usize) -> bool {
        let most = match self.sparing {
            true if self.memory.used() > self.memory.limit() / 2 => 1,
            true => KEYS_SPARING,
            false => KEYS_MAX,
        };
        let limit = room.min(most);
        let first = next_token(run.line, run.at).unwrap_or_default();
        let mut end = first.start;
        let mut count = 0;
        while count < limit {
            let Some(token) = next_token(run.line, end) else {
                end = run.line.len();
                break;
            };
            if count > 0 && token.end - first.start > KEYS_BYTES_MAX {
                break;
            }
            end = token.end;
            count += 1;
        }
        if self.crowd.is_on {
            let op = Op {
                line: run.line,
                key: first,
                keys_end: end,
                route: self.routes.of(first.of(run.line)),
                ..Op::of_keys(id, 0, run.verb, run.exptime, count)
            };
            if self.must_queue(&op, 0) {
                return false;
            }
        }
        let last = next_token(run.line, end).is_none();
        run.at = if last { run.line.len() } else { end };
        let touches = self.touches_apart(run.verb);
        let Some(client) = self.client_mut(id) else {
            return true;
        };
        let touched = touches.then(|| client.open_silent_slots(count));
        let seq = client.open_slot(count);
        let op = Op {
            line: run.line,
            key: first,
            keys_end: end,
            last,
            route: self.routes.of(first.of(run.line)),
            ..Op::of_keys(id, seq, run.verb, run.exptime, count)
        };
        match touched {
            None => self.dispatch(&op),
            Some(first) => self.dispatch_touching(&op, first),
        }
        true
    }
}
