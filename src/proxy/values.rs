//! Flow: values in the answers of servers: whose key they are for, and where their bytes go.

use super::answers::Step;
use super::client::estimate;
use super::ids::LinkId;
use super::server::{Block, Role};
use super::tail::Tail;
use super::{cas, Proxy};
use crate::proto::response::{self, Code};
use crate::proto::token::{next_token, Token};
use crate::proto::Verb;

/// Most digits of a counter.
const NUMBER_MAX: usize = 20;

impl Proxy {
    /// A `VALUE` block begins with `line`; its data begins at `next`.
    pub(super) fn take_value(
        &mut self,
        id: LinkId,
        line: &[u8],
        next: usize,
        bytes: &[u8],
    ) -> Step {
        let Some(head) = response::value_head(line) else {
            return self.nonsense(id, bytes);
        };
        let Some(skipped) = self.match_key(id, head.key.of(line)) else {
            return self.nonsense(id, bytes);
        };
        let server = &mut self.servers[usize::from(id.server)];
        let tag = server.tag;
        let link = &mut server.links[usize::from(id.conn)];
        link.hits += 1;
        let only = link.hits == 1;
        let token = match link.fifo.front().map(|head| head.verb) {
            Some(Verb::Gets | Verb::Gats) => cas::token_of_value(head.cas, tag),
            _ => None,
        };
        let whole = next + head.data_len + 2;
        self.typical = estimate(self.typical, head.data_len);
        let complete = bytes.len() >= whole;
        if complete && &bytes[whole - 2..whole] != b"\r\n" {
            return self.nonsense(id, bytes);
        }
        // The commonest answer, a hit for a single key, passes in one piece.
        if complete && only && bytes[whole..].starts_with(b"END\r\n") && self.is_plain(id) {
            let whole = whole + 5;
            let tail = Tail::of_value(&bytes[..whole], &head, next, token);
            self.finish_answer(id, Code::End, &tail);
            return Step::Used(whole);
        }
        self.begin_value(id, skipped, whole);
        match token {
            None if complete => self.extend_value(id, &bytes[..whole], 0),
            None => self.extend_value(id, &bytes[..next], whole - next),
            Some(token) => {
                self.extend_tagged(id, line, token, whole - next);
                if complete {
                    self.extend_value(id, &bytes[next..whole], 0);
                }
            }
        }
        if complete {
            self.end_value(id);
            return Step::Used(whole);
        }
        self.link_mut(id).block = Some(Block {
            left: whole - next,
            ends_reply: false,
        });
        Step::Used(next)
    }

    /// Keeps the first line of a value, with the token in it as clients are told it.
    fn extend_tagged(&mut self, id: LinkId, line: &[u8], token: (Token, u64), more: usize) {
        let mut shown = std::mem::take(&mut self.scratch);
        shown.clear();
        cas::write_tagged(line, token, &mut shown);
        self.extend_value(id, &shown, more);
        self.scratch = shown;
    }

    /// The answer `line` to `mg` or `ma`, which ends at `next`, with a value behind it and perhaps a `token` in it.
    pub(super) fn take_meta_value(
        &mut self,
        id: LinkId,
        line: &[u8],
        token: Option<(Token, u64)>,
        next: usize,
        bytes: &[u8],
    ) -> Step {
        let Some(data_len) = response::meta_value_len(line) else {
            return self.nonsense(id, bytes);
        };
        let whole = next + data_len + 2;
        self.typical = estimate(self.typical, data_len);
        if bytes.len() >= whole {
            if &bytes[whole - 2..whole] != b"\r\n" {
                return self.nonsense(id, bytes);
            }
            let text = &bytes[..whole];
            let tail = match token {
                Some((token, cas)) => Tail::with_token(text, token, cas),
                None => Tail::new(text),
            };
            self.finish_answer(id, Code::MetaValue, &tail);
            return Step::Used(whole);
        }
        let head = self.link_mut(id).fifo.front();
        if data_len <= NUMBER_MAX && head.is_some_and(|head| head.verb == Verb::MetaArithmetic) {
            // A counter is compared, and may be answered in other words: it is taken whole.
            return Step::Wait;
        }
        match token {
            None => self.extend_value(id, &bytes[..next], whole - next),
            Some(token) => self.extend_tagged(id, line, token, whole - next),
        }
        self.note_question(id);
        self.link_mut(id).block = Some(Block {
            left: whole - next,
            ends_reply: true,
        });
        Step::Used(next)
    }

    /// Passes a chunk from the middle of a long value on as it is, if its client has only been waiting for that: then `chunk`
    /// is another one. The first `count` bytes of it have come.
    pub(super) fn pass_chunk(&mut self, id: LinkId, chunk: &mut Vec<u8>, count: usize) -> bool {
        let link = self.link_mut(id);
        // The line end behind the value is looked at as it comes.
        let Some(block) = link.block.filter(|block| block.left >= count + 2) else {
            return false;
        };
        let head = link.fifo.front().filter(|head| head.role == Role::Read);
        let Some(txn) = head.and_then(|head| head.txn) else {
            return false;
        };
        let txn = self.txns.at(txn);
        let (client_id, seq) = (txn.client, txn.seq);
        if txn.answered || txn.part.is_some() || txn.keys > 1 {
            return false;
        }
        let Some(client) = self.clients.get_mut(client_id.index as usize) else {
            return false;
        };
        if client.generation != client_id.generation || !client.passes(seq) {
            return false;
        }
        let mut full = std::mem::replace(chunk, self.memory.chunk());
        full.truncate(count);
        let passed = client.pass_whole(full, &mut self.memory);
        self.link_mut(id).block = Some(Block {
            left: block.left - count,
            ..block
        });
        match passed {
            Ok(()) => self.mark_client(client_id),
            Err(_) => self.cut_off(client_id),
        }
        true
    }

    pub(super) fn take_block(&mut self, id: LinkId, block: Block, bytes: &[u8]) -> Step {
        let count = block.left.min(bytes.len());
        let left = block.left - count;
        // The line end may come in two pieces; each is looked at as it comes.
        let end_wrong = match (left, count) {
            (0, 1) => bytes[0] != b'\n',
            (0, _) => &bytes[count - 2..count] != b"\r\n",
            (1, _) => bytes[count - 1] != b'\r',
            _ => false,
        };
        if end_wrong {
            return self.nonsense(id, bytes);
        }
        if left > 0 || !block.ends_reply {
            self.extend_value(id, &bytes[..count], left);
        }
        let link = self.link_mut(id);
        if left > 0 {
            link.block = Some(Block { left, ..block });
        } else {
            link.block = None;
            if block.ends_reply {
                // All but the line end goes the way of what came before it.
                let last = count.saturating_sub(2);
                if last > 0 {
                    self.extend_value(id, &bytes[..last], count - last);
                }
                self.finish_answer(id, Code::MetaValue, &Tail::new(&bytes[last..count]));
            } else {
                self.end_value(id);
            }
        }
        Step::Used(count)
    }

    /// A long answer to `mg` has begun, which does not tell what was asked: its client keeps that.
    fn note_question(&mut self, id: LinkId) {
        let link = self.link_mut(id);
        let head = link.fifo.front();
        let Some(head) = head.filter(|head| (head.role, head.verb) == (Role::Read, Verb::MetaGet))
        else {
            return;
        };
        let (txn, start, end) = (head.txn, head.start, head.end);
        let Some(txn) = txn else { return };
        let txn = self.txns.at(txn);
        let (client, seq) = (txn.client, txn.seq);
        let link = &self.servers[usize::from(id.server)].links[usize::from(id.conn)];
        if let Some(client) = self.clients.get_mut(client.index as usize) {
            if client.generation == txn.client.generation {
                client.note_question(seq, link.log.bytes(start, end));
            }
        }
    }

    /// Finds `key` among the keys asked for, behind those already answered; how many were passed over.
    fn match_key(&mut self, id: LinkId, key: &[u8]) -> Option<usize> {
        let link = self.link_mut(id);
        let head = link.fifo.front()?;
        let request = link.log.bytes(head.start, head.end);
        let request = &request[..request.len() - 2];
        let mut at = if link.cursor == 0 {
            usize::from(head.key_at)
        } else {
            link.cursor + 1
        };
        // Most often it is the next one.
        let rest = &request[at.min(request.len())..];
        if rest.starts_with(key) && matches!(rest.get(key.len()), None | Some(b' ')) {
            link.cursor = at + key.len();
            return Some(0);
        }
        let mut skipped = 0;
        while let Some(token) = next_token(request, at) {
            at = token.end;
            if token.of(request) == key {
                link.cursor = at;
                return Some(skipped);
            }
            skipped += 1;
        }
        None
    }

    /// Whether the oldest request is a read whose answer can pass to the client as it is.
    fn is_plain(&mut self, id: LinkId) -> bool {
        let head = self.link_mut(id).fifo.front();
        match head.map(|head| (head.role, head.txn)) {
            Some((Role::Read, Some(txn))) => {
                let txn = self.txns.at(txn);
                txn.part.is_none() && txn.last
            }
            _ => false,
        }
    }

    fn begin_value(&mut self, id: LinkId, skipped: usize, len: usize) {
        if let Some(part) = self.head_part(id) {
            self.begin_block(part, skipped, len);
        }
    }

    fn end_value(&mut self, id: LinkId) {
        if let Some(part) = self.head_part(id) {
            self.end_block(part);
        }
    }

    fn head_part(&mut self, id: LinkId) -> Option<super::txn::PartId> {
        let head = self.link_mut(id).fifo.front()?;
        if head.role != Role::Read {
            return None;
        }
        let txn = head.txn?;
        self.txns.at(txn).part
    }

    /// Keeps bytes of an answer for the client, if it is one that a client waits for. `more` bytes are sure to follow.
    fn extend_value(&mut self, id: LinkId, bytes: &[u8], more: usize) {
        let link = self.link_mut(id);
        let Some((role, txn_id)) = link.fifo.front().map(|head| (head.role, head.txn)) else {
            return;
        };
        match role {
            Role::Fetch(repair) => return self.extend_fetch(repair, bytes),
            Role::Stamp | Role::Seen => {
                let answer = &mut self.servers[usize::from(id.server)].answer;
                return answer.extend_from_slice(bytes);
            }
            Role::Read | Role::Decide => {}
            _ => return,
        }
        let Some(txn_id) = txn_id else { return };
        let txn = self.txns.at(txn_id);
        if let Some(part) = txn.part {
            self.extend_block(part, bytes);
            return;
        }
        if txn.answered {
            return;
        }
        let (client_id, seq) = (txn.client, txn.seq);
        // What may be begun anew, and is known to be the same then, can go out before it is complete.
        let may_pass = role == Role::Read && txn.keys == 1;
        let Some(client) = self.clients.get_mut(client_id.index as usize) else {
            return;
        };
        if client.generation != client_id.generation {
            return;
        }
        let expected = bytes.len() + more;
        if !may_pass {
            client.extend(seq, bytes, expected, &mut self.memory);
        } else if client.pass(seq, bytes, expected, &mut self.memory).is_ok() {
            self.mark_client(client_id);
        } else {
            self.cut_off(client_id);
        }
    }
}
