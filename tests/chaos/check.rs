//! The simulator's history check, fed with what real clients asked and heard: for each key the set of states it may
//! have, given every reply so far and every outcome that is not known. The search, and what memcached does to an item, are
//! the simulator's own files; what they take from the simulated world is given to them here.

#![allow(dead_code)] // Parts that only the simulator uses.

#[path = "../sim/accuse.rs"]
mod accuse;
#[path = "../sim/explain.rs"]
mod explain;
#[path = "../sim/explore.rs"]
mod explore;
#[path = "../sim/generate.rs"]
pub mod generate;
#[path = "../sim/item.rs"]
mod item;
#[path = "../sim/kinds.rs"]
mod kinds;
#[path = "../sim/linear.rs"]
mod linear;
#[path = "../sim/long.rs"]
pub mod long;
#[path = "../sim/meta.rs"]
mod meta;
#[path = "../sim/mix.rs"]
mod mix;
#[path = "../sim/op.rs"]
mod op;
#[path = "../sim/reply.rs"]
pub mod reply;
#[path = "../sim/request.rs"]
pub mod request;
#[path = "../sim/rng.rs"]
pub mod rng;

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

pub use explain::token;
use kinds::is_read;
use linear::{Known, Rules};
use op::{Op, Seen};
use request::{show, understand, Bytes, Verb};

/// The clock of the check begins here, whatever the host's says: seconds since 1970.
pub mod world {
    pub const EPOCH: i64 = 1_800_000_000;
}

/// What the generator wants to know.
pub mod profile {
    pub struct Plan {
        pub keys: usize,
        pub times: bool,
        pub short_times: bool,
        pub deadly_gats: bool,
        pub twins: bool,
        pub vivify: bool,
        pub marks: bool,
        pub pieces: bool,
        pub flushes: u64,
        pub profile: Profile,
    }

    /// What kind of run it is.
    pub struct Profile;

    impl Profile {
        /// Servers go and come back.
        pub fn returns(&self) -> bool {
            true
        }
    }
}

/// What a client heard, in a form that passes between threads.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Heard {
    Reply(Vec<u8>),
    Silent,
    /// Done or refused, and over.
    Either,
    Unknown,
    Refused,
    Never,
}

/// Something that happened at a client.
#[derive(Clone, Debug)]
pub enum Event {
    /// It asks this, with a number of its own.
    Asks(usize, u64, Vec<u8>),
    /// What it heard to that number, for one of the request's keys or for all of them.
    Hears(usize, u64, Option<usize>, Heard),
}

/// How long what nobody has heard the end of may still take effect, in microseconds.
const LINGER: u64 = 3_000_000;

/// So many operations on the key are told with an error.
const LATELY: usize = 40;

struct Key {
    name: Bytes,
    ops: Vec<Op>,
    pending: usize,
    known: Known,
    /// When each token was last seen.
    tokens: BTreeMap<u64, u64>,
    /// Writes that took effect: when they were asked, when they were answered.
    changes: Vec<(u64, u64)>,
    /// The latest operations, for the message.
    lately: VecDeque<Op>,
}

/// All keys, and what they may hold.
pub struct History {
    keys: Vec<Key>,
    names: BTreeMap<Bytes, usize>,
    /// Where the operations of each request are.
    places: BTreeMap<(usize, u64), Vec<(usize, usize)>>,
    rules: Rules,
    /// What happens is taken in and nothing is said of it.
    blind: bool,
    pub checked: u64,
    pub unchecked: u64,
    pub unknown: u64,
    /// Tokens that were compared.
    pub compared: u64,
}

impl History {
    pub fn new(keys: usize) -> History {
        let names: Vec<Bytes> = (0..keys)
            .map(|n| Rc::from(generate::key(n, false, false).as_bytes()))
            .collect();
        let keys = names.iter().map(|name| Key {
            name: Rc::clone(name),
            ops: Vec::new(),
            pending: 0,
            known: Known::absent(),
            tokens: BTreeMap::new(),
            changes: Vec::new(),
            lately: VecDeque::new(),
        });
        History {
            keys: keys.collect(),
            names: (0..)
                .zip(&names)
                .map(|(n, name)| (name.clone(), n))
                .collect(),
            places: BTreeMap::new(),
            rules: Rules {
                // A token may be refused after its server's death. That it is not taken wrongly is checked here.
                cas: false,
                leases: false,
                lossy: false,
                session: false,
                late: false,
                times: true,
                item_max: 1 << 20,
                drift: 10,
            },
            blind: false,
            checked: 0,
            unchecked: 0,
            unknown: 0,
            compared: 0,
        }
    }

    /// Takes in what happened, each with its time in microseconds. `blind`: more than one server was away at a time, so
    /// anything may have happened. The error says what was impossible.
    pub fn take(&mut self, events: Vec<(u64, Event)>, blind: bool) -> Result<(), String> {
        self.blind = blind;
        for (now, event) in events {
            match event {
                Event::Asks(client, number, bytes) => self.asked(client, number, &bytes, now),
                Event::Hears(client, number, index, heard) => {
                    let Some(places) = self.places.get(&(client, number)).cloned() else {
                        continue;
                    };
                    let chosen = match index {
                        Some(index) => &places[index..=index],
                        None => &places[..],
                    };
                    for &(key, op) in chosen {
                        self.complete(key, op, &heard, now)?;
                    }
                    if index.is_none_or(|index| index + 1 == places.len()) {
                        self.places.remove(&(client, number));
                    }
                }
            }
        }
        Ok(())
    }

    fn asked(&mut self, client: usize, number: u64, bytes: &[u8], now: u64) {
        let request = Rc::new(understand(bytes, false));
        let keys: Vec<usize> = if request.verb == Verb::FlushAll {
            (0..self.keys.len()).collect()
        } else {
            let known = request.keys.iter().map(|key| self.names.get(key).copied());
            known
                .map(|key| key.expect("only these are asked for"))
                .collect()
        };
        let flush = request.verb == Verb::FlushAll;
        let mut places = Vec::with_capacity(keys.len());
        for (index, key) in keys.into_iter().enumerate() {
            let ops = &mut self.keys[key].ops;
            places.push((key, ops.len()));
            ops.push(Op {
                client,
                request: Rc::clone(&request),
                index: if flush { 0 } else { index },
                expects: None,
                asked: now,
                until: u64::MAX,
                lost_at: 0,
                seen: Seen::Pending,
            });
            self.keys[key].pending += 1;
        }
        if !places.is_empty() {
            self.places.insert((client, number), places);
        }
    }

    fn complete(&mut self, key: usize, op: usize, heard: &Heard, now: u64) -> Result<(), String> {
        let place = &mut self.keys[key];
        let op = &mut place.ops[op];
        op.seen = match heard {
            // Of a read nothing remains.
            Heard::Either | Heard::Unknown if is_read(&op.request) => Seen::Never,
            Heard::Reply(reply) => Seen::Reply(Rc::from(&reply[..])),
            Heard::Silent => Seen::Silent,
            Heard::Either | Heard::Unknown => Seen::Unknown,
            Heard::Refused => Seen::Refused,
            Heard::Never => Seen::Never,
        };
        op.until = now;
        if op.seen == Seen::Unknown && *heard == Heard::Unknown {
            op.until = now + LINGER;
            self.unknown += 1;
        }
        let op = op.clone();
        if place.lately.len() == LATELY {
            place.lately.pop_front();
        }
        place.lately.push_back(op.clone());
        place.pending -= 1;
        let whole = place.pending == 0;
        let result = self.compare(key, &op);
        let result = result.and_then(|()| if whole { self.check(key, now) } else { Ok(()) });
        result.map_err(|why| {
            let lately: Vec<String> = self.keys[key].lately.iter().map(line).collect();
            format!("{why}\n  lately, as they ended:\n{}", lately.join("\n"))
        })
    }

    /// A token that was given out before a write is not taken after it.
    fn compare(&mut self, key: usize, op: &Op) -> Result<(), String> {
        let Seen::Reply(reply) = &op.seen else {
            return Ok(());
        };
        let place = &mut self.keys[key];
        let verb = op.request.verb;
        if verb.is_retrieval() || verb == Verb::Mg {
            if let Some(token) = explain::token(&op.request, reply) {
                let seen = place.tokens.entry(token).or_default();
                *seen = op.until.max(*seen);
            }
            return Ok(());
        }
        if !took_effect(verb, reply) {
            return Ok(());
        }
        let compared = match verb {
            Verb::Cas => Some(op.request.cas),
            // These store where nothing is, whatever the token says.
            _ if op.request.mode() == b'E' || op.request.flag(b'N').is_some() => None,
            _ => op.request.flag(b'C').and_then(request::parse),
        };
        if let Some(token) = compared.filter(|_| !self.blind) {
            self.compared += 1;
            let seen = place.tokens.get(&token);
            let Some(&seen) = seen else {
                let request = show(&op.request);
                return Err(format!(
                    "a token that nobody was given was taken: {request}"
                ));
            };
            let mut between = place.changes.iter();
            if let Some(change) = between.find(|(asked, until)| *asked > seen && *until < op.asked)
            {
                return Err(format!(
                    "key {}: token seen until {seen} taken after a write at {change:?}: {}",
                    place.name.escape_ascii(),
                    show(&op.request)
                ));
            }
        }
        place.changes.push((op.asked, op.until));
        Ok(())
    }

    fn check(&mut self, index: usize, now: u64) -> Result<(), String> {
        let key = &mut self.keys[index];
        let ops = std::mem::take(&mut key.ops);
        let count = ops.len() as u64;
        // Old tokens are tried now and then; old writes tell nothing more than the latest.
        if key.changes.len() > 64 {
            key.changes.drain(..32);
        }
        if self.blind {
            key.known.forget();
            key.known.carried.clear();
            self.unchecked += count;
            return Ok(());
        }
        let counts = linear::search(&mut key.known, ops, self.rules, now)
            .map_err(|why| format!("key {}: {why}", key.name.escape_ascii()))?;
        self.checked += counts.checked;
        self.unchecked += counts.unchecked;
        Ok(())
    }
}

/// An operation, for people.
fn line(op: &Op) -> String {
    let seen = match &op.seen {
        Seen::Reply(reply) => format!(
            "{:?}",
            reply[..reply.len().min(60)].escape_ascii().to_string()
        ),
        other => format!("{other:?}"),
    };
    let request = show(&op.request);
    format!(
        "    {}-{} client {} {request}: {seen}",
        op.asked, op.until, op.client
    )
}

/// Whether this answer to a write says that the item was changed.
fn took_effect(verb: Verb, reply: &[u8]) -> bool {
    match verb {
        Verb::Touch => false,
        Verb::Incr | Verb::Decr => reply[0].is_ascii_digit(),
        Verb::Ms | Verb::Md | Verb::Ma => {
            reply.is_empty() || reply.starts_with(b"HD") || reply.starts_with(b"VA")
        }
        _ => [&b"STORED"[..], b"DELETED", b"OK"]
            .iter()
            .any(|word| reply.starts_with(word)),
    }
}
