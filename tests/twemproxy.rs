//! magent beside twemproxy itself on the same servers, both with the same file: what is written through one is read through
//! the other, for every hash and distribution.

use crate::common;

use common::files::TempDir;
use common::magent::magent_binary;
use common::process::{mortal, wait_answering, Process};
use common::rng::Rng;
use common::{wait_for, Client, Memcached, Port, PATIENCE};
use magent::hash::KEY_HASHES;

/// Keys written each way through each pool.
const KEYS: usize = 60;

/// Servers as a pool lists them, given the ports.
type Servers = fn(&[u16]) -> Vec<String>;

const SERVERS: [(&str, Servers); 4] = [
    ("equal", |ports| {
        ports.iter().map(|p| format!("127.0.0.1:{p}:1")).collect()
    }),
    ("unequal", |ports| {
        let weighted = ports.iter().zip([1, 7, 2, 30]);
        weighted
            .map(|(p, w)| format!("127.0.0.1:{p}:{w}"))
            .collect()
    }),
    ("named", |ports| {
        let named = ports.iter().zip(["zeta", "b", "cache-02", "alpha"]);
        named.map(|(p, n)| format!("127.0.0.1:{p}:2 {n}")).collect()
    }),
    ("mixed", |ports| {
        let mixed = ports
            .iter()
            .zip(["localhost", "127.0.0.1", "127.0.0.1", "localhost"]);
        let mixed = mixed.zip([3, 1, 1, 2]).rev();
        mixed.map(|((p, h), w)| format!("{h}:{p}:{w}")).collect()
    }),
];

/// All pools, at one port after the other.
fn file(ports: &[u16], listen: &mut dyn FnMut() -> u16) -> String {
    let mut text = String::new();
    for (hash, _) in KEY_HASHES {
        for distribution in ["ketama", "modula"] {
            for (index, (servers, list)) in SERVERS.iter().enumerate() {
                let tag = if index == 1 {
                    "\n  hash_tag: \"{}\""
                } else {
                    ""
                };
                let servers_listed = list(ports).join("\n   - ");
                text.push_str(&format!(
                    "{hash}-{distribution}-{servers}:\n  listen: 127.0.0.1:{}\n  hash: {hash}\n  distribution: {distribution}{tag}\n  timeout: 5000\n  \
                     servers:\n   - {servers_listed}\n",
                    listen()
                ));
            }
        }
    }
    text
}

/// Keys as applications have them, and some that are odd.
fn key(rng: &mut Rng, prefix: &str) -> String {
    let number = rng.below(1 << 40);
    match rng.below(5) {
        0 => format!("{prefix}:{number}"),
        1 => format!("{prefix}:{{user{number}}}:name"),
        2 => format!("{prefix}:é{number}日本"),
        3 => format!("{prefix}:{}", "x".repeat(number % 180)) + &number.to_string(),
        _ => format!("{number:x}{prefix}"),
    }
}

fn store(client: &mut Client, keys: &[String]) {
    let mut all = Vec::new();
    for key in keys {
        let line = format!("set {key} 0 0 {}\r\n{key}\r\n", key.len());
        all.extend_from_slice(line.as_bytes());
    }
    client.send(&all);
    for key in keys {
        assert_eq!(client.line(), b"STORED\r\n", "{key}");
    }
}

fn fetch(client: &mut Client, keys: &[String], what: &str) {
    for key in keys {
        assert_eq!(client.get(key).as_ref(), Some(key), "{what}: {key}");
    }
}

#[test]
fn what_one_writes_the_other_reads() {
    let servers: Vec<Memcached> = (0..4).map(|_| Memcached::start()).collect();
    let ports: Vec<u16> = servers.iter().map(Memcached::port).collect();
    let directory = TempDir::new();
    let start = |name: &str| {
        let mut listens = Vec::new();
        let text = file(&ports, &mut || {
            listens.push(Port::claim());
            listens[listens.len() - 1].number()
        });
        let path = directory.path(name);
        std::fs::write(&path, text).unwrap();
        (path, listens)
    };
    let (theirs, their_ports) = start("nutcracker.yml");
    let (ours, our_ports) = start("magent.yml");
    let stats = Port::claim();
    let mut nutcracker = mortal("nutcracker");
    // Only root may write where Debian's build keeps its log.
    let log = directory.path("nutcracker.log");
    nutcracker.args(["-c", &theirs, "-o", &log, "-s", &stats.number().to_string()]);
    if !installed("nutcracker") {
        common::skipped("nutcracker is not installed");
        return;
    }
    let nutcracker = Process::start(&mut nutcracker);
    let mut magent = Process::start(mortal(&magent_binary()).args(["-v", "-c", &ours]));
    wait_answering(our_ports[0].number(), &mut magent, "magent");
    wait_for("nutcracker answers", PATIENCE, || {
        Client::try_connect(their_ports[0].number()).is_ok()
    });
    let mut rng = Rng(0x7e3f);
    let mut compared = 0;
    for (index, (their, our)) in their_ports.iter().zip(&our_ports).enumerate() {
        let mut their = Client::connect(their.number());
        let mut our = Client::connect(our.number());
        let mut keys = || -> Vec<String> {
            (0..KEYS)
                .map(|_| key(&mut rng, &format!("p{index}")))
                .collect()
        };
        let (by_them, by_us) = (keys(), keys());
        store(&mut their, &by_them);
        fetch(&mut our, &by_them, "written through nutcracker");
        store(&mut our, &by_us);
        fetch(&mut their, &by_us, "written through magent");
        compared += by_them.len() + by_us.len();
    }
    assert!(compared > 10_000, "{compared}");
    drop(nutcracker);
}

fn installed(program: &str) -> bool {
    let paths = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/usr/local/sbin";
    paths
        .split(':')
        .any(|path| std::path::Path::new(path).join(program).exists())
}

/// A pool with `random` takes each key to any server, so a key that was set often is on all.
#[test]
fn random_uses_every_server() {
    let servers: Vec<Memcached> = (0..3).map(|_| Memcached::start()).collect();
    let listen = Port::claim();
    let directory = TempDir::new();
    let path = directory.path("magent.yml");
    let list: Vec<String> = servers
        .iter()
        .map(|server| format!("127.0.0.1:{}:1", server.port()))
        .collect();
    let text = format!(
        "r: {{listen: '127.0.0.1:{}', distribution: random, timeout: 5000, servers: [{}]}}\n",
        listen.number(),
        list.join(", ")
    );
    std::fs::write(&path, text).unwrap();
    let mut magent = Process::start(mortal(&magent_binary()).args(["-v", "-c", &path]));
    wait_answering(listen.number(), &mut magent, "magent");
    let mut client = Client::connect(listen.number());
    for _ in 0..100 {
        client.set("k", "v");
    }
    for server in &servers {
        assert_eq!(server.client().get("k").as_deref(), Some("v"));
    }
}

/// The drill of the guides, with magent in nutcracker's place.
#[test]
fn the_ejection_drill_without_an_error_and_without_an_old_value() {
    let mut servers: Vec<Memcached> = (0..3).map(|_| Memcached::start()).collect();
    let listen = Port::claim();
    let directory = TempDir::new();
    let path = directory.path("nutcracker.yml");
    let list: String = servers
        .iter()
        .map(|server| format!("   - 127.0.0.1:{}:1\n", server.port()))
        .collect();
    let text = format!(
        "beta:\n  listen: 127.0.0.1:{}\n  hash: fnv1a_64\n  distribution: ketama\n  timeout: 2000\n  auto_eject_hosts: true\n  \
         server_retry_timeout: 2000\n  server_failure_limit: 3\n  servers:\n{list}",
        listen.number()
    );
    std::fs::write(&path, text).unwrap();
    let mut magent = Process::start(mortal(&magent_binary()).args(["-v", "-c", &path]));
    wait_answering(listen.number(), &mut magent, "magent");
    let mut client = Client::connect(listen.number());
    wait_for("all servers are up", PATIENCE, || {
        client.stat("magent_servers_up") == "3"
    });
    client.set("h", "12345");
    let home = servers
        .iter()
        .position(|server| server.client().get("h").is_some())
        .unwrap();
    let elsewhere = (0..)
        .map(|n| format!("key{n}"))
        .find(|key| {
            client.set(key, "abc");
            servers[home].client().get(key).is_none()
        })
        .unwrap();

    servers[home].kill();
    for _ in 0..3 {
        client.set("h", "123");
    }
    assert_eq!(client.get("h").as_deref(), Some("123"));
    // One dead server fails no list of keys.
    client.send(format!("get h {elsewhere} nothing\r\n"));
    let all = String::from_utf8(client.until(b"END\r\n")).unwrap();
    assert_eq!(
        all,
        format!("VALUE h 0 3\r\n123\r\nVALUE {elsewhere} 0 3\r\nabc\r\nEND\r\n")
    );
    // A bad command is answered and the connection lives on.
    assert_eq!(client.ask("nonsense"), "ERROR");

    servers[home].restart();
    wait_for("it is used again", PATIENCE, || {
        client.stat("magent_servers_up") == "3"
    });
    assert_eq!(client.get("h"), None, "its keys were elsewhere meanwhile");
    client.set("h", "old");
    assert_eq!(servers[home].client().get("h").as_deref(), Some("old"));

    servers[home].freeze();
    wait_for("it is given up", PATIENCE, || {
        client.stat("magent_servers_up") == "2"
    });
    client.set("h", "new");
    assert_eq!(client.get("h").as_deref(), Some("new"));
    servers[home].thaw();
    wait_for("it is used again", PATIENCE, || {
        let value = client.get("h");
        assert_ne!(value.as_deref(), Some("old"), "nothing old is served");
        client.stat("magent_servers_up") == "3"
    });
    assert_ne!(client.get("h").as_deref(), Some("old"));
    assert_eq!(client.stat("magent_failed_writes"), "0");
}
