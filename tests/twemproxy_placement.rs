//! Which server a key belongs to in a pool that came from twemproxy, against vectors taken from twemproxy itself: a warm
//! cache stays warm. The vectors are `tests/data/twemproxy.txt`.

use std::collections::BTreeMap;

use magent::config::{file, Config, Distribution, ServerSpec};
use magent::hash::{KeyHash, KEY_HASHES};
use magent::proxy::Routes;

const VECTORS: &str = include_str!("data/twemproxy.txt");

struct Set {
    tag: Option<[u8; 2]>,
    ejected: Vec<usize>,
    servers: Vec<ServerSpec>,
}

fn hex(text: &str) -> Vec<u8> {
    let pairs = text.as_bytes().chunks(2);
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    pairs.map(byte).collect()
}

fn lines<'a>(word: &str, by: char) -> Vec<Vec<&'a str>> {
    let lines = VECTORS.lines().map(|line| line.split(by).collect());
    let lines = lines.filter(|fields: &Vec<&str>| fields[0] == word);
    lines.map(|fields| fields[1..].to_vec()).collect()
}

fn keys() -> Vec<Vec<u8>> {
    let keys: Vec<_> = lines("key", ' ').iter().map(|line| hex(line[0])).collect();
    assert_eq!(keys.len(), 36);
    keys
}

fn hash_of(name: &str) -> KeyHash {
    let found = KEY_HASHES.iter().find(|(word, _)| *word == name);
    found.unwrap_or_else(|| panic!("{name}")).1
}

fn sets() -> BTreeMap<&'static str, Set> {
    let of = |line: Vec<&'static str>| {
        let [name, tag, ejected, servers] = line[..] else {
            panic!("{line:?}");
        };
        let tag = <[u8; 2]>::try_from(tag.as_bytes()).ok();
        let ejected = ejected.split(',').filter_map(|n| n.parse().ok()).collect();
        let parse = |text| file::parse_server(text).unwrap();
        let servers = servers.split(',').map(parse).collect();
        let set = Set {
            tag,
            ejected,
            servers,
        };
        (name, set)
    };
    lines("set", '\t').into_iter().map(of).collect()
}

#[test]
fn every_hash_of_every_key() {
    let keys = keys();
    let recorded = lines("hash", ' ');
    assert_eq!(recorded.len(), KEY_HASHES.len());
    for line in recorded {
        let hash = hash_of(line[0]);
        let expect: Vec<u32> = line[1..].iter().map(|n| n.parse().unwrap()).collect();
        let got: Vec<u32> = keys.iter().map(|key| hash.of(key)).collect();
        assert_eq!(got, expect, "{}", line[0]);
    }
}

#[test]
fn names_as_twemproxy_shows_them() {
    let sets = sets();
    for line in lines("name", '\t') {
        let names: Vec<String> = line[1].split(',').map(str::to_owned).collect();
        let got = sets[line[0]].servers.iter().map(ServerSpec::twemproxy_name);
        assert_eq!(got.collect::<Vec<_>>(), names, "{}", line[0]);
    }
}

/// The points of each server of the ring; those that are out of it have none.
#[test]
fn points_of_every_ring() {
    for line in lines("points", '\t') {
        let set = &sets()[line[0]];
        let expect: Vec<usize> = line[1].split(',').map(|n| n.parse().unwrap()).collect();
        let live = (0..set.servers.len()).filter(|index| !set.ejected.contains(index));
        let live: Vec<usize> = live.collect();
        let named = live.iter().map(|&index| {
            let spec = &set.servers[index];
            (spec.twemproxy_name(), spec.weight)
        });
        let named: Vec<(String, u32)> = named.collect();
        let ring = magent::hash::Ring::twemproxy_ketama(&named, KeyHash::Md5);
        let mut got = vec![0; set.servers.len()];
        for (_, server) in ring.points() {
            got[live[usize::from(*server)]] += 1;
        }
        assert_eq!(got, expect, "{}", line[0]);
    }
}

#[test]
fn every_recorded_placement() {
    let (keys, sets) = (keys(), sets());
    let mut compared = 0;
    for line in lines("place", ' ') {
        let [name, hash, distribution, places] = line[..] else {
            panic!("{line:?}");
        };
        let set = &sets[name];
        let live = (0..set.servers.len()).filter(|index| !set.ejected.contains(index));
        let live: Vec<usize> = live.collect();
        let routes = Routes::new(&Config {
            servers: live.iter().map(|&i| set.servers[i].clone()).collect(),
            hash: hash_of(hash),
            hash_tag: set.tag,
            distribution: match distribution {
                "ketama" => Distribution::Ketama,
                "modula" => Distribution::Modula,
                other => panic!("{other}"),
            },
            ..Config::default()
        });
        for (key, place) in keys.iter().zip(places.split(',')) {
            let Ok(expect) = place.parse::<usize>() else {
                continue;
            };
            let got = live[usize::from(routes.of(key).primary())];
            let key = key.escape_ascii();
            assert_eq!(got, expect, "{name} {hash} {distribution}: {key}");
            compared += 1;
        }
    }
    assert!(compared >= 4890, "{compared}");
}

/// Rings where rounding costs each server four points.
#[test]
fn equal_servers_in_numbers_that_do_not_divide() {
    for count in 1..=200 {
        let named: Vec<(String, u32)> = (0..count).map(|n| (format!("s{n}:1"), 1)).collect();
        let points = magent::hash::Ring::twemproxy_ketama(&named, KeyHash::Md5)
            .points()
            .len();
        let fewer = [
            25, 47, 50, 55, 61, 71, 94, 100, 107, 109, 110, 115, 122, 142, 159, 163, 188, 193, 200,
        ];
        let each = if fewer.contains(&count) { 156 } else { 160 };
        assert_eq!(points, count * each, "{count} servers");
    }
}
