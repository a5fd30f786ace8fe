//! The binary protocol: the same frames to a real memcached and to the proxy must bring the same bytes, however they are cut.
//!
//! The table is `tests/exchange/binary.txt`; how to read it stands there.

mod table;

use std::fmt::Write as _;

use crate::common::{Client, Memcached, Pool, PATIENCE};
use table::{frame, longest, table, Exchange, Feed, Target};

/// Compares what a proxy says with what memcached says.
struct Differences {
    count: usize,
    text: String,
}

impl Differences {
    fn compare(&mut self, exchange: &Exchange, known: &[String], feed: Feed, target: &mut Target) {
        let got = target.run(exchange, feed);
        if got == known {
            return;
        }
        self.count += 1;
        if self.count <= 10 {
            let _ = write!(
                self.text,
                "== {} ({feed:?}, through {})\n  memcached: {known:#?}\n  the proxy: {got:#?}\n",
                exchange.name, target.name
            );
        }
    }
}

/// The exchanges, each with what a real server makes of it.
fn explored() -> Vec<(Exchange, Vec<String>)> {
    let server = Memcached::start();
    let mut target = Target::new("memcached", server.port());
    let know = |exchange: Exchange| {
        let known = target.run(&exchange, Feed::Whole);
        (exchange, known)
    };
    table().into_iter().map(know).collect()
}

#[track_caller]
fn compare_all(pools: &[(&'static str, &Pool)], feeds: impl Fn(&Exchange) -> Vec<Feed>) {
    let known = explored();
    let mut differences = Differences {
        count: 0,
        text: String::new(),
    };
    for (name, pool) in pools {
        let mut target = Target::new(name, pool.proxy.port());
        for (exchange, known) in &known {
            for feed in feeds(exchange) {
                differences.compare(exchange, known, feed, &mut target);
            }
        }
    }
    let Differences { count, text } = differences;
    assert!(count == 0, "{count} exchanges differ:\n{text}");
}

#[test]
fn frames_are_answered_as_memcached_does() {
    let (single, several) = (Pool::new(1, 0, &[]), Pool::new(2, 1, &[]));
    let pools = [("one server", &single), ("two and a backup", &several)];
    compare_all(&pools, |_| vec![Feed::Whole]);
}

#[test]
fn frames_are_understood_byte_by_byte() {
    let pool = Pool::new(2, 1, &[]);
    compare_all(&[("two and a backup", &pool)], |exchange| {
        match longest(exchange) {
            0..=5000 => vec![Feed::Bytewise],
            _ => Vec::new(),
        }
    });
}

#[test]
fn frames_are_understood_wherever_they_are_split() {
    let pool = Pool::new(2, 1, &[]);
    compare_all(&[("two and a backup", &pool)], |exchange| {
        let length = longest(exchange);
        let whole = exchange.whole;
        // Every place in short ones, a spread of places in long ones.
        let stride = if length > 5000 { length / 40 } else { 1 };
        let places = (1..length).step_by(stride).filter(|_| !whole);
        places.map(Feed::SplitAt).collect()
    });
}

fn head_of(client: &mut Client) -> (u8, u16, u32, Vec<u8>) {
    let head = client.exactly(24);
    let length = u32::from_be_bytes(head[8..12].try_into().unwrap()) as usize;
    let body = client.exactly(length);
    let status = u16::from_be_bytes(head[6..8].try_into().unwrap());
    let opaque = u32::from_be_bytes(head[12..16].try_into().unwrap());
    assert_eq!(head[0], 0x81, "{head:?}");
    (head[1], status, opaque, body)
}

const NO_FLAGS: &[u8] = &[0; 8];

#[test]
fn ten_thousand_quiet_requests_in_one_go() {
    let pool = Pool::new(2, 1, &["--memory-limit", "16m"]);
    let before = pool.proxy.process().resident();
    let mut client = pool.client();
    let count = 10_000u32;
    let keys: Vec<_> = (0..count).map(|n| format!("key{n}")).collect();
    let mut sets = Vec::new();
    let mut gets = Vec::new();
    for (n, key) in keys.iter().enumerate() {
        sets.extend(frame(
            0x11,
            n as u32,
            0,
            NO_FLAGS,
            key.as_bytes(),
            &[b'v'; 100],
        ));
        gets.extend(frame(0x0d, n as u32, 0, b"", key.as_bytes(), b""));
    }
    let noop = frame(0x0a, count, 0, b"", b"", b"");
    sets.extend(&noop);
    gets.extend(&noop);
    client.send(&sets);
    assert_eq!(
        head_of(&mut client),
        (0x0a, 0, count, Vec::new()),
        "only the noop"
    );
    // Nothing is read until all is asked for: what waits for the client is bounded.
    let writer = client.stream().try_clone().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            use std::io::Write;
            (&writer).write_all(&gets).unwrap();
        });
        for (n, key) in keys.iter().enumerate() {
            let (opcode, status, opaque, body) = head_of(&mut client);
            assert_eq!((opcode, status, opaque), (0x0d, 0, n as u32));
            assert_eq!(&body[4..4 + key.len()], key.as_bytes());
            assert_eq!(body.len(), 4 + key.len() + 100);
        }
        assert_eq!(head_of(&mut client), (0x0a, 0, count, Vec::new()));
    });
    let grown = pool.proxy.process().resident().saturating_sub(before);
    assert!(grown < 32 * 1024 * 1024, "grown by {grown} bytes");
}

#[test]
fn text_and_binary_clients_see_the_same_items() {
    let pool = Pool::new(2, 1, &[]);
    let (mut text, mut binary) = (pool.client(), pool.client());
    binary.send(frame(
        0x01,
        1,
        0,
        &[0, 0, 0, 7, 0, 0, 0, 60],
        b"key",
        b"value",
    ));
    let stored = binary.exactly(24);
    let cas = u64::from_be_bytes(stored[16..].try_into().unwrap());
    let wanted = format!("VALUE key 7 5 {cas}\r\nvalue\r\nEND");
    assert_eq!(text.ask("gets key"), wanted);
    let ttl = text.ask("mg key t");
    let left: u32 = ttl.strip_prefix("HD t").unwrap().parse().unwrap();
    assert!((1..=60).contains(&left), "{ttl}");
    // Whoever comes first with a token wins, in whichever protocol.
    assert_eq!(text.ask(&format!("cas key 3 0 5 {cas}\r\nnewer")), "STORED");
    binary.send(frame(0x01, 2, cas, NO_FLAGS, b"key", b"late"));
    assert_eq!(head_of(&mut binary).1, 2, "exists");
    binary.send(frame(0x00, 3, 0, b"", b"key", b""));
    assert_eq!(head_of(&mut binary).3, b"\0\0\0\x03newer");
    // Keys that are no words in text stand in base64 there.
    binary.send(frame(0x01, 4, 0, NO_FLAGS, b"a b", b"spaced"));
    assert_eq!(head_of(&mut binary).1, 0);
    assert_eq!(text.ask("mg YSBi b v"), "VA 6\r\nspaced");
    assert_eq!(text.ask("incr count 1"), "NOT_FOUND");
    binary.send(frame(
        0x05,
        5,
        0,
        &[0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0],
        b"count",
        b"",
    ));
    assert_eq!(head_of(&mut binary).3, 9u64.to_be_bytes());
    assert_eq!(text.ask("incr count 1"), "10");
    pool.assert_whole(3);
}

#[test]
fn a_binary_client_goes_on_when_a_primary_dies() {
    let mut pool = Pool::new(1, 1, &[]);
    let mut client = pool.client();
    client.send(frame(
        0x01,
        1,
        0,
        &[0, 0, 0, 7, 0, 0, 0, 0],
        b"key",
        &[b'v'; 100_000],
    ));
    assert_eq!(head_of(&mut client).1, 0);
    pool.primaries[0].kill();
    client.send(frame(0x00, 2, 0, b"", b"key", b""));
    let (_, status, opaque, body) = head_of(&mut client);
    assert_eq!((status, opaque, body.len()), (0, 2, 100_004));
    pool.backups[0].kill();
    // With nobody left: a miss, and a write that says what is the matter.
    client.send(frame(0x0c, 3, 0, b"", b"key", b""));
    assert_eq!(head_of(&mut client), (0x0c, 1, 3, b"key".to_vec()));
    client.send(frame(0x11, 4, 0, NO_FLAGS, b"key", b"x"));
    let (_, status, _, body) = head_of(&mut client);
    let said = String::from_utf8_lossy(&body).into_owned();
    assert_eq!((status, &said[..]), (0x84, "no server for this key is up"));
    client.send(frame(0x0a, 5, 0, b"", b"", b""));
    assert_eq!(head_of(&mut client), (0x0a, 0, 5, Vec::new()));
}

#[test]
fn statistics_and_version_in_frames() {
    let pool = Pool::new(1, 0, &[]);
    let mut client = pool.client();
    let mut ask = |key: &str| {
        client.send(frame(0x10, 9, 0, b"", key.as_bytes(), b""));
        let mut names = Vec::new();
        loop {
            let head = client.exactly(24);
            let length = u32::from_be_bytes(head[8..12].try_into().unwrap()) as usize;
            let key_len = usize::from(u16::from_be_bytes([head[2], head[3]]));
            let body = client.exactly(length);
            if length == 0 || head[7] != 0 {
                return (head[7], names);
            }
            names.push(String::from_utf8_lossy(&body[..key_len]).into_owned());
        }
    };
    let (_, general) = ask("");
    assert!(
        general.contains(&"pid".to_string()) && general.len() > 30,
        "{general:?}"
    );
    for known in ["settings", "servers", "health", "replication", "resync"] {
        assert!(!ask(known).1.is_empty(), "{known}");
    }
    assert_eq!(ask("matrix"), (0, vec!["matrix".to_string()]));
    assert_eq!(ask("sizes"), (0, vec!["sizes_status".to_string()]));
    assert_eq!(ask("no such"), (1, Vec::new()));
    client.send(frame(0x0b, 1, 0, b"", b"", b""));
    let (_, status, _, version) = head_of(&mut client);
    let version = String::from_utf8_lossy(&version).into_owned();
    assert!(status == 0 && version.starts_with("1."), "{version}");
}

#[test]
fn flush_in_frames() {
    let pool = Pool::new(2, 1, &[]);
    let mut client = pool.client();
    for (opcode, extras) in [(0x08, &b""[..]), (0x18, b""), (0x08, &[0; 4])] {
        client.send(frame(0x01, 1, 0, NO_FLAGS, b"key", b"x"));
        assert_eq!(head_of(&mut client).1, 0);
        client.send(frame(opcode, 2, 0, extras, b"", b""));
        if opcode == 0x08 {
            assert_eq!(head_of(&mut client), (opcode, 0, 2, Vec::new()));
        }
        client.send(frame(0x00, 3, 0, b"", b"key", b""));
        assert_eq!(head_of(&mut client).1, 1, "gone");
    }
}

/// Anything that begins as a frame: the proxy stays well, and other clients do not notice.
#[test]
fn nonsense_in_frames_harms_nobody() {
    let mut pool = Pool::new(1, 1, &[]);
    let mut rng = crate::common::rng::Rng(7);
    for _ in 0..300 {
        let mut client = pool.client().patience(PATIENCE);
        let mut bytes: Vec<u8> = (0..200).map(|_| rng.below(256) as u8).collect();
        for at in (0..bytes.len()).step_by(24 + rng.below(8)) {
            bytes[at] = 0x80;
            if at + 12 < bytes.len() && rng.below(4) > 0 {
                // Lengths that are likely to add up.
                bytes[at + 1] %= 0x26;
                bytes[at + 2..at + 12].fill(0);
                bytes[at + 3] = rng.below(4) as u8;
                bytes[at + 4] = [0, 4, 8, 20][rng.below(4)];
                bytes[at + 11] = bytes[at + 3] + bytes[at + 4] + rng.below(3) as u8;
            }
        }
        let _ = client.try_send(&bytes);
        client.finish();
        client
            .until_or_end(b"\0 never sent \0")
            .expect_err("it ends");
    }
    pool.proxy.assert_alive();
}

/// Servers before 1.6.10 know no meta commands: what can be said in classic ones is.
#[test]
fn frames_in_front_of_old_servers() {
    let old = || Memcached::of_release("bullseye", &[]);
    let (Some(primary), Some(backup)) = (old(), old()) else {
        return;
    };
    let pool = Pool::of(vec![primary], vec![backup], &[]);
    let mut client = pool.client();
    let only_counted = [[0, 0, 0, 0, 0, 0, 0, 2], [0; 8]].concat();
    let only_counted = [&only_counted[..], &[0xff; 4]].concat();
    let mut say = |opcode, extras: &[u8], value: &[u8]| {
        client.send(frame(opcode, 1, 0, extras, b"key", value));
        let (_, status, _, body) = head_of(&mut client);
        (status, body)
    };
    assert_eq!(say(0x01, &[0, 0, 0, 7, 0, 0, 0, 60], b"10").0, 0);
    assert_eq!(say(0x02, NO_FLAGS, b"10").0, 2, "exists");
    assert_eq!(say(0x00, b"", b""), (0, b"\0\0\0\x0710".to_vec()));
    assert_eq!(say(0x05, &only_counted, b"").1, 12u64.to_be_bytes());
    assert_eq!(say(0x0e, b"", b"0").0, 0);
    assert_eq!(say(0x1d, &[0, 0, 0, 60], b"").1, b"\0\0\0\x07120");
    assert_eq!(say(0x1c, &[0, 0, 0, 60], b"").0, 0);
    let said = say(0x05, &[0; 20], b"");
    assert_eq!(
        (said.0, said.1.is_empty()),
        (0x84, false),
        "it would create"
    );
    assert_eq!(say(0x04, b"", b"").0, 0);
    assert_eq!(say(0x04, b"", b"").0, 1, "not found");
}
