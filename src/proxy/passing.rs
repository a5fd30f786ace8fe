//! A long reply that goes to its client as it comes, and goes on from another copy when its server is lost.

use super::client::{Client, Reply};
use super::sabotage::{is, Sabotage};
use crate::buf::Memory;

/// The reply to a read of one key goes to the client as it comes when it is longer than this: holding it back until it is
/// complete would cost memory and, by the time it leaves, the cache. Shorter ones can begin anew unseen.
const PASS_MIN: usize = 64 * 1024;

/// A long reply whose first part has gone to the client's queue already.
#[derive(Debug)]
pub struct Passing {
    /// Bytes that have gone.
    pub sent: usize,
    /// The reply has begun anew, from another copy: so many bytes of it have gone before.
    pub again: usize,
    /// Its first line, by which another copy's answer is known to be the same.
    pub head: Vec<u8>,
}

/// What another copy says now does not go on from what the client has been sent: it can only be cut off.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mismatch;

impl Passing {
    /// Compares what another copy says once more with what has gone out. The data behind the first line need no look: copies
    /// are equal, and the caller has seen to it that no write has passed.
    pub fn check(&self, bytes: &[u8]) -> Result<(), Mismatch> {
        let at = self.sent - self.again;
        let head = self.head.get(at..).unwrap_or_default();
        let count = head.len().min(bytes.len());
        if head[..count] == bytes[..count] || is(Sabotage::PassingUnchecked) {
            Ok(())
        } else {
            Err(Mismatch)
        }
    }
}

impl Client {
    /// Appends to the reply of `seq`, a read of one key. `expected`: how long the whole is going to be. A long one goes to the client as it comes, if it is its turn.
    pub fn pass(
        &mut self,
        seq: u32,
        bytes: &[u8],
        expected: usize,
        memory: &mut Memory,
    ) -> Result<(), Mismatch> {
        let goes_on = self.passing.is_some();
        let is_short = expected < PASS_MIN || self.is_binary();
        if !self.slots.is_first(seq) || (is_short && !goes_on) {
            self.extend(seq, bytes, expected, memory);
            return Ok(());
        }
        if self.passing.is_none() {
            self.begin_passing(seq, bytes, memory);
        }
        let Some(passing) = &mut self.passing else {
            return Ok(());
        };
        if is(Sabotage::PassedTwice) {
            passing.again = 0;
        }
        let known = passing.again.min(bytes.len());
        passing.check(&bytes[..known])?;
        passing.again -= known;
        passing.sent += bytes.len() - known;
        self.out.push(&bytes[known..], memory);
        Ok(())
    }

    /// Whether the next bytes of the reply of `seq` go out as they come, and for the first time.
    pub fn passes(&self, seq: u32) -> bool {
        let again = self
            .passing
            .as_ref()
            .is_none_or(|passing| passing.again > 0);
        !again && self.slots.is_first(seq)
    }

    /// Sends the next bytes of a reply that [`Client::passes`], without copying them.
    pub fn pass_whole(&mut self, bytes: Vec<u8>, memory: &mut Memory) {
        if let Some(passing) = &mut self.passing {
            passing.sent += bytes.len();
            self.out.push_vec(bytes, memory);
        }
    }

    fn begin_passing(&mut self, seq: u32, bytes: &[u8], memory: &mut Memory) {
        let mut sent = 0;
        let mut head = Vec::new();
        if let Some(slot) = self.slots.get(seq) {
            let begun = std::mem::take(&mut slot.reply);
            sent = begun.len();
            if let Reply::Bytes(begun) = &begun {
                head.extend_from_slice(first_line(begun));
            }
            self.send(begun, memory);
        }
        if head.is_empty() {
            head.extend_from_slice(first_line(bytes));
        }
        self.passing = Some(Box::new(Passing {
            sent,
            again: 0,
            head,
        }));
    }

    /// Whether part of the reply of `seq` has gone out already.
    pub fn is_passing(&self, seq: u32) -> bool {
        self.passing.is_some() && self.slots.is_first(seq)
    }
}

/// Up to the first line end, which is included if it is there.
pub fn first_line(bytes: &[u8]) -> &[u8] {
    &bytes[..memchr::memchr(b'\n', bytes).map_or(bytes.len(), |newline| newline + 1)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::tail::Tail;
    use crate::time::Time;

    fn written(client: &mut Client, memory: &mut Memory) -> Vec<u8> {
        let mut out = Vec::new();
        assert!(client.out.write_to(&mut out, memory).unwrap());
        out
    }

    #[test]
    fn a_long_value_goes_out_as_it_comes_and_goes_on_from_another_copy() {
        let mut memory = Memory::new(usize::MAX);
        let mut client = Client::new(1, Time(0), 0);
        let (head, data) = (b"VALUE k 0 100000\r\n", vec![b'x'; 100_000]);
        let earlier = client.open_slot(1);
        let seq = client.open_slot(1);
        client.pass(seq, head, 100_020, &mut memory).unwrap();
        assert!(client.out.is_empty(), "not its turn yet");
        client
            .finish(earlier, 1, &Tail::new(b"END\r\n"), &mut memory)
            .unwrap();
        client
            .pass(seq, &data[..60_000], 100_002, &mut memory)
            .unwrap();
        assert!(client.is_passing(seq));
        let mut out = written(&mut client, &mut memory);
        assert_eq!(out.len(), 5 + head.len() + 60_000);
        // The server dies; another copy answers from the beginning.
        client.replace(seq, Reply::None, &mut memory);
        client.pass(seq, head, 100_020, &mut memory).unwrap();
        client
            .pass(seq, &data[..70_000], 100_002, &mut memory)
            .unwrap();
        client
            .pass(seq, &data[70_000..], 32_002, &mut memory)
            .unwrap();
        client
            .finish(seq, 1, &Tail::new(b"\r\nEND\r\n"), &mut memory)
            .unwrap();
        out.extend(written(&mut client, &mut memory));
        let whole = [b"END\r\n", &head[..], &data[..], b"\r\nEND\r\n"].concat();
        assert!(out == whole);
        assert!(client.is_settled());
        assert_eq!(memory.used(), 0);
    }

    #[test]
    fn chunks_pass_whole_behind_what_was_copied() {
        let mut memory = Memory::new(usize::MAX);
        let mut client = Client::new(1, Time(0), 0);
        let seq = client.open_slot(1);
        assert!(!client.passes(seq), "nothing has gone out yet");
        let head = b"VALUE k 0 100000\r\n";
        client.pass(seq, head, 100_020, &mut memory).unwrap();
        assert!(client.passes(seq) && !client.passes(seq + 1));
        client.pass_whole(vec![b'x'; 50_000], &mut memory);
        client.discard(seq, &mut memory);
        assert!(!client.passes(seq), "it has to be compared first");
        let again = [&head[..], &[b'x'; 50_000]].concat();
        client.pass(seq, &again, 50_002, &mut memory).unwrap();
        assert!(client.passes(seq));
        client.pass_whole(vec![b'x'; 50_000], &mut memory);
        client
            .finish(seq, 1, &Tail::new(b"\r\nEND\r\n"), &mut memory)
            .unwrap();
        let whole = [&head[..], &[b'x'; 100_000], b"\r\nEND\r\n"].concat();
        assert!(written(&mut client, &mut memory) == whole);
        assert_eq!(memory.used(), 0);
    }

    #[test]
    fn another_value_or_none_is_no_continuation() {
        let mut memory = Memory::new(usize::MAX);
        for other in [&b"VALUE k 0 100001\r\nxx"[..], b"VALUE k 7 100000\r\nxx"] {
            let mut client = Client::new(1, Time(0), 0);
            let seq = client.open_slot(1);
            let begun = [&b"VALUE k 0 100000\r\n"[..], &[b'x'; 1000]].concat();
            client.pass(seq, &begun, 100_020, &mut memory).unwrap();
            client.discard(seq, &mut memory);
            let mismatch = client.pass(seq, other, 100_020, &mut memory);
            assert_eq!(mismatch, Err(Mismatch));
            client.discard(seq, &mut memory);
            let missed = client.finish(seq, 1, &Tail::new(b"END\r\n"), &mut memory);
            assert_eq!(missed, Err(Mismatch));
        }
    }
}
