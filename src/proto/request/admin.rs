//! What one server's administrator asks: answered as by a memcached that was told to allow none of it (`-W`, `-o
//! no_lru_crawler,no_lru_maintainer,no_slab_reassign`). What only sets how a server works inside is `OK`, without effect.

use super::{refused, Parsed, Words};
use crate::proto::replies;
use crate::proto::token::{parse_u32, parse_u64};
use crate::proto::Verb;

/// memcached takes more for a mistake: bytes in place of megabytes.
const MEGABYTES_MAX: u32 = 1_000_000_000;

/// The crawler sleeps a second at most.
const SLEEP_MAX: u32 = 1_000_000;

impl<'a> Words<'a, '_> {
    pub(super) fn verbosity(&self) -> Parsed<'a> {
        if self.count() != 2 && self.count() != 3 {
            return refused(replies::ERROR);
        }
        let quiet = self.noreply();
        if parse_u32(self.text(1)).is_none() {
            return self.refuse(replies::BAD_FORMAT, quiet);
        }
        Parsed::Request(super::Request {
            quiet,
            ..super::blank(Verb::Verbosity, self.line)
        })
    }

    /// The memory is the servers'.
    pub(super) fn memlimit(&self) -> Parsed<'a> {
        if self.count() != 2 && self.count() != 3 {
            return refused(replies::ERROR);
        }
        // memcached reads 64 bits and keeps 32 of them.
        let megabytes = parse_u64(self.text(1)).map(|number| number as u32);
        let reply = match megabytes {
            None => replies::ERROR,
            Some(..8) => replies::MEMLIMIT_TOO_SMALL,
            Some(megabytes) if megabytes > MEGABYTES_MAX => replies::MEMLIMIT_NOT_BYTES,
            Some(_) => replies::OK,
        };
        self.refuse(reply, self.noreply())
    }

    pub(super) fn slabs(&self) -> Parsed<'a> {
        match (self.text(1), self.count()) {
            (b"reassign", 4) => self.refuse(replies::NO_REASSIGN, self.noreply()),
            (b"automove", 3..) => {
                let reply = match parse_u64(self.text(2)).map(|level| level as u32) {
                    None => replies::BAD_FORMAT,
                    Some(0..=2) => replies::OK,
                    Some(_) => replies::ERROR,
                };
                self.refuse(reply, self.noreply())
            }
            _ => refused(replies::ERROR),
        }
    }

    pub(super) fn lru(&self) -> Parsed<'a> {
        let quiet = self.noreply();
        if self.text(1) != b"tune" || self.count() < 6 {
            return self.refuse(replies::ERROR, quiet);
        }
        let share = |index: usize| parse_u32(self.text(index));
        let factor = |index: usize| std::str::from_utf8(self.text(index)).ok()?.parse().ok();
        let (Some(hot), Some(warm)) = (share(2), share(3)) else {
            return self.refuse(replies::ERROR, quiet);
        };
        let (Some(hot_age), Some(warm_age)): (Option<f64>, Option<f64>) = (factor(4), factor(5))
        else {
            return self.refuse(replies::ERROR, quiet);
        };
        let reply = if hot.saturating_add(warm) > 80 {
            replies::TUNE_SHARES
        } else if hot_age > 0.0 && warm_age > 0.0 {
            replies::OK
        } else {
            replies::TUNE_FACTORS
        };
        self.refuse(reply, quiet)
    }

    /// The servers' crawlers are the proxy's own tool.
    pub(super) fn crawler(&self) -> Parsed<'a> {
        let number = || parse_u32(self.text(2));
        match (self.text(1), self.count()) {
            (b"metadump", 3) => Parsed::Last(replies::NO_METADUMP),
            (b"crawl", 3) => refused(replies::NO_CRAWLER),
            (b"sleep" | b"tocrawl", 3) if number().is_none() => refused(replies::BAD_FORMAT),
            (b"sleep", 3) if number() > Some(SLEEP_MAX) => refused(replies::SLEEP_TOO_LONG),
            (b"sleep" | b"tocrawl", 3) | (b"disable", 2) => refused(replies::OK),
            (b"enable", 2) => refused(replies::NO_CRAWLER_THREAD),
            _ => refused(replies::ERROR),
        }
    }
}
