//! Where keys go, with copies, with `--eject`, and that it stays so.

use super::*;

fn spec(port: u16) -> ServerSpec {
    ServerSpec {
        host: "127.0.0.1".into(),
        port,
        weight: 1,
        name: None,
    }
}

fn config(primaries: &[u16], backups: &[u16], copies: Copies) -> Config {
    Config {
        servers: primaries.iter().map(|&port| spec(port)).collect(),
        backups: backups.iter().map(|&port| spec(port)).collect(),
        copies,
        ..Config::default()
    }
}

fn servers(routes: &Routes, key: &[u8]) -> Vec<usize> {
    let route = routes.of(key);
    (0..routes.places())
        .filter_map(|rank| routes.server(route, rank))
        .collect()
}

#[test]
fn the_published_placement_of_three_and_two() {
    let routes = Routes::new(&config(&[1, 2, 3], &[4, 5], Copies::AtMost(1)));
    assert_eq!(servers(&routes, b"key1"), [0, 4]);
    assert_eq!(servers(&routes, b"key2"), [1, 3]);
    assert_eq!(servers(&routes, b"key3"), [2, 4]);
}

#[test]
fn all_backups_hold_a_key_the_hashed_one_first() {
    let routes = Routes::new(&config(&[1, 2, 3], &[4, 5], Copies::All));
    assert_eq!(servers(&routes, b"key1"), [0, 4, 3]);
    assert_eq!(servers(&routes, b"key2"), [1, 3, 4]);
}

fn ejecting(primaries: &[(u16, u32)], distribution: Distribution) -> Routes {
    let servers = primaries.iter().map(|&(port, weight)| ServerSpec {
        weight,
        ..spec(port)
    });
    Routes::new(&Config {
        servers: servers.collect(),
        eject: true,
        distribution,
        ..Config::default()
    })
}

/// How many keys of the server 0 have each server as the first of their places that is not among `away`.
fn spread(routes: &Routes, away: &[usize], servers: usize) -> Vec<usize> {
    let mut counts = vec![0; servers];
    for n in 0..30_000 {
        let route = routes.of(format!("key:{n}").as_bytes());
        if route.primary() == 0 {
            let mut places = (0..routes.places()).filter_map(|rank| routes.server(route, rank));
            counts[places.find(|place| !away.contains(place)).unwrap()] += 1;
        }
    }
    counts
}

#[test]
fn keys_of_a_dead_server_spread_evenly_over_the_others() {
    for distribution in [Distribution::Magent, Distribution::MagentKetama] {
        let routes = ejecting(&[(1, 1), (2, 1), (3, 1), (4, 1), (5, 1)], distribution);
        let all = spread(&routes, &[], 5)[0];
        for away in [&[0][..], &[0, 3]] {
            let counts = spread(&routes, away, 5);
            let fair = all / (5 - away.len());
            for (server, &count) in counts.iter().enumerate() {
                let range = fair * 9 / 10..=fair * 11 / 10;
                let fits = away.contains(&server) || range.contains(&count);
                assert!(fits, "{distribution:?} {away:?}: {counts:?}");
            }
        }
    }
    let weighted = ejecting(&[(1, 1), (2, 1), (3, 3)], Distribution::Magent);
    let counts = spread(&weighted, &[0], 3);
    let ratio = counts[2] as f64 / counts[1] as f64;
    assert!((2.7..3.3).contains(&ratio), "{counts:?}");
}

#[test]
fn a_server_that_dies_moves_its_own_keys_only() {
    let routes = ejecting(&[(1, 1), (2, 1), (3, 1), (4, 1)], Distribution::Magent);
    for n in 0..1000 {
        let places: Vec<usize> = servers(&routes, format!("key{n}").as_bytes());
        let mut sorted = places.clone();
        sorted.sort_unstable();
        assert_eq!(
            sorted,
            [0, 1, 2, 3],
            "each server is a place, once: {places:?}"
        );
    }
}

#[test]
fn places_are_few_and_found_among_heavy_servers() {
    let many: Vec<(u16, u32)> = (0..40)
        .map(|n| (n, if n == 0 { 1000 } else { 1 }))
        .collect();
    let routes = ejecting(&many, Distribution::Magent);
    assert_eq!(routes.places(), PLACES_MAX);
    for n in 0..200 {
        let places = servers(&routes, format!("key{n}").as_bytes());
        let mut once = places.clone();
        once.sort_unstable();
        once.dedup();
        assert_eq!((places.len(), once.len()), (PLACES_MAX, PLACES_MAX));
    }
    // The same server under two names of the list is no second place.
    let twice = ejecting(&[(1, 1), (1, 1), (2, 1)], Distribution::Magent);
    assert_eq!(twice.places(), 2);
    for key in [&b"key1"[..], b"key2", b"key3"] {
        assert_eq!(servers(&twice, key).len(), 2);
    }
}

#[test]
fn places_do_not_change_with_versions() {
    let routes = ejecting(&[(1, 1), (2, 1), (3, 1), (4, 1)], Distribution::Magent);
    let found = [&b"key1"[..], b"key2", b"key3"].map(|key| servers(&routes, key));
    // Two proxies of different versions must find the same.
    assert_eq!(found, [[3, 1, 0, 2], [0, 2, 3, 1], [1, 3, 0, 2]]);
}

#[test]
fn a_server_given_twice_holds_one_copy() {
    let routes = Routes::new(&config(&[1, 2], &[1, 2], Copies::All));
    for key in [&b"key1"[..], b"key2", b"key3"] {
        assert_eq!(servers(&routes, key).len(), 2);
    }
    let alone = Routes::new(&config(&[1, 2], &[], Copies::All));
    assert_eq!(servers(&alone, b"key1"), [1]);
}
