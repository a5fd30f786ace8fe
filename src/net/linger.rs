//! Connections that are over for magent but not yet for the client. Closing a socket with unread bytes sends a
//! reset, and a reset makes the client's kernel throw away the last reply (`SERVER_ERROR too many open connections`,
//! say). So the write side is shut down, and what still comes is read and thrown away until the client closes too,
//! or half a second has passed, or too many of them wait.

use std::collections::VecDeque;
use std::io::{self, Read};

use super::stream::Stream;
use crate::time::{Span, Time};

/// Most connections that linger; the oldest gives way. Part of the descriptors that are asked for at the start.
pub const LINGER_MAX: usize = 128;

const PATIENCE: Span = Span::from_millis(500);
/// They are not in the poll: looking at each so often is cheap enough.
const INTERVAL: Span = Span::from_millis(20);
/// Most reads of one connection each time, or a client that sends without end would hold the loop up.
const READS_MAX: usize = 8;

/// The connections that linger.
pub(super) struct Lingering {
    most: usize,
    waiting: VecDeque<(Stream, Time)>,
    next: Time,
}

impl Lingering {
    /// None yet, and never more than `most`.
    pub fn new(most: usize) -> Lingering {
        Lingering {
            most,
            waiting: VecDeque::new(),
            next: Time(0),
        }
    }

    /// Says goodbye; what was written before still arrives.
    pub fn put(&mut self, stream: Stream, now: Time) {
        stream.finish();
        if self.waiting.is_empty() {
            self.next = now + INTERVAL;
        }
        if self.waiting.len() >= self.most {
            self.waiting.pop_front();
        }
        self.waiting.push_back((stream, now + PATIENCE));
    }

    /// When [`Lingering::sweep`] is due.
    pub fn next_timeout(&self) -> Option<Time> {
        (!self.waiting.is_empty()).then_some(self.next)
    }

    /// Lets go of those that are done. True when any was: descriptors are free again.
    pub fn sweep(&mut self, scratch: &mut [u8], now: Time) -> bool {
        if self.waiting.is_empty() || now < self.next {
            return false;
        }
        self.next = now + INTERVAL;
        let before = self.waiting.len();
        self.waiting
            .retain_mut(|(stream, until)| now < *until && !is_over(stream, scratch));
        self.waiting.len() < before
    }
}

fn is_over(stream: &mut Stream, scratch: &mut [u8]) -> bool {
    for _ in 0..READS_MAX {
        match stream.read(scratch) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return error.kind() != io::ErrorKind::WouldBlock,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use mio::net::UnixStream;
    use std::io::Write;

    #[test]
    fn waits_for_the_client_but_not_for_ever() {
        let mut lingering = Lingering::new(LINGER_MAX);
        let mut scratch = [0; 64];
        let start = Time(1_000_000);
        assert_eq!(lingering.next_timeout(), None);
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let (silent, _kept) = UnixStream::pair().unwrap();
        lingering.put(Stream::Unix(ours), start);
        lingering.put(Stream::Unix(silent), start);
        assert_eq!(lingering.next_timeout(), Some(start + INTERVAL));

        theirs.write_all(b"more").unwrap();
        assert!(!lingering.sweep(&mut scratch, start + INTERVAL));
        assert_eq!(theirs.read(&mut scratch).unwrap(), 0, "an orderly end");
        drop(theirs);
        assert!(lingering.sweep(&mut scratch, start + INTERVAL + INTERVAL));
        assert_eq!(lingering.waiting.len(), 1);
        assert!(lingering.sweep(&mut scratch, start + PATIENCE));
        assert_eq!(lingering.next_timeout(), None);
    }

    #[test]
    fn the_oldest_gives_way() {
        let mut lingering = Lingering::new(LINGER_MAX);
        let mut others = Vec::new();
        for _ in 0..LINGER_MAX + 1 {
            let (ours, theirs) = UnixStream::pair().unwrap();
            lingering.put(Stream::Unix(ours), Time(0));
            others.push(theirs);
        }
        assert_eq!(lingering.waiting.len(), LINGER_MAX);
    }
}
