//! The room of clients: their replies in order, what they sent half, and how much they may have under way.

use std::collections::VecDeque;

use super::op::Held;
use crate::buf::{Memory, SendQueue};
use crate::proto::Verb;
use crate::time::Time;

/// A client with more unsent bytes than this is not read until half of them are gone.
pub const OUT_MAX: usize = 256 * 1024;

/// What a client may have under way is chosen so that the replies are likely to fit into this many bytes.
const DUE_BYTES: usize = 1024 * 1024;

/// A client never has more keys under way than this.
const DUE_MAX: usize = 4096;

/// What is assumed of the size of a reply before the first one came, and the least that is ever assumed.
const ESTIMATE_FIRST: usize = 16 * 1024;
const ESTIMATE_MIN: usize = 256;

/// Slots kept by an idle client.
const SLOTS_KEPT: usize = 4;

/// What the next bytes of a client mean.
#[derive(Debug, Default)]
pub enum Input {
    /// A command line.
    #[default]
    Line,
    /// The data block of a storage command.
    Data(Box<PendingData>),
    /// Bytes to be thrown away, then a reply to be given.
    Swallow {
        /// How many are left.
        left: usize,
        /// The place of the reply.
        seq: u32,
        /// The reply; empty: none.
        reply: &'static [u8],
    },
    /// A list of keys longer than the client may have under way: it goes on when there is room.
    Keys(Box<KeyRun>),
}

/// A storage command whose data block is not complete.
#[derive(Debug)]
pub struct PendingData {
    /// The command.
    pub held: Held,
    /// What came of the block and its line end.
    pub data: Vec<u8>,
    /// Bytes of block and line end together.
    pub need: usize,
}

/// The rest of a long list of keys.
#[derive(Debug)]
pub struct KeyRun {
    /// Which retrieval.
    pub verb: Verb,
    /// `gat`: the time to live.
    pub exptime: i32,
    /// The whole line.
    pub line: Vec<u8>,
    /// Where the next key is looked for.
    pub at: usize,
}

/// The place of one reply in its client's order.
#[derive(Debug)]
pub struct Slot {
    done: bool,
    /// What came of the reply.
    pub reply: Reply,
}

/// A reply that is being put together.
#[derive(Debug, Default)]
pub enum Reply {
    /// Nothing (yet).
    #[default]
    None,
    /// One of the proxy's own lines.
    Fixed(&'static [u8]),
    /// Bytes of a server.
    Bytes(Vec<u8>),
}

/// An accepted connection.
#[derive(Debug)]
pub struct Client {
    /// Tells this owner of the index from earlier ones.
    pub generation: u32,
    /// Replies that wait to be written.
    pub out: SendQueue,
    /// Bytes that are not understood yet: a line without its end, or all that came while the client was held back.
    pub partial: Vec<u8>,
    /// Bytes of `partial` that are used up.
    pub partial_at: usize,
    /// Bytes of the line at `partial_at` that are known to hold no line end.
    pub searched: usize,
    /// What the next bytes mean.
    pub input: Input,
    /// Stands on the list of connections to write.
    pub dirty: bool,
    /// Has too much under way: its bytes wait in `partial`.
    pub stalled: bool,
    /// It will send no more, but what it sent is not all taken in yet.
    pub finished: bool,
    /// Takes no more requests, and is closed when all replies are written.
    pub closing: bool,
    /// When it last sent something.
    pub last_active: Time,
    slots: VecDeque<Slot>,
    /// Number of the first slot.
    first_seq: u32,
    /// Keys asked for whose reply is due.
    due: usize,
    /// Expected bytes of a reply.
    estimate: usize,
}

impl Client {
    /// A fresh client. `typical`: recent size of values, of whichever client.
    pub fn new(generation: u32, now: Time, typical: usize) -> Client {
        Client {
            generation,
            out: SendQueue::default(),
            partial: Vec::new(),
            partial_at: 0,
            searched: 0,
            input: Input::Line,
            dirty: false,
            stalled: false,
            finished: false,
            closing: false,
            last_active: now,
            slots: VecDeque::new(),
            first_seq: 0,
            due: 0,
            estimate: typical.max(ESTIMATE_FIRST),
        }
    }

    /// How many keys more it may ask for now.
    pub fn room(&self) -> usize {
        if self.out.len() > OUT_MAX {
            return 0;
        }
        let window = (DUE_BYTES / self.estimate).clamp(1, DUE_MAX);
        window.saturating_sub(self.due)
    }

    /// Whether a client that was held back has room enough again to go on.
    pub fn may_resume(&self) -> bool {
        self.room() > 0 && self.out.len() <= OUT_MAX / 2
    }

    /// Whether all that it asked is answered and written.
    pub fn is_settled(&self) -> bool {
        self.slots.is_empty() && self.out.is_empty()
    }

    /// Whether nothing is done for it: all is answered, or it is the client that owes the rest of a request.
    pub fn is_idle(&self) -> bool {
        let owed = matches!(self.input, Input::Data(_) | Input::Swallow { .. });
        self.is_settled() || (owed && self.slots.len() == 1 && self.out.is_empty())
    }

    /// Begins a reply for `keys` keys; its place in the order.
    pub fn open_slot(&mut self, keys: usize) -> u32 {
        self.due += keys;
        let seq = self.first_seq.wrapping_add(self.slots.len() as u32);
        self.slots.push_back(Slot {
            done: false,
            reply: Reply::None,
        });
        seq
    }

    /// The slot `seq`, if its reply is still due.
    pub fn slot(&mut self, seq: u32) -> Option<&mut Slot> {
        let index = seq.wrapping_sub(self.first_seq) as usize;
        self.slots.get_mut(index)
    }

    /// Appends to the reply of `seq`. `expected`: how long the whole is going to be.
    pub fn extend(&mut self, seq: u32, bytes: &[u8], expected: usize, memory: &mut Memory) {
        let Some(slot) = self.slot(seq) else { return };
        memory.take(bytes.len());
        match &mut slot.reply {
            Reply::Bytes(reply) => {
                reply.reserve(expected.max(bytes.len()));
                reply.extend_from_slice(bytes);
            }
            other => {
                let mut reply = memory.buffer();
                reply.reserve_exact(expected.max(bytes.len()));
                reply.extend_from_slice(bytes);
                *other = Reply::Bytes(reply);
            }
        }
    }

    /// Throws away what came of the reply of `seq`.
    pub fn discard(&mut self, seq: u32, memory: &mut Memory) {
        if let Some(slot) = self.slot(seq) {
            if let Reply::Bytes(reply) = std::mem::take(&mut slot.reply) {
                memory.give(reply.len());
                memory.recycle(reply);
            }
        }
    }

    /// Puts `reply` in place of what came for `seq`.
    pub fn replace(&mut self, seq: u32, reply: Reply, memory: &mut Memory) {
        self.discard(seq, memory);
        if let Some(slot) = self.slot(seq) {
            if let Reply::Bytes(bytes) = &reply {
                memory.take(bytes.len());
            }
            slot.reply = reply;
        }
    }

    /// The reply of `seq`, for `keys` keys, is complete but for `tail`. Whatever is next in order goes out.
    pub fn finish(&mut self, seq: u32, keys: usize, tail: &[u8], memory: &mut Memory) {
        let index = seq.wrapping_sub(self.first_seq) as usize;
        let Some(slot) = self.slots.get_mut(index) else {
            return;
        };
        self.due -= keys;
        let size = tail.len()
            + match &slot.reply {
                Reply::Bytes(bytes) => bytes.len(),
                _ => 0,
            };
        self.estimate = estimate(self.estimate, size / keys.max(1));
        if index == 0 {
            let slot = self.slots.pop_front();
            self.first_seq = self.first_seq.wrapping_add(1);
            if let Some(slot) = slot {
                self.send(slot.reply, memory);
            }
            self.out.push(tail, memory);
            self.send_finished(memory);
        } else {
            slot.done = true;
            if !tail.is_empty() {
                self.extend(seq, tail, tail.len(), memory);
            }
        }
    }

    fn send_finished(&mut self, memory: &mut Memory) {
        while self.slots.front().is_some_and(|slot| slot.done) {
            if let Some(slot) = self.slots.pop_front() {
                self.first_seq = self.first_seq.wrapping_add(1);
                self.send(slot.reply, memory);
            }
        }
        if self.slots.is_empty() && self.slots.capacity() > 4 * SLOTS_KEPT {
            self.slots.shrink_to(SLOTS_KEPT);
        }
    }

    fn send(&mut self, reply: Reply, memory: &mut Memory) {
        match reply {
            Reply::None => {}
            Reply::Fixed(line) => self.out.push(line, memory),
            Reply::Bytes(bytes) => {
                memory.give(bytes.len());
                self.out.push_vec(bytes, memory);
            }
        }
    }

    /// Gives all its memory back; for one that is gone.
    pub fn release(mut self, memory: &mut Memory) {
        for slot in self.slots.drain(..) {
            if let Reply::Bytes(bytes) = slot.reply {
                memory.give(bytes.len());
            }
        }
        memory.give(self.partial.len());
        if let Input::Data(pending) = self.input {
            memory.give(pending.data.len());
        }
        self.out.clear(memory);
    }
}

/// The new expectation after a reply of `size` bytes: up at once, down slowly.
pub fn estimate(old: usize, size: usize) -> usize {
    if size >= old {
        size
    } else {
        (old - (old - size) / 4).max(ESTIMATE_MIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(client: &mut Client, memory: &mut Memory) -> Vec<u8> {
        let mut out = Vec::new();
        assert!(client.out.write_to(&mut out, memory).unwrap());
        out
    }

    #[test]
    fn replies_go_out_in_the_order_of_the_requests() {
        let mut memory = Memory::new(usize::MAX);
        let mut client = Client::new(1, Time(0), 0);
        let seqs: Vec<u32> = (0..4).map(|_| client.open_slot(1)).collect();
        client.finish(seqs[2], 1, b"c", &mut memory);
        client.extend(seqs[1], b"b", 1, &mut memory);
        client.finish(seqs[1], 1, b"", &mut memory);
        assert_eq!(written(&mut client, &mut memory), b"");
        client.finish(seqs[0], 1, b"a", &mut memory);
        assert_eq!(written(&mut client, &mut memory), b"abc");
        client.replace(seqs[3], Reply::Fixed(b"d"), &mut memory);
        client.finish(seqs[3], 1, b"", &mut memory);
        assert_eq!(written(&mut client, &mut memory), b"d");
        assert!(client.is_settled());
        assert_eq!((memory.used(), client.due), (0, 0));
    }

    #[test]
    fn large_replies_narrow_the_window_and_small_ones_widen_it() {
        let mut memory = Memory::new(usize::MAX);
        let mut client = Client::new(1, Time(0), 0);
        assert_eq!(client.room(), 64);
        let seq = client.open_slot(1);
        client.extend(seq, &vec![0; 1 << 20], 1 << 20, &mut memory);
        client.finish(seq, 1, b"", &mut memory);
        assert_eq!(client.room(), 0, "a megabyte waits to be written");
        written(&mut client, &mut memory);
        assert_eq!(client.room(), 1);
        for _ in 0..60 {
            let seq = client.open_slot(1);
            client.finish(seq, 1, b"END\r\n", &mut memory);
        }
        written(&mut client, &mut memory);
        assert_eq!(client.room(), 4096);
    }
}
