//! Requests that are in flight when a server is lost, or that are answered too late.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use super::rows::*;
use crate::common::fake::{healthy, Do, Fake, DRIP};
use crate::common::{
    timed, wait_for, Client, Magent, Memcached, Pool, ABOUT_ONE_TIMEOUT, PATIENCE,
};

const LOST: &str = "SERVER_ERROR the server for this key was lost before it answered";
const LATE: &str = "SERVER_ERROR the server for this key did not answer in time";

/// Waits until so many requests are in flight to servers.
#[track_caller]
fn wait_in_flight(pool: &Pool, count: u64) {
    let mut client = pool.client();
    wait_for("the requests are in flight", PATIENCE, || {
        // Plain `stats` would ask the servers, and be one of those in flight.
        let reply = client.ask("stats servers");
        let numbers = reply.lines().filter_map(|line| {
            let (_, number) = line.split_once(":in_flight ")?;
            number.parse::<u64>().ok()
        });
        numbers.sum::<u64>() >= count
    });
}

#[test]
fn at_the_acting_primary() {
    let mut pool = Pool::new(1, 1, &[]);
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
    let mut pool = Pool::new(1, 1, &[]);
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
    let mut pool = Pool::new(1, 1, &[]);
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
        assert_eq!(reply, from_nobody(n, LOST), "{:?}", command(n));
    }
}

/// A server that is never silent, and whose answer to a write of the key `before` comes byte by byte for as long as this
/// lives. What it is asked behind that is late.
struct Busy {
    server: Fake,
    enough: Arc<AtomicBool>,
}

impl Busy {
    fn new() -> Busy {
        let enough: Arc<AtomicBool> = Arc::default();
        let told = Arc::clone(&enough);
        let words = vec![b'x'; (PATIENCE.as_micros() / DRIP.as_micros()) as usize];
        let server = Fake::start(move |request| match request.word(1) {
            "before" => vec![
                Do::say("SERVER_ERROR "),
                Do::Drip(words.clone(), Arc::clone(&told)),
                Do::say("\r\n"),
            ],
            _ => healthy(request),
        });
        Busy { server, enough }
    }

    /// What clients hear to these requests, each with a key of its own in place of `K`, as all of them are late here.
    fn heard_late(&self, proxy: &Magent, requests: &[&str]) -> Vec<String> {
        let connections = self.server.accepted();
        let mut first = proxy.client();
        first.send("set before 0 0 1\r\nx\r\n");
        let begun = || {
            let lines = self.server.lines();
            lines.iter().any(|line| line.contains("before"))
        };
        wait_for("the server is busy", PATIENCE, begun);
        let mut clients: Vec<Client> = requests.iter().map(|_| proxy.client()).collect();
        for (n, client) in clients.iter_mut().enumerate() {
            client.send(requests[n].replace('K', &key(n)) + "\r\n");
        }
        let replies = clients.iter_mut().map(|client| {
            let reply = String::from_utf8_lossy(&client.reply()).into_owned();
            reply.trim_end().to_string()
        });
        let (replies, time) = timed(|| replies.collect());
        // Waiting for the same thing together is not waiting one after the other.
        assert!(time < ABOUT_ONE_TIMEOUT, "{time:?} for all of them");
        assert_eq!(self.server.accepted(), connections, "it was given up");
        replies
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.enough.store(true, Ordering::SeqCst);
    }
}

/// Each request hears what it should.
#[track_caller]
fn assert_heard(rows: &[(&str, &str)], busy: &Busy, proxy: &Magent) {
    let requests: Vec<&str> = rows.iter().map(|(request, _)| *request).collect();
    let heard = busy.heard_late(proxy, &requests);
    for (n, (request, expected)) in rows.iter().enumerate() {
        assert_eq!(heard[n], expected.replace('K', &key(n)), "{request:?}");
    }
}

#[test]
fn at_the_only_server_that_answers_but_late() {
    let rows = [
        ("set K 0 0 1\r\nx", LATE),
        ("delete K", LATE),
        ("touch K 1", LATE),
        ("ms K 1\r\nx", LATE),
        ("add K 0 0 1\r\nx", LATE),
        ("append K 0 0 1\r\nx", LATE),
        ("cas K 0 0 1 1\r\nx", LATE),
        ("incr K 1", LATE),
        ("ma K", LATE),
        ("get K", "END"),
        ("gat 100 K", "END"),
        ("mg K v", "EN"),
    ];
    let busy = Busy::new();
    let proxy = Magent::front(&[busy.server.port()], &[]).start();
    assert_heard(&rows, &busy, &proxy);
}

#[test]
fn at_a_primary_that_answers_but_late() {
    let rows = [
        ("set K 0 0 1\r\nx", "STORED"),
        ("delete K", "DELETED"),
        ("touch K 100", "TOUCHED"),
        ("ms K 1\r\nx", "HD"),
        ("add K 0 0 1\r\nx", LATE),
        ("append K 0 0 1\r\nx", LATE),
        ("cas K 0 0 1 1\r\nx", LATE),
        ("incr K 1", LATE),
        ("ma K", LATE),
        ("get K", "VALUE K 0 5\r\nvalue\r\nEND"),
        ("mg K v", "VA 5\r\nvalue"),
    ];
    let busy = Busy::new();
    let backup = Memcached::start();
    for n in 0..rows.len() {
        backup.client().set(&key(n), "value");
    }
    let ports = ([busy.server.port()], [backup.port()]);
    let proxy = Magent::front(&ports.0, &ports.1).start();
    assert_heard(&rows, &busy, &proxy);
    // What nobody knows is not repeated there, as long as nobody knows.
    for (n, (request, _)) in rows.iter().enumerate().filter(|(_, row)| row.1 == LATE) {
        let there = backup.client().get(&key(n));
        assert_eq!(there.as_deref(), Some("value"), "{request:?}");
    }
}

#[test]
fn at_a_backup_that_answers_but_late() {
    let rows = [
        ("set K 0 0 1\r\nx", "STORED"),
        ("delete K", "DELETED"),
        ("add K-new 0 0 1\r\nx", "STORED"),
        ("append K 0 0 1\r\nx", "STORED"),
        ("incr K 1", "2"),
        ("get K", "VALUE K 0 1\r\n1\r\nEND"),
    ];
    let busy = Busy::new();
    let primary = Memcached::start();
    for n in 0..rows.len() {
        primary.client().set(&key(n), "1");
    }
    let ports = ([primary.port()], [busy.server.port()]);
    let proxy = Magent::front(&ports.0, &ports.1).start();
    assert_heard(&rows, &busy, &proxy);
}
