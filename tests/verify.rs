//! `--verify` against real memcached servers: what it counts, what it names, and how it ends.

use crate::common;

use std::time::Duration;

use common::magent::run_magent_output;
use common::{key_on, timed, Client, Memcached, Port};

/// Exit code, first line, the other lines; nothing may be said on stderr.
#[track_caller]
fn verify(primaries: &[u16], backups: &[u16], more: &[&str]) -> (i32, String, Vec<String>) {
    let mut arguments = vec!["--verify".to_string()];
    for (option, ports) in [("-s", primaries), ("-b", backups)] {
        for port in ports {
            arguments.extend([option.to_string(), format!("127.0.0.1:{port}")]);
        }
    }
    arguments.extend(more.iter().map(ToString::to_string));
    let (code, stdout, stderr) = run_magent_output(&arguments);
    assert_eq!(stderr, "", "{stdout}");
    let mut lines = stdout.lines().map(str::to_string);
    (code, lines.next().unwrap_or_default(), lines.collect())
}

fn counts(keys: u64, equal: u64, absent: u64, different: u64, misplaced: u64) -> String {
    format!("keys {keys} equal {equal} absent {absent} different {different} misplaced {misplaced}")
}

/// Two primaries and a backup of both.
struct Set {
    a: Memcached,
    b: Memcached,
    c: Memcached,
}

impl Set {
    fn start() -> Set {
        Set {
            a: Memcached::start(),
            b: Memcached::start(),
            c: Memcached::start(),
        }
    }

    #[track_caller]
    fn verify(&self) -> (i32, String, Vec<String>) {
        verify(&[self.a.port(), self.b.port()], &[self.c.port()], &[])
    }

    /// Stores `count` keys on both copies; two in three live for ever.
    fn fill(&self, count: usize) {
        let mut servers = [self.a.client(), self.b.client(), self.c.client()];
        let mut requests = [String::new(), String::new(), String::new()];
        for n in 0..count {
            let key = format!("key:{n}");
            let primary = common::djb31(key.as_bytes()) as usize % 2;
            let ttl = if n % 3 == 0 { 1000 } else { 0 };
            let value = format!("value{}", "x".repeat(n % 100));
            let line = format!("set {key} {n} {ttl} {}\r\n{value}\r\n", value.len());
            requests[primary].push_str(&line);
            requests[2].push_str(&line);
        }
        for (server, requests) in servers.iter_mut().zip(requests) {
            for line in requests
                .split_inclusive("\r\n")
                .collect::<Vec<_>>()
                .chunks(200)
            {
                server.send(line.concat());
                server.exactly("STORED\r\n".len() * line.len() / 2);
            }
        }
    }
}

fn ask_ok(client: &mut Client, command: &str) {
    let reply = client.ask(command);
    assert!(
        matches!(reply.as_str(), "STORED" | "HD" | "TOUCHED") || reply.parse::<u64>().is_ok(),
        "{command}: {reply}"
    );
}

#[test]
fn equal_copies() {
    let set = Set::start();
    assert_eq!(set.verify(), (0, counts(0, 0, 0, 0, 0), vec![]));
    set.fill(2500);
    let key = key_on(0, 2, "n");
    for server in [&set.a, &set.c] {
        let mut client = server.client();
        // A key with a NUL and a blank, `a\0 b`, which hashes to the first server, and one that is escaped in lists.
        assert_eq!(common::djb31(b"a\0 b") % 2, 0);
        ask_ok(&mut client, "ms YQAgYg== 3 b T500 F9\r\nxyz");
        let percent = key_on(0, 2, "%25/\u{e9}");
        ask_ok(&mut client, &format!("set {percent} 0 0 1\r\n1"));
        // Each proxy's stamps are each server's own.
        let stamp = key_on(0, 2, "magent:stamp:");
        ask_ok(
            &mut client,
            &format!("set {stamp} 0 0 5\r\n{}", server.port()),
        );
        ask_ok(&mut client, &format!("set {key} 0 0 3\r\n100"));
    }
    // `decr` leaves a blank where the number got shorter.
    ask_ok(&mut set.a.client(), &format!("decr {key} 1"));
    set.c.client().ask(&format!("set {key} 0 0 2\r\n99"));
    assert_eq!(set.verify(), (0, counts(2503, 2503, 0, 0, 0), vec![]));
}

#[test]
fn a_large_value_is_compared_to_its_end() {
    let set = Set::start();
    let key = key_on(1, 2, "large");
    let value = "v".repeat(1_000_000);
    for server in [&set.b, &set.c] {
        server.client().set(&key, &value);
    }
    assert_eq!(set.verify(), (0, counts(1, 1, 0, 0, 0), vec![]));
    set.c.client().set(&key, &format!("{}w", &value[1..]));
    let (code, line, named) = set.verify();
    assert_eq!((code, line), (1, counts(1, 0, 0, 1, 0)));
    assert!(named[0].contains(&format!("{key}: value (")), "{named:?}");
}

#[test]
fn each_difference_is_found_and_named() {
    let set = Set::start();
    set.fill(300);
    for (command, what) in [
        ("set KEY 7 500 1\r\n2", "value"),
        ("set KEY 8 500 1\r\n1", "flags"),
        ("set KEY 7 510 1\r\n1", "ttl"),
        ("set KEY 7 0 1\r\n1", "ttl"),
        ("set KEY 8 0 2\r\n11", "value, flags, ttl"),
    ] {
        let key = key_on(1, 2, "odd");
        ask_ok(&mut set.b.client(), &format!("set {key} 7 500 1\r\n1"));
        ask_ok(&mut set.c.client(), &command.replace("KEY", &key));
        let (code, line, named) = set.verify();
        assert_eq!((code, line), (1, counts(301, 300, 0, 1, 0)), "{what}");
        assert_eq!(named.len(), 1, "{named:?}");
        let head = format!("different {key}: {what} (127.0.0.1:{} ", set.b.port());
        assert!(named[0].starts_with(&head), "{}", named[0]);
        assert!(named[0].contains(&format!("; 127.0.0.1:{} ", set.c.port())));
    }
}

#[test]
fn ten_different_keys_are_named() {
    let set = Set::start();
    set.fill(1500);
    let mut client = set.c.client();
    for n in 0..1200 {
        client.send(format!("append key:{n} 0 0 1\r\n!\r\n"));
        assert_eq!(client.line(), b"STORED\r\n");
    }
    let (code, line, named) = set.verify();
    assert_eq!((code, line), (1, counts(1500, 300, 0, 1200, 0)));
    assert_eq!(named.len(), 11, "{named:?}");
    assert_eq!(named[10], "different: 1190 more");
}

#[test]
fn absent_is_allowed_and_misplaced_is_told() {
    let set = Set::start();
    set.fill(100);
    let only_primary = key_on(0, 2, "p");
    let only_backup = key_on(0, 2, "b");
    let misplaced = key_on(0, 2, "m");
    set.a.client().set(&only_primary, "1");
    set.c.client().set(&only_backup, "1");
    set.b.client().set(&misplaced, "1");
    assert_eq!(set.verify(), (0, counts(102, 100, 2, 0, 1), vec![]));
    // On two backups: the second holds another value than the first, the primary has none.
    let d = Memcached::start();
    d.client().set(&only_backup, "2");
    let backups = [set.c.port(), d.port()];
    let (code, line, named) = verify(&[set.a.port(), set.b.port()], &backups, &[]);
    assert_eq!((code, line), (1, counts(102, 0, 101, 1, 1)));
    assert!(
        named[0].starts_with(&format!("different {only_backup}: value (")),
        "{named:?}"
    );
}

#[test]
fn servers_that_are_each_others_backups() {
    let set = Set::start();
    let ports = [set.a.port(), set.b.port()];
    for n in 0..50 {
        let key = format!("k{n}");
        set.a.client().set(&key, "1");
        set.b.client().set(&key, if n == 7 { "2" } else { "1" });
    }
    let (code, line, named) = verify(&ports, &ports, &[]);
    assert_eq!((code, line), (1, counts(50, 49, 0, 1, 0)));
    assert!(named[0].starts_with("different k7: value ("), "{named:?}");
}

#[test]
fn a_server_that_is_down() {
    let mut set = Set::start();
    set.fill(100);
    set.a.kill();
    let (code, line, rest) = set.verify();
    assert_eq!(code, 71);
    let of_a = (0..100).filter(|n| common::djb31(format!("key:{n}").as_bytes()) % 2 == 0);
    let of_a = of_a.count() as u64;
    assert_eq!(line, counts(100, 100 - of_a, 0, 0, 0));
    assert_eq!(
        rest,
        [
            format!("not compared: {of_a}, fewer than two copies can be read"),
            format!("not read: 127.0.0.1:{}: Connection refused", set.a.port()),
        ]
    );
    // What differs elsewhere is found all the same, and weighs more.
    let odd = key_on(1, 2, "odd");
    set.b.client().set(&odd, "1");
    set.c.client().set(&odd, "2");
    assert_eq!(set.verify().0, 1);
}

#[test]
fn servers_that_cannot_be_read() {
    let set = Set::start();
    set.fill(10);
    // It answers, but has no lists; what it holds is compared all the same.
    let silent = Memcached::with(&["-X"]);
    let (code, _, rest) = verify(&[set.a.port()], &[silent.port()], &[]);
    assert_eq!(code, 71);
    let head = format!(
        "not read: 127.0.0.1:{}: listing of keys: it answered '",
        silent.port()
    );
    assert!(rest[0].starts_with(&head), "{rest:?}");
    // No memcached at all: it speaks first and then no more.
    let port = Port::claim();
    let listener = std::net::TcpListener::bind(("127.0.0.1", port.number())).unwrap();
    let stranger = std::thread::spawn(move || {
        use std::io::Write;
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"220 hello\r\n").unwrap();
    });
    let (code, _, rest) = verify(&[set.a.port()], &[port.number()], &[]);
    assert_eq!(code, 71);
    assert!(
        rest.last()
            .is_some_and(|line| line.contains("it knows no meta commands")),
        "{rest:?}"
    );
    stranger.join().unwrap();
}

#[test]
fn the_options_of_the_proxy_may_stand_there() {
    let set = Set::start();
    set.fill(100);
    let more = ["-l", "192.0.2.1", "-p", "80", "-u", "nosuchname", "-n", "5"];
    let backups = [set.c.port()];
    let (code, line, _) = verify(&[set.a.port(), set.b.port()], &backups, &more);
    assert_eq!((code, line), (0, counts(100, 100, 0, 0, 0)));
}

#[test]
fn the_pace_is_kept() {
    let set = Set::start();
    set.fill(100);
    let ports = [set.a.port(), set.b.port()];
    let backups = [set.c.port()];
    let ((code, ..), time) = timed(|| verify(&ports, &backups, &["--resync-rate", "200"]));
    assert_eq!(code, 0);
    // 200 keys are listed.
    assert!(time >= Duration::from_millis(900), "{time:?}");
    assert_eq!(verify(&ports, &backups, &["--resync-rate", "0"]).0, 0);
}
