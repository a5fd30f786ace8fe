//! What goes to one server: requests wait here to be sent, and stay until they are answered.
//!
//! A request is named by its place in the stream. While its answer is due, its bytes can be read again, to ask another
//! copy or to mirror an outcome; so nothing else has to keep them. Large data blocks stand beside the log and are shared.
//!
//! ```text
//!   base                 sent                  end
//!    | answered | due ... | to be sent ...      |
//!                  ^ body after this byte (shared)
//! ```

use std::collections::VecDeque;
use std::io::{self, IoSlice, Write};

use super::{Body, Memory, IOV_MAX};

/// Answered bytes are cut off once they are this many.
const COMPACT_MIN: usize = 64 * 1024;

/// An empty log keeps a buffer of at most this size.
const KEEP_MAX: usize = 256 * 1024;

/// And one of this size while nothing happens.
const REST_MAX: usize = 4 * 1024;

/// The stream of requests to one connection.
#[derive(Debug, Default)]
pub struct RequestLog {
    buffer: Vec<u8>,
    /// Place in the stream of `buffer[0]`.
    base: u64,
    /// Place of the first byte that is not sent.
    sent: u64,
    /// Bodies not sent in full: each goes out once the bytes before its place are gone.
    bodies: VecDeque<(u64, Body)>,
    /// Bytes of the first body that are sent.
    body_sent: usize,
    body_bytes: usize,
}

impl RequestLog {
    /// Place in the stream where the next request begins.
    pub fn end(&self) -> u64 {
        self.base + self.buffer.len() as u64
    }

    /// Whether everything up to `end` is sent, a body that stands there included.
    pub fn is_sent(&self, end: u64) -> bool {
        self.sent >= end && self.bodies.front().is_none_or(|body| body.0 > end)
    }

    /// Bytes that wait to be sent.
    pub fn unsent(&self) -> usize {
        (self.end() - self.sent) as usize + self.body_bytes - self.body_sent
    }

    /// Appends to the request that is being written; see [`RequestLog::close_request`].
    pub fn write(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The same with what `write` appends.
    pub fn write_with(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.buffer);
    }

    /// Appends a data block (with its line end) without copying it.
    pub fn write_body(&mut self, body: &Body) {
        self.body_bytes += body.len();
        self.bodies.push_back((self.end(), Body::clone(body)));
    }

    /// Ends the request that began at `start`: its bytes are counted.
    pub fn close_request(&mut self, start: u64, memory: &mut Memory) {
        memory.take((self.end() - start) as usize);
    }

    /// The bytes from `start` to `end`, which must not be released yet.
    pub fn bytes(&self, start: u64, end: u64) -> &[u8] {
        &self.buffer[(start - self.base) as usize..(end - self.base) as usize]
    }

    /// The request from `start` to `end`, the oldest one, is answered.
    pub fn release(&mut self, start: u64, end: u64, memory: &mut Memory) {
        memory.give((end - start) as usize);
        let answered = (end - self.base) as usize;
        if answered == self.buffer.len() && self.sent >= end {
            self.buffer.clear();
            self.base = end;
            if self.buffer.capacity() > KEEP_MAX {
                self.buffer = Vec::new();
            }
        } else if answered > COMPACT_MIN && answered > self.buffer.len() / 2 {
            // Nothing that is not sent is cut, even where a server answers before it was asked.
            let cut = answered.min((self.sent - self.base) as usize);
            self.buffer.drain(..cut);
            self.base += cut as u64;
        }
    }

    /// Gives room back that nothing needs now.
    pub fn rest(&mut self) {
        if self.buffer.is_empty() && self.buffer.capacity() > REST_MAX {
            self.buffer = Vec::new();
        }
    }

    /// Writes until all is sent or the writer takes no more. True: all is sent.
    pub fn write_to<W: Write>(&mut self, writer: &mut W) -> io::Result<bool> {
        while self.unsent() > 0 {
            let result = if self.bodies.is_empty() {
                writer.write(&self.buffer[(self.sent - self.base) as usize..])
            } else {
                self.write_pieces(writer)
            };
            match result {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.advance(count),
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
        let mut at = self.sent;
        let mut skip = self.body_sent;
        for (place, body) in &self.bodies {
            if count + 2 > IOV_MAX {
                return writer.write_vectored(&pieces[..count]);
            }
            if *place > at {
                pieces[count] = IoSlice::new(self.bytes(at, *place));
                count += 1;
                at = *place;
            }
            pieces[count] = IoSlice::new(&body[skip..]);
            count += 1;
            skip = 0;
        }
        if count < IOV_MAX && at < self.end() {
            pieces[count] = IoSlice::new(self.bytes(at, self.end()));
            count += 1;
        }
        writer.write_vectored(&pieces[..count])
    }

    fn advance(&mut self, count: usize) {
        let mut left = count;
        while left > 0 {
            let limit = self.bodies.front().map_or(self.end(), |body| body.0);
            let plain = ((limit - self.sent) as usize).min(left);
            self.sent += plain as u64;
            left -= plain;
            if left == 0 {
                break;
            }
            let Some((_, body)) = self.bodies.front() else {
                break;
            };
            let part = (body.len() - self.body_sent).min(left);
            self.body_sent += part;
            left -= part;
            if self.body_sent == body.len() {
                self.body_bytes -= body.len();
                self.body_sent = 0;
                self.bodies.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Chunks(Vec<u8>, usize);

    impl Write for Chunks {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = bytes.len().min(self.1);
            self.0.extend_from_slice(&bytes[..count]);
            Ok(count)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn bodies_go_out_in_their_place() {
        for step in 1..40 {
            let mut memory = Memory::new(usize::MAX);
            let mut log = RequestLog::default();
            let mut expected = Vec::new();
            let mut requests = Vec::new();
            for n in 0..100u8 {
                let start = log.end();
                log.write(&[b'a' + n % 26; 11]);
                expected.extend([b'a' + n % 26; 11]);
                if n % 3 == 0 {
                    let body = memory.share(vec![b'0' + n % 10; 29]);
                    log.write_body(&body);
                    expected.extend(body.iter());
                }
                log.close_request(start, &mut memory);
                requests.push((start, log.end()));
            }
            assert_eq!(log.unsent(), expected.len());
            let mut out = Chunks(Vec::new(), step);
            assert!(log.write_to(&mut out).unwrap());
            assert!(out.0 == expected, "step {step}");
            assert_eq!(log.bytes(requests[5].0, requests[5].1), [b'f'; 11]);
            for (start, end) in requests {
                log.release(start, end, &mut memory);
            }
            assert_eq!((memory.used(), log.unsent()), (0, 0));
            assert!(log.buffer.is_empty());
        }
    }

    #[test]
    fn answered_bytes_are_cut_off() {
        let mut memory = Memory::new(usize::MAX);
        let mut log = RequestLog::default();
        let mut sink = Chunks(Vec::new(), usize::MAX);
        let first = log.end();
        log.write(&vec![b'x'; COMPACT_MIN + 1]);
        let second = log.end();
        log.write(b"second");
        let end = log.end();
        log.close_request(first, &mut memory);
        assert!(log.write_to(&mut sink).unwrap());
        log.release(first, second, &mut memory);
        assert_eq!(log.buffer, b"second");
        assert_eq!(log.bytes(second, end), b"second");
    }
}
