//! A server that answers signs of life, and no client.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::Duration;

use crate::common::fake::{healthy, Do, Fake};
use crate::common::{timed, wait_for, Magent, PATIENCE};

/// Its figure `name`.
fn figure(client: &mut crate::common::Client, name: &str) -> u64 {
    let all = client.ask("stats servers");
    let line = all.lines().find(|line| line.contains(&format!(":{name} ")));
    let value = line.and_then(|line| line.rsplit(' ').next());
    value.and_then(|value| value.parse().ok()).expect(name)
}

#[test]
fn a_server_that_only_shows_life_stays_out_for_longer_each_time() {
    let sick = Arc::new(AtomicBool::new(true));
    let is_sick = Arc::clone(&sick);
    let server = Fake::start(move |request| match request.word(0) {
        "get" if !request.is_stamp() && is_sick.load(Ordering::SeqCst) => vec![Do::Mute],
        _ => healthy(request),
    });
    let proxy = Magent::front(&[server.port()], &[])
        .args(&["--timeout", "200"])
        .start();
    let mut client = proxy.client();
    let ((), time) = timed(|| {
        wait_for("it has relapsed often", PATIENCE, || {
            client.get("key");
            figure(&mut client, "relapses") >= 6
        });
    });
    // Six time limits, and pauses of 20, 40, 80, 160, 320 ms between them.
    assert!(time >= Duration::from_millis(6 * 200 + 600), "{time:?}");
    sick.store(false, Ordering::SeqCst);
    wait_for("it is used again", PATIENCE, || {
        client.get("key").as_deref() == Some("value-of-key")
    });
    let relapses = figure(&mut client, "relapses");
    // One that has answered is let in at once when it is lost the next time.
    sick.store(true, Ordering::SeqCst);
    assert_eq!(client.get("key"), None);
    assert_eq!(figure(&mut client, "relapses"), relapses);
}
