//! What a client that speaks the binary protocol has asked, in the order of its requests, so that the core's replies can be
//! put into its words as they leave.

use std::collections::VecDeque;

use super::slots::Reply;
use crate::buf::{Memory, SendQueue};
use crate::proto::binary::reply::{encode, Reply as Encoded};
use crate::proto::binary::Asked;
use crate::proto::replies;

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

    /// Sends the reply to the oldest request: `reply`, and `tail` behind it.
    pub fn send(&mut self, reply: Reply, tail: &[u8], out: &mut SendQueue, memory: &mut Memory) {
        let Some(asked) = self.asked.pop_front() else {
            return;
        };
        if self.asked.is_empty() && self.asked.capacity() > ROOM_KEPT {
            self.asked = VecDeque::new();
        }
        match reply {
            Reply::None => push(&asked, tail, out, memory),
            Reply::Fixed(line) => push(&asked, line, out, memory),
            Reply::Bytes(mut bytes) => {
                memory.give(bytes.len());
                // A value needs no end, and would move for it.
                if tail != replies::END {
                    bytes.extend_from_slice(tail);
                }
                let text = if bytes.is_empty() { tail } else { &bytes };
                push(&asked, text, out, memory);
                memory.recycle(bytes);
            }
        }
    }
}

fn push(asked: &Asked, text: &[u8], out: &mut SendQueue, memory: &mut Memory) {
    match encode(asked, text) {
        Encoded::Silent => {}
        Encoded::One(response) => {
            out.push(response.head(), memory);
            out.push(response.key(), memory);
            out.push(response.value(), memory);
        }
        Encoded::Several(bytes) => out.push_vec(bytes, memory),
    }
}
