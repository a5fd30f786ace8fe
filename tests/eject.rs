//! `--eject`: the keys of a dead primary go to the others, come back, and nothing old is served, neither by the primary
//! that returns nor by those that stood in for it. All on real servers.

use crate::common;

use std::collections::BTreeMap;

use common::pool::{replication, wait_state};
use common::rng::Rng;
use common::{wait_for, Client, Magent, Memcached, PATIENCE};

const KEYS: usize = 60;

struct Pool {
    servers: Vec<Memcached>,
    proxy: Magent,
}

impl Pool {
    fn new(count: usize, options: &[&str]) -> Pool {
        let servers: Vec<_> = (0..count).map(|_| Memcached::start()).collect();
        let proxy = front(&servers, options);
        Pool { servers, proxy }
    }

    fn client(&self) -> Client {
        self.proxy.client()
    }
}

/// A proxy with `--eject` over `servers`.
fn front(servers: &[Memcached], options: &[&str]) -> Magent {
    let ports: Vec<u16> = servers.iter().map(Memcached::port).collect();
    let options: Vec<&str> = [&["--eject"], options].concat();
    Magent::front(&ports, &[]).args(&options).start()
}

/// Goes on asking for a key until no server is said to hold keys of another one.
#[track_caller]
fn wait_tidied(client: &mut Client, servers: &[Memcached]) {
    wait_for("each key is at its primary", PATIENCE, || {
        let _ = client.ask("get no-such-key");
        servers.iter().all(|server| {
            replication(
                client,
                &format!("127.0.0.1:{}:ejected_place", server.port()),
            ) == "0"
        })
    });
}

fn key(n: usize) -> String {
    format!("key:{n}")
}

fn set_all(client: &mut Client, value: &str) {
    for n in 0..KEYS {
        client.set(&key(n), &format!("{value}-{n}"));
    }
}

/// Keys whose primary is server 0 of `servers`.
fn of_first(servers: usize) -> Vec<usize> {
    let all = 0..KEYS;
    all.filter(|&n| common::djb31(key(n).as_bytes()) as usize % servers == 0)
        .collect()
}

/// What a server itself holds of a key.
fn held(server: &Memcached, n: usize) -> Option<String> {
    server.client().get(&key(n))
}

#[test]
fn keys_of_a_dead_primary_go_on_at_all_the_others() {
    let mut pool = Pool::new(4, &[]);
    let mut client = pool.client();
    set_all(&mut client, "before");
    pool.servers[0].kill();
    wait_state(&mut client, &pool.servers[0], &["down"]);
    for n in 0..KEYS {
        let expect = (!of_first(4).contains(&n)).then(|| format!("before-{n}"));
        assert_eq!(client.get(&key(n)), expect, "only its keys are missed");
    }
    // As on a server that has nothing of them.
    let name = key(of_first(4)[0]);
    assert_eq!(client.ask(&format!("incr {name} 1")), "NOT_FOUND");
    assert_eq!(client.ask(&format!("delete {name}")), "NOT_FOUND");
    assert_eq!(client.ask(&format!("add {name} 0 0 1\r\n5")), "STORED");
    assert_eq!(client.ask(&format!("add {name} 0 0 1\r\n6")), "NOT_STORED");
    assert_eq!(client.ask(&format!("incr {name} 1")), "6");
    set_all(&mut client, "after");
    let list: Vec<String> = (0..KEYS).map(key).collect();
    let reply = client.ask(&format!("get {}", list.join(" ")));
    for n in 0..KEYS {
        assert!(
            reply.contains(&format!("\r\nafter-{n}\r\n")),
            "{n}: {reply}"
        );
    }
    for server in &pool.servers[1..] {
        let guests = of_first(4);
        let here = guests
            .iter()
            .filter(|&&n| held(server, n).is_some())
            .count();
        assert!(here > 0, "one of the others has none of {guests:?}");
    }
    assert_eq!(client.stat("magent_failed_writes"), "0");
    let stats = client.ask("stats servers");
    let first = format!("STAT 127.0.0.1:{}:ejected yes\r", pool.servers[0].port());
    assert!(stats.contains(&first), "{stats}");
    assert!(client
        .ask("stats settings")
        .contains("STAT magent_eject yes\r"));
}

#[test]
fn without_it_they_are_misses_and_errors() {
    let mut servers: Vec<_> = (0..2).map(|_| Memcached::start()).collect();
    let ports: Vec<u16> = servers.iter().map(Memcached::port).collect();
    let proxy = Magent::front(&ports, &[]).start();
    let mut client = proxy.client();
    set_all(&mut client, "before");
    servers[0].kill();
    wait_state(&mut client, &servers[0], &["down"]);
    let name = key(of_first(2)[0]);
    assert_eq!(client.get(&name), None);
    assert_eq!(
        client.ask(&format!("set {name} 0 0 1\r\nx")),
        "SERVER_ERROR no server for this key is up"
    );
}

/// The primary is away, by `leave`, and returns, by `enter`; then once more.
fn two_absences(
    options: &[&str],
    leave: impl Fn(&mut Memcached),
    enter: impl Fn(&mut Memcached),
) -> (Pool, Client) {
    let mut pool = Pool::new(3, options);
    let mut client = pool.client();
    let guests = of_first(3);
    set_all(&mut client, "before");
    leave(&mut pool.servers[0]);
    wait_state(&mut client, &pool.servers[0], &["down"]);
    for &n in &guests[..guests.len() - 2] {
        client.set(&key(n), &format!("during-{n}"));
    }
    assert_eq!(client.ask(&format!("delete {}", key(guests[1]))), "DELETED");
    enter(&mut pool.servers[0]);
    wait_state(&mut client, &pool.servers[0], &["up"]);
    for &n in &guests[..guests.len() - 2] {
        assert_eq!(
            client.get(&key(n)),
            None,
            "{n}: written elsewhere meanwhile"
        );
    }
    // Some are written, one is deleted at home, some are left alone; at once, before anything is tidied.
    for &n in &guests[..4] {
        client.set(&key(n), &format!("after-{n}"));
    }
    client.ask(&format!("delete {}", key(guests[4])));
    leave(&mut pool.servers[0]);
    wait_state(&mut client, &pool.servers[0], &["down"]);
    for &n in &guests[..5] {
        assert_eq!(client.get(&key(n)), None, "{n}: from the first absence");
    }
    // Nobody has written these since; to have them still, or not, is both right.
    for &n in &guests[5..guests.len() - 2] {
        let value = client.get(&key(n));
        assert!(
            value.is_none() || value == Some(format!("during-{n}")),
            "{value:?}"
        );
    }
    enter(&mut pool.servers[0]);
    wait_state(&mut client, &pool.servers[0], &["up"]);
    wait_tidied(&mut client, &pool.servers);
    for &n in &guests {
        for server in &pool.servers[1..] {
            assert_eq!(held(server, n), None, "{n}: tidied");
        }
    }
    for n in (0..KEYS).filter(|n| !guests.contains(n)) {
        assert_eq!(
            client.get(&key(n)),
            Some(format!("before-{n}")),
            "not its key"
        );
    }
    (pool, client)
}

#[test]
fn a_killed_primary_comes_back_empty_and_nothing_is_stale() {
    two_absences(&[], Memcached::kill, Memcached::restart);
}

#[test]
fn a_stopped_primary_comes_back_with_old_values_and_nothing_is_stale() {
    let (pool, mut client) = two_absences(&[], |s| s.freeze(), |s| s.thaw());
    // What nobody wrote meanwhile is still there.
    for &n in of_first(3).iter().rev().take(2) {
        assert_eq!(client.get(&key(n)), Some(format!("before-{n}")));
    }
    assert_eq!(replication(&mut client, "entry_flushes"), "0");
    drop(pool);
}

#[test]
fn without_a_journal_a_stopped_primary_is_flushed() {
    let mut pool = Pool::new(3, &["--journal-keys", "0"]);
    let mut client = pool.client();
    let guests = of_first(3);
    set_all(&mut client, "before");
    for round in 1..=2 {
        pool.servers[0].freeze();
        wait_state(&mut client, &pool.servers[0], &["down"]);
        assert_eq!(client.get(&key(guests[0])), None, "round {round}");
        client.set(&key(guests[0]), "during");
        pool.servers[0].thaw();
        wait_state(&mut client, &pool.servers[0], &["up"]);
        for &n in &guests {
            assert_eq!(client.get(&key(n)), None);
        }
        assert_eq!(replication(&mut client, "entry_flushes"), round.to_string());
        client.set(&key(guests[0]), "after");
    }
    pool.servers[0].kill();
    wait_state(&mut client, &pool.servers[0], &["down"]);
    assert_eq!(client.get(&key(guests[0])), None);
}

/// Another proxy takes over while the primary is away, and another when it is back.
fn taken_over(beside: bool) {
    let mut pool = Pool::new(3, &[]);
    let waiting: Vec<Magent> = (0..2 * usize::from(beside))
        .map(|_| front(&pool.servers, &[]))
        .collect();
    let mut waiting = waiting.into_iter();
    let mut client = pool.client();
    let guests = of_first(3);
    set_all(&mut client, "before");
    pool.servers[0].freeze();
    client.ask("get key:0");
    wait_state(&mut client, &pool.servers[0], &["down"]);
    for &n in &guests {
        client.set(&key(n), "during");
    }
    drop(pool.proxy);
    let second = waiting.next().unwrap_or_else(|| front(&pool.servers, &[]));
    let mut client = second.client();
    for &n in &guests {
        assert_eq!(client.get(&key(n)).as_deref(), Some("during"));
    }
    pool.servers[0].thaw();
    wait_state(&mut client, &pool.servers[0], &["up"]);
    for &n in &guests {
        assert_eq!(
            client.get(&key(n)),
            None,
            "the journal is gone, so it is flushed"
        );
    }
    for &n in &guests[..3] {
        client.set(&key(n), "after");
    }
    let third = waiting.next();
    if let Some(third) = &third {
        // It looks once in a second. Before that the primary would be ejected anew, and missed.
        let mut client = third.client();
        let name = format!("127.0.0.1:{}:state", pool.servers[0].port());
        wait_for("the proxy beside knows it is back", PATIENCE, || {
            replication(&mut client, &name) == "up"
        });
    }
    drop(second);
    let third = third.unwrap_or_else(|| front(&pool.servers, &[]));
    let mut client = third.client();
    for &n in &guests[..3] {
        assert_eq!(client.get(&key(n)).as_deref(), Some("after"));
    }
    client.ask(&format!("delete {}", key(guests[3])));
    pool.servers[0].kill();
    wait_state(&mut client, &pool.servers[0], &["down"]);
    for &n in &guests[..4] {
        assert_eq!(client.get(&key(n)), None, "from the first absence");
    }
    assert_eq!(replication(&mut client, "ejected_keys_complete"), "no");
    let place = format!("127.0.0.1:{}:ejected_place", pool.servers[0].port());
    pool.servers[0].restart();
    wait_state(&mut client, &pool.servers[0], &["up"]);
    if beside {
        // A flush leaves nothing anywhere, so nothing has to be known any more.
        assert_eq!(client.ask("flush_all"), "OK");
        assert_eq!(replication(&mut client, &place), "0");
        return;
    }
    // Nobody knows which keys there are: the servers are asked.
    set_all(&mut client, "kept");
    assert_ne!(replication(&mut client, &place), "0");
    wait_tidied(&mut client, &pool.servers);
    for n in 0..KEYS {
        assert_eq!(client.get(&key(n)), Some(format!("kept-{n}")));
        let home = common::djb31(key(n).as_bytes()) as usize % 3;
        for other in (0..3).filter(|&other| other != home) {
            assert_eq!(held(&pool.servers[other], n), None, "{n} on {other}");
        }
    }
}

#[test]
fn a_proxy_started_meanwhile_knows_what_others_stood_in_for() {
    taken_over(false);
}

#[test]
fn a_proxy_beside_knows_what_others_stood_in_for() {
    taken_over(true);
}

#[test]
fn one_stand_in_after_the_other() {
    let mut pool = Pool::new(3, &[]);
    let mut client = pool.client();
    let n = of_first(3)[0];
    client.set(&key(n), "home");
    pool.servers[0].freeze();
    wait_state(&mut client, &pool.servers[0], &["down"]);
    client.set(&key(n), "first");
    let stand_in = (1..3)
        .find(|&s| held(&pool.servers[s], n).is_some())
        .expect("somebody has it");
    let other = 3 - stand_in;
    pool.servers[stand_in].freeze();
    wait_state(&mut client, &pool.servers[stand_in], &["down"]);
    assert_eq!(client.get(&key(n)), None);
    client.set(&key(n), "second");
    assert_eq!(held(&pool.servers[other], n).as_deref(), Some("second"));
    pool.servers[stand_in].thaw();
    wait_state(&mut client, &pool.servers[stand_in], &["up"]);
    assert_eq!(client.get(&key(n)), None, "it was written elsewhere");
    client.set(&key(n), "third");
    pool.servers[stand_in].kill();
    wait_state(&mut client, &pool.servers[stand_in], &["down"]);
    assert_eq!(client.get(&key(n)), None, "not the second value");
    pool.servers[0].thaw();
    wait_state(&mut client, &pool.servers[0], &["up"]);
    assert_eq!(client.get(&key(n)), None, "not the one from home");
    pool.servers[stand_in].restart();
    wait_state(&mut client, &pool.servers[stand_in], &["up"]);
    wait_tidied(&mut client, &pool.servers);
}

/// Random writes, reads and absences, one server at a time: a read finds what was written last, or nothing.
#[test]
fn whoever_leaves_and_returns_nothing_old_is_read() {
    let mut pool = Pool::new(3, &[]);
    let mut client = pool.client();
    let mut rng = Rng(11);
    let mut last: BTreeMap<usize, Option<String>> = BTreeMap::new();
    let mut hits = 0;
    for round in 0..14 {
        let server = rng.below(3);
        let kills = rng.one_in(2);
        match kills {
            true => pool.servers[server].kill(),
            false => pool.servers[server].freeze(),
        }
        for phase in 0..2 {
            for step in 0..150 {
                let n = rng.below(KEYS);
                if rng.one_in(3) {
                    let value = format!("{round}-{phase}-{step}");
                    let reply =
                        client.ask(&format!("set {} 0 0 {}\r\n{value}", key(n), value.len()));
                    match reply.as_str() {
                        "STORED" => last.insert(n, Some(value)),
                        // In flight when its server was lost: nobody knows.
                        lost if lost.starts_with("SERVER_ERROR") => last.remove(&n),
                        other => panic!("{other}"),
                    };
                } else if rng.one_in(10) {
                    let reply = client.ask(&format!("delete {}", key(n)));
                    if reply.starts_with("SERVER_ERROR") {
                        last.remove(&n);
                    } else {
                        last.insert(n, None);
                    }
                } else if let (Some(found), Some(known)) = (client.get(&key(n)), last.get(&n)) {
                    hits += 1;
                    assert_eq!(Some(found), *known, "key {n}, {round}-{phase}-{step}");
                }
            }
            if phase == 0 {
                match kills {
                    true => pool.servers[server].restart(),
                    false => pool.servers[server].thaw(),
                }
                wait_state(&mut client, &pool.servers[server], &["up"]);
            }
        }
    }
    assert!(hits > 500, "{hits}");
}
