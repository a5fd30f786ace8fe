//! Requests that are in flight when a server is lost, or that are answered too late.

use std::time::Duration;

use super::rows::*;
use crate::common::fake::{healthy, Do, Fake};
use crate::common::{timed, Magent, Memcached, Pool};

/// Nobody is given up for silence here.
const PATIENT: [&str; 2] = ["--timeout", "10000"];
const LOST: &str = "SERVER_ERROR the server for this key was lost before it answered";
const LATE: &str = "SERVER_ERROR the server for this key did not answer in time";

/// Waits until so many requests are in flight to servers.
#[track_caller]
fn wait_in_flight(pool: &Pool, count: u64) {
    let mut client = pool.client();
    crate::common::wait_for(
        "the requests are in flight",
        crate::common::PATIENCE,
        || client.stat("magent_in_flight").parse::<u64>().unwrap() >= count,
    );
}

#[test]
fn at_the_acting_primary() {
    let mut pool = Pool::new(1, 1, &PATIENT);
    let mut client = pool.client();
    set_all(&mut client);
    // Stopped, so that it answers nothing, and killed with all of it in its hands.
    pool.primaries[0].freeze();
    let replies = all_at_once(&mut pool, |pool| {
        wait_in_flight(pool, ROWS.len() as u64);
        pool.primaries[0].kill();
    });
    for (n, reply) in replies.iter().enumerate() {
        assert_usual(n, reply, &mut client, "the primary died with it");
    }
}

#[test]
fn at_another_copy() {
    let mut pool = Pool::new(1, 1, &PATIENT);
    let mut client = pool.client();
    set_all(&mut client);
    pool.backups[0].freeze();
    let replies = all_at_once(&mut pool, |pool| {
        wait_in_flight(pool, 20);
        pool.backups[0].kill();
    });
    for (n, reply) in replies.iter().enumerate() {
        assert_usual(n, reply, &mut client, "the backup died with it");
    }
}

#[test]
fn at_all_copies() {
    let mut pool = Pool::new(1, 1, &PATIENT);
    let mut client = pool.client();
    set_all(&mut client);
    pool.primaries[0].freeze();
    pool.backups[0].freeze();
    let replies = all_at_once(&mut pool, |pool| {
        wait_in_flight(pool, ROWS.len() as u64);
        pool.backups[0].kill();
        pool.primaries[0].kill();
    });
    for (n, reply) in replies.iter().enumerate() {
        let line = command(n);
        let words: Vec<&str> = line.split(' ').collect();
        let decides = |word: &&str| matches!(word.as_bytes()[0], b'T' | b'N' | b'R');
        let expected = match words[0] {
            "get" | "gets" | "gat" | "gats" => "END",
            "me" => "EN",
            "mg" if !words[2..].iter().any(decides) => "EN",
            _ => LOST,
        };
        assert_eq!(reply, expected, "{line:?}");
    }
}

/// What a request may take here at most.
const LIMIT: [&str; 2] = ["--timeout", "400"];

/// A server that takes so long for each answer that the second one is late, and that is never silent for that long.
fn slow() -> Fake {
    Fake::start(|request| {
        let mut steps = healthy(request);
        if !request.is_probe() {
            steps.insert(0, Do::Wait(Duration::from_millis(250)));
        }
        steps
    })
}

/// What a client hears to a request that is late, as the one before it was answered just in time.
fn heard_late(proxy: &Magent, request: &str) -> String {
    let mut client = proxy.client();
    client.send(format!("get before\r\n{request}\r\n"));
    assert_eq!(
        client.reply(),
        b"VALUE before 0 15\r\nvalue-of-before\r\nEND\r\n"
    );
    let reply = String::from_utf8_lossy(&client.reply()).into_owned();
    reply.trim_end().to_string()
}

#[test]
fn at_the_only_server_that_answers_but_late() {
    for (request, expected) in [
        ("set k 0 0 1\r\nx", LATE),
        ("delete k", LATE),
        ("touch k 1", LATE),
        ("ms k 1\r\nx", LATE),
        ("add k 0 0 1\r\nx", LATE),
        ("append k 0 0 1\r\nx", LATE),
        ("cas k 0 0 1 1\r\nx", LATE),
        ("incr k 1", LATE),
        ("ma k", LATE),
        ("get k", "END"),
        ("gat 100 k", "END"),
        ("mg k v", "EN"),
    ] {
        let fake = slow();
        let proxy = Magent::front(&[fake.port()], &[]).args(&LIMIT).start();
        assert_eq!(heard_late(&proxy, request), expected, "{request:?}");
    }
}

#[test]
fn at_a_primary_that_answers_but_late() {
    for (request, expected) in [
        ("set k 0 0 1\r\nx", "STORED"),
        ("delete k", "DELETED"),
        ("touch k 100", "TOUCHED"),
        ("ms k 1\r\nx", "HD"),
        ("add k 0 0 1\r\nx", LATE),
        ("append k 0 0 1\r\nx", LATE),
        ("cas k 0 0 1 1\r\nx", LATE),
        ("incr k 1", LATE),
        ("ma k", LATE),
        ("get k", "VALUE k 0 5\r\nvalue\r\nEND"),
        ("mg k v", "VA 5\r\nvalue"),
    ] {
        let fake = slow();
        let backup = Memcached::start();
        backup.client().set("k", "value");
        let ports = ([fake.port()], [backup.port()]);
        let proxy = Magent::front(&ports.0, &ports.1).args(&LIMIT).start();
        assert_eq!(heard_late(&proxy, request), expected, "{request:?}");
        // What nobody knows is not repeated there.
        if expected == LATE {
            assert_eq!(
                backup.client().get("k").as_deref(),
                Some("value"),
                "{request:?}"
            );
        }
    }
}

#[test]
fn at_a_backup_that_answers_but_late() {
    for (request, expected) in [
        ("set k 0 0 1\r\nx", "STORED"),
        ("delete k", "DELETED"),
        ("add z 0 0 1\r\nx", "STORED"),
        ("append k 0 0 1\r\nx", "STORED"),
        ("incr n 1", "2"),
        ("get k", "VALUE k 0 5\r\nvalue\r\nEND"),
    ] {
        let fake = slow();
        let primary = Memcached::start();
        primary.client().set("k", "value");
        primary.client().set("n", "1");
        let ports = ([primary.port()], [fake.port()]);
        let proxy = Magent::front(&ports.0, &ports.1).args(&LIMIT).start();
        let mut client = proxy.client();
        // Two of them: the second one's copy is late.
        client.send(format!("set before 0 0 1\r\nx\r\n{request}\r\n"));
        assert_eq!(client.reply(), b"STORED\r\n");
        let (reply, time) = timed(|| String::from_utf8_lossy(&client.reply()).into_owned());
        assert_eq!(reply.trim_end(), expected, "{request:?}");
        assert!(time < Duration::from_millis(900), "{request:?}: {time:?}");
    }
}
