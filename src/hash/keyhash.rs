//! The hashes of keys that twemproxy knows, bit for bit as its 0.5.0 computes them on x86-64: 32 bits each, with its
//! own deviations from the published algorithms where they have any.

use md5::{Digest, Md5};

use super::djb31;

/// How a key becomes a number.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum KeyHash {
    /// magent's own, see [`djb31`].
    #[default]
    Djb31,
    /// Bob Jenkins's one-at-a-time.
    OneAtATime,
    /// The first four bytes of the digest, little endian.
    Md5,
    /// CRC-16 (polynomial 0x1021) in a register of 32 bits that is never cut.
    Crc16,
    /// Fifteen bits of CRC-32: all of them below any ketama point, so with ketama every key is on one server.
    Crc32,
    /// CRC-32 in full.
    Crc32a,
    /// FNV-1, 64 bits, the lower half.
    Fnv1x64,
    /// FNV-1a, 64 bits, the lower half; twemproxy's default.
    Fnv1ax64,
    /// FNV-1, 32 bits.
    Fnv1x32,
    /// FNV-1a, 32 bits.
    Fnv1ax32,
    /// Paul Hsieh's SuperFastHash.
    Hsieh,
    /// MurmurHash2.
    Murmur,
    /// Bob Jenkins's lookup3.
    Jenkins,
}

/// The names that twemproxy gives its hashes, as its documentation lists them.
pub const KEY_HASHES: &[(&str, KeyHash)] = &[
    ("one_at_a_time", KeyHash::OneAtATime),
    ("md5", KeyHash::Md5),
    ("crc16", KeyHash::Crc16),
    ("crc32", KeyHash::Crc32),
    ("crc32a", KeyHash::Crc32a),
    ("fnv1_64", KeyHash::Fnv1x64),
    ("fnv1a_64", KeyHash::Fnv1ax64),
    ("fnv1_32", KeyHash::Fnv1x32),
    ("fnv1a_32", KeyHash::Fnv1ax32),
    ("hsieh", KeyHash::Hsieh),
    ("murmur", KeyHash::Murmur),
    ("jenkins", KeyHash::Jenkins),
];

impl KeyHash {
    /// The hash of `key`.
    pub fn of(self, key: &[u8]) -> u32 {
        match self {
            KeyHash::Djb31 => djb31(key),
            KeyHash::OneAtATime => one_at_a_time(key),
            KeyHash::Md5 => {
                let digest = Md5::digest(key);
                u32::from_le_bytes([digest[0], digest[1], digest[2], digest[3]])
            }
            KeyHash::Crc16 => crc16(key),
            KeyHash::Crc32 => (crc32(key) >> 16) & 0x7fff,
            KeyHash::Crc32a => crc32(key),
            // Of a product's lower half the upper halves of the factors are no part.
            KeyHash::Fnv1x64 => fnv1(key, 0x8422_2325, 0x0000_01b3),
            KeyHash::Fnv1ax64 => fnv1a(key, 0x8422_2325, 0x0000_01b3),
            KeyHash::Fnv1x32 => fnv1(key, 0x811c_9dc5, 0x0100_0193),
            KeyHash::Fnv1ax32 => fnv1a(key, 0x811c_9dc5, 0x0100_0193),
            KeyHash::Hsieh => hsieh(key),
            KeyHash::Murmur => murmur(key),
            KeyHash::Jenkins => jenkins(key),
        }
    }
}

/// A byte as C's `char` on x86-64: from 0x80 on negative, in 32 bits.
fn signed(byte: u8) -> u32 {
    i32::from(byte as i8) as u32
}

fn one_at_a_time(key: &[u8]) -> u32 {
    let mut hash = 0u32;
    for &byte in key {
        hash = hash.wrapping_add(signed(byte));
        hash = hash.wrapping_add(hash << 10);
        hash ^= hash >> 6;
    }
    hash = hash.wrapping_add(hash << 3);
    hash ^= hash >> 11;
    hash.wrapping_add(hash << 15)
}

fn fnv1(key: &[u8], start: u32, prime: u32) -> u32 {
    key.iter()
        .fold(start, |hash, &byte| hash.wrapping_mul(prime) ^ signed(byte))
}

fn fnv1a(key: &[u8], start: u32, prime: u32) -> u32 {
    key.iter().fold(start, |hash, &byte| {
        (hash ^ signed(byte)).wrapping_mul(prime)
    })
}

const CRC16: [u32; 256] = crc16_table();
const CRC32: [u32; 256] = crc32_table();

const fn crc16_table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut at = 0;
    while at < 256 {
        let mut crc = (at as u32) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = (crc << 1) ^ if crc & 0x8000 != 0 { 0x1021 } else { 0 };
            bit += 1;
        }
        table[at] = crc & 0xffff;
        at += 1;
    }
    table
}

const fn crc32_table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut at = 0;
    while at < 256 {
        let mut crc = at as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = (crc >> 1) ^ if crc & 1 != 0 { 0xedb8_8320 } else { 0 };
            bit += 1;
        }
        table[at] = crc;
        at += 1;
    }
    table
}

fn crc16(key: &[u8]) -> u32 {
    key.iter().fold(0, |crc, &byte| {
        (crc << 8) ^ CRC16[((crc >> 8) as u8 ^ byte) as usize]
    })
}

fn crc32(key: &[u8]) -> u32 {
    !key.iter().fold(u32::MAX, |crc, &byte| {
        (crc >> 8) ^ CRC32[(crc as u8 ^ byte) as usize]
    })
}

fn hsieh(key: &[u8]) -> u32 {
    let pair = |bytes: &[u8]| u32::from(bytes[0]) | u32::from(bytes[1]) << 8;
    let mut hash = 0u32;
    let (words, rest) = key.split_at(key.len() & !3);
    for word in words.chunks_exact(4) {
        hash = hash.wrapping_add(pair(word));
        hash = (hash << 16) ^ ((pair(&word[2..]) << 11) ^ hash);
        hash = hash.wrapping_add(hash >> 11);
    }
    match *rest {
        [_, _, third] => {
            hash = hash.wrapping_add(pair(rest));
            hash ^= hash << 16;
            hash ^= signed(third) << 18;
            hash = hash.wrapping_add(hash >> 11);
        }
        [_, _] => {
            hash = hash.wrapping_add(pair(rest));
            hash ^= hash << 11;
            hash = hash.wrapping_add(hash >> 17);
        }
        [byte] => {
            hash = hash.wrapping_add(u32::from(byte));
            hash ^= hash << 10;
            hash = hash.wrapping_add(hash >> 1);
        }
        _ => {}
    }
    hash ^= hash << 3;
    hash = hash.wrapping_add(hash >> 5);
    hash ^= hash << 4;
    hash = hash.wrapping_add(hash >> 17);
    hash ^= hash << 25;
    hash.wrapping_add(hash >> 6)
}

fn little(bytes: &[u8]) -> u32 {
    let whole = bytes.iter().rev();
    whole.fold(0, |number, &byte| number << 8 | u32::from(byte))
}

fn murmur(key: &[u8]) -> u32 {
    const FACTOR: u32 = 0x5bd1_e995;
    let length = key.len() as u32;
    let mut hash = 0xdead_beef_u32.wrapping_mul(length) ^ length;
    let (words, rest) = key.split_at(key.len() & !3);
    for word in words.chunks_exact(4) {
        let mut mixed = little(word).wrapping_mul(FACTOR);
        mixed ^= mixed >> 24;
        hash = hash.wrapping_mul(FACTOR) ^ mixed.wrapping_mul(FACTOR);
    }
    if !rest.is_empty() {
        hash = (hash ^ little(rest)).wrapping_mul(FACTOR);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(FACTOR);
    hash ^ hash >> 15
}

fn jenkins(key: &[u8]) -> u32 {
    let start = 0xdead_beef_u32
        .wrapping_add(key.len() as u32)
        .wrapping_add(13);
    let (mut a, mut b, mut c) = (start, start, start);
    let mut rest = key;
    while rest.len() > 12 {
        a = a.wrapping_add(little(&rest[..4]));
        b = b.wrapping_add(little(&rest[4..8]));
        c = c.wrapping_add(little(&rest[8..12]));
        rest = &rest[12..];
        for (turn, back) in [(4, 0), (6, 1), (8, 2), (16, 0), (19, 1), (4, 2)] {
            let (x, y, z) = match back {
                0 => (&mut a, &mut c, b),
                1 => (&mut b, &mut a, c),
                _ => (&mut c, &mut b, a),
            };
            *x = x.wrapping_sub(*y) ^ y.rotate_left(turn);
            *y = y.wrapping_add(z);
        }
    }
    if rest.is_empty() {
        return c;
    }
    a = a.wrapping_add(little(&rest[..rest.len().min(4)]));
    b = b.wrapping_add(little(&rest[rest.len().min(4)..rest.len().min(8)]));
    c = c.wrapping_add(little(&rest[rest.len().min(8)..]));
    for (turn, which) in [(14, 0), (11, 1), (25, 2), (16, 0), (4, 1), (14, 2), (24, 0)] {
        let (x, y) = match which {
            0 => (&mut c, b),
            1 => (&mut a, c),
            _ => (&mut b, a),
        };
        *x = (*x ^ y).wrapping_sub(y.rotate_left(turn));
    }
    c
}
