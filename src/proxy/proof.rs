//! What proves that bytes which come once more are the ones that came first.

use std::hash::{BuildHasher, DefaultHasher, Hasher, RandomState};

use super::passing::Mismatch;

/// The hasher gets so many bytes at a time, in whatever pieces they came: only equal calls are sure to have equal outcomes.
const STRIDE: usize = 256;

/// A hash of bytes that were thrown away, with a key of its own, so that nobody can choose other bytes that have it.
#[derive(Clone, Debug)]
pub struct Proof {
    keys: RandomState,
    hash: u64,
    len: usize,
}

impl Proof {
    /// Of the bytes that `pieces` hands out.
    pub fn of(pieces: impl FnOnce(&mut dyn FnMut(&[u8]))) -> Proof {
        let keys = RandomState::new();
        let mut sum = Sum::new(&keys);
        let mut len = 0;
        pieces(&mut |bytes| {
            len += bytes.len();
            sum.add(bytes);
        });
        Proof {
            hash: sum.finish(),
            keys,
            len,
        }
    }

    /// Compares what comes with them.
    pub fn begin(self) -> Check {
        Check {
            sum: Sum::new(&self.keys),
            hash: self.hash,
            left: self.len,
        }
    }
}

/// A comparison under way.
#[derive(Debug)]
pub struct Check {
    sum: Sum,
    hash: u64,
    left: usize,
}

impl Check {
    /// The next bytes. The last of them are refused if not all were the same.
    pub fn add(&mut self, bytes: &[u8]) -> Result<(), Mismatch> {
        self.left = self.left.checked_sub(bytes.len()).ok_or(Mismatch)?;
        self.sum.add(bytes);
        if self.left == 0 && !bytes.is_empty() && self.sum.finish() != self.hash {
            return Err(Mismatch);
        }
        Ok(())
    }

    /// Whether all have come.
    pub fn is_complete(&self) -> bool {
        self.left == 0
    }
}

#[derive(Debug)]
struct Sum {
    hasher: DefaultHasher,
    /// Less than a stride.
    begun: Vec<u8>,
}

impl Sum {
    fn new(keys: &RandomState) -> Sum {
        Sum {
            hasher: keys.build_hasher(),
            begun: Vec::with_capacity(STRIDE),
        }
    }

    fn add(&mut self, mut bytes: &[u8]) {
        if !self.begun.is_empty() {
            let (fills, rest) = bytes.split_at(bytes.len().min(STRIDE - self.begun.len()));
            self.begun.extend_from_slice(fills);
            bytes = rest;
            if self.begun.len() < STRIDE {
                return;
            }
            self.hasher.write(&self.begun);
            self.begun.clear();
        }
        let strides = bytes.chunks_exact(STRIDE);
        self.begun.extend_from_slice(strides.remainder());
        for stride in strides {
            self.hasher.write(stride);
        }
    }

    fn finish(&self) -> u64 {
        let mut hasher = self.hasher.clone();
        hasher.write(&self.begun);
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_bytes_are_known_in_whatever_pieces_they_come() {
        let bytes: Vec<u8> = (0..5000u32).map(|n| (n % 251) as u8).collect();
        for (first, second) in [(1, 7), (255, 256), (256, 1000), (5000, 3), (300, 5000)] {
            let proof = Proof::of(|each| bytes.chunks(first).for_each(each));
            let mut check = proof.clone().begin();
            assert!(bytes.chunks(second).all(|piece| check.add(piece).is_ok()));
            assert!(check.is_complete());
            assert_eq!(check.add(b"x"), Err(Mismatch), "more than there were");
            let mut other = bytes.clone();
            other[3000] ^= 1;
            let mut check = proof.begin();
            let refused = other
                .chunks(second)
                .position(|piece| check.add(piece).is_err());
            assert_eq!(refused, Some(other.len().div_ceil(second) - 1), "the last");
        }
    }
}
