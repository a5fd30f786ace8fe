//! Flow: an outcome that may not be the same on a copy is put right there.
//!
//! `ma N`, `mg N` and `ms MA N` make an item where there is none, and a copy may hold an older one, or none, where the decider
//! did not; `ms C I` marks what it stores as stale if the item was newer. What came of it the answer does not tell. So the item
//! is fetched from the decider and takes the place of whatever the copy holds. Meanwhile nothing new is asked of the key, and the
//! copy has what it makes of the request itself: mostly that is right already, and the decider may die.
//!
//! ```text
//!   "ma k N60" to P           P: VA 1, the initial value
//!                             B: ma k N60       } it may have had an older one
//!   what came of it           P: mg k v t f ---- VA 1 t60 f0
//!   in place of what is there B: ms k 1 T60 F0
//! ```

use super::journal::NotedKey;
use super::order::bucket;
use super::refill::RELATIVE_MAX;
use super::repair::{Repair, Then};
use super::route::Route;
use super::server::Role;
use super::txn::TxnId;
use super::Proxy;
use crate::proto::token::{parse_decimal, Token, Tokens};
use crate::proto::Verb;

/// A copy that gets what its decider holds.
#[derive(Clone, Copy, Debug)]
pub struct Over {
    /// Whose outcome it is.
    pub txn: TxnId,
    /// The rank of the decider.
    pub rank: u8,
    /// The right to refill has been given away.
    pub won: bool,
}

/// Whether the request `line` may have left something that its answer does not tell. `number`: what a counter was set to, if
/// that is known; `won`: the answer gave the right to refill.
pub(super) fn is_untold(verb: Verb, line: &[u8], number: Option<u64>, won: bool) -> bool {
    if !verb.is_meta() {
        return false;
    }
    let tokens = Tokens::split(line);
    let flag = |letter: u8| {
        let mut flags = tokens.as_slice().iter().skip(2);
        flags.find_map(|token| token.of(line).strip_prefix(&[letter]))
    };
    let makes = flag(b'N').is_some();
    match verb {
        // With another number than the first one it was there before.
        Verb::MetaArithmetic if makes => {
            let first = flag(b'J').map_or(Some(0), parse_decimal);
            number.is_none() || number == first
        }
        Verb::MetaGet => makes && won,
        Verb::MetaSet => makes || (flag(b'I').is_some() && flag(b'C').is_some()),
        _ => false,
    }
}

impl Proxy {
    /// Copies what the transaction `id` has left on its decider to `server`. `won`: see [`Over`].
    pub(super) fn copy_outcome(&mut self, id: TxnId, server: usize, noted: &NotedKey, won: bool) {
        let txn = self.txns.at(id);
        let (route, rank) = (txn.route, txn.rank);
        // What is under way for the key may still be ahead of it; what comes now is not, so this ends.
        self.order.begin_exclusive(bucket(route.hash));
        self.wait_for_repair(id, noted, server, Then::Over(Over { txn: id, rank, won }));
    }

    /// Brings a key to a copy before the client of the transaction `id` is answered.
    pub(super) fn wait_for_repair(
        &mut self,
        id: TxnId,
        noted: &NotedKey,
        server: usize,
        then: Then,
    ) {
        // One more is outstanding meanwhile: the transaction is still needed if that ends at once.
        let txn = self.txns.at(id);
        let route = txn.route;
        txn.outstanding += 2;
        txn.waiting += 1;
        self.begin_repair(noted, route, server, then);
        self.txns.at(id).outstanding -= 1;
    }

    /// The copy has been sent what the decider holds; not `found`: it could not be had.
    pub(super) fn end_over(&mut self, over: Over, repair: &Repair, found: bool) {
        let (server, route, key) = (repair.target(), repair.route(), repair.key());
        let decider = self.routes.server(route, usize::from(over.rank));
        let decider_lives = decider.is_some_and(|decider| self.servers[decider].is_up());
        if !self.servers[server].is_up() {
            if self.misses_outcome(server, key.clone()) {
                self.fence(over.txn);
            }
        } else if found && over.won {
            self.echo(server, route, key);
        } else if !found && decider_lives {
            // It may be absent, but must not differ.
            self.counters.heals += 1;
            self.delete_on(server, route, key, Role::Heal);
        }
        self.unclaim(route);
        if repair.is_late() {
            // Its client has not been waiting for it since.
            self.txns.at(over.txn).waiting += 1;
        }
        // What went with the decider is there as far as could be told.
        self.stop_waiting(over.txn, found || !decider_lives);
    }

    /// What a copy is to get does not come in time; it still gets it. Until then it lacks an outcome that it did not take, and has
    /// one that is only to be put right.
    pub(super) fn copy_late(&mut self, id: u32) {
        let repair = &mut self.repairs[id as usize];
        let is_new = repair.note_late();
        match *repair.then() {
            Then::Over(over) if is_new => self.write_late(over.txn),
            Then::Answer(txn) if !self.txns.at(txn).answered => {
                self.counters.failed_writes += 1;
                self.say_late(txn);
            }
            _ => {}
        }
    }

    /// The copy must not give the right to refill away once more.
    fn echo(&mut self, server: usize, route: Route, noted: &NotedKey) {
        let mut line = b"mg ".to_vec();
        line.extend_from_slice(noted.key());
        let key = Token {
            start: 3,
            end: line.len(),
        };
        if noted.is_base64() {
            line.extend_from_slice(b" b");
        }
        line.extend_from_slice(format!(" R{RELATIVE_MAX}\r\n").as_bytes());
        let link_id = self.link_for(server, route);
        self.queue_bytes(link_id, &line, None, key, (Role::Echo, Verb::MetaGet, None));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_answer_does_not_tell() {
        let untold = |line: &str, number, won| {
            let verb = match &line[..2] {
                "ma" => Verb::MetaArithmetic,
                "mg" => Verb::MetaGet,
                "ms" => Verb::MetaSet,
                _ => Verb::Incr,
            };
            is_untold(verb, line.as_bytes(), number, won)
        };
        for (line, number, won) in [
            ("ma k N60", None, false),
            ("ma k N60 v", Some(0), false),
            ("ma k J7 v N60", Some(7), false),
            ("mg k N60 v", None, true),
            ("ms k 1 MA N60", None, false),
            ("ms k 1 C5 I", None, false),
        ] {
            assert!(untold(line, number, won), "{line}");
        }
        for (line, number, won) in [
            ("ma k N60 v J7", Some(8), false),
            ("ma k v", Some(0), false),
            ("ma k", None, false),
            ("mg k N60 T5", None, false),
            ("mg k R60", None, true),
            ("ms k 1 MA", None, false),
            ("ms k 1 C5", None, false),
            ("incr N 1", Some(0), false),
        ] {
            assert!(!untold(line, number, won), "{line}");
        }
    }
}
