//! What a client that speaks the binary protocol has asked, in the order of its requests, so that the core's replies can be
//! put into its words as they leave.

use std::collections::VecDeque;

use super::sabotage::{is, Sabotage};
use super::slots::{Reply, Slot};
use super::tail::{Found, Tail};
use crate::buf::{Memory, SendQueue};
use crate::proto::binary::reply::{done, encode, value, Reply as Encoded};
use crate::proto::binary::Asked;

/// Room for so many requests is kept when none is under way.
const ROOM_KEPT: usize = 64;

/// One for each slot of the client's, in the same order.
#[derive(Debug, Default)]
pub struct Binary {
    /// What the next slot is for.
    next: Asked,
    asked: VecDeque<Asked>,
}

impl Binary {
    /// The next slot belongs to `asked`.
    pub fn expect(&mut self, asked: Asked) {
        self.next = asked;
    }

    /// A slot was opened.
    pub fn opened(&mut self) {
        self.asked.push_back(std::mem::take(&mut self.next));
    }

    /// A slot was opened of which the client does not hear.
    pub fn opened_silent(&mut self) {
        self.asked.push_back(Asked::default());
    }

    /// The reply `tail` to the request at `place` in the order, ready to go; empty: nothing is said.
    pub fn frame(&self, place: usize, tail: &Tail<'_>, memory: &mut Memory) -> Vec<u8> {
        let place = place + usize::from(is(Sabotage::FrameMisplaced));
        let Some(asked) = self.asked.get(place) else {
            return Vec::new();
        };
        match said(asked, tail) {
            Encoded::Silent => Vec::new(),
            Encoded::One(response) => {
                let mut bytes = memory.buffer();
                bytes.reserve(response.length());
                for piece in response.pieces() {
                    bytes.extend_from_slice(piece);
                }
                bytes
            }
            Encoded::Several(bytes) => bytes,
        }
    }

    /// Sends the reply to the oldest request: that of `slot`, and `tail` behind it.
    pub fn send(&mut self, slot: Slot, tail: &Tail<'_>, out: &mut SendQueue, memory: &mut Memory) {
        let Some(asked) = self.asked.pop_front() else {
            return;
        };
        if self.asked.is_empty() && self.asked.capacity() > ROOM_KEPT {
            self.asked = VecDeque::new();
        }
        if slot.is_silent {
            return;
        }
        match slot.reply {
            Reply::None if slot.is_frames => {}
            Reply::None => push(said(&asked, tail), out, memory),
            Reply::Fixed(line) => push(encode(&asked, line, 0), out, memory),
            Reply::Done(cas) => push(done(&asked, cas), out, memory),
            Reply::Bytes(bytes) if slot.is_frames => {
                memory.give(bytes.len());
                out.push_vec(bytes, memory);
            }
            Reply::Bytes(mut bytes) => {
                memory.give(bytes.len());
                // What begins with `VALUE` is complete but for its `END`, which nobody misses, and would move for it.
                let is_complete = bytes.starts_with(b"VALUE ");
                if !is_complete {
                    tail.show(|pieces| {
                        for piece in pieces {
                            bytes.extend_from_slice(piece);
                        }
                    });
                }
                push(encode(&asked, &bytes, 0), out, memory);
                memory.recycle(bytes);
            }
        }
    }
}

/// The reply that is nothing but `tail`.
fn said<'a>(asked: &'a Asked, tail: &Tail<'a>) -> Encoded<'a> {
    match tail.found() {
        Some(Found { flags, key, data }) => {
            Encoded::One(value(asked, flags, tail.cas(), key, data))
        }
        None if is(Sabotage::QuietFailureHidden) && asked.is_quiet() => Encoded::Silent,
        None if tail.is_done_with_token() => done(asked, tail.cas()),
        None => encode(asked, tail.text, tail.cas()),
    }
}

fn push(reply: Encoded<'_>, out: &mut SendQueue, memory: &mut Memory) {
    match reply {
        Encoded::Silent => {}
        Encoded::One(response) => out.push_all(response.pieces(), memory),
        Encoded::Several(bytes) => out.push_vec(bytes, memory),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(begun: &[u8], tail: &[u8]) -> Vec<u8> {
        let mut memory = Memory::new(usize::MAX);
        let mut binary = Binary::default();
        binary.expect(Asked::default());
        binary.opened();
        memory.take(begun.len());
        let slot = Slot {
            reply: Reply::Bytes(begun.to_vec()),
            ..Slot::default()
        };
        let mut out = SendQueue::default();
        binary.send(slot, &Tail::new(tail), &mut out, &mut memory);
        let mut bytes = Vec::new();
        assert!(out.write_to(&mut bytes, &mut memory).unwrap());
        assert_eq!(memory.used(), 0);
        bytes
    }

    #[test]
    fn the_last_piece_of_a_value_belongs_to_it_whatever_it_says() {
        for (begun, tail) in [
            (&b"VA 7 f0 c9\r\nTHE "[..], &b"END\r\n"[..]),
            (b"VA 7 f0 c9\r\nTHE END", b"\r\n"),
            (b"VA 7 f0 c9\r\n", b"THE END\r\n"),
            (b"VALUE k 0 7 9\r\nTHE END\r\n", b"END\r\n"),
        ] {
            assert!(
                sent(begun, tail).ends_with(b"THE END"),
                "{:?}",
                begun.escape_ascii()
            );
        }
    }
}
