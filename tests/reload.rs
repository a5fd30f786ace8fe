//! SIGHUP: the file is read again while clients are served, and none of them notices.

use crate::common;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;
use std::thread;

use common::files::TempDir;
use common::magent::magent_binary;
use common::process::{mortal, wait_answering, Process};
use common::{wait_for, Client, Memcached, Port, PATIENCE};
use nix::sys::signal::Signal;

/// A proxy with a file that the test rewrites.
struct Proxy {
    directory: TempDir,
    process: Process,
}

impl Proxy {
    fn start(text: &str, port: u16, options: &[&str]) -> Proxy {
        let directory = TempDir::new();
        let path = directory.path("magent.yml");
        std::fs::write(&path, text).unwrap();
        let mut process = Process::start(
            mortal(&magent_binary())
                .args(["-v", "-c", &path])
                .args(options),
        );
        wait_answering(port, &mut process, "magent");
        Proxy { directory, process }
    }

    fn rewrite(&self, text: &str) {
        std::fs::write(self.directory.path("magent.yml"), text).unwrap();
        self.process.signal(Signal::SIGHUP);
    }
}

fn reload_stat(client: &mut Client, name: &str) -> String {
    client.send(b"stats reload\r\n");
    let all = String::from_utf8(client.until(b"END\r\n")).unwrap();
    let start = format!("STAT {name} ");
    let line = all.lines().find_map(|line| line.strip_prefix(&start));
    line.unwrap_or_default().to_owned()
}

fn wait_reloaded(client: &mut Client, count: u32) {
    wait_for("the reload is carried out", PATIENCE, || {
        reload_stat(client, "reloads") == count.to_string()
            && reload_stat(client, "reload") != "under way"
    });
}

/// A pool `p` with these lines in it.
fn pool(port: u16, servers: &[&Memcached], more: &str) -> String {
    let servers = servers
        .iter()
        .map(|server| format!("\n  - 127.0.0.1:{}:1", server.port()));
    let servers: String = servers.collect();
    // Keys that differ in their last digits alone are neighbours for twemproxy's default hash.
    let hash = if more.contains("hash:") {
        ""
    } else {
        "  hash: md5\n"
    };
    format!("p:\n  listen: 127.0.0.1:{port}\n  timeout: 5000\n{hash}{more}  servers:{servers}\n")
}

/// Clients that write and read what they wrote, until they are told to stop: how often they did.
fn load(
    port: u16,
    stop: &Arc<AtomicBool>,
    done: &Arc<AtomicU64>,
    misses: bool,
) -> Vec<thread::JoinHandle<()>> {
    let worker = |worker: usize| {
        let (stop, done) = (Arc::clone(stop), Arc::clone(done));
        move || {
            let mut client = Client::connect(port);
            let mut n = 0u64;
            while !stop.load(Ordering::Relaxed) {
                n += 1;
                let key = format!("w{worker}:{}", n % 997);
                assert_eq!(client.ask(&format!("set {key} 0 0 8\r\n{n:08}")), "STORED");
                // Without a handover a key that has just moved is a miss, never an old value.
                match client.get(&key) {
                    Some(value) => assert_eq!(value, format!("{n:08}"), "{key}"),
                    None => assert!(misses, "{key} was missed"),
                }
                let keys: Vec<String> = (0..20)
                    .map(|k| format!("w{worker}:{}", (n + k) % 997))
                    .collect();
                client.send(format!("get {}\r\n", keys.join(" ")));
                client.until(b"END\r\n");
                done.fetch_add(1, Ordering::Relaxed);
            }
        }
    };
    (0..6).map(|n| thread::spawn(worker(n))).collect()
}

#[test]
fn servers_come_and_go_under_load_and_no_request_fails() {
    let servers: Vec<Memcached> = (0..4).map(|_| Memcached::start()).collect();
    let all: Vec<&Memcached> = servers.iter().collect();
    let port = Port::claim();
    let number = port.number();
    let proxy = Proxy::start(&pool(number, &all[..2], ""), number, &[]);
    let (stop, done) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let workers = load(number, &stop, &done, true);
    let mut client = Client::connect(number);
    let backup = format!("  backups: ['127.0.0.1:{}']\n", servers[3].port());
    let steps = [
        pool(number, &all[..3], ""),
        pool(number, &all[1..3], ""),
        pool(
            number,
            &all[..3],
            "  distribution: modula\n  server_connections: 4\n",
        ),
        pool(
            number,
            &all[..3],
            "  hash: murmur\n  server_connections: 4\n",
        ),
        pool(number, &all[..3], &backup),
        pool(number, &all[..2], &backup),
        pool(number, &all[..2], "  auto_eject_hosts: true\n"),
        pool(number, &all[..4], "  distribution: rendezvous\n"),
    ];
    for (count, text) in steps.iter().enumerate() {
        let before = done.load(Ordering::Relaxed);
        wait_for("clients get on", PATIENCE, || {
            done.load(Ordering::Relaxed) > before + 50
        });
        proxy.rewrite(text);
        wait_reloaded(&mut client, count as u32 + 1);
    }
    let before = done.load(Ordering::Relaxed);
    wait_for("clients get on", PATIENCE, || {
        done.load(Ordering::Relaxed) > before + 50
    });
    stop.store(true, Ordering::Relaxed);
    for worker in workers {
        worker.join().expect("no request failed");
    }
    assert_eq!(
        client.stat("total_connections"),
        "8",
        "nobody had to connect again"
    );
    assert_eq!(client.stat("magent_failed_writes"), "0");
    assert_eq!(client.stat("magent_failed_reads"), "0");
}

#[test]
fn what_moves_is_said() {
    let servers: Vec<Memcached> = (0..4).map(|_| Memcached::start()).collect();
    let all: Vec<&Memcached> = servers.iter().collect();
    let port = Port::claim();
    let number = port.number();
    let proxy = Proxy::start(&pool(number, &all[..3], ""), number, &[]);
    let mut client = Client::connect(number);
    proxy.rewrite(&pool(number, &all, ""));
    wait_reloaded(&mut client, 1);
    let stat = |client: &mut Client, name| reload_stat(client, name);
    assert_eq!(stat(&mut client, "servers_added"), "1");
    assert_eq!(stat(&mut client, "servers_removed"), "0");
    let moved: f64 = stat(&mut client, "moved_percent").parse().unwrap();
    assert!(
        (15.0..35.0).contains(&moved),
        "{moved} % of the keys for one server of four"
    );
    proxy.rewrite(&pool(number, &all, "  server_retry_timeout: 100\n"));
    wait_reloaded(&mut client, 2);
    assert_eq!(stat(&mut client, "moved_percent"), "0.00");
    // With nothing changed there is nothing to do.
    proxy.process.signal(Signal::SIGHUP);
    client.set("k", "v");
    assert_eq!(stat(&mut client, "reloads"), "2");
    assert_eq!(client.stat("total_connections"), "2");
}

#[test]
fn a_bad_file_changes_nothing() {
    let server = Memcached::start();
    let [port, other] = [Port::claim(), Port::claim()];
    let number = port.number();
    let good = pool(number, &[&server], "");
    let proxy = Proxy::start(&good, number, &[]);
    let mut client = Client::connect(number);
    client.set("k", "v");
    let taken = std::net::TcpListener::bind(("127.0.0.1", other.number())).unwrap();
    let bad = [
        (
            good.replace("timeout", "timeuot"),
            "magent.yml:3:3: 'timeuot': unknown key (the nearest one is timeout)",
        ),
        (
            good.replace("127.0.0.1:", "nowhere.invalid:"),
            "does not resolve",
        ),
        (
            format!(
                "{good}{}",
                good.replace("p:", "q:")
                    .replace(&number.to_string(), &other.number().to_string())
            ),
            "address already in use by another program",
        ),
    ];
    for (count, (text, wrong)) in bad.iter().enumerate() {
        proxy.rewrite(text);
        wait_for("the failure is told", PATIENCE, || {
            reload_stat(&mut client, "reloads_failed") == (count + 1).to_string()
        });
        let error = reload_stat(&mut client, "error");
        assert!(error.contains(wrong), "{error}");
        wait_for("the log has it, too", PATIENCE, || {
            proxy.process.stderr().contains(wrong)
        });
        assert_eq!(client.get("k").as_deref(), Some("v"));
    }
    drop(taken);
    proxy.rewrite(&bad[2].0);
    // Its servers may need a moment longer than its listener.
    wait_for("the second pool serves", PATIENCE, || {
        let client = Client::try_connect(other.number());
        let value = b"VALUE k 0 1\r\nv\r\nEND\r\n";
        client.is_ok_and(|mut client| {
            // Its listener may be the one that was closed: a process that is being started has it for another moment.
            let _ = client.try_send(b"get k\r\n");
            client
                .until_or_end(b"END\r\n")
                .is_ok_and(|got| got == value)
        })
    });
}

#[test]
fn pools_and_listeners_come_and_go() {
    let servers = [Memcached::start(), Memcached::start()];
    let ports: Vec<Port> = (0..4).map(|_| Port::claim()).collect();
    let [a, b, c, d] = [0, 1, 2, 3].map(|n: usize| ports[n].number());
    let of = |name: &str, listen: &str, server: usize| {
        let port = servers[server].port();
        format!("{name}: {{listen: [{listen}], timeout: 5000, servers: ['127.0.0.1:{port}:1']}}\n")
    };
    let at = |port: u16| format!("'127.0.0.1:{port}'");
    let text = of("one", &at(a), 0) + &of("two", &at(b), 1);
    let proxy = Proxy::start(&text, a, &["--drain-ms", "10000"]);
    let (mut one, mut two) = (Client::connect(a), Client::connect(b));
    one.set("k", "one");
    two.set("k", "two");
    // The first listens somewhere else as well, the second is gone, a third is there; the second's place is the third's.
    let socket = proxy.directory.path("m.sock");
    let text = of("one", &format!("{}, {socket}", at(c)), 0)
        + &of("three", &format!("{}, {}", at(b), at(d)), 0);
    proxy.rewrite(&text);
    wait_for("the third pool is there", PATIENCE, || {
        Client::try_connect(d).is_ok()
    });
    assert_eq!(Client::connect(d).get("k").as_deref(), Some("one"));
    wait_for("the second's place is the third's", PATIENCE, || {
        Client::connect(b).get("k").as_deref() == Some("one")
    });
    assert_eq!(Client::connect(c).get("k").as_deref(), Some("one"));
    assert_eq!(
        one.get("k").as_deref(),
        Some("one"),
        "a client of a pool that stays stays"
    );
    assert_eq!(
        two.read_to_end(),
        b"",
        "a client of a pool that is gone is let go in order"
    );
    assert!(
        Client::try_connect(a).is_err(),
        "nobody listens there any more"
    );
    assert!(std::path::Path::new(&socket).exists());
    proxy.rewrite(&of("one", &at(a), 0));
    wait_for("it listens at its first place again", PATIENCE, || {
        Client::try_connect(a).is_ok()
    });
    wait_for("the socket is gone", PATIENCE, || {
        !std::path::Path::new(&socket).exists()
    });
    assert_eq!(one.get("k").as_deref(), Some("one"));
}

fn key(n: usize) -> String {
    format!("key:{n}")
}

#[test]
fn with_a_handover_the_cache_stays_warm() {
    let servers: Vec<Memcached> = (0..3).map(|_| Memcached::start()).collect();
    let all: Vec<&Memcached> = servers.iter().collect();
    let port = Port::claim();
    let number = port.number();
    let proxy = Proxy::start(
        &pool(number, &all[..2], ""),
        number,
        &["--handover", "3600"],
    );
    let mut client = Client::connect(number);
    for n in 0..400 {
        assert_eq!(
            client.ask(&format!("set {} 7 1000 5\r\nv{n:04}", key(n))),
            "STORED"
        );
    }
    client.ask("set counter 0 0 2\r\n10");
    proxy.rewrite(&pool(number, &all, ""));
    wait_reloaded(&mut client, 1);
    assert_eq!(reload_stat(&mut client, "reload"), "handing over");
    // One by one and many at a time.
    for n in 0..200 {
        assert_eq!(client.get(&key(n)), Some(format!("v{n:04}")));
    }
    for n in (200..400).step_by(50) {
        let keys: Vec<String> = (n..n + 50).map(key).collect();
        client.send(format!("get {}\r\n", keys.join(" ")));
        let all = String::from_utf8(client.until(b"END\r\n")).unwrap();
        assert_eq!(all.matches("VALUE ").count(), 50);
    }
    assert_eq!(client.ask("incr counter 5"), "15");
    let handed: usize = reload_stat(&mut client, "handed_over").parse().unwrap();
    assert!((50..300).contains(&handed), "{handed}");
    // They are at their new place now, with flags and time to live.
    let mut third = servers[2].client();
    let brought: Vec<usize> = (0..400).filter(|&n| third.get(&key(n)).is_some()).collect();
    assert!(brought.len() >= 50);
    let item = third.ask(&format!("mg {} f t v", key(brought[0])));
    assert!(
        item.starts_with("VA 5 f7 t9") || item.starts_with("VA 5 f7 t1000"),
        "{item}"
    );
    // What is written at the new place is gone from the old one.
    for &n in &brought {
        client.set(&key(n), "new");
    }
    for server in &servers[..2] {
        let mut old = server.client();
        assert!(brought.iter().all(|&n| old.get(&key(n)).is_none()));
    }
    // add sees what is still at the old place; a reload without change of the ring does not end it.
    proxy.rewrite(&pool(number, &all, "  server_retry_timeout: 50\n"));
    wait_reloaded(&mut client, 2);
    let fresh: Vec<String> = (0..50).map(|n| format!("fresh:{n}")).collect();
    for key in &fresh {
        for server in &servers[..2] {
            server.client().set(key, "there");
        }
        let answer = client.ask(&format!("add {key} 0 0 1\r\nx"));
        assert_eq!(answer, "NOT_STORED", "{key}");
    }
}

#[test]
fn a_handover_ends_and_a_server_that_left_is_let_go() {
    let servers: Vec<Memcached> = (0..3).map(|_| Memcached::start()).collect();
    let all: Vec<&Memcached> = servers.iter().collect();
    let port = Port::claim();
    let number = port.number();
    let proxy = Proxy::start(&pool(number, &all, ""), number, &["--handover", "10"]);
    let mut client = Client::connect(number);
    for n in 0..300 {
        client.set(&key(n), "v");
    }
    proxy.rewrite(&pool(number, &all[..2], ""));
    wait_reloaded(&mut client, 1);
    assert_eq!(
        client.stat("magent_servers"),
        "3",
        "the one that left is still asked"
    );
    for n in 0..150 {
        assert_eq!(client.get(&key(n)).as_deref(), Some("v"));
    }
    wait_for("the handover is over", PATIENCE, || {
        client.stat("magent_servers") == "2"
    });
    assert_eq!(reload_stat(&mut client, "reloads"), "1");
    let lost = (150..300)
        .filter(|&n| client.get(&key(n)).is_none())
        .count();
    assert!(
        (20..100).contains(&lost),
        "{lost}: only what nobody asked for in time is missed"
    );
}

#[test]
fn no_request_fails_and_no_key_is_missed_under_load_with_a_handover() {
    let servers: Vec<Memcached> = (0..4).map(|_| Memcached::start()).collect();
    let all: Vec<&Memcached> = servers.iter().collect();
    let port = Port::claim();
    let number = port.number();
    let proxy = Proxy::start(&pool(number, &all[..2], ""), number, &["--handover", "600"]);
    let (stop, done) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let workers = load(number, &stop, &done, false);
    let mut client = Client::connect(number);
    for (count, text) in [pool(number, &all[..3], ""), pool(number, &all[1..], "")]
        .iter()
        .enumerate()
    {
        let before = done.load(Ordering::Relaxed);
        wait_for("clients get on", PATIENCE, || {
            done.load(Ordering::Relaxed) > before + 200
        });
        proxy.rewrite(text);
        wait_reloaded(&mut client, count as u32 + 1);
    }
    let before = done.load(Ordering::Relaxed);
    wait_for("clients get on", PATIENCE, || {
        done.load(Ordering::Relaxed) > before + 200
    });
    stop.store(true, Ordering::Relaxed);
    for worker in workers {
        worker.join().expect("no request failed");
    }
}

#[test]
fn a_file_that_never_ends_is_refused_and_the_next_reload_succeeds() {
    let (server, port) = (Memcached::start(), Port::claim());
    let number = port.number();
    let text = pool(number, &[&server], "");
    let proxy = Proxy::start(&text, number, &[]);
    let path = proxy.directory.path("magent.yml");
    let mut client = Client::connect(number);
    let refused = [
        ("/dev/zero", "not a plain file"),
        ("fifo", "not a plain file"),
        ("sparse", "larger than 67108864 bytes"),
    ];
    for (before, (target, why)) in refused.into_iter().enumerate() {
        let made = proxy.directory.path(target);
        match target {
            "fifo" => nix::unistd::mkfifo(made.as_str(), nix::sys::stat::Mode::S_IRWXU).unwrap(),
            "sparse" => {
                let file = std::fs::File::create(&made).unwrap();
                file.set_len(1 << 30).unwrap();
            }
            _ => {}
        }
        let target = if target.starts_with('/') {
            target
        } else {
            &made
        };
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(target, &path).unwrap();
        proxy.process.signal(Signal::SIGHUP);
        wait_for("the reload is refused", PATIENCE, || {
            reload_stat(&mut client, "reloads_failed") == (before + 1).to_string()
        });
        let error = reload_stat(&mut client, "error");
        assert!(error.contains(why), "{error}");
        assert_eq!(client.ask("set k 0 0 1\r\nv"), "STORED");
    }
    std::fs::remove_file(&path).unwrap();
    proxy.rewrite(&text.replace("5000", "5001"));
    wait_reloaded(&mut client, 1);
}
