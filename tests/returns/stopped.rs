//! Servers that stop and go on, with their old memory, and with commands that their kernel still holds.

use std::time::{Duration, Instant};

use crate::common::pool::*;
use crate::common::{Client, Memcached, Pool};

/// Long enough for a probe that is a second away, the entry, and the time that a stopped server gets to settle.
const OVER_THE_RETURN: Duration = Duration::from_secs(3);

/// Writes while the primary is stopped, and what must be read ever after.
pub const WHILE_STOPPED: [(&str, Option<&str>); 7] = [
    ("set-old", Some("new")),
    ("set-new", Some("first")),
    ("deleted", None),
    ("counted", Some("11")),
    ("appended", Some("ab")),
    ("touched", Some("old")),
    ("untouched", Some("old")),
];

pub fn write_before_stop(client: &mut Client) {
    for key in ["set-old", "deleted", "touched", "untouched"] {
        client.set(key, "old");
    }
    client.set("counted", "10");
    client.set("appended", "a");
}

pub fn write_while_stopped(client: &mut Client) {
    client.set("set-old", "new");
    client.set("set-new", "first");
    assert_eq!(client.ask("delete deleted"), "DELETED");
    assert_eq!(client.ask("incr counted 1"), "11");
    assert_eq!(client.ask("append appended 0 0 1\r\nb"), "STORED");
    assert_eq!(client.ask("touch touched 900"), "TOUCHED");
}

/// Reads go on over a return, and each is as it should be; `None`: a miss.
#[track_caller]
pub fn assert_reads_stay(client: &mut Client, expect: &[(&str, Option<&str>)]) {
    let begin = Instant::now();
    let mut rounds = 0;
    while begin.elapsed() < OVER_THE_RETURN || rounds < 10 {
        for (key, value) in expect {
            assert_eq!(
                client.get(key).as_deref(),
                *value,
                "{key} after {:?}, round {rounds}",
                begin.elapsed()
            );
        }
        rounds += 1;
        // Others have to get on as well.
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Warm again, the server has all that the other has, and what must be read.
#[track_caller]
pub fn assert_whole_again(
    pool: &Pool,
    client: &mut Client,
    server: &Memcached,
    expect: &[(&str, Option<&str>)],
) {
    wait_state(client, server, &["up"]);
    for (key, value) in expect {
        assert_eq!(
            server.client().get(key).as_deref(),
            *value,
            "{key} on the server itself"
        );
    }
    let there = expect.iter().filter(|(_, value)| value.is_some()).count();
    pool.assert_whole(there);
}

/// A stopped primary misses writes and goes on: options of the proxy, and the number of flushes to expect.
#[track_caller]
fn stopped_primary(options: &[&str], flushes: &str) {
    let mut pool = Pool::new(1, 1, options);
    let mut client = pool.client();
    write_before_stop(&mut client);
    pool.primaries[0].freeze();
    write_while_stopped(&mut client);
    for (key, value) in WHILE_STOPPED {
        assert_eq!(client.get(key).as_deref(), value, "{key} while stopped");
    }
    pool.primaries[0].thaw();
    assert_reads_stay(&mut client, &WHILE_STOPPED);
    assert_whole_again(&pool, &mut client, &pool.primaries[0], &WHILE_STOPPED);
    assert_eq!(replication(&mut client, "entry_flushes"), flushes);
    // It bears all alone.
    pool.backups[0].kill();
    assert_reads_stay(&mut client, &WHILE_STOPPED);
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
        let pool = Pool::new(1, 1, &[]);
        let mut client = pool.client();
        write_before_stop(&mut client);
        pool.primaries[0].freeze();
        // It lies in the stopped server's socket, which will carry it out when it goes on.
        assert_eq!(client.ask(command), reply);
        let value = client.get(key);
        pool.primaries[0].thaw();
        assert_reads_stay(&mut client, &[(key, value.as_deref())]);
        wait_state(&mut client, &pool.primaries[0], &["up"]);
        let held = pool.primaries[0].client().get(key);
        assert_eq!(held, value, "after {command:?}");
        let (code, said) = pool.verify();
        assert_eq!(code, 0, "after {command:?}: {said}");
    }
}

#[test]
fn a_stopped_backup_forgets_what_it_missed() {
    let mut pool = Pool::new(1, 1, &[]);
    let mut client = pool.client();
    write_before_stop(&mut client);
    pool.backups[0].freeze();
    write_while_stopped(&mut client);
    pool.backups[0].thaw();
    assert_reads_stay(&mut client, &WHILE_STOPPED);
    assert_whole_again(&pool, &mut client, &pool.backups[0], &WHILE_STOPPED);
    pool.primaries[0].kill();
    assert_reads_stay(&mut client, &WHILE_STOPPED);
}

#[test]
fn what_was_flushed_while_a_server_was_stopped_stays_away() {
    let mut pool = Pool::new(1, 1, &[]);
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
        let expect = [("k", None), ("after", Some("kept"))];
        assert_reads_stay(&mut client, &expect);
        assert_whole_again(&pool, &mut client, server, &expect);
    }
    pool.primaries[0].kill();
    assert_eq!(client.get("k"), None);
    assert_eq!(client.get("after").as_deref(), Some("kept"));
}
