//! Misbehaving clients and servers: whatever either does, the proxy lives, answers right, and harms nobody else.
//!
//! Each way in which magent 0.6 could be killed, blocked, made to spin or to mix replies up has its test here.

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use common::fake::{healthy, Do, Fake};
use common::{key_on, timed, wait_for, Client, Magent, Memcached, Port, PATIENCE};

/// A proxy in front of two primaries and a backup.
fn farm() -> ([Memcached; 3], Magent) {
    let servers = [Memcached::start(), Memcached::start(), Memcached::start()];
    let [first, second, backup] = servers.each_ref().map(Memcached::port);
    let proxy = Magent::front(&[first, second], &[backup]).start();
    (servers, proxy)
}

/// Closes with a reset instead of an orderly end.
fn reset(client: Client) {
    socket2::SockRef::from(client.stream())
        .set_linger(Some(Duration::ZERO))
        .expect("linger can be set");
}

/// The proxy is idle when nobody asks for anything: no core is spent in a loop.
#[track_caller]
fn assert_idle(proxy: &Magent) {
    let before = proxy.process().cpu();
    // Time must pass to see that nothing is done in it.
    std::thread::sleep(Duration::from_millis(500));
    let spent = proxy.process().cpu() - before;
    assert!(
        spent < Duration::from_millis(150),
        "{spent:?} of CPU in half a second of silence"
    );
}

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
    let begin = Instant::now();
    let (mut rounds, mut worst) = (0, Duration::ZERO);
    while begin.elapsed() < Duration::from_secs(1) {
        rounds += 1;
        fast.set("small", "value");
        let (value, time) = timed(|| fast.get("small"));
        assert_eq!(value.as_deref(), Some("value"));
        worst = worst.max(time);
    }
    assert!(rounds > 100, "only {rounds} rounds in a second");
    assert!(
        worst < Duration::from_millis(300),
        "the slowest get took {worst:?}"
    );
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

#[test]
fn a_slow_server_mixes_up_no_replies() {
    let slow = Fake::start(|request| {
        let mut steps = healthy(request);
        if !request.is_probe() {
            steps.insert(0, Do::Wait(Duration::from_millis(5)));
        }
        steps
    });
    let proxy = Magent::front(&[slow.port()], &[])
        .args(&["--timeout", "5000"])
        .start();
    std::thread::scope(|scope| {
        for n in 0..8 {
            let proxy = &proxy;
            scope.spawn(move || {
                for round in 0..12 {
                    let mut client = proxy.client();
                    let key = format!("key{n}-{round}");
                    client.send(format!(
                        "set {key} 0 0 1\r\nx\r\nget {key}\r\ndelete {key}\r\n"
                    ));
                    if round % 3 == 2 {
                        // Its replies are still to come and must reach nobody.
                        reset(client);
                        continue;
                    }
                    assert_eq!(client.reply(), b"STORED\r\n");
                    let value = format!("value-of-{key}");
                    let expect = format!("VALUE {key} 0 {}\r\n{value}\r\nEND\r\n", value.len());
                    assert_eq!(client.reply(), expect.as_bytes());
                    assert_eq!(client.reply(), b"DELETED\r\n");
                }
            });
        }
    });
}

#[test]
fn a_late_answer_reaches_nobody() {
    // The first get is answered after its time; what follows is at once.
    let late = Fake::start(|request| {
        let mut steps = healthy(request);
        if request.line.contains("late") {
            steps.insert(0, Do::Wait(Duration::from_millis(400)));
        }
        steps
    });
    let proxy = Magent::front(&[late.port()], &[])
        .args(&["--timeout", "100"])
        .start();
    let mut client = proxy.client();
    for round in 0..3 {
        assert_eq!(client.get(&format!("late{round}")), None);
        // Whether the server counts as down now or not: a wrong value it must never be.
        for n in 0..20 {
            let key = format!("key{round}-{n}");
            if let Some(value) = client.get(&key) {
                assert_eq!(value, format!("value-of-{key}"));
            }
        }
        wait_for("the server is used again", PATIENCE, || {
            client.get("probe").is_some()
        });
    }
}

#[test]
fn answers_in_pieces_are_put_together() {
    let dribble = Fake::start(|request| {
        let pieces = healthy(request).into_iter().map(|step| match step {
            Do::Send(bytes) => Do::Dribble(bytes),
            other => other,
        });
        pieces.collect()
    });
    let proxy = Magent::front(&[dribble.port()], &[]).start();
    let mut client = proxy.client();
    for n in 0..20 {
        let key = format!("END{n}");
        assert_eq!(client.get(&key), Some(format!("value-of-{key}")));
        client.set(&key, "x");
        let three = client.ask(&format!("gets a{n} b{n} c{n}"));
        assert_eq!(three.matches("VALUE").count(), 3, "{three}");
    }
}

/// What a server may do wrong, and that the backup then answers.
#[test]
fn a_server_out_of_its_mind_is_left_for_the_backup() {
    type Script = fn(&common::fake::Request) -> Vec<Do>;
    let madness: [(&str, Script); 9] = [
        ("garbage", |_| vec![Do::say("\x01\x02 what?\r\n")]),
        ("surplus", |_| {
            vec![Do::say("END\r\nEND\r\nVALUE key1 0 3\r\nbad\r\nEND\r\n")]
        }),
        ("wrong key", |_| {
            vec![Do::say("VALUE other 0 3\r\nbad\r\nEND\r\n")]
        }),
        ("cut in the value", |_| {
            vec![Do::say("VALUE key1 0 100\r\nbad"), Do::Close]
        }),
        ("cut in the line", |_| {
            vec![Do::say("VALUE key1 0 "), Do::Close]
        }),
        ("bad length", |_| {
            vec![Do::say("VALUE key1 0 99999999999999999999\r\n")]
        }),
        ("endless line", |_| vec![Do::Send(vec![b'x'; 300_000])]),
        ("close", |_| vec![Do::Close]),
        ("silence", |_| vec![Do::Mute]),
    ];
    for (name, script) in madness {
        let mad = Fake::start(move |request| match request.is_probe() {
            true => healthy(request),
            false => script(request),
        });
        let backup = Memcached::start();
        backup.client().set("key1", "right");
        let mut proxy = Magent::front(&[mad.port()], &[backup.port()]).start();
        let mut client = proxy.client();
        for round in 0..5 {
            let (value, time) = timed(|| client.get("key1"));
            // An END of its own is a miss that one must believe; a wrong value is never handed on.
            let believed = name == "surplus" && value.is_none();
            assert!(
                believed || value.as_deref() == Some("right"),
                "{name}, {round}: {value:?}"
            );
            assert!(
                time < Duration::from_millis(900),
                "{name}, {round}: took {time:?}"
            );
        }
        let (reply, time) = timed(|| client.ask("set key1 0 0 3\r\nnew"));
        assert!(
            reply == "STORED" || reply.starts_with("SERVER_ERROR "),
            "{name}: set answered {reply}"
        );
        assert!(
            time < Duration::from_millis(900),
            "{name}: set took {time:?}"
        );
        proxy.assert_alive();
        assert_idle(&proxy);
        // A server that keeps breaking is not asked again and again.
        assert!(
            mad.accepted() < 100,
            "{name}: {} connections",
            mad.accepted()
        );
    }
}

#[test]
fn a_server_that_accepts_and_never_speaks_is_not_up() {
    let silent = Fake::start(|_| vec![Do::Mute]);
    let backup = Memcached::start();
    let proxy = Magent::front(&[silent.port()], &[backup.port()]).start();
    let mut client = proxy.client();
    for round in 0..10 {
        let ((), time) = timed(|| client.set("key1", "value"));
        assert!(
            time < Duration::from_millis(if round == 0 { 900 } else { 150 }),
            "{time:?}"
        );
        assert_eq!(client.get("key1").as_deref(), Some("value"));
    }
}

#[test]
fn a_server_that_closes_at_once_gets_no_request_twice() {
    // The original sent an incr 6000 times in a second to a server that accepted and closed.
    let port = Port::claim();
    let closing = Fake::on(port, |request| match request.is_probe() {
        true => healthy(request),
        false => vec![Do::Close],
    });
    let backup = Memcached::start();
    backup.client().set("n", "5");
    let proxy = Magent::front(&[closing.port()], &[backup.port()]).start();
    let reply = proxy.client().ask("incr n 1");
    assert!(
        reply == "6" || reply.starts_with("SERVER_ERROR "),
        "incr answered {reply}"
    );
    let value = backup.client().get("n").unwrap();
    assert!(
        value == "6" || (value == "5" && reply != "6"),
        "{reply}, then {value}"
    );
    assert!(closing.lines().len() <= 1, "{:?}", closing.lines());
}

#[test]
fn servers_nowhere_are_an_error_not_a_crash() {
    let mut proxy = Magent::front(&[], &[])
        .args(&["-s", "240.0.0.1:11211", "-b", "240.0.0.2:11211"])
        .start();
    let mut client = proxy.client();
    for n in 0..4 {
        let (reply, time) = timed(|| client.ask(&format!("set key{n} 0 0 1\r\nx")));
        assert!(reply.starts_with("SERVER_ERROR "), "set answered {reply}");
        assert!(time < Duration::from_secs(2), "took {time:?}");
        assert_eq!(client.get(&format!("key{n}")), None);
    }
    proxy.assert_alive();
    assert_idle(&proxy);
}

#[test]
fn many_servers() {
    let servers: Vec<_> = (0..24).map(|_| Memcached::with(&["-t", "1"])).collect();
    let (primaries, backups) = servers.split_at(22);
    let ports = |servers: &[Memcached]| servers.iter().map(Memcached::port).collect::<Vec<_>>();
    let proxy = Magent::front(&ports(primaries), &ports(backups)).start();
    let mut client = proxy.client();
    let keys: Vec<_> = (0..200).map(|n| format!("key{n}")).collect();
    keys.iter().for_each(|key| client.set(key, key));
    let reply = client.ask(&format!("get {}", keys.join(" ")));
    let values: Vec<_> = reply
        .lines()
        .filter(|line| line.starts_with("key"))
        .collect();
    assert_eq!(values, keys, "all values in request order");
    let used = primaries
        .iter()
        .filter(|one| one.client().stat("curr_items") != "0")
        .count();
    assert!(used > 18, "only {used} of 22 servers hold anything");
}

#[test]
fn a_proxy_behind_a_proxy() {
    let (servers, inner) = farm();
    let last = Memcached::start();
    let outer = Magent::front(&[inner.port()], &[last.port()]).start();
    let as_backup = Magent::front(&[last.port()], &[inner.port()]).start();
    let mut client = outer.client();
    client.set("key1", "through two");
    assert_eq!(client.get("key1").as_deref(), Some("through two"));
    assert_eq!(
        servers[1].client().get("key1").as_deref(),
        Some("through two")
    );
    assert!(client.ask("gets key1").starts_with("VALUE key1 0 11 "));
    assert_eq!(client.ask("mg key1 v k"), "VA 11 kkey1\r\nthrough two");
    wait_for("the outer backup has it", PATIENCE, || {
        last.client().get("key1").is_some()
    });
    let mut client = as_backup.client();
    client.set("key2", "mirrored into a proxy");
    wait_for("the inner proxy has it", PATIENCE, || {
        inner.client().get("key2").as_deref() == Some("mirrored into a proxy")
    });
    drop(last);
    assert_eq!(client.get("key2").as_deref(), Some("mirrored into a proxy"));
}

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
