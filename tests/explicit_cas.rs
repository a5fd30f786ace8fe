//! Servers that take a CAS unique from outside (memcached 1.6.27 and later): all copies have the same one, so a token
//! is as good after the primary's death as before. On real servers of a newer release than the installed one.

use crate::common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::Instant;

use common::{wait_for, Client, Magent, Memcached, PATIENCE};

const RELEASE: &str = "trixie";

/// A primary, a backup, and a proxy in front. `None`: no such server here.
fn pair() -> Option<(Memcached, Memcached, Magent)> {
    let primary = Memcached::of_release(RELEASE, &[])?;
    let backup = Memcached::of_release(RELEASE, &[])?;
    let proxy = Magent::front(&[primary.port()], &[backup.port()]).start();
    Some((primary, backup, proxy))
}

/// The token that `gets` gives.
fn token(client: &mut Client, key: &str) -> String {
    let reply = client.ask(&format!("gets {key}"));
    let head = reply.lines().next().unwrap_or_default();
    let words: Vec<&str> = head.split(' ').collect();
    assert_eq!(words.len(), 5, "{reply}");
    words[4].to_string()
}

fn number(client: &mut Client, request: &[u8]) -> String {
    client.send(request);
    String::from_utf8(client.line()).unwrap().trim().to_string()
}

#[test]
fn a_token_from_before_the_death_stores_after_it() {
    let Some((mut primary, _backup, proxy)) = pair() else {
        return;
    };
    let mut client = proxy.client();
    client.set("k", "one");
    let before = token(&mut client, "k");
    primary.kill();
    let stored = format!("cas k 0 0 3 {before}\r\ntwo\r\n");
    assert_eq!(number(&mut client, stored.as_bytes()), "STORED");
    assert_eq!(client.get("k").as_deref(), Some("two"));
    // Once only.
    assert_eq!(number(&mut client, stored.as_bytes()), "EXISTS");

    // The primary returns empty and is filled from its peer, with the same token.
    let held = token(&mut client, "k");
    primary.restart();
    let mut direct = primary.client();
    wait_for("the key is on the primary again", PATIENCE, || {
        client.get("k");
        direct.get("k").is_some()
    });
    assert_eq!(token(&mut client, "k"), held);
    assert_eq!(token(&mut direct, "k"), held);
    let again = format!("ms k 5 C{held} c\r\nthree\r\n");
    assert!(number(&mut client, again.as_bytes()).starts_with("HD c"));
    assert_eq!(client.get("k").as_deref(), Some("three"));
}

#[test]
fn every_way_to_write_leaves_the_same_token_on_all_copies() {
    let Some((primary, backup, proxy)) = pair() else {
        return;
    };
    let mut client = proxy.client();
    let (mut first, mut second) = (primary.client(), backup.client());
    // Each on a key of its own, which holds `1` before, or nothing.
    let requests: [(&str, bool, &str); 14] = [
        ("set K 7 100 1\r\n5\r\n", true, "STORED"),
        ("add K 7 0 1\r\n5\r\n", false, "STORED"),
        ("replace K 7 0 1\r\n5\r\n", true, "STORED"),
        ("append K 0 0 1\r\n5\r\n", true, "STORED"),
        ("prepend K 0 0 1\r\n5\r\n", true, "STORED"),
        ("incr K 5\r\n", true, "6"),
        ("decr K 5\r\n", true, "0"),
        ("ms K 1 T100\r\n5\r\n", true, "HD"),
        ("ms K 1 ME c k\r\n5\r\n", false, "HD "),
        ("ms K 1 MA\r\n5\r\n", true, "HD"),
        ("ma K D3 t v\r\n", true, "VA 1 t-1"),
        ("ma K N0 J7\r\n", false, "HD"),
        ("md K I T30\r\n", true, "HD"),
        ("mg K v N30 c\r\n", false, "VA 0 "),
    ];
    for (index, (request, exists, expected)) in requests.into_iter().enumerate() {
        let key = format!("key{index}");
        if exists {
            client.set(&key, "1");
        }
        let before = first.ask(&format!("gets {key}"));
        client.send(request.replace('K', &key));
        let reply = String::from_utf8(client.line()).unwrap();
        assert!(reply.starts_with(expected), "{request}: {reply}");
        if reply.starts_with("VA ") {
            client.line();
        }
        let (one, two) = (
            first.ask(&format!("gets {key}")),
            second.ask(&format!("gets {key}")),
        );
        // A counter that another thread of the server holds just then is replaced, and the number is forgotten, as when
        // it grows by a digit.
        let counts = ["incr", "decr", "ma"]
            .iter()
            .any(|word| request.starts_with(word));
        if counts && one != two {
            assert_eq!(client.get(&key), first.get(&key), "{request}");
            continue;
        }
        assert_eq!(one, two, "{request}");
        assert!(one.len() > 10 && one != before, "{request}: {one}");
    }
}

#[test]
fn classic_words_and_numbers_stay_what_they_are() {
    let Some((_primary, _backup, proxy)) = pair() else {
        return;
    };
    let mut client = proxy.client();
    for (request, expected) in [
        (&b"append nope 0 0 1\r\nx\r\n"[..], "NOT_STORED"),
        (b"replace nope 0 0 1\r\nx\r\n", "NOT_STORED"),
        (b"cas nope 0 0 1 5\r\nx\r\n", "NOT_FOUND"),
        (b"incr nope 5\r\n", "NOT_FOUND"),
        (b"set n 0 0 20\r\n18446744073709551615\r\n", "STORED"),
        (b"incr n 1\r\n", "0"),
        (b"add n 0 0 1\r\nx\r\n", "NOT_STORED"),
        (b"cas n 0 0 1 5\r\nx\r\n", "EXISTS"),
        (
            b"set n 0 0 1 noreply\r\nx\r\nincr n 1\r\n",
            "CLIENT_ERROR cannot increment or decrement non-numeric value",
        ),
        // A client may number its items itself.
        (b"ms own 1 E7\r\nx\r\n", "HD"),
        (b"ms own 1 C7 E8\r\ny\r\n", "HD"),
        (b"ms own 1 C7 E9\r\nz\r\n", "EX"),
    ] {
        assert_eq!(
            number(&mut client, request),
            expected,
            "{}",
            request.escape_ascii()
        );
    }
    assert_eq!(client.get("own").as_deref(), Some("y"));
}

/// These releases leave an item behind in a `flush_all` while another thread looks at it. Not through the proxy.
#[test]
fn what_was_flushed_while_the_keys_are_listed_stays_away() {
    let Some(server) = Memcached::of_release(RELEASE, &[]) else {
        return;
    };
    let proxy = Magent::front(&[server.port()], &[]).start();
    let mut filler = server.client();
    for index in 0..2000 {
        filler.set(&format!("other{index}"), "x");
    }
    let over = Arc::new(AtomicBool::new(false));
    let lister = std::thread::spawn({
        let (over, port) = (over.clone(), server.port());
        move || {
            let mut direct = Client::connect(port);
            let mut listings = 0;
            while !over.load(Ordering::Relaxed) {
                direct.send("lru_crawler metadump all\r\n");
                let first = direct.line();
                if !first.starts_with(b"END") && !first.starts_with(b"BUSY") {
                    direct.until(b"END\r\n");
                }
                listings += 1;
            }
            listings
        }
    });
    let (mut through, mut direct) = (proxy.client(), server.client());
    let keeps = |client: &mut Client| {
        client.send("set k 0 0 1\r\nx\r\nflush_all\r\nmg k\r\n");
        assert_eq!(client.line(), b"STORED\r\n");
        assert_eq!(client.line(), b"OK\r\n");
        u32::from(client.line() != b"EN\r\n")
    };
    // As often as it takes to see it without the proxy, or as long as one wants to wait for that.
    let begin = Instant::now();
    let (mut alone, mut behind) = (0, 0);
    while alone < 12 && begin.elapsed() < PATIENCE / 4 {
        alone += keeps(&mut direct);
        behind += keeps(&mut through);
    }
    over.store(true, Ordering::Relaxed);
    assert!(lister.join().unwrap() > 100);
    // A thread that is put to sleep while it holds the item can outlast all three.
    assert!(
        behind <= 2,
        "{behind} were kept behind the proxy, {alone} without"
    );
}
