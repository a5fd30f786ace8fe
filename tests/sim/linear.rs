//! The search for an order: operations on one key, each with the time in which it must have taken effect and what was
//! heard of it, are explained one by one, in the order of their replies. A configuration is a state that the key may
//! have, and which of the operations that are still under way have been used to reach it.
//!
//! Reads that fit a state are used up at once: they change nothing, so there is no better moment for them.

use std::collections::BTreeSet;
use std::rc::Rc;

use super::history::{Op, Seen};
use super::item::{self, Env, Item};
use super::request::{parse, Request, Verb};
use super::world::EPOCH;

/// What a key may hold.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum State {
    /// Anything: nothing is known.
    Any,
    Known(Option<Item>),
}

/// A state, and the slots of operations that are used.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Config {
    pub state: State,
    pub done: u128,
}

#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Versions are compared.
    pub cas: bool,
    /// Items have times to live.
    pub times: bool,
    /// A read does not see what its own client asked for behind it.
    pub session: bool,
    pub item_max: usize,
}

/// Seconds by which two servers, or a server and this check, may differ about a time to live.
const SLACK: i64 = 3;

/// More configurations than this are not looked at; the key is unknown then.
const CONFIGS_MAX: usize = 3000;

/// Versions beyond this are the check's own.
const FRESH: u64 = 1 << 60;

/// Slots of a configuration.
const SLOTS: usize = 128;

/// Explains `ops`, which are all complete. `Ok(false)`: too many possibilities, the key is unknown now.
pub fn search(
    configs: &mut Vec<Config>,
    carried: &mut Vec<Op>,
    ops: Vec<Op>,
    rules: Rules,
    now: u64,
) -> Result<bool, String> {
    let old = carried.len();
    let mut all = std::mem::take(carried);
    all.extend(ops);
    let mut search = Search {
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
    let outcome = search.run(configs, old);
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

struct Search {
    ops: Vec<Op>,
    /// The slot of each operation while it is under way.
    slots: Vec<usize>,
    free: Vec<usize>,
    /// Operations under way, in the order in which they were asked.
    active: Vec<usize>,
    rules: Rules,
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

    fn run(&mut self, configs: &mut Vec<Config>, first: usize) -> Result<bool, String> {
        let must = |op: &Op| matches!(op.seen, Seen::Reply(_) | Seen::Silent);
        let mut order: Vec<usize> = (first..self.ops.len())
            .filter(|&n| must(&self.ops[n]))
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
            match self.explain(configs, due) {
                None => return Ok(false),
                Some(found) if found.is_empty() => return Err(self.accuse(configs, due)),
                Some(found) => *configs = found,
            }
            self.active.retain(|&index| index != due);
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
            for &index in &self.active {
                if !self.may_go(&config, index) {
                    continue;
                }
                let done = config.done | 1 << self.slots[index];
                for state in self.step(&config.state, index, self.ops[due].until) {
                    stack.push(Config { state, done });
                }
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

    /// A client's operations on one key take effect in their order, but for those whose outcome is unknown.
    fn may_go(&self, config: &Config, index: usize) -> bool {
        if config.done & (1 << self.slots[index]) != 0 {
            return false;
        }
        let op = &self.ops[index];
        self.active
            .iter()
            .take_while(|&&other| other < index)
            .all(|&other| {
                let earlier = &self.ops[other];
                earlier.client != op.client
                    || earlier.seen == Seen::Unknown
                    || (!self.rules.session
                        && changes_nothing(&earlier.request)
                        && !changes_nothing(&op.request))
                    || config.done & (1 << self.slots[other]) != 0
            })
    }

    /// It changed nothing, whatever the key held: a read, or a write that was refused.
    fn is_harmless(&self, op: &Op) -> bool {
        let Seen::Reply(reply) = &op.seen else {
            return false;
        };
        let refused: [&[u8]; 7] = [
            b"NOT_STORED",
            b"NOT_FOUND",
            b"EXISTS",
            b"NS",
            b"NF",
            b"EX",
            b"EN",
        ];
        let timeless = !self.rules.times && changes_nothing(&op.request);
        is_read(&op.request) || timeless || refused.iter().any(|word| reply.starts_with(word))
    }

    fn use_reads(&self, config: &mut Config, due: usize) {
        let until = self.ops[due].until;
        loop {
            let fits = self.active.iter().find_map(|&index| {
                let op = &self.ops[index];
                if !self.is_harmless(op) || !self.may_go(config, index) {
                    return None;
                }
                let mut states = self.step(&config.state, index, until);
                // One that may also have found the item expired is a choice, and left to the search.
                (states.len() == 1).then(|| (index, states.remove(0)))
            });
            let Some((index, state)) = fits else { return };
            if !same_but_cas(&state, &config.state) {
                return;
            }
            config.state = state;
            config.done |= 1 << self.slots[index];
            if index == due {
                return;
            }
        }
    }

    /// The states that can follow when the operation takes effect in `state`; none: it could not have had its reply.
    fn step(&self, state: &State, index: usize, by: u64) -> Vec<State> {
        let op = &self.ops[index];
        let reply = match &op.seen {
            Seen::Reply(reply) => Some(&reply[..]),
            _ => None,
        };
        let item = match state {
            State::Any => return vec![from_nothing(op, self.rules)],
            State::Known(item) => item,
        };
        let first = EPOCH + (op.asked / 1_000_000) as i64;
        let last = EPOCH + (op.until.min(by) / 1_000_000) as i64;
        let mut states = Vec::with_capacity(1);
        let exp = item.as_ref().map_or(0, |item| item.exp);
        if exp == 0 || exp > first - SLACK {
            let mut item = item.clone();
            // Not expired yet, as far as anybody can tell.
            let now = if exp == 0 { last } else { last.min(exp - 1) };
            self.try_at(&mut item, op, reply, now, &mut states);
        }
        if exp != 0 && exp <= last + SLACK {
            self.try_at(&mut None, op, reply, last, &mut states);
        }
        states.dedup();
        states
    }

    fn try_at(
        &self,
        item: &mut Option<Item>,
        op: &Op,
        reply: Option<&[u8]>,
        now: i64,
        states: &mut Vec<State>,
    ) {
        let shifts: &[i64] = if op.request.flag(b'R').is_some() {
            &[0, -SLACK, SLACK]
        } else {
            &[0]
        };
        for shift in shifts {
            let mut item = item.clone();
            if self.carry_out(&mut item, op, reply, now + shift) {
                states.push(State::Known(item));
                return;
            }
        }
    }

    /// Whether the reply could have been this one; `item` is what is there then.
    fn carry_out(&self, item: &mut Option<Item>, op: &Op, reply: Option<&[u8]>, now: i64) -> bool {
        let request = &op.request;
        let shown = reply.and_then(|reply| token(request, reply));
        if let Some(old) = item.as_mut() {
            old.exp = if item::is_expired(old.exp, now) {
                now + 1
            } else {
                old.exp
            };
            self.settle_version(old, request, reply, shown);
        }
        let mut env = Env {
            now,
            started: EPOCH - 100,
            cas: FRESH,
            item_max: self.rules.item_max,
        };
        if let (true, None, Some(shown)) =
            (self.rules.cas && request.verb == Verb::Mg, &item, shown)
        {
            env.cas = shown - 1;
        }
        let before = item
            .as_ref()
            .map(|item| (Rc::clone(&item.value), item.stale));
        let mut expected = Vec::new();
        item::apply(item, request, op.index, &mut env, &mut expected);
        if reply.is_some_and(|reply| !same_reply(request, &expected, reply, self.rules.cas)) {
            return false;
        }
        if let Some(item) = item {
            item.fetched = false;
            item.used = 0;
            // A version counts only when somebody has seen it.
            if item.cas > FRESH {
                let writes = matches!(request.verb, Verb::Ms | Verb::Ma) || before.is_none();
                item.cas = if self.rules.cas && writes {
                    shown.unwrap_or(0)
                } else {
                    0
                };
            }
        }
        true
    }

    /// Decides what version the item had before.
    fn settle_version(
        &self,
        item: &mut Item,
        request: &Request,
        reply: Option<&[u8]>,
        shown: Option<u64>,
    ) {
        let compared: Option<u64> = match request.verb {
            Verb::Cas => Some(request.cas),
            _ => request.flag(b'C').and_then(parse),
        };
        if self.rules.cas {
            if item.cas == 0 && (request.verb.is_retrieval() || request.verb == Verb::Mg) {
                item.cas = shown.unwrap_or(0);
            }
        } else if let (Some(version), Some(reply)) = (compared, reply) {
            // Nothing is promised: what was said is believed.
            let refused = reply.starts_with(b"EX");
            item.cas = if refused { 0 } else { version };
        } else if let Some(version) = compared {
            item.cas = version;
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
            text.push_str(&format!("    {:?} after {:b}\n", config.state, config.done));
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
        let request = super::clients::show(&op.request);
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

fn is_read(request: &Request) -> bool {
    match request.verb {
        Verb::Get | Verb::Gets => true,
        Verb::Mg => !request
            .words
            .iter()
            .any(|word| matches!(word[0], b'T' | b'N' | b'R')),
        _ => false,
    }
}

/// A read, in the wider sense: what is asked again of another copy when a server fails.
fn changes_nothing(request: &Request) -> bool {
    request.verb.is_retrieval() || is_read(request)
}

fn same_but_cas(a: &State, b: &State) -> bool {
    match (a, b) {
        (State::Known(Some(a)), State::Known(Some(b))) => {
            a.value == b.value
                && a.flags == b.flags
                && a.exp == b.exp
                && (a.stale, a.token_sent) == (b.stale, b.token_sent)
        }
        _ => a == b,
    }
}

/// What is known after an operation on a key of which nothing was known.
fn from_nothing(op: &Op, rules: Rules) -> State {
    let plain = match op.request.verb {
        Verb::Set => true,
        Verb::Ms => op.request.mode() == b'S' && op.request.flag(b'C').is_none(),
        _ => false,
    };
    let now = EPOCH + (op.asked / 1_000_000) as i64;
    match op.request.verb {
        Verb::FlushAll | Verb::Delete => State::Known(None),
        _ if plain && op.seen != Seen::Unknown => {
            let mut env = Env {
                now,
                started: EPOCH - 100,
                cas: 0,
                item_max: rules.item_max,
            };
            let mut item = None;
            item::apply(&mut item, &op.request, 0, &mut env, &mut Vec::new());
            if let Some(item) = &mut item {
                item.cas = 0;
                item.used = 0;
            }
            State::Known(item)
        }
        _ => State::Any,
    }
}

/// The version that a reply shows.
pub fn token(request: &Request, reply: &[u8]) -> Option<u64> {
    let line = &reply[..memchr::memchr(b'\r', reply)?];
    match request.verb {
        Verb::Gets | Verb::Gats => line.split(|&byte| byte == b' ').nth(4).and_then(parse),
        Verb::Mg | Verb::Ms | Verb::Ma if reply.starts_with(b"HD") || reply.starts_with(b"VA") => {
            let mut words = line.split(|&byte| byte == b' ');
            words
                .find_map(|word| word.strip_prefix(b"c"))
                .and_then(parse)
        }
        _ => None,
    }
}

/// Whether two replies are the same but for what servers may differ in.
fn same_reply(request: &Request, expected: &[u8], heard: &[u8], cas: bool) -> bool {
    // memcached answers a quiet `ma` that made its item; the proxy does not.
    let quiet = request.verb == Verb::Ma && heard.is_empty() && request.flag(b'q').is_some();
    if expected == heard || (quiet && (expected.starts_with(b"HD") || expected.starts_with(b"VA")))
    {
        return true;
    }
    let (Some(a), Some(b)) = (
        memchr::memchr(b'\n', expected),
        memchr::memchr(b'\n', heard),
    ) else {
        return false;
    };
    if expected[a..] != heard[b..] {
        return false;
    }
    let (expected, heard) = (&expected[..a], &heard[..b]);
    let writes = !request.verb.is_retrieval() && request.verb != Verb::Mg;
    let classic = matches!(request.verb, Verb::Gets | Verb::Gats);
    if !classic && !request.verb.is_meta() {
        return false;
    }
    let mut pairs = expected.trim_ascii_end().split(|&byte| byte == b' ');
    let mut others = heard.trim_ascii_end().split(|&byte| byte == b' ');
    let mut place = 0;
    loop {
        let (one, other) = match (pairs.next(), others.next()) {
            (None, None) => return true,
            (Some(one), Some(other)) => (one, other),
            _ => return false,
        };
        let version = (classic && place == 4)
            || (request.verb.is_meta() && place > 0 && one.starts_with(b"c"));
        let fits = one == other
            || (version && (writes || !cas))
            || (request.verb.is_meta()
                && place > 0
                && !one.is_empty()
                && one.first() == other.first()
                && fuzzy(one, other));
        if !fits {
            return false;
        }
        place += 1;
    }
}

/// Words whose numbers depend on a server's clock, or on who read the item before.
fn fuzzy(one: &[u8], other: &[u8]) -> bool {
    match one[0] {
        b'h' | b'l' => true,
        b't' => match (parse::<i64>(&one[1..]), parse::<i64>(&other[1..])) {
            (Some(a), Some(b)) => a != -1 && b != -1 && (a - b).abs() <= SLACK + 1,
            _ => false,
        },
        _ => false,
    }
}
