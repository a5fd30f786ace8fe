//! The search for an order: operations on one key, each with the time in which it must have taken effect and what was
//! heard of it, are explained one by one, in the order of their replies. A configuration is a state that the key may
//! have, and which of the operations that are still under way have been used to reach it.
//!
//! Reads that fit a state are used up at once: they change nothing, so there is no better moment for them.

use std::collections::BTreeSet;
use std::fmt;

use super::explain::from_nothing;
use super::history::{Op, Seen};
use super::item::Item;
use super::request::{Request, Verb};

/// What a key may hold.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
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
}

/// More configurations than this are not looked at; the key is unknown then.
const CONFIGS_MAX: usize = 1000;

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
        carried.retain(|op| op.until > now);
        if let ([op], []) = (&ops[..], &carried[..]) {
            let state = from_nothing(op, rules);
            *configs = vec![Config { state, done: 0 }];
        }
        carried.extend(ops.into_iter().filter(|op| op.seen == Seen::Unknown));
        return Ok(false);
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
    /// Where a read may be asked again, writes behind it may pass it, but other reads do not.
    fn may_go(&self, op: &Op, kind: Kind, rules: Rules) -> bool {
        let before = match kind.class {
            Class::Write if !rules.session => self.writes,
            Class::Touch if !rules.session => self.writes | self.touches,
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
}

impl Search {
    fn enter(&mut self, index: usize) -> bool {
        if matches!(self.ops[index].seen, Seen::Never | Seen::Refused) {
            return true;
        }
        let Some(slot) = self.free.pop() else {
            return false;
        };
        self.slots[index] = slot;
        self.active.push(index);
        if self.ops[index].seen == Seen::Unknown {
            self.optional |= 1 << slot;
        }
        true
    }

    /// Operations are finished in the order of their replies. One of unknown outcome is finished when it can take effect
    /// no more; one that still can at `now` goes on.
    fn run(&mut self, configs: &mut Vec<Config>, first: usize, now: u64) -> Result<bool, String> {
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
            let optional = self.kinds[due].unknown;
            let untouched = optional.then(|| self.without(configs, due));
            let Some(mut found) = self.explain(configs, due) else {
                return Ok(false);
            };
            found.extend(untouched.into_iter().flatten());
            if found.is_empty() {
                return Err(self.accuse(configs, due));
            }
            *configs = if optional {
                self.undominated(found.into_iter().collect())
            } else {
                found
            };
            self.active.retain(|&index| index != due);
            self.optional &= !(1 << self.slots[due]);
            self.free.push(self.slots[due]);
        }
        while next < self.ops.len() {
            if !self.enter(next) {
                return Ok(false);
            }
            next += 1;
        }
        Ok(true)
    }

    /// The configurations in which `due` has not taken effect.
    fn without(&self, configs: &[Config], due: usize) -> Vec<Config> {
        let bit = 1u128 << self.slots[due];
        let untouched = configs.iter().filter(|config| config.done & bit == 0);
        untouched.cloned().collect()
    }

    /// All configurations in which `due` has taken effect.
    fn explain(&self, configs: &[Config], due: usize) -> Option<Vec<Config>> {
        let bit = 1u128 << self.slots[due];
        if let ([config @ Config { done: 0, .. }], [_]) = (configs, &self.active[..]) {
            let states = self.step(&config.state, due, self.ops[due].until);
            return Some(
                states
                    .into_iter()
                    .map(|state| Config { state, done: 0 })
                    .collect(),
            );
        }
        let mut found = BTreeSet::new();
        let mut seen: BTreeSet<Config> = BTreeSet::new();
        let mut stack: Vec<Config> = configs.to_vec();
        while let Some(mut config) = stack.pop() {
            self.use_reads(&mut config, due);
            if config.done & bit != 0 {
                config.done &= !bit;
                found.insert(config);
                continue;
            }
            if !seen.insert(config.clone()) {
                continue;
            }
            if seen.len() > CONFIGS_MAX {
                return None;
            }
            let mut waiting = Waiting::default();
            for &index in &self.active {
                let (op, kind) = (&self.ops[index], self.kinds[index]);
                let bit = 1 << self.slots[index];
                if config.done & bit != 0 {
                    continue;
                }
                if waiting.may_go(op, kind, self.rules) {
                    let done = config.done | bit;
                    for state in self.step(&config.state, index, self.ops[due].until) {
                        stack.push(Config { state, done });
                    }
                }
                waiting.note(op, kind);
            }
        }
        Some(self.undominated(found))
    }

    /// Of two equal states, the one that has used up less of what is optional is as good as both.
    fn undominated(&self, found: BTreeSet<Config>) -> Vec<Config> {
        if self.optional == 0 {
            return found.into_iter().collect();
        }
        let mut kept: Vec<Config> = Vec::new();
        for config in found {
            let better = |other: &Config| {
                let more = config.done & !other.done;
                other.state == config.state
                    && other.done & !config.done == 0
                    && more & !self.optional == 0
            };
            if !kept.iter().any(better) {
                kept.push(config);
            }
        }
        kept
    }

    /// Uses up what is there to be read in this state. Not what would tell the state's version: that is a choice.
    fn use_reads(&self, config: &mut Config, due: usize) {
        let until = self.ops[due].until;
        let mut waiting = Waiting::default();
        for &index in &self.active {
            let (op, kind) = (&self.ops[index], self.kinds[index]);
            let bit = 1 << self.slots[index];
            if config.done & bit != 0 {
                continue;
            }
            let fits = kind.harmless
                && waiting.may_go(op, kind, self.rules)
                && matches!(&self.step(&config.state, index, until)[..], [state] if *state == config.state);
            if fits {
                config.done |= bit;
            } else {
                waiting.note(op, kind);
            }
        }
    }

    fn accuse(&self, configs: &[Config], due: usize) -> String {
        let op = &self.ops[due];
        let mut text = format!(
            "no order explains {}\n  it {}",
            self.show(due),
            "could have found:\n"
        );
        for config in configs.iter().take(5) {
            text.push_str(&format!("    {} after {:b}\n", config.state, config.done));
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
