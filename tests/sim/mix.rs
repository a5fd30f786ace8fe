//! A hash for the search.

use std::hash::{BuildHasherDefault, Hasher};

/// Of more than twice so many bytes only the first and the last are looked at.
const SAMPLE: usize = 128;

/// A quick hash, the same in every run.
#[derive(Default)]
pub struct Mix(u64);

impl Hasher for Mix {
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }

    fn write(&mut self, bytes: &[u8]) {
        if bytes.len() > 2 * SAMPLE {
            // Long values say at their beginning which write they come from.
            self.write_u64(bytes.len() as u64);
            self.write(&bytes[..SAMPLE]);
            return self.write(&bytes[bytes.len() - SAMPLE..]);
        }
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(29) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn write_u32(&mut self, word: u32) {
        self.write_u64(u64::from(word));
    }

    fn write_u128(&mut self, word: u128) {
        self.write_u64(word as u64);
        self.write_u64((word >> 64) as u64);
    }
}

/// The hash of `bytes`.
pub fn of(bytes: &[u8]) -> u64 {
    let mut mix = Mix::default();
    mix.write(bytes);
    mix.finish()
}

pub type Hashed = BuildHasherDefault<Mix>;
