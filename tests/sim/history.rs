//! What clients asked and heard, key by key. When nothing is under way for a key, its operations since the last such
//! moment are handed to the search for an order that explains them all.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::explain;
use super::generate;
use super::kinds;
use super::linear::{self, Known, Rules};
use super::op::{Op, Seen};
use super::profile::{Guarantees, Plan};
use super::request::{text, Bytes, Request, Verb};

/// Names an operation until it is complete: its key, and its place in the key's history.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OpId {
    key: u32,
    index: u32,
}

struct Key {
    name: Bytes,
    ops: Vec<Op>,
    pending: usize,
    known: Known,
    /// The values that tokens were handed out with.
    tokens: BTreeMap<u64, Bytes>,
    /// A proxy died with a write to it under way: its copies may differ until the next plain write.
    torn: bool,
    /// All its copies are lost since then: it has no state any more.
    unserved: Option<u64>,
}

pub struct History {
    keys: Vec<Key>,
    names: BTreeMap<Bytes, usize>,
    rules: Rules,
    enabled: bool,
    errors: bool,
    /// How long an operation of unknown outcome may linger while nobody is waited for.
    linger: u64,
    /// How long at most, when servers fail one after the other.
    linger_most: u64,
    /// Until then a server that has failed may still be waited for, or servers that a proxy has just been sent to.
    failing_until: u64,
    /// A server that has not answered for so long is left out, and what it missed is noted.
    timeout: u64,
    returns: i64,
    /// Replies that were explained.
    pub checked: u64,
    /// Replies that came when nothing was known of their keys.
    pub unchecked: u64,
    /// Requests for keys that no server has.
    pub lost: u64,
}

impl History {
    pub fn new(plan: &Plan, guarantees: Guarantees) -> History {
        let names: Vec<Bytes> = (0..plan.keys)
            .map(|n| Rc::from(generate::key(n, plan.pieces, plan.twins).as_bytes()))
            .collect();
        let ranks = 1 + plan.config.backups.len() as u64;
        let lingers = if plan.lags { 6 } else { 0 };
        let keys = names.iter().map(|name| Key {
            name: Rc::clone(name),
            ops: Vec::new(),
            pending: 0,
            known: Known::absent(),
            tokens: BTreeMap::new(),
            torn: false,
            unserved: None,
        });
        History {
            keys: keys.collect(),
            names: names
                .iter()
                .enumerate()
                .map(|(index, name)| (Rc::clone(name), index))
                .collect(),
            rules: Rules {
                cas: guarantees.cas,
                leases: guarantees.leases,
                session: guarantees.session,
                late: plan.lags,
                lossy: guarantees.lossy,
                times: plan.times,
                item_max: plan.config.max_item_size,
                drift: explain::SLACK + 1,
            },
            enabled: guarantees.history,
            errors: guarantees.errors,
            timeout: plan.config.timeout.0,
            returns: 0,
            // Conditional writes on one key wait for each other.
            linger: (40 + 2 * (plan.pipeline * plan.clients) as u64)
                * (plan.delay_max + plan.service_max)
                + 2000,
            linger_most: (3 * ranks + lingers) * plan.config.timeout.0 + 100 * plan.delay_max,
            failing_until: 0,
            checked: 0,
            unchecked: 0,
            lost: 0,
        }
    }

    /// The number of a key.
    pub fn key(&self, name: &[u8]) -> Option<usize> {
        self.names.get(name).copied()
    }

    /// All keys.
    pub fn names(&self) -> impl Iterator<Item = &Bytes> {
        self.keys.iter().map(|key| &key.name)
    }

    /// A client asks.
    pub fn invoke(&mut self, client: usize, request: &Rc<Request>, now: u64) -> Vec<OpId> {
        if !self.enabled {
            return request
                .keys
                .iter()
                .map(|_| OpId { key: 0, index: 0 })
                .collect();
        }
        let keys: Vec<usize> = if request.verb == Verb::FlushAll {
            (0..self.keys.len()).collect()
        } else {
            request
                .keys
                .iter()
                .filter_map(|key| self.names.get(key).copied())
                .collect()
        };
        let mut ids = Vec::with_capacity(keys.len());
        for (index, key) in keys.into_iter().enumerate() {
            let place = &mut self.keys[key];
            let compared = explain::compared(request);
            let op = Op {
                expects: compared.and_then(|token| place.tokens.get(&token).cloned()),
                client,
                request: Rc::clone(request),
                index: if request.verb == Verb::FlushAll {
                    0
                } else {
                    index
                },
                asked: now,
                until: u64::MAX,
                lost_at: 0,
                seen: Seen::Pending,
            };
            ids.push(OpId {
                key: key as u32,
                index: place.ops.len() as u32,
            });
            place.ops.push(op);
            place.pending += 1;
        }
        ids
    }

    /// A client knows what came of it, or knows that it never will. The error says what was impossible.
    pub fn complete(&mut self, id: OpId, seen: Seen, now: u64) -> Result<(), String> {
        if !self.enabled {
            return Ok(());
        }
        let key = &mut self.keys[id.key as usize];
        let op = &mut key.ops[id.index as usize];
        // The refusal does not wait until the old item is gone from all copies.
        let too_large = |reply: &[u8]| reply.starts_with(b"SERVER_ERROR object too large");
        let seen = match seen {
            Seen::Reply(reply) if too_large(&reply) && now < self.failing_until => Seen::Unknown,
            seen => seen,
        };
        (op.until, op.lost_at) = match seen {
            Seen::Unheard if !self.rules.late => (now + self.linger, 0),
            // Where servers are late, it may still be on its way.
            Seen::Unknown | Seen::Unheard => {
                let until = now.max(self.failing_until) + self.linger;
                (until.min(now + self.linger_most), now)
            }
            _ => (now, now),
        };
        let seen = match seen {
            Seen::Unheard => Seen::Unknown,
            seen => seen,
        };
        op.seen = seen;
        if let Seen::Reply(reply) = &op.seen {
            if let Some((token, value)) = explain::token_and_value(&op.request, reply) {
                let first = key.tokens.entry(token).or_insert_with(|| Rc::from(value));
                if **first != *value {
                    return Err(format!(
                        "key {}: the token {token} stands for {:?} and for {:?}",
                        key.name.escape_ascii(),
                        text(first),
                        text(value)
                    ));
                }
            }
        }
        // A miss or an error says nothing about a key that no server has.
        let lost = key.unserved.is_some_and(|since| now >= since);
        let nothing = matches!(&op.seen, Seen::Reply(reply) if says_nothing(&op.request, reply));
        if lost && self.errors && (nothing || op.request.is_quiet()) {
            op.seen = Seen::Never;
        }
        key.pending -= 1;
        if key.pending == 0 {
            self.check(id.key as usize, now)
        } else {
            Ok(())
        }
    }

    /// Whether no write to the key of `id`, which is under way, can have taken effect since it was asked.
    pub fn is_undisturbed(&self, id: OpId) -> bool {
        let key = &self.keys[id.key as usize];
        let asked = key.ops[id.index as usize].asked;
        let over = |op: &Op| kinds::is_read(&op.request) || op.until < asked;
        key.known.carried.is_empty() && key.ops.iter().all(over)
    }

    /// Whether servers are known to have failed shortly before `time`, or since.
    pub fn has_failed_since(&self, time: u64) -> bool {
        self.failing_until >= time
    }

    /// All copies of the key are lost: whatever it held is gone, but nobody can tell when that shows.
    pub fn unserved(&mut self, key: usize, now: u64) {
        let key = &mut self.keys[key];
        key.unserved.get_or_insert(now);
    }

    /// A server begins to count anew: its tokens say so in a few bits only.
    pub fn forget_tokens(&mut self) {
        for key in &mut self.keys {
            key.tokens.clear();
        }
    }

    /// A server has come back. Each time that an item is brought from one server to another it may lose or gain a second,
    /// as their seconds begin at different moments.
    pub fn returned(&mut self) {
        self.rules.drift += 1;
        self.returns += 1;
    }

    /// How often a server has come back.
    pub fn returns(&self) -> i64 {
        self.returns
    }

    /// At `at` a server or a proxy fails or the address moves: what is under way lingers until servers are known to be dead.
    pub fn failure(&mut self, at: u64) {
        const PROBE: u64 = 500_000;
        self.failing_until = self.failing_until.max(at + 2 * self.timeout + PROBE);
        let until = self.failing_until + self.linger;
        for key in &mut self.keys {
            for op in key.ops.iter_mut().chain(&mut key.known.carried) {
                if op.seen == Seen::Unknown && op.until > at {
                    op.until = op.until.max(until.min(op.lost_at + self.linger_most));
                }
            }
        }
    }

    /// The proxy dies: what is under way may have been done at some copies and not at others.
    pub fn tear(&mut self, now: u64) {
        self.failure(now);
        for key in &mut self.keys {
            let lingers =
                |op: &Op| op.seen == Seen::Pending || (op.seen == Seen::Unknown && op.until > now);
            let mut ops = key.ops.iter().chain(&key.known.carried);
            if ops.any(|op| lingers(op) && !kinds::is_read(&op.request)) {
                key.known.tears.push(now);
            }
        }
    }

    /// Whether the copies of a key may differ, because a proxy died.
    pub fn is_torn(&self, key: usize) -> bool {
        let key = &self.keys[key];
        key.torn || !key.known.tears.is_empty()
    }

    fn check(&mut self, index: usize, now: u64) -> Result<(), String> {
        let key = &mut self.keys[index];
        let ops = std::mem::take(&mut key.ops);
        if key.unserved.is_some() {
            // Nothing is promised of it any more.
            key.known.forget();
            key.known.carried.clear();
            self.lost += ops.len() as u64;
            return Ok(());
        }
        key.torn |= !key.known.tears.is_empty();
        match linear::search(&mut key.known, ops, self.rules, now) {
            Ok(counts) => {
                key.torn &= key.known.is_unknown();
                self.checked += counts.checked;
                self.unchecked += counts.unchecked;
                Ok(())
            }
            Err(why) => Err(format!("key {}: {why}", key.name.escape_ascii())),
        }
    }
}

/// A miss.
fn says_nothing(request: &Request, reply: &[u8]) -> bool {
    (request.verb.is_retrieval() && reply.is_empty()) || reply.starts_with(b"EN")
}
