//! One reply of the search: which configurations explain it.

use std::collections::{HashMap, VecDeque};

use super::kinds::Waiting;
use super::linear::{Place, Search, State, ANY};
use super::mix::Hashed;

/// More configurations than this are not looked at for one reply; the key is unknown then.
const CONFIGS_MAX: usize = 400;

impl Search {
    /// The number of a state.
    pub(super) fn number(&mut self, state: State) -> u32 {
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
    pub(super) fn explain(&mut self, places: &[Place], due: usize, found: &mut Vec<Place>) -> bool {
        let bit = 1u128 << self.slots[due];
        let by = self.ops[due].until;
        if self.rules.times && self.steps_until != by / 1_000_000 {
            // What an operation does may hang on the second until which it may take effect.
            self.steps_until = by / 1_000_000;
            self.steps.clear();
            self.after.clear();
        }
        if let ([Place { done: 0, state }], [_]) = (places, &self.active[..]) {
            let after = self.follow(*state, due, by);
            let places = self.after[after].iter();
            found.extend(places.map(|&state| Place { done: 0, state }));
            return true;
        }
        // Those that have used little come first: what has used more of what is optional to reach the same tells nothing.
        let mut seen: HashMap<u32, Vec<u128>, Hashed> = HashMap::default();
        let mut count = 0;
        let mut queue: VecDeque<Place> = places.iter().copied().collect();
        while let Some(mut place) = queue.pop_front() {
            self.use_reads(&mut place, by);
            if place.done & bit != 0 {
                place.done &= !bit;
                found.push(place);
                continue;
            }
            let known = seen.entry(place.state).or_default();
            if known.iter().any(|&done| self.is_as_good(done, place.done)) {
                continue;
            }
            known.push(place.done);
            count += 1;
            if count > CONFIGS_MAX {
                return false;
            }
            let mut waiting = Waiting::default();
            for n in 0..self.active.len() {
                let index = self.active[n];
                let kind = self.kinds[index];
                let bit = 1 << self.slots[index];
                // Where nothing is known, what need not take effect tells nothing.
                let tells_nothing = place.state == ANY && self.optional & bit != 0;
                if place.done & bit != 0 || tells_nothing {
                    continue;
                }
                if waiting.may_go(&self.ops[index], kind, self.rules) {
                    let done = place.done | bit;
                    let after = self.follow(place.state, index, by);
                    let places = self.after[after].iter();
                    queue.extend(places.map(|&state| Place { done, state }));
                }
                if self.optional & bit == 0 {
                    waiting.note(&self.ops[index], kind);
                }
            }
        }
        true
    }

    /// Whether `done` leaves open all that `other` does, and no more that must take effect.
    fn is_as_good(&self, done: u128, other: u128) -> bool {
        done & !other == 0 && other & !done & !self.optional == 0
    }

    /// Of two equal states, the one that has used up less of what is optional is as good as both. Anything is as good as
    /// whatever it could be.
    pub(super) fn undominated(&self, mut found: Vec<Place>) -> Vec<Place> {
        found.sort_unstable();
        found.dedup();
        if self.optional == 0 && found.iter().all(|place| place.state != ANY) {
            return found;
        }
        let mut kept: Vec<Place> = Vec::with_capacity(found.len());
        for place in found {
            let better = |other: &Place| {
                (other.state == place.state || other.state == ANY)
                    && self.is_as_good(other.done, place.done)
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
            } else if self.optional & bit == 0 {
                waiting.note(&self.ops[index], kind);
            }
        }
    }
}
