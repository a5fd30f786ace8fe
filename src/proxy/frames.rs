//! Flow: frames of the binary protocol become requests like any other.
//!
//! ```text
//!   step_frame: 80 01 ... k, 5 bytes   ->   ms k 5 c        the core, as for a client that speaks text
//!   client/dialect:   HD c77           ->   81 01 ... CAS 77
//! ```

use super::client::{estimate, Input, PendingData};
use super::ids::ClientId;
use super::intake::{Step, ITEM_OVERHEAD};
use super::op::{Data, Held, Op};
use super::Proxy;
use crate::buf::SHARE_MIN;
use crate::proto::binary::request::{parse, Frame, Parsed};
use crate::proto::binary::Kind;
use crate::proto::replies;
use crate::proto::request::Request;

impl Proxy {
    /// The frame at the front of `bytes`.
    pub(super) fn step_frame(&mut self, id: ClientId, bytes: &[u8]) -> Step {
        let sparing = self.sparing;
        let Some(client) = self.client_mut(id) else {
            return Step::Close;
        };
        if client.room() == 0 || (sparing && client.is_over()) {
            return Step::Stall;
        }
        match parse(bytes) {
            Parsed::More => Step::Wait,
            Parsed::Close => Step::Close,
            Parsed::Refused { asked, reply, rest } => {
                client.expect_frame(asked);
                let swallow = rest.map_or(0, |(_, value)| value);
                self.refuse(id, reply, swallow);
                rest.map_or(Step::Close, |(length, _)| Step::Used(length))
            }
            Parsed::Request(asked, frame) if frame.kind == Kind::Quit => {
                if !frame.quiet {
                    client.expect_frame(asked);
                    self.refuse(id, replies::OK, 0);
                }
                Step::Close
            }
            Parsed::Request(asked, frame) => {
                client.expect_frame(asked);
                let mut line = std::mem::take(&mut self.framed);
                let used = self.take_frame(id, &frame, &bytes[frame.length..], &mut line);
                self.framed = line;
                used.map_or(Step::Stall, |used| Step::Used(frame.length + used))
            }
        }
    }

    /// How much of `following` is used up. `None`: it has to wait.
    fn take_frame(
        &mut self,
        id: ClientId,
        frame: &Frame<'_>,
        following: &[u8],
        line: &mut Vec<u8>,
    ) -> Option<usize> {
        let request = match frame.compose(self.meta, line) {
            Ok(request) => request,
            Err(reply) => {
                self.refuse(id, reply, frame.value_len);
                return Some(0);
            }
        };
        match frame.kind {
            kind if kind.stores() => {
                return self.take_value_of(id, frame, &request, following);
            }
            Kind::Flush | Kind::Noop | Kind::Version | Kind::Stat => {
                self.take_local(id, &request);
            }
            _ => {
                if self.admits(id, &request, 0) {
                    if self.holds_back(id, &request, 0) {
                        return None;
                    }
                    self.begin(id, &request, Data::None);
                }
            }
        }
        Some(0)
    }

    /// A storage command and as much of its value as has come; how much of `following` is used up. `None`: it has to wait.
    fn take_value_of(
        &mut self,
        id: ClientId,
        frame: &Frame<'_>,
        request: &Request<'_>,
        following: &[u8],
    ) -> Option<usize> {
        let need = request.data_len;
        let flags = if request.client_flags { 4 } else { 0 };
        let item = ITEM_OVERHEAD + frame.key_len() + flags + need + 2;
        if item > self.settings.max_item_size {
            self.counters.store_too_large += 1;
            if frame.kind == Kind::Set {
                self.delete_unasked(request);
            }
            self.refuse(id, replies::TOO_LARGE, need);
            return Some(0);
        }
        if !self.admits(id, request, need) {
            return Some(0);
        }
        self.typical = estimate(self.typical, need);
        if let Some(value) = following.get(..need) {
            if self.holds_back(id, request, need) {
                return None;
            }
            if need < SHARE_MIN {
                self.begin(id, request, Data::Bare(value));
            } else {
                let body = self.memory.share([value, b"\r\n"].concat());
                self.begin(id, request, Data::Shared(&body));
            }
            return Some(need);
        }
        let client = self.client_mut(id)?;
        let seq = client.open_slot(1);
        let op = Op::new(id, seq, request, Data::None);
        client.input = Input::Data(Box::new(PendingData {
            held: Held::of_line(&op),
            data: following.to_vec(),
            need,
        }));
        self.memory.take(following.len());
        Some(following.len())
    }
}
