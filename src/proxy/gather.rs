//! Flow: retrievals of many keys. Each server is asked once per batch; the values are put together in the order
//! of the request.
//!
//! ```text
//!   get a b c d      a,c -> server 1: "get a c"   part 0
//!                    b,d -> server 2: "get b d"   part 1
//!   answers go into their part's buffer, each key knows its place there; when all parts are in: a b c d END
//! ```

use super::client::Reply;
use super::gathers::{Part, Target, Wanted, NONE, RESERVE_MAX};
use super::journal::NotedKey;
use super::op::Op;
use super::read::{push_retrieval, without_touch};
use super::repair::Then;
use super::route::Route;
use super::server::{InFlight, Role, NO_PART};
use super::txn::{PartId, TxnId};
use super::Proxy;
use crate::buf::RequestLog;
use crate::proto::token::{next_token, Token};
use crate::proto::{replies, Verb};
use crate::time::Time;

impl Proxy {
    /// Asks for the keys of a retrieval of more than one.
    pub(super) fn gather(&mut self, op: &Op<'_>) {
        let mut targets = std::mem::take(&mut self.gathers.targets);
        targets.clear();
        let mut at = op.key.start;
        let mut count = 0;
        let mut plain = true;
        while let Some(key) = next_token(&op.line[..op.keys_end], at) {
            at = key.end;
            let route = self.routes.of(key.of(op.line));
            let target = self.target(op.verb, count, route, 0, key);
            plain &= target.is_some_and(|target| {
                target.link == targets.first().map_or(target.link, |first| first.link)
                    && !self.may_lack(usize::from(target.link.server), route)
            });
            // Keys that nobody can be asked for stay in the list, to keep the order; they are nowhere.
            targets.push(target.unwrap_or(Target::nowhere(count, route)));
            count += 1;
        }
        if plain {
            // One server has all of them: its answer can pass as it is.
            let id = self.txns.open(op);
            self.ask_one(&targets, op, id);
        } else {
            let id = self
                .gathers
                .open(op.client, op.seq, op.verb, (op.exptime, op.last));
            for target in &targets {
                let exclusive = target.is_somewhere()
                    && self.claim(target.route, usize::from(target.link.server));
                let wanted = Wanted::new(target.route, exclusive);
                self.gathers.at(id).keys.push(wanted);
            }
            self.ask_parts(id, op.line, &targets);
        }
        self.gathers.targets = targets;
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
        let acting = match from {
            0 => self.acting_with_room(route),
            from => self.acting(route, from),
        };
        let Some((rank, server)) = acting else {
            self.count_failed_reads(verb, 1);
            return None;
        };
        self.counters.failovers += u64::from(rank > 0);
        Some(Target {
            index: index as u16,
            key,
            route,
            link: self.link_for(server, route),
        })
    }

    /// Queues a retrieval of all `targets`, whose keys stand in the line of `op`, on the link of the first.
    fn ask_one(&mut self, targets: &[Target], op: &Op<'_>, id: TxnId) {
        let link_id = targets[0].link;
        let log = &mut self.link_mut(link_id).log;
        let start = log.end();
        log.write_with(|out| push_retrieval(out, op.verb, op.exptime));
        let mut first = Token::default();
        for (n, target) in targets.iter().enumerate() {
            if n == 0 {
                first = next_key(log, start, target.key);
            } else {
                log.write(b" ");
            }
            log.write(target.key.of(op.line));
        }
        log.write(b"\r\n");
        self.put_in_flight(link_id, start, Role::Read, op.verb, Some(id), first, None);
    }

    /// Asks each server for its share of `targets`; with none, the retrieval may be complete.
    fn ask_parts(&mut self, id: u32, line: &[u8], targets: &[Target]) {
        let gather = self.gathers.at(id);
        let begun = gather.parts.len();
        for target in targets.iter().filter(|target| target.is_somewhere()) {
            let link = &mut self.servers[usize::from(target.link.server)].links
                [usize::from(target.link.conn)];
            if link.part == NO_PART {
                link.part = gather.parts.len() as u16;
                let start = link.log.end();
                link.log
                    .write_with(|out| push_retrieval(out, gather.verb, gather.exptime));
                let first_key = next_key(&link.log, start, target.key);
                gather.parts.push(Part::new(target, start, first_key));
            } else {
                link.log.write(b" ");
            }
            link.log.write(target.key.of(line));
            let part = &mut gather.parts[usize::from(link.part)];
            part.count += 1;
            let before = std::mem::replace(&mut part.last, target.index);
            if part.count > 1 {
                gather.keys[usize::from(before)].next = target.index;
            }
            let wanted = &mut gather.keys[usize::from(target.index)];
            wanted.part = link.part;
            wanted.next = NONE;
        }
        let parts = begun..gather.parts.len();
        gather.due += parts.len();
        for number in parts {
            let gather = self.gathers.at(id);
            let part = &gather.parts[number];
            let (link_id, start, key, verb) =
                (part.link, part.request, part.first_key, gather.verb);
            let op = gather.op(part.count);
            let link = self.link_mut(link_id);
            link.part = NO_PART;
            link.log.write(b"\r\n");
            let txn = self.txns.open(&op);
            self.txns.at(txn).part = Some(PartId {
                gather: id,
                part: number as u16,
            });
            self.put_in_flight(link_id, start, Role::Read, verb, Some(txn), key, None);
        }
        self.finish_gather(id);
    }

    /// The answer of a part has passed `skipped` keys without a value, and a block of `len` bytes begins.
    pub(super) fn begin_block(&mut self, id: PartId, skipped: usize, len: usize) {
        let gather = self.gathers.at(id.gather);
        let part = &mut gather.parts[usize::from(id.part)];
        for _ in 0..skipped {
            part.at = gather
                .keys
                .get(usize::from(part.at))
                .map_or(NONE, |key| key.next);
        }
        part.seen += skipped;
        part.block = part.bytes.len();
        if part.bytes.capacity() == 0 {
            part.bytes = self.memory.buffer();
        }
        // The others are likely to be of the same length.
        let rest = len * part.count.saturating_sub(part.seen);
        let room = RESERVE_MAX.saturating_sub(part.bytes.len());
        if part.bytes.capacity() - part.bytes.len() < len {
            self.memory.grow(&mut part.bytes, rest.min(room).max(len));
        }
    }

    /// Bytes of the block that is coming.
    pub(super) fn extend_block(&mut self, id: PartId, bytes: &[u8]) {
        self.memory.take(bytes.len());
        let part = &mut self.gathers.at(id.gather).parts[usize::from(id.part)];
        part.bytes.extend_from_slice(bytes);
    }

    /// The block is complete.
    pub(super) fn end_block(&mut self, id: PartId) {
        let gather = self.gathers.at(id.gather);
        let part = &mut gather.parts[usize::from(id.part)];
        let Some(wanted) = gather.keys.get_mut(usize::from(part.at)) else {
            return;
        };
        part.seen += 1;
        part.at = wanted.next;
        wanted.part = id.part;
        wanted.start = part.block;
        wanted.len = part.bytes.len() - part.block;
    }

    /// The answer of a part is complete.
    pub(super) fn end_part(&mut self, id: PartId) {
        self.gathers.at(id.gather).due -= 1;
        self.finish_gather(id.gather);
    }

    /// The answer of a part lacks some of its keys: those that its server may lack are brought over from other copies. `request`
    /// was what it was asked.
    pub(super) fn repair_missing(
        &mut self,
        id: PartId,
        server: usize,
        flight: &InFlight,
        request: &[u8],
    ) {
        let gather = &self.gathers.slab[id.gather as usize];
        if gather.repaired {
            return;
        }
        let mut missing = Vec::new();
        let mut at = usize::from(flight.key_at);
        let mut index = gather.parts[usize::from(id.part)].first;
        while let Some(wanted) = gather.keys.get(usize::from(index)) {
            let key = next_token(&request[..request.len() - 2], at).unwrap_or_default();
            at = key.end;
            if wanted.len == 0 && self.may_lack(server, wanted.route) {
                missing.push((index, wanted.route, NotedKey::new(key.of(request), false)));
            }
            index = wanted.next;
        }
        // All are counted before the first can end.
        self.gathers.at(id.gather).due += missing.len();
        for (index, route, key) in missing {
            let then = Then::Gather {
                gather: id.gather,
                index,
            };
            self.begin_repair(&key, route, server, then);
        }
    }

    /// A key that a retrieval missed has been brought over, or is nowhere.
    pub(super) fn regather_key(
        &mut self,
        gather: u32,
        index: u16,
        place: (usize, Time),
        key: &[u8],
        found: bool,
    ) {
        let entry = self.gathers.at(gather);
        entry.due -= 1;
        if found {
            entry.again.push((index, place, key.to_vec()));
        }
        self.finish_gather(gather);
    }

    /// Asks once more for the keys that have been brought over.
    fn gather_again(&mut self, id: u32) {
        let gather = self.gathers.at(id);
        gather.repaired = true;
        let again = std::mem::take(&mut gather.again);
        let verb = gather.verb;
        let mut line = Vec::new();
        let mut targets = Vec::with_capacity(again.len());
        for (index, (brought_to, since), key) in again {
            let start = line.len();
            line.extend_from_slice(&key);
            let token = Token {
                start,
                end: line.len(),
            };
            line.push(b' ');
            let route = self.gathers.at(id).keys[usize::from(index)].route;
            let acting = self.acting(route, 0);
            let stays = |server: usize| server == brought_to && self.servers[server].since == since;
            if acting.is_some_and(|(_, server)| !stays(server)) {
                // It was lost meanwhile; what acts now may lack the key, too.
                self.gathers.at(id).repaired = false;
            }
            targets.extend(self.target(verb, usize::from(index), route, 0, token));
        }
        self.ask_parts(id, &line, &targets);
    }

    fn finish_gather(&mut self, id: u32) {
        let gather = self.gathers.at(id);
        if gather.due > 0 {
            return;
        }
        if !gather.again.is_empty() {
            return self.gather_again(id);
        }
        let mut gather = self.gathers.slab.remove(id as usize);
        let tail = if gather.last { replies::END } else { b"" };
        if let Some(client) = self.clients.get_mut(gather.client.index as usize) {
            if client.generation == gather.client.generation {
                client.put_together(gather.seq, gather.values(), &mut self.memory);
            }
        }
        for part in &mut gather.parts {
            self.memory.give(part.bytes.len());
            self.memory.recycle(std::mem::take(&mut part.bytes));
        }
        self.finish_slot(gather.client, gather.seq, gather.keys.len(), tail);
        for wanted in gather.keys.iter().filter(|wanted| wanted.exclusive) {
            self.unclaim(wanted.route);
        }
        self.gathers.keep(gather);
    }

    /// A list of keys got no (complete) answer from `server`: what is missing is asked of the next copies.
    /// `bytes` is the request. The transaction has done its part.
    pub(super) fn regather(&mut self, id: TxnId, flight: &InFlight, bytes: &[u8], server: usize) {
        let txn = self.txns.at(id);
        txn.answered = true;
        let (client, seq, verb) = (txn.client, txn.seq, txn.verb);
        let line = &bytes[..bytes.len() - 2];
        let mut targets = Vec::new();
        let (exptime, last) = (txn.exptime, txn.last);
        let gather_id = match txn.part {
            Some(part_id) => {
                let gather = self.gathers.at(part_id.gather);
                gather.due -= 1;
                gather.verb = without_touch(gather.verb);
                // What was brought over was brought to the one that failed.
                gather.repaired = false;
                let part = &gather.parts[usize::from(part_id.part)];
                let (seen, mut index) = (part.seen, part.at);
                let mut at = usize::from(flight.key_at);
                let mut passed = 0;
                while let Some(key) = next_token(line, at) {
                    at = key.end;
                    passed += 1;
                    if passed <= seen {
                        continue;
                    }
                    let keys = &self.gathers.at(part_id.gather).keys;
                    let Some(&wanted) = keys.get(usize::from(index)) else {
                        break;
                    };
                    let from = self.rank_after(wanted.route, server);
                    let n = usize::from(index);
                    targets.extend(self.target(verb, n, wanted.route, from, key));
                    index = wanted.next;
                }
                part_id.gather
            }
            None => {
                let verb_now = without_touch(verb);
                let id = self.gathers.open(client, seq, verb_now, (exptime, last));
                self.replace_reply(client, seq, Reply::None);
                let mut at = usize::from(flight.key_at);
                while let Some(key) = next_token(line, at) {
                    at = key.end;
                    let route = self.routes.of(key.of(line));
                    let from = self.rank_after(route, server);
                    let n = self.gathers.at(id).keys.len();
                    targets.extend(self.target(verb, n, route, from, key));
                    self.gathers.at(id).keys.push(Wanted::new(route, false));
                }
                id
            }
        };
        self.ask_parts(gather_id, line, &targets);
    }

    fn rank_after(&self, route: Route, server: usize) -> usize {
        let asked =
            (0..self.routes.places()).find(|&rank| self.routes.server(route, rank) == Some(server));
        asked.map_or(0, |rank| rank + 1)
    }
}

/// Where a key that is written next to `log` stands in the request that begins at `start`.
fn next_key(log: &RequestLog, start: u64, key: Token) -> Token {
    let at = (log.end() - start) as usize;
    Token {
        start: at,
        end: at + key.end - key.start,
    }
}
