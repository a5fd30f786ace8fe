//! Clients that ask for long values and do not read them: what they hold, and what they get when they read after all.

use crate::common;

use std::io::Read;
use std::net::TcpStream;

use common::{wait_for, Client, Magent, Memcached, PATIENCE};

/// Length of a long value.
const LEN: usize = 1_000_000;

/// So many of them are more than the kernel holds for a client.
const TIMES: usize = 8;

/// What a client that reads nothing may hold.
const HELD_MAX: u64 = 128_000;

struct Scene {
    primaries: [Memcached; 2],
    backup: Memcached,
    proxy: Magent,
}

impl Scene {
    /// A proxy in front of servers that hold so many long values.
    fn new(values: usize) -> Scene {
        let start = || Memcached::with(&["-m", "200"]);
        let (primaries, backup) = ([start(), start()], start());
        let ports = primaries.each_ref().map(Memcached::port);
        let proxy = Magent::front(&ports, &[backup.port()])
            .args(&["--drain-ms", "60000"])
            .start();
        let mut client = proxy.client();
        for n in 0..values {
            store(&mut client, n, &content(n));
        }
        Scene {
            primaries,
            backup,
            proxy,
        }
    }

    fn stat(&self, name: &str) -> u64 {
        let value = self.proxy.client().stat(name);
        value.parse().expect("a number")
    }

    /// A client that asks `TIMES` times, and reads nothing until a value has been set aside: one of those that the kernel did
    /// not take.
    fn stuck(&self, request: &str) -> Client {
        let before = self.stat("magent_set_aside");
        let mut client = Client::narrow(self.proxy.port());
        client.send(request.repeat(TIMES));
        wait_for("a value is set aside", PATIENCE, || {
            self.stat("magent_set_aside") > before
        });
        client
    }

    /// That client reads now: its connection ends before it has got `whole` so often, and there is nothing else in it.
    #[track_caller]
    fn is_cut_off(&self, client: &mut Client, whole: &[u8]) {
        let (got, whole) = (client.read_to_end(), whole.repeat(TIMES));
        assert!(whole.starts_with(&got), "other bytes");
        assert!(got.len() < whole.len());
        assert_eq!(self.stat("magent_cut_off"), 1);
    }
}

/// What the value `n` holds: no part of it stands anywhere else.
fn content(n: usize) -> Vec<u8> {
    let mut state = n as u64 + 1;
    let words = std::iter::repeat_with(|| {
        state = state
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(n as u64 * 2 + 1);
        (state >> 32) as u32
    });
    words.flat_map(u32::to_le_bytes).take(LEN).collect()
}

fn key(n: usize) -> String {
    format!("long:{n}")
}

/// The block of value `n`.
fn block(n: usize) -> Vec<u8> {
    let head = format!("VALUE {} 7 {LEN}\r\n", key(n));
    [head.as_bytes(), &content(n), b"\r\n"].concat()
}

/// The reply to a `get` of value 0.
fn reply() -> Vec<u8> {
    [&block(0)[..], b"END\r\n"].concat()
}

fn store(client: &mut Client, n: usize, value: &[u8]) {
    let head = format!("set {} 7 0 {}\r\n", key(n), value.len());
    let request = [head.as_bytes(), value, b"\r\n"].concat();
    client.send(request);
    assert_eq!(client.line(), b"STORED\r\n");
}

/// Reads just what is expected.
#[track_caller]
fn reads(mut stream: &TcpStream, expected: &[u8]) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut got = vec![0; expected.len()];
    stream.read_exact(&mut got).unwrap();
    let same = got.iter().zip(expected).take_while(|(a, b)| a == b);
    assert!(got == expected, "other bytes from {} on", same.count());
}

#[test]
fn clients_that_read_nothing_hold_little_and_get_all_in_the_end() {
    const CLIENTS: u64 = 20;
    let values = 32;
    let scene = Scene::new(values);
    let before = scene.proxy.process().resident();
    let requests: String = (0..values).map(|n| format!("get {}\r\n", key(n))).collect();
    let mut clients: Vec<Client> = (0..CLIENTS)
        .map(|_| {
            let mut client = Client::narrow(scene.proxy.port());
            client.send(&requests);
            client
        })
        .collect();
    wait_for("all are set aside", PATIENCE, || {
        scene.stat("magent_set_aside") >= CLIENTS
            && scene.stat("magent_buffered_bytes") < CLIENTS * HELD_MAX / 2
    });
    wait_for("memory is given back", PATIENCE, || {
        scene.proxy.process().resident() < before + CLIENTS * HELD_MAX
    });
    let expected: Vec<u8> = (0..values)
        .flat_map(|n| [&block(n)[..], b"END\r\n"].concat())
        .collect();
    let gone = clients.split_off(4);
    for client in &mut clients {
        reads(client.stream(), &expected);
        assert_eq!(client.get("absent"), None);
    }
    drop(gone);
    wait_for("nothing is held", PATIENCE, || {
        scene.stat("magent_buffered_bytes") < 1000
    });
    assert_eq!(scene.stat("magent_cut_off"), 0);
}

#[test]
fn every_retrieval_goes_on_and_what_stands_behind_is_answered_in_order() {
    let scene = Scene::new(3);
    let asked = |request: &str, expected: &[&[u8]]| {
        let mut client = scene.stuck(request);
        reads(client.stream(), &expected.concat().repeat(TIMES));
        assert!(client.ask("version").starts_with("VERSION "));
    };
    let values = [0, 1, 2].map(block);
    let [first, second, third] = values.each_ref().map(Vec::as_slice);
    let end = b"END\r\n";
    asked("gat 0 long:0\r\n", &[first, end]);
    asked(
        "get long:0\r\nset small 0 0 2\r\nab\r\nget small absent\r\nincr small x\r\n",
        &[
            first,
            end,
            b"STORED\r\nVALUE small 0 2\r\nab\r\nEND\r\n",
            b"CLIENT_ERROR invalid numeric delta argument\r\n",
        ],
    );
    let small = b"VALUE small 0 2\r\nab\r\n";
    asked(
        "get long:0 absent long:1 long:2 small\r\nget long:0\r\n",
        &[first, second, third, small, end, first, end],
    );
    // The token of a long value is in its first line.
    let mut client = scene.proxy.client();
    client.send("gets long:1\r\n");
    let tagged = client.until(b"END\r\n");
    assert!(tagged.starts_with(b"VALUE long:1 7 1000000 "));
    asked("gets long:1\r\n", &[&tagged]);
    let head = format!("VA {LEN} s{LEN} f7 klong:2 Oq\r\n");
    let meta = [head.as_bytes(), &content(2), b"\r\n"].concat();
    asked("mg long:2 s v f k Oq\r\nmn\r\n", &[&meta, b"MN\r\n"]);
    assert_eq!(scene.stat("magent_cut_off"), 0);
    let (gets, touches) = (2 + 4 + 1 + 1 + 1, 1);
    assert_eq!(
        scene.stat("get_hits"),
        (gets * TIMES + 1) as u64,
        "what is asked for again is not counted again"
    );
    assert_eq!(scene.stat("cmd_meta"), TIMES as u64);
    assert_eq!(scene.stat("touch_hits"), (touches * TIMES) as u64);
}

#[test]
fn a_value_that_changed_meanwhile_is_not_completed() {
    let scene = Scene::new(1);
    let mut client = scene.stuck("get long:0\r\n");
    let mut other = content(0);
    other[LEN - 1] ^= 1;
    store(&mut scene.proxy.client(), 0, &other);
    scene.is_cut_off(&mut client, &reply());
}

#[test]
fn a_value_that_is_gone_is_not_completed() {
    let scene = Scene::new(1);
    let mut client = scene.stuck("get long:0\r\n");
    assert_eq!(scene.proxy.client().ask("delete long:0"), "DELETED");
    scene.is_cut_off(&mut client, &reply());
}

#[test]
fn a_copy_goes_on_when_the_primary_dies_meanwhile() {
    let mut scene = Scene::new(1);
    let client = scene.stuck("get long:0\r\n");
    scene.primaries.iter_mut().for_each(Memcached::kill);
    reads(client.stream(), &reply().repeat(TIMES));
    let mut last = scene.stuck("get long:0\r\n");
    scene.backup.kill();
    wait_for("the server is given up", PATIENCE, || {
        scene.stat("magent_servers_up") == 0
    });
    scene.is_cut_off(&mut last, &reply());
}

#[test]
fn a_drain_waits_for_what_was_set_aside() {
    let mut scene = Scene::new(1);
    let client = scene.stuck("get long:0\r\n");
    let mut finished = scene.stuck("get long:0\r\n");
    finished.finish();
    scene.proxy.begin_end();
    reads(client.stream(), &reply().repeat(TIMES));
    reads(finished.stream(), &reply().repeat(TIMES));
    assert!(scene.proxy.wait_end().success());
}
