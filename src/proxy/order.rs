//! Who may go, and who waits: the order of operations on one key.
//!
//! A conditional write is decided by one server and mirrored when its answer comes. What goes to all copies at once must
//! not pass it on the way: the copies would end with different values. So while a conditional write is undecided, such
//! operations on its key wait, and everything behind them. Keys share buckets; a false neighbour only waits a little.

use std::collections::{BTreeMap, VecDeque};

use super::op::Held;
use super::sabotage::{is, Sabotage};

const BUCKETS: usize = 4096;

/// The bucket of a key's hash.
pub fn bucket(hash: u32) -> usize {
    // Multiplied so that keys of one server spread over all buckets.
    (hash.wrapping_mul(0x9e37_79b1) >> 20) as usize % BUCKETS
}

/// What is undecided, and what waits for it.
#[derive(Debug)]
pub struct Order {
    undecided: Vec<u16>,
    /// Operations that nothing may overtake: those on a key that its server may lack.
    exclusive: Vec<u16>,
    undecided_count: usize,
    held: BTreeMap<usize, VecDeque<Held>>,
    /// Per bucket, how many writes have passed; and how many of all keys at once.
    epochs: Vec<u32>,
    flushes: u64,
}

impl Order {
    /// Nothing is under way.
    pub fn new() -> Order {
        Order {
            undecided: vec![0; BUCKETS],
            exclusive: vec![0; BUCKETS],
            undecided_count: 0,
            held: BTreeMap::new(),
            epochs: vec![0; BUCKETS],
            flushes: 0,
        }
    }

    /// Tells whether a write has passed between two looks.
    pub fn epoch(&self, bucket: usize) -> (u32, u64) {
        (self.epochs[bucket], self.flushes)
    }

    /// The same in short, for a look that is not far away.
    pub fn short_epoch(&self, bucket: usize) -> u32 {
        self.epochs[bucket].wrapping_add(self.flushes as u32)
    }

    /// The epochs of all buckets.
    pub fn epochs(&self) -> (Vec<u32>, u64) {
        (self.epochs.clone(), self.flushes)
    }

    /// A write to a key of this bucket passes.
    pub fn passes(&mut self, bucket: usize) {
        self.epochs[bucket] = self.epochs[bucket].wrapping_add(1);
    }

    /// A write to all keys passes.
    pub fn all_pass(&mut self) {
        self.flushes += 1;
    }

    /// Whether any operation waits anywhere.
    pub fn is_holding(&self) -> bool {
        !self.held.is_empty()
    }

    /// Whether any conditional write is undecided.
    pub fn is_undecided(&self) -> bool {
        self.undecided_count > 0
    }

    /// Whether a conditional write on this bucket is undecided.
    pub fn is_deciding(&self, bucket: usize) -> bool {
        self.undecided[bucket] > 0
    }

    /// Whether operations on this bucket stand in a queue already.
    pub fn is_queued(&self, bucket: usize) -> bool {
        self.is_holding() && self.held.contains_key(&bucket)
    }

    /// Whether an operation must not be sent now. `settled`: it must not pass an undecided one either, because it goes
    /// to all copies at once, or to a server that may lack the key.
    pub fn is_blocked(&self, bucket: usize, settled: bool) -> bool {
        self.exclusive[bucket] > 0
            || (settled && self.undecided[bucket] > 0 && !is(Sabotage::HoldSkipped))
    }

    /// An operation begins that nothing on its bucket may overtake before it is finished.
    pub fn begin_exclusive(&mut self, bucket: usize) {
        self.exclusive[bucket] += 1;
        self.undecided_count += 1;
    }

    /// It is finished.
    pub fn end_exclusive(&mut self, bucket: usize) {
        self.exclusive[bucket] -= 1;
        self.undecided_count -= 1;
    }

    /// A conditional write is on its way.
    pub fn begin(&mut self, bucket: usize) {
        self.undecided[bucket] += 1;
        self.undecided_count += 1;
    }

    /// It is decided.
    pub fn decided(&mut self, bucket: usize) {
        self.undecided[bucket] -= 1;
        self.undecided_count -= 1;
    }

    /// Puts `op` at the end of its queue.
    pub fn hold(&mut self, bucket: usize, op: Held) {
        self.held.entry(bucket).or_default().push_back(op);
    }

    /// Takes the queue of a bucket out, to see who may go.
    pub fn take_queue(&mut self, bucket: usize) -> VecDeque<Held> {
        self.held.remove(&bucket).unwrap_or_default()
    }

    /// Puts back what still has to wait.
    pub fn put_back(&mut self, bucket: usize, queue: VecDeque<Held>) {
        if !queue.is_empty() {
            self.held.insert(bucket, queue);
        }
    }
}

impl Default for Order {
    fn default() -> Order {
        Order::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_goes_to_all_waits_for_a_decision() {
        let mut order = Order::new();
        order.begin(7);
        assert!(order.is_blocked(7, true));
        assert!(!order.is_blocked(7, false));
        assert!(!order.is_blocked(8, true));
        order.decided(7);
        assert!(!order.is_blocked(7, true) && !order.is_undecided());
    }

    #[test]
    fn nothing_overtakes_an_exclusive_one() {
        let mut order = Order::new();
        order.begin_exclusive(7);
        assert!(order.is_blocked(7, false) && order.is_undecided());
        order.end_exclusive(7);
        assert!(!order.is_blocked(7, true));
    }

    #[test]
    fn buckets_spread() {
        let mut used: Vec<usize> = (0..10_000u32).map(|hash| bucket(hash * 2)).collect();
        used.sort_unstable();
        used.dedup();
        assert!(used.len() > 3500, "{}", used.len());
    }
}
