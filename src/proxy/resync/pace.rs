//! Room: how much of the background copy may be on its way at a time.
//!
//! Values of any size come over links of any speed, on the same connections as what clients ask for. So the window is
//! counted in bytes, and follows what the links carry, as congestion control does: it grows with what is answered well within
//! the time limit, and is halved when an answer takes a good part of it.

use crate::time::{Span, Time};

/// Keys on their way at the same time.
const KEYS_MAX: usize = 256;

/// Bytes on their way at the same time: at the begin, at least, and at most.
const BYTES_FIRST: u64 = 16 * 1024;
const BYTES_LEAST: u64 = 4 * 1024;
const BYTES_MAX: u64 = 4 * 1024 * 1024;

/// What may be on its way, and what is.
#[derive(Debug)]
pub struct Window {
    limit: u64,
    bytes: u64,
    keys: usize,
    /// It has been too large once: from then on it grows slowly.
    was_cut: bool,
    /// When it was last halved: what was asked before says nothing of how it is now.
    cut_at: Time,
}

impl Default for Window {
    fn default() -> Window {
        Window {
            limit: BYTES_FIRST,
            bytes: 0,
            keys: 0,
            was_cut: false,
            cut_at: Time(0),
        }
    }
}

impl Window {
    /// Whether one more key may go. One always may: its size is not a reason never to bring it.
    pub fn has_room(&self) -> bool {
        self.keys == 0 || (self.keys < KEYS_MAX && self.bytes < self.limit)
    }

    /// Nothing is on its way.
    pub fn is_empty(&self) -> bool {
        self.keys == 0
    }

    /// A key goes on its way.
    pub fn enter(&mut self, size: u32) {
        self.keys += 1;
        self.bytes += u64::from(size);
    }

    /// It has been dealt with.
    pub fn leave(&mut self, size: u32) {
        self.keys = self.keys.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(u64::from(size));
    }

    /// What was asked at `asked` was answered at `now`; `patience`: it should not take longer.
    pub fn answered(&mut self, size: u32, asked: Time, now: Time, patience: Span) {
        if now.since(asked) > patience {
            if asked >= self.cut_at {
                self.limit = (self.limit / 2).max(BYTES_LEAST);
                self.cut_at = now;
                self.was_cut = true;
            }
            return;
        }
        let size = u64::from(size);
        let more = match self.was_cut {
            true => (size * size / self.limit).clamp(1, size.max(1)),
            false => size,
        };
        self.limit = (self.limit + more).min(BYTES_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Copies `keys` keys of `size` bytes over a link of so many bytes a second; the longest that one was on its way.
    fn longest(keys: usize, size: u32, rate: u64) -> (Span, Time) {
        let (mut window, mut now, mut longest) = (Window::default(), Time(0), Span(0));
        let mut under_way = std::collections::VecDeque::new();
        let mut left = keys;
        while left > 0 || !window.is_empty() {
            while left > 0 && window.has_room() {
                window.enter(size);
                under_way.push_back(now);
                left -= 1;
            }
            now = now + Span(u64::from(size) * 1_000_000 / rate);
            if let Some(asked) = under_way.pop_front() {
                window.leave(size);
                window.answered(size, asked, now, Span::from_millis(50));
                longest = longest.max(now.since(asked));
            }
        }
        (longest, now)
    }

    #[test]
    fn the_window_fits_the_link() {
        for (size, rate) in [(500_000, 125_000_000), (20_000, 12_500_000), (100, 100_000)] {
            let (longest, took) = longest(2000, size, rate);
            assert!(longest < Span::from_millis(250), "{size}: {longest:?}");
            let least = u64::from(size) * 2000 * 1_000_000 / rate;
            assert!(took.0 <= least + 1000, "{size}: the link was idle");
        }
    }

    #[test]
    fn one_key_is_always_on_its_way() {
        let (longest, _) = longest(20, 1_000_000, 1_000_000);
        assert!(longest <= Span::from_millis(2000), "{longest:?}");
    }

    #[test]
    fn a_slow_time_does_not_last() {
        let mut window = Window::default();
        for second in 1..10 {
            window.answered(
                1000,
                Time(second * 1_000_000),
                Time((second + 1) * 1_000_000),
                Span(1),
            );
        }
        assert_eq!(window.limit, BYTES_LEAST);
        for _ in 0..1_000_000 {
            window.answered(1000, Time(0), Time(0), Span(1));
        }
        assert!(window.limit > 30 * BYTES_LEAST);
    }
}
