//! Distributions that magent adds to the ones it has inherited.
//!
//! - jump (Lamping and Veach, "A Fast, Minimal Memory, Consistent Hash Algorithm", 2014): servers are numbered in the order
//!   of the file; one more at the end takes its share from all and moves nothing else. Taking one out of the middle moves
//!   much.
//! - rendezvous (Thaler and Ravishankar, "Using name-based mappings to increase hit rates", 1998): each server draws by its
//!   name and the key, the highest wins; any server can be added or taken away and no other key moves.

use super::ring::Kind;
use super::{KeyHash, Ring};

/// A server that draws.
#[derive(Clone, Debug)]
pub(super) struct Drawer {
    name: u64,
    weight: u32,
}

impl Ring {
    /// Jump over the servers, each once per weight.
    pub fn jump(weights: &[u32], hash: KeyHash) -> Ring {
        let slots = Ring::modula(weights).into_slots();
        Ring {
            hash,
            kind: Kind::Jump { slots },
        }
    }

    /// Rendezvous of servers `(name, weight)`.
    pub fn rendezvous(servers: &[(String, u32)], hash: KeyHash) -> Ring {
        let drawers = servers.iter().map(|(name, weight)| Drawer {
            name: fnv1a(name.as_bytes()),
            weight: *weight,
        });
        let equal = servers.windows(2).all(|pair| pair[0].1 == pair[1].1);
        Ring {
            hash,
            kind: Kind::Rendezvous {
                drawers: drawers.collect(),
                equal,
            },
        }
    }
}

/// The number below `count`, 1 or more, that jump gives a hash.
pub(super) fn jump(hash: u32, count: usize) -> usize {
    let mut state = mix(u64::from(hash));
    let (mut at, mut next) = (0, 0);
    while next < count as u64 {
        at = next;
        state = state
            .wrapping_mul(2_862_933_555_777_941_757)
            .wrapping_add(1);
        // In whole numbers, so that it is the same everywhere: (at + 1) * 2^31 / (upper bits + 1).
        next = ((at + 1) << 31) / ((state >> 33) + 1);
    }
    at as usize
}

/// The index of the server that wins a hash.
pub(super) fn winner(hash: u32, drawers: &[Drawer], equal: bool) -> usize {
    let drawn = drawers.iter().map(|drawer| {
        let draw = mix(drawer.name ^ mix(u64::from(hash)));
        match equal {
            true => u128::from(draw),
            // The smallest cost wins; inverted, as the highest does here.
            false => u128::MAX - u128::from(cost(draw)) * (1 << 40) / u128::from(drawer.weight),
        }
    });
    let best = drawn.enumerate().max_by_key(|(_, drawn)| *drawn);
    best.map_or(0, |(index, _)| index)
}

/// `-log2((draw + 1) / 2^64)` in units of 2^-32, by whole numbers alone, so that every machine finds the same winner.
fn cost(draw: u64) -> u64 {
    let draw = draw.max(1);
    let zeros = draw.leading_zeros();
    // Between 1 and 2, in units of 2^-63.
    let mut number = draw << zeros;
    let mut fraction = 0u64;
    for _ in 0..32 {
        let square = u128::from(number) * u128::from(number);
        fraction <<= 1;
        if square >> 127 == 1 {
            fraction |= 1;
            number = (square >> 64) as u64;
        } else {
            number = (square >> 63) as u64;
        }
    }
    ((u64::from(zeros) + 1) << 32) - fraction
}

/// All bits depend on all others (the finalizer of MurmurHash3).
fn mix(mut bits: u64) -> u64 {
    for factor in [0xff51_afd7_ed55_8ccd, 0xc4ce_b9fe_1a85_ec53] {
        bits ^= bits >> 33;
        bits = bits.wrapping_mul(factor);
    }
    bits ^ (bits >> 33)
}

fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(weights: &[u32]) -> Vec<(String, u32)> {
        let named = weights.iter().enumerate();
        named
            .map(|(n, &weight)| (format!("10.0.0.{n}:11211"), weight))
            .collect()
    }

    fn places(ring: &Ring) -> Vec<usize> {
        (0..20_000)
            .map(|n| ring.pick(format!("key:{n}").as_bytes()))
            .collect()
    }

    fn shares(places: &[usize], servers: usize) -> Vec<usize> {
        let count = |server| places.iter().filter(|&&place| place == server).count();
        (0..servers).map(count).collect()
    }

    #[test]
    fn both_are_even_and_follow_the_weights() {
        for hash in [KeyHash::Fnv1ax64, KeyHash::Murmur, KeyHash::Djb31] {
            for weights in [&[1, 1, 1, 1][..], &[1, 2, 5]] {
                let total: u32 = weights.iter().sum();
                for ring in [
                    Ring::jump(weights, hash),
                    Ring::rendezvous(&named(weights), hash),
                ] {
                    let shares = shares(&places(&ring), weights.len());
                    for (share, weight) in shares.iter().zip(weights) {
                        let fair = (20_000 * weight / total) as usize;
                        let range = fair * 93 / 100..=fair * 107 / 100;
                        assert!(range.contains(share), "{hash:?} {weights:?}: {shares:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn one_more_server_moves_its_share_and_nothing_else() {
        let hash = KeyHash::Fnv1ax64;
        let pairs = [
            (Ring::jump(&[1; 4], hash), Ring::jump(&[1; 5], hash)),
            (
                Ring::rendezvous(&named(&[1; 4]), hash),
                Ring::rendezvous(&named(&[1; 5]), hash),
            ),
            (
                Ring::rendezvous(&named(&[1, 2, 3, 4]), hash),
                Ring::rendezvous(&named(&[1, 2, 3, 4, 2]), hash),
            ),
        ];
        for (before, after) in pairs {
            let both = places(&before).into_iter().zip(places(&after));
            let moved: Vec<(usize, usize)> = both.filter(|(old, new)| old != new).collect();
            assert!(moved.iter().all(|(_, new)| *new == 4));
            assert!((3000..4500).contains(&moved.len()), "{}", moved.len());
        }
    }

    #[test]
    fn places_do_not_change_with_versions() {
        let keys = ["a", "key", "user:1", "0123456789"];
        let hash = KeyHash::Fnv1ax64;
        let rings = [
            Ring::jump(&[1; 5], hash),
            Ring::rendezvous(&named(&[1; 5]), hash),
            Ring::rendezvous(&named(&[1, 2, 3, 4, 5]), hash),
        ];
        let found = rings.map(|ring| keys.map(|key| ring.pick(key.as_bytes())));
        assert_eq!(found, [[1, 4, 3, 1], [2, 0, 2, 2], [2, 0, 2, 2]]);
    }

    #[test]
    fn a_cost_is_a_logarithm() {
        for (draw, bits) in [
            (u64::MAX, 0.0),
            (1 << 63, 1.0),
            (3 << 62, 0.415_037_5),
            (1, 64.0),
        ] {
            let found = cost(draw) as f64 / 4_294_967_296.0;
            assert!((found - bits).abs() < 1e-6, "{draw}: {found}");
        }
    }
}
