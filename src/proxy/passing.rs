//! A long reply that goes to its client as it comes, and goes on from another copy when its server is lost, or after it was set
//! aside.

use super::client::{Client, Reply};
use super::long::long_values;
use super::proof::Check;
use super::sabotage::{is, Sabotage};
use crate::buf::Memory;

/// The reply to a read of one key goes to the client as it comes when it is longer than this: holding it back until it is
/// complete would cost memory and, by the time it leaves, the cache. Shorter ones can begin anew unseen.
pub const PASS_MIN: usize = 64 * 1024;

/// A long reply whose first part has gone to the client's queue already.
#[derive(Debug)]
pub struct Passing {
    /// Where it begins in the queue; see [`Long::end_of`](super::long::Long::end_of).
    pub at: i64,
    /// Bytes that have gone.
    pub sent: usize,
    /// The reply has begun anew, from another copy: so many bytes of it have gone before.
    pub again: usize,
    /// Its first line, by which another copy's answer is known to be the same.
    pub head: Vec<u8>,
    /// How it was asked for, if the first line does not tell.
    pub question: Vec<u8>,
    /// It was set aside: what comes now must be what came then.
    pub check: Option<Box<Check>>,
}

/// What another copy says now does not go on from what the client has been sent: it can only be cut off.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mismatch;

impl Passing {
    /// The next bytes of what has begun anew: how many of them have gone before. The data behind the first line need no look:
    /// copies are equal, and the caller has seen to it that no write has passed, or all of them are compared with what came
    /// first.
    fn skip(&mut self, bytes: &[u8]) -> Result<usize, Mismatch> {
        let at = self.sent - self.again;
        let head = self.head.get(at..).unwrap_or_default();
        let known = self.again.min(bytes.len());
        let count = match self.check {
            Some(_) => bytes.len(),
            None => known,
        };
        let count = count.min(head.len());
        if head[..count] != bytes[..count] && !is(Sabotage::PassingUnchecked) {
            return Err(Mismatch);
        }
        self.again -= known;
        Ok(known)
    }

    /// These bytes go out, for the first time.
    fn send(&mut self, bytes: &[u8]) -> Result<(), Mismatch> {
        if let Some(check) = &mut self.check {
            check.add(bytes)?;
        }
        self.sent += bytes.len();
        Ok(())
    }

    /// Whether it is the answer to `mg`.
    fn is_meta(&self) -> bool {
        self.head.starts_with(b"VA ")
    }

    /// Whether all of it has come that is known to belong to it.
    fn is_complete(&self) -> bool {
        self.again == 0 && self.check.as_ref().is_none_or(|check| check.is_complete())
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
        let goes_on = self.passing().is_some();
        let is_short = expected < PASS_MIN || self.is_binary();
        if !self.slots.is_first(seq) || (is_short && !goes_on) {
            self.extend(seq, bytes, expected, memory);
            return Ok(());
        }
        if !goes_on {
            self.begin_passing(seq, bytes, memory);
        }
        let Some(passing) = self.long.as_mut().and_then(|long| long.passing.as_mut()) else {
            return Ok(());
        };
        if is(Sabotage::PassedTwice) {
            passing.again = 0;
        }
        let known = passing.skip(bytes)?;
        passing.send(&bytes[known..])?;
        self.out.push(&bytes[known..], memory);
        Ok(())
    }

    /// Whether the next bytes of the reply of `seq` go out as they come, and for the first time.
    pub fn passes(&self, seq: u32) -> bool {
        let again = self.passing().is_none_or(|passing| passing.again > 0);
        !again && self.slots.is_first(seq)
    }

    /// Sends the next bytes of a reply that [`Client::passes`], without copying them.
    pub fn pass_whole(&mut self, bytes: Vec<u8>, memory: &mut Memory) -> Result<(), Mismatch> {
        if let Some(passing) = self.long.as_mut().and_then(|long| long.passing.as_mut()) {
            passing.send(&bytes)?;
            self.out.push_vec(bytes, memory);
        }
        Ok(())
    }

    fn begin_passing(&mut self, seq: u32, bytes: &[u8], memory: &mut Memory) {
        let before = self.out.len();
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
        let long = self.long.get_or_insert_default();
        long.passing = Some(Passing {
            at: long.end_of(before),
            sent,
            again: 0,
            head,
            question: Vec::new(),
            check: None,
        });
    }

    /// The first reply is complete but for `tail`: if it was passing, how many bytes it has had.
    pub(super) fn end_passing(&mut self, tail: &[u8]) -> Result<usize, Mismatch> {
        let Some(long) = &mut self.long else {
            return Ok(0);
        };
        let Some(mut passing) = long.passing.take() else {
            return Ok(0);
        };
        let sent = passing.sent;
        if passing.is_meta() {
            // There is no `END`: the tail belongs to the value.
            passing.send(tail)?;
        }
        if !passing.is_complete() {
            return Err(Mismatch);
        }
        long.note(passing);
        Ok(sent)
    }

    /// The reply of `seq` has begun. `question`: the request with its line end. Kept if the answer is going to be the same next time.
    pub(super) fn note_question(&mut self, seq: u32, question: &[u8]) {
        let is_first = self.slots.is_first(seq);
        let passing = self.long.as_mut().and_then(|long| long.passing.as_mut());
        let question = question.trim_ascii_end();
        if let Some(passing) = passing.filter(|_| is_first && is_repeatable(question)) {
            passing.question.clear();
            passing.question.extend_from_slice(question);
        }
    }

    /// Notes the long values in `reply`, which is about to be appended to the queue.
    pub(super) fn note_long(&mut self, reply: &Reply) {
        if let Reply::Bytes(bytes) = reply {
            self.note_long_values(bytes);
        }
    }

    /// See [`Client::note_long`].
    pub(super) fn note_long_values(&mut self, reply: &[u8]) {
        let before = self.out.len();
        for (at, len) in long_values(reply) {
            let head = first_line(&reply[at..]).to_vec();
            let long = self.long.get_or_insert_default();
            long.note_value(long.end_of(before + at), len, head);
        }
    }

    fn passing(&self) -> Option<&Passing> {
        self.long.as_ref()?.passing.as_ref()
    }

    /// Whether part of the reply of `seq` has gone out already.
    pub fn is_passing(&self, seq: u32) -> bool {
        self.passing().is_some() && self.slots.is_first(seq)
    }

    /// Whether the reply of `seq` was set aside, and is asked for once more.
    pub fn is_resumed(&self, seq: u32) -> bool {
        let checked = self
            .passing()
            .is_some_and(|passing| passing.check.is_some());
        checked && self.slots.is_first(seq)
    }
}

/// Whether the first line of the answer to an `mg` says nothing that changes by itself: how long the item lives, and when it
/// was last read.
fn is_repeatable(question: &[u8]) -> bool {
    let mut flags = question.split(|&byte| byte == b' ').skip(2);
    !flags.any(|flag| matches!(flag.first(), Some(b't' | b'h' | b'l')))
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
        client.pass_whole(vec![b'x'; 50_000], &mut memory).unwrap();
        client.discard(seq, &mut memory);
        assert!(!client.passes(seq), "it has to be compared first");
        let again = [&head[..], &[b'x'; 50_000]].concat();
        client.pass(seq, &again, 50_002, &mut memory).unwrap();
        assert!(client.passes(seq));
        client.pass_whole(vec![b'x'; 50_000], &mut memory).unwrap();
        client
            .finish(seq, 1, &Tail::new(b"\r\nEND\r\n"), &mut memory)
            .unwrap();
        let whole = [&head[..], &[b'x'; 100_000], b"\r\nEND\r\n"].concat();
        assert!(written(&mut client, &mut memory) == whole);
        assert_eq!(memory.used(), 0);
    }

    #[test]
    fn answers_that_change_by_themselves_are_not_asked_for_again() {
        for question in [&b"mg k v"[..], b"mg t v f s c k Ohlt q", b"mg dGhs b v"] {
            assert!(is_repeatable(question));
        }
        for question in [&b"mg k v t"[..], b"mg k h v", b"mg k l v"] {
            assert!(!is_repeatable(question));
        }
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
