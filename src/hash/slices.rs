//! A set of keys too large to be held is gone through in slices: each slice is what a range of the keys' hashes holds.
//!
//! Keys are offered in any order, all of them each time. What fits is taken; when it would be too much, the upper half of the
//! range is put off, until the keys are offered once more.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Keys of the present slice, with what is known of them.
#[derive(Debug)]
pub struct Slices<T> {
    waiting: VecDeque<(u64, T)>,
    first: u64,
    last: u64,
    max: usize,
}

impl<T> Slices<T> {
    /// At most `max` keys at a time.
    pub fn new(max: usize) -> Slices<T> {
        Slices {
            waiting: VecDeque::new(),
            first: 0,
            last: u64::MAX,
            max,
        }
    }

    /// Offers a key; `what` is called if it is of this slice.
    pub fn offer(&mut self, key: &[u8], what: impl FnOnce() -> T) {
        // Not the hash that places keys: clients can choose keys for which that is the same.
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        let hash = hasher.finish();
        if (self.first..=self.last).contains(&hash) {
            self.waiting.push_back((hash, what()));
            if self.waiting.len() > self.max {
                self.put_off();
            }
        }
    }

    /// Keeps the lower half.
    fn put_off(&mut self) {
        let mut hashes: Vec<u64> = self.waiting.iter().map(|(hash, _)| *hash).collect();
        let middle = hashes.len() / 2;
        let (_, &mut median, _) = hashes.select_nth_unstable(middle);
        if median > self.first {
            self.last = median - 1;
            self.waiting.retain(|(hash, _)| *hash < median);
        }
    }

    /// The next key that waits.
    pub fn pop(&mut self) -> Option<T> {
        self.waiting.pop_front().map(|(_, what)| what)
    }

    /// Puts back what has been taken out.
    pub fn put_back(&mut self, what: T) {
        self.waiting.push_back((self.first, what));
    }

    /// None waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether it is the first slice.
    pub fn is_first(&self) -> bool {
        self.first == 0
    }

    /// All keys have been offered, and those of this slice are done with. True: there is another slice, so they must be
    /// offered once more.
    pub fn advance(&mut self) -> bool {
        let more = self.last < u64::MAX;
        self.first = if more { self.last + 1 } else { 0 };
        self.last = u64::MAX;
        self.waiting.clear();
        more
    }

    /// Begins anew with another set of keys.
    pub fn restart(&mut self) {
        *self = Slices::new(self.max);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goes through so many keys; how often they had to be offered, and the most that waited.
    fn go_through(keys: usize, max: usize, pop_while_offering: bool) -> (usize, usize) {
        let mut slices = Slices::new(max);
        let (mut seen, mut rounds, mut most) = (vec![0; keys], 0, 0);
        loop {
            rounds += 1;
            for n in 0..keys {
                slices.offer(format!("key:{n}").as_bytes(), || n);
                most = most.max(slices.waiting.len());
                if pop_while_offering && n % 3 == 0 {
                    seen[slices.pop().unwrap_or(n)] += 1;
                }
            }
            while let Some(n) = slices.pop() {
                seen[n] += 1;
            }
            if !slices.advance() {
                break;
            }
        }
        assert!(seen.iter().all(|&times| times > 0), "one was left out");
        if !pop_while_offering {
            assert!(seen.iter().all(|&times| times == 1), "one came twice");
        }
        (rounds, most)
    }

    #[test]
    fn a_small_set_is_one_slice() {
        assert_eq!(go_through(1000, 1000, false), (1, 1000));
        assert_eq!(go_through(0, 10, false), (1, 0));
    }

    #[test]
    fn a_large_set_is_many_slices_and_none_is_left_out() {
        for pops in [false, true] {
            let (rounds, most) = go_through(10_000, 1000, pops);
            assert!((2..=25).contains(&rounds), "{rounds} rounds");
            assert!(most <= 1000, "{most} waited");
        }
        go_through(50, 1, false);
    }
}
