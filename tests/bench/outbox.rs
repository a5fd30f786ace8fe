//! Bytes waiting to be sent on one connection. Small pieces are gathered into one write; large
//! values are sent from where they are, so that a value of 1 MB costs its sender no copy.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, Write};

use crate::corpus::Corpus;

/// Values from this size on are not copied.
const LARGE: usize = 8 * 1024;
/// Pieces given to the kernel at once.
const PIECES: usize = 16;

enum Piece {
    Small(Vec<u8>),
    Value(usize),
}

/// The unsent bytes of one connection.
#[derive(Default)]
pub struct Outbox {
    pieces: VecDeque<Piece>,
    /// How much of the first piece has been sent.
    sent: usize,
    /// A buffer to use again.
    spare: Vec<u8>,
}

impl Outbox {
    /// Nothing to send.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// The buffer that small pieces are appended to.
    pub fn small(&mut self) -> &mut Vec<u8> {
        if !matches!(self.pieces.back(), Some(Piece::Small(_))) {
            let buffer = std::mem::take(&mut self.spare);
            self.pieces.push_back(Piece::Small(buffer));
        }
        match self.pieces.back_mut() {
            Some(Piece::Small(buffer)) => buffer,
            _ => unreachable!("a small piece was appended above"),
        }
    }

    /// Appends the value of a key.
    pub fn value(&mut self, corpus: &Corpus, index: usize) {
        if corpus.size() < LARGE {
            self.small().extend_from_slice(corpus.value(index));
        } else {
            self.pieces.push_back(Piece::Value(index));
        }
    }

    /// Sends as much as the kernel takes. What is left goes when the connection is writable again.
    pub fn flush(&mut self, to: &mut impl Write, corpus: &Corpus) -> io::Result<()> {
        while !self.pieces.is_empty() {
            let written = match self.write_once(to, corpus) {
                Ok(n) => n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            self.take(written, corpus);
        }
        Ok(())
    }

    fn write_once(&self, to: &mut impl Write, corpus: &Corpus) -> io::Result<usize> {
        if let (1, Some(Piece::Small(bytes))) = (self.pieces.len(), self.pieces.front()) {
            return to.write(&bytes[self.sent..]);
        }
        let mut slices = [IoSlice::new(&[]); PIECES];
        let mut skip = self.sent;
        let mut used = 0;
        for (slice, piece) in slices.iter_mut().zip(&self.pieces) {
            *slice = IoSlice::new(&bytes_of(piece, corpus)[skip..]);
            skip = 0;
            used += 1;
        }
        to.write_vectored(&slices[..used])
    }

    fn take(&mut self, mut written: usize, corpus: &Corpus) {
        while let Some(piece) = self.pieces.front() {
            let left = bytes_of(piece, corpus).len() - self.sent;
            if written < left {
                self.sent += written;
                return;
            }
            written -= left;
            self.sent = 0;
            if let Some(Piece::Small(mut buffer)) = self.pieces.pop_front() {
                buffer.clear();
                self.spare = buffer;
            }
        }
    }
}

fn bytes_of<'a>(piece: &'a Piece, corpus: &'a Corpus) -> &'a [u8] {
    match piece {
        Piece::Small(bytes) => bytes,
        Piece::Value(index) => corpus.value(*index),
    }
}
