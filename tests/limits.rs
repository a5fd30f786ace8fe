//! Connections, descriptors and memory at their limits: refused in words, and back to normal by itself.

use crate::common;

use std::time::{Duration, Instant};

use common::fake::{healthy, Fake};
use common::{timed, wait_for, Client, Magent, Memcached, AT_ONCE, PATIENCE};

#[test]
fn over_the_connection_limit_is_said_and_passes() {
    let memcached = Memcached::start();
    let mut proxy = Magent::front(&[memcached.port()], &[])
        .args(&["-n", "10"])
        .start();
    // Earlier clients (those that waited for the start) may not have been forgotten yet.
    wait_for("nobody else is connected", PATIENCE, || {
        proxy.client().stat("curr_connections") == "1"
    });
    for _ in 0..3 {
        let mut clients: Vec<Client> = Vec::new();
        wait_for("ten clients are served", PATIENCE, || {
            let mut client = proxy.client();
            // The place of one that has just left may not be free yet.
            if client.try_send(b"version\r\n").is_ok() && client.line().starts_with(b"VERSION") {
                clients.push(client);
            }
            clients.len() == 10
        });
        for _ in 0..5 {
            let mut refused = proxy.client();
            let line = refused.read_to_end();
            assert!(
                line.starts_with(b"SERVER_ERROR "),
                "{}",
                line.escape_ascii()
            );
            assert!(line.ends_with(b"\r\n"), "{}", line.escape_ascii());
        }
        for client in &mut clients {
            assert_eq!(client.get("nokey"), None, "those within are served on");
        }
        drop(clients);
        wait_for("a new client is served", PATIENCE, || {
            let mut client = proxy.client();
            client.try_send(b"version\r\n").is_ok() && client.line().starts_with(b"VERSION")
        });
    }
    proxy.assert_alive();
}

#[test]
fn out_of_descriptors_accepting_pauses_and_resumes() {
    let memcached = Memcached::start();
    // Soft and hard, so that it cannot raise it. A few dozen clients are more than fit.
    let mut proxy = Magent::front(&[memcached.port()], &[])
        .args(&["-n", "1000"])
        .under(&["prlimit", "--nofile=40:40", "--"])
        .start();
    let mut first = proxy.client();
    first.set("key1", "value");
    let (before, begin) = (proxy.process().cpu(), Instant::now());
    let mut clients: Vec<Client> = (0..100).map(|_| proxy.client()).collect();
    for client in &mut clients {
        let _ = client.try_send(b"get key1\r\n");
    }
    // The original spent a core and wrote 900,000 lines of log in two seconds of this.
    for _ in 0..20 {
        let (value, time) = timed(|| first.get("key1"));
        assert_eq!(value.as_deref(), Some("value"));
        assert!(time < AT_ONCE, "took {time:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
    let (spent, time) = (proxy.process().cpu() - before, begin.elapsed());
    assert!(spent < time / 2, "{spent:?} of CPU in {time:?}");
    let log = proxy.process().stderr();
    assert!(
        log.lines().count() < 100,
        "{} lines of log",
        log.lines().count()
    );
    // Whoever was let in was served; the others are told, closed, or still wait for their turn.
    drop(clients.drain(..95));
    for client in &mut clients {
        let reply = client.until_or_end(b"\r\n");
        let (Ok(line) | Err((_, line))) = reply;
        assert!(
            line.is_empty()
                || line.starts_with(b"VALUE key1 ")
                || line.starts_with(b"SERVER_ERROR "),
            "{}",
            line.escape_ascii()
        );
    }
    drop(clients);
    wait_for("new clients are served", PATIENCE, || {
        let mut client = proxy.client().patience(Duration::from_millis(500));
        client.try_send(b"version\r\n").is_ok() && client.until_or_end(b"\r\n").is_ok()
    });
    proxy.assert_alive();
}

#[test]
fn clients_leave_descriptors_for_the_servers() {
    let (mut primary, mut backup) = (Memcached::start(), Memcached::start());
    let proxy = Magent::front(&[primary.port()], &[backup.port()])
        .under(&["prlimit", "--nofile=256:256", "--"])
        .start();
    let mut clients: Vec<Client> = (0..300).map(|_| proxy.client()).collect();
    // More than fit: the last one is told so.
    let last = clients.last_mut().expect("there are some");
    assert_eq!(last.line(), b"SERVER_ERROR too many open connections\r\n");
    let first = &mut clients[0];
    for server in [&mut primary, &mut backup] {
        server.kill();
        wait_for("the server is lost", PATIENCE, || {
            first.stat("magent_servers_up") == "1"
        });
        server.restart();
        wait_for("the server is used again", PATIENCE, || {
            first.stat("magent_servers_up") == "2"
        });
    }
    first.set("k", "v");
    let log = proxy.process().stderr();
    assert!(log.contains("room for "), "{log}");
}

#[test]
fn the_descriptor_limit_is_raised_to_fit() {
    let memcached = Memcached::start();
    let proxy = Magent::front(&[memcached.port()], &[])
        .args(&["-n", "300"])
        .under(&["prlimit", "--nofile=64:4096", "--"])
        .start();
    let mut clients: Vec<_> = (0..290).map(|_| proxy.client()).collect();
    for client in &mut clients {
        assert_eq!(client.get("nokey"), None);
    }
}

#[test]
fn out_of_memory_is_said_and_passes() {
    let memcached = Memcached::start();
    let mut proxy = Magent::front(&[memcached.port()], &[])
        .args(&["--memory-limit", "8000000"])
        .start();
    let mut client = proxy.client();
    let value = "x".repeat(900_000);
    client.set("large", &value);
    let before = proxy.process().resident();
    let mut slow: Vec<Client> = (0..30).map(|_| proxy.client()).collect();
    for one in &mut slow {
        one.send("get large large large large\r\n".repeat(3));
    }
    let mut worst = Duration::ZERO;
    for _ in 0..50 {
        let mut other = proxy.client();
        let (reply, time) = timed(|| other.ask("get small"));
        assert!(
            reply == "END" || reply == "SERVER_ERROR out of memory",
            "{reply}"
        );
        worst = worst.max(time);
    }
    assert!(worst < AT_ONCE, "the slowest took {worst:?}");
    let grown = proxy.process().resident().saturating_sub(before);
    assert!(
        grown < 40 << 20,
        "the proxy has grown by {} MiB",
        grown >> 20
    );
    drop(slow);
    wait_for("large values are served again", PATIENCE, || {
        let reply = proxy.client().ask("get large");
        assert!(
            reply.starts_with("VALUE large ")
                || reply == "SERVER_ERROR out of memory"
                || reply == "END"
        );
        reply.len() > 900_000
    });
    proxy.assert_alive();
}

/// Whoever asks for much has others wait behind it in the servers' queues: never behind more than a few hundred keys.
#[test]
fn a_long_list_leaves_room_for_others() {
    let server = Fake::start(|request| match request.word(0) {
        "get" if request.word(1).starts_with("key") => Vec::new(),
        _ => healthy(request),
    });
    let proxy = Magent::front(&[server.port()], &[])
        .args(&["--timeout", "20000"])
        .start();
    let list: String = (0..10_000).map(|n| format!(" key{n}")).collect();
    let mut greedy = proxy.client();
    // Until it is known that its values are small, and that it reads what it is sent, it may ask for few.
    let small = format!("get{}\r\n", " small".repeat(200));
    for _ in 0..40 {
        greedy.send(small.as_bytes());
        while greedy.line() != b"END\r\n" {}
    }
    greedy.send(format!("get{list}\r\n").as_bytes());
    let gets = || -> Vec<String> {
        let lines = server.lines();
        let wanted = |line: &String| line.starts_with("get key") || line == "get other";
        lines.into_iter().filter(wanted).collect()
    };
    wait_for("the list is asked for", PATIENCE, || !gets().is_empty());
    let mut other = proxy.client();
    other.send(b"get other\r\n");
    wait_for("another client's key is asked for", PATIENCE, || {
        gets().iter().any(|line| line == "get other")
    });
    let before = gets().into_iter().take_while(|line| line != "get other");
    let keys: usize = before.map(|line| line.split(' ').count() - 1).sum();
    assert!((200..=256).contains(&keys), "{keys} keys in front");
}

#[test]
fn an_idle_connection_costs_little() {
    let memcached = Memcached::start();
    let proxy = Magent::front(&[memcached.port()], &[])
        .args(&["-n", "5000"])
        .start();
    let mut clients: Vec<_> = (0..500).map(|_| proxy.client()).collect();
    clients
        .iter_mut()
        .for_each(|client| assert_eq!(client.get("nokey"), None));
    let before = proxy.process().resident();
    let mut more: Vec<_> = (0..2000).map(|_| proxy.client()).collect();
    more.iter_mut()
        .for_each(|client| assert_eq!(client.get("nokey"), None));
    let each = proxy.process().resident().saturating_sub(before) / 2000;
    assert!(each < 1024, "{each} bytes for each idle connection");
}

/// What large values need is taken from the system once, not for each value anew.
#[test]
fn large_values_cost_no_page_faults() {
    let memcached = Memcached::start();
    let proxy = Magent::front(&[memcached.port()], &[]).start();
    let mut clients: Vec<_> = (0..8).map(|_| proxy.client()).collect();
    let value = "v".repeat(1_000_000);
    let mut pass = |times| {
        for _ in 0..times {
            for (n, client) in clients.iter_mut().enumerate() {
                client.send(format!("set key{n} 0 0 1000000\r\n{value}\r\n").as_bytes());
            }
            for client in &mut clients {
                assert_eq!(client.line(), b"STORED\r\n");
            }
        }
    };
    pass(5);
    let before = proxy.process().page_faults();
    pass(10);
    let each = (proxy.process().page_faults() - before) / 80;
    // Every page of it anew, once, would be 244.
    assert!(each < 50, "{each} page faults for each value");
}

/// Half requests have a share of the memory of their own: nobody is refused anything for their sake.
#[test]
fn half_requests_take_a_share_of_the_memory_only() {
    let memcached = Memcached::start();
    let proxy = Magent::front(&[memcached.port()], &[])
        .args(&["--memory-limit", "4m"])
        .start();
    let mut other = proxy.client();
    let begun = format!("set half 0 0 1000000\r\n{}", "x".repeat(900_000));
    let keys = format!("get {}", "key ".repeat(200_000));
    let mut halves = Vec::new();
    for text in [&begun, &keys, &begun, &begun, &keys, &begun, &begun, &begun] {
        let mut client = proxy.client();
        // It may be closed before all has been sent.
        let _ = client.try_send(text.as_bytes());
        halves.push(client);
        assert_eq!(other.ask("set key 0 0 5\r\nvalue"), "STORED");
    }
    wait_for("the silent ones have their share", PATIENCE, || {
        let held: usize = other
            .stat("magent_buffered_bytes")
            .parse()
            .expect("a number");
        held <= 1 << 20
    });
    assert_ne!(other.stat("magent_halves_closed"), "0");
    assert_eq!(other.get("key").as_deref(), Some("value"));
    drop(halves);
}

/// Clients that pipeline what the proxy answers itself get all of it, in turns with the others.
#[test]
fn what_is_answered_here_is_answered_in_turns() {
    let memcached = Memcached::start();
    let proxy = Magent::front(&[memcached.port()], &[]).start();
    let count = 3000;
    let mut greedy: Vec<Client> = (0..4).map(|_| proxy.client()).collect();
    for client in &mut greedy {
        client.send("mn\r\n".repeat(count) + "version\r\n");
    }
    let mut other = proxy.client();
    other.set("key", "value");
    assert_eq!(other.get("key").as_deref(), Some("value"));
    for client in &mut greedy {
        for _ in 0..count {
            assert_eq!(client.line(), b"MN\r\n");
        }
        assert!(client.line().starts_with(b"VERSION "));
    }
}

/// Clients that read nothing of what they ask for hold little, before it is known how long that is.
#[test]
fn clients_that_read_nothing_leave_the_memory_to_others() {
    let memcached = Memcached::start();
    let proxy = Magent::front(&[memcached.port()], &[])
        .args(&["--memory-limit", "64m"])
        .start();
    let mut other = proxy.client();
    for n in 0..50 {
        other.set(&format!("value{n}"), &"x".repeat(50_000));
    }
    // So many small ones that short values are expected.
    for _ in 0..50 {
        other.set("key", "value");
        assert_eq!(other.get("key").as_deref(), Some("value"));
    }
    let keys: Vec<String> = (0..50).map(|n| format!("value{n}")).collect();
    let question = format!("get {}\r\n", keys.join(" ")).repeat(3);
    let mut silent: Vec<Client> = (0..60).map(|_| Client::narrow(proxy.port())).collect();
    // At once, so that nothing is known when the last one has asked.
    for client in &mut silent {
        client.send(&question);
    }
    for _ in 0..100 {
        assert_eq!(other.ask("set key 0 0 5\r\nvalue"), "STORED");
        assert_eq!(other.get("key").as_deref(), Some("value"));
    }
    drop(silent);
}
