//! Bytes waiting for one client: small ones are gathered, large blocks are passed on whole.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Write};
use std::ops::Range;

use super::{Memory, IOV_MAX};

/// The first buffer grows up to this before a further one is begun.
const GATHER_MAX: usize = 16 * 1024;

/// An ordered queue of bytes. Empty, it owns no buffer.
#[derive(Debug, Default)]
pub struct SendQueue {
    first: Vec<u8>,
    more: VecDeque<Vec<u8>>,
    /// Bytes of `first` that are gone.
    head: usize,
    bytes: usize,
}

impl SendQueue {
    /// Bytes waiting.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// True when nothing waits.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Appends a copy of `bytes`.
    pub fn push(&mut self, bytes: &[u8], memory: &mut Memory) {
        memory.take(bytes.len());
        self.bytes += bytes.len();
        if self.more.is_empty() {
            if self.first.capacity() == 0 {
                self.first = memory.buffer();
            }
            if self.first.len() + bytes.len() <= self.first.capacity().max(GATHER_MAX) {
                memory.grow(&mut self.first, bytes.len());
                self.first.extend_from_slice(bytes);
                return;
            }
        }
        let mut bytes = bytes;
        if let Some(last) = self.more.back_mut() {
            // Filled up, or queues of a client that does not read would be half empty buffers.
            let fits = bytes.len().min(last.capacity() - last.len());
            last.extend_from_slice(&bytes[..fits]);
            bytes = &bytes[fits..];
            if bytes.is_empty() {
                return;
            }
        }
        let mut buffer = Vec::with_capacity(bytes.len().max(GATHER_MAX));
        buffer.extend_from_slice(bytes);
        self.more.push_back(buffer);
    }

    /// Appends a copy of several pieces.
    pub fn push_all<const N: usize>(&mut self, pieces: [&[u8]; N], memory: &mut Memory) {
        let total: usize = pieces.iter().map(|piece| piece.len()).sum();
        if self.first.capacity() == 0 && total > 0 {
            self.first = memory.buffer();
        }
        let room = self.first.capacity() - self.first.len();
        if total <= room && self.more.is_empty() {
            memory.take(total);
            self.bytes += total;
            for piece in pieces.into_iter().filter(|piece| !piece.is_empty()) {
                self.first.extend_from_slice(piece);
            }
            return;
        }
        for piece in pieces {
            if !piece.is_empty() {
                self.push(piece, memory);
            }
        }
    }

    /// Appends `bytes` without copying them, unless they are few.
    pub fn push_vec(&mut self, bytes: Vec<u8>, memory: &mut Memory) {
        if bytes.len() < GATHER_MAX {
            self.push(&bytes, memory);
            memory.recycle(bytes);
        } else {
            memory.take(bytes.len());
            self.bytes += bytes.len();
            if self.first.is_empty() && self.more.is_empty() {
                memory.recycle(std::mem::replace(&mut self.first, bytes));
            } else {
                self.more.push_back(bytes);
            }
        }
    }

    /// Hands out the bytes of `range`, counted from the front, piece by piece.
    pub fn each_of(&self, range: Range<usize>, each: &mut dyn FnMut(&[u8])) {
        let mut at = 0;
        let all = std::iter::once(&self.first[self.head..]).chain(self.more.iter().map(|b| &b[..]));
        for piece in all {
            let from = range.start.clamp(at, at + piece.len()) - at;
            let to = range.end.clamp(at, at + piece.len()) - at;
            if from < to {
                each(&piece[from..to]);
            }
            at += piece.len();
        }
    }

    /// Drops all but the first `count` bytes, which get a buffer of just that size.
    pub fn keep(&mut self, count: usize, memory: &mut Memory) {
        let mut kept = Vec::with_capacity(count.min(self.bytes));
        self.each_of(0..count, &mut |piece| kept.extend_from_slice(piece));
        self.clear(memory);
        memory.take(kept.len());
        self.bytes = kept.len();
        self.first = kept;
    }

    /// Drops everything and gives its memory back.
    pub fn clear(&mut self, memory: &mut Memory) {
        memory.give(self.bytes);
        self.bytes = 0;
        self.head = 0;
        memory.recycle(std::mem::take(&mut self.first));
        for buffer in std::mem::take(&mut self.more) {
            memory.recycle_chunk(buffer);
        }
    }

    /// Writes until empty or until the writer takes no more. True: empty.
    pub fn write_to<W: Write>(&mut self, writer: &mut W, memory: &mut Memory) -> io::Result<bool> {
        while self.bytes > 0 {
            let result = if self.more.is_empty() {
                writer.write(&self.first[self.head..])
            } else {
                self.write_pieces(writer)
            };
            match result {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.advance(count, memory),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    fn write_pieces<W: Write>(&self, writer: &mut W) -> io::Result<usize> {
        let mut pieces = [IoSlice::new(&[]); IOV_MAX];
        let mut count = 0;
        let all = std::iter::once(&self.first[self.head..]).chain(self.more.iter().map(|b| &b[..]));
        for piece in all.filter(|piece| !piece.is_empty()).take(IOV_MAX) {
            pieces[count] = IoSlice::new(piece);
            count += 1;
        }
        writer.write_vectored(&pieces[..count])
    }

    fn advance(&mut self, count: usize, memory: &mut Memory) {
        memory.give(count);
        self.bytes -= count;
        if self.bytes == 0 {
            self.clear(memory);
            return;
        }
        self.head += count;
        while self.head >= self.first.len() {
            self.head -= self.first.len();
            let next = self.more.pop_front().unwrap_or_default();
            memory.recycle(std::mem::replace(&mut self.first, next));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes a few bytes at a time, then blocks.
    struct Narrow {
        taken: Vec<u8>,
        room: usize,
    }

    impl Write for Narrow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = bytes.len().min(self.room).min(700);
            if count == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            self.room -= count;
            self.taken.extend_from_slice(&bytes[..count]);
            Ok(count)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_front_can_be_kept_alone() {
        let mut memory = Memory::new(usize::MAX);
        let mut queue = SendQueue::default();
        queue.push(&[b'a'; 1000], &mut memory);
        queue.push_vec(vec![b'b'; 40_000], &mut memory);
        queue.push_vec(vec![b'c'; 40_000], &mut memory);
        let mut writer = Narrow {
            taken: Vec::new(),
            room: 600,
        };
        assert!(!queue.write_to(&mut writer, &mut memory).unwrap());
        let mut seen = Vec::new();
        queue.each_of(300..40_500, &mut |piece| {
            seen.push((piece[0], piece.len()));
        });
        assert_eq!(seen, [(b'a', 100), (b'b', 40_000), (b'c', 100)]);
        queue.keep(500, &mut memory);
        assert_eq!((queue.len(), memory.used()), (500, 500));
        queue.push(b"d", &mut memory);
        writer.room = 1000;
        assert!(queue.write_to(&mut writer, &mut memory).unwrap());
        let whole = [&[b'a'; 1000][..], &[b'b'; 100], b"d"].concat();
        assert!(writer.taken == whole);
        assert_eq!(memory.used(), 0);
    }

    #[test]
    fn order_is_kept_over_pieces_and_short_writes() {
        let mut memory = Memory::new(usize::MAX);
        let mut queue = SendQueue::default();
        let mut expected = Vec::new();
        for n in 0..300u32 {
            let piece = vec![n as u8; (n as usize * 37) % 900];
            if n % 50 == 0 {
                queue.push_vec(vec![7; 40_000], &mut memory);
                expected.extend(vec![7; 40_000]);
            }
            queue.push(&piece, &mut memory);
            expected.extend(&piece);
        }
        assert_eq!(
            (queue.len(), memory.used()),
            (expected.len(), expected.len())
        );
        let mut writer = Narrow {
            taken: Vec::new(),
            room: 1000,
        };
        while !queue.write_to(&mut writer, &mut memory).unwrap() {
            writer.room = 5000;
        }
        assert!(writer.taken == expected);
        assert_eq!(memory.used(), 0);
        assert_eq!(queue.first.capacity(), 0, "an empty queue owns no buffer");
    }
}
