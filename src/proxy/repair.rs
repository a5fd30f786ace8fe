//! Flow and room: a key that one copy lacks is brought over from another, exactly: value, flags, time to live.
//!
//! ```text
//!   "get k" misses on P, which is cold      P: get k ---- miss
//!   another copy is asked                   B: mg k v t f ---- VA 5 t300 f7
//!   put back, unless a write passed since   P: ms k 5 T300 F7 ME     } one stream:
//!   and P is asked again                    P: get k ---- hit        } in this order
//! ```

use super::exact::Over;
use super::item::Item;
use super::journal::NotedKey;
use super::order::bucket;
use super::read::key_token;
use super::resync::Listed;
use super::route::Route;
use super::sabotage::{is, Sabotage};
use super::server::{InFlight, Role};
use super::txn::TxnId;
use super::{cas, Proxy};
use crate::buf::Body;
use crate::config::ReadRepair;
use crate::proto::response::Code;
use crate::proto::token::{next_token, Token};
use crate::proto::Verb;
use crate::time::Time;

/// A repair that writes have passed so often holds back those that follow.
const TRIES_MAX: u8 = 3;

/// What happens once the key is there, or nowhere.
#[derive(Debug)]
pub enum Then {
    /// The background copy goes on.
    Resync(Listed),
    /// The client of a write is answered.
    Answer(TxnId),
    /// The same; the item takes the place of what is there.
    Over(Over),
    /// The request is asked (again).
    Redo(Box<Redo>),
    /// A retrieval of many keys asks for this one again.
    Gather {
        /// Which retrieval.
        gather: u32,
        /// Which of its keys.
        index: u16,
    },
}

/// A request that waits for its key.
#[derive(Debug)]
pub struct Redo {
    /// Whose it is.
    pub txn: TxnId,
    /// `Read` or `Decide`.
    pub role: Role,
    /// The command.
    pub verb: Verb,
    /// The key's place in `request`.
    pub key: Token,
    /// The request and a small data block.
    pub request: Vec<u8>,
    /// A large data block.
    pub body: Option<Body>,
}

impl Redo {
    fn noted(&self) -> NotedKey {
        let base64 = is_base64(self.verb, &self.request);
        NotedKey::new(self.key.of(&self.request), base64)
    }
}

/// A key on its way from one copy to another.
#[derive(Debug)]
pub struct Repair {
    key: NotedKey,
    route: Route,
    target: usize,
    /// When the target came into use: with another time it has been lost since.
    since: Time,
    /// The server that is being asked.
    asked: usize,
    /// Copies of lower rank have been asked.
    next_rank: usize,
    epoch: (u32, u64),
    tries: u8,
    /// A copy that may have the key has not told.
    unsure: bool,
    /// An answer for a copy did not come in time, and is still waited for.
    late: bool,
    /// Nothing on the bucket may begin before the key is on its way to the target.
    claims: bool,
    then: Then,
    /// The answer of the copy that is being asked.
    answer: Vec<u8>,
}

impl Repair {
    /// The key.
    pub fn key(&self) -> &NotedKey {
        &self.key
    }

    /// Where it lives.
    pub fn route(&self) -> Route {
        self.route
    }

    /// The server it is brought to.
    pub fn target(&self) -> usize {
        self.target
    }

    /// The server it is brought to, and since when that has been in use.
    fn place(&self) -> (usize, Time) {
        (self.target, self.since)
    }

    /// The server that was asked last.
    pub fn asked(&self) -> usize {
        self.asked
    }

    /// Whether a copy gets what another one holds, however late that comes; not a client.
    pub fn is_for_a_copy(&self) -> bool {
        !matches!(self.then, Then::Redo(_) | Then::Gather { .. })
    }

    /// It does not come in time. True: that is new.
    pub fn note_late(&mut self) -> bool {
        !std::mem::replace(&mut self.late, true)
    }

    /// Whether it did not come in time.
    pub fn is_late(&self) -> bool {
        self.late
    }

    /// What happens afterwards.
    pub fn then(&self) -> &Then {
        &self.then
    }
}

impl Proxy {
    /// Whether a miss on `server` may be its own fault: other copies must be asked.
    pub(super) fn may_lack(&self, server: usize, route: Route) -> bool {
        if self.was_elsewhere(server, route) {
            return true;
        }
        let suspect = match self.settings.read_repair {
            _ if !self.meta => false,
            ReadRepair::Off => false,
            ReadRepair::Auto => self.servers[server].cold,
            ReadRepair::Always => true,
        };
        suspect && !is(Sabotage::MissBelieved) && self.has_other_copy(route, server)
    }

    /// Whether a key that moved may still be where it was before the ring changed, and nowhere else.
    pub(super) fn was_elsewhere(&self, server: usize, route: Route) -> bool {
        let former = route
            .former()
            .filter(|&former| former != server && self.meta);
        former.is_some_and(|former| self.servers[former].is_up())
    }

    /// Whether another copy of the key is up.
    pub(super) fn has_other_copy(&self, route: Route, server: usize) -> bool {
        self.routes.ranks() > 1
            && (0..self.routes.ranks()).any(|rank| {
                let other = self.routes.server(route, rank);
                other.is_some_and(|other| other != server && self.servers[other].is_up())
            })
    }

    /// Brings `key` to the server `target`.
    pub(super) fn begin_repair(&mut self, key: &NotedKey, route: Route, target: usize, then: Then) {
        let repair = Repair {
            key: key.clone(),
            route,
            target,
            since: self.servers[target].since,
            asked: target,
            next_rank: 0,
            epoch: self.order.epoch(bucket(route.hash)),
            tries: 0,
            unsure: false,
            late: false,
            claims: false,
            then,
            answer: Vec::new(),
        };
        let id = self.repairs.insert(repair) as u32;
        self.fetch_next(id);
    }

    /// Asks the next copy for the key; when none is left, it is nowhere.
    pub(super) fn fetch_next(&mut self, id: u32) {
        let repair = &mut self.repairs[id as usize];
        // Half an answer, if the server that gave it was lost in the middle.
        self.memory.give(repair.answer.len());
        repair.answer.clear();
        let (route, target) = (repair.route, repair.target);
        let expiry_is_known =
            matches!(&repair.then, Then::Resync(listed) if listed.expires.is_some());
        if !self.meta && !expiry_is_known {
            // It cannot be exact, so it is not done.
            return self.end_repair(id, false);
        }
        if let Then::Over(over) = repair.then {
            // Only the decider knows.
            let rank = usize::from(over.rank);
            let decider = self.routes.server(route, rank);
            let decider = decider.filter(|&server| self.servers[server].is_up());
            let repair = &mut self.repairs[id as usize];
            let asked = std::mem::replace(&mut repair.next_rank, rank + 1) > 0;
            return match decider.filter(|_| !asked) {
                Some(server) => self.fetch_from(id, server),
                None => self.end_repair(id, false),
            };
        }
        let found = (repair.next_rank..self.routes.ranks()).find_map(|rank| {
            let server = self.routes.server(route, rank)?;
            (server != target && self.servers[server].is_up()).then_some((rank, server))
        });
        // Behind the copies comes the place where the key was before.
        let last = self.routes.ranks();
        let before = route.former().filter(|&server| {
            repair.next_rank <= last && server != target && self.servers[server].is_up()
        });
        let Some((rank, server)) = found.or(before.map(|server| (last, server))) else {
            if let Then::Resync(listed) = &self.repairs[id as usize].then {
                let away = self.is_source_away(listed);
                self.repairs[id as usize].unsure |= away;
            }
            return self.end_repair(id, false);
        };
        let repair = &mut self.repairs[id as usize];
        repair.next_rank = rank + 1;
        if !self.meta {
            return self.fetch_classic(id, server);
        }
        self.fetch_from(id, server);
    }

    /// The copy that was asked has not answered in time, or with an error: it may have the key.
    pub(super) fn fetch_failed(&mut self, id: u32) {
        self.repairs[id as usize].unsure = !is(Sabotage::LateIsAbsent);
        self.fetch_next(id);
    }

    fn fetch_from(&mut self, id: u32, server: usize) {
        let repair = &mut self.repairs[id as usize];
        repair.asked = server;
        let route = repair.route;
        let mut line = b"mg ".to_vec();
        line.extend_from_slice(repair.key.key());
        let key = Token {
            start: 3,
            end: line.len(),
        };
        // With k, as the server remembers whether the key was written in base64.
        line.extend_from_slice(b" v t f k");
        if self.explicit_cas {
            line.extend_from_slice(b" c");
        }
        if repair.key.is_base64() {
            line.extend_from_slice(b" b");
        }
        if matches!(repair.then, Then::Resync(_)) {
            // A background copy is no use of the item.
            line.extend_from_slice(b" u");
        }
        line.extend_from_slice(b"\r\n");
        let link_id = self.link_for(server, route);
        let purpose = (Role::Fetch(id), Verb::MetaGet, None);
        self.queue_bytes(link_id, &line, None, key, purpose);
    }

    /// A write has passed a key on its way: what it left is looked at anew. After a few times nothing on the bucket may begin,
    /// so only what is under way can still pass.
    fn fetch_anew(&mut self, id: u32) {
        self.counters.refills_cancelled += 1;
        let repair = &mut self.repairs[id as usize];
        let bucket = bucket(repair.route.hash);
        repair.tries = repair.tries.saturating_add(1);
        let exclusive = matches!(repair.then, Then::Redo(_) | Then::Gather { .. });
        if repair.tries >= TRIES_MAX && is(Sabotage::OvertakenDropped) {
            return self.end_repair(id, true);
        }
        if repair.tries >= TRIES_MAX && !exclusive && !repair.claims {
            repair.claims = true;
            self.order.begin_exclusive(bucket);
        }
        repair.next_rank = 0;
        if repair.claims && self.order.is_deciding(bucket) {
            // Whatever is fetched before that is decided is too old.
            return self.parked.push(id);
        }
        repair.epoch = self.order.epoch(bucket);
        self.fetch_next(id);
    }

    /// Nothing is undecided on the bucket any more: repairs that waited for that go on.
    pub(super) fn unpark(&mut self, decided: usize) {
        if self.parked.is_empty() || self.order.is_deciding(decided) {
            return;
        }
        for id in std::mem::take(&mut self.parked) {
            let repair = &mut self.repairs[id as usize];
            if bucket(repair.route.hash) == decided {
                repair.epoch = self.order.epoch(decided);
                self.fetch_next(id);
            } else {
                self.parked.push(id);
            }
        }
    }

    /// Lets go what waits for a repair that writes had passed.
    fn let_pass(&mut self, id: u32) {
        let repair = &mut self.repairs[id as usize];
        let route = repair.route;
        if std::mem::take(&mut repair.claims) {
            self.unclaim(route);
        }
    }

    /// Bytes of the answer that is being waited for.
    pub(super) fn extend_fetch(&mut self, id: u32, bytes: &[u8]) {
        self.memory.take(bytes.len());
        self.repairs[id as usize].answer.extend_from_slice(bytes);
    }

    /// A copy has answered.
    pub(super) fn fetch_answered(&mut self, id: u32, code: Code, tail: &[u8]) {
        self.extend_fetch(id, tail);
        let repair = &mut self.repairs[id as usize];
        let answer = std::mem::take(&mut repair.answer);
        self.memory.give(answer.len());
        if code == Code::End {
            return self.fetched_classic(id, &answer);
        }
        if code == Code::MetaMiss {
            return self.fetch_next(id);
        }
        let item = Item::parse(&answer).filter(|_| code == Code::MetaValue);
        let Some(item) = item else {
            return self.fetch_failed(id);
        };
        let repair = &self.repairs[id as usize];
        let target = repair.target;
        if !self.is_fresh(repair) {
            return self.fetch_anew(id);
        }
        if self.servers[target].is_up() {
            self.counters.refills += 1;
            let from_former = self.repairs[id as usize].next_rank > self.routes.ranks();
            self.counters.handed_over += u64::from(from_former);
            if item.won {
                self.give_back(id, item.version);
            }
            self.write_item(id, &item);
            if matches!(self.repairs[id as usize].then, Then::Resync(_)) {
                // What follows stands behind it in the target's stream; it is done when it is answered.
                return self.let_pass(id);
            }
        }
        self.end_repair(id, true);
    }

    /// Whether what was fetched is still what the target would have to hold.
    fn is_fresh(&self, repair: &Repair) -> bool {
        let bucket = bucket(repair.route.hash);
        // What a request is asked again for is exclusive. Others may meet a conditional write: the target may have carried it
        // out already, and the copy that was asked has not heard of it.
        let exclusive = matches!(repair.then, Then::Redo(_) | Then::Gather { .. });
        let undecided = !exclusive && self.order.is_deciding(bucket);
        is(Sabotage::RefillNotCancelled) || repair.epoch == self.order.epoch(bucket) && !undecided
    }

    /// The key has been brought over, or is nowhere: what waited for it goes on.
    pub(super) fn end_repair(&mut self, id: u32, found: bool) {
        let repair = self.repairs.remove(id as usize);
        self.memory.give(repair.answer.len());
        if repair.claims {
            self.unclaim(repair.route);
        }
        let (unsure, place) = (repair.unsure && !found, repair.place());
        match repair.then {
            Then::Over(over) => self.end_over(over, &repair, found),
            Then::Redo(redo) if unsure => self.refuse_redo(&redo),
            Then::Resync(listed) => self.resynced(listed, repair.key, unsure),
            Then::Answer(txn) => self.stop_waiting(txn, found),
            Then::Redo(redo) => self.redo(*redo, place),
            Then::Gather { gather, index } => {
                if unsure {
                    let verb = self.gathers.at(gather).verb;
                    self.count_failed_reads(verb, 1);
                }
                self.regather_key(gather, index, place, repair.key.key(), found);
            }
        }
    }

    /// Whether the key of a request that has waited for it is there is not known: that is no absence, but an error.
    fn refuse_redo(&mut self, redo: &Redo) {
        let txn = self.txns.at(redo.txn);
        let (route, verb) = (txn.route, txn.verb);
        if redo.role == Role::Read {
            self.count_failed_reads(verb, 1);
            self.say_late(redo.txn);
        } else {
            txn.undecided = false;
            self.counters.failed_writes += 1;
            self.say_late(redo.txn);
            self.decided(bucket(route.hash));
        }
        self.close_txn(redo.txn);
    }

    /// Asks a request that has waited for its key. `target`: the server it was made for, and since when that was in use.
    fn redo(&mut self, mut redo: Redo, (target, since): (usize, Time)) {
        let txn = self.txns.at(redo.txn);
        txn.repaired = true;
        let route = txn.route;
        txn.epoch = self.order.short_epoch(bucket(route.hash));
        let flight = InFlight {
            role: redo.role,
            verb: redo.verb,
            txn: Some(redo.txn),
            key_at: redo.key.start as u16,
            key_len: (redo.key.end - redo.key.start) as u8,
            start: 0,
            end: redo.request.len() as u64,
            queued: self.now,
            sent: self.now,
            cost: 0,
            body: redo.body.clone(),
        };
        let Some((rank, server)) = self.acting(route, 0) else {
            let txn = self.txns.at(redo.txn);
            txn.rank = u8::MAX - 1;
            if redo.role == Role::Read {
                self.reread(redo.txn, &flight, &redo.request, target);
            } else {
                self.redecide(redo.txn, &flight, &redo.request);
            }
            self.close_txn(redo.txn);
            return;
        };
        self.txns.at(redo.txn).rank = rank as u8;
        if server != target {
            let line_end = memchr::memchr(b'\n', &redo.request).map_or(0, |newline| newline - 1);
            if let Some(token) = cas::condition(redo.verb, &redo.request[..line_end]) {
                // It was opened for the server that has been lost meanwhile.
                let mut request = Vec::with_capacity(redo.request.len() + 20);
                cas::open_request(&redo.request, token, None, false, &mut request);
                redo.request = request;
            }
        }
        let was_lost = server != target || self.servers[target].since != since;
        if was_lost && self.may_lack(server, route) {
            // The key was brought to another one, or to what that was before; this one may lack it, too.
            let noted = redo.noted();
            return self.begin_repair(&noted, route, server, Then::Redo(Box::new(redo)));
        }
        let link_id = self.link_for(server, route);
        let purpose = (redo.role, redo.verb, Some(redo.txn));
        self.queue_bytes(
            link_id,
            &redo.request,
            redo.body.as_ref(),
            redo.key,
            purpose,
        );
    }

    /// Asks other copies for the key of a request that missed on `server`, then asks it again.
    pub(super) fn repair_and_redo(
        &mut self,
        txn_id: TxnId,
        flight: &InFlight,
        request: &[u8],
        server: usize,
    ) {
        let route = self.txns.at(txn_id).route;
        let key = key_token(flight);
        let noted = NotedKey::new(key.of(request), is_base64(flight.verb, request));
        let redo = Redo {
            txn: txn_id,
            role: flight.role,
            verb: flight.verb,
            key,
            request: request.to_vec(),
            body: flight.body.clone(),
        };
        let then = Then::Redo(Box::new(redo));
        self.begin_repair(&noted, route, server, then);
    }
}

/// Whether the key of a meta request is written in base64.
pub(super) fn is_base64(verb: Verb, request: &[u8]) -> bool {
    if !verb.is_meta() {
        return false;
    }
    let line = &request[..memchr::memchr(b'\r', request).unwrap_or(request.len())];
    let mut at = 0;
    let mut words = 0;
    while let Some(token) = next_token(line, at) {
        at = token.end;
        words += 1;
        if words > 2 && token.of(line) == b"b" {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_a_flag_not_a_key() {
        assert!(is_base64(Verb::MetaGet, b"mg YQ== v b\r\n"));
        assert!(!is_base64(Verb::MetaGet, b"mg b v\r\n"));
        assert!(!is_base64(Verb::Get, b"get a b b\r\n"));
    }
}
