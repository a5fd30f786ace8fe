//! Misbehaving, slow and missing servers: the proxy lives, mixes up no replies, and goes on to the backup.
//!
//! Each way in which a server could bring magent 0.6 down, or make it answer wrong, has its test here.

use crate::common;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::Duration;

use common::fake::{healthy, Do, Fake};
use common::{
    assert_idle, farm, reset, timed, wait_for, Magent, Memcached, Port, AT_ONCE, PATIENCE,
};

#[test]
fn a_slow_server_mixes_up_no_replies() {
    let slow = Fake::start(|request| {
        let mut steps = healthy(request);
        if !request.is_probe() {
            steps.insert(0, Do::Wait(Duration::from_millis(5)));
        }
        steps
    });
    let proxy = Magent::front(&[slow.port()], &[]).start();
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
            steps.insert(0, Do::Wait(Duration::from_secs(3)));
        }
        steps
    });
    let proxy = Magent::front(&[late.port()], &[])
        .args(&["--timeout", "500"])
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
        // Each request may find it up and be the one that waits.
        let mut proxy = Magent::front(&[mad.port()], &[backup.port()])
            .args(&["--timeout", "2000"])
            .start();
        let mut client = proxy.client();
        for round in 0..5 {
            let (value, time) = timed(|| client.get("key1"));
            // An END of its own is a miss that one must believe; a wrong value is never handed on.
            let believed = name == "surplus" && value.is_none();
            assert!(
                believed || value.as_deref() == Some("right"),
                "{name}, {round}: {value:?}"
            );
            assert!(time < AT_ONCE, "{name}, {round}: took {time:?}");
        }
        let (reply, time) = timed(|| client.ask("set key1 0 0 3\r\nnew"));
        assert!(
            reply == "STORED" || reply.starts_with("SERVER_ERROR "),
            "{name}: set answered {reply}"
        );
        assert!(time < AT_ONCE, "{name}: set took {time:?}");
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
    let proxy = Magent::front(&[silent.port()], &[backup.port()])
        .args(&["--timeout", "1000"])
        .start();
    let mut client = proxy.client();
    for round in 0..10 {
        let ((), time) = timed(|| client.set("key1", "value"));
        assert!(round == 0 || time < AT_ONCE, "{time:?}");
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
        .args(&["--timeout", "500"])
        .start();
    let mut client = proxy.client();
    for n in 0..4 {
        let (reply, time) = timed(|| client.ask(&format!("set key{n} 0 0 1\r\nx")));
        assert!(reply.starts_with("SERVER_ERROR "), "set answered {reply}");
        assert!(time < AT_ONCE, "took {time:?}");
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
    // What the inner proxy names its servers by in its tokens is left as it is.
    let reply = client.ask("gets key1");
    let token = reply
        .lines()
        .next()
        .and_then(|line| line.strip_prefix("VALUE key1 0 11 "))
        .unwrap_or_else(|| panic!("{reply}"));
    assert_eq!(inner.client().ask("gets key1"), reply);
    client.send(format!("cas key1 0 0 11 {token}\r\nthrough two\r\n"));
    assert_eq!(client.line(), b"STORED\r\n");
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

/// Before 1.6 the keys are listed along their order of use only, which may leave out some: so two listings are made.
#[test]
fn a_server_that_does_not_walk_its_hash_table_is_listed_by_use_and_twice() {
    let listings = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&listings);
    let old = Fake::start(move |request| match request.word(0) {
        "lru_crawler" if request.word(2) == "hash" => {
            vec![Do::say("BADCLASS invalid class id\r\n")]
        }
        "lru_crawler" => {
            // The first listing leaves one out.
            let again = seen.fetch_add(1, Ordering::SeqCst) > 0;
            let other = if again { "key=b exp=-1 la=1\n" } else { "" };
            vec![Do::say(&format!("key=a exp=-1 la=1\n{other}END\r\n"))]
        }
        "mg" if ["a", "b"].contains(&request.word(1)) => {
            let key = request.word(1);
            vec![Do::say(&format!("VA 5 t-1 f7 k{key}\r\nvalue\r\n"))]
        }
        _ => healthy(request),
    });
    // Empty where its peer is not: it is filled from the start.
    let primary = Memcached::start();
    let proxy = Magent::front(&[primary.port()], &[old.port()]).start();
    let mut client = proxy.client();
    let line = format!("STAT 127.0.0.1:{}:state up", primary.port());
    wait_for("both keys are there, and it is warm", PATIENCE, || {
        client.get("elsewhere");
        let mut direct = primary.client();
        let both = ["a", "b"].map(|key| direct.ask(&format!("get {key}")));
        both == ["a", "b"].map(|key| format!("VALUE {key} 7 5\r\nvalue\r\nEND"))
            && client.ask("stats servers").contains(&line)
    });
    assert_eq!(listings.load(Ordering::SeqCst), 2);
}
