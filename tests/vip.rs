//! The address that clients use leaves this host and comes back, as keepalived moves it. Each test has a network of its
//! own (a network namespace), which needs root or the right to make one.

use crate::common;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::magent::MagentCommand;
use common::{skipped, timed, wait_for, Magent, Memcached, PATIENCE};
use nix::errno::Errno;
use nix::sched::{unshare, CloneFlags};

const VIP: &str = "192.0.2.66";
const VIP6: &str = "2001:db8::66";

/// Runs the test in a network of its own, with nothing but the loopback interface.
fn in_own_network(test: fn()) {
    // A thread of its own: processes that it starts are in its network, and other tests are not.
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET)?;
        ip("link set lo up");
        test();
        Ok::<(), Errno>(())
    });
    match thread.join() {
        Ok(Ok(())) => {}
        Ok(Err(error)) => skipped(&format!(
            "a network namespace cannot be made here ({error}): needs root"
        )),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// A proxy that a busy machine lets run before others, where that may be had: for it, a second without the CPU is a second in
/// which the address may have been elsewhere.
fn front(server: &Memcached) -> MagentCommand {
    Magent::front(&[server.port()], &[]).under(&["nice", "-n", "-15"])
}

/// Runs `ip` once for all lines, so that they happen in one moment.
#[track_caller]
fn ip(lines: &str) {
    let mut child = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("iproute2 is installed (make deps)");
    let mut input = child.stdin.take().expect("stdin is piped");
    input.write_all(lines.as_bytes()).expect("ip reads");
    input.write_all(b"\n").expect("ip reads");
    drop(input);
    let status = child.wait().expect("our own child");
    assert!(status.success(), "ip: {lines}");
}

/// A client of the address; it has asked something.
#[track_caller]
fn client(address: &str, port: u16) -> TcpStream {
    // An IPv6 address is there before the way to it is.
    let mut stream = None;
    wait_for("the address can be connected to", PATIENCE, || {
        stream = TcpStream::connect((address, port)).ok();
        stream.is_some()
    });
    let mut stream = stream.expect("it is connected");
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    asks(&mut stream);
    stream
}

#[track_caller]
fn asks(stream: &mut TcpStream) {
    stream.write_all(b"mn\r\n").unwrap();
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"MN\r\n");
}

/// What `stats health` says of the address, seconds left out.
fn is_here(proxy: &Magent, address: &str) -> String {
    let health = proxy.client().ask("stats health");
    let line = format!("STAT {address}:here ");
    let found = health.lines().find_map(|l| l.strip_prefix(line.as_str()));
    found.unwrap_or("not said").to_owned()
}

fn connections(proxy: &Magent) -> usize {
    proxy.client().stat("curr_connections").parse().unwrap()
}

#[test]
fn clients_of_an_address_that_leaves_are_closed() {
    in_own_network(|| {
        let server = Memcached::start();
        let proxy = front(&server).args(&["-l", VIP, "-n", "8"]).start();
        assert_eq!(is_here(&proxy, VIP), "no");
        let mut kept = proxy.client();
        assert_eq!(kept.get("key1"), None);
        for round in 0..3 {
            ip(&format!("addr add {VIP}/32 dev lo"));
            wait_for("the address is known", PATIENCE, || {
                is_here(&proxy, VIP) == "yes"
            });
            let clients: Vec<_> = (0..7).map(|_| client(VIP, proxy.port())).collect();
            // With the kept one that is all there may be.
            let mut refused = TcpStream::connect((VIP, proxy.port())).unwrap();
            let mut line = String::new();
            refused.read_to_string(&mut line).unwrap();
            assert_eq!(line, "SERVER_ERROR too many open connections\r\n");
            ip(&format!("addr del {VIP}/32 dev lo"));
            let ((), time) = timed(|| {
                wait_for("there is room again", PATIENCE, || {
                    kept.stat("curr_connections") == "1"
                })
            });
            // A second is what is promised; the rest is for a busy machine. Keepalive would take two minutes.
            assert!(time < PATIENCE / 2, "closed after {time:?}");
            assert_eq!(is_here(&proxy, VIP), "no");
            drop(clients);
            // Another thread reads the log.
            for part in [
                format!("address {VIP}: here"),
                format!("address {VIP} left: 7 clients closed"),
            ] {
                wait_for(&format!("the log says {part}"), PATIENCE, || {
                    proxy.process().stderr().matches(&part).count() == round + 1
                });
            }
        }
        assert_eq!(kept.get("key1"), None, "the others are left alone");
    });
}

#[test]
fn an_address_that_is_back_at_once_keeps_its_clients() {
    in_own_network(|| {
        let server = Memcached::start();
        ip(&format!(
            "addr add {VIP}/32 dev lo\naddr add {VIP6}/128 dev lo nodad"
        ));
        let proxy = front(&server).args(&["-l", VIP, "-l", VIP6]).start();
        assert_eq!(is_here(&proxy, VIP), "yes");
        assert_eq!(is_here(&proxy, VIP6), "yes");
        let mut clients = [client(VIP, proxy.port()), client(VIP6, proxy.port())];
        ip(&format!(
            "addr del {VIP}/32 dev lo\naddr add {VIP}/32 dev lo\n\
             addr del {VIP6}/128 dev lo\naddr add {VIP6}/128 dev lo nodad"
        ));
        // Time must pass to see that nothing happens in it.
        std::thread::sleep(Duration::from_millis(1200));
        clients.iter_mut().for_each(asks);
        // The same address on a second interface is reason enough to stay.
        ip(&format!(
            "link add v0 type veth peer name v1\nlink set v0 up\naddr add {VIP}/32 dev v0\naddr del {VIP}/32 dev lo"
        ));
        std::thread::sleep(Duration::from_millis(1200));
        asks(&mut clients[0]);
        assert!(!proxy.process().stderr().contains("clients closed"));
    });
}

#[test]
fn a_proxy_that_listens_everywhere_closes_them_too() {
    in_own_network(|| {
        let server = Memcached::start();
        let proxy = front(&server).everywhere().start();
        ip(&format!(
            "addr add {VIP}/32 dev lo\naddr add {VIP6}/128 dev lo nodad"
        ));
        let mut kept = proxy.client();
        for (address, bits) in [(VIP, 32), (VIP6, 128)] {
            let _clients = [client(address, proxy.port()), client(address, proxy.port())];
            assert_eq!(
                connections(&proxy),
                4,
                "with the kept one and the asking one"
            );
            ip(&format!("addr del {address}/{bits} dev lo"));
            wait_for("they are closed", PATIENCE, || {
                kept.stat("curr_connections") == "1"
            });
        }
        assert_eq!(kept.get("key1"), None);
        assert_eq!(is_here(&proxy, VIP), "not said", "no address was asked for");
    });
}

#[test]
fn changes_that_were_lost_are_looked_up() {
    in_own_network(|| {
        let server = Memcached::start();
        ip(&format!("addr add {VIP}/32 dev lo"));
        let proxy = front(&server).args(&["-l", VIP]).start();
        let _client = client(VIP, proxy.port());
        let mut kept = proxy.client();
        assert_eq!(kept.stat("curr_connections"), "2");
        // More than the socket holds while nobody reads it; the address itself goes last.
        proxy.process().freeze();
        let mut lines = String::new();
        for n in 0..2000 {
            lines += &format!("addr add 10.9.{}.{}/32 dev lo\n", n / 250, n % 250 + 1);
        }
        ip(&format!("{lines}addr del {VIP}/32 dev lo"));
        proxy.process().thaw();
        wait_for("the client is closed", PATIENCE, || {
            kept.stat("curr_connections") == "1"
        });
        assert_eq!(is_here(&proxy, VIP), "no");
        // It listens on, and hears of the next change.
        ip(&format!("addr add {VIP}/32 dev lo"));
        wait_for("the address is known", PATIENCE, || {
            is_here(&proxy, VIP) == "yes"
        });
        let _client = client(VIP, proxy.port());
        ip(&format!("addr del {VIP}/32 dev lo"));
        wait_for("it is closed too", PATIENCE, || {
            kept.stat("curr_connections") == "1"
        });
    });
}

#[test]
fn a_request_in_flight_does_no_harm_to_others() {
    in_own_network(|| {
        let server = Memcached::start();
        ip(&format!("addr add {VIP}/32 dev lo"));
        let proxy = front(&server)
            .args(&["-l", VIP, "--timeout", "60000"])
            .start();
        let mut kept = proxy.client();
        server.freeze();
        let mut cut = TcpStream::connect((VIP, proxy.port())).unwrap();
        cut.write_all(b"set key1 0 0 5\r\nvalue\r\n").unwrap();
        wait_for("it is in flight", PATIENCE, || {
            kept.stat("magent_in_flight") != "0" && kept.stat("cmd_set") == "1"
        });
        ip(&format!("addr del {VIP}/32 dev lo"));
        wait_for("it is closed", PATIENCE, || {
            kept.stat("curr_connections") == "1"
        });
        server.thaw();
        // It is carried out, and its answer reaches nobody.
        assert_eq!(kept.get("key1").as_deref(), Some("value"));
        cut.set_nonblocking(true).unwrap();
        let answer = cut.read(&mut [0; 16]).map_err(|error| error.kind());
        let nothing = [Err(ErrorKind::WouldBlock), Err(ErrorKind::ConnectionReset)];
        assert!(nothing.contains(&answer), "{answer:?}");
    });
}

/// Stopped while it is busy with writes that the server has not taken yet: its clients have gone to another proxy since, and
/// may have written the same keys there.
#[test]
fn what_was_taken_in_before_a_stop_is_not_written_after_it() {
    in_own_network(|| stop_with_writes_taken_in(false));
}

/// The same while it sleeps, as the server takes no more and the client has nothing more to say.
#[test]
fn nor_is_it_when_it_was_stopped_in_its_sleep() {
    in_own_network(|| stop_with_writes_taken_in(true));
}

fn stop_with_writes_taken_in(asleep: bool) {
    let server = Memcached::start();
    ip(&format!("addr add {VIP}/32 dev lo"));
    let proxy = front(&server)
        .args(&["-l", VIP, "--timeout", "60000"])
        .start();
    let mut kept = proxy.client();
    let mut cut = client(VIP, proxy.port());
    // One whose replies are known to be short may have many requests under way.
    for _ in 0..40 {
        cut.write_all(b"get key\r\n").unwrap();
        cut.read_exact(&mut [0; 5]).unwrap();
    }
    server.freeze();
    let mut hears = cut.try_clone().unwrap();
    let sender = std::thread::spawn(move || {
        let value = vec![b'x'; 1_000_000];
        for key in 0..40 {
            let head = format!("set key{key} 0 0 {}\r\n", value.len());
            if cut.write_all(head.as_bytes()).is_err()
                || cut.write_all(&value).is_err()
                || cut.write_all(b"\r\n").is_err()
            {
                return;
            }
        }
    });
    // No more is asked of a server than its link has shown to carry: the rest waits.
    wait_for("the first write is under way", PATIENCE, || {
        kept.stat("cmd_set").parse::<u32>().unwrap() >= 1
    });
    let mut before = String::new();
    wait_for("all stands still", PATIENCE, || {
        if !asleep {
            return true;
        }
        std::thread::sleep(Duration::from_millis(200));
        let now = kept.stat("magent_buffered_bytes");
        std::mem::replace(&mut before, now.clone()) == now
    });
    proxy.process().freeze();
    let stopped = Instant::now();
    server.thaw();
    let mut direct = server.client();
    let mut held = String::new();
    wait_for("the server has what was on its way", PATIENCE, || {
        let before = std::mem::replace(&mut held, direct.stat("cmd_set"));
        std::thread::sleep(Duration::from_millis(100));
        before == held
    });
    assert_eq!(direct.ask("flush_all"), "OK");
    std::thread::sleep(Duration::from_millis(1500).saturating_sub(stopped.elapsed()));
    proxy.process().thaw();
    wait_for("all is begun anew", PATIENCE, || {
        proxy.client().stat("magent_begun_anew") == "1"
    });
    sender.join().unwrap();
    let end = hears.read_to_end(&mut Vec::new());
    let open = |error: &std::io::Error| error.kind() == ErrorKind::WouldBlock;
    assert!(
        !end.is_err_and(|error| open(&error)),
        "the client is closed"
    );
    let mut client = proxy.client();
    client.set("after", "x");
    assert_eq!(client.get("after").as_deref(), Some("x"));
    for key in 0..40 {
        assert!(direct.get(&format!("key{key}")).is_none(), "key{key}");
    }
}
