//! One account for all buffered bytes, and a store of small buffers to use again.

use std::cell::Cell;
use std::ops::Deref;
use std::rc::Rc;

use super::Body;
use crate::time::{Span, Time};

/// Buffers larger than this are freed, not kept.
const KEEP_MAX: usize = 64 * 1024;

/// At most this many buffers are kept.
const KEPT_MAX: usize = 512;

/// Spare buffers that nobody needed for this long are freed.
const UNUSED: Span = Span::from_secs(1);

/// So many bytes in `UNUSED` were a burst. It is over when not more than an eighth of the most has passed in any of `CALM`
/// times `UNUSED`, however much is still held: by then most of what the burst needed has been freed, and after as long again
/// the rest.
const BURST: usize = 256 * 1024;
const CALM: u8 = 3;

/// First size of a buffer.
const FIRST: usize = 2 * 1024;

/// Length of a chunk: what is read at once. Between 32 and 48 KiB a long value costs least: it stays in the processor's cache.
pub const CHUNK: usize = 48 * 1024;

/// At most this many spare chunks are kept.
const CHUNKS_KEPT: usize = 128;

/// How many bytes are buffered in all queues, and spare buffers. Owned by the core, lent to the queues.
#[derive(Debug)]
pub struct Memory {
    used: Rc<Cell<usize>>,
    limit: usize,
    spare: Vec<Vec<u8>>,
    /// Spare chunks, each of full length.
    chunks: Vec<Vec<u8>>,
    /// One has been taken since `looked`.
    chunk_taken: bool,
    /// The fewest spare buffers there have been since `looked`: so many were not needed.
    unused: usize,
    looked: Time,
    /// Bytes that were buffered since `looked`, all in all.
    passed: usize,
    /// The most that passed at a time since a burst was last over.
    burst: usize,
    /// How often in a row little has passed.
    quiet: u8,
    calmed: bool,
}

impl Memory {
    /// An empty account with a limit in bytes.
    pub fn new(limit: usize) -> Memory {
        Memory {
            used: Rc::new(Cell::new(0)),
            limit,
            spare: Vec::new(),
            chunks: Vec::new(),
            chunk_taken: false,
            unused: 0,
            looked: Time(0),
            passed: 0,
            burst: 0,
            quiet: 0,
            calmed: false,
        }
    }

    /// Buffered bytes now.
    pub fn used(&self) -> usize {
        self.used.get()
    }

    /// The limit in bytes.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Sets another limit.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// Whether `more` bytes would go over the limit: then new work is refused.
    pub fn refuses(&self, more: usize) -> bool {
        self.used().saturating_add(more) > self.limit
    }

    /// Notes that `bytes` more are buffered.
    pub fn take(&mut self, bytes: usize) {
        self.used.set(self.used.get() + bytes);
        self.passed += bytes;
    }

    /// Notes that `bytes` less are buffered.
    pub fn give(&mut self, bytes: usize) {
        debug_assert!(self.used() >= bytes, "more given back than taken");
        self.used.set(self.used().saturating_sub(bytes));
    }

    /// An empty buffer with some room.
    pub fn buffer(&mut self) -> Vec<u8> {
        let Some(buffer) = self.spare.pop() else {
            return Vec::with_capacity(FIRST);
        };
        self.unused = self.unused.min(self.spare.len());
        buffer
    }

    /// A buffer of [`CHUNK`] bytes; what is in it means nothing.
    pub fn chunk(&mut self) -> Vec<u8> {
        self.chunk_taken = true;
        self.chunks.pop().unwrap_or_else(|| vec![0; CHUNK])
    }

    /// Makes room for `more` bytes in `buffer`.
    pub fn grow(&mut self, buffer: &mut Vec<u8>, more: usize) {
        let need = buffer.len() + more;
        if need <= buffer.capacity() {
            return;
        }
        // Not by the allocator's own way to resize: what it cuts off is too small to be used or given back.
        let mut larger = Vec::with_capacity(need.max(2 * buffer.capacity()));
        larger.extend_from_slice(buffer);
        self.recycle(std::mem::replace(buffer, larger));
    }

    /// Frees spare buffers that were not needed lately. Call it now and then, also while nothing happens. True about once
    /// a second: others may look at what they keep as well.
    pub fn rest(&mut self, now: Time) -> bool {
        if now.since(self.looked) < UNUSED {
            return false;
        }
        // Buffers are taken from the end and put back there: those at the front are the ones nobody took.
        self.spare.drain(..self.unused);
        if self.spare.is_empty() {
            self.spare = Vec::new();
        }
        if !std::mem::take(&mut self.chunk_taken) {
            self.chunks = Vec::new();
        }
        let passed = std::mem::take(&mut self.passed);
        self.burst = self.burst.max(passed);
        self.quiet = if passed <= self.burst / 8 {
            self.quiet.saturating_add(1)
        } else {
            0
        };
        if self.burst >= BURST && self.quiet >= CALM {
            self.calmed = self.quiet % CALM == 0;
            if self.quiet >= 2 * CALM {
                self.burst = 0;
            }
        }
        self.looked = now;
        self.unused = self.spare.len();
        true
    }

    /// Takes a chunk back; its contents are gone. Whatever else is freed.
    pub fn recycle_chunk(&mut self, mut buffer: Vec<u8>) {
        if buffer.capacity() == CHUNK && self.chunks.len() < CHUNKS_KEPT {
            buffer.resize(CHUNK, 0);
            self.chunks.push(buffer);
        }
    }

    /// Takes a buffer or a chunk back; its contents are gone.
    pub fn recycle(&mut self, mut buffer: Vec<u8>) {
        let capacity = buffer.capacity();
        if capacity == CHUNK {
            self.recycle_chunk(buffer);
        } else if (FIRST..=KEEP_MAX).contains(&capacity) && self.spare.len() < KEPT_MAX {
            buffer.clear();
            self.spare.push(buffer);
        }
    }

    /// A large table has moved to where it has more room: the allocator may give back where it was.
    pub fn table_moved(&mut self) {
        self.calmed = true;
    }

    /// True twice after a burst is over and what it needed has been freed, and after a large table has moved: the allocator may
    /// give that back.
    pub fn has_calmed(&mut self) -> bool {
        std::mem::take(&mut self.calmed)
    }

    /// Makes a shared data block of `bytes`; it is counted until the last holder lets go of it.
    pub fn share(&mut self, bytes: Vec<u8>) -> Body {
        self.take(bytes.len());
        Rc::new(Block {
            bytes,
            used: Rc::clone(&self.used),
        })
    }
}

/// The bytes of a shared data block, counted while they live.
#[derive(Debug)]
pub struct Block {
    bytes: Vec<u8>,
    used: Rc<Cell<usize>>,
}

impl Deref for Block {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.used
            .set(self.used.get().saturating_sub(self.bytes.len()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_refuses() {
        let mut memory = Memory::new(100);
        memory.take(90);
        assert!(memory.refuses(11));
        assert!(!memory.refuses(10));
        memory.give(90);
        assert_eq!(memory.used(), 0);
    }

    #[test]
    fn shared_blocks_count_once_and_until_the_last_holder() {
        let mut memory = Memory::new(100);
        let body = memory.share(vec![0; 30]);
        let other = Rc::clone(&body);
        drop(body);
        assert_eq!(memory.used(), 30);
        drop(other);
        assert_eq!(memory.used(), 0);
    }

    #[test]
    fn keeps_buffers_of_useful_size() {
        let mut memory = Memory::new(100);
        memory.recycle(Vec::new());
        memory.recycle(Vec::with_capacity(KEEP_MAX * 2));
        assert!(memory.spare.is_empty());
        memory.recycle(vec![1; FIRST]);
        assert!(memory.buffer().is_empty());
    }

    #[test]
    fn the_end_of_a_burst_is_told_when_most_is_freed_and_when_all_is() {
        let mut memory = Memory::new(usize::MAX);
        let mut calmed = |at: u64, bytes: usize| {
            memory.take(bytes);
            memory.rest(Time(at * 600_000));
            memory.give(bytes);
            memory.has_calmed()
        };
        let seen = [
            calmed(2, BURST - 1),
            calmed(4, 0),
            calmed(6, 0),
            calmed(8, 0),
            calmed(10, BURST),
            calmed(12, BURST / 8),
            calmed(14, BURST / 8),
            calmed(16, BURST / 8 + 1),
            calmed(18, BURST / 8),
            calmed(20, BURST / 8),
            calmed(22, BURST / 8),
            calmed(24, 0),
            calmed(26, 0),
            calmed(28, 0),
            calmed(30, 0),
            calmed(32, 0),
            calmed(34, 0),
        ];
        let told: Vec<usize> = (0..seen.len()).filter(|&i| seen[i]).collect();
        assert_eq!(told, [10, 13]);
    }

    #[test]
    fn chunks_are_of_full_length_and_go_when_nobody_needs_them() {
        let mut memory = Memory::new(100);
        let mut chunk = memory.chunk();
        chunk.truncate(7);
        memory.recycle(chunk);
        assert_eq!(memory.chunks.len(), 1);
        memory.rest(Time(1_000_000));
        assert_eq!(memory.chunk().len(), CHUNK);
        memory.recycle(vec![0; CHUNK]);
        memory.rest(Time(2_000_000));
        assert_eq!(memory.chunks.len(), 1);
        memory.rest(Time(3_000_000));
        assert_eq!(memory.chunks.capacity(), 0);
    }

    #[test]
    fn buffers_that_nobody_needs_are_given_back() {
        let mut memory = Memory::new(100);
        let second = |n: u64| Time(n * 1_000_000);
        memory.rest(second(1));
        for _ in 0..10 {
            memory.recycle(Vec::with_capacity(FIRST));
        }
        memory.rest(second(2));
        assert_eq!(memory.spare.len(), 10, "they have only just come");
        let (one, two) = (memory.buffer(), memory.buffer());
        memory.recycle(one);
        memory.recycle(two);
        memory.rest(second(2) + Span::from_millis(500));
        assert_eq!(memory.spare.len(), 10, "a second is not over");
        memory.rest(second(3));
        assert_eq!(memory.spare.len(), 2, "two were needed");
        memory.rest(second(4));
        assert_eq!((memory.spare.len(), memory.spare.capacity()), (0, 0));
    }
}
