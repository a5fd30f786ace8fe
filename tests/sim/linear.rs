//! The search for an order: operations on one key, each with the time in which it must have taken effect and what was
//! heard of it, are explained one by one, in the order of their replies. A configuration is a state that the key may
//! have, and which of the operations that are still under way have been used to reach it.
//!
//! Reads that fit a state are used up at once: they change nothing, so there is no better moment for them.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};

use super::explain::from_nothing;
use super::history::{Op, Seen};
use super::item::Item;
use super::request::{Request, Verb};

/// What a key may hold.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum State {
    /// Anything: nothing is known.
    Any,
    Known(Option<Item>),
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            State::Any => f.write_str("anything"),
            State::Known(None) => f.write_str("nothing"),
            State::Known(Some(item)) => item.fmt(f),
        }
    }
}

/// A state, and the slots of operations that are used.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Config {
    // First, as it is quick to compare.
    pub done: u128,
    pub state: State,
}

#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Versions are compared.
    pub cas: bool,
    /// Only one client at a time wins the right to refill.
    pub leases: bool,
    /// A key may be missed at any time, and be there again.
    pub lossy: bool,
    /// Items have times to live.
    pub times: bool,
    /// A read does not see what its own client asked for behind it.
    pub session: bool,
    pub item_max: usize,
    /// Seconds by which a remaining time to live may be off.
    pub drift: i64,
}

/// More configurations than this are not looked at; the key is unknown then.
const CONFIGS_MAX: usize = 400;

/// Slots of a configuration.
const SLOTS: usize = 128;

/// Explains `ops`, which are all complete. `Ok(false)`: they are not explained, nothing is known of the key.
pub fn search(
    configs: &mut Vec<Config>,
    carried: &mut Vec<Op>,
    ops: Vec<Op>,
    rules: Rules,
    now: u64,
) -> Result<bool, String> {
    if configs.iter().any(|config| config.state == State::Any) {
        // Every reply fits a key of which nothing is known. It is known again when one write stands alone.
        let Some((state, rest)) = restart(carried, &ops, rules) else {
            carried.extend(ops.into_iter().filter(|op| op.seen == Seen::Unknown));
            carried.retain(|op| op.until > now);
            return Ok(false);
        };
        carried.clear();
        *configs = vec![Config { state, done: 0 }];
        return match search(configs, carried, ops[rest..].to_vec(), rules, now) {
            Ok(_) => Ok(false),
            err => err,
        };
    }
    let old = carried.len();
    let mut all = std::mem::take(carried);
    all.extend(ops);
    let mut search = Search {
        kinds: all.iter().map(|op| Kind::of(op, rules)).collect(),
        slots: vec![usize::MAX; all.len()],
        free: (0..SLOTS).rev().collect(),
        active: Vec::new(),
        ops: all,
        rules,
        optional: 0,
        states: Vec::new(),
        numbers: HashMap::default(),
        steps: HashMap::default(),
        after: Vec::new(),
    };
    for index in 0..old {
        search.enter(index);
    }
    let outcome = search.run(configs, old, now);
    match outcome {
        Ok(true) => {
            search.carry(configs, carried, now);
            Ok(true)
        }
        Ok(false) => {
            *configs = vec![Config {
                state: State::Any,
                done: 0,
            }];
            Ok(false)
        }
        Err(why) => Err(why),
    }
}

/// The last write that leaves a known state, and nothing else under way with it: that state, and which operations follow.
fn restart(carried: &[Op], ops: &[Op], rules: Rules) -> Option<(State, usize)> {
    let mut busy_until = carried.iter().map(|op| op.until).max().unwrap_or(0);
    let mut found = None;
    for (index, op) in ops.iter().enumerate() {
        let next = ops.get(index + 1).map_or(u64::MAX, |next| next.asked);
        if op.asked > busy_until && next > op.until {
            match from_nothing(op, rules) {
                State::Any => {}
                state => found = Some((state, index + 1)),
            }
        }
        if op.seen != Seen::Never {
            busy_until = busy_until.max(op.until);
        }
    }
    found
}

/// What an operation may pass and be passed by.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Read,
    /// A read that sets the time to live.
    Touch,
    Write,
}

/// What the search needs to know of an operation again and again.
#[derive(Clone, Copy)]
pub(super) struct Kind {
    /// It changed nothing, whatever the key held: a read, or a write that was refused.
    harmless: bool,
    class: Class,
    /// A retrieval, and whether it found something.
    pub(super) found: Option<bool>,
    unknown: bool,
}

impl Kind {
    fn of(op: &Op, rules: Rules) -> Kind {
        let request = &op.request;
        let touches = request.verb.is_retrieval() && !is_read(request);
        let class = match touches {
            true if rules.times => Class::Touch,
            false if !is_read(request) => Class::Write,
            _ => Class::Read,
        };
        let mut kind = Kind {
            harmless: false,
            class,
            found: None,
            unknown: op.seen == Seen::Unknown,
        };
        if let Seen::Reply(reply) = &op.seen {
            let refused: [&[u8]; 7] = [
                b"NOT_STORED",
                b"NOT_FOUND",
                b"EXISTS",
                b"NS",
                b"NF",
                b"EX",
                b"EN",
            ];
            let reads = class == Class::Read;
            kind.harmless = reads || refused.iter().any(|word| reply.starts_with(word));
            kind.found = request.verb.is_retrieval().then_some(!reply.is_empty());
        }
        kind
    }

    /// Whether it is a retrieval that sets times to live.
    pub(super) fn is_touch(self) -> bool {
        self.class == Class::Touch
    }
}

/// Which clients have operations in front that have not taken effect: a client's operations on one key take effect in
/// their order, but for those whose outcome is unknown.
#[derive(Default)]
struct Waiting {
    reads: u64,
    touches: u64,
    writes: u64,
}

impl Waiting {
    /// Where a read may be asked again, what its client has asked for behind it without waiting may pass it.
    fn may_go(&self, op: &Op, kind: Kind, rules: Rules) -> bool {
        let before = match kind.class {
            Class::Write if !rules.session => self.writes,
            Class::Touch | Class::Read if !rules.session => self.writes | self.touches,
            _ => self.writes | self.touches | self.reads,
        };
        before & (1 << op.client) == 0
    }

    fn note(&mut self, op: &Op, kind: Kind) {
        let client = 1 << op.client;
        match kind.class {
            _ if kind.unknown => {}
            Class::Read => self.reads |= client,
            Class::Touch => self.touches |= client,
            Class::Write => self.writes |= client,
        }
    }
}

/// A state by its number, and the slots of operations that are used.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Place {
    done: u128,
    state: u32,
}

/// A quick hash, the same in every run.
#[derive(Default)]
struct Mix(u64);

impl Hasher for Mix {
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(29) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn write_u32(&mut self, word: u32) {
        self.write_u64(u64::from(word));
    }

    fn write_u128(&mut self, word: u128) {
        self.write_u64(word as u64);
        self.write_u64((word >> 64) as u64);
    }
}

type Hashed = BuildHasherDefault<Mix>;

pub(super) struct Search {
    pub(super) ops: Vec<Op>,
    pub(super) kinds: Vec<Kind>,
    /// The slot of each operation while it is under way.
    slots: Vec<usize>,
    free: Vec<usize>,
    /// Operations under way, in the order in which they were asked.
    active: Vec<usize>,
    pub(super) rules: Rules,
    /// Slots of operations that need not take effect.
    optional: u128,
    /// All states that were met, each once.
    states: Vec<State>,
    numbers: HashMap<State, u32, Hashed>,
    /// What follows a state when an operation takes effect: where its states are in `after`, and how many.
    steps: HashMap<(u32, u32), (u32, u32), Hashed>,
    after: Vec<u32>,
}

impl Search {
    fn enter(&mut self, index: usize) -> bool {
        let unknown = self.kinds[index].unknown;
        // A read that nobody heard the reply of; but `mg` may have been given the right to refill.
        let may_win = self.rules.leases && self.ops[index].request.verb == Verb::Mg;
        let nothing = unknown && self.kinds[index].class == Class::Read && !may_win;
        if nothing || matches!(self.ops[index].seen, Seen::Never | Seen::Refused) {
            return true;
        }
        let Some(slot) = self.free.pop() else {
            return false;
        };
        self.slots[index] = slot;
        self.active.push(index);
        if unknown {
            self.optional |= 1 << slot;
        }
        true
    }

    /// Operations are finished in the order of their replies. One of unknown outcome is finished when it can take effect
    /// no more; one that still can at `now` goes on.
    fn run(&mut self, configs: &mut Vec<Config>, first: usize, now: u64) -> Result<bool, String> {
        let mut places: Vec<Place> = configs
            .drain(..)
            .map(|config| Place {
                done: config.done,
                state: self.number(config.state),
            })
            .collect();
        let ends = |op: &Op| match op.seen {
            Seen::Reply(_) | Seen::Silent => true,
            Seen::Unknown => op.until <= now,
            Seen::Pending | Seen::Refused | Seen::Never => false,
        };
        let mut order: Vec<usize> = (0..self.ops.len())
            .filter(|&n| ends(&self.ops[n]))
            .collect();
        order.sort_by_key(|&n| (self.ops[n].until, n));
        let mut next = first;
        for due in order {
            let reply_at = self.ops[due].until;
            while next < self.ops.len() && self.ops[next].asked <= reply_at {
                if !self.enter(next) {
                    return Ok(false);
                }
                next += 1;
            }
            let slot = self.slots[due];
            if slot == usize::MAX {
                continue;
            }
            let optional = self.kinds[due].unknown;
            let bit = 1u128 << slot;
            let untouched = places
                .iter()
                .filter(|place| optional && place.done & bit == 0);
            let mut found: Vec<Place> = untouched.copied().collect();
            if !self.explain(&places, due, &mut found) {
                return Ok(false);
            }
            if found.is_empty() {
                return Err(self.accuse(&places, due));
            }
            places = self.undominated(found);
            self.active.retain(|&index| index != due);
            self.optional &= !bit;
            self.free.push(slot);
        }
        while next < self.ops.len() {
            if !self.enter(next) {
                return Ok(false);
            }
            next += 1;
        }
        configs.extend(places.iter().map(|place| Config {
            done: place.done,
            state: self.states[place.state as usize].clone(),
        }));
        Ok(true)
    }

    /// The number of a state.
    fn number(&mut self, state: State) -> u32 {
        if let Some(&number) = self.numbers.get(&state) {
            return number;
        }
        let number = self.states.len() as u32;
        self.states.push(state.clone());
        self.numbers.insert(state, number);
        number
    }

    /// The states that can follow `state` when the operation takes effect until `by`: their places in `after`.
    fn follow(&mut self, state: u32, index: usize, by: u64) -> std::ops::Range<usize> {
        let name = (state, index as u32);
        if let Some(&(start, count)) = self.steps.get(&name) {
            return start as usize..(start + count) as usize;
        }
        let states = self.step(&self.states[state as usize], index, by);
        let start = self.after.len();
        for state in states {
            let number = self.number(state);
            self.after.push(number);
        }
        let count = self.after.len() - start;
        self.steps.insert(name, (start as u32, count as u32));
        start..start + count
    }

    /// Adds to `found` all configurations in which `due` has taken effect. False: there are too many.
    fn explain(&mut self, places: &[Place], due: usize, found: &mut Vec<Place>) -> bool {
        let bit = 1u128 << self.slots[due];
        let by = self.ops[due].until;
        if self.rules.times {
            // What an operation does may hang on the time until which it may take effect.
            self.steps.clear();
            self.after.clear();
        }
        if let ([Place { done: 0, state }], [_]) = (places, &self.active[..]) {
            let after = self.follow(*state, due, by);
            let places = self.after[after].iter();
            found.extend(places.map(|&state| Place { done: 0, state }));
            return true;
        }
        let mut seen: HashSet<Place, Hashed> = HashSet::default();
        let mut stack = places.to_vec();
        while let Some(mut place) = stack.pop() {
            self.use_reads(&mut place, by);
            if place.done & bit != 0 {
                place.done &= !bit;
                found.push(place);
                continue;
            }
            if !seen.insert(place) {
                continue;
            }
            if seen.len() > CONFIGS_MAX {
                return false;
            }
            let mut waiting = Waiting::default();
            for n in 0..self.active.len() {
                let index = self.active[n];
                let kind = self.kinds[index];
                let bit = 1 << self.slots[index];
                if place.done & bit != 0 {
                    continue;
                }
                if waiting.may_go(&self.ops[index], kind, self.rules) {
                    let done = place.done | bit;
                    let after = self.follow(place.state, index, by);
                    let places = self.after[after].iter();
                    stack.extend(places.map(|&state| Place { done, state }));
                }
                waiting.note(&self.ops[index], kind);
            }
        }
        true
    }

    /// Of two equal states, the one that has used up less of what is optional is as good as both.
    fn undominated(&self, mut found: Vec<Place>) -> Vec<Place> {
        found.sort_unstable();
        found.dedup();
        if self.optional == 0 {
            return found;
        }
        let mut kept: Vec<Place> = Vec::with_capacity(found.len());
        for place in found {
            let better = |other: &Place| {
                let more = place.done & !other.done;
                other.state == place.state
                    && other.done & !place.done == 0
                    && more & !self.optional == 0
            };
            if !kept.iter().any(better) {
                kept.push(place);
            }
        }
        kept
    }

    /// Uses up what is there to be read in this state. Not what would tell the state's version: that is a choice.
    fn use_reads(&mut self, place: &mut Place, by: u64) {
        let mut waiting = Waiting::default();
        for n in 0..self.active.len() {
            let index = self.active[n];
            let kind = self.kinds[index];
            let bit = 1 << self.slots[index];
            if place.done & bit != 0 {
                continue;
            }
            let fits = kind.harmless && waiting.may_go(&self.ops[index], kind, self.rules) && {
                let after = self.follow(place.state, index, by);
                self.after[after] == [place.state]
            };
            if fits {
                place.done |= bit;
            } else {
                waiting.note(&self.ops[index], kind);
            }
        }
    }

    fn accuse(&self, places: &[Place], due: usize) -> String {
        let op = &self.ops[due];
        let mut text = format!(
            "no order explains {}\n  it {}",
            self.show(due),
            "could have found:\n"
        );
        for place in places.iter().take(5) {
            let state = &self.states[place.state as usize];
            text.push_str(&format!("    {state} after {:b}\n", place.done));
        }
        text.push_str("  under way with it:\n");
        for &index in self.active.iter().filter(|&&index| index != due) {
            text.push_str(&format!("    {}\n", self.show(index)));
        }
        text.push_str("  before it:\n");
        let before: Vec<usize> = (0..self.ops.len())
            .filter(|&n| self.ops[n].until < op.until)
            .collect();
        for &index in before.iter().rev().take(8) {
            text.push_str(&format!("    {}\n", self.show(index)));
        }
        text
    }

    fn show(&self, index: usize) -> String {
        let op = &self.ops[index];
        let seen = match &op.seen {
            Seen::Reply(reply) => format!(
                "heard {:?}",
                reply[..reply.len().min(80)].escape_ascii().to_string()
            ),
            other => format!("{other:?}"),
        };
        let mut request = Request::clone(&op.request);
        request.keys = request.keys.get(op.index).cloned().into_iter().collect();
        let request = super::clients::show(&request);
        format!(
            "[{}] client {} {request} asked {} until {}: {seen}",
            self.slots[index] as isize, op.client, op.asked, op.until
        )
    }

    /// What may still take effect later goes on.
    fn carry(self, configs: &mut Vec<Config>, carried: &mut Vec<Op>, now: u64) {
        let mut map = Vec::new();
        for &index in &self.active {
            let op = &self.ops[index];
            if op.seen == Seen::Unknown && op.until > now {
                map.push(self.slots[index]);
                carried.push(op.clone());
            }
        }
        for config in configs.iter_mut() {
            let moved = map
                .iter()
                .enumerate()
                .filter(|&(_, &slot)| config.done & (1 << slot) != 0);
            config.done = moved.fold(0, |done, (place, _)| done | 1 << place);
        }
        configs.sort();
        configs.dedup();
    }
}

/// Whether a request changes nothing that anybody could see.
pub fn is_read(request: &Request) -> bool {
    match request.verb {
        Verb::Get | Verb::Gets => true,
        Verb::Mg => !request
            .words
            .iter()
            .any(|word| matches!(word[0], b'T' | b'N' | b'R')),
        _ => false,
    }
}
