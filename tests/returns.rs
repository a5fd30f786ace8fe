//! Servers that die, stop and come back: nothing acknowledged is lost, nothing stale is read, conditional commands keep
//! their meaning. All on real servers.
//!
//! A proxy makes returning servers safe only while it serves, so whoever waits here goes on asking for keys.

mod common;

use std::time::{Duration, Instant};

use common::magent::run_magent_output;
use common::{wait_for, Client, Magent, Memcached, PATIENCE};
use nix::sys::signal::Signal;

/// Long enough for a probe that is a second away, the entry, and the second look after the grace period.
const OVER_THE_RETURN: Duration = Duration::from_secs(3);

/// No background copy: a server that came back stays cold, and each read brings its key. memcached's `metadump` passes over
/// items that are being read or moved at that moment, so under traffic a copy may lack keys that are asked for all the time.
const LAZY: [&str; 2] = ["--resync-rate", "0"];

fn ports(servers: &[Memcached]) -> Vec<u16> {
    servers.iter().map(Memcached::port).collect()
}

/// Primaries and backups behind a proxy, which can be replaced.
struct Pool {
    primaries: Vec<Memcached>,
    backups: Vec<Memcached>,
    proxy: Magent,
}

impl Pool {
    fn new(primaries: usize, backups: usize, options: &[&str]) -> Pool {
        let primaries: Vec<_> = (0..primaries).map(|_| Memcached::start()).collect();
        let backups: Vec<_> = (0..backups).map(|_| Memcached::start()).collect();
        let proxy = front(&primaries, &backups, options);
        Pool {
            primaries,
            backups,
            proxy,
        }
    }

    /// Another proxy over the same servers, with its own port and name.
    fn another(&self, options: &[&str]) -> Magent {
        front(&self.primaries, &self.backups, options)
    }

    fn client(&self) -> Client {
        self.proxy.client()
    }

    /// `magent --verify`: exit code and counts.
    fn verify(&self) -> (i32, String) {
        let mut arguments = vec!["--verify".to_string()];
        for (option, ports) in [("-s", ports(&self.primaries)), ("-b", ports(&self.backups))] {
            for port in ports {
                arguments.extend([option.to_string(), format!("127.0.0.1:{port}")]);
            }
        }
        let (code, stdout, _) = run_magent_output(&arguments);
        (code, stdout)
    }
}

fn front(primaries: &[Memcached], backups: &[Memcached], options: &[&str]) -> Magent {
    Magent::front(&ports(primaries), &ports(backups))
        .args(options)
        .start()
}

/// What a proxy says of a server: `up`, `cold`, ...
fn state(client: &mut Client, server: &Memcached) -> String {
    let reply = client.ask("stats servers");
    let head = format!("STAT 127.0.0.1:{}:state ", server.port());
    let line = reply.lines().find_map(|line| line.strip_prefix(&head));
    line.unwrap_or_else(|| panic!("no {head} in {reply}"))
        .to_string()
}

fn replication(client: &mut Client, name: &str) -> String {
    let reply = client.ask("stats replication");
    let head = format!("STAT {name} ");
    let line = reply.lines().find_map(|line| line.strip_prefix(&head));
    line.unwrap_or_else(|| panic!("no {name} in {reply}"))
        .to_string()
}

/// Goes on asking for a key until the proxy says so of the server.
#[track_caller]
fn wait_state(client: &mut Client, server: &Memcached, wanted: &[&str]) {
    wait_for(&format!("the server is {wanted:?}"), PATIENCE, || {
        let _ = client.ask("get no-such-key");
        wanted.contains(&state(client, server).as_str())
    });
}

/// Kills a server and starts it at once: it is empty. Returns when the proxy uses it again.
#[track_caller]
fn replace_by_empty(client: &mut Client, server: &mut Memcached) {
    server.kill();
    server.restart();
    wait_state(client, server, &["up", "cold"]);
}

/// An item without what differs between servers and moments: the remaining time in whole tens, rounded up.
fn item(client: &mut Client, key: &str) -> String {
    let reply = client.ask(&format!("mg {key} v f t"));
    let bytes = format!("{reply}\r\n");
    let normal = common::normal::Normal::default().replies(bytes.as_bytes());
    String::from_utf8_lossy(&normal).trim_end().to_string()
}

/// On the server itself the key is as on the other one, or absent.
#[track_caller]
fn assert_equal_or_absent(server: &Memcached, other: &Memcached, key: &str) {
    let here = item(&mut server.client(), key);
    let there = item(&mut other.client(), key);
    assert!(
        here == there || here == "EN",
        "{key} is {here:?} on the server that came back, {there:?} on the other"
    );
}

/// Reads go on over a return, and each is as it should be; `None`: a miss.
#[track_caller]
fn assert_reads_stay(client: &mut Client, expect: &[(&str, Option<&str>)]) {
    let begin = Instant::now();
    let mut rounds = 0;
    while begin.elapsed() < OVER_THE_RETURN {
        for (key, value) in expect {
            assert_eq!(
                client.get(key).as_deref(),
                *value,
                "{key} after {:?}, round {rounds}",
                begin.elapsed()
            );
        }
        rounds += 1;
    }
    assert!(rounds > 10, "only {rounds} rounds");
}

/// Reads give these values, or misses: the backup may not have been filled.
#[track_caller]
fn assert_nothing_else(client: &mut Client, expect: &[(&str, Option<&str>)]) {
    for (key, value) in expect {
        let found = client.get(key);
        assert!(
            found.is_none() || found.as_deref() == *value,
            "{key}: {found:?}"
        );
    }
}

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
        for key in ["k", "lock"] {
            let there = item(&mut pool.backups[0].client(), key);
            assert_eq!(item(&mut pool.primaries[0].client(), key), there);
        }
    }
}

/// Before the fault `K` is set to the first with flags 7 and 300 seconds; then command, reply, and the item after it.
const TABLE: [(&str, &str, &str, &str); 31] = [
    (
        "ab",
        "get K",
        "VALUE K 7 2\r\nab\r\nEND",
        "VA 2 f7 t300\r\nab",
    ),
    ("ab", "mg K v f", "VA 2 f7\r\nab", "VA 2 f7 t300\r\nab"),
    ("ab", "mg K", "HD", "VA 2 f7 t300\r\nab"),
    ("ab", "set K 8 100 1\r\nx", "STORED", "VA 1 f8 t100\r\nx"),
    ("ab", "add K 0 0 1\r\nx", "NOT_STORED", "VA 2 f7 t300\r\nab"),
    ("ab", "replace K 3 0 1\r\nx", "STORED", "VA 1 f3 t-1\r\nx"),
    ("ab", "append K 0 0 1\r\nx", "STORED", "VA 3 f7 t300\r\nabx"),
    (
        "ab",
        "prepend K 0 0 1\r\nx",
        "STORED",
        "VA 3 f7 t300\r\nxab",
    ),
    ("ab", "cas K 0 0 1 1\r\nx", "EXISTS", "VA 2 f7 t300\r\nab"),
    ("10", "incr K 5", "15", "VA 2 f7 t300\r\n15"),
    ("90", "decr K 5", "85", "VA 2 f7 t300\r\n85"),
    (
        "ab",
        "incr K 1",
        "CLIENT_ERROR cannot increment or decrement non-numeric value",
        "VA 2 f7 t300\r\nab",
    ),
    ("ab", "touch K 900", "TOUCHED", "VA 2 f7 t900\r\nab"),
    (
        "ab",
        "gat 900 K",
        "VALUE K 7 2\r\nab\r\nEND",
        "VA 2 f7 t900\r\nab",
    ),
    ("ab", "delete K", "DELETED", "EN"),
    ("ab", "ms K 1 T100\r\nx", "HD", "VA 1 f0 t100\r\nx"),
    ("ab", "ms K 1 ME\r\nx", "NS", "VA 2 f7 t300\r\nab"),
    ("ab", "ms K 1 MA\r\nx", "HD", "VA 3 f7 t300\r\nabx"),
    ("ab", "ms K 1 MP\r\nx", "HD", "VA 3 f7 t300\r\nxab"),
    ("ab", "ms K 1 MR T100 F5\r\nx", "HD", "VA 1 f5 t100\r\nx"),
    ("ab", "ms K 1 C1\r\nx", "EX", "VA 2 f7 t300\r\nab"),
    ("10", "ma K v", "VA 2\r\n11", "VA 2 f7 t300\r\n11"),
    ("90", "ma K MD D5 v", "VA 2\r\n85", "VA 2 f7 t300\r\n85"),
    ("10", "ma K N100 J5 v", "VA 2\r\n11", "VA 2 f7 t300\r\n11"),
    ("ab", "mg K T900 v", "VA 2\r\nab", "VA 2 f7 t900\r\nab"),
    ("ab", "mg K N100 v", "VA 2\r\nab", "VA 2 f7 t300\r\nab"),
    ("ab", "md K", "HD", "EN"),
    // Of keys that are nowhere: misses as ever.
    ("", "add K 7 300 1\r\nx", "STORED", "VA 1 f7 t300\r\nx"),
    ("", "append K 0 0 1\r\nx", "NOT_STORED", "EN"),
    ("", "incr K 1", "NOT_FOUND", "EN"),
    ("", "delete K", "NOT_FOUND", "EN"),
];

/// The whole table, after `fault`; with the server that is asked for what it holds afterwards.
fn run_table(pool: &mut Pool, fault: impl FnOnce(&mut Pool, &mut Client)) {
    let mut client = pool.client();
    for (n, (before, ..)) in TABLE.iter().enumerate() {
        if !before.is_empty() {
            let set = format!("set k{n} 7 300 {}\r\n{before}", before.len());
            assert_eq!(client.ask(&set), "STORED");
        }
    }
    fault(pool, &mut client);
    for (n, (before, command, reply, after)) in TABLE.iter().enumerate() {
        let key = format!("k{n}");
        let command = command.replace('K', &key);
        assert_eq!(
            client.ask(&command),
            reply.replace('K', &key),
            "{command:?} on {before:?}"
        );
        assert_eq!(item(&mut client, &key), *after, "after {command:?}");
    }
}

#[test]
fn every_verb_answers_from_the_backup_as_if_nothing_had_happened() {
    let mut pool = Pool::new(1, 1, &[]);
    run_table(&mut pool, |pool, _| pool.primaries[0].kill());
}

#[test]
fn every_verb_answers_on_an_empty_primary_as_if_nothing_had_happened() {
    // Nothing is copied in the background: each verb meets an empty server.
    let mut pool = Pool::new(1, 1, &LAZY);
    run_table(&mut pool, |pool, client| {
        replace_by_empty(client, &mut pool.primaries[0]);
        assert_eq!(state(client, &pool.primaries[0]), "cold");
        assert_eq!(item(&mut pool.primaries[0].client(), "k0"), "EN");
    });
    for n in 0..TABLE.len() {
        let key = format!("k{n}");
        assert_equal_or_absent(&pool.primaries[0], &pool.backups[0], &key);
    }
}

#[test]
fn every_verb_answers_while_the_background_copy_runs() {
    let mut pool = Pool::new(1, 1, &["--resync-rate", "100"]);
    run_table(&mut pool, |pool, client| {
        replace_by_empty(client, &mut pool.primaries[0]);
    });
    let mut client = pool.client();
    wait_state(&mut client, &pool.primaries[0], &["up"]);
    for (n, (.., after)) in TABLE.iter().enumerate() {
        let key = format!("k{n}");
        assert_eq!(item(&mut pool.primaries[0].client(), &key), *after);
        assert_eq!(item(&mut pool.backups[0].client(), &key), *after);
    }
}

#[test]
fn a_cas_token_from_before_the_death_is_never_taken_by_chance() {
    let mut pool = Pool::new(1, 1, &LAZY);
    let mut client = pool.client();
    if pool.primaries[0].takes_versions() {
        // There it is good on every copy; that has its own tests.
        return;
    }
    let keys: Vec<String> = (0..50).map(|n| format!("k{n}")).collect();
    let token = |client: &mut Client, key: &str| -> u64 {
        let reply = client.ask(&format!("gets {key}"));
        let line = reply.lines().next().unwrap().to_string();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    let mut tokens = Vec::new();
    for key in &keys {
        client.set(key, "old");
        tokens.push(token(&mut client, key));
    }
    let all_exist = |client: &mut Client, when: &str| {
        for (key, token) in keys.iter().zip(&tokens) {
            let cas = client.ask(&format!("cas {key} 0 0 1 {token}\r\nx"));
            assert_eq!(cas, "EXISTS", "{key} {when}");
            let ms = client.ask(&format!("ms {key} 1 C{token}\r\nx"));
            assert_eq!(ms, "EX", "{key} {when}");
            assert_eq!(client.get(key).as_deref(), Some("old"));
        }
    };
    pool.primaries[0].kill();
    all_exist(&mut client, "while the primary is dead");
    // A token of the acting primary is good.
    let fresh = token(&mut client, "k0");
    assert_eq!(
        client.ask(&format!("cas k0 0 0 3 {fresh}\r\nold")),
        "STORED"
    );
    pool.primaries[0].restart();
    wait_state(&mut client, &pool.primaries[0], &["up", "cold"]);
    all_exist(&mut client, "on the empty primary");
    let fresh = token(&mut client, "k1");
    assert_eq!(
        client.ask(&format!("cas k1 0 0 3 {fresh}\r\nnew")),
        "STORED"
    );
    assert_eq!(client.get("k1").as_deref(), Some("new"));
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

/// Writes while the primary is stopped, and what must be read ever after.
const WHILE_STOPPED: [(&str, Option<&str>); 7] = [
    ("set-old", Some("new")),
    ("set-new", Some("first")),
    ("deleted", None),
    ("counted", Some("11")),
    ("appended", Some("ab")),
    ("touched", Some("old")),
    ("untouched", Some("old")),
];

fn write_before_stop(client: &mut Client) {
    for key in ["set-old", "deleted", "touched", "untouched"] {
        client.set(key, "old");
    }
    client.set("counted", "10");
    client.set("appended", "a");
}

fn write_while_stopped(client: &mut Client) {
    client.set("set-old", "new");
    client.set("set-new", "first");
    assert_eq!(client.ask("delete deleted"), "DELETED");
    assert_eq!(client.ask("incr counted 1"), "11");
    assert_eq!(client.ask("append appended 0 0 1\r\nb"), "STORED");
    assert_eq!(client.ask("touch touched 900"), "TOUCHED");
}

/// A stopped primary misses writes and goes on: options of the proxy, and the number of flushes to expect.
#[track_caller]
fn stopped_primary(options: &[&str], flushes: &str) {
    let pool = Pool::new(1, 1, &[&LAZY, options].concat());
    let mut client = pool.client();
    write_before_stop(&mut client);
    pool.primaries[0].freeze();
    write_while_stopped(&mut client);
    for (key, value) in WHILE_STOPPED {
        assert_eq!(client.get(key).as_deref(), value, "{key} while stopped");
    }
    pool.primaries[0].thaw();
    assert_reads_stay(&mut client, &WHILE_STOPPED);
    wait_state(&mut client, &pool.primaries[0], &["cold"]);
    for (key, _) in WHILE_STOPPED {
        assert_equal_or_absent(&pool.primaries[0], &pool.backups[0], key);
    }
    assert_eq!(replication(&mut client, "entry_flushes"), flushes);
}

#[test]
fn a_stopped_primary_forgets_what_it_missed() {
    stopped_primary(&[], "0");
}

#[test]
fn without_a_journal_a_returning_server_is_flushed() {
    stopped_primary(&["--journal-keys", "0"], "1");
}

#[test]
fn the_first_write_that_meets_a_stopped_primary_is_sound_whatever_it_is() {
    for (key, command, reply) in [
        ("counted", "incr counted 1", "11"),
        ("appended", "append appended 0 0 1\r\nb", "STORED"),
        ("deleted", "delete deleted", "DELETED"),
        ("set-old", "set set-old 0 0 3\r\nnew", "STORED"),
    ] {
        let pool = Pool::new(1, 1, &LAZY);
        let mut client = pool.client();
        write_before_stop(&mut client);
        pool.primaries[0].freeze();
        // It lies in the stopped server's socket, which will carry it out when it goes on.
        assert_eq!(client.ask(command), reply);
        let value = client.get(key);
        pool.primaries[0].thaw();
        assert_reads_stay(&mut client, &[(key, value.as_deref())]);
        wait_state(&mut client, &pool.primaries[0], &["cold"]);
        assert_equal_or_absent(&pool.primaries[0], &pool.backups[0], key);
    }
}

#[test]
fn a_stopped_backup_forgets_what_it_missed() {
    let mut pool = Pool::new(1, 1, &LAZY);
    let mut client = pool.client();
    write_before_stop(&mut client);
    pool.backups[0].freeze();
    write_while_stopped(&mut client);
    pool.backups[0].thaw();
    assert_reads_stay(&mut client, &WHILE_STOPPED);
    wait_state(&mut client, &pool.backups[0], &["cold"]);
    for (key, _) in WHILE_STOPPED {
        assert_equal_or_absent(&pool.backups[0], &pool.primaries[0], key);
    }
    pool.primaries[0].kill();
    assert_nothing_else(&mut client, &WHILE_STOPPED);
}

#[test]
fn what_was_flushed_while_a_server_was_stopped_stays_away() {
    let mut pool = Pool::new(1, 1, &LAZY);
    let mut client = pool.client();
    for frozen_primary in [true, false] {
        client.set("k", "old");
        let server = if frozen_primary {
            &pool.primaries[0]
        } else {
            &pool.backups[0]
        };
        server.freeze();
        assert_eq!(client.ask("flush_all"), "OK");
        client.set("after", "kept");
        server.thaw();
        assert_reads_stay(&mut client, &[("k", None), ("after", Some("kept"))]);
        wait_state(&mut client, server, &["cold"]);
        assert_eq!(item(&mut server.client(), "k"), "EN");
    }
    pool.primaries[0].kill();
    assert_eq!(client.get("k"), None);
    assert_nothing_else(&mut client, &[("after", Some("kept"))]);
}

/// A proxy serves while a server is stopped, and dies; the server goes on; then `later` is asked, a proxy that ran beside
/// it all the time or is started only now.
#[track_caller]
fn taken_over(stop_primary: bool, beside: bool) {
    let mut pool = Pool::new(1, 1, &[&LAZY[..], &["--proxy-id", "first"]].concat());
    let mut later = beside.then(|| pool.another(&[&LAZY[..], &["--proxy-id", "second"]].concat()));
    let mut client = pool.client();
    write_before_stop(&mut client);
    let stopped = if stop_primary {
        &pool.primaries[0]
    } else {
        &pool.backups[0]
    };
    stopped.freeze();
    write_while_stopped(&mut client);
    // The second may look on for a while: it must not make anything of it.
    let second = later.take();
    let replacement = match second {
        Some(proxy) => proxy,
        None => pool.another(&[&LAZY[..], &["--proxy-id", "first"]].concat()),
    };
    std::mem::replace(&mut pool.proxy, replacement).end(Signal::SIGKILL);
    stopped.thaw();
    let mut client = pool.client();
    assert_reads_stay(&mut client, &WHILE_STOPPED);
    wait_state(&mut client, stopped, &["cold"]);
    let (server, other) = if stop_primary {
        (&pool.primaries[0], &pool.backups[0])
    } else {
        (&pool.backups[0], &pool.primaries[0])
    };
    for (key, _) in WHILE_STOPPED {
        assert_equal_or_absent(server, other, key);
    }
    pool.primaries[0].kill();
    assert_nothing_else(&mut client, &WHILE_STOPPED);
}

#[test]
fn a_second_proxy_knows_what_a_stopped_primary_missed() {
    taken_over(true, true);
}

#[test]
fn a_second_proxy_knows_what_a_stopped_backup_missed() {
    taken_over(false, true);
}

#[test]
fn a_proxy_started_while_a_primary_is_away_knows_what_it_missed() {
    taken_over(true, false);
}

#[test]
fn a_proxy_started_while_a_backup_is_away_knows_what_it_missed() {
    taken_over(false, false);
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
fn as_magent_0_6_an_empty_primary_misses() {
    let mut pool = Pool::new(1, 1, &["--rejoin", "as-is", "--read-repair", "off"]);
    let mut client = pool.client();
    client.set("k", "value");
    pool.primaries[0].kill();
    assert_eq!(client.get("k").as_deref(), Some("value"));
    pool.primaries[0].restart();
    wait_state(&mut client, &pool.primaries[0], &["up"]);
    assert_eq!(client.get("k"), None);
    assert_eq!(client.ask("add k 0 0 1\r\nx"), "STORED");
    assert_eq!(client.get("k").as_deref(), Some("x"));
}

#[test]
fn stamps_can_be_seen_and_not_be_written() {
    let mut pool = Pool::new(1, 1, &[]);
    let mut client = pool.client();
    let key = replication(&mut client, "stamp_key");
    assert_eq!(client.get(&key), None, "nothing was missed yet");
    client.set("k", "value");
    pool.backups[0].kill();
    wait_for("the backup is left out", PATIENCE, || {
        client.set("k", "value");
        client.get(&key).is_some()
    });
    let stamp = client.get(&key).unwrap();
    let view = replication(&mut client, "view");
    assert!(stamp.starts_with(&format!("1 {view} ")), "{stamp}");
    assert_eq!(pool.primaries[0].client().get(&key), Some(stamp.clone()));
    for command in [
        "set K 0 0 1\r\nx",
        "add K 0 0 1\r\nx",
        "replace K 0 0 1\r\nx",
        "append K 0 0 1\r\nx",
        "cas K 0 0 1 1\r\nx",
        "delete K",
        "incr K 1",
        "touch K 1",
        "ms K 1\r\nx",
        "md K",
        "ma K",
    ] {
        let reply = client.ask(&command.replace('K', &key));
        assert!(reply.starts_with("CLIENT_ERROR "), "{command:?}: {reply}");
    }
    assert_eq!(client.get(&key), Some(stamp));
    assert_eq!(client.get("k").as_deref(), Some("value"));
}

#[test]
fn with_ack_primary_the_copies_follow() {
    let mut pool = Pool::new(1, 1, &["--ack", "primary"]);
    let mut client = pool.client();
    write_before_stop(&mut client);
    write_while_stopped(&mut client);
    for (key, value) in WHILE_STOPPED {
        wait_for("the copy follows", PATIENCE, || {
            pool.backups[0].client().get(key).as_deref() == value
        });
    }
    pool.primaries[0].kill();
    for (key, value) in WHILE_STOPPED {
        assert_eq!(client.get(key).as_deref(), value);
    }
    pool.primaries[0].restart();
    for (key, value) in WHILE_STOPPED {
        assert_eq!(client.get(key).as_deref(), value);
    }
    wait_state(&mut client, &pool.primaries[0], &["up"]);
    pool.backups[0].freeze();
    // A stopped backup costs nobody anything.
    let (_, time) = common::timed(|| client.set("k", "value"));
    assert!(time < Duration::from_millis(150), "set took {time:?}");
    pool.backups[0].thaw();
}
