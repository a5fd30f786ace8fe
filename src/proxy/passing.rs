//! A long reply that goes to its client as it comes, and goes on from another copy when its server is lost.

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
        if head[..count] == bytes[..count] {
            Ok(())
        } else {
            Err(Mismatch)
        }
    }
}

/// Up to the first line end, which is included if it is there.
pub fn first_line(bytes: &[u8]) -> &[u8] {
    &bytes[..memchr::memchr(b'\n', bytes).map_or(bytes.len(), |newline| newline + 1)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buf::Memory;
    use crate::proxy::client::{Client, Reply};
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
