//! The slow log (`--slow-ms`): requests that took long, and what they waited for.

use md5::{Digest, Md5};

use super::ids::LinkId;
use super::op::Op;
use super::read::key_token;
use super::server::{InFlight, Role};
use super::Proxy;
use crate::proto::Verb;
use crate::time::{Span, Time};

/// Most lines in a second; the others are counted.
const LINES_MAX: u32 = 20;

/// What is slow, and how much was said of it.
#[derive(Debug)]
pub struct Slow {
    /// Microseconds from which on a request is slow.
    limit: u64,
    /// Keys are logged as they are, not their hashes.
    shows_keys: bool,
    second: Time,
    lines: u32,
    left_out: u64,
}

impl Slow {
    /// `limit`: `None` for no log.
    pub fn new(limit: Option<Span>, shows_keys: bool) -> Slow {
        Slow {
            limit: limit.map_or(u64::MAX, |limit| limit.0),
            shows_keys,
            second: Time(0),
            lines: 0,
            left_out: 0,
        }
    }

    /// Whether `micros` microseconds are too many.
    pub fn is_slow(&self, micros: u64) -> bool {
        micros >= self.limit
    }

    /// A key for the log.
    fn shown(&self, key: &[u8]) -> String {
        if self.shows_keys {
            return key.escape_ascii().to_string();
        }
        let digest = Md5::digest(key);
        digest[..8]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }

    fn say(&mut self, now: Time, command: Verb, key: &[u8], micros: u64, waited_for: &str) {
        if now.since(self.second) >= Span::from_secs(1) {
            if self.left_out > 0 {
                log::warn!(target: "magent", event = "slow_requests"; "{} more requests were slow", self.left_out);
            }
            (self.second, self.lines, self.left_out) = (now, 0, 0);
        }
        if self.lines == LINES_MAX {
            self.left_out += 1;
            return;
        }
        self.lines += 1;
        let (command, key, ms) = (command.name(), self.shown(key), micros / 1000);
        log::warn!(
            target: "magent", event = "slow_request", command, key, ms, waited_for;
            "slow: {command} {key}: {ms} ms, waited for {waited_for}"
        );
    }
}

impl Proxy {
    /// A server took `micros` microseconds to answer.
    pub(super) fn note_slow(&mut self, id: LinkId, flight: &InFlight, micros: u64) {
        let server = &self.servers[usize::from(id.server)];
        let log = &server.links[usize::from(id.conn)].log;
        let what = match flight.role {
            Role::Read => "the answer of",
            Role::Decide => "the decision of",
            Role::Copy(_) | Role::Mirror | Role::Echo | Role::Flush(_) => "the copy on",
            Role::Fence => "the stamp on",
            _ => "a repair on",
        };
        let waited_for = format!("{what} {}", server.name);
        let bytes = log.bytes(flight.start, flight.end);
        let token = key_token(flight);
        let key = bytes.get(token.start..token.end).unwrap_or_default();
        self.slow
            .say(self.now, flight.verb, key, micros, &waited_for);
    }

    /// An op goes on that was held back since `since`.
    pub(super) fn note_long_wait(&mut self, op: &Op<'_>, since: Time, waited_for: &str) {
        let micros = self.now.since(since).0;
        if self.slow.is_slow(micros) {
            self.slow
                .say(self.now, op.asked, op.key.of(op.line), micros, waited_for);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_hashed_unless_asked_for() {
        let slow = Slow::new(Some(Span::from_millis(1)), false);
        // printf k | md5sum
        assert_eq!(slow.shown(b"k"), "8ce4b16b22b58894");
        assert_eq!(Slow::new(None, true).shown(b"k\x01"), "k\\x01");
        assert!(slow.is_slow(1000) && !slow.is_slow(999));
        assert!(!Slow::new(None, true).is_slow(u64::MAX - 1));
    }

    #[test]
    fn a_flood_is_counted() {
        let mut slow = Slow::new(Some(Span(1)), false);
        for _ in 0..100 {
            slow.say(Time(5_000_000), Verb::Get, b"k", 1, "nobody");
        }
        assert_eq!(slow.left_out, 80);
        slow.say(Time(6_000_000), Verb::Get, b"k", 1, "nobody");
        assert_eq!((slow.left_out, slow.lines), (0, 1));
    }
}
