//! Servers that live, but are late, or stand still for a moment: what they hold is not given away, what was acknowledged is not
//! taken back, and they are used again at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::Duration;

use crate::common::fake::{Do, Fake, Request};
use crate::common::pool::{replace_by_empty, Pool, LAZY};
use crate::common::{timed, wait_for, Magent, Memcached, PATIENCE};

/// The time limit that users have.
const QUICK: [&str; 2] = ["--timeout", "200"];

/// What a server says to what is not the matter of the test: it holds nothing and takes everything.
fn as_an_empty_one(request: &Request) -> Vec<Do> {
    vec![match request.word(0) {
        "version" => Do::say("VERSION 1.6.18\r\n"),
        "stats" => Do::say(
            "STAT pid 7\r\nSTAT uptime 100\r\nSTAT time 1000000\r\nSTAT curr_items 0\r\nEND\r\n",
        ),
        "get" | "gets" => Do::say("END\r\n"),
        "set" | "add" => Do::say("STORED\r\n"),
        "ms" => Do::say("HD\r\n"),
        "mg" => Do::say("EN\r\n"),
        "flush_all" => Do::say("OK\r\n"),
        _ => Do::say("NOT_FOUND\r\n"),
    }]
}

/// The primary has come back empty, and its backup, which holds a lock, is busy with another answer for longer than the time
/// limit. It sends all the time: it is not lost.
#[test]
fn a_lock_on_a_copy_that_is_late_is_not_given_away() {
    let through = Arc::new(AtomicBool::new(false));
    let drips = Arc::clone(&through);
    let backup = Fake::start(move |request| match (request.word(0), request.word(1)) {
        ("mg", "long") => {
            let answer = format!("VA 400 t-1 f0 klong\r\n{}\r\n", "x".repeat(400));
            vec![Do::Drip(answer.into_bytes(), Arc::clone(&drips))]
        }
        ("mg", "lock") => vec![Do::say("VA 4 t-1 f0 klock\r\nheld\r\n")],
        _ => as_an_empty_one(request),
    });
    let mut primary = Memcached::start();
    let proxy = Magent::front(&[primary.port()], &[backup.port()])
        .args(&LAZY)
        .args(&QUICK)
        .start();
    let mut client = proxy.client();
    assert_eq!(client.ask("add lock 0 0 4\r\nheld"), "STORED");
    replace_by_empty(&mut client, &mut primary);
    let mut other = proxy.client();
    other.send("get long\r\n");
    wait_for("the backup is busy", PATIENCE, || {
        backup
            .lines()
            .iter()
            .any(|line| line.starts_with("mg long"))
    });
    let late = "SERVER_ERROR the server for this key did not answer in time";
    assert_eq!(client.ask("add lock 0 0 6\r\nstolen"), late);
    assert_eq!(client.ask("incr lock 1"), late);
    assert_eq!(client.ask("get lock"), late);
    assert_eq!(client.ask("get lock lock"), "END");
    assert_eq!(String::from_utf8(other.line()).unwrap().trim_end(), late);
    // The long one, the lock, and the lock twice.
    assert_eq!(client.stat("magent_failed_reads"), "4");
    assert_eq!(primary.client().get("lock"), None);
    through.store(true, Ordering::SeqCst);
    wait_for("the lock is held", PATIENCE, || {
        client.ask("add lock 0 0 6\r\nstolen") == "NOT_STORED"
    });
    assert_eq!(client.get("lock").as_deref(), Some("held"));
}

/// The primary refuses a write when its client has been told what the backup said.
#[test]
fn a_late_refusal_takes_nothing_back() {
    let late = Arc::new(AtomicBool::new(false));
    let is_late = Arc::clone(&late);
    let primary = Fake::start(move |request| {
        let mut all = Vec::new();
        let matters = matches!(request.word(1), "slow" | "key");
        if matters && is_late.load(Ordering::SeqCst) {
            all.push(Do::Wait(Duration::from_millis(150)));
        }
        match (request.word(0), request.word(1)) {
            ("set" | "ms", "key") => {
                all.push(Do::say("SERVER_ERROR out of memory storing object\r\n"));
            }
            _ => all.extend(as_an_empty_one(request)),
        }
        all
    });
    let backup = Memcached::start();
    let proxy = Magent::front(&[primary.port()], &[backup.port()])
        .args(&QUICK)
        .start();
    let (mut client, mut other) = (proxy.client(), proxy.client());
    late.store(true, Ordering::SeqCst);
    other.send("get slow\r\nget slow\r\n");
    wait_for("they are under way", PATIENCE, || {
        client.stat("magent_in_flight") != "0"
    });
    assert_eq!(client.ask("set key 0 0 3\r\nnew"), "STORED");
    let refusals = || {
        primary
            .lines()
            .iter()
            .filter(|line| line.starts_with("ms key"))
            .count()
    };
    wait_for("the primary is offered it once more", PATIENCE, || {
        refusals() > 0
    });
    late.store(false, Ordering::SeqCst);
    // Time must pass to see that nothing happens in it.
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(backup.client().get("key").as_deref(), Some("new"));
}

/// All copies stand still under a read, and go on: nothing was under way that could come late.
#[test]
fn copies_that_stood_still_under_a_read_are_used_at_once() {
    let pool = Pool::new(1, 1, &QUICK);
    let mut client = pool.client();
    client.set("key", "old");
    let (primary, backup) = (&pool.primaries[0], &pool.backups[0]);
    primary.freeze();
    backup.freeze();
    assert_eq!(client.get("key"), None);
    let down = |client: &mut crate::common::Client| client.stat("magent_servers_up") == "0";
    wait_for("both are given up", PATIENCE, || down(&mut client));
    primary.thaw();
    backup.thaw();
    let ((), time) = timed(|| {
        wait_for("it is written", PATIENCE, || {
            client.ask("set key 0 0 3\r\nnew") == "STORED"
        })
    });
    // One that was stopped with writes under way gets a second more.
    assert!(time < Duration::from_millis(900), "after {time:?}");
    assert_eq!(client.get("key").as_deref(), Some("new"));
}

/// A copy that has lost a key, or holds an older one, ends with what its primary holds, whatever was asked of that.
#[test]
fn a_copy_that_was_evicted_makes_nothing_of_its_own() {
    let pool = Pool::new(1, 1, &[]);
    let mut client = pool.client();
    let mut copies = [pool.primaries[0].client(), pool.backups[0].client()];
    for (lacks, command, said) in [
        (1, "ma key N900 J5 D1", "HD"),
        (1, "ma key N900 J5 D1 v", "VA 1\r\n8"),
        (0, "ma key N900 J5 D1", "HD"),
        (0, "ma key N900 J5 D1 v", "VA 1\r\n5"),
        (1, "mg key N900 v", "VA 1\r\n7"),
        (0, "mg key N900 v s", "VA 0 s0 W\r\n"),
        (1, "ms key 1 MA N900\r\n1", "HD"),
        (1, "incr key 1", "8"),
        (1, "touch key 500", "TOUCHED"),
    ] {
        client.set("key", "7");
        assert_eq!(copies[lacks].ask("delete key"), "DELETED");
        assert_eq!(client.ask(command), said, "{command}");
        let [primary, backup] = copies.each_mut().map(|copy| copy.ask("mg key v f s"));
        if said.starts_with("VA 1\r\n7") || said == "TOUCHED" {
            // Nothing was made, so nothing is brought over but with the next write.
            assert!(
                backup == "EN" || backup == primary,
                "after {command}: {backup}"
            );
        } else {
            assert_eq!(primary, backup, "after {command}");
            assert!(primary.starts_with("VA"), "{command}: {primary}");
        }
    }
}

/// A value that is put in as a stale one is stale on each copy, with the time to live that the item had.
#[test]
fn a_value_that_is_stale_is_so_on_each_copy() {
    let pool = Pool::new(1, 1, &[]);
    let mut client = pool.client();
    assert_eq!(client.ask("set key 0 500 3\r\nold"), "STORED");
    let older = client.ask("mg key c");
    client.set("key", "newer");
    assert_eq!(client.ask("touch key 500"), "TOUCHED");
    let token = older.strip_prefix("HD c").expect("a token");
    let said = client.ask(&format!("ms key 3 C{token} I T9\r\nall"));
    assert_eq!(said, "HD");
    for server in [&pool.primaries[0], &pool.backups[0]] {
        // Who looks at it from outside may be ahead of what makes it stale there.
        wait_for(
            "it is stale, and nobody has been told to refill it",
            PATIENCE,
            || {
                let held = server.client().ask("mg key v t k O1 u");
                let (head, value) = held.split_once("\r\n").expect("two lines");
                assert_eq!(value, "all");
                assert!(
                    head.starts_with("VA 3 t49") || head.starts_with("VA 3 t500"),
                    "{head}"
                );
                head.ends_with(" W X") || head.ends_with(" X W")
            },
        );
    }
}
