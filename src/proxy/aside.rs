//! Flow: long values that a client does not read are set aside, and asked for again when it reads.
//!
//! ```text
//!   blocked --STUCK_AFTER, nothing written--> set aside --the rest is written--> asked for once more --> goes on
//!      ^                    |                                                        |
//!      +---- some written --+                                   not the same: the client is cut off
//! ```
//!
//! A value that has begun to come must be taken to its end, as the link belongs to all. So a client that reads nothing would
//! hold it whole. What it gets later is what was there when it asked, byte for byte, or its connection ends.

use std::collections::VecDeque;

use super::client::Client;
use super::ids::ClientId;
use super::long::{Aside, Long};
use super::op::{Data, Op};
use super::passing::Passing;
use super::Proxy;
use crate::buf::Memory;
use crate::proto::request::{self, Parsed};
use crate::proto::response::value_head;
use crate::proto::Verb;
use crate::time::{Span, Time};

/// A client that has taken nothing for so long is stuck. For one that was stuck before it is twice as long each time: asking
/// again costs a server the whole value.
const STUCK_AFTER: Span = Span::from_secs(1);
const DOUBLED_MAX: u8 = 4;

/// Nothing is set aside for a client with fewer bytes in its queue.
const UNSENT_MIN: usize = 64 * 1024;

/// Room for so many is kept in the list when it is empty.
const ROOM_KEPT: usize = 64;

/// Clients that may be stuck, by the time when they are looked at.
#[derive(Debug, Default)]
pub struct Stuck {
    queue: VecDeque<(Time, ClientId)>,
}

impl Stuck {
    /// When the next one is due.
    pub fn due(&self) -> Option<Time> {
        self.queue.front().map(|&(due, _)| due)
    }

    /// Gives room back that nothing needs now.
    pub fn rest(&mut self) {
        if self.queue.is_empty() && self.queue.capacity() > ROOM_KEPT {
            self.queue = VecDeque::new();
        }
    }

    fn list(&mut self, now: Time, id: ClientId) {
        self.queue.push_back((now + STUCK_AFTER, id));
    }

    /// The next one that is due, and whether it is looked at in time.
    fn take_due(&mut self, now: Time) -> Option<(ClientId, bool)> {
        let due = self.due()?;
        if due > now {
            return None;
        }
        let in_time = now.since(due) < STUCK_AFTER;
        self.queue.pop_front().map(|(_, id)| (id, in_time))
    }

    /// So much of a queue with long values has been written, all of it or what the client takes now. True: what was set aside
    /// is to be asked for again.
    pub fn note_written(
        &mut self,
        (id, client): (ClientId, &mut Client),
        (bytes, drained): (usize, bool),
        now: Time,
    ) -> bool {
        let Some(long) = &mut client.long else {
            return false;
        };
        long.note_written(bytes);
        if !drained {
            if !long.listed {
                long.listed = true;
                long.moved = false;
                self.list(now, id);
            }
            return false;
        }
        if !long.listed && long.is_over() {
            client.long = None;
            return false;
        }
        !long.aside.is_empty()
    }
}

impl Long {
    /// Whether nothing has been written for long enough, as of the end of another `STUCK_AFTER`.
    fn is_stuck(&mut self) -> bool {
        if std::mem::take(&mut self.moved) {
            self.quiet = 0;
            return false;
        }
        self.quiet = self.quiet.saturating_add(1);
        self.quiet >= 1 << self.times.min(DOUBLED_MAX)
    }
}

impl Client {
    /// Sets aside what it does not read, if nothing else is due; how many values.
    fn set_aside(&mut self, memory: &mut Memory) -> usize {
        if !self.slots.is_empty() || self.out.len() < UNSENT_MIN {
            return 0;
        }
        let Some(long) = &mut self.long else {
            return 0;
        };
        let values = long.set_aside(&mut self.out, memory);
        if values > 0 {
            long.times = long.times.saturating_add(1);
            long.quiet = 0;
        }
        values
    }

    /// The value that was set aside and is to be asked for now, as all before it is written: the place of the reply, and its first
    /// line or how it was asked for.
    fn begin_again(&mut self, memory: &mut Memory) -> Option<(u32, Vec<u8>)> {
        if !self.slots.is_empty() || !self.out.is_empty() {
            return None;
        }
        let long = self.long.as_mut()?;
        let Aside {
            head,
            question,
            sent,
            proof,
        } = long.take_aside(memory)?;
        let line = if question.is_empty() {
            head.clone()
        } else {
            question.clone()
        };
        long.passing = Some(Passing {
            at: long.end_of(0) - sent as i64,
            sent,
            again: sent,
            head,
            question,
            check: Some(Box::new(proof.begin())),
        });
        Some((self.open_slot(1), line))
    }
}

impl Proxy {
    /// Looks at the clients that were listed a while ago, until something was set aside for one: that takes its time.
    pub(super) fn look_at_stuck(&mut self) {
        while let Some((id, in_time)) = self.stuck.take_due(self.now) {
            let Some(client) = self.clients.get_mut(id.index as usize) else {
                continue;
            };
            let Some(long) = &mut client.long else {
                continue;
            };
            if client.generation != id.generation {
                continue;
            }
            if client.out.is_empty() {
                long.listed = false;
                if long.is_over() {
                    client.long = None;
                }
                continue;
            }
            // If it is late, the proxy may have been stopped itself, and not the client.
            if !in_time || !long.is_stuck() {
                self.stuck.list(self.now, id);
                continue;
            }
            let values = client.set_aside(&mut self.memory);
            if values == 0 {
                // Its last reply may be on its way.
                self.stuck.list(self.now, id);
                continue;
            }
            if let Some(long) = &mut client.long {
                long.listed = false;
            }
            self.counters.set_aside += values as u64;
            return;
        }
    }

    /// Asks for the next value that was set aside, if it is time to. False: it is not.
    pub(super) fn ask_again(&mut self, id: ClientId) -> bool {
        let Some(client) = self.clients.get_mut(id.index as usize) else {
            return false;
        };
        if client.generation != id.generation {
            return false;
        }
        let Some((seq, line)) = client.begin_again(&mut self.memory) else {
            return false;
        };
        let Some(head) = value_head(line.trim_ascii_end()) else {
            self.ask_meta_again(id, seq, &line);
            return true;
        };
        let verb = if head.cas.is_some() {
            Verb::Gets
        } else {
            Verb::Get
        };
        let op = Op {
            line: &line,
            key: head.key,
            keys_end: head.key.end,
            // What stands behind the value was kept.
            last: false,
            route: self.routes.of(head.key.of(&line)),
            ..Op::of_keys(id, seq, verb, 0, 1)
        };
        self.dispatch(&op);
        true
    }

    /// Whether a value that was set aside is asked for again in this place.
    pub(super) fn is_resumed(&self, id: ClientId, seq: u32) -> bool {
        self.client(id).is_some_and(|client| client.is_resumed(seq))
    }

    fn ask_meta_again(&mut self, id: ClientId, seq: u32, line: &[u8]) {
        let Parsed::Request(request) = request::parse(line, self.explicit_cas) else {
            return self.cut_off(id);
        };
        let mut op = Op::new(id, seq, &request, Data::None);
        op.route = self.route_of(&op);
        self.dispatch(&op);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::tail::Tail;

    fn value(key: &str, len: usize) -> Vec<u8> {
        let data = (0..len).map(|n| (n * 31 + n / 251) as u8);
        let head = format!("VALUE {key} 0 {len}\r\n").into_bytes();
        head.into_iter().chain(data).chain(*b"\r\n").collect()
    }

    fn passed(client: &mut Client, seq: u32, reply: &[u8], memory: &mut Memory) -> bool {
        let head = reply.iter().position(|&byte| byte == b'\n').unwrap() + 1;
        let mut left = reply.len();
        [&reply[..head], &reply[head..]]
            .iter()
            .flat_map(|part| part.chunks(40_000))
            .all(|piece| {
                let fits = client.pass(seq, piece, left, memory).is_ok();
                left -= piece.len();
                fits
            })
    }

    fn finish(client: &mut Client, seq: u32, end: &[u8], memory: &mut Memory) -> bool {
        client.finish(seq, 1, &Tail::new(end), memory).is_ok()
    }

    /// Writes `count` bytes, as to a client that takes no more.
    fn take(client: &mut Client, count: usize, memory: &mut Memory) -> Vec<u8> {
        struct Room(Vec<u8>, usize);
        impl std::io::Write for Room {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                let count = bytes.len().min(self.1 - self.0.len());
                if count == 0 {
                    return Err(std::io::ErrorKind::WouldBlock.into());
                }
                self.0.extend_from_slice(&bytes[..count]);
                Ok(count)
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let mut room = Room(Vec::new(), count);
        client.out.write_to(&mut room, memory).unwrap();
        let long = client.long.as_mut();
        long.into_iter()
            .for_each(|long| long.note_written(room.0.len()));
        room.0
    }

    /// What is set aside is asked for again, part by part, and put together with what stayed.
    #[test]
    fn what_was_set_aside_comes_back_in_its_place() {
        let (first, second) = (value("a", 300_000), value("b", 200_000));
        for count in [0, 5, 100_000, 290_000, 299_999, 300_500] {
            let mut memory = Memory::new(usize::MAX);
            let mut client = Client::new(1, Time(0), 0);
            let seqs = [0; 4].map(|_| client.open_slot(1));
            // The second stands ready before the first has come.
            assert!(finish(&mut client, seqs[2], b"END\r\n", &mut memory));
            assert!(passed(&mut client, seqs[1], &second, &mut memory));
            assert!(finish(&mut client, seqs[1], b"END\r\n", &mut memory));
            assert!(passed(&mut client, seqs[0], &first, &mut memory));
            let mut got = take(&mut client, count, &mut memory);
            assert_eq!(client.set_aside(&mut memory), 0, "a reply is due");
            assert!(finish(&mut client, seqs[0], b"END\r\n", &mut memory));
            assert!(finish(&mut client, seqs[3], b"last\r\n", &mut memory));
            let whole = [&first[..], b"END\r\n", &second, b"END\r\nEND\r\nlast\r\n"].concat();
            let values = client.set_aside(&mut memory);
            assert!(values >= 1 && client.has_aside() && client.room() == 0);
            assert!(memory.used() < UNSENT_MIN, "{} of {count}", memory.used());
            while client.has_aside() || !client.out.is_empty() {
                got.extend(take(&mut client, usize::MAX, &mut memory));
                if let Some((seq, head)) = client.begin_again(&mut memory) {
                    assert!(client.is_resumed(seq));
                    let reply = if head == first[..head.len()] {
                        &first
                    } else {
                        &second
                    };
                    assert!(passed(&mut client, seq, reply, &mut memory));
                    // It does not read this time, either.
                    got.extend(take(&mut client, 7000, &mut memory));
                    assert!(finish(&mut client, seq, b"", &mut memory));
                    client.set_aside(&mut memory);
                    assert!(memory.used() < UNSENT_MIN, "{} of {count}", memory.used());
                }
            }
            assert!(got == whole, "{count}");
            assert!(client.is_settled());
            client.release(&mut memory);
            assert_eq!(memory.used(), 0);
        }
    }

    #[test]
    fn long_values_of_a_list_are_found_among_short_ones() {
        let blocks = [
            value("a", 10),
            value("b", 80_000),
            value("c", 10),
            value("d", 70_000),
        ];
        let reply = [blocks.concat(), b"END\r\n".to_vec()].concat();
        for (first, gathered) in [(true, true), (false, true), (true, false), (false, false)] {
            let mut memory = Memory::new(usize::MAX);
            let mut client = Client::new(1, Time(0), 0);
            let before = (!first).then(|| client.open_slot(1));
            let seq = client.open_slot(4);
            if gathered {
                client.put_together(seq, blocks.iter().map(Vec::as_slice), &mut memory);
            } else {
                for block in &blocks {
                    client.extend(seq, block, block.len(), &mut memory);
                }
            }
            client
                .finish(seq, 4, &Tail::new(b"END\r\n"), &mut memory)
                .unwrap();
            if let Some(before) = before {
                assert!(finish(&mut client, before, b"", &mut memory));
            }
            assert_eq!(client.set_aside(&mut memory), 2);
            let mut got = take(&mut client, usize::MAX, &mut memory);
            for block in [&blocks[1], &blocks[3]] {
                let (seq, head) = client.begin_again(&mut memory).unwrap();
                assert!(block.starts_with(&head));
                assert!(passed(&mut client, seq, block, &mut memory));
                assert!(finish(&mut client, seq, b"", &mut memory));
                got.extend(take(&mut client, usize::MAX, &mut memory));
            }
            assert!(got == reply && client.is_settled());
            assert_eq!(memory.used(), 0);
        }
    }

    #[test]
    fn what_is_not_the_same_is_never_completed() {
        let old = value("a", 300_000);
        let mut others = [old.clone(), old.clone(), value("a", 100_000), Vec::new()];
        others[0][150_000] ^= 1;
        // Of the other flags.
        others[1][8] ^= 1;
        for other in others {
            let mut memory = Memory::new(usize::MAX);
            let mut client = Client::new(1, Time(0), 0);
            let seq = client.open_slot(1);
            passed(&mut client, seq, &old, &mut memory);
            finish(&mut client, seq, b"END\r\n", &mut memory);
            assert_eq!(client.set_aside(&mut memory), 1);
            let mut got = take(&mut client, usize::MAX, &mut memory);
            let (seq, _) = client.begin_again(&mut memory).unwrap();
            let fits = other.is_empty() || passed(&mut client, seq, &other, &mut memory);
            assert!(!fits || !finish(&mut client, seq, b"", &mut memory));
            got.extend(take(&mut client, usize::MAX, &mut memory));
            assert!(got.len() < old.len());
            client.release(&mut memory);
            assert_eq!(memory.used(), 0);
        }
    }

    #[test]
    fn it_goes_on_from_another_copy_if_that_one_has_the_same() {
        let old = value("a", 300_000);
        for same in [true, false] {
            let mut memory = Memory::new(usize::MAX);
            let mut client = Client::new(1, Time(0), 0);
            let seq = client.open_slot(1);
            passed(&mut client, seq, &old, &mut memory);
            finish(&mut client, seq, b"END\r\n", &mut memory);
            client.set_aside(&mut memory);
            let mut got = take(&mut client, usize::MAX, &mut memory);
            let (seq, _) = client.begin_again(&mut memory).unwrap();
            assert!(passed(&mut client, seq, &old[..200_000], &mut memory));
            client.discard(seq, &mut memory);
            let mut copy = old.clone();
            copy[250_000] ^= u8::from(!same);
            let fits = passed(&mut client, seq, &copy, &mut memory);
            assert_eq!(fits, same);
            if same {
                assert!(finish(&mut client, seq, b"", &mut memory));
                got.extend(take(&mut client, usize::MAX, &mut memory));
                assert!(got == [&old[..], b"END\r\n"].concat());
            }
            client.release(&mut memory);
            assert_eq!(memory.used(), 0);
        }
    }

    #[test]
    fn patience_grows_with_each_time() {
        let mut long = Long::default();
        let mut waits = |times| {
            long.times = times;
            long.moved = true;
            (1..).find(|_| long.is_stuck()).unwrap()
        };
        assert_eq!([0, 1, 2, 9].map(&mut waits), [2, 3, 5, 17]);
    }
}
