//! Misbehaving clients: whatever they do, the proxy lives, answers right, and harms nobody else.
//!
//! Each way in which magent 0.6 could be killed, blocked, made to spin or to mix replies up has its test here.

use crate::common;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use common::files::TempDir;
use common::{assert_idle, farm, key_on, reset, timed, wait_for, Client, AT_ONCE, PATIENCE};

#[test]
fn a_storm_of_noreply() {
    let (_servers, mut proxy) = farm();
    let mut clients: Vec<_> = (0..20).map(|_| proxy.client()).collect();
    for round in 0..50 {
        for (n, client) in clients.iter_mut().enumerate() {
            let mut bytes = String::new();
            for k in 0..20 {
                bytes += &format!("set key{n}-{k} 0 0 3 noreply\r\nabc\r\n");
            }
            bytes += &format!("incr count{n} 1 noreply\r\nadd count{n} 0 0 1 noreply\r\n0\r\n");
            client.send(bytes);
            if round % 10 == 9 {
                assert_eq!(client.get(&format!("key{n}-19")).as_deref(), Some("abc"));
            }
        }
    }
    for (n, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.get(&format!("count{n}")).as_deref(), Some("49"));
    }
    // Some leave in the middle of one more storm.
    for mut client in clients {
        client.send("set last 0 0 1 noreply\r\nx\r\n".repeat(100));
        reset(client);
    }
    proxy.assert_alive();
    assert_idle(&proxy);
}

#[test]
fn clients_that_ask_and_leave() {
    let (_servers, mut proxy) = farm();
    proxy.client().set("large", &"x".repeat(900_000));
    for round in 0..200 {
        for command in [
            "stats",
            "stats servers",
            "get large",
            "get large large large",
            "version",
        ] {
            let mut client = proxy.client();
            client.send(format!("{command}\r\n"));
            match round % 3 {
                0 => drop(client),
                1 => reset(client),
                _ => {
                    // A part of the answer is on its way.
                    let _ = client.exactly(1);
                    reset(client);
                }
            }
        }
    }
    proxy.assert_alive();
    assert_eq!(
        proxy.client().get("large").map(|value| value.len()),
        Some(900_000)
    );
    assert_idle(&proxy);
    wait_for("the clients that left are forgotten", PATIENCE, || {
        proxy
            .client()
            .stat("curr_connections")
            .parse::<u32>()
            .unwrap()
            < 10
    });
}

#[test]
fn clients_that_leave_in_the_middle_of_a_set() {
    let (servers, mut proxy) = farm();
    for n in 0..200 {
        let mut client = proxy.client();
        client.send(format!("set half{n} 0 0 1000\r\n{}", "x".repeat(n * 4)));
        if n % 2 == 0 {
            reset(client)
        } else {
            drop(client)
        }
    }
    proxy.assert_alive();
    let mut client = proxy.client();
    for n in 0..200 {
        assert_eq!(client.get(&format!("half{n}")), None);
    }
    for server in &servers {
        assert_eq!(
            server.client().stat("curr_items"),
            "0",
            "no half of a set reached a server"
        );
    }
}

#[test]
fn a_client_that_sends_no_more_is_still_answered() {
    let (_servers, proxy) = farm();
    let large = "x".repeat(500_000);
    let mut client = proxy.client();
    client.send(format!("set large 0 0 {}\r\n{large}\r\n", large.len()));
    client.send("set key1 0 0 5\r\nvalue\r\nget key1\r\nget key1 key2\r\nmg nokey\r\nversion\r\nget large\r\nget key1\r\n");
    client.finish();
    let reply = String::from_utf8(client.read_to_end()).unwrap();
    let one = "VALUE key1 0 5\r\nvalue\r\nEND\r\n";
    assert!(
        reply.starts_with(&format!("STORED\r\nSTORED\r\n{one}{one}EN\r\nVERSION ")),
        "{reply:.300}"
    );
    let tail = format!("VALUE large 0 500000\r\n{large}\r\nEND\r\n{one}");
    assert!(reply.ends_with(&tail), "{} bytes", reply.len());
}

#[test]
fn a_slow_reader_delays_nobody_and_is_bounded() {
    let (_servers, proxy) = farm();
    let mut setter = proxy.client();
    let keys: Vec<String> = (0..6).map(|n| format!("large{n}")).collect();
    let value = "x".repeat(900_000);
    keys.iter().for_each(|key| setter.set(key, &value));
    let before = proxy.process().resident();
    let ask = format!("get {}\r\n", keys.join(" "));
    let mut slow: Vec<Client> = (0..4).map(|_| proxy.client()).collect();
    let wanted = 20;
    for client in &mut slow {
        client.send(ask.repeat(wanted));
    }
    // 432 MB are asked for and not read. The others are served meanwhile.
    let mut fast = proxy.client();
    for _ in 0..300 {
        fast.set("small", "value");
        let (value, time) = timed(|| fast.get("small"));
        assert_eq!(value.as_deref(), Some("value"));
        assert!(time < AT_ONCE, "it took {time:?}");
    }
    let grown = proxy.process().resident().saturating_sub(before);
    assert!(
        grown < 128 << 20,
        "the proxy has grown by {} MiB",
        grown >> 20
    );
    // All of it comes when it is read, whole and in order.
    let whole = format!("VALUE large0 0 {}\r\n", value.len()).len() + value.len() + 2;
    let mut client = slow.swap_remove(0);
    for _ in 0..wanted {
        let reply = client.exactly(whole * keys.len() + "END\r\n".len());
        assert!(reply.starts_with(b"VALUE large0 ") && reply.ends_with(b"END\r\n"));
    }
    slow.into_iter().for_each(reset);
    wait_for(
        "the memory of those who left is given back",
        PATIENCE,
        || proxy.process().resident().saturating_sub(before) < 64 << 20,
    );
}

/// What a server may do wrong, and that the backup then answers.
#[test]
fn pipelines_of_many_clients_stay_in_order() {
    let (_servers, proxy) = farm();
    let (first, second) = (key_on(0, 2, "one"), key_on(1, 2, "two"));
    std::thread::scope(|scope| {
        for n in 0..6 {
            let (proxy, first, second) = (&proxy, &first, &second);
            scope.spawn(move || {
                let mut stream = TcpStream::connect(("127.0.0.1", proxy.port())).unwrap();
                let (mut sent, mut expect) = (Vec::new(), Vec::new());
                for round in 0..300 {
                    for key in [first, second] {
                        let (key, value) = (format!("{key}c{n}"), format!("{n}:{round}"));
                        let size = value.len();
                        sent.extend(
                            format!("set {key} 0 0 {size}\r\n{value}\r\nget {key}\r\nbad\r\n")
                                .bytes(),
                        );
                        expect.extend(
                            format!(
                                "STORED\r\nVALUE {key} 0 {size}\r\n{value}\r\nEND\r\nERROR\r\n"
                            )
                            .bytes(),
                        );
                    }
                }
                stream.write_all(&sent).unwrap();
                stream.shutdown(Shutdown::Write).unwrap();
                let mut got = Vec::new();
                stream.read_to_end(&mut got).unwrap();
                assert!(got == expect, "client {n}: {}", common::show(&got));
            });
        }
    });
}

#[test]
fn a_log_that_nobody_reads_holds_nobody_up() {
    let (server, directory) = (common::Memcached::start(), TempDir::new());
    let log = directory.path("log");
    nix::unistd::mkfifo(log.as_str(), nix::sys::stat::Mode::S_IRWXU).expect("a FIFO can be made");
    // Open for both ways: opening does not wait, and magent finds a reader.
    let mut reader = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(&log)
        .expect("the FIFO opens");
    // A line for each request fills the FIFO and the queue behind it.
    let mut proxy = common::Magent::front(&[server.port()], &[])
        .args(&["-vv", "--log-file", &log])
        .start();
    let mut client = proxy.client();
    for _ in 0..100 {
        client.send("get k\r\n".repeat(100));
        client.exactly(100 * "END\r\n".len());
    }
    proxy.process().signal(nix::sys::signal::Signal::SIGHUP);
    proxy.assert_alive();
    // Whoever reads again is told that something is missing.
    let mut text = Vec::new();
    let mut scratch = [0; 65536];
    while common::client::find(&text, b"were dropped, as they were not taken in time").is_none() {
        let count = reader.read(&mut scratch).expect("the FIFO can be read");
        text.extend_from_slice(&scratch[..count]);
    }
    // Nobody reads while it ends, either.
    assert!(proxy.end(nix::sys::signal::Signal::SIGTERM).success());
}
