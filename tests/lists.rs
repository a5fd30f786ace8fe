//! The list of servers changes, by a reload or with a new process, while what a server missed is known under the list
//! before. Nothing old comes back. Also what else must outlive a change: old copies in a handover, a `flush_all` to come.

use std::time::{Duration, Instant};

use crate::common;
use crate::common::files::TempDir;
use crate::common::magent::magent_binary;
use crate::common::pool::{counter, replication, state, wait_state};
use crate::common::process::{mortal, wait_answering, Process};
use crate::common::{wait_for, Client, Magent, Memcached, Port, PATIENCE};
use nix::sys::signal::Signal;

/// Longer than a proxy counts as active, and than its reload takes then.
const IDLE: Duration = Duration::from_millis(1500);

/// A server that was stopped is used again after this: a probe, the grace, the entry.
const OVER_THE_RETURN: Duration = Duration::from_secs(5);

/// A proxy with a file that the test rewrites.
struct Proxy {
    directory: TempDir,
    process: Process,
    port: Port,
    reloads: u32,
}

impl Proxy {
    fn start(pool: &str, options: &[&str]) -> Proxy {
        let (directory, port) = (TempDir::new(), Port::claim());
        let path = directory.path("magent.yml");
        std::fs::write(&path, Proxy::text(&port, pool)).unwrap();
        let mut process = Process::start(
            mortal(&magent_binary())
                .args(["-v", "-c", &path])
                .args(options),
        );
        wait_answering(port.number(), &mut process, "magent");
        Proxy {
            directory,
            process,
            port,
            reloads: 0,
        }
    }

    fn text(port: &Port, pool: &str) -> String {
        let number = port.number();
        format!("p:\n  listen: 127.0.0.1:{number}\n  hash: md5\n  timeout: 1000\n{pool}")
    }

    fn client(&self) -> Client {
        Client::connect(self.port.number())
    }

    /// Reads another pool; carried out when this returns. `client` asks for no key.
    fn reload(&mut self, client: &mut Client, pool: &str) {
        let path = self.directory.path("magent.yml");
        std::fs::write(path, Proxy::text(&self.port, pool)).unwrap();
        self.process.signal(Signal::SIGHUP);
        self.reloads += 1;
        let count = self.reloads.to_string();
        wait_for("the reload is carried out", PATIENCE, || {
            counter(client, "stats reload", "reloads") == count
                && counter(client, "stats reload", "reload") != "under way"
        });
    }
}

/// Primaries with weights, and backups, as a pool of a file.
fn pool(servers: &[(&Memcached, u32)], backups: &[&Memcached], more: &str) -> String {
    let mut text = format!("{more}  servers:\n");
    for (server, weight) in servers {
        text += &format!("  - 127.0.0.1:{}:{weight}\n", server.port());
    }
    if !backups.is_empty() {
        text += "  backups:\n";
    }
    for backup in backups {
        text += &format!("  - 127.0.0.1:{}\n", backup.port());
    }
    text
}

fn write_old(client: &mut Client) {
    client.set("changed", "old");
    client.set("deleted", "old");
}

fn write_new(client: &mut Client) {
    client.set("changed", "new");
    client.ask("delete deleted");
}

/// For a while no read shows what was changed; the key that was set is never missed.
#[track_caller]
fn assert_new(client: &mut Client) {
    let begin = Instant::now();
    while begin.elapsed() < OVER_THE_RETURN {
        assert_eq!(client.get("changed").as_deref(), Some("new"));
        assert_eq!(client.get("deleted"), None);
    }
}

fn wait_down(client: &mut Client, server: &Memcached) {
    wait_state(client, server, &["down"]);
}

#[test]
fn a_reload_of_an_idle_pool_keeps_what_a_server_missed() {
    let servers: Vec<Memcached> = (0..3).map(|_| Memcached::start()).collect();
    let [p, b, x] = &servers[..] else {
        unreachable!()
    };
    let one = pool(&[(p, 1)], &[b], "");
    for other in [
        pool(&[(p, 1)], &[b, x], ""),
        pool(&[(p, 1)], &[x, b], ""),
        pool(&[(p, 1)], &[b], "  server_connections: 3\n"),
    ] {
        let mut proxy = Proxy::start(&one, &[]);
        let mut client = proxy.client();
        write_old(&mut client);
        p.freeze();
        write_new(&mut client);
        std::thread::sleep(IDLE);
        proxy.reload(&mut client, &other);
        p.thaw();
        std::thread::sleep(IDLE);
        assert_new(&mut client);
    }
}

#[test]
fn a_reload_of_an_idle_pool_marks_where_keys_have_moved_to() {
    let (a, b, x) = (Memcached::start(), Memcached::start(), Memcached::start());
    let mut proxy = Proxy::start(&pool(&[(&a, 1), (&b, 1)], &[&x], ""), &[]);
    let mut client = proxy.client();
    for n in 0..300 {
        client.set(&format!("lock{n}"), "held");
    }
    std::thread::sleep(IDLE);
    proxy.reload(&mut client, &pool(&[(&a, 1), (&b, 4)], &[&x], ""));
    assert_ne!(
        counter(&mut client, "stats reload", "moved_percent"),
        "0.00"
    );
    for n in 0..300 {
        let key = format!("lock{n}");
        assert_eq!(client.ask(&format!("add {key} 0 0 1\r\nx")), "NOT_STORED");
        assert_eq!(client.get(&key).as_deref(), Some("held"));
    }
}

/// A process with one list, then one with another while a server is away.
#[track_caller]
fn restart(before: (&[u16], &[u16]), after: (&[u16], &[u16]), away: &Memcached, asks: bool) {
    // A machine that is busy must not make servers late.
    let front = |(servers, backups): (&[u16], &[u16])| {
        let patient = ["--timeout", "1000"];
        Magent::front(servers, backups).args(&patient).start()
    };
    let first = front(before);
    let mut client = first.client();
    // Each of them has what is written then.
    wait_for("all are up", PATIENCE, || {
        client.get("no-such-key");
        let states = client.ask("stats servers");
        states.matches(":state up").count() == before.0.len() + before.1.len()
    });
    write_old(&mut client);
    away.freeze();
    write_new(&mut client);
    first.end(Signal::SIGTERM);
    let second = front(after);
    let mut client = second.client();
    if asks {
        // The other one may have been slow to answer at first, and is not used then for a second.
        wait_for("it is read", PATIENCE, || {
            let value = client.get("changed");
            assert_ne!(value.as_deref(), Some("old"));
            value.is_some()
        });
    }
    away.thaw();
    if !asks {
        std::thread::sleep(Duration::from_secs(3));
    }
    assert_new(&mut client);
}

#[test]
fn a_process_with_another_list_sees_what_a_server_missed() {
    let servers: Vec<Memcached> = (0..3).map(|_| Memcached::start()).collect();
    let [p, b, x] = [0, 1, 2].map(|n: usize| servers[n].port());
    for asks in [true, false] {
        restart((&[p], &[b]), (&[p], &[b, x]), &servers[0], asks);
        restart((&[p], &[b, x]), (&[p], &[b]), &servers[0], asks);
        restart((&[p], &[b]), (&[b], &[x, p]), &servers[0], asks);
        restart((&[p], &[b, x]), (&[b], &[p]), &servers[1], asks);
    }
}

#[test]
fn a_server_that_is_called_otherwise_is_the_same() {
    let (p, b) = (Memcached::start(), Memcached::start());
    let first = Magent::front(&[p.port()], &[b.port()]).start();
    let mut client = first.client();
    write_old(&mut client);
    p.freeze();
    write_new(&mut client);
    first.end(Signal::SIGTERM);
    let names = [&p, &b].map(|server| format!("localhost:{}", server.port()));
    let second = Magent::front(&[], &[])
        .args(&["-s", &names[0], "-b", &names[1]])
        .start();
    let mut client = second.client();
    p.thaw();
    assert_new(&mut client);
}

#[test]
fn a_server_that_was_not_in_the_list_for_a_while_missed_what_was_written_then() {
    let (mut p, b) = (Memcached::start(), Memcached::start());
    let both = || Magent::front(&[p.port()], &[b.port()]).start();
    let first = both();
    write_old(&mut first.client());
    first.end(Signal::SIGTERM);
    let alone = Magent::front(&[p.port()], &[]).start();
    write_new(&mut alone.client());
    alone.end(Signal::SIGTERM);
    let third = both();
    let mut client = third.client();
    assert_eq!(client.get("changed").as_deref(), Some("new"));
    wait_state(&mut client, &b, &["up"]);
    assert_eq!(b.client().get("deleted"), None);
    p.kill();
    wait_down(&mut client, &p);
    assert_new(&mut client);
}

#[test]
fn a_backup_that_is_taken_out_and_put_back_by_reloads_missed_what_was_written_then() {
    let (mut p, b) = (Memcached::start(), Memcached::start());
    let both = pool(&[(&p, 1)], &[&b], "");
    let mut proxy = Proxy::start(&both, &[]);
    let mut client = proxy.client();
    for idle in [false, true] {
        write_old(&mut client);
        proxy.reload(&mut client, &pool(&[(&p, 1)], &[], ""));
        write_new(&mut client);
        if idle {
            std::thread::sleep(IDLE);
        }
        proxy.reload(&mut client, &both);
        wait_state(&mut client, &b, &["up"]);
        assert_eq!(b.client().get("changed").as_deref(), Some("new"));
        assert_eq!(b.client().get("deleted"), None);
    }
    p.kill();
    assert_new(&mut client);
}

#[test]
fn a_pool_of_another_name_on_the_same_server_is_another_pool() {
    let servers: Vec<Memcached> = (0..3).map(|_| Memcached::start()).collect();
    let [a, shared, c] = [0, 1, 2].map(|n: usize| servers[n].port());
    let text = |port: &Port, name: &str, server: u16| {
        let port = port.number();
        format!("{name}: {{listen: 127.0.0.1:{port}, timeout: 300, servers: ['127.0.0.1:{server}:1'], backups: ['127.0.0.1:{shared}']}}\n")
    };
    let directory = TempDir::new();
    let ports = [Port::claim(), Port::claim()];
    let path = directory.path("magent.yml");
    std::fs::write(
        &path,
        text(&ports[0], "one", a) + &text(&ports[1], "two", c),
    )
    .unwrap();
    for _ in 0..2 {
        let mut process = Process::start(mortal(&magent_binary()).args(["-v", "-c", &path]));
        wait_answering(ports[0].number(), &mut process, "magent");
        let [mut one, mut two] = [0, 1].map(|n: usize| Client::connect(ports[n].number()));
        one.set("one", "1");
        two.set("two", "2");
        // A view of the one pool is none of the other.
        servers[0].freeze();
        one.set("one", "1");
        servers[0].thaw();
        wait_state(&mut one, &servers[0], &["up"]);
        two.set("two", "2");
        assert_eq!(replication(&mut two, "views_raised"), "0");
        assert_eq!(replication(&mut two, "entry_flushes"), "0");
        assert_eq!(replication(&mut one, "entry_flushes"), "0");
        for server in [&servers[1], &servers[2]] {
            assert_eq!(state(&mut two, server), "up");
            assert_eq!(server.client().get("two").as_deref(), Some("2"));
        }
        process.kill();
    }
}

#[test]
fn an_old_copy_that_could_not_be_deleted_in_a_handover_does_not_come_back() {
    let (a, b, x) = (Memcached::start(), Memcached::start(), Memcached::start());
    let both = [(&a, 1), (&b, 1)];
    for (before, after) in [(&both[..], &both[1..]), (&both[..1], &both[..])] {
        let mut proxy = Proxy::start(&pool(before, &[&x], ""), &["--handover", "60"]);
        let mut client = proxy.client();
        let keys: Vec<String> = (0..40).map(|n| format!("key{n}")).collect();
        for key in &keys {
            client.set(key, "old");
        }
        let held: Vec<&String> = keys
            .iter()
            .filter(|key| a.client().get(key).is_some())
            .collect();
        proxy.reload(&mut client, &pool(after, &[&x], ""));
        assert_eq!(
            counter(&mut client, "stats reload", "reload"),
            "handing over"
        );
        a.freeze();
        wait_down(&mut client, &a);
        for key in &held {
            client.ask(&format!("delete {key}"));
        }
        a.thaw();
        wait_state(&mut client, &a, &["up", "cold"]);
        for key in held {
            assert_eq!(client.get(key), None, "{key}");
        }
    }
}

/// docs/migrating-from-twemproxy.md: no cold cache.
#[test]
fn a_handover_with_ejection_keeps_the_cache_warm() {
    let servers: Vec<Memcached> = (0..4).map(|_| Memcached::start()).collect();
    let all: Vec<(&Memcached, u32)> = servers.iter().map(|server| (server, 1)).collect();
    let eject = "  auto_eject_hosts: true\n";
    let mut proxy = Proxy::start(&pool(&all[..3], &[], eject), &["--handover", "3600"]);
    let mut client = proxy.client();
    let keys: Vec<String> = (0..2000).map(|n| format!("key{n}")).collect();
    for key in &keys {
        client.set(key, "v");
    }
    proxy.reload(&mut client, &pool(&all, &[], eject));
    // Time for all that tidies up, were it to begin now.
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(3) {
        client.get("no-such-key");
    }
    let missed = keys.iter().filter(|key| client.get(key).is_none()).count();
    assert_eq!(missed, 0);
}

#[test]
fn a_delayed_flush_is_not_forgotten_by_servers_that_return_within_the_delay() {
    for restarts in [true, false] {
        let (mut p, b) = (Memcached::start(), Memcached::start());
        let proxy = Magent::front(&[p.port()], &[b.port()]).start();
        let mut client = proxy.client();
        client.set("k", "old");
        let begin;
        if restarts {
            begin = Instant::now();
            assert_eq!(client.ask("flush_all 4"), "OK");
            p.kill();
            wait_down(&mut client, &p);
            p.restart();
        } else {
            p.freeze();
            wait_down(&mut client, &p);
            begin = Instant::now();
            assert_eq!(client.ask("flush_all 4"), "OK");
            p.thaw();
        }
        wait_state(&mut client, &p, &["up", "cold"]);
        if begin.elapsed() < Duration::from_millis(2900) {
            assert_eq!(client.get("k").as_deref(), Some("old"));
        }
        while begin.elapsed() < Duration::from_millis(6000) {
            client.get("no-such-key");
        }
        client.set("later", "v");
        let until = Instant::now() + Duration::from_secs(1);
        while Instant::now() < until {
            assert_eq!(client.get("k"), None);
            assert_eq!(client.get("later").as_deref(), Some("v"));
        }
        for server in [&p, &b] {
            assert_eq!(server.client().get("k"), None);
        }
    }
}

#[test]
fn a_delayed_flush_outlives_the_proxy_that_took_it() {
    let (mut p, b) = (Memcached::start(), Memcached::start());
    let first = Magent::front(&[p.port()], &[b.port()]).start();
    let mut client = first.client();
    client.set("k", "old");
    let begin = Instant::now();
    assert_eq!(client.ask("flush_all 5"), "OK");
    drop(first);
    p.kill();
    p.restart();
    let second = Magent::front(&[p.port()], &[b.port()]).start();
    let mut client = second.client();
    while begin.elapsed() < Duration::from_millis(6500) {
        client.get("k");
    }
    assert_eq!(client.get("k"), None);
    assert_eq!(p.client().get("k"), None);
}

#[test]
fn the_last_flush_counts() {
    let (p, b) = (Memcached::start(), Memcached::start());
    let proxy = Magent::front(&[p.port()], &[b.port()]).start();
    let mut client = proxy.client();
    client.set("k", "v");
    assert_eq!(client.ask("flush_all 2"), "OK");
    assert_eq!(client.ask("flush_all 3600"), "OK");
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_millis(3500) {
        assert_eq!(client.get("k").as_deref(), Some("v"));
    }
    assert_eq!(client.ask("flush_all"), "OK");
    assert_eq!(client.get("k"), None);
    common::assert_idle(&proxy);
}

/// Weights are changed, and changed back: what lay on its old server meanwhile is not found there again, and nothing is lost.
#[test]
fn keys_that_go_elsewhere_and_come_back_are_as_they_were_left() {
    for (idle, restart) in [(false, false), (true, false), (false, true)] {
        let servers = [(); 3].map(|()| Memcached::start());
        let [one, other, backup] = &servers;
        let even = pool(&[(one, 1), (other, 1)], &[backup], "");
        let uneven = pool(&[(one, 1), (other, 1000)], &[backup], "");
        let mut proxy = Proxy::start(&even, &[]);
        let mut client = proxy.client();
        let keys: Vec<String> = (0..60).map(|n| format!("key{n}")).collect();
        for key in &keys {
            client.set(key, "old");
        }
        let change = |proxy: &mut Proxy, client: &mut Client, pool: &str| {
            if restart {
                *proxy = Proxy::start(pool, &[]);
                *client = proxy.client();
            } else {
                // Reloaded while nobody asks, or while somebody does.
                if idle {
                    std::thread::sleep(IDLE);
                } else {
                    let _ = client.get("key0");
                }
                proxy.reload(client, pool);
            }
        };
        change(&mut proxy, &mut client, &uneven);
        for (n, key) in keys.iter().enumerate() {
            if n % 2 == 0 {
                client.set(key, "new");
            } else {
                assert_eq!(client.ask(&format!("delete {key}")), "DELETED");
            }
        }
        change(&mut proxy, &mut client, &even);
        for (n, key) in keys.iter().enumerate() {
            let expected = (n % 2 == 0).then_some("new");
            let got = client.get(key);
            assert_eq!(got.as_deref(), expected, "{key}, {idle}, {restart}");
        }
    }
}
