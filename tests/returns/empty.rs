//! Servers that come back empty.

use std::time::Instant;

use crate::common::pool::*;
use crate::common::{wait_for, Memcached, Pool, PATIENCE};

/// The guides' "wrong operation".
#[test]
fn a_dead_primary_may_be_restarted_at_once() {
    let mut pool = Pool::new(1, 1, &[]);
    let mut client = pool.client();
    for round in 0..2 {
        assert_eq!(client.ask("set k 42 300 5\r\nvalue"), "STORED");
        assert_eq!(client.ask("set lock 1 300 2\r\nme"), "STORED");
        pool.primaries[0].kill();
        pool.primaries[0].restart();
        assert_eq!(
            client.ask("get k"),
            "VALUE k 42 5\r\nvalue\r\nEND",
            "round {round}"
        );
        assert_eq!(client.ask("add lock 9 0 5\r\nother"), "NOT_STORED");
        wait_state(&mut client, &pool.primaries[0], &["up", "cold"]);
        assert_eq!(client.ask("get k"), "VALUE k 42 5\r\nvalue\r\nEND");
        let ttl = client.ask("mg k t");
        let seconds: u32 = ttl.strip_prefix("HD t").unwrap().parse().unwrap();
        assert!((270..=300).contains(&seconds), "{ttl}");
        assert_eq!(client.ask("add lock 9 0 5\r\nother"), "NOT_STORED");
        assert_eq!(client.get("lock").as_deref(), Some("me"));
        wait_state(&mut client, &pool.primaries[0], &["up"]);
        pool.assert_whole(2);
        for key in ["k", "lock"] {
            let there = item(&mut pool.backups[0].client(), key);
            assert_eq!(item(&mut pool.primaries[0].client(), key), there);
        }
    }
}

#[test]
fn a_list_of_keys_over_an_empty_primary_has_them_all() {
    let mut pool = Pool::new(2, 1, &LAZY);
    let mut client = pool.client();
    let keys: Vec<String> = (0..100).map(|n| format!("k{n}")).collect();
    for (n, key) in keys.iter().enumerate() {
        assert_eq!(client.ask(&format!("set {key} {n} 0 2\r\nab")), "STORED");
    }
    let expect: String = (0..100)
        .map(|n| format!("VALUE k{n} {n} 2\r\nab\r\n"))
        .collect();
    let get = format!("get {}", keys.join(" "));
    assert_eq!(client.ask(&get), format!("{expect}END"));
    pool.primaries[0].kill();
    assert_eq!(client.ask(&get), format!("{expect}END"), "one is dead");
    pool.primaries[0].restart();
    assert_eq!(client.ask(&get), format!("{expect}END"), "just restarted");
    wait_state(&mut client, &pool.primaries[0], &["cold"]);
    assert_eq!(client.ask(&get), format!("{expect}END"), "one is empty");
    assert_eq!(client.ask(&get), format!("{expect}END"), "and again");
}

#[test]
fn empty_servers_are_filled_in_the_background() {
    const KEYS: usize = 5000;
    let mut pool = Pool::new(2, 1, &[]);
    let mut client = pool.client();
    let value = |n: usize| format!("value{n}");
    let mut sets = String::new();
    for n in 0..KEYS {
        let (ttl, value) = (if n % 3 == 0 { 0 } else { 3600 }, value(n));
        sets += &format!("set key:{n} {n} {ttl} {}\r\n{value}\r\n", value.len());
    }
    let replies = client.converse(sets.as_bytes());
    assert_eq!(replies, b"STORED\r\n".repeat(KEYS));
    // The first primary is emptied, then the backup; each must get back all.
    for round in 0..2 {
        let server = if round == 0 {
            &mut pool.primaries[0]
        } else {
            &mut pool.backups[0]
        };
        server.kill();
        server.restart();
        let begin = Instant::now();
        wait_state(&mut client, server, &["cold", "up"]);
        wait_state(&mut client, server, &["up"]);
        assert!(
            begin.elapsed() < PATIENCE / 2,
            "warm only after {:?}",
            begin.elapsed()
        );
        assert_eq!(client.ask("stats resync"), "STAT resync none\r\nEND");
        let (code, said) = pool.verify();
        let counts = format!("keys {KEYS} equal {KEYS} absent 0 different 0 ");
        assert!(said.starts_with(&counts), "round {round}: {said}");
        assert_eq!(code, 0);
    }
    pool.primaries.iter_mut().for_each(Memcached::kill);
    for n in 0..KEYS {
        let (reply, value) = (client.ask(&format!("get key:{n}")), value(n));
        assert_eq!(
            reply,
            format!("VALUE key:{n} {n} {}\r\n{value}\r\nEND", value.len())
        );
    }
}

#[test]
fn the_background_copy_says_how_far_it_is() {
    const KEYS: usize = 2000;
    let mut pool = Pool::new(1, 1, &["--resync-rate", "400"]);
    let mut client = pool.client();
    let sets: String = (0..KEYS)
        .map(|n| format!("set k{n} 0 0 1\r\nx\r\n"))
        .collect();
    let replies = client.converse(sets.as_bytes());
    assert_eq!(replies, b"STORED\r\n".repeat(KEYS));
    pool.primaries[0].kill();
    pool.primaries[0].restart();
    let name = format!("STAT resync 127.0.0.1:{}", pool.primaries[0].port());
    let mut seen = Vec::new();
    wait_for("the copy is half way", PATIENCE, || {
        // A proxy that nobody asks for a key does not copy.
        client.get("k0");
        let stats = client.ask("stats resync");
        if stats.starts_with(&name) {
            let number = |field: &str| -> Option<usize> {
                let line = format!("STAT {field} ");
                let found = stats.lines().find_map(|l| l.strip_prefix(line.as_str()));
                found?.parse().ok()
            };
            let fields = [
                "keys_done",
                "keys_listed",
                "seconds",
                "keys_per_second",
                "seconds_left",
            ];
            seen.push(fields.map(|field| number(field).expect(field)));
        }
        seen.last().is_some_and(|last| last[0] > KEYS / 2)
    });
    let (first, last) = (seen[0], seen[seen.len() - 1]);
    assert!(first[0] < last[0], "it grows: {first:?} {last:?}");
    assert_eq!(last[1], KEYS);
    assert!(last[2] >= 1 && (20..=800).contains(&last[3]), "{last:?}");
    assert!((1..=60).contains(&last[4]), "{last:?}");
    wait_for("it is whole", PATIENCE, || {
        client.get("k0");
        client.ask("stats resync") == "STAT resync none\r\nEND"
    });
}
