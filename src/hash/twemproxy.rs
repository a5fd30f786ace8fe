//! twemproxy's distributions. Servers go by a name, not by their place in the file: they are sorted by it first, shorter
//! names ahead, then bytewise.

use md5::{Digest, Md5};

use super::ring::Kind;
use super::{KeyHash, Ring};

/// Points on the circle for a server of average weight.
const POINTS: f32 = 160.0;

/// Points that one digest gives.
const POINTS_EACH: f32 = 4.0;

impl Ring {
    /// `distribution: modula`: servers `(name, weight)` in the order of their names, each once per weight.
    pub fn twemproxy_modula(servers: &[(String, u32)], hash: KeyHash) -> Ring {
        let slots = in_order(servers).into_iter().flat_map(|index| {
            let weight = servers[index].1;
            (0..weight).map(move |_| index as u16)
        });
        Ring {
            hash,
            kind: Kind::Modula {
                slots: slots.collect(),
            },
        }
    }

    /// `distribution: ketama`: for each server `(name, weight)` points from `md5("name-n")`, four per digest, 40 digests per
    /// server of average weight. Rounding can cost a server a few points, or with a small weight beside a huge one all.
    pub fn twemproxy_ketama(servers: &[(String, u32)], hash: KeyHash) -> Ring {
        let order = in_order(servers);
        // As there: sums and counts are numbers of 32 bits, everything else single precision.
        let total = servers
            .iter()
            .fold(0u32, |sum, server| sum.wrapping_add(server.1));
        let mut points = Vec::new();
        for index in order {
            let (name, weight) = &servers[index];
            let share = *weight as f32 / total as f32;
            let digests = share * POINTS / POINTS_EACH * servers.len() as f32;
            let digests = ((f64::from(digests) + 1e-10) as f32).floor() as u32;
            for n in 0..digests {
                let digest = Md5::digest(format!("{name}-{n}").as_bytes());
                for quarter in digest.chunks_exact(4) {
                    let quarter = [quarter[0], quarter[1], quarter[2], quarter[3]];
                    points.push((u32::from_le_bytes(quarter), index as u16));
                }
            }
        }
        points.sort_by_key(|point| point.0);
        Ring {
            hash,
            kind: Kind::Ketama { points },
        }
    }
}

/// The indices of `servers` in twemproxy's order.
fn in_order(servers: &[(String, u32)]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..servers.len()).collect();
    order.sort_by_key(|&index| {
        let name = servers[index].0.as_bytes();
        (name.len(), name)
    });
    order
}
