//! Primaries and backups behind a proxy, and what the proxy says of them.
//!
//! A proxy makes returning servers safe only while it serves, so whoever waits here goes on asking for keys.

use super::client::Client;
use super::magent::{run_magent_output, Magent};
use super::normal::Normal;
use super::process::Memcached;
use super::{wait_for, PATIENCE};

/// No background copy: a server that came back stays cold, and each read brings its key.
pub const LAZY: [&str; 2] = ["--resync-rate", "0"];

/// Servers and a proxy, which can be replaced.
pub struct Pool {
    pub primaries: Vec<Memcached>,
    pub backups: Vec<Memcached>,
    pub proxy: Magent,
}

impl Pool {
    /// So many servers, and a proxy with these options.
    pub fn new(primaries: usize, backups: usize, options: &[&str]) -> Pool {
        let primaries: Vec<_> = (0..primaries).map(|_| Memcached::start()).collect();
        let backups: Vec<_> = (0..backups).map(|_| Memcached::start()).collect();
        Pool::of(primaries, backups, options)
    }

    /// A proxy with these options in front of these servers.
    pub fn of(primaries: Vec<Memcached>, backups: Vec<Memcached>, options: &[&str]) -> Pool {
        let proxy = front(&primaries, &backups, options);
        Pool {
            primaries,
            backups,
            proxy,
        }
    }

    /// Another proxy over the same servers, with its own port and name.
    pub fn another(&self, options: &[&str]) -> Magent {
        front(&self.primaries, &self.backups, options)
    }

    /// A new connection to the proxy.
    pub fn client(&self) -> Client {
        self.proxy.client()
    }

    /// `magent --verify`: exit code and counts.
    pub fn verify(&self) -> (i32, String) {
        let mut arguments = vec!["--verify".to_string()];
        for (option, servers) in [("-s", &self.primaries), ("-b", &self.backups)] {
            for port in ports(servers) {
                arguments.extend([option.to_string(), format!("127.0.0.1:{port}")]);
            }
        }
        let (code, stdout, _) = run_magent_output(&arguments);
        (code, stdout)
    }

    /// All copies of so many keys are there and equal.
    #[track_caller]
    pub fn assert_whole(&self, keys: usize) {
        let (code, said) = self.verify();
        let counts = format!("keys {keys} equal {keys} absent 0 different 0 misplaced 0");
        assert_eq!((code, said.lines().next()), (0, Some(&counts[..])));
    }
}

/// The ports of servers.
pub fn ports(servers: &[Memcached]) -> Vec<u16> {
    servers.iter().map(Memcached::port).collect()
}

fn front(primaries: &[Memcached], backups: &[Memcached], options: &[&str]) -> Magent {
    Magent::front(&ports(primaries), &ports(backups))
        .args(options)
        .start()
}

/// What a proxy says of a server: `up`, `cold`, ...
pub fn state(client: &mut Client, server: &Memcached) -> String {
    let name = format!("127.0.0.1:{}:state", server.port());
    counter(client, "stats servers", &name)
}

/// One of the counters of `stats replication`.
pub fn replication(client: &mut Client, name: &str) -> String {
    counter(client, "stats replication", name)
}

/// One line of statistics.
pub fn counter(client: &mut Client, command: &str, name: &str) -> String {
    let reply = client.ask(command);
    let head = format!("STAT {name} ");
    let line = reply.lines().find_map(|line| line.strip_prefix(&head));
    line.unwrap_or_else(|| panic!("no {head} in {reply}"))
        .to_string()
}

/// Goes on asking for a key until the proxy says so of the server.
#[track_caller]
pub fn wait_state(client: &mut Client, server: &Memcached, wanted: &[&str]) {
    wait_for(&format!("the server is {wanted:?}"), PATIENCE, || {
        let _ = client.ask("get no-such-key");
        wanted.contains(&state(client, server).as_str())
    });
}

/// Kills a server and starts it at once: it is empty. Returns when the proxy uses it again.
#[track_caller]
pub fn replace_by_empty(client: &mut Client, server: &mut Memcached) {
    server.kill();
    wait_state(client, server, &["down"]);
    server.restart();
    wait_state(client, server, &["up", "cold"]);
}

/// An item without what differs between servers and moments: the remaining time in whole hundreds, rounded up.
pub fn item(client: &mut Client, key: &str) -> String {
    let reply = client.ask(&format!("mg {key} v f t"));
    let bytes = format!("{reply}\r\n");
    let normal = Normal::late().replies(bytes.as_bytes());
    String::from_utf8_lossy(&normal).trim_end().to_string()
}
