//! The room of clients: their replies in order, what they sent half, and how much they may have under way.

use super::crowd::Turn;
use super::dialect::Binary;
use super::long::{Long, Piece};
use super::op::Held;
use super::passing::{Mismatch, PASS_MIN};
pub use super::slots::Reply;
use super::slots::Slots;
use super::tail::{done_with, Tail};
use crate::buf::{Memory, SendQueue};
use crate::proto::binary::{self, Asked};
use crate::proto::Verb;
use crate::time::Time;

/// A client with more unsent bytes than this is not read until half of them are gone.
pub const OUT_MAX: usize = 256 * 1024;

/// What a client may have under way is chosen so that the replies, with what is not written yet, are likely to fit into its
/// window of so many bytes. The window begins small, so that a client that reads nothing holds little, and is doubled each time
/// that much has been delivered and the client asks again.
const WINDOW_FIRST: usize = 32 * 1024;
const DOUBLED_MAX: u8 = 5;

/// A client never has more keys under way than this.
const DUE_MAX: usize = 256;

/// What is assumed of the size of a reply before any came, and the least that is ever assumed.
const ESTIMATE_FIRST: u32 = 16 * 1024;
const ESTIMATE_MIN: usize = 256;

/// What the next bytes of a client mean.
#[derive(Debug, Default)]
pub enum Input {
    /// Nothing has come yet: the first byte tells the protocol.
    Fresh,
    /// A command line, or a frame.
    #[default]
    Line,
    /// The data block of a storage command.
    Data(Box<PendingData>),
    /// Bytes to be thrown away, then a reply to be given.
    Swallow(Box<Swallow>),
    /// A list of keys longer than the client may have under way: it goes on when there is room.
    Keys(Box<KeyRun>),
}

/// Bytes that nobody wants.
#[derive(Debug)]
pub struct Swallow {
    /// How many are left.
    pub left: usize,
    /// The place of the reply.
    pub seq: u32,
    /// The reply; empty: none.
    pub reply: &'static [u8],
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
    pub partial_at: u32,
    /// Bytes of the line at `partial_at` that are known to hold no line end.
    pub searched: u32,
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
    /// It waits until a server has room, or had to.
    pub turn: Turn,
    /// Bytes of its last reply.
    pub last: u32,
    /// When it last sent something.
    pub last_active: Time,
    pub(super) slots: Slots,
    /// What is known of long values in its queue, as long as there is one.
    pub(super) long: Option<Box<Long>>,
    /// It speaks the binary protocol.
    binary: Option<Box<Binary>>,
    /// Keys asked for whose reply is due.
    due: u16,
    /// Expected bytes of a reply.
    estimate: u32,
    /// How often its window has been doubled; see `WINDOW_FIRST`.
    doubled: u8,
    /// Sixteenths of the window written since then. Smaller writes do not count: they need no wide window.
    delivered: u8,
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
            input: Input::Fresh,
            dirty: false,
            stalled: false,
            finished: false,
            closing: false,
            turn: Turn::None,
            last: 0,
            last_active: now,
            slots: Slots::default(),
            long: None,
            binary: None,
            due: 0,
            estimate: match typical {
                0 => ESTIMATE_FIRST,
                known => u32::try_from(known.max(ESTIMATE_MIN)).unwrap_or(u32::MAX),
            },
            doubled: 0,
            delivered: 0,
        }
    }

    /// How many keys more it may ask for now.
    pub fn room(&self) -> usize {
        if self.out.len() > self.out_max() || self.has_aside() {
            return 0;
        }
        let free = self.window().saturating_sub(self.out.len());
        let keys = (free / self.estimate as usize).clamp(1, DUE_MAX);
        keys.saturating_sub(self.due as usize)
    }

    /// While memory is short: whether it has to wait with its next request.
    pub fn is_over(&mut self) -> bool {
        let over = self.owes();
        if over {
            self.turn = Turn::Sparing;
        }
        over
    }

    /// Whether something is due to it, or it has not taken all that it was answered.
    fn owes(&self) -> bool {
        self.due > 0 || !self.out.is_empty()
    }

    /// One that has had no reply yet may expect what others got since it came.
    pub fn expect_at_least(&mut self, typical: usize) {
        if self.last == 0 {
            let typical = u32::try_from(typical).unwrap_or(u32::MAX);
            self.estimate = self.estimate.max(typical);
        }
    }

    /// How many bytes the reply for so many keys is expected to have.
    #[inline]
    pub fn expects(&self, keys: u16) -> u32 {
        self.estimate.saturating_mul(u32::from(keys))
    }

    fn window(&self) -> usize {
        WINDOW_FIRST << self.doubled
    }

    fn out_max(&self) -> usize {
        OUT_MAX.min(self.window())
    }

    /// So many bytes have been written; see [`Client::note_request`].
    pub fn note_written(&mut self, bytes: usize) {
        let sixteenths = (bytes / (WINDOW_FIRST / 16)) >> self.doubled;
        let sixteenths = u8::try_from(sixteenths).unwrap_or(u8::MAX);
        self.delivered = self.delivered.saturating_add(sixteenths);
    }

    /// It sends something. One that comes back after it was sent a window's worth, with all taken in that it had asked before
    /// and written what was answered, has most likely read it: that the kernel took it proves nothing.
    pub fn note_request(&mut self) {
        if self.delivered >= 16 && !self.stalled && self.partial.is_empty() && self.out.is_empty() {
            self.delivered = 0;
            self.doubled = (self.doubled + 1).min(DOUBLED_MAX);
        }
    }

    /// Whether a client that was held back has room enough again to go on.
    pub fn may_resume(&self) -> bool {
        let waits = match self.turn {
            Turn::Waiting | Turn::Behind => true,
            Turn::Sparing => self.owes(),
            Turn::None | Turn::Given | Turn::Over => false,
        };
        !waits && self.room() > 0 && self.out.len() <= self.out_max() / 2
    }

    /// Whether all that it asked is answered and written.
    pub fn is_settled(&self) -> bool {
        self.slots.is_empty() && self.out.is_empty() && !self.has_aside()
    }

    /// Whether something it is owed was set aside.
    #[inline]
    pub fn has_aside(&self) -> bool {
        let long = self.long.as_ref();
        long.is_some_and(|long| !long.aside.is_empty())
    }

    /// Whether nothing is done for it: all is answered, or it is the client that owes the rest of a request.
    pub fn is_idle(&self) -> bool {
        let owed = matches!(self.input, Input::Data(_) | Input::Swallow(_));
        self.is_settled() || (owed && self.slots.len() == 1 && self.out.is_empty())
    }

    /// Begins a reply for `keys` keys; its place in the order.
    pub fn open_slot(&mut self, keys: usize) -> u32 {
        self.due += keys as u16;
        if let Some(binary) = &mut self.binary {
            binary.opened();
        }
        self.slots.open()
    }

    /// Begins `count` things, one or more, of which the client does not hear: only what it asked behind waits for them. The place
    /// of the first in the order.
    pub fn open_silent_slots(&mut self, count: usize) -> u32 {
        let mut last = 0;
        for _ in 0..count {
            self.due += 1;
            if let Some(binary) = &mut self.binary {
                binary.opened_silent();
            }
            last = self.slots.open();
            if let Some(slot) = self.slots.get(last) {
                slot.is_silent = true;
            }
        }
        last.wrapping_sub(count as u32 - 1)
    }

    /// Learns from the first byte which protocol it speaks.
    pub fn begin_protocol(&mut self, first: u8) {
        self.input = Input::Line;
        if first == binary::REQUEST {
            self.binary = Some(Box::default());
        }
    }

    /// Whether it speaks the binary protocol.
    pub fn is_binary(&self) -> bool {
        self.binary.is_some()
    }

    /// The slot that is opened next is for this request of the binary protocol.
    pub fn expect_frame(&mut self, asked: Asked) {
        if let Some(binary) = &mut self.binary {
            binary.expect(asked);
        }
    }

    /// Appends to the reply of `seq`. `expected`: how long the whole is going to be.
    pub fn extend(&mut self, seq: u32, bytes: &[u8], expected: usize, memory: &mut Memory) {
        let Some(slot) = self.slots.get(seq) else {
            return;
        };
        memory.take(bytes.len());
        slot.is_long |= expected >= PASS_MIN;
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

    /// Appends `tail` to the reply of `seq`.
    pub fn extend_with(&mut self, seq: u32, tail: &Tail<'_>, memory: &mut Memory) {
        let expected = tail.shown_len();
        tail.show(|pieces| {
            for piece in pieces {
                if !piece.is_empty() {
                    self.extend(seq, piece, expected, memory);
                }
            }
        });
    }

    /// Makes `pieces` the reply of `seq`, but for its tail; they go out at once if it is its turn.
    pub fn put_together<'a>(
        &mut self,
        seq: u32,
        pieces: impl Iterator<Item = &'a [u8]> + Clone,
        memory: &mut Memory,
    ) {
        self.discard(seq, memory);
        if self.slots.is_first(seq) {
            let before = self.out.len();
            for piece in pieces {
                if piece.len() >= PASS_MIN {
                    self.note_long_values(piece);
                }
                self.out.push(piece, memory);
            }
            if let Some(slot) = self.slots.get(seq) {
                slot.sent = u32::try_from(self.out.len() - before).unwrap_or(u32::MAX);
            }
            return;
        }
        let Some(slot) = self.slots.get(seq) else {
            return;
        };
        let mut reply = memory.buffer();
        reply.reserve(pieces.clone().map(<[u8]>::len).sum());
        for piece in pieces {
            slot.is_long |= piece.len() >= PASS_MIN;
            reply.extend_from_slice(piece);
        }
        memory.take(reply.len());
        slot.reply = Reply::Bytes(reply);
    }

    /// Throws away what came of the reply of `seq`: it begins anew.
    pub fn discard(&mut self, seq: u32, memory: &mut Memory) {
        if self.slots.is_first(seq) {
            if let Some(passing) = self.long.as_mut().and_then(|long| long.passing.as_mut()) {
                passing.again = passing.sent;
            }
        }
        if let Some(slot) = self.slots.get(seq) {
            if let Reply::Bytes(reply) = std::mem::take(&mut slot.reply) {
                memory.give(reply.len());
                memory.recycle(reply);
            }
        }
    }

    /// Puts `reply` in place of what came for `seq`.
    pub fn replace(&mut self, seq: u32, reply: Reply, memory: &mut Memory) {
        self.discard(seq, memory);
        if let Some(slot) = self.slots.get(seq) {
            memory.take(reply.len());
            slot.reply = reply;
        }
    }

    /// The reply of `seq`, for `keys` keys, is complete but for `tail`. Whatever is next in order goes out.
    pub fn finish(
        &mut self,
        seq: u32,
        keys: usize,
        tail: &Tail<'_>,
        memory: &mut Memory,
    ) -> Result<(), Mismatch> {
        let first = self.slots.is_first(seq);
        let Some(slot) = self.slots.get(seq) else {
            return Ok(());
        };
        let is_silent = slot.is_silent;
        let mut size = slot.sent as usize + slot.reply.len() + tail.shown_len();
        if !first {
            slot.done = true;
            if is_silent {
                // Nothing is said.
            } else if self.binary.is_some() {
                self.prepare_frame(seq, tail, memory);
            } else if !tail.text.is_empty() {
                self.extend_with(seq, tail, memory);
            }
        } else if self.long.is_some() {
            size += self.end_passing(tail.text)?;
        }
        self.due -= keys as u16;
        if !is_silent {
            self.last = u32::try_from(size).unwrap_or(u32::MAX);
            let typical = estimate(self.estimate as usize, size / keys.max(1));
            self.estimate = u32::try_from(typical).unwrap_or(u32::MAX);
        }
        if first {
            if self.binary.is_some() {
                self.send_frames(tail, memory);
                return Ok(());
            }
            if let Some(slot) = self.slots.pop() {
                if slot.is_long {
                    self.note_long(&slot.reply);
                }
                self.send(slot.reply, memory);
            }
            if tail.cas() == 0 {
                self.out.push(tail.text, memory);
            } else {
                tail.show(|pieces| self.out.push_all(pieces, memory));
            }
            if let Some(long) = &mut self.long {
                long.put_back(&mut self.out, memory);
            }
            while let Some(slot) = self.slots.pop_done() {
                if slot.is_long {
                    self.note_long(&slot.reply);
                }
                self.send(slot.reply, memory);
            }
        }
        Ok(())
    }

    /// The reply of `seq`, which is complete but for `tail` and has to wait its turn, becomes a frame, if it is not a long one
    /// that came in pieces: then it becomes one as it leaves.
    fn prepare_frame(&mut self, seq: u32, tail: &Tail<'_>, memory: &mut Memory) {
        let place = self.slots.place(seq);
        let (Some(binary), Some(slot)) = (&self.binary, self.slots.get(seq)) else {
            return;
        };
        match &slot.reply {
            Reply::None => {
                let frames = binary.frame(place, tail, memory);
                slot.is_frames = true;
                if !frames.is_empty() {
                    memory.take(frames.len());
                    slot.reply = Reply::Bytes(frames);
                }
            }
            Reply::Bytes(_) => self.extend_with(seq, tail, memory),
            Reply::Fixed(_) | Reply::Done(_) => {}
        }
    }

    /// The first reply, which is complete but for `tail`, and those behind it that are done, in the binary protocol.
    fn send_frames(&mut self, tail: &Tail<'_>, memory: &mut Memory) {
        let Some(binary) = &mut self.binary else {
            return;
        };
        if let Some(slot) = self.slots.pop() {
            binary.send(slot, tail, &mut self.out, memory);
        }
        while let Some(slot) = self.slots.pop_done() {
            binary.send(slot, &Tail::default(), &mut self.out, memory);
        }
    }

    pub(super) fn send(&mut self, reply: Reply, memory: &mut Memory) {
        match reply {
            Reply::None => {}
            Reply::Fixed(line) => self.out.push(line, memory),
            Reply::Done(cas) => done_with(cas, |pieces| self.out.push_all(pieces, memory)),
            Reply::Bytes(bytes) => {
                memory.give(bytes.len());
                self.out.push_vec(bytes, memory);
            }
        }
    }

    /// Gives all its memory back; for one that is gone.
    pub fn release(mut self, memory: &mut Memory) {
        while let Some(slot) = self.slots.pop() {
            memory.give(slot.reply.len());
        }
        memory.give(self.partial.len());
        if let Input::Data(pending) = self.input {
            memory.give(pending.data.len());
        }
        let aside = self.long.iter().flat_map(|long| &long.aside);
        memory.give(aside.map(Piece::len).sum());
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
        client.note_written(out.len());
        client.note_request();
        out
    }

    #[test]
    fn replies_go_out_in_the_order_of_the_requests() {
        let mut memory = Memory::new(usize::MAX);
        let mut client = Client::new(1, Time(0), 0);
        let seqs: Vec<u32> = (0..4).map(|_| client.open_slot(1)).collect();
        client
            .finish(seqs[2], 1, &Tail::new(b"c"), &mut memory)
            .unwrap();
        client.extend(seqs[1], b"b", 1, &mut memory);
        client
            .finish(seqs[1], 1, &Tail::new(b""), &mut memory)
            .unwrap();
        assert_eq!(written(&mut client, &mut memory), b"");
        client
            .finish(seqs[0], 1, &Tail::new(b"a"), &mut memory)
            .unwrap();
        assert_eq!(written(&mut client, &mut memory), b"abc");
        client.replace(seqs[3], Reply::Fixed(b"d"), &mut memory);
        client
            .finish(seqs[3], 1, &Tail::new(b""), &mut memory)
            .unwrap();
        assert_eq!(written(&mut client, &mut memory), b"d");
        assert!(client.is_settled());
        assert_eq!((memory.used(), client.due), (0, 0));
    }

    #[test]
    fn large_replies_narrow_the_window_and_small_ones_widen_it() {
        let mut memory = Memory::new(usize::MAX);
        let mut client = Client::new(1, Time(0), 0);
        assert_eq!(client.room(), 2);
        let seq = client.open_slot(1);
        client.extend(seq, &vec![0; 1 << 20], 1 << 20, &mut memory);
        client.finish(seq, 1, &Tail::new(b""), &mut memory).unwrap();
        assert_eq!(client.room(), 0, "a megabyte waits to be written");
        written(&mut client, &mut memory);
        assert_eq!(client.room(), 1);
        for _ in 0..60 {
            let seq = client.open_slot(1);
            client
                .finish(seq, 1, &Tail::new(b"END\r\n"), &mut memory)
                .unwrap();
        }
        written(&mut client, &mut memory);
        assert_eq!(client.room(), DUE_MAX);
    }

    #[test]
    fn a_client_is_small() {
        assert!(size_of::<Client>() <= 240, "{}", size_of::<Client>());
    }
}
