//! The drills that magent's guides print, on real servers: who holds which key, kill, freeze, start again, all dead.
//!
//! Placement is that of magent 0.6: with two primaries key1 lies on the second and key2 on the first.

use crate::common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::{
    timed, wait_for, Client, Magent, Memcached, ABOUT_ONE_TIMEOUT, AT_ONCE, PATIENCE, TIMEOUT,
};

struct Farm {
    primaries: Vec<Memcached>,
    backups: Vec<Memcached>,
    proxy: Magent,
}

impl Farm {
    fn new(primaries: usize, backups: usize, options: &[&str]) -> Farm {
        let primaries: Vec<_> = (0..primaries).map(|_| Memcached::start()).collect();
        let backups: Vec<_> = (0..backups).map(|_| Memcached::start()).collect();
        let proxy = Magent::front(&ports(&primaries), &ports(&backups))
            .args(options)
            .start();
        Farm {
            primaries,
            backups,
            proxy,
        }
    }

    fn client(&self) -> Client {
        self.proxy.client()
    }

    fn kill_primaries(&mut self) {
        self.primaries.iter_mut().for_each(Memcached::kill);
    }
}

fn ports(servers: &[Memcached]) -> Vec<u16> {
    servers.iter().map(Memcached::port).collect()
}

/// Which of the servers hold the key with this value, asked directly. Copies may be a moment late, so this waits
/// until the holders are as expected and panics with what they are if they never become so.
#[track_caller]
fn assert_held(servers: &[Memcached], key: &str, value: &str, holders: &[usize]) {
    let held = || -> Vec<usize> {
        let holds = |n: &usize| servers[*n].client().get(key).as_deref() == Some(value);
        (0..servers.len()).filter(holds).collect()
    };
    wait_for(
        &format!("{key}={value} is held by {holders:?}"),
        PATIENCE,
        || held() == holders,
    );
}

/// Writes go on over the return of a server: each is acknowledged, until the server itself has one and gives it back.
#[track_caller]
fn assert_writes_return(client: &mut Client, key: &str, server: &Memcached) {
    let mut round = 0;
    wait_for(
        &format!("{key} is written to the returned server"),
        PATIENCE,
        || {
            round += 1;
            let value = format!("round{round}");
            client.set(key, &value);
            server.client().get(key) == Some(value.clone()) && client.get(key) == Some(value)
        },
    );
}

#[test]
fn two_primaries_and_a_backup() {
    let mut farm = Farm::new(2, 1, &[]);
    let mut client = farm.client();
    client.set("key1", "value1");
    client.set("key2", "value2");
    assert_held(&farm.primaries, "key1", "value1", &[1]);
    assert_held(&farm.primaries, "key2", "value2", &[0]);
    assert_held(&farm.backups, "key1", "value1", &[0]);
    assert_held(&farm.backups, "key2", "value2", &[0]);

    farm.kill_primaries();
    assert_eq!(client.get("key1").as_deref(), Some("value1"));
    assert_eq!(client.get("key2").as_deref(), Some("value2"));
    assert_eq!(
        client.ask("get key1 key2 nokey"),
        "VALUE key1 0 6\r\nvalue1\r\nVALUE key2 0 6\r\nvalue2\r\nEND"
    );
    client.set("key1", "while-down");
    client.set("key3", "new-while-down");
    assert_eq!(client.get("key1").as_deref(), Some("while-down"));
    assert_eq!(client.get("key3").as_deref(), Some("new-while-down"));
    assert_held(&farm.backups, "key1", "while-down", &[0]);

    farm.primaries.iter_mut().for_each(Memcached::restart);
    let (first, second) = (&farm.primaries[0], &farm.primaries[1]);
    assert_writes_return(&mut client, "key1", second);
    assert_writes_return(&mut client, "key2", first);
    let mut another = farm.client();
    assert!(another
        .get("key1")
        .is_some_and(|value| value.starts_with("round")));
    assert_held(&farm.primaries, "key1", &another.get("key1").unwrap(), &[1]);
}

#[test]
fn five_keys_alternate_between_two_primaries() {
    let farm = Farm::new(2, 0, &[]);
    let mut client = farm.client();
    for (n, holder) in [(1, 1), (2, 0), (3, 1), (4, 0), (5, 1)] {
        client.set(&format!("key{n}"), "x");
        assert_held(&farm.primaries, &format!("key{n}"), "x", &[holder]);
    }
}

#[test]
fn three_primaries_and_two_backups_with_one_copy() {
    let mut farm = Farm::new(3, 2, &["--copies", "1"]);
    let mut client = farm.client();
    // Key, primary, backup: as magent 0.6 places them.
    let places = [("key1", 0, 1), ("key2", 1, 0), ("key3", 2, 1)];
    for (key, primary, backup) in places {
        client.set(key, key);
        assert_held(&farm.primaries, key, key, &[primary]);
        assert_held(&farm.backups, key, key, &[backup]);
    }
    let all = "VALUE key1 0 4\r\nkey1\r\nVALUE key2 0 4\r\nkey2\r\nVALUE key3 0 4\r\nkey3\r\nEND";
    assert_eq!(client.ask("get key1 key2 key3"), all);

    farm.kill_primaries();
    for (key, _, _) in places {
        assert_eq!(client.get(key).as_deref(), Some(key));
    }
    assert_eq!(client.ask("get key1 key2 key3"), all);

    // The first backup has key2 only.
    farm.backups[0].kill();
    assert_eq!(client.get("key1").as_deref(), Some("key1"));
    assert_eq!(client.get("key2"), None);
    assert_eq!(
        client.ask("get key1 key2 key3"),
        "VALUE key1 0 4\r\nkey1\r\nVALUE key3 0 4\r\nkey3\r\nEND"
    );
}

#[test]
fn three_primaries_and_two_backups_with_all_copies() {
    let mut farm = Farm::new(3, 2, &[]);
    let mut client = farm.client();
    for (key, primary) in [("key1", 0), ("key2", 1), ("key3", 2)] {
        client.set(key, key);
        assert_held(&farm.primaries, key, key, &[primary]);
        assert_held(&farm.backups, key, key, &[0, 1]);
    }
    farm.kill_primaries();
    for dead in [0, 1] {
        farm.backups[dead].kill();
        for key in ["key1", "key2", "key3"] {
            assert_eq!(
                client.get(key).as_deref(),
                Some(key),
                "backup {dead} is dead"
            );
        }
        assert_eq!(client.ask("get key3 key2 key1").matches("VALUE").count(), 3);
        farm.backups[dead].restart();
        // The other one may only die when this one serves and holds the keys again.
        for key in ["key1", "key2", "key3"] {
            wait_for("the backup holds the key again", PATIENCE, || {
                client.set(key, key);
                farm.backups[dead].client().get(key).is_some()
            });
        }
    }
}

#[test]
fn one_primary_and_one_backup() {
    let mut farm = Farm::new(1, 1, &[]);
    let mut client = farm.client();
    client.set("test", "value");
    assert_held(&farm.backups, "test", "value", &[0]);
    farm.kill_primaries();
    assert_eq!(client.get("test").as_deref(), Some("value"));
    farm.primaries[0].restart();
    assert_writes_return(&mut client, "test", &farm.primaries[0]);
    assert!(farm.client().get("test").is_some());
}

#[test]
fn a_frozen_primary_costs_one_timeout_once() {
    let farm = Farm::new(2, 1, &[]);
    let mut client = farm.client();
    client.set("key1", "value1");
    client.set("key2", "value2");
    assert_held(&farm.backups, "key1", "value1", &[0]);
    assert_held(&farm.backups, "key2", "value2", &[0]);
    farm.primaries[1].freeze();
    let (value, time) = timed(|| client.get("key1"));
    assert_eq!(value.as_deref(), Some("value1"));
    assert!(time < ABOUT_ONE_TIMEOUT, "the first get took {time:?}");
    for round in 0..20 {
        let (value, time) = timed(|| client.get("key1"));
        assert_eq!(value.as_deref(), Some("value1"));
        assert!(time < AT_ONCE, "get {round} after the first took {time:?}");
        let ((), time) = timed(|| client.set("key1", "value1"));
        assert!(time < AT_ONCE, "set {round} after the first took {time:?}");
        assert_eq!(client.get("key2").as_deref(), Some("value2"));
    }
    farm.primaries[1].thaw();
    assert_writes_return(&mut client, "key1", &farm.primaries[1]);
}

#[test]
fn a_frozen_primary_is_found_by_a_write_too() {
    let farm = Farm::new(1, 1, &[]);
    let mut client = farm.client();
    farm.primaries[0].freeze();
    let ((), time) = timed(|| client.set("key1", "first"));
    assert!(time < ABOUT_ONE_TIMEOUT, "the first set took {time:?}");
    assert_eq!(client.get("key1").as_deref(), Some("first"));
    assert_held(&farm.backups, "key1", "first", &[0]);
}

#[test]
fn everything_frozen_is_answered_and_recovers() {
    let farm = Farm::new(1, 1, &[]);
    let mut client = farm.client();
    client.set("key1", "value1");
    farm.primaries[0].freeze();
    farm.backups[0].freeze();
    let (reply, time) = timed(|| client.ask("get key1"));
    assert_eq!(reply, "END");
    assert!(time < 2 * ABOUT_ONE_TIMEOUT, "get took {time:?}");
    let (reply, time) = timed(|| client.ask("set key1 0 0 1\r\nx"));
    assert!(reply.starts_with("SERVER_ERROR "), "set answered {reply}");
    assert!(time < 2 * ABOUT_ONE_TIMEOUT, "set took {time:?}");
    let (reply, time) = timed(|| client.ask("get key1"));
    assert_eq!(reply, "END");
    assert!(time < AT_ONCE, "the next get took {time:?}");
    farm.primaries[0].thaw();
    farm.backups[0].thaw();
    wait_for("one of them is back", PATIENCE, || {
        client.ask("set key1 0 0 1\r\nx") == "STORED"
    });
    assert_writes_return(&mut client, "key1", &farm.primaries[0]);
}

#[test]
fn all_dead_is_an_error_at_once_and_recovers_by_itself() {
    let mut farm = Farm::new(2, 1, &[]);
    let mut client = farm.client();
    client.set("key1", "value1");
    let misses = |client: &mut Client| client.stat("get_misses").parse::<u64>().unwrap();
    let before = misses(&mut client);
    farm.kill_primaries();
    farm.backups[0].kill();
    for round in 0..10 {
        for command in [
            "set key1 0 0 1\r\nx",
            "add key2 0 0 1\r\nx",
            "append key1 0 0 1\r\nx",
            "cas key1 0 0 1 1\r\nx",
            "delete key1",
            "incr key1 1",
            "touch key1 0",
        ] {
            let (reply, time) = timed(|| client.ask(command));
            assert!(
                reply.starts_with("SERVER_ERROR "),
                "{command:?} answered {reply}"
            );
            assert!(time < AT_ONCE, "round {round}: {command:?} took {time:?}");
        }
        for command in ["get key1", "get key1 key2", "gets key2"] {
            let (reply, time) = timed(|| client.ask(command));
            assert_eq!(reply, "END", "{command}");
            assert!(time < AT_ONCE, "round {round}: {command} took {time:?}");
        }
    }
    assert_eq!(
        misses(&mut client) - before,
        10 * 4,
        "every unanswered key is a miss"
    );

    farm.primaries.iter_mut().for_each(Memcached::restart);
    farm.backups[0].restart();
    for (key, holder) in [("key1", 1), ("key2", 0)] {
        wait_for("writes are taken again", PATIENCE, || {
            client.ask(&format!("set {key} 0 0 4\r\nback")) == "STORED"
        });
        assert_eq!(client.get(key).as_deref(), Some("back"));
        assert_writes_return(&mut client, key, &farm.primaries[holder]);
    }
}

#[test]
fn nothing_there_at_the_start_is_served_when_it_comes() {
    let mut primary = Memcached::start();
    primary.kill();
    let proxy = Magent::front(&[primary.port()], &[]).start();
    let mut client = proxy.client();
    let reply = client.ask("set key1 0 0 1\r\nx");
    assert!(reply.starts_with("SERVER_ERROR "), "set answered {reply}");
    assert_eq!(client.get("key1"), None);
    primary.restart();
    wait_for("writes are taken", PATIENCE, || {
        client.ask("set key1 0 0 1\r\nx") == "STORED"
    });
    assert_eq!(client.get("key1").as_deref(), Some("x"));
}

#[test]
fn a_dead_backup_is_noticed_by_nobody() {
    let mut farm = Farm::new(2, 1, &[]);
    let mut client = farm.client();
    client.set("key1", "1");
    farm.backups[0].kill();
    for round in 2..40 {
        let ((), time) = timed(|| client.set("key1", &round.to_string()));
        assert!(time < AT_ONCE, "set took {time:?}");
        assert_eq!(client.get("key1"), Some(round.to_string()));
        assert_eq!(client.ask("incr key1 1"), (round + 1).to_string());
        assert_eq!(client.ask("add key1 0 0 1\r\nx"), "NOT_STORED");
        assert_eq!(client.ask("delete nokey"), "NOT_FOUND");
    }
    farm.backups[0].restart();
    assert_writes_return(&mut client, "key1", &farm.backups[0]);
}

#[test]
fn a_frozen_backup_costs_at_most_one_timeout_once() {
    let farm = Farm::new(1, 1, &[]);
    let mut client = farm.client();
    client.set("key1", "0");
    farm.backups[0].freeze();
    let ((), time) = timed(|| client.set("key1", "1"));
    assert!(time < ABOUT_ONE_TIMEOUT, "the first set took {time:?}");
    // Longer than the timeout in all, so that every way of noticing it has had its time.
    let begin = std::time::Instant::now();
    let mut round = 1;
    while begin.elapsed() < TIMEOUT + TIMEOUT / 4 {
        round += 1;
        std::thread::sleep(Duration::from_millis(5));
        let ((), time) = timed(|| client.set("key1", &round.to_string()));
        assert!(time < ABOUT_ONE_TIMEOUT, "set {round} took {time:?}");
        let (value, time) = timed(|| client.get("key1"));
        assert_eq!(value, Some(round.to_string()));
        assert!(time < AT_ONCE, "get {round} took {time:?}");
    }
    for _ in 0..20 {
        let ((), time) = timed(|| client.set("key1", "last"));
        assert!(time < AT_ONCE, "a later set took {time:?}");
    }
    farm.backups[0].thaw();
    assert_writes_return(&mut client, "key1", &farm.backups[0]);
}

#[test]
fn a_client_works_on_through_kill_and_return() {
    let mut farm = Farm::new(1, 1, &[]);
    let proxy_port = farm.proxy.port();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let stop = &stop;
        let end = StopOnDrop(stop);
        let worker = scope.spawn(move || {
            let mut client = Client::connect(proxy_port);
            let (mut rounds, mut misses) = (0u64, 0);
            while !stop.load(Ordering::SeqCst) {
                rounds += 1;
                let value = rounds.to_string();
                let (reply, time) =
                    timed(|| client.ask(&format!("set key1 0 0 {}\r\n{value}", value.len())));
                assert!(time < 2 * ABOUT_ONE_TIMEOUT, "set took {time:?}");
                assert_eq!(reply, "STORED", "one of the two always takes it");
                // Between the two the other server may have come (back, empty): a miss, but never an older value.
                match client.get("key1") {
                    Some(found) => assert_eq!(found, value),
                    None => misses += 1,
                }
            }
            (rounds, misses)
        });
        for _ in 0..3 {
            farm.primaries[0].kill();
            farm.primaries[0].restart();
            let mut client = Client::connect(proxy_port);
            assert_writes_return_beside(&mut client, &farm.primaries[0]);
            farm.backups[0].kill();
            farm.backups[0].restart();
            assert_writes_return_beside(&mut client, &farm.backups[0]);
        }
        drop(end);
        let (rounds, misses) = worker.join().expect("the worker's assertions hold");
        assert!(rounds > 50, "only {rounds} rounds");
        assert!(misses * 10 < rounds, "{misses} misses in {rounds} rounds");
    });
}

/// Stops the worker, also when an assertion of the main thread fails: the scope would wait for it for ever.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// As `assert_writes_return`, with a key that nobody else writes.
#[track_caller]
fn assert_writes_return_beside(client: &mut Client, server: &Memcached) {
    assert_writes_return(client, "key-beside", server);
}
