//! Which server a key belongs to, against vectors taken from magent 0.6 itself: a warm cache stays warm.
//!
//! The vectors are `tests/data/placement.txt`. Ketama is the one with the full 32 bits of the key's hash.

use crate::common;

use magent::hash::{djb31, Ring};
use md5::{Digest, Md5};

struct Vectors {
    keys: Vec<Vec<u8>>,
    djb: Vec<u32>,
    modula: Vec<(usize, Vec<usize>)>,
    ketama: Vec<Ketama>,
}

struct Ketama {
    points: usize,
    md5: String,
    servers: Vec<(String, u32)>,
    places: Vec<usize>,
}

fn hex(text: &str) -> Vec<u8> {
    let pairs = text.as_bytes().chunks(2);
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    pairs.map(byte).collect()
}

fn places(text: &str) -> Vec<usize> {
    text.bytes()
        .map(|digit| usize::from(digit - b'0'))
        .collect()
}

fn vectors() -> Vectors {
    let mut all = Vectors {
        keys: Vec::new(),
        djb: Vec::new(),
        modula: Vec::new(),
        ketama: Vec::new(),
    };
    for line in include_str!("data/placement.txt").lines() {
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["key", key, djb, _] => {
                all.keys.push(hex(key));
                all.djb.push(djb.parse().unwrap());
            }
            ["modula", servers, indices] => {
                all.modula.push((servers.parse().unwrap(), places(indices)));
            }
            ["ketama", points, md5, servers, indices] => all.ketama.push(Ketama {
                points: points.parse().unwrap(),
                md5: md5.to_string(),
                servers: servers
                    .split(',')
                    .map(|server| (server.to_string(), 1))
                    .collect(),
                places: places(indices),
            }),
            _ => assert!(line.is_empty() || line.starts_with('#'), "{line}"),
        }
    }
    assert_eq!(
        (all.keys.len(), all.modula.len(), all.ketama.len()),
        (49, 5, 13)
    );
    assert!(all
        .keys
        .iter()
        .any(|key| key.iter().any(|&byte| byte >= 0x80)));
    all
}

#[test]
fn hashes() {
    let vectors = vectors();
    for (key, &hash) in vectors.keys.iter().zip(&vectors.djb) {
        assert_eq!(djb31(key), hash, "{}", key.escape_ascii());
        // The other tests place their keys with a copy of it.
        assert_eq!(common::djb31(key), hash, "{}", key.escape_ascii());
    }
}

#[test]
fn modula() {
    let vectors = vectors();
    for (servers, expect) in &vectors.modula {
        let ring = Ring::modula(&vec![1; *servers]);
        let got: Vec<_> = vectors.keys.iter().map(|key| ring.pick(key)).collect();
        assert_eq!(&got, expect, "{servers} servers");
    }
}

#[test]
fn modula_over_ten_thousand_keys() {
    let ring = Ring::modula(&[1, 1, 1]);
    let mut counts = [0; 3];
    for n in 0..10_000 {
        counts[ring.pick(format!("key{n}").as_bytes())] += 1;
    }
    assert_eq!(counts, [3000, 3090, 3910]);
}

#[test]
fn modula_with_weights_repeats_a_server() {
    let (plain, weighted) = (Ring::modula(&[1, 1, 1]), Ring::modula(&[2, 1]));
    for key in &vectors().keys {
        let place = if plain.pick(key) < 2 { 0 } else { 1 };
        assert_eq!(weighted.pick(key), place, "{}", key.escape_ascii());
    }
}

#[test]
fn ketama_rings_and_keys() {
    let vectors = vectors();
    for case in &vectors.ketama {
        let ring = Ring::ketama(&case.servers);
        let mut bytes = Vec::new();
        for &(point, server) in ring.points() {
            bytes.extend(point.to_le_bytes());
            bytes.extend(u32::from(server).to_le_bytes());
        }
        let digest = Md5::digest(&bytes);
        let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(ring.points().len(), case.points, "{:?}", case.servers);
        assert_eq!(digest, case.md5, "the points of {:?}", case.servers);
        let got: Vec<_> = vectors.keys.iter().map(|key| ring.pick(key)).collect();
        assert_eq!(got, case.places, "the keys over {:?}", case.servers);
    }
}

#[test]
fn ketama_over_ten_thousand_keys() {
    let servers = [20801, 20802, 20803].map(|port| (format!("127.0.0.1:{port}"), 1));
    let ring = Ring::ketama(&servers);
    let mut counts = [0; 3];
    for n in 0..10_000 {
        counts[ring.pick(format!("key{n}").as_bytes())] += 1;
    }
    assert_eq!(counts, [3435, 3229, 3336]);
}

#[test]
fn ketama_weights_scale_the_points() {
    let ring = Ring::ketama(&[("10.0.0.1:11211".into(), 3), ("10.0.0.2:11211".into(), 1)]);
    let of_first = ring.points().iter().filter(|point| point.1 == 0).count();
    let share = of_first as f64 / ring.points().len() as f64;
    assert!((share - 0.75).abs() < 0.01, "{share}");
    let keys = (0..10_000)
        .filter(|n| ring.pick(format!("key{n}").as_bytes()) == 0)
        .count();
    assert!((6500..8500).contains(&keys), "{keys} of 10,000 keys");
}
