//! The proxy as a process: options, exit codes, the daemon, a second start, signals.

use crate::common;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::Duration;

use common::fake::{healthy, Do, Fake};
use common::files::{Daemon, TempDir};
use common::magent::{magent_binary, run_magent};
use common::process::{mortal, Process};
use common::{timed, wait_for, Client, Magent, Memcached, Port, AT_ONCE, PATIENCE};
use nix::sys::signal::Signal;

/// What `sysexits.h` calls EX_USAGE and EX_OSERR.
const USAGE: i32 = 64;
const SYSTEM: i32 = 71;

#[test]
fn wrong_options_are_refused_in_one_line_that_names_them() {
    let server: &[&str] = &["-s", "127.0.0.1:11211"];
    let wrong: [(&[&str], &str); 29] = [
        (&["-p", "abc"], "-p"),
        (&["-p", "70000"], "-p"),
        (&["-p", "-1"], "-p"),
        (&["--port", ""], "-p"),
        (&["-n", "0"], "-n"),
        (&["-n", "many"], "-n"),
        (&["-n", "-5"], "-n"),
        (&["-i", "0"], "-i"),
        (&["-i", "65"], "-i"),
        (&["-i", "x"], "-i"),
        (&["-s", ""], "-s"),
        (&["-s", "host:0"], "-s"),
        (&["-s", "host:99999"], "-s"),
        (&["-s", "host:port"], "-s"),
        (&["-s", "host:11211:0"], "-s"),
        (&["-s", "host:11211:1001"], "-s"),
        (&["-s", "host:11211:x"], "-s"),
        (&["-s", "host:11211:1:1"], "-s"),
        (&["-b", ""], "-b"),
        (&["-b", "host:0"], "-b"),
        (&["-b", "host:x"], "-b"),
        (&["--timeout", "0"], "--timeout"),
        (&["--timeout", "x"], "--timeout"),
        (&["--copies", "0"], "--copies"),
        (&["--copies", "some"], "--copies"),
        (&["--max-item-size", "x"], "--max-item-size"),
        (&["--memory-limit", "x"], "--memory-limit"),
        (&["--no-such-option"], "no-such-option"),
        (&["-z"], "z"),
    ];
    for (arguments, name) in wrong {
        let (code, stderr) = run_magent(&[&["-D"], server, arguments].concat());
        assert_eq!(code, USAGE, "{arguments:?}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{arguments:?}: {stderr}");
        assert!(stderr.contains(name), "{arguments:?}: {stderr}");
        assert!(!stderr.contains("panicked"), "{arguments:?}: {stderr}");
    }
    let (code, stderr) = run_magent(&["-D"]);
    assert_eq!((code, stderr.lines().count()), (USAGE, 1), "{stderr}");
    assert!(stderr.contains("-s"), "{stderr}");
    for option in ["-p", "-s", "-u", "--timeout"] {
        let (code, stderr) = run_magent(&["-s", "host", option]);
        assert_eq!(
            (code, stderr.lines().count()),
            (USAGE, 1),
            "{option}: {stderr}"
        );
        assert!(
            stderr.contains(option.trim_start_matches('-')),
            "{option}: {stderr}"
        );
    }
    let (code, stderr) = run_magent(&["-D", "-p", "0", "-s", "host"]);
    assert_eq!(code, USAGE, "nothing to listen on: {stderr}");
}

#[test]
fn help_and_version_succeed() {
    for option in ["-h", "--help", "-V", "--version"] {
        let (code, stderr) = run_magent(&[option]);
        assert_eq!((code, stderr.as_str()), (0, ""), "{option}");
    }
}

#[test]
fn unknown_users_and_groups_are_refused() {
    let port = Port::claim().number().to_string();
    for option in ["-u", "-g"] {
        let (code, stderr) = run_magent(&[
            "-D",
            "-l",
            "127.0.0.1",
            "-p",
            &port,
            "-s",
            "127.0.0.1",
            option,
            "nosuchname",
        ]);
        assert_eq!(code, SYSTEM, "{option}: {stderr}");
        assert!(stderr.contains("nosuchname"), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
}

#[test]
fn ids_are_dropped_and_stay_dropped() {
    if !nix::unistd::Uid::effective().is_root() {
        common::skipped("ids can be dropped by root only");
        return;
    }
    let server = Memcached::start();
    for options in [
        &["-u", "nobody", "-g", "nogroup"],
        &["-g", "65534", "-u", "65534"],
    ] {
        let proxy = Magent::front(&[server.port()], &[]).args(options).start();
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", proxy.process().pid())).unwrap();
        let ids = |name: &str| {
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .unwrap();
            line.split_whitespace()
                .map(str::to_string)
                .collect::<Vec<_>>()
        };
        assert_eq!(ids("Uid:"), ["65534"; 4], "{options:?}");
        assert_eq!(ids("Gid:"), ["65534"; 4], "{options:?}");
        assert!(!ids("Groups:").contains(&"0".to_string()), "{options:?}");
    }
    // As the published command lines have it, with and without the blank.
    for options in [&["-u", "root"][..], &["-uroot"]] {
        Magent::front(&[server.port()], &[])
            .args(options)
            .start()
            .assert_alive();
    }
}

/// The command line of a daemon on a claimed port.
fn daemon_line<'a>(port: &'a str, server: &'a str, pidfile: &'a str) -> Vec<&'a str> {
    vec![
        "-l",
        "127.0.0.1",
        "-p",
        port,
        "-s",
        server,
        "--pidfile",
        pidfile,
        "--timeout",
        "5000",
    ]
}

#[test]
fn the_daemon_serves_when_the_command_returns() {
    let (memcached, directory, port) = (Memcached::start(), TempDir::new(), Port::claim());
    let (number, server) = (
        port.number().to_string(),
        format!("127.0.0.1:{}", memcached.port()),
    );
    let (pidfile, log) = (directory.path("pid"), directory.path("log"));
    let mut line = daemon_line(&number, &server, &pidfile);
    line.extend(["--log-file", &log]);
    let (code, stderr) = run_magent(&line);
    assert_eq!(code, 0, "{stderr}");
    let daemon = Daemon::of(&pidfile);
    // No waiting here: it must accept already.
    let mut client = Client::connect(port.number());
    client.set("key1", "value");
    assert_eq!(client.get("key1").as_deref(), Some("value"));
    assert_eq!(client.stat("pid"), daemon.pid.to_string());
    assert_eq!(daemon.name(), "magent");
    for descriptor in 0..2 {
        assert_eq!(
            daemon.descriptor(descriptor).to_str(),
            Some("/dev/null"),
            "descriptor {descriptor}"
        );
    }

    // A log that was moved away is made anew at SIGHUP.
    std::fs::rename(&log, directory.path("log.1")).expect("the log is there");
    daemon.signal(Signal::SIGHUP);
    wait_for("the log is there again", PATIENCE, || {
        std::path::Path::new(&log).exists()
    });
    assert_eq!(client.get("key1").as_deref(), Some("value"));

    daemon.signal(Signal::SIGTERM);
    wait_for("the daemon has ended", PATIENCE, || !daemon.runs());
    assert!(
        !std::path::Path::new(&pidfile).exists(),
        "the pid file is removed"
    );
    assert!(Client::try_connect(port.number()).is_err());
}

#[test]
fn a_second_start_is_harmless() {
    let (memcached, directory, port) = (Memcached::start(), TempDir::new(), Port::claim());
    let (number, server) = (
        port.number().to_string(),
        format!("127.0.0.1:{}", memcached.port()),
    );
    let pidfile = directory.path("pid");
    let line = daemon_line(&number, &server, &pidfile);
    assert_eq!(run_magent(&line), (0, String::new()));
    let daemon = Daemon::of(&pidfile);
    let mut client = Client::connect(port.number());
    for round in 0..5 {
        let ((code, stderr), time) = timed(|| run_magent(&line));
        assert_eq!(code, 0, "start {round}: {stderr}");
        assert!(time < AT_ONCE, "start {round} took {time:?}");
        let pid = std::fs::read_to_string(&pidfile).unwrap();
        assert_eq!(
            pid.trim(),
            daemon.pid.to_string(),
            "the pid file is still the first one's"
        );
        client.set("key1", &round.to_string());
    }
    let (code, stderr) = run_magent(&[&["-v"], &line[..]].concat());
    assert_eq!(code, 0, "{stderr}");
    assert!(!stderr.is_empty(), "with -v it says why it ends");
    assert!(daemon.runs());
    assert_eq!(client.get("key1").as_deref(), Some("4"));
    assert_eq!(
        Client::connect(port.number()).get("key1").as_deref(),
        Some("4")
    );
}

#[test]
fn an_address_held_by_another_program_is_an_error() {
    // One accepts and says nothing, the other speaks but is no magent.
    let silent = TcpListener::bind("127.0.0.1:0").expect("some port is free");
    let memcached = Memcached::start();
    for port in [
        silent.local_addr().expect("it is bound").port(),
        memcached.port(),
    ] {
        let number = port.to_string();
        for mode in [&["-D"][..], &[]] {
            let line = [mode, &["-l", "127.0.0.1", "-p", &number, "-s", "127.0.0.1"]].concat();
            let (code, stderr) = run_magent(&line);
            assert_ne!(code, 0, "{line:?}");
            assert!(stderr.contains(&number), "{line:?}: {stderr:?}");
            assert!(!stderr.contains("panicked"), "{stderr}");
        }
    }
}

#[test]
fn an_address_that_is_not_here_yet_is_no_error() {
    let memcached = Memcached::start();
    // Of the block for documentation: never ours. The second listener is to see that it runs.
    let proxy = Magent::front(&[memcached.port()], &[])
        .args(&["-l", "192.0.2.77"])
        .start();
    assert_eq!(proxy.client().get("key1"), None);
}

#[test]
fn what_is_in_flight_completes_at_sigterm() {
    let slow = Fake::start(|request| {
        let mut steps = healthy(request);
        if !request.is_probe() {
            steps.insert(0, Do::Wait(Duration::from_millis(300)));
        }
        steps
    });
    let mut proxy = Magent::front(&[slow.port()], &[])
        .args(&["--timeout", "20000", "--drain-ms", "20000"])
        .start();
    let mut clients: Vec<_> = (0..5).map(|_| proxy.client()).collect();
    let mut idle = proxy.client();
    clients[0].send("get key0\r\n");
    wait_for("the server has the first request", PATIENCE, || {
        !slow.lines().is_empty()
    });
    for (n, client) in clients.iter_mut().enumerate().skip(1) {
        client.send(format!("get key{n}\r\n"));
    }
    wait_for("the others are read", PATIENCE, || {
        proxy.client().stat("cmd_get").parse::<u32>().unwrap() >= 5
    });
    proxy.begin_end();
    for (n, client) in clients.iter_mut().enumerate() {
        let reply = client.read_to_end();
        let expect = format!("VALUE key{n} 0 13\r\nvalue-of-key{n}\r\nEND\r\n");
        assert_eq!(String::from_utf8_lossy(&reply), expect, "client {n}");
    }
    assert_eq!(idle.read_to_end(), b"");
    assert_eq!(proxy.wait_end().code(), Some(0));
    assert!(Client::try_connect(proxy.port()).is_err());
}

#[test]
fn a_server_that_never_answers_does_not_hold_the_end_up() {
    let mute = Fake::start(|request| match request.is_probe() {
        true => healthy(request),
        false => vec![Do::Mute],
    });
    let proxy = Magent::front(&[mute.port()], &[])
        .args(&["--timeout", "60000", "--drain-ms", "300"])
        .start();
    let mut client = proxy.client();
    client.send("get key1\r\n");
    wait_for("the server has the request", PATIENCE, || {
        !mute.lines().is_empty()
    });
    let (status, time) = timed(|| proxy.end(Signal::SIGINT));
    assert_eq!(status.code(), Some(0));
    assert!(time < PATIENCE / 2, "took {time:?}");
}

#[test]
fn a_unix_socket_serves_and_is_removed() {
    let (memcached, directory) = (Memcached::start(), TempDir::new());
    let path = directory.path("socket");
    // What a killed one leaves behind is no obstacle.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let proxy = Magent::front(&[memcached.port()], &[])
        .args(&["-f", &path])
        .start();
    assert!(std::fs::metadata(&path).unwrap().file_type().is_socket());
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
        .write_all(b"set key1 0 0 5\r\nvalue\r\nget key1\r\nquit\r\n")
        .unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    assert_eq!(reply, "STORED\r\nVALUE key1 0 5\r\nvalue\r\nEND\r\n");
    assert_eq!(proxy.client().get("key1").as_deref(), Some("value"));
    assert_eq!(proxy.end(Signal::SIGTERM).code(), Some(0));
    assert!(
        !std::path::Path::new(&path).exists(),
        "the socket file is removed"
    );
}

#[test]
fn silent_clients_are_closed_only_with_idle_timeout() {
    let memcached = Memcached::start();
    let without = Magent::front(&[memcached.port()], &[]).start();
    let with = Magent::front(&[memcached.port()], &[])
        .args(&["--idle-timeout", "4"])
        .start();
    let mut kept = without.client();
    let mut closed = with.client();
    let mut busy = with.client();
    assert_eq!(kept.get("key1"), None);
    assert_eq!(closed.get("key1"), None);
    closed.stream().set_nonblocking(true).unwrap();
    wait_for("one that asks for nothing is closed", PATIENCE, || {
        assert_eq!(busy.get("key1"), None, "one that asks is not idle");
        std::thread::sleep(Duration::from_millis(50));
        matches!(closed.stream().peek(&mut [0]), Ok(0))
    });
    assert_eq!(kept.get("key1"), None);
}

/// Nobody is served before the servers have answered, also not those who were found waiting after a stop.
#[test]
fn who_waits_for_the_start_waits_on_when_it_stood_still() {
    let (open, port) = (Arc::new(AtomicBool::new(false)), Port::claim());
    let told = Arc::clone(&open);
    let server = Fake::start(move |request| {
        wait_for("it may answer", PATIENCE, || told.load(Ordering::SeqCst));
        healthy(request)
    });
    let (number, place) = (
        port.number().to_string(),
        format!("127.0.0.1:{}", server.port()),
    );
    let mut command = mortal(&magent_binary());
    command.args(["-D", "-v", "-l", "127.0.0.1", "-p", &number, "-s", &place]);
    let proxy = Process::start(command.args(["--timeout", "20000"]));
    wait_for("the server is asked", PATIENCE, || server.accepted() > 0);
    let mut client = Client::connect(port.number());
    client.send("get key1\r\n");
    proxy.freeze();
    // Time must pass for it.
    std::thread::sleep(Duration::from_millis(1500));
    proxy.thaw();
    wait_for("it has noticed", PATIENCE, || {
        proxy.stderr().contains("stood still")
    });
    open.store(true, Ordering::SeqCst);
    let expect = "VALUE key1 0 13\r\nvalue-of-key1\r\nEND\r\n";
    assert_eq!(String::from_utf8_lossy(&client.reply()), expect);
}
