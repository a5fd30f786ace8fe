//! From a key to the index of a server: modula (the default) or ketama (`-k`).

use std::collections::BTreeSet;

use md5::{Digest, Md5};

use super::modern::{self, Drawer};
use super::{djb31, KeyHash};

/// A distribution of keys over servers, fixed once built.
#[derive(Clone, Debug)]
pub struct Ring {
    pub(super) hash: KeyHash,
    pub(super) kind: Kind,
}

#[derive(Clone, Debug)]
pub(super) enum Kind {
    /// `hash % slots.len()`; a server stands there once per weight.
    Modula { slots: Vec<u16> },
    /// Points on a circle of 32 bits, ascending, with the server that owns each.
    Ketama { points: Vec<(u32, u16)> },
    /// `jump(hash, slots.len())`; a server stands there once per weight.
    Jump { slots: Vec<u16> },
    /// Who draws highest; `equal`: all weights are the same.
    Rendezvous { drawers: Vec<Drawer>, equal: bool },
}

impl Ring {
    /// magent 0.6's default: the hash modulo the number of servers. A weight repeats its server; all weights 1 is 0.6's placement.
    pub fn modula(weights: &[u32]) -> Ring {
        let mut slots = Vec::new();
        for (index, &weight) in weights.iter().enumerate() {
            slots.extend((0..weight).map(|_| index as u16));
        }
        Ring {
            hash: KeyHash::Djb31,
            kind: Kind::Modula { slots },
        }
    }

    /// The slots of a modula ring.
    pub(super) fn into_slots(self) -> Vec<u16> {
        match self.kind {
            Kind::Modula { slots } => slots,
            _ => Vec::new(),
        }
    }

    /// magent's ketama: for each server `("ip:port", weight)` points from `md5("ip-port-k")`, four per digest, 500 digests
    /// per server of average weight. Unlike 0.6 the key's hash keeps its 32 bits (0.6 cut it to 8, and nearly all keys
    /// went to one server); this is what the 0.7 fork does. Not compatible with libketama's rings.
    pub fn ketama(servers: &[(String, u32)]) -> Ring {
        let count = servers.len() as f32;
        let total: u32 = servers.iter().map(|server| server.1).sum();
        let mut points = Vec::new();
        for (index, (address, weight)) in servers.iter().enumerate() {
            // The original's arithmetic, in single precision: the rounding decides between 499 and 500.
            let share = (100 * weight) as f32 / (100 * total) as f32;
            let digests = (share * 500.0 * count).floor() as u32;
            let name = point_name(address);
            for k in 0..digests {
                let digest = Md5::digest(format!("{name}-{k}").as_bytes());
                for quarter in digest.chunks_exact(4) {
                    let quarter = [quarter[0], quarter[1], quarter[2], quarter[3]];
                    points.push((u32::from_le_bytes(quarter), index as u16));
                }
            }
        }
        // Stable: of equal points the lower server stays first.
        points.sort_by_key(|point| point.0);
        Ring {
            hash: KeyHash::Md5,
            kind: Kind::Ketama { points },
        }
    }

    /// The index of the server that `key` belongs to.
    pub fn pick(&self, key: &[u8]) -> usize {
        self.pick_hashed(djb31(key), key)
    }

    /// The same, with `djb31(key)` at hand.
    pub fn pick_hashed(&self, djb: u32, key: &[u8]) -> usize {
        let hash = match self.hash {
            KeyHash::Djb31 => djb,
            other => other.of(key),
        };
        match &self.kind {
            Kind::Modula { slots } => usize::from(slots[hash as usize % slots.len()]),
            Kind::Ketama { points } => {
                let at = points.partition_point(|point| point.0 < hash);
                usize::from(points[at % points.len()].1)
            }
            Kind::Jump { slots } => usize::from(slots[modern::jump(hash, slots.len())]),
            Kind::Rendezvous { drawers, equal } => modern::winner(hash, drawers, *equal),
        }
    }

    /// The hash that chooses the server.
    pub fn hash(&self) -> KeyHash {
        self.hash
    }

    /// Which servers of this ring and of `other` some key has in common, as pairs of indices, ascending, each once.
    /// Of rings of two kinds it is said that all meet.
    pub fn meetings(&self, other: &Ring) -> Vec<(u16, u16)> {
        let mut meet = Meetings::new(self.servers(), other.servers());
        // With two hashes a key's place in one ring says nothing of that in the other.
        let others = self.hash != other.hash;
        match (&self.kind, &other.kind) {
            _ if others => self.all_meet(other, &mut meet),
            (Kind::Modula { slots: ours }, Kind::Modula { slots: theirs }) => {
                // Two remainders of one number belong together when they are equal modulo the common divisor.
                let classes = gcd(ours.len(), theirs.len());
                let mut ours_in = vec![Vec::new(); classes];
                for (slot, &server) in ours.iter().enumerate() {
                    let class: &mut Vec<u16> = &mut ours_in[slot % classes];
                    if class.last() != Some(&server) {
                        class.push(server);
                    }
                }
                for (slot, &their) in theirs.iter().enumerate() {
                    for &our in &ours_in[slot % classes] {
                        meet.note(our, their);
                    }
                }
            }
            (Kind::Ketama { points: ours }, Kind::Ketama { points: theirs }) => {
                // The owners change at points only: it is enough to look at each, and behind the last.
                let (mut our, mut their) = (0, 0);
                loop {
                    meet.note(ours[our % ours.len()].1, theirs[their % theirs.len()].1);
                    let next = [ours.get(our), theirs.get(their)];
                    let Some(next) = next.into_iter().flatten().map(|point| point.0).min() else {
                        break;
                    };
                    our += ours[our..]
                        .iter()
                        .take_while(|point| point.0 == next)
                        .count();
                    their += theirs[their..]
                        .iter()
                        .take_while(|point| point.0 == next)
                        .count();
                }
            }
            _ => self.all_meet(other, &mut meet),
        }
        meet.pairs()
    }

    fn all_meet(&self, other: &Ring, meet: &mut Meetings) {
        let theirs: BTreeSet<u16> = other.owners().collect();
        for our in self.owners().collect::<BTreeSet<u16>>() {
            for &their in &theirs {
                meet.note(our, their);
            }
        }
    }

    /// The servers that own anything, with repetitions.
    fn owners(&self) -> impl Iterator<Item = u16> + '_ {
        let (slots, points, drawers): (&[u16], _, _) = match &self.kind {
            Kind::Modula { slots } | Kind::Jump { slots } => (slots, &[][..], 0),
            Kind::Ketama { points } => (&[], &points[..], 0),
            Kind::Rendezvous { drawers, .. } => (&[], &[][..], drawers.len() as u16),
        };
        let of_points = points.iter().map(|point| point.1);
        slots.iter().copied().chain(of_points).chain(0..drawers)
    }

    /// One more than the highest index of a server.
    fn servers(&self) -> usize {
        let highest = self.owners().max();
        highest.map_or(0, |server| usize::from(server) + 1)
    }

    /// Ketama's points, ascending; empty for the others.
    pub fn points(&self) -> &[(u32, u16)] {
        match &self.kind {
            Kind::Ketama { points } => points,
            _ => &[],
        }
    }
}

/// A table of which pairs were seen.
struct Meetings {
    seen: Vec<bool>,
    theirs: usize,
}

impl Meetings {
    fn new(ours: usize, theirs: usize) -> Meetings {
        Meetings {
            seen: vec![false; ours * theirs],
            theirs,
        }
    }

    fn note(&mut self, our: u16, their: u16) {
        self.seen[usize::from(our) * self.theirs + usize::from(their)] = true;
    }

    fn pairs(&self) -> Vec<(u16, u16)> {
        let seen = self.seen.iter().enumerate().filter(|(_, &seen)| seen);
        // Both fit: they were indices of that width.
        seen.map(|(at, _)| ((at / self.theirs) as u16, (at % self.theirs) as u16))
            .collect()
    }
}

fn gcd(a: usize, b: usize) -> usize {
    match b {
        0 => a.max(1),
        _ => gcd(b, a % b),
    }
}

/// `ip:port` as the original names it in its points: `ip-port`.
fn point_name(address: &str) -> String {
    match address.rsplit_once(':') {
        Some((host, port)) => format!("{host}-{port}"),
        None => address.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modula_places_the_published_keys() {
        let ring = Ring::modula(&[1, 1]);
        assert_eq!(ring.pick(b"key1"), 1);
        assert_eq!(ring.pick(b"key2"), 0);
    }

    #[test]
    fn weights_repeat_a_server() {
        let ring = Ring::modula(&[1, 3]);
        let second = (0..1000)
            .filter(|n| ring.pick(format!("key{n}").as_bytes()) == 1)
            .count();
        assert!((650..850).contains(&second), "{second}");
    }

    #[test]
    fn ketama_has_the_original_points() {
        let ring = Ring::ketama(&[("127.0.0.1:20801".into(), 1)]);
        assert_eq!(ring.points().len(), 2000);
        let first: Vec<u32> = ring.points()[..5].iter().map(|point| point.0).collect();
        assert_eq!(first, [3436958, 3657892, 4610826, 7922012, 10438780]);
    }

    #[test]
    fn servers_meet_as_keys_show() {
        let named = |from: u32, count: u32| -> Vec<(String, u32)> {
            let names = (from..from + count).map(|n| (format!("10.0.0.{n}:11211"), n % 3 + 1));
            names.collect()
        };
        let rings = [
            (Ring::modula(&[1, 1]), Ring::modula(&[1, 1])),
            (Ring::modula(&[1, 1, 1]), Ring::modula(&[1, 1])),
            (Ring::modula(&[2, 1, 3]), Ring::modula(&[1, 1, 1, 1])),
            (Ring::modula(&[1]), Ring::modula(&[1, 1, 1])),
            (Ring::ketama(&named(1, 3)), Ring::ketama(&named(7, 2))),
            (Ring::ketama(&named(1, 3)), Ring::modula(&[1])),
        ];
        for (primaries, backups) in rings {
            let mut seen: Vec<(u16, u16)> = (0..20_000)
                .map(|n| format!("key{n}"))
                .map(|key| (primaries.pick(key.as_bytes()), backups.pick(key.as_bytes())))
                .map(|(primary, backup)| (primary as u16, backup as u16))
                .collect();
            seen.sort_unstable();
            seen.dedup();
            assert_eq!(primaries.meetings(&backups), seen);
        }
    }

    #[test]
    fn ketama_weights_scale_the_points() {
        let ring = Ring::ketama(&[("a:1".into(), 1), ("b:1".into(), 3)]);
        let second = ring.points().iter().filter(|point| point.1 == 1).count();
        assert_eq!((ring.points().len(), second), (4000, 3000));
    }
}
