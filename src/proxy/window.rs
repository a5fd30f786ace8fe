//! Room: how much may be on its way to and from a server at a time.
//!
//! A link carries so many bytes a second, and no more by being asked for more: then what is asked last waits behind all that
//! was asked before, each over its time limit, while others wait behind that. So what is under way is counted in bytes, asked
//! and expected, and bounded by what the link carries in a part of the time limit. Nobody tells what that is. As congestion
//! control does, the window grows while answers come soon, and is cut when they had to queue.

use crate::time::{Span, Time};

/// Bytes under way: at the begin, and at least. It is enough for many small requests; of large ones one may always go.
const BYTES_LEAST: u64 = 64 * 1024;

/// What is no longer than this takes no time of the link itself.
const SMALL: u32 = 4096;

/// What may be under way, and what is.
#[derive(Debug)]
pub struct Window {
    limit: u64,
    under_way: u64,
    /// It has been too large once: from then on it grows slowly.
    was_cut: bool,
    /// When it was last cut: what was asked before says nothing of how it is now.
    cut_at: Time,
    /// The time to an answer that no queue is to blame for: the shortest, or what is usual when nothing else is under way.
    base: Span,
}

impl Window {
    /// Nothing is known of the link.
    pub fn new() -> Window {
        Window {
            limit: BYTES_LEAST,
            under_way: 0,
            was_cut: false,
            cut_at: Time(0),
            base: Span(u64::MAX),
        }
    }

    /// Whether one more may go. One always may: its size is not a reason never to ask for it.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.under_way >= self.limit
    }

    /// Something of so many bytes, asked and expected, goes on its way.
    #[inline]
    pub fn enter(&mut self, cost: u32) {
        self.under_way += u64::from(cost);
    }

    /// All that was under way is lost.
    pub fn clear(&mut self) {
        self.under_way = 0;
    }

    /// What was asked `delay` ago, and had that `cost`, is answered at `now`. `limit`: the time limit of an answer.
    #[inline]
    pub fn leave(&mut self, cost: u32, delay: Span, now: Time, limit: Span) {
        let before = self.under_way;
        debug_assert!(before >= u64::from(cost), "more is answered than was asked");
        self.under_way = before.saturating_sub(u64::from(cost));
        if delay < self.base {
            self.base = delay;
        } else if self.under_way == 0 && cost <= SMALL {
            self.base.0 += (delay.0 - self.base.0) / 16;
        }
        // What was far from full says nothing, but that there was no queue.
        if before * 2 > self.limit || delay.0 > limit.0 / 4 {
            self.judge(before, cost, delay, now, limit);
        }
    }

    fn judge(&mut self, before: u64, cost: u32, delay: Span, now: Time, limit: Span) {
        let queued = delay.0.saturating_sub(self.base.0);
        if queued > limit.0 / 4 {
            let asked = Time(now.0.saturating_sub(delay.0));
            if asked >= self.cut_at {
                self.limit = (self.limit.min(before) / 2).max(BYTES_LEAST);
                self.cut_at = now;
                self.was_cut = true;
            }
        } else if queued <= limit.0 / 8 {
            let cost = u64::from(cost);
            self.limit += match self.was_cut {
                true => (cost * cost / self.limit).clamp(1, cost.max(1)),
                false => cost,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    const LIMIT: Span = Span::from_millis(200);

    /// Keeps a link of so many bytes a second busy with answers of `size`: the longest that one was under way once the window
    /// has found its size, and whether the link was idle.
    fn carry(count: usize, size: u32, rate: u64, far: Span) -> (Span, bool) {
        let mut window = Window::new();
        // It was greeted.
        window.enter(10);
        window.leave(10, far, Time(0), LIMIT);
        let (mut now, mut free) = (Time(0), Time(0));
        let mut under_way: VecDeque<(Time, Time)> = VecDeque::new();
        let (mut longest, mut idle) = (Span(0), false);
        for n in 0..count {
            while !window.is_full() {
                window.enter(size);
                let begins = free.max(now + far);
                idle |= n > count / 2 && begins > free;
                free = begins + Span(u64::from(size) * 1_000_000 / rate);
                under_way.push_back((now, free));
            }
            let (asked, arrives) = under_way.pop_front().expect("one always goes");
            now = arrives;
            window.leave(size, now.since(asked), now, LIMIT);
            if n > count / 2 {
                longest = longest.max(now.since(asked));
            }
        }
        (longest, idle)
    }

    #[test]
    fn the_window_fits_the_link() {
        let near = Span(0);
        for (size, rate) in [
            (500_000, 125_000_000),
            (20_000, 12_500_000),
            (300, 12_500_000),
        ] {
            let (longest, idle) = carry(20_000, size, rate, near);
            assert!(longest < Span::from_millis(100), "{size}: {longest:?}");
            assert!(!idle, "{size}: the link was idle");
        }
        // One is longer than all that may queue: then there is one at a time.
        let (longest, _) = carry(200, 1_000_000, 12_500_000, near);
        assert!(longest <= Span::from_millis(80), "{longest:?}");
    }

    #[test]
    fn a_server_that_is_far_away_is_not_a_full_link() {
        let (_, idle) = carry(20_000, 10_000, 12_500_000, Span::from_millis(60));
        assert!(!idle);
    }

    #[test]
    fn a_slow_time_does_not_last() {
        let mut window = Window::new();
        window.enter(10);
        window.leave(10, Span::from_millis(1), Time(1000), LIMIT);
        let at = |millis: u64| Time(millis * 1000);
        for second in 1..10 {
            window.enter(10);
            window.enter(100_000);
            window.leave(100_000, Span::from_millis(900), at(second * 1000), LIMIT);
        }
        assert_eq!(window.limit, BYTES_LEAST);
        for _ in 0..20 {
            let mut count = 0;
            while !window.is_full() {
                window.enter(50_000);
                count += 1;
            }
            for _ in 0..count {
                window.leave(50_000, Span::from_millis(1), at(20_000), LIMIT);
            }
        }
        assert!(window.limit > 5 * BYTES_LEAST);
    }
}
