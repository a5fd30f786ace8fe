//! The table "verb, fault, answer": one primary and one backup that held equal copies.

use std::time::{Duration, Instant};

use super::rows::*;
use crate::common::pool::*;
use crate::common::{timed, Memcached, Pool, ABOUT_ONE_TIMEOUT, AT_ONCE, TIMEOUT};

#[test]
fn with_nothing_broken() {
    let pool = Pool::new(1, 1, &[]);
    let mut client = pool.client();
    set_all(&mut client);
    run_all(&mut client, "nothing is broken");
    let held = |server: &Memcached, n| server.client().ask(&format!("mg {} v f k", key(n)));
    for n in 0..ROWS.len() {
        assert_eq!(
            held(&pool.primaries[0], n),
            held(&pool.backups[0], n),
            "{:?}",
            command(n)
        );
    }
}

#[test]
fn with_the_primary_dead() {
    let mut pool = Pool::new(1, 1, &[]);
    let mut client = pool.client();
    set_all(&mut client);
    pool.primaries[0].kill();
    run_all(&mut client, "the primary is dead");
    assert_eq!(client.ask("flush_all"), "OK");
    assert_eq!(client.ask("get k0"), "END");
}

#[test]
fn with_the_primary_back_and_empty() {
    // Nothing is copied in the background: each command meets an empty server.
    let mut pool = Pool::new(1, 1, &LAZY);
    let mut client = pool.client();
    set_all(&mut client);
    replace_by_empty(&mut client, &mut pool.primaries[0]);
    assert_eq!(state(&mut client, &pool.primaries[0]), "cold");
    for n in 0..ROWS.len() {
        assert_eq!(item(&mut pool.primaries[0].client(), &key(n)), "EN");
    }
    run_all(&mut client, "the primary is empty");
    for n in 0..ROWS.len() {
        let on = |server: &Memcached| server.client().ask(&format!("mg {} v f", key(n)));
        let (here, there) = (on(&pool.primaries[0]), on(&pool.backups[0]));
        assert!(
            here == there || here == "EN",
            "{:?}: {here:?}, {there:?}",
            command(n)
        );
    }
    assert_eq!(client.ask("flush_all"), "OK");
    assert_eq!(client.ask("get k0"), "END");
}

#[test]
fn with_the_background_copy_under_way() {
    let mut pool = Pool::new(1, 1, &["--resync-rate", "100"]);
    let mut client = pool.client();
    set_all(&mut client);
    replace_by_empty(&mut client, &mut pool.primaries[0]);
    run_all(&mut client, "the background copy is under way");
    wait_state(&mut client, &pool.primaries[0], &["up"]);
    let there = |n: usize| client_has(&pool.primaries[0], &key(n));
    let whole = (0..ROWS.len()).filter(|&n| there(n)).count();
    pool.assert_whole(whole);
    // On its own it says the same.
    let after: Vec<String> = (0..ROWS.len())
        .map(|n| item(&mut client, &key(n)))
        .collect();
    pool.backups[0].kill();
    for (n, after) in after.iter().enumerate() {
        assert_eq!(item(&mut client, &key(n)), *after, "{:?}", command(n));
    }
}

fn client_has(server: &Memcached, key: &str) -> bool {
    server.client().ask(&format!("mg {key}")).starts_with("HD")
}

/// Each command is the one that finds a server stopped, and later ones wait no more.
fn with_one_stopped(stop: impl Fn(&Pool) -> &Memcached, name: &str) {
    let mut pool = Pool::new(1, 1, &[]);
    let mut client = pool.client();
    set_all(&mut client);
    stop(&pool).freeze();
    let begin = Instant::now();
    let replies = all_at_once(&mut pool, |_| {});
    let time = begin.elapsed();
    assert!(
        time < ABOUT_ONE_TIMEOUT,
        "{name} is stopped: {time:?} for all of them"
    );
    assert!(time >= TIMEOUT, "{name} is stopped: only {time:?}");
    for (n, reply) in replies.iter().enumerate() {
        let ((), time) = timed(|| assert_usual(n, reply, &mut client, name));
        assert!(
            time < AT_ONCE,
            "{:?} once more, {name} stopped: {time:?}",
            command(n)
        );
    }
    // What is asked from now on does not wait.
    let (reply, time) = timed(|| client.ask("append k14 0 0 1\r\ny"));
    assert_eq!(reply, "STORED");
    assert!(time < AT_ONCE, "{time:?}");
    let (reply, time) = timed(|| client.ask("flush_all"));
    assert_eq!(reply, "OK");
    assert!(time < AT_ONCE, "{time:?}");
    assert_eq!(client.ask("get k0"), "END");
}

#[test]
fn with_the_primary_stopped() {
    with_one_stopped(|pool| &pool.primaries[0], "the primary");
}

#[test]
fn with_the_backup_stopped() {
    with_one_stopped(|pool| &pool.backups[0], "the backup");
}

#[test]
fn flush_all_waits_once_for_a_stopped_server() {
    for primary in [true, false] {
        let pool = Pool::new(1, 1, &[]);
        let mut client = pool.client();
        client.set("k", "old");
        let server = if primary {
            &pool.primaries[0]
        } else {
            &pool.backups[0]
        };
        server.freeze();
        let (reply, time) = timed(|| client.ask("flush_all"));
        assert_eq!(reply, "OK");
        assert!(time < ABOUT_ONE_TIMEOUT, "{time:?}");
        let (reply, time) = timed(|| client.ask("get k"));
        assert_eq!(reply, "END");
        assert!(time < AT_ONCE, "{time:?}");
    }
}

/// The answers with a stopped backup: what asks no backup does not wait for it.
#[test]
fn reads_and_refused_writes_do_not_wait_for_a_stopped_backup() {
    let pool = Pool::new(1, 1, &[]);
    let mut client = pool.client();
    set_all(&mut client);
    pool.backups[0].freeze();
    let begin = Instant::now();
    for request in [
        "get k0",
        "gets k0",
        "mg k0 v",
        "me k0",
        "add k0 0 0 1\r\nx",
        "ms k0 1 ME\r\nx",
        "cas k0 0 0 1 1\r\nx",
        "ms k0 1 C1\r\nx",
        "ma k0 C1",
        "md k0 C1",
        "incr k0 1",
        "append nothing-there 0 0 1\r\nx",
        "replace nothing-there 0 0 1\r\nx",
        "incr nothing-there 1",
    ] {
        client.ask(request);
        let time = begin.elapsed();
        assert!(time < AT_ONCE, "{request:?}: {time:?} since it was stopped");
    }
}

/// A `gat` is a write, too: nobody hears the value before the other copy has the new time to live.
#[test]
fn a_gat_waits_until_the_backup_has_its_time_to_live() {
    let pool = Pool::new(1, 1, &[]);
    let mut client = pool.client();
    for n in 0..3 {
        assert_eq!(client.ask(&format!("set t{n} 0 0 1\r\nx")), "STORED");
    }
    pool.backups[0].freeze();
    client.send("gat 1000 t0\r\ngats -1 t1\r\ngat 1000 t2 t2 nothing-there\r\n");
    assert_eq!(client.until_quiet(Duration::from_millis(300)), b"");
    pool.backups[0].thaw();
    assert_eq!(client.reply(), b"VALUE t0 0 1\r\nx\r\nEND\r\n");
    assert!(client.reply().starts_with(b"VALUE t1 0 1 "));
    let twice = b"VALUE t2 0 1\r\nx\r\nVALUE t2 0 1\r\nx\r\nEND\r\n";
    assert_eq!(client.reply(), twice);
    let mut backup = pool.backups[0].client();
    for key in ["t0", "t2"] {
        let left = backup.ask(&format!("mg {key} t"));
        let left: u32 = left.strip_prefix("HD t").unwrap().parse().unwrap();
        assert!((900..=1000).contains(&left), "{key}: {left}");
    }
    assert_eq!(backup.ask("mg t1"), "EN");
}

#[test]
fn with_the_backup_dead() {
    let mut pool = Pool::new(1, 1, &[]);
    let mut client = pool.client();
    set_all(&mut client);
    pool.backups[0].kill();
    run_all(&mut client, "the backup is dead");
    assert_eq!(client.ask("flush_all"), "OK");
    assert_eq!(client.ask("get k0"), "END");
}

#[test]
fn with_all_dead() {
    let mut pool = Pool::new(1, 1, &[]);
    let mut client = pool.client();
    set_all(&mut client);
    pool.primaries[0].kill();
    pool.backups[0].kill();
    wait_state(&mut client, &pool.primaries[0], &["down"]);
    wait_state(&mut client, &pool.backups[0], &["down"]);
    let refused = "SERVER_ERROR no server for this key is up";
    let begin = Instant::now();
    for n in 0..ROWS.len() {
        let line = command(n);
        assert_eq!(client.ask(&line), from_nobody(n, refused), "{line:?}");
    }
    assert_eq!(client.ask("flush_all"), refused);
    let time = begin.elapsed();
    assert!(time < AT_ONCE, "{time:?} for all of them");
    assert!(replication(&mut client, "failed_reads") != "0");
    assert!(replication(&mut client, "failed_writes") != "0");
}
