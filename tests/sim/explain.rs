//! The other half of `linear`: what one operation does to a state, and whether its reply could have come of that.

use std::rc::Rc;

use super::item::{self, Env, Item};
use super::linear::{Rules, Search, State};
use super::op::{Op, Seen};
use super::request::{parse, Request, Verb};
use super::world::EPOCH;

/// Seconds by which two servers, or a server and this check, may differ about a time to live.
pub const SLACK: i64 = 3;

/// Versions beyond this are the check's own.
const FRESH: u64 = 1 << 60;

/// A version that may have been shown to anybody: that of an item which was written when little was known of its key.
const WILD: u64 = FRESH - 1;

impl Search {
    /// The states that can follow when the operation takes effect in `state`; none: it could not have had its reply.
    pub(super) fn step(&self, state: &State, index: usize, by: u64) -> Vec<State> {
        let op = &self.ops[index];
        let reply = match &op.seen {
            Seen::Reply(reply) => Some(&reply[..]),
            _ => None,
        };
        let item = match state {
            State::Any => return self.step_from_anything(op, reply, by),
            State::Known(item) => item,
        };
        let is_wild = item.as_ref().is_some_and(|item| item.cas == WILD);
        if is_wild && op.request.flag(b'I').is_some() && compared(&op.request).is_some() {
            // Whether its version was the lower one cannot be told.
            return vec![State::Any];
        }
        if !self.rules.lossy
            && item.as_ref().is_none_or(|item| item.exp == 0)
            && self.kinds[index]
                .found
                .is_some_and(|found| found != item.is_some())
        {
            return Vec::new();
        }
        if let (Some(true), Some(reply), Some(item)) = (self.kinds[index].found, reply, item) {
            let value = reply.strip_suffix(b"\r\n").unwrap_or_default();
            if !value.ends_with(&item.value) {
                return Vec::new();
            }
        }
        let first = EPOCH + (op.asked / 1_000_000) as i64;
        let last = EPOCH + (op.until.min(by) / 1_000_000) as i64;
        let mut states = Vec::with_capacity(1);
        if is_wild && reply.is_none() && compared(&op.request).is_some() {
            // Nobody said whether it was refused.
            states.push(state.clone());
        }
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
        // One that lingered may have set its time to live at any moment.
        let mut moment = first;
        while self.rules.times && moment + SLACK < last {
            self.try_at(&mut item.clone(), op, reply, moment, &mut states);
            moment += SLACK;
        }
        if self.kinds[index].is_touch() && !self.rules.session {
            // When its server is lost, it is asked again as a plain read, behind writes that its touch was ahead of.
            for n in 0..states.len() {
                let mut untouched = states[n].clone();
                if let (State::Known(Some(now)), Some(before)) = (&mut untouched, item) {
                    now.exp = before.exp;
                    states.push(untouched);
                }
            }
        }
        if self.rules.lossy && item.is_some() {
            self.miss(state, op, reply, last, &mut states);
        }
        states.dedup();
        states
    }

    /// The same when nothing is known of the key.
    fn step_from_anything(&self, op: &Op, reply: Option<&[u8]>, by: u64) -> Vec<State> {
        let mut states = Vec::new();
        if let Some(request) = decisive(op) {
            if !request.verb.is_storage() {
                return vec![State::Known(None)];
            }
            let plain = Op {
                request: Rc::new(request),
                expects: None,
                ..op.clone()
            };
            let first = EPOCH + (op.asked / 1_000_000) as i64;
            let last = EPOCH + (op.until.min(by) / 1_000_000) as i64;
            let mut moment = first;
            while self.rules.times && moment + SLACK < last {
                self.try_at(&mut None, &plain, reply, moment, &mut states);
                moment += SLACK;
            }
            self.try_at(&mut None, &plain, reply, last, &mut states);
        }
        if states.is_empty() {
            states.push(State::Any);
        }
        for state in &mut states {
            if let (true, State::Known(Some(item))) = (self.rules.cas, state) {
                if item.cas == 0 {
                    item.cas = WILD;
                }
            }
        }
        states
    }

    /// What follows when the operation finds nothing, though the key is there. If it then changes nothing, the key may be
    /// there again later.
    fn miss(
        &self,
        state: &State,
        op: &Op,
        reply: Option<&[u8]>,
        now: i64,
        states: &mut Vec<State>,
    ) {
        let deletes = matches!(op.request.verb, Verb::Delete | Verb::Md | Verb::FlushAll);
        let mut missed = Vec::new();
        self.try_at(&mut None, op, reply, now, &mut missed);
        for after in missed {
            let after = match after {
                State::Known(None) if !deletes => state.clone(),
                after => after,
            };
            if !states.contains(&after) {
                states.push(after);
            }
        }
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
        // Whether it was put in as stale is not said, and versions are not known.
        let marks = !self.rules.cas && may_mark(&op.request);
        for newer in [false, true].into_iter().take(1 + usize::from(marks)) {
            for shift in shifts {
                let mut item = item.clone();
                if self.carry_out(&mut item, op, reply, now + shift, newer) {
                    states.push(State::Known(item));
                    break;
                }
            }
        }
    }

    /// Whether the reply could have been this one; `item` is what is there then.
    /// `newer`: its version is higher than the one it is compared with.
    fn carry_out(
        &self,
        item: &mut Option<Item>,
        op: &Op,
        reply: Option<&[u8]>,
        now: i64,
        newer: bool,
    ) -> bool {
        let request = &op.request;
        let shown = reply.and_then(|reply| token(request, reply));
        let mut wild = false;
        if let Some(old) = item.as_mut() {
            old.exp = if item::is_expired(old.exp, now) {
                now + 1
            } else {
                old.exp
            };
            wild = self.settle_version(old, request, reply, shown);
            if newer {
                old.cas = old.cas.saturating_add(1);
            }
            let stored = reply.is_some_and(|reply| {
                reply.starts_with(b"STORED") || reply.starts_with(b"HD") || reply.starts_with(b"VA")
            });
            if stored
                && !newer
                && op
                    .expects
                    .as_ref()
                    .is_some_and(|expected| *expected != old.value)
            {
                // The token was taken for another version than the one it was handed out with.
                return false;
            }
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
        let mut expected = Vec::with_capacity(reply.map_or(64, <[u8]>::len) + 64);
        item::apply(item, request, op.index, &mut env, &mut expected);
        if reply.is_some_and(|reply| !same_reply(request, &expected, reply, self.rules)) {
            return false;
        }
        if let Some(item) = item {
            item.fetched = false;
            item.used = 0;
            item.token_sent &= self.rules.leases;
            if wild && item.cas == 0 {
                item.cas = WILD;
            }
            // A version counts only when somebody has seen it.
            if item.cas > FRESH {
                let writes = matches!(request.verb, Verb::Ms | Verb::Ma) || before.is_none();
                let loose = self.rules.cas && op.asked <= self.loose_until;
                let unseen = if loose { WILD } else { 0 };
                item.cas = match shown {
                    Some(shown) if self.rules.cas && writes => shown,
                    _ => unseen,
                };
            }
        }
        true
    }

    /// Decides what version the item had before. True: it may still be any.
    fn settle_version(
        &self,
        item: &mut Item,
        request: &Request,
        reply: Option<&[u8]>,
        shown: Option<u64>,
    ) -> bool {
        let compared = compared(request);
        let wild = self.rules.cas && item.cas == WILD;
        let reads = request.verb.is_retrieval() || request.verb == Verb::Mg;
        if self.rules.cas && (!wild || reads) {
            // Whoever reads a stale item to repair a copy has to mark it once more, which makes a version.
            let known = item.cas != 0 && !item.stale && !wild;
            if !known && shown.is_some() && reads {
                item.cas = shown.unwrap_or(0);
            }
            return wild && shown.is_none();
        }
        if let (Some(version), Some(reply)) = (compared, reply) {
            // Of refusals nothing is promised: what was said is believed.
            let taken: [&[u8]; 3] = [b"HD", b"VA", b"STORED"];
            let taken = reply.is_empty() || taken.iter().any(|word| reply.starts_with(word));
            let refused = reply.starts_with(b"EX") || (wild && !taken);
            item.cas = if refused { 0 } else { version };
            return wild && refused;
        } else if let Some(version) = compared {
            item.cas = version;
        }
        wild
    }
}

/// What a key holds after an operation, whatever it held before: the request that would make that of nothing. `None`: that
/// hangs on what it held.
fn decisive(op: &Op) -> Option<Request> {
    let request = &op.request;
    let mut plain = Request::clone(request);
    let reply = match &op.seen {
        Seen::Reply(reply) => &reply[..],
        Seen::Silent if matches!(request.verb, Verb::Set | Verb::Delete | Verb::FlushAll) => b"",
        _ => return None,
    };
    let said =
        |words: &[&[u8]]| reply.is_empty() || words.iter().any(|word| reply.starts_with(word));
    let compares = request.flag(b'C').is_some();
    let decisive = match request.verb {
        Verb::FlushAll => said(&[b"OK"]),
        Verb::Delete => said(&[b"DELETED", b"NOT_FOUND"]),
        Verb::Md if request.flag(b'I').is_some() => false,
        Verb::Md if compares => reply.starts_with(b"HD"),
        Verb::Md => said(&[b"HD", b"NF"]),
        Verb::Set | Verb::Add | Verb::Replace | Verb::Cas => said(&[b"STORED"]),
        Verb::Ms if compares && request.flag(b'I').is_some() => false,
        Verb::Ms => matches!(request.mode(), b'S' | b'E' | b'R') && said(&[b"HD"]),
        _ => false,
    };
    if request.verb == Verb::Ms {
        plain.words.retain(|word| !matches!(word[0], b'M' | b'C'));
    } else if request.verb.is_storage() {
        plain.verb = Verb::Set;
    }
    decisive.then_some(plain)
}

/// Whether a request may mark what it stores as stale.
fn may_mark(request: &Request) -> bool {
    request.verb == Verb::Ms && request.flag(b'I').is_some() && compared(request).is_some()
}

/// The version that a request compares with.
pub fn compared(request: &Request) -> Option<u64> {
    match request.verb {
        Verb::Cas => Some(request.cas),
        _ => request.flag(b'C').and_then(parse),
    }
}

/// The version that a reply shows, and the value of that version, if it shows both.
pub fn token_and_value<'a>(request: &Request, reply: &'a [u8]) -> Option<(u64, &'a [u8])> {
    if !matches!(request.verb, Verb::Gets | Verb::Gats | Verb::Mg) {
        return None;
    }
    let token = token(request, reply)?;
    let newline = memchr::memchr(b'\n', reply)?;
    let value = reply[newline + 1..].strip_suffix(b"\r\n")?;
    Some((token, value))
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
fn same_reply(request: &Request, expected: &[u8], heard: &[u8], rules: Rules) -> bool {
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
    // Without that promise nobody can tell who wins.
    let counts = |word: &&[u8]| rules.leases || !matches!(*word, b"W" | b"Z");
    // A frame tells nothing of it; a request in words has an opaque.
    let in_frame = request.verb == Verb::Mg && request.flag(b'O').is_none();
    let counts = |word: &&[u8]| counts(word) && !(in_frame && matches!(*word, b"W" | b"X" | b"Z"));
    let mut pairs = expected
        .trim_ascii_end()
        .split(|&byte| byte == b' ')
        .filter(counts);
    let mut others = heard
        .trim_ascii_end()
        .split(|&byte| byte == b' ')
        .filter(counts);
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
            || (version && (writes || !rules.cas))
            || (request.verb.is_meta()
                && place > 0
                && !one.is_empty()
                && one.first() == other.first()
                && fuzzy(one, other, rules.drift));
        if !fits {
            return false;
        }
        place += 1;
    }
}

/// Words whose numbers depend on a server's clock, or on who read the item before.
fn fuzzy(one: &[u8], other: &[u8], drift: i64) -> bool {
    match one[0] {
        b'h' | b'l' => true,
        b't' => match (parse::<i64>(&one[1..]), parse::<i64>(&other[1..])) {
            (Some(a), Some(b)) => a != -1 && b != -1 && (a - b).abs() <= drift,
            _ => false,
        },
        _ => false,
    }
}
