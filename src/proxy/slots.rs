//! The places of a client's replies, in the order of its requests.

use std::collections::VecDeque;

/// Room for so many behind the first is made for a client that has more than one request under way: a kilobyte.
const ROOM_FIRST: usize = 32;

/// Replies in order. The first has a place of its own: a client with one request at a time needs no more memory.
#[derive(Debug, Default)]
pub struct Slots {
    first: Option<Slot>,
    rest: VecDeque<Slot>,
    /// Number of the first.
    first_seq: u32,
}

/// The place of one reply in its client's order.
#[derive(Debug, Default)]
pub struct Slot {
    /// Nothing more belongs to it.
    pub done: bool,
    /// The reply is in frames of the binary protocol already; there may be none.
    pub is_frames: bool,
    /// There is a long value in it.
    pub is_long: bool,
    /// Whatever it is, the client does not hear of it, only waits for it with what it asked behind.
    pub is_silent: bool,
    /// Bytes of it that went out at once.
    pub sent: u32,
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
    /// `HD` with this token.
    Done(u64),
    /// Bytes of a server, or frames for a client of the binary protocol.
    Bytes(Vec<u8>),
}

impl Reply {
    /// How many bytes it holds.
    pub fn len(&self) -> usize {
        match self {
            Reply::Bytes(bytes) => bytes.len(),
            Reply::None | Reply::Fixed(_) | Reply::Done(_) => 0,
        }
    }
}

impl Slots {
    /// How many there are.
    pub fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.rest.len()
    }

    /// True when no reply is due.
    pub fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// Adds a place at the end; its number.
    pub fn open(&mut self) -> u32 {
        let seq = self.first_seq.wrapping_add(self.len() as u32);
        if self.first.is_none() {
            self.first = Some(Slot::default());
        } else {
            if self.rest.capacity() == 0 {
                // At once, or the usual depths would grow it again and again.
                self.rest.reserve_exact(ROOM_FIRST);
            }
            self.rest.push_back(Slot::default());
        }
        seq
    }

    /// Whether `seq` is the first of those there are.
    pub fn is_first(&self, seq: u32) -> bool {
        seq == self.first_seq && self.first.is_some()
    }

    /// How many there are before `seq`.
    pub fn place(&self, seq: u32) -> usize {
        seq.wrapping_sub(self.first_seq) as usize
    }

    /// The place `seq`, if its reply is still due.
    pub fn get(&mut self, seq: u32) -> Option<&mut Slot> {
        match self.place(seq) {
            0 => self.first.as_mut(),
            index => self.rest.get_mut(index - 1),
        }
    }

    /// Takes the first one out.
    pub fn pop(&mut self) -> Option<Slot> {
        let slot = self.first.take()?;
        self.first_seq = self.first_seq.wrapping_add(1);
        self.first = self.rest.pop_front();
        if self.rest.is_empty() && self.first.is_none() {
            // Idle clients hold no memory.
            self.rest = VecDeque::new();
        }
        Some(slot)
    }

    /// Takes the first one out if it is done.
    pub fn pop_done(&mut self) -> Option<Slot> {
        if self.first.as_ref()?.done {
            self.pop()
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_found_by_their_number() {
        let mut slots = Slots {
            first_seq: u32::MAX,
            ..Slots::default()
        };
        let seqs: Vec<u32> = (0..3).map(|_| slots.open()).collect();
        assert_eq!(seqs, [u32::MAX, 0, 1]);
        slots.get(0).unwrap().done = true;
        assert!(slots.is_first(u32::MAX) && slots.pop_done().is_none());
        assert!(slots.pop().is_some_and(|slot| !slot.done));
        assert!(slots.get(u32::MAX).is_none() && slots.is_first(0));
        assert!(slots.pop_done().is_some());
        assert_eq!(slots.len(), 1);
        assert!(slots.pop().is_some() && slots.pop().is_none() && slots.is_empty());
        assert_eq!(slots.open(), 2);
    }
}
