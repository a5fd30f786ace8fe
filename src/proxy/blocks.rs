//! Flow: data blocks of clients: whole, in pieces, too large, or to be thrown away.

use super::client::{estimate, Client, Input, PendingData};
use super::ids::ClientId;
use super::intake::{Step, ITEM_OVERHEAD};
use super::op::{Data, Held, Op};
use super::Proxy;
use crate::buf::SHARE_MIN;
use crate::proto::meta;
use crate::proto::request::Request;
use crate::proto::{replies, Verb};

impl Proxy {
    /// A storage command and as much of its block as has come; how much of `following` is used up. `None`: it has to wait.
    pub(super) fn take_storage(
        &mut self,
        id: ClientId,
        request: &Request<'_>,
        following: &[u8],
    ) -> Option<usize> {
        let need = request.data_len + 2;
        let flags = if request.client_flags { 4 } else { 0 };
        let key = request.key.of(request.line);
        // memcached counts the key as it keeps it.
        let plain = request.meta.has(b'b').then(|| meta::decode_base64(key));
        let key_len = plain.flatten().map_or(key.len(), |plain| plain.len());
        let item = ITEM_OVERHEAD + key_len + flags + need;
        if item > self.settings.max_item_size {
            self.refuse_too_large(id, request, need);
            return Some(0);
        }
        if !self.admits(id, request, need) {
            return Some(0);
        }
        self.typical = estimate(self.typical, need);
        if following.len() >= need {
            if self.holds_back(id, request, need) {
                return None;
            }
            self.take_whole_block(id, request, &following[..need]);
            return Some(need);
        }
        let client = self.client_mut(id)?;
        let seq = client.open_slot(1);
        // Room for what has come and no more: a client may leave it at half a block.
        let data = following.to_vec();
        let op = Op::new(id, seq, request, Data::None);
        client.input = Input::Data(Box::new(PendingData {
            held: Held::of_line(&op),
            data,
            need,
        }));
        self.memory.take(following.len());
        Some(following.len())
    }

    fn take_whole_block(&mut self, id: ClientId, request: &Request<'_>, block: &[u8]) {
        if !block.ends_with(b"\r\n") {
            let silent = request.quiet && request.verb != Verb::MetaSet;
            self.refuse(id, if silent { b"" } else { replies::BAD_DATA_CHUNK }, 0);
        } else if block.len() < SHARE_MIN {
            self.begin(id, request, Data::Inline(block));
        } else {
            let body = self.memory.share(block.to_vec());
            self.begin(id, request, Data::Shared(&body));
        }
    }

    /// memcached removes the item when its new value is too large, so that no old one is left; so does the proxy.
    fn refuse_too_large(&mut self, id: ClientId, request: &Request<'_>, need: usize) {
        self.counters.store_too_large += 1;
        let removes = matches!(request.verb, Verb::Set | Verb::MetaSet);
        let silent = request.quiet && request.verb != Verb::MetaSet;
        if removes {
            self.delete_unasked(request);
        }
        self.refuse(id, if silent { b"" } else { replies::TOO_LARGE }, need);
    }

    /// Bytes of a block that has begun.
    pub(super) fn step_data(&mut self, id: ClientId, bytes: &[u8]) -> Step {
        let Some(client) = self.clients.get_mut(id.index as usize) else {
            return Step::Close;
        };
        let Input::Data(pending) = &mut client.input else {
            return Step::Close;
        };
        let rest = pending.need - pending.data.len();
        if rest == 0 {
            return self.take_block_whole(id);
        }
        if bytes.is_empty() {
            return Step::Wait;
        }
        let count = rest.min(bytes.len());
        if pending.data.len() >= pending.need / 16 {
            // It is meant: growing step by step would copy it again and again, and leave holes.
            pending.data.reserve_exact(rest);
        }
        pending.data.extend_from_slice(&bytes[..count]);
        self.memory.take(count);
        // Once it is whole, the next step takes it.
        Step::Used(count)
    }

    /// A block that has come in pieces is complete.
    fn take_block_whole(&mut self, id: ClientId) -> Step {
        let Some(client) = self.client_mut(id) else {
            return Step::Close;
        };
        let Input::Data(pending) = std::mem::take(&mut client.input) else {
            return Step::Close;
        };
        if self.crowd.is_on {
            let mut op = pending.held.op();
            op.route = self.route_of(&op);
            if self.must_queue(&op, pending.need) {
                if let Some(client) = self.client_mut(id) {
                    client.input = Input::Data(pending);
                }
                return Step::Stall;
            }
        }
        self.finish_block(id, *pending);
        Step::Used(0)
    }

    fn finish_block(&mut self, id: ClientId, mut pending: PendingData) {
        self.memory.give(pending.data.len());
        let head = pending.held.op();
        if self.client(id).is_some_and(Client::is_binary) {
            pending.data.extend_from_slice(b"\r\n");
        } else if !pending.data.ends_with(b"\r\n") {
            let silent = head.quiet && head.verb != Verb::MetaSet;
            let reply = if silent { b"" } else { replies::BAD_DATA_CHUNK };
            self.finish_slot(id, head.seq, 1, reply);
            return;
        }
        if pending.data.len() < SHARE_MIN {
            let mut op = pending.held.with_data(Data::Inline(&pending.data));
            op.route = self.route_of(&op);
            self.dispatch(&op);
        } else {
            let body = self.memory.share(pending.data);
            let mut op = pending.held.with_data(Data::Shared(&body));
            op.route = self.route_of(&op);
            self.dispatch(&op);
        }
    }

    /// Throws away bytes of a block that was refused.
    pub(super) fn step_swallow(&mut self, id: ClientId, bytes: &[u8]) -> Step {
        let Some(client) = self.client_mut(id) else {
            return Step::Close;
        };
        let Input::Swallow(swallow) = &mut client.input else {
            return Step::Close;
        };
        if bytes.is_empty() {
            return Step::Wait;
        }
        let count = swallow.left.min(bytes.len());
        swallow.left -= count;
        if swallow.left == 0 {
            let (seq, reply) = (swallow.seq, swallow.reply);
            client.input = Input::Line;
            self.finish_slot(id, seq, 0, reply);
        }
        Step::Used(count)
    }
}
