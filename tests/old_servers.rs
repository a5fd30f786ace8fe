//! Servers without today's meta commands (memcached before 1.6.10): classic commands only, and still nothing stale, nothing
//! lost. On real servers of an older release than the installed one.

use crate::common;

use common::pool::wait_state;
use common::{wait_for, Magent, Memcached, PATIENCE};

const RELEASE: &str = "bullseye";

/// A primary, a backup, and a proxy in front. `None`: no such server here.
fn pair(options: &[&str]) -> Option<(Memcached, Memcached, Magent)> {
    let primary = Memcached::of_release(RELEASE, &[])?;
    let backup = Memcached::of_release(RELEASE, &[])?;
    let proxy = Magent::front(&[primary.port()], &[backup.port()])
        .args(options)
        .start();
    Some((primary, backup, proxy))
}

/// When a key expires, as the server lists it.
fn expiry(server: &Memcached, key: &str) -> Option<String> {
    let mut client = server.client();
    client.send("lru_crawler metadump all\r\n");
    let listing = String::from_utf8(client.until(b"END\r\n")).unwrap();
    let head = format!("key={key} exp=");
    let line = listing.lines().find_map(|line| line.strip_prefix(&head))?;
    line.split(' ').next().map(ToString::to_string)
}

#[test]
fn a_primary_that_returns_empty_does_not_act_before_it_is_filled() {
    // No background copy: it stays as it is.
    let Some((mut primary, backup, proxy)) = pair(&["--resync-rate", "0"]) else {
        return;
    };
    let mut client = proxy.client();
    for (key, value) in [
        ("k", "v"),
        ("n", "5"),
        ("gone", "x"),
        ("flush_all", "flush_all"),
    ] {
        client.set(key, value);
    }
    let refused = client.ask("mg k v");
    assert_eq!(
        refused,
        "SERVER_ERROR the servers do not understand meta commands"
    );
    primary.kill();
    wait_state(&mut client, &primary, &["down"]);
    assert_eq!(client.ask("delete gone"), "DELETED");
    primary.restart();
    wait_state(&mut client, &primary, &["cold"]);

    assert_eq!(client.get("k").as_deref(), Some("v"));
    assert_eq!(
        client.ask("get k n gone"),
        "VALUE k 0 1\r\nv\r\nVALUE n 0 1\r\n5\r\nEND"
    );
    assert_eq!(client.ask("add k 0 0 1\r\nx"), "NOT_STORED");
    assert_eq!(client.ask("add gone 0 0 1\r\ny"), "STORED");
    assert_eq!(client.ask("incr n 1"), "6");
    assert_eq!(client.ask("incr n 1"), "7");
    assert_eq!(client.ask("append k 0 0 1\r\nw"), "STORED");
    assert_eq!(client.ask("touch k 100"), "TOUCHED");
    assert_eq!(client.ask("delete flush_all"), "DELETED");
    client.set("new", "1");
    // What is written goes to both; what the primary lacks is not half brought over.
    assert_eq!(primary.client().get("new").as_deref(), Some("1"));
    assert_eq!(primary.client().get("gone").as_deref(), Some("y"));
    for key in ["k", "n"] {
        let held = primary.client().get(key);
        assert!(
            held.is_none() || held == backup.client().get(key),
            "{key}: {held:?}"
        );
    }
    // Better a copy with gaps than none.
    drop(backup);
    assert_eq!(client.get("new").as_deref(), Some("1"));
    assert_eq!(client.ask("incr new 1"), "2");
    assert_eq!(
        proxy
            .process()
            .stderr()
            .matches("older than 1.6.10")
            .count(),
        1
    );
}

#[test]
fn the_background_copy_keeps_flags_and_expiry() {
    let Some((mut primary, backup, proxy)) = pair(&[]) else {
        return;
    };
    let mut client = proxy.client();
    assert_eq!(client.ask("set forever 7 0 1\r\na"), "STORED");
    assert_eq!(
        client.ask("set month 4294967295 1900000000 1\r\nb"),
        "STORED"
    );
    assert_eq!(client.ask("set hour 0 3600 1\r\nc"), "STORED");
    for n in 0..500 {
        client.set(&format!("key{n}"), &format!("value{n}"));
    }
    primary.kill();
    wait_state(&mut client, &primary, &["down"]);
    primary.restart();
    wait_state(&mut client, &primary, &["up"]);
    let mut direct = primary.client();
    assert!(direct
        .ask("get forever")
        .starts_with("VALUE forever 7 1\r\na"));
    for n in 0..500 {
        assert_eq!(direct.get(&format!("key{n}")), Some(format!("value{n}")));
    }
    assert_eq!(expiry(&primary, "forever").as_deref(), Some("-1"));
    // Each server counts seconds from its own start. A listing may leave out what was just used.
    for key in ["hour", "month"] {
        let number = |server| expiry(server, key).and_then(|text| text.parse::<i64>().ok());
        wait_for("both list the same expiry", PATIENCE, || {
            let both = number(&primary).zip(number(&backup));
            both.is_some_and(|(one, two)| (one - two).abs() <= 1)
        });
    }
}

#[test]
fn a_stopped_primary_returns_without_its_old_values() {
    let Some((primary, _backup, proxy)) = pair(&[]) else {
        return;
    };
    let mut client = proxy.client();
    client.set("k", "old");
    client.set("gone", "old");
    primary.freeze();
    client.set("k", "new");
    client.ask("delete gone");
    wait_state(&mut client, &primary, &["down"]);
    primary.thaw();
    wait_for("the primary is used again", PATIENCE, || {
        assert_eq!(client.get("k").as_deref(), Some("new"));
        assert_eq!(client.get("gone"), None);
        !client.ask("stats servers").contains("state down")
    });
    wait_state(&mut client, &primary, &["up"]);
    assert_eq!(client.get("k").as_deref(), Some("new"));
    assert_eq!(client.get("gone"), None);
}
