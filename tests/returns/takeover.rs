//! A proxy that was not there, or only looked on, when a server went away.

use nix::sys::signal::Signal;

use super::stopped::*;
use crate::common::Pool;

/// A proxy serves while a server is stopped, and dies; the server goes on; then `later` is asked, a proxy that ran beside
/// it all the time or is started only now.
#[track_caller]
fn taken_over(stop_primary: bool, beside: bool) {
    let mut pool = Pool::new(1, 1, &["--proxy-id", "first"]);
    let mut later = beside.then(|| pool.another(&["--proxy-id", "second"]));
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
        None => pool.another(&["--proxy-id", "first"]),
    };
    std::mem::replace(&mut pool.proxy, replacement).end(Signal::SIGKILL);
    stopped.thaw();
    let mut client = pool.client();
    assert_reads_stay(&mut client, &WHILE_STOPPED);
    assert_whole_again(&pool, &mut client, stopped, &WHILE_STOPPED);
    pool.primaries[0].kill();
    assert_reads_stay(&mut client, &WHILE_STOPPED);
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
