//! A server's name says little: one memcached may have two names or two roles, and behind an address another one may be found.

use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};

use crate::common;
use common::magent::magent_binary;
use common::process::{mortal, wait_answering, Process};
use common::{wait_for, Client, Magent, Memcached, Port, PATIENCE};

/// An address that leads to one of several servers.
struct Front {
    port: u16,
    to: Arc<AtomicU16>,
    streams: Arc<Mutex<Vec<TcpStream>>>,
}

impl Front {
    fn start(to: &Memcached) -> Front {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let front = Front {
            port: listener.local_addr().unwrap().port(),
            to: Arc::new(AtomicU16::new(to.port())),
            streams: Arc::default(),
        };
        let (to, streams) = (Arc::clone(&front.to), Arc::clone(&front.streams));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(one) = stream else { return };
                let Ok(other) = TcpStream::connect(("127.0.0.1", to.load(Ordering::SeqCst))) else {
                    continue;
                };
                let mut held = streams.lock().unwrap();
                for (from, into) in [(&one, &other), (&other, &one)] {
                    let (mut from, mut into) =
                        (from.try_clone().unwrap(), into.try_clone().unwrap());
                    held.push(from.try_clone().unwrap());
                    std::thread::spawn(move || {
                        let _ = std::io::copy(&mut from, &mut into);
                        let _ = into.shutdown(Shutdown::Both);
                    });
                }
            }
        });
        front
    }

    /// From now on it leads to another one; connections end.
    fn lead_to(&self, server: &Memcached) {
        self.to.store(server.port(), Ordering::SeqCst);
        for stream in self.streams.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn stat(client: &mut Client, name: &str) -> u64 {
    common::pool::counter(client, "stats", name)
        .parse()
        .unwrap()
}

/// A proxy whose servers are given in words.
fn front(servers: &[String]) -> (Process, Port) {
    let port = Port::claim();
    let mut command = mortal(&magent_binary());
    command.args([
        "-D",
        "-v",
        "-l",
        "127.0.0.1",
        "-p",
        &port.number().to_string(),
    ]);
    let mut process = Process::start(command.args(servers));
    wait_answering(port.number(), &mut process, "magent");
    (process, port)
}

#[test]
fn two_names_of_one_server_are_one_copy() {
    let mut server = Memcached::start();
    let other = Memcached::start();
    let (word, alias) = (
        format!("127.0.0.1:{}", server.port()),
        format!("localhost:{}", server.port()),
    );
    let third = format!("127.0.0.1:{}", other.port());
    // As primary and backup, and twice as a backup.
    for (servers, said) in [
        (["-s", &word, "-b", &alias, "-b", &third], &alias),
        (["-s", &third, "-b", &alias, "-b", &word], &word),
    ] {
        let words: Vec<String> = servers.map(str::to_owned).to_vec();
        let (process, port) = front(&words);
        let mut client = Client::connect(port.number());
        wait_for("all are up", PATIENCE, || {
            stat(&mut client, "magent_servers_up") == 3
        });
        let check = |client: &mut Client| {
            client.set("n", "5");
            assert_eq!(client.ask("incr n 1"), "6");
            client.set("s", "a");
            let stored = client.ask("append s 0 0 1\r\nb");
            assert_eq!(stored, "STORED");
            assert_eq!(client.get("n").as_deref(), Some("6"));
            assert_eq!(client.get("s").as_deref(), Some("ab"));
        };
        check(&mut client);
        assert!(
            process.stderr().contains("one copy"),
            "{said}: {}",
            process.stderr()
        );
        server.kill();
        assert_eq!(
            client.get("s").as_deref(),
            Some("ab"),
            "the third one has it"
        );
        server.restart();
        wait_for("it is one again", PATIENCE, || {
            let _ = client.get("s");
            process.stderr().matches("one copy").count() >= 2
                && stat(&mut client, "magent_servers_up") == 3
        });
        check(&mut client);
    }
}

/// Both are containers, say: the same process id, started in the same second. The marks tell them apart.
#[test]
fn servers_that_only_look_alike_are_two() {
    let fakes = [(); 2].map(|()| {
        common::fake::Fake::start(|request| match request.line.as_str() {
            "stats" => vec![common::fake::Do::say(
                "STAT pid 1\r\nSTAT uptime 100\r\nSTAT time 1700000000\r\nSTAT curr_items 0\r\nEND\r\n",
            )],
            _ => common::fake::healthy(request),
        })
    });
    let proxy = Magent::front(&[fakes[0].port()], &[fakes[1].port()]).start();
    let mut client = proxy.client();
    client.set("k", "v");
    let has =
        |fake: &common::fake::Fake| fake.lines().iter().any(|line| line.starts_with("set k "));
    assert!(fakes.iter().all(has), "{:?}", proxy.process().stderr());
}

#[test]
fn another_server_behind_the_address_brings_nothing_old() {
    let [one, two, backup] = [(); 3].map(|()| Memcached::start());
    let address = Front::start(&one);
    let proxy = Magent::front(&[address.port], &[backup.port()]).start();
    let mut client = proxy.client();
    client.set("key", "old");
    client.set("gone", "x");
    let mut losses = 0;
    let mut lead = |client: &mut Client, server: &Memcached| {
        address.lead_to(server);
        losses += 1;
        wait_for("it is used again", PATIENCE, || {
            let _ = client.get("other");
            let said = proxy.process().stderr();
            said.matches(": down").count() >= losses && stat(client, "magent_servers_up") == 2
        });
    };
    lead(&mut client, &two);
    client.set("key", "new");
    assert_eq!(client.ask("delete gone"), "DELETED");
    lead(&mut client, &one);
    for _ in 0..50 {
        assert_eq!(client.get("key").as_deref(), Some("new"));
        assert_eq!(client.get("gone"), None);
    }
}
