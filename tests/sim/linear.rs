//! The search for an order: operations on one key, each with the time in which it must have taken effect and what was
//! heard of it, are explained one by one, in the order of their replies. A configuration is a state that the key may
//! have, and which of the operations that are still under way have been used to reach it.
//!
//! Reads that fit a state are used up at once: they change nothing, so there is no better moment for them.

//!
//! A key of which nothing is known has a state of its own, in which everything fits. Each write that says what the key holds
//! after it leads out of it again.

use std::collections::HashMap;
use std::fmt;

use super::item::Item;
use super::kinds::{Class, Kind};
use super::mix::Hashed;
use super::op::{Op, Seen};
use super::request::Verb;

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
    /// Servers may be late, so that a `gat` is asked again, and a read behind it is not.
    pub late: bool,
    pub item_max: usize,
    /// Seconds by which a remaining time to live may be off.
    pub drift: i64,
}

/// Slots of a configuration.
const SLOTS: usize = 128;

/// What is known of a key between two searches.
#[derive(Debug)]
pub struct Known {
    pub configs: Vec<Config>,
    /// Operations of unknown outcome that may still take effect.
    pub carried: Vec<Op>,
    /// When its copies were torn apart, since the last search: nothing is known of it from then on.
    pub tears: Vec<u64>,
    /// What was written until then may have been read by requests that were not checked.
    pub loose_until: u64,
}

impl Known {
    /// A key with nothing under it.
    pub fn absent() -> Known {
        Known {
            configs: vec![Config {
                state: State::Known(None),
                done: 0,
            }],
            carried: Vec::new(),
            tears: Vec::new(),
            loose_until: 0,
        }
    }

    /// Nothing is known.
    pub fn forget(&mut self) {
        self.configs = vec![Config {
            state: State::Any,
            done: 0,
        }];
    }

    /// Whether it may hold anything.
    pub fn is_unknown(&self) -> bool {
        self.configs.iter().any(|config| config.state == State::Any)
    }
}

/// How many replies were explained, and how many came when nothing was known.
#[derive(Clone, Copy, Default, Debug)]
pub struct Counts {
    pub checked: u64,
    pub unchecked: u64,
}

/// Explains `ops`, which are all complete.
pub fn search(known: &mut Known, ops: Vec<Op>, rules: Rules, now: u64) -> Result<Counts, String> {
    let old = known.carried.len();
    let mut all = std::mem::take(&mut known.carried);
    all.extend(ops);
    let mut search = Search {
        kinds: all.iter().map(|op| Kind::of(op, rules)).collect(),
        slots: vec![usize::MAX; all.len()],
        free: (0..SLOTS).rev().collect(),
        active: Vec::new(),
        next: 0,
        ops: all,
        rules,
        optional: 0,
        states: Vec::new(),
        numbers: HashMap::default(),
        steps: HashMap::default(),
        steps_until: 0,
        after: Vec::new(),
        counts: Counts::default(),
        loose_until: known.loose_until,
    };
    search.number(State::Any);
    for _ in 0..old {
        search.enter();
    }
    if search.run(known, now)? {
        search.carry(known, now);
    } else {
        known.forget();
        search.loose_until = now;
        let lingers = |op: &Op| op.seen == Seen::Unknown && op.until > now;
        known.carried = std::mem::take(&mut search.ops);
        known.carried.retain(lingers);
        known.carried.truncate(SLOTS / 2);
    }
    known.tears.clear();
    known.loose_until = search.loose_until;
    Ok(search.counts)
}

/// A state by its number, and the slots of operations that are used.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Place {
    pub(super) done: u128,
    pub(super) state: u32,
}

/// The number of [`State::Any`].
pub(super) const ANY: u32 = 0;

pub(super) struct Search {
    pub(super) ops: Vec<Op>,
    pub(super) kinds: Vec<Kind>,
    /// The slot of each operation while it is under way.
    pub(super) slots: Vec<usize>,
    free: Vec<usize>,
    /// Operations under way, in the order in which they were asked.
    pub(super) active: Vec<usize>,
    /// The first that is not under way yet.
    next: usize,
    pub(super) rules: Rules,
    /// Slots of operations that need not take effect.
    pub(super) optional: u128,
    /// All states that were met, each once.
    pub(super) states: Vec<State>,
    pub(super) numbers: HashMap<State, u32, Hashed>,
    /// What follows a state when an operation takes effect until a certain second: where its states are in `after`, and
    /// how many.
    pub(super) steps: HashMap<(u32, u32), (u32, u32), Hashed>,
    pub(super) steps_until: u64,
    pub(super) after: Vec<u32>,
    counts: Counts,
    /// See [`Known::loose_until`].
    pub(super) loose_until: u64,
}

impl Search {
    /// The next operation is under way. False: too many are.
    fn enter(&mut self) -> bool {
        let index = self.next;
        self.next += 1;
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

    /// All that were asked until `time` are under way.
    fn enter_until(&mut self, time: u64) -> bool {
        while self.next < self.ops.len() && self.ops[self.next].asked <= time {
            if !self.enter() {
                return false;
            }
        }
        true
    }

    /// Nothing is known of the key any more. What is under way may have taken effect, or may do so later.
    fn forget(&mut self, places: &mut Vec<Place>, now: u64) {
        *places = vec![Place {
            done: 0,
            state: ANY,
        }];
        for &index in &self.active {
            self.optional |= 1 << self.slots[index];
        }
        self.loosen(now);
    }

    /// What is under way may have read what was written while nothing was known.
    fn loosen(&mut self, now: u64) {
        let heard = self.active.iter().filter(|&&n| !self.kinds[n].unknown);
        let last = heard.map(|&n| self.ops[n].until).fold(now, u64::max);
        if last > self.loose_until {
            self.loose_until = last;
            self.steps.clear();
            self.after.clear();
        }
    }

    /// Operations are finished in the order of their replies. One of unknown outcome is finished when it can take effect
    /// no more; one that still can at `now` goes on. False: there are too many to go on at all.
    fn run(&mut self, known: &mut Known, now: u64) -> Result<bool, String> {
        let mut places: Vec<Place> = Vec::with_capacity(known.configs.len());
        for config in known.configs.drain(..) {
            let state = self.number(config.state);
            let done = config.done;
            places.push(Place { done, state });
        }
        let ends = |op: &Op| match op.seen {
            Seen::Reply(_) | Seen::Silent => true,
            Seen::Unknown => op.until <= now,
            _ => false,
        };
        let mut order: Vec<usize> = (0..self.ops.len())
            .filter(|&n| ends(&self.ops[n]))
            .collect();
        order.sort_by_key(|&n| (self.ops[n].until, n));
        let mut tears = known.tears.iter().copied().peekable();
        for (nth, &due) in order.iter().enumerate() {
            let reply_at = self.ops[due].until;
            while let Some(tear) = tears.next_if(|&tear| tear < reply_at) {
                if !self.enter_until(tear) {
                    return Ok(self.give_up(order.len() - nth));
                }
                self.forget(&mut places, tear);
            }
            if !self.enter_until(reply_at) {
                return Ok(self.give_up(order.len() - nth));
            }
            if self.slots[due] != usize::MAX {
                self.finish(&mut places, due)?;
            }
        }
        if !self.enter_until(u64::MAX) {
            return Ok(self.give_up(0));
        }
        if let Some(tear) = tears.last() {
            self.forget(&mut places, tear);
        }
        known.configs.extend(places.iter().map(|place| Config {
            done: place.done,
            state: self.states[place.state as usize].clone(),
        }));
        Ok(true)
    }

    fn give_up(&mut self, left: usize) -> bool {
        self.counts.unchecked += left as u64;
        false
    }

    /// Leaves the places that explain the reply of `due`.
    fn finish(&mut self, places: &mut Vec<Place>, due: usize) -> Result<(), String> {
        let bit = 1u128 << self.slots[due];
        let optional = self.optional & bit != 0;
        let mut found: Vec<Place> = Vec::with_capacity(places.len());
        if optional {
            found.extend(places.iter().filter(|place| place.done & bit == 0));
        }
        let mut unknown = places.iter().any(|place| place.state == ANY);
        if unknown {
            self.loosen(0);
        }
        if !self.explain(places, due, &mut found) {
            unknown = true;
            self.forget(places, self.ops[due].until);
        } else if found.is_empty() {
            return Err(self.accuse(places, due));
        } else {
            *places = self.undominated(found);
        }
        if unknown {
            self.counts.unchecked += 1;
        } else {
            self.counts.checked += 1;
        }
        self.active.retain(|&index| index != due);
        self.optional &= !bit;
        self.free.push(self.slots[due]);
        Ok(())
    }

    /// What may still take effect later goes on.
    fn carry(&self, known: &mut Known, now: u64) {
        let mut map = Vec::new();
        for &index in &self.active {
            let op = &self.ops[index];
            if op.seen == Seen::Unknown && op.until > now {
                map.push(self.slots[index]);
                known.carried.push(op.clone());
            }
        }
        for config in known.configs.iter_mut() {
            let moved = map
                .iter()
                .enumerate()
                .filter(|&(_, &slot)| config.done & (1 << slot) != 0);
            config.done = moved.fold(0, |done, (place, _)| done | 1 << place);
        }
        known.configs.sort();
        known.configs.dedup();
    }
}
