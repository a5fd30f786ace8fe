//! The keys and values of a workload. A value is a function of its key, so every reply can be
//! checked byte for byte by whoever knows the key: the load generator and the look-alike alike.
//!
//! All values are windows into one random pattern, shifted by one byte from key to key:
//! nothing is computed per request, and a value given to the wrong key never matches.

/// Length of every key: `bench:` and six digits.
pub const KEY_LEN: usize = 12;
const PREFIX: &[u8; 6] = b"bench:";

/// The keys and values of one row.
pub struct Corpus {
    pattern: Vec<u8>,
    names: Vec<[u8; KEY_LEN]>,
    size: usize,
    header_end: Vec<u8>,
}

impl Corpus {
    /// `keys` keys (at most a million) with values of `size` bytes.
    pub fn new(keys: usize, size: usize) -> Corpus {
        assert!((1..=1_000_000).contains(&keys), "a key has six digits");
        let mut random = Random::new(1);
        let mut pattern = Vec::with_capacity(size + keys + 8);
        while pattern.len() < size + keys {
            pattern.extend_from_slice(&random.next().to_le_bytes());
        }
        let names = (0..keys)
            .map(|i| {
                let mut name = [0; KEY_LEN];
                name.copy_from_slice(format!("bench:{i:06}").as_bytes());
                name
            })
            .collect();
        Corpus {
            pattern,
            names,
            size,
            header_end: format!(" 0 {size}\r\n").into_bytes(),
        }
    }

    /// How many keys there are.
    pub fn keys(&self) -> usize {
        self.names.len()
    }

    /// Bytes of each value.
    pub fn size(&self) -> usize {
        self.size
    }

    /// The name of key `index`.
    pub fn key(&self, index: usize) -> &[u8] {
        &self.names[index]
    }

    /// The value of key `index`.
    pub fn value(&self, index: usize) -> &[u8] {
        &self.pattern[index..index + self.size]
    }

    /// What follows the key in a `VALUE` line: flags 0, the length, the line's end.
    pub fn header_end(&self) -> &[u8] {
        &self.header_end
    }

    /// Length of a whole `VALUE` line.
    pub fn header_len(&self) -> usize {
        b"VALUE ".len() + KEY_LEN + self.header_end.len()
    }

    /// Which key a name is, if it is one of ours.
    pub fn index(&self, name: &[u8]) -> Option<usize> {
        if name.len() != KEY_LEN || &name[..6] != PREFIX {
            return None;
        }
        let mut index = 0;
        for &digit in &name[6..] {
            if !digit.is_ascii_digit() {
                return None;
            }
            index = index * 10 + usize::from(digit - b'0');
        }
        (index < self.names.len()).then_some(index)
    }
}

/// splitmix64: the same numbers in every run, and cheap.
pub struct Random(u64);

impl Random {
    /// A sequence that depends on `seed` alone.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit` (which fits in 32 bits), by multiplication instead of division.
    pub fn below(&mut self, limit: usize) -> usize {
        (((self.next() >> 32) * limit as u64) >> 32) as usize
    }
}
