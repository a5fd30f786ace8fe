//! Large things: values around the servers' limit, multi-gets of thousands of keys, pipelines of thousands of commands.

use crate::common;

use common::fake::{healthy, Do, Fake};
use common::{key_on, show, Client, Magent, Memcached};

/// A memcached alone, and a proxy in front of two primaries and a backup.
struct Sides {
    server: Memcached,
    primaries: [Memcached; 2],
    backup: Memcached,
    proxy: Magent,
}

impl Sides {
    fn new(server_options: &[&str], proxy_options: &[&str]) -> Sides {
        let start = || Memcached::with(server_options);
        let (server, primaries, backup) = (start(), [start(), start()], start());
        let ports = primaries.each_ref().map(Memcached::port);
        let proxy = Magent::front(&ports, &[backup.port()])
            .args(proxy_options)
            .start();
        Sides {
            server,
            primaries,
            backup,
            proxy,
        }
    }

    /// Says the same to both and demands the same answer; returns it.
    #[track_caller]
    fn same(&self, what: &str, bytes: &[u8]) -> Vec<u8> {
        let expect = self.server.client().converse(bytes);
        let got = self.proxy.client().converse(bytes);
        let at = expect.iter().zip(&got).take_while(|(a, b)| a == b).count();
        let around = |bytes: &[u8]| {
            let part = at.saturating_sub(200)..bytes.len().min(at + 200);
            show(&bytes[part])
        };
        assert!(
            got == expect,
            "{what}: {} bytes of memcached's, {} of the proxy's, another from byte {at} on:\n  memcached: {}\n  the proxy: {}",
            expect.len(),
            got.len(),
            around(&expect),
            around(&got)
        );
        got
    }
}

fn storage(verb: &str, key: &str, size: usize, tail: &str) -> Vec<u8> {
    let mut bytes = format!("{verb} {key} 0 0 {size}{tail}\r\n").into_bytes();
    bytes.extend((0..size).map(|n| b'a' + (n % 23) as u8));
    bytes.extend(b"\r\n");
    bytes
}

/// The largest value that a memcached stores under a key of this length, found by asking.
fn largest(client: &mut Client, key: &str) -> usize {
    let (mut good, mut bad) = (1000 * 1000, 1024 * 1024 + 1);
    while bad - good > 1 {
        let middle = (good + bad) / 2;
        match client.converse(&storage("set", key, middle, "")).as_slice() {
            b"STORED\r\n" => good = middle,
            b"SERVER_ERROR object too large for cache\r\n" => bad = middle,
            other => panic!("set of {middle} bytes: {}", show(other)),
        }
    }
    good
}

#[test]
fn values_around_the_limit() {
    let sides = Sides::new(&[], &[]);
    for key in [
        "k".to_string(),
        "key-of-middling-length".to_string(),
        "k".repeat(250),
    ] {
        let most = largest(&mut sides.server.client(), &key);
        assert!((1_048_000..1_048_576).contains(&most), "odd limit {most}");
        for size in [
            most - 1,
            most,
            most + 1,
            most + 2,
            1024 * 1024,
            1024 * 1024 + 1,
            3_000_000,
        ] {
            let get = format!("get {key}\r\n").into_bytes();
            let set = storage("set", &key, size, "");
            let reply = sides.same("set, then get", &[set, get.clone()].concat());
            assert_eq!(
                reply.starts_with(b"STORED\r\n"),
                size <= most,
                "set of {size} bytes"
            );
            let small = storage("set", &key, 3, "");
            let quiet = storage("set", &key, size, " noreply");
            sides.same(
                "noreply over an old value",
                &[small.clone(), quiet, get.clone()].concat(),
            );
            for verb in ["add", "replace", "append", "prepend"] {
                let write = storage(verb, &key, size, "");
                sides.same(verb, &[small.clone(), write, get.clone()].concat());
            }
            let cas = storage("cas", &key, size, " 999999999999");
            sides.same("cas", &[small, cas, get.clone()].concat());
            let mut meta = storage("ms", &key, size, "");
            let from = meta.iter().position(|&byte| byte == b'\n').unwrap();
            meta.splice(..from, format!("ms {key} {size}\r").into_bytes());
            sides.same("ms", &[meta, get].concat());
        }
    }
}

#[test]
fn appends_up_to_the_limit() {
    let sides = Sides::new(&[], &[]);
    let mut bytes = storage("set", "k", 900_000, "");
    bytes.extend(storage("append", "k", 100_000, ""));
    bytes.extend(storage("prepend", "k", 48_000, ""));
    bytes.extend(storage("append", "k", 100_000, ""));
    bytes.extend(b"get k\r\n");
    let reply = sides.same("appends", &bytes);
    assert!(
        reply.starts_with(b"STORED\r\nSTORED\r\nSTORED\r\nNOT_STORED\r\n"),
        "{}",
        show(&reply[..60])
    );
}

#[test]
fn a_larger_limit_on_both_sides() {
    let sides = Sides::new(&["-I", "4m"], &["--max-item-size", "4194304"]);
    let sizes = [1024 * 1024, 3_000_000, 4_000_000, 4 * 1024 * 1024];
    for (n, size) in sizes.into_iter().enumerate() {
        let mut bytes = storage("set", "k", size, "");
        bytes.extend(b"get k\r\n");
        let reply = sides.same("set, then get", &bytes);
        assert_eq!(reply.starts_with(b"STORED\r\n"), n < 3, "{size} bytes");
    }
}

#[test]
fn every_size_of_value_comes_back() {
    let sides = Sides::new(&[], &[]);
    let mut bytes = Vec::new();
    let around = |size: usize| size - 2..size + 3;
    let sizes = (0..70)
        .chain(
            [
                256, 512, 1024, 2048, 4096, 8192, 16_384, 32_768, 65_536, 131_072,
            ]
            .into_iter()
            .flat_map(around),
        )
        .chain([500_000, 1_000_000]);
    for (n, size) in sizes.enumerate() {
        bytes.extend(storage("set", &format!("key{n}"), size, ""));
        bytes.extend(format!("get key{n}\r\n").bytes());
    }
    let reply = sides.same("all sizes", &bytes);
    assert!(reply.len() > 2_500_000, "only {} bytes", reply.len());
}

#[test]
fn get_of_many_keys_with_duplicates_and_misses() {
    let sides = Sides::new(&[], &[]);
    let mut fill = Vec::new();
    for n in (0..10_000).filter(|n| n % 3 != 0) {
        fill.extend(format!("set key{n} {n} 0 5 noreply\r\nv{n:04}\r\n").bytes());
    }
    assert!(sides.same("fill", &fill).is_empty());
    for (count, verb) in [
        (100, "get"),
        (100, "gats 0"),
        (10_000, "get"),
        (1000, "gets"),
    ] {
        // A fixed disorder, with every tenth key asked for a second time.
        let mut line = verb.to_string();
        for n in 0..count {
            line += &format!(" key{}", n * 7919 % 10_000);
            if n % 10 == 0 {
                line += &format!(" key{}", n * 7919 % 10_000);
            }
        }
        if verb != "get" {
            // The cas uniques differ by right: only the shape is compared.
            let reply = sides
                .proxy
                .client()
                .converse(format!("{line}\r\n").as_bytes());
            assert!(reply.ends_with(b"END\r\n"));
            assert!(reply.len() > count * 15, "only {} bytes", reply.len());
            continue;
        }
        let reply = sides.same(verb, format!("{line}\r\nget key1\r\n").as_bytes());
        assert!(reply.len() > count * 15, "only {} bytes", reply.len());
    }
}

#[test]
fn get_of_many_long_keys() {
    let sides = Sides::new(&[], &[]);
    let key = |n: usize| format!("{n:0>250}");
    let (mut fill, mut line) = (Vec::new(), "get".to_string());
    for n in 0..2000 {
        fill.extend(format!("set {} 0 0 1 noreply\r\nx\r\n", key(n)).bytes());
        line += &format!(" {}", key(1999 - n));
    }
    sides.same("fill", &fill);
    let reply = sides.same("get", format!("{line}\r\n").as_bytes());
    assert!(reply.len() > 2000 * 250, "only {} bytes", reply.len());
}

#[test]
fn thousands_of_commands_in_one_go_each_to_its_own_server() {
    let sides = Sides::new(&[], &[]);
    let mut bytes = Vec::new();
    for n in 0..5000 {
        // The original sent what followed the first header to the first key's server.
        let key = key_on(n % 2, 2, &format!("k{n}x"));
        bytes.extend(format!("set {key} 0 0 4\r\n{n:04}\r\nget {key}\r\nincr {key} 1\r\n").bytes());
        if n % 4 == 0 {
            bytes.extend(format!("delete {key} noreply\r\nmg {key} v k\r\n").bytes());
        }
    }
    let reply = sides.same("pipeline", &bytes);
    assert!(reply.starts_with(b"STORED\r\nVALUE "));
    // Besides the item that names the list of servers.
    let items = |server: &Memcached| {
        let all: usize = server.client().stat("curr_items").parse().unwrap();
        all - 1
    };
    let [first, second] = sides.primaries.each_ref().map(items);
    assert_eq!((first, second), (1250, 2500), "keys on each primary");
    common::wait_for("the backup has them all", common::PATIENCE, || {
        items(&sides.backup) == 3750
    });
}

/// A server that answers a get of a large value with its first half, and is gone.
fn dies_in_the_middle(key: &'static str, value: &str) -> Fake {
    let half = format!(
        "VALUE {key} 0 {}\r\n{}",
        value.len(),
        &value[..value.len() / 2]
    );
    Fake::start(move |request| match request.word(0) {
        "get" if !request.is_stamp() => vec![Do::say(&half), Do::Close],
        _ => healthy(request),
    })
}

#[test]
fn a_large_value_whose_server_dies_is_completed_by_the_next_copy() {
    let value: String = ('a'..='z').cycle().take(400_000).collect();
    let primary = dies_in_the_middle("k", &value);
    let backup = Memcached::start();
    let proxy = Magent::front(&[primary.port()], &[backup.port()]).start();
    let mut client = proxy.client();
    client.set("k", &value);
    assert!(client.get("k").is_some_and(|got| got == value));
    assert_eq!(client.stat("magent_cut_off"), "0");
}

#[test]
fn a_large_value_that_no_copy_can_complete_is_cut_off() {
    let value: String = ('a'..='z').cycle().take(400_000).collect();
    let primary = dies_in_the_middle("k", &value);
    let backup = Memcached::start();
    let proxy = Magent::front(&[primary.port()], &[backup.port()]).start();
    let mut client = proxy.client();
    client.set("k", &value);
    // It is as if the backup had lost it.
    backup.client().ask("delete k");
    client.send("get k\r\n");
    let got = client.read_to_end();
    assert!(got.starts_with(b"VALUE k 0 400000\r\nabc") && got.len() < 400_000);
    let mut client = proxy.client();
    assert_eq!(client.stat("magent_cut_off"), "1");
    assert_eq!(client.get("k"), None);
}
