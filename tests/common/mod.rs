//! What all end-to-end tests share: real memcached processes, the proxy under test, a blocking client, a scripted server.
//!
//! Nothing here sleeps for a fixed time to "let things settle": every wait is for a condition, with a deadline.
//! Processes die with the test that started them, also when it panics (kill on drop, and a parent-death signal).

pub mod browser;
pub mod client;
pub mod exchange;
pub mod fake;
pub mod files;
pub mod lit;
pub mod magent;
pub mod normal;
pub mod pool;
pub mod process;
pub mod rng;
pub mod source;

use std::io::Write;
use std::time::{Duration, Instant};

pub use client::Client;
pub use magent::Magent;
pub use pool::Pool;
pub use process::{Memcached, Port};

/// How long anything may take before a test gives up: generous, as the machine may be busy. Never a measure of speed.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// `--timeout` of the proxies here: long beside what a busy machine makes of a reply, so that no server is given up that
/// nobody has stopped, and who waits for a server in vain can be told from who does not.
pub const TIMEOUT: Duration = Duration::from_secs(5);
/// What takes less has not waited for a server in vain.
pub const AT_ONCE: Duration = Duration::from_millis(4500);
/// What takes less has done so once at most.
pub const ABOUT_ONE_TIMEOUT: Duration = Duration::from_millis(9500);

/// Waits until `condition` holds; panics with `what` when it does not within `deadline`.
#[track_caller]
pub fn wait_for(what: &str, deadline: Duration, mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(
            begin.elapsed() < deadline,
            "waited {deadline:?} in vain until {what}"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Says that a test, or a part of it, cannot be done here, and why. `make test` counts these lines and repeats them in the end.
pub fn skipped(why: &str) {
    let thread = std::thread::current();
    let name = thread.name().unwrap_or("a test");
    let why: Vec<&str> = why.split_whitespace().collect();
    // Not by `eprintln!`, which is shown for failed tests only.
    let line = format!("\nSKIPPED {name}: {}\n", why.join(" "));
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// Runs `work` and tells how long it took.
pub fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let begin = Instant::now();
    let result = work();
    (result, begin.elapsed())
}

/// Bytes as one can read and type them: printable as they are, the rest escaped, long ones cut in the middle.
pub fn show(bytes: &[u8]) -> String {
    const WHOLE: usize = 6000;
    if bytes.len() > WHOLE {
        let (head, tail) = (&bytes[..WHOLE / 2], &bytes[bytes.len() - WHOLE / 2..]);
        return format!(
            "{} ...({} bytes in all)... {}",
            head.escape_ascii(),
            bytes.len(),
            tail.escape_ascii()
        );
    }
    bytes.escape_ascii().to_string()
}

/// A key that the default placement (DJB, lowest 31 bits, modulo) sends to server `index` of `servers`.
pub fn key_on(index: usize, servers: usize, name: &str) -> String {
    (0..)
        .map(|n| format!("{name}{n}"))
        .find(|key| djb31(key.as_bytes()) as usize % servers == index)
        .expect("some key hashes there")
}

/// magent 0.6's hash, written here anew so that the tests do not trust the code under test.
pub fn djb31(key: &[u8]) -> u32 {
    let hash = key.iter().fold(5381u32, |hash, &byte| {
        hash.wrapping_mul(33)
            .wrapping_add(i32::from(byte as i8) as u32)
    });
    hash & 0x7fff_ffff
}

/// A proxy in front of two primaries and a backup.
pub fn farm() -> ([Memcached; 3], Magent) {
    let servers = [Memcached::start(), Memcached::start(), Memcached::start()];
    let [first, second, backup] = servers.each_ref().map(Memcached::port);
    let proxy = Magent::front(&[first, second], &[backup]).start();
    (servers, proxy)
}

/// Closes with a reset instead of an orderly end.
pub fn reset(client: Client) {
    socket2::SockRef::from(client.stream())
        .set_linger(Some(Duration::ZERO))
        .expect("linger can be set");
}

/// The proxy is idle when nobody asks for anything: no core is spent in a loop.
#[track_caller]
pub fn assert_idle(proxy: &Magent) {
    let before = proxy.process().cpu();
    // Time must pass to see that nothing is done in it.
    std::thread::sleep(Duration::from_millis(500));
    let spent = proxy.process().cpu() - before;
    assert!(
        spent < Duration::from_millis(150),
        "{spent:?} of CPU in half a second of silence"
    );
}
