//! Room: what is known of the long values in a client's queue, and of those that were set aside.

use std::collections::VecDeque;

use super::passing::{first_line, Passing, PASS_MIN};
use super::proof::Proof;
use crate::buf::{Memory, SendQueue};
use crate::proto::response::value_head;

/// So much of what waits stays when values are set aside: the client finds something to read when it comes back.
pub const KEPT: usize = 16 * 1024;

/// A value is set aside if so much of it can be thrown away.
const DROP_MIN: usize = 16 * 1024;

/// All that must be known of a client with a long value in its queue.
#[derive(Debug, Default)]
pub struct Long {
    /// The reply that goes out as it comes.
    pub passing: Option<Passing>,
    /// The long values of which something is in the queue, in order. The first has a place of its own: mostly there is one.
    first: Option<Queued>,
    more: VecDeque<Queued>,
    /// So many bytes have left the queue.
    written: i64,
    /// What stands behind the queue, but was set aside.
    pub aside: VecDeque<Piece>,
    /// Stands on the list of those that may be stuck.
    pub listed: bool,
    /// Something was written since.
    pub moved: bool,
    /// How often in a row nothing was.
    pub quiet: u8,
    /// How often values were set aside for it.
    pub times: u8,
}

/// A long value in the queue.
#[derive(Debug)]
struct Queued {
    /// Where it begins: so many bytes behind what left the queue first.
    at: i64,
    /// Its length, first line and line ends included.
    len: usize,
    /// Its first line.
    head: Vec<u8>,
    /// How it was asked for, if that does not tell.
    question: Vec<u8>,
}

/// What was set aside.
#[derive(Debug)]
pub enum Piece {
    /// The end of a value, or all of it.
    Value(Aside),
    /// What stood behind a value.
    Bytes(Vec<u8>),
}

/// A value that has to be asked for again.
#[derive(Debug)]
pub struct Aside {
    /// Its first line.
    pub head: Vec<u8>,
    /// How it was asked for, if that does not tell.
    pub question: Vec<u8>,
    /// So many bytes of it had been kept.
    pub sent: usize,
    /// The rest.
    pub proof: Proof,
}

impl Long {
    /// Where the end of a queue of `len` bytes is.
    pub fn end_of(&self, len: usize) -> i64 {
        self.written + len as i64
    }

    /// A reply has passed into the queue. It is left alone if it is not known how to ask for it once more.
    pub fn note(&mut self, passed: Passing) {
        if passed.head.starts_with(b"VALUE ") || !passed.question.is_empty() {
            self.note_queued(Queued {
                at: passed.at,
                len: passed.sent,
                head: passed.head,
                question: passed.question,
            });
        }
    }

    /// A `VALUE` block of `len` bytes with its first line `head` is in the queue, from `at` on.
    pub fn note_value(&mut self, at: i64, len: usize, head: Vec<u8>) {
        self.note_queued(Queued {
            at,
            len,
            head,
            question: Vec::new(),
        });
    }

    fn note_queued(&mut self, value: Queued) {
        if self.first.is_none() {
            self.first = Some(value);
        } else {
            self.more.push_back(value);
        }
    }

    /// Some bytes have left the queue.
    pub fn note_written(&mut self, bytes: usize) {
        self.written += bytes as i64;
        self.moved |= bytes > 0;
        while let Some(first) = &self.first {
            if first.at + first.len as i64 > self.written {
                break;
            }
            self.first = self.more.pop_front();
        }
    }

    /// Whether nothing has to be known any more, once the queue is empty.
    pub fn is_over(&self) -> bool {
        self.passing.is_none() && self.aside.is_empty()
    }

    /// Takes long values out of the queue `out`, no reply being due behind it; how many.
    pub fn set_aside(&mut self, out: &mut SendQueue, memory: &mut Memory) -> usize {
        let mut cuts = Vec::new();
        let (first, more) = (self.first.take(), std::mem::take(&mut self.more));
        for value in first.into_iter().chain(more) {
            let at = value.at - self.written;
            let end = (at + value.len as i64) as usize;
            let kept = KEPT as i64;
            // The first line stays whole, or goes as a whole.
            let from = if at >= kept {
                at
            } else {
                kept.max(at + value.head.len() as i64)
            };
            let (from, sent) = (from as usize, (from - at) as usize);
            if end >= from + DROP_MIN && end <= out.len() {
                cuts.push((from, end, sent, value));
            }
        }
        let ends = cuts.iter().skip(1).map(|&(from, ..)| from);
        let ends: Vec<usize> = ends.chain([out.len()]).collect();
        let Some(&(keep, ..)) = cuts.first() else {
            return 0;
        };
        let values = cuts.len();
        let mut pieces = VecDeque::with_capacity(2 * values + self.aside.len());
        for ((from, end, sent, value), next) in cuts.into_iter().zip(ends) {
            let proof = Proof::of(|each| out.each_of(from..end, each));
            pieces.push_back(Piece::Value(Aside {
                head: value.head,
                question: value.question,
                sent,
                proof,
            }));
            if next > end {
                let mut bytes = Vec::with_capacity(next - end);
                out.each_of(end..next, &mut |piece: &[u8]| {
                    bytes.extend_from_slice(piece);
                });
                pieces.push_back(Piece::Bytes(bytes));
            }
        }
        memory.take(pieces.iter().map(Piece::len).sum());
        pieces.append(&mut self.aside);
        self.aside = pieces;
        out.keep(keep, memory);
        values
    }

    /// The value to be asked for again, if that is what comes next.
    pub fn take_aside(&mut self, memory: &mut Memory) -> Option<Aside> {
        if !matches!(self.aside.front()?, Piece::Value(_)) {
            return None;
        }
        let piece = self.aside.pop_front()?;
        memory.give(piece.len());
        match piece {
            Piece::Value(value) => Some(value),
            Piece::Bytes(_) => None,
        }
    }

    /// Puts what stands behind a value, now complete, back into the queue.
    pub fn put_back(&mut self, out: &mut SendQueue, memory: &mut Memory) {
        while let Some(Piece::Bytes(bytes)) = self.aside.front_mut() {
            memory.give(bytes.len());
            out.push_vec(std::mem::take(bytes), memory);
            self.aside.pop_front();
        }
    }
}

impl Piece {
    /// Bytes that it holds.
    pub fn len(&self) -> usize {
        match self {
            Piece::Value(value) => value.head.len() + value.question.len(),
            Piece::Bytes(bytes) => bytes.len(),
        }
    }
}

/// Where the long values among the `VALUE` blocks at the front of `reply` begin, and how long they are.
pub fn long_values(reply: &[u8]) -> impl Iterator<Item = (usize, usize)> + '_ {
    let mut at = 0;
    let blocks = std::iter::from_fn(move || {
        let line = first_line(reply.get(at..)?);
        let head = value_head(line.trim_ascii_end())?;
        let begin = at;
        at += line.len() + head.data_len + 2;
        Some((begin, at - begin))
    });
    blocks.filter(|&(_, len)| len >= PASS_MIN)
}
