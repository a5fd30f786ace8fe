//! Room: the keys whose writes a server missed, or may have carried out without anybody hearing of it.
//!
//! While a server is away its journal notes what it misses; on its return those keys are deleted there, and the rest of
//! its memory can be kept. The journal is bounded: over the limit it forgets all, and the server is flushed instead.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, DefaultHasher};

use super::sabotage::{is, Sabotage};
use crate::proto::meta::encode_base64;

/// A key as it stands in a request, and whether it is written in base64 there.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct NotedKey {
    /// First byte: 1 for base64, else 0. One allocation per key is enough.
    bytes: Box<[u8]>,
}

impl NotedKey {
    /// Notes `key`; `base64`: it goes with the flag `b`.
    pub fn new(key: &[u8], base64: bool) -> NotedKey {
        let mut bytes = Vec::with_capacity(key.len() + 1);
        bytes.push(u8::from(base64));
        bytes.extend_from_slice(key);
        NotedKey {
            bytes: bytes.into_boxed_slice(),
        }
    }

    /// The same for a key as a server holds it: in base64 if it cannot stand in a request otherwise.
    pub fn listed(key: &[u8]) -> NotedKey {
        if key.iter().all(|&byte| byte > b' ' && byte != 127) {
            return NotedKey::new(key, false);
        }
        let mut text = Vec::new();
        encode_base64(key, &mut text);
        NotedKey::new(&text, true)
    }

    /// The key as it goes over the wire.
    pub fn key(&self) -> &[u8] {
        &self.bytes[1..]
    }

    /// Whether it goes with the flag `b`.
    pub fn is_base64(&self) -> bool {
        self.bytes[0] == 1
    }
}

/// A fixed hash: the order of a journal must be the same in every run of the simulator.
type Keys = HashSet<NotedKey, BuildHasherDefault<DefaultHasher>>;

/// What one server missed.
#[derive(Debug, Default)]
pub struct Journal {
    keys: Keys,
    limit: usize,
    overflowed: bool,
    flushed: bool,
    /// The server missed more, of which another proxy knows.
    partial: bool,
}

impl Journal {
    /// An empty journal for at most `limit` keys.
    pub fn new(limit: usize) -> Journal {
        Journal {
            limit,
            ..Journal::default()
        }
    }

    /// Sets another limit; it holds for the keys that follow.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// Notes a key.
    pub fn note(&mut self, key: NotedKey) {
        if self.overflowed {
            return;
        }
        self.keys.insert(key);
        if self.keys.len() > self.limit {
            if is(Sabotage::OverflowUnnoticed) {
                self.keys.clear();
                return;
            }
            self.forget();
        }
    }

    /// Notes that everything was flushed.
    pub fn note_flush(&mut self) {
        self.flushed = true;
        self.keys = Keys::default();
    }

    /// The journal does not tell all any more.
    pub fn forget(&mut self) {
        self.overflowed = true;
        self.keys = Keys::default();
    }

    /// Another proxy knows of more: so long as the server's stamp is not that one's, the journal does not tell all.
    pub fn note_others(&mut self) {
        if self.is_empty() {
            self.partial = true;
        } else {
            self.forget();
        }
    }

    /// Whether deleting its keys makes up for everything missed.
    pub fn is_complete(&self) -> bool {
        !self.overflowed && !self.flushed && !self.partial
    }

    /// How many keys it holds.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// True when nothing was missed that this proxy knows of.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty() && !self.overflowed && !self.flushed
    }

    /// Takes up to `count` keys out.
    pub fn take(&mut self, count: usize) -> Vec<NotedKey> {
        let taken: Vec<NotedKey> = self.keys.iter().take(count).cloned().collect();
        for key in &taken {
            self.keys.remove(key);
        }
        // A set does not shrink by itself, and walking it costs its capacity.
        if self.keys.capacity() > 64 && self.keys.len() < self.keys.capacity() / 4 {
            self.keys.shrink_to_fit();
        }
        taken
    }

    /// Begins anew.
    pub fn clear(&mut self) {
        *self = Journal::new(self.limit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn over_its_limit_it_says_so() {
        let mut journal = Journal::new(2);
        assert!(journal.is_empty());
        journal.note(NotedKey::new(b"a", false));
        journal.note(NotedKey::new(b"a", false));
        journal.note(NotedKey::new(b"a", true));
        assert_eq!((journal.len(), journal.is_complete()), (2, true));
        journal.note(NotedKey::new(b"b", false));
        assert_eq!((journal.len(), journal.is_complete()), (0, false));
        journal.clear();
        assert!(journal.is_empty());
    }

    #[test]
    fn what_others_know_is_not_in_it() {
        let mut journal = Journal::new(2);
        journal.note_others();
        assert!(journal.is_empty() && !journal.is_complete());
        journal.note(NotedKey::new(b"a", false));
        assert!(!journal.is_empty() && !journal.is_complete());
        journal.note_others();
        assert_eq!((journal.len(), journal.is_empty()), (0, false));
    }

    #[test]
    fn keys_are_taken_in_batches() {
        let mut journal = Journal::new(1000);
        for n in 0..250 {
            journal.note(NotedKey::new(format!("key{n}").as_bytes(), false));
        }
        let mut all = Vec::new();
        while !journal.is_empty() {
            all.extend(journal.take(100));
        }
        all.sort_by(|a, b| a.key().cmp(b.key()));
        all.dedup();
        assert_eq!(all.len(), 250);
    }
}
