//! Flow and room: retrievals of many keys. Each server is asked once per batch; the values are put together in the order
//! of the request.
//!
//! ```text
//!   get a b c d      a,c -> server 1: "get a c"   part 0
//!                    b,d -> server 2: "get b d"   part 1
//!   answers go into their part's buffer, each key knows its place there; when all parts are in: a b c d END
//! ```

use super::client::Reply;
use super::ids::{ClientId, LinkId};
use super::journal::NotedKey;
use super::op::Op;
use super::read::{push_retrieval, without_touch};
use super::repair::Then;
use super::route::Route;
use super::server::{InFlight, Role};
use super::txn::{PartId, TxnId};
use super::Proxy;
use crate::proto::token::{next_token, Token};
use crate::proto::{replies, Verb};

/// A key of a retrieval: where it lives, and where its value is.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    route: Route,
    /// Nothing may overtake this retrieval on its key.
    exclusive: bool,
    part: u16,
    /// Its block in the part's buffer; length 0: none.
    start: usize,
    len: usize,
}

/// One server's share.
#[derive(Debug)]
struct Part {
    /// Indices of its keys, in order.
    keys: Vec<u16>,
    /// How many of them the answer has passed.
    seen: usize,
    /// The blocks that came.
    bytes: Vec<u8>,
    /// Where the block that is coming begins.
    block: usize,
}

/// A retrieval over several servers.
#[derive(Debug)]
pub struct Gather {
    client: ClientId,
    seq: u32,
    verb: Verb,
    exptime: i32,
    last: bool,
    keys: Vec<Wanted>,
    parts: Vec<Part>,
    /// Parts whose answer is due, and keys that are being brought over.
    due: usize,
    /// Keys that have been brought over: to be asked for again.
    again: Vec<(u16, Vec<u8>)>,
    /// They have been asked for again; what is missing now is missing.
    repaired: bool,
}

/// A key about to be asked for.
struct Target {
    /// Its index in the retrieval.
    index: u16,
    /// Its place in the line.
    key: Token,
    /// Whom to ask.
    link: LinkId,
}

impl Proxy {
    /// Asks for the keys of a retrieval of more than one.
    pub(super) fn gather(&mut self, op: &Op<'_>) {
        let mut gather = Gather {
            client: op.client,
            seq: op.seq,
            verb: op.verb,
            exptime: op.exptime,
            last: op.last,
            keys: Vec::with_capacity(op.key_count),
            parts: Vec::new(),
            due: 0,
            again: Vec::new(),
            repaired: false,
        };
        let mut targets = Vec::with_capacity(op.key_count);
        let mut at = op.key.start;
        while let Some(key) = next_token(&op.line[..op.keys_end], at) {
            at = key.end;
            let route = self.routes.of(key.of(op.line));
            targets.extend(self.target(op.verb, gather.keys.len(), route, 0, key));
            gather.keys.push(Wanted::new(route));
        }
        let cold = targets.iter().any(|target| {
            let route = gather.keys[usize::from(target.index)].route;
            self.may_lack(usize::from(target.link.server), route)
        });
        let same = targets.len() == gather.keys.len()
            && !cold
            && targets.iter().all(|target| target.link == targets[0].link);
        if same {
            // One server has all of them: its answer can pass as it is.
            let id = self.txns.open(op);
            self.queue_list(&gather, op.line, &targets, id);
            return;
        }
        for wanted in &mut gather.keys {
            wanted.exclusive = self.claim(wanted.route);
        }
        let id = self.gathers.insert(gather) as u32;
        self.ask_parts(id, op.line, targets);
    }

    /// The copy to ask for a key, the first that is up from rank `from` on.
    fn target(
        &mut self,
        verb: Verb,
        index: usize,
        route: Route,
        from: usize,
        key: Token,
    ) -> Option<Target> {
        let Some((rank, server)) = self.acting(route, from) else {
            self.count_failed_reads(verb, 1);
            return None;
        };
        self.counters.failovers += u64::from(rank > 0);
        Some(Target {
            index: index as u16,
            key,
            link: self.link_for(server, route),
        })
    }

    /// Queues a retrieval of all `targets`, whose keys stand in `line`.
    fn queue_list(&mut self, gather: &Gather, line: &[u8], targets: &[Target], id: TxnId) {
        let mut request = std::mem::take(&mut self.scratch);
        request.clear();
        let start = push_retrieval(&mut request, gather.verb, gather.exptime);
        let mut first = Token { start, end: start };
        for (n, target) in targets.iter().enumerate() {
            request.extend_from_slice(target.key.of(line));
            if n == 0 {
                first.end = request.len();
            }
            request.push(b' ');
        }
        request.pop();
        request.extend_from_slice(b"\r\n");
        let link = targets[0].link;
        let purpose = (Role::Read, gather.verb, Some(id));
        self.queue_bytes(link, &request, None, first, purpose);
        self.scratch = request;
    }

    /// Asks each server for its share of `targets`; with none, the retrieval may be complete.
    fn ask_parts(&mut self, gather_id: u32, line: &[u8], mut targets: Vec<Target>) {
        while let Some(link) = targets.first().map(|target| target.link) {
            let (share, rest): (Vec<_>, Vec<_>) =
                targets.into_iter().partition(|target| target.link == link);
            targets = rest;
            let mut gather =
                std::mem::replace(&mut self.gathers[gather_id as usize], Gather::placeholder());
            let part = gather.parts.len() as u16;
            let op = gather.op(share.len());
            let id = self.txns.open(&op);
            self.txns.at(id).part = Some(PartId {
                gather: gather_id,
                part,
            });
            self.queue_list(&gather, line, &share, id);
            for target in &share {
                gather.keys[usize::from(target.index)].part = part;
            }
            gather.due += 1;
            gather.parts.push(Part {
                keys: share.iter().map(|target| target.index).collect(),
                seen: 0,
                bytes: Vec::new(),
                block: 0,
            });
            self.gathers[gather_id as usize] = gather;
        }
        self.finish_gather(gather_id);
    }

    /// The answer of a part has passed `skipped` keys without a value, and a block of `len` bytes begins.
    pub(super) fn begin_block(&mut self, id: PartId, skipped: usize, len: usize) {
        let part = &mut self.gathers[id.gather as usize].parts[usize::from(id.part)];
        part.seen += skipped;
        part.block = part.bytes.len();
        part.bytes.reserve(len);
    }

    /// Bytes of the block that is coming.
    pub(super) fn extend_block(&mut self, id: PartId, bytes: &[u8]) {
        self.memory.take(bytes.len());
        let part = &mut self.gathers[id.gather as usize].parts[usize::from(id.part)];
        part.bytes.extend_from_slice(bytes);
    }

    /// The block is complete.
    pub(super) fn end_block(&mut self, id: PartId) {
        let gather = &mut self.gathers[id.gather as usize];
        let part = &mut gather.parts[usize::from(id.part)];
        let wanted = &mut gather.keys[usize::from(part.keys[part.seen])];
        part.seen += 1;
        wanted.part = id.part;
        wanted.start = part.block;
        wanted.len = part.bytes.len() - part.block;
    }

    /// The answer of a part is complete; `request` was it.
    pub(super) fn end_part(
        &mut self,
        id: PartId,
        server: usize,
        flight: &InFlight,
        request: &[u8],
    ) {
        self.repair_missing(id, server, flight, request);
        self.gathers[id.gather as usize].due -= 1;
        self.finish_gather(id.gather);
    }

    /// Keys that a server may lack are brought over from other copies.
    fn repair_missing(&mut self, id: PartId, server: usize, flight: &InFlight, request: &[u8]) {
        let gather = &self.gathers[id.gather as usize];
        if gather.repaired {
            return;
        }
        let part = &gather.parts[usize::from(id.part)];
        let mut missing = Vec::new();
        let mut at = usize::from(flight.key_at);
        for &index in &part.keys {
            let key = next_token(&request[..request.len() - 2], at).unwrap_or_default();
            at = key.end;
            let wanted = &gather.keys[usize::from(index)];
            if wanted.len == 0 && self.may_lack(server, wanted.route) {
                missing.push((index, wanted.route, NotedKey::new(key.of(request), false)));
            }
        }
        // All are counted before the first can end.
        self.gathers[id.gather as usize].due += missing.len();
        for (index, route, key) in missing {
            let then = Then::Gather {
                gather: id.gather,
                index,
            };
            self.begin_repair(&key, route, server, then);
        }
    }

    /// A key that a retrieval missed has been brought over, or is nowhere.
    pub(super) fn regather_key(&mut self, gather: u32, index: u16, key: &[u8], found: bool) {
        let entry = &mut self.gathers[gather as usize];
        entry.due -= 1;
        if found {
            entry.again.push((index, key.to_vec()));
        }
        self.finish_gather(gather);
    }

    /// Asks once more for the keys that have been brought over.
    fn gather_again(&mut self, id: u32) {
        let gather = &mut self.gathers[id as usize];
        gather.repaired = true;
        let again = std::mem::take(&mut gather.again);
        let verb = gather.verb;
        let mut line = Vec::new();
        let mut targets = Vec::with_capacity(again.len());
        for (index, key) in again {
            let start = line.len();
            line.extend_from_slice(&key);
            let token = Token {
                start,
                end: line.len(),
            };
            line.push(b' ');
            let route = self.gathers[id as usize].keys[usize::from(index)].route;
            targets.extend(self.target(verb, usize::from(index), route, 0, token));
        }
        self.ask_parts(id, &line, targets);
    }

    fn finish_gather(&mut self, id: u32) {
        if self.gathers[id as usize].due > 0 {
            return;
        }
        if !self.gathers[id as usize].again.is_empty() {
            return self.gather_again(id);
        }
        let gather = self.gathers.remove(id as usize);
        let total: usize = gather.keys.iter().map(|wanted| wanted.len).sum();
        let mut reply = self.memory.buffer();
        reply.reserve(total + replies::END.len());
        for wanted in gather.keys.iter().filter(|wanted| wanted.len > 0) {
            let part = &gather.parts[usize::from(wanted.part)];
            reply.extend_from_slice(&part.bytes[wanted.start..wanted.start + wanted.len]);
        }
        for part in gather.parts {
            self.memory.give(part.bytes.len());
            self.memory.recycle(part.bytes);
        }
        let tail = if gather.last { replies::END } else { b"" };
        self.replace_reply(gather.client, gather.seq, Reply::Bytes(reply));
        self.finish_slot(gather.client, gather.seq, gather.keys.len(), tail);
        for wanted in gather.keys.iter().filter(|wanted| wanted.exclusive) {
            self.unclaim(wanted.route);
        }
    }

    /// A list of keys got no (complete) answer from `server`: what is missing is asked of the next copies.
    /// `bytes` is the request. The transaction has done its part.
    pub(super) fn regather(&mut self, id: TxnId, flight: &InFlight, bytes: &[u8], server: usize) {
        let txn = self.txns.at(id);
        txn.answered = true;
        let (client, seq, verb) = (txn.client, txn.seq, txn.verb);
        let line = &bytes[..bytes.len() - 2];
        let mut targets = Vec::new();
        let gather_id = match txn.part {
            Some(part_id) => {
                let part = &self.gathers[part_id.gather as usize].parts[usize::from(part_id.part)];
                let (keys, seen) = (part.keys.clone(), part.seen);
                let mut at = usize::from(flight.key_at);
                for (n, &index) in keys.iter().enumerate() {
                    let key = next_token(line, at).unwrap_or_default();
                    at = key.end;
                    if n >= seen {
                        let route =
                            self.gathers[part_id.gather as usize].keys[usize::from(index)].route;
                        let from = self.rank_after(route, server);
                        targets.extend(self.target(verb, usize::from(index), route, from, key));
                    }
                }
                let gather = &mut self.gathers[part_id.gather as usize];
                gather.due -= 1;
                gather.verb = without_touch(gather.verb);
                part_id.gather
            }
            None => {
                let mut gather = Gather {
                    client,
                    seq,
                    verb: without_touch(txn.verb),
                    exptime: txn.exptime,
                    last: txn.last,
                    keys: Vec::new(),
                    parts: Vec::new(),
                    due: 0,
                    again: Vec::new(),
                    repaired: false,
                };
                self.replace_reply(client, seq, Reply::None);
                let mut at = usize::from(flight.key_at);
                while let Some(key) = next_token(line, at) {
                    at = key.end;
                    let route = self.routes.of(key.of(line));
                    let from = self.rank_after(route, server);
                    targets.extend(self.target(verb, gather.keys.len(), route, from, key));
                    gather.keys.push(Wanted::new(route));
                }
                self.gathers.insert(gather) as u32
            }
        };
        self.ask_parts(gather_id, line, targets);
    }

    fn rank_after(&self, route: Route, server: usize) -> usize {
        let asked =
            (0..self.routes.places()).find(|&rank| self.routes.server(route, rank) == Some(server));
        asked.map_or(0, |rank| rank + 1)
    }
}

impl Wanted {
    fn new(route: Route) -> Wanted {
        Wanted {
            route,
            exclusive: false,
            part: 0,
            start: 0,
            len: 0,
        }
    }
}

impl Gather {
    /// Stands in while the real one is lent out.
    fn placeholder() -> Gather {
        Gather {
            client: ClientId {
                index: u32::MAX,
                generation: 0,
            },
            seq: 0,
            verb: Verb::Get,
            exptime: 0,
            last: false,
            keys: Vec::new(),
            parts: Vec::new(),
            due: 0,
            again: Vec::new(),
            repaired: false,
        }
    }

    /// A request for `key_count` of its keys, for the transaction of a part.
    fn op(&self, key_count: usize) -> Op<'static> {
        Op::of_keys(self.client, self.seq, self.verb, self.exptime, key_count)
    }
}
