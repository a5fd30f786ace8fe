//! What stops people at the start: mistakes that would be found too late are said, and what is no mistake is taken.

use crate::common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use common::files::{Daemon, TempDir};
use common::magent::{run_magent, run_magent_output};
use common::{wait_for, Magent, Memcached, Port, PATIENCE};
use nix::sys::signal::Signal;

/// A command line in words.
fn run(line: &str) -> (i32, String) {
    let words: Vec<&str> = line.split_whitespace().collect();
    run_magent(&words)
}

#[test]
fn a_second_start_says_what_the_running_one_does_not_do() {
    let (one, other, directory) = (Memcached::start(), Memcached::start(), TempDir::new());
    let (port, free) = (Port::claim(), Port::claim());
    let (pidfile, path) = (directory.path("pid"), directory.path("m.sock"));
    let line = format!(
        "-l 127.0.0.1 -p {} -f {path} --pidfile {pidfile} -s 127.0.0.1:{}",
        port.number(),
        one.port(),
    );
    assert_eq!(run(&line), (0, String::new()));
    let daemon = Daemon::of(&pidfile);
    assert_eq!(run(&line), (0, String::new()), "nothing is different");

    let said = |line: &str, expected: &str| {
        let (code, stderr) = run(line);
        assert_eq!(code, 0, "{line}: {stderr}");
        assert!(stderr.contains(expected), "{line}: {stderr}");
        assert_eq!(stderr.lines().count(), 2, "{line}: {stderr}");
    };
    let has = format!("has other servers: 127.0.0.1:{}", one.port());
    said(&format!("{line} -b 127.0.0.1:{}", other.port()), &has);
    said(&format!("-D {line} -s 127.0.0.1:{}", other.port()), &has);
    let elsewhere = directory.path("other.sock");
    let not_there = format!("-f {elsewhere}: the magent that runs does not listen there");
    said(&format!("{line} -f {elsewhere}"), &not_there);
    let not_there = "-l 127.0.0.2 -p";
    said(&format!("{line} -l 127.0.0.2"), not_there);
    std::fs::remove_file(&path).unwrap();
    said(&line, &format!("-f {path}: the file is gone"));
    // With nothing in common it is no second start.
    let (code, stderr) = run(&line.replace(&port.number().to_string(), &free.number().to_string()));
    assert_eq!(code, 71, "{stderr}");
    assert!(daemon.runs());
}

#[test]
fn who_can_be_reached_by_no_file_any_more_is_followed() {
    let (server, directory) = (Memcached::start(), TempDir::new());
    let (pidfile, path) = (directory.path("pid"), directory.path("m.sock"));
    let line = format!(
        "-p 0 -f {path} --pidfile {pidfile} -s 127.0.0.1:{}",
        server.port()
    );
    assert_eq!(run(&line), (0, String::new()));
    let first = Daemon::of(&pidfile);
    std::fs::remove_file(&path).unwrap();
    let (code, stderr) = run(&line);
    assert_eq!(code, 0, "{stderr}");
    assert!(
        stderr.contains(&format!("-f {path}: the file is gone")),
        "{stderr}"
    );
    wait_for("the first one has gone", PATIENCE, || !first.runs());
    let second = Daemon::of(&pidfile);
    let mut client = UnixStream::connect(&path).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.write_all(b"set k 0 0 1\r\nv\r\nquit\r\n").unwrap();
    let mut reply = String::new();
    client.read_to_string(&mut reply).unwrap();
    assert_eq!(reply, "STORED\r\n");
    second.signal(Signal::SIGTERM);
    wait_for("the second one has gone", PATIENCE, || !second.runs());
    assert!(!Path::new(&path).exists(), "it removes its own file");
}

#[test]
fn signals_that_mean_nothing_change_nothing() {
    let server = Memcached::start();
    let mut proxy = Magent::front(&[server.port()], &[]).start();
    let mut client = proxy.client();
    for signal in [
        Signal::SIGTTIN,
        Signal::SIGTTOU,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
        Signal::SIGPIPE,
    ] {
        proxy.process().signal(signal);
        std::thread::sleep(Duration::from_millis(50));
        client.set("key", signal.as_str());
        assert_eq!(client.get("key").as_deref(), Some(signal.as_str()));
    }
    proxy.assert_alive();
}

#[test]
fn numbers_of_users_need_no_list_of_them() {
    if !nix::unistd::Uid::effective().is_root() {
        eprintln!("not root: ids cannot be dropped");
        return;
    }
    let (code, why) = common::process::run(Command::new("unshare").args(["-m", "true"]));
    if code != 0 {
        return common::skipped(&format!("no place of its own for mounts here: {why}"));
    }
    let server = Memcached::start();
    let empty = "mount -t tmpfs none /etc && exec \"$@\"";
    let proxy = Magent::front(&[server.port()], &[])
        .under(&["unshare", "-m", "sh", "-c", empty, "sh"])
        .args(&["-u", "12345", "-g", "23456"])
        .start();
    let status = format!("/proc/{}/status", proxy.process().pid());
    let status = std::fs::read_to_string(status).unwrap();
    assert!(
        status.contains("Uid:\t12345\t12345\t12345\t12345\n"),
        "{status}"
    );
    assert!(
        status.contains("Gid:\t23456\t23456\t23456\t23456\n"),
        "{status}"
    );
}

/// What it logged before it served clients.
fn said_at_start(proxy: &Magent) -> String {
    let is_whole = |said: &str| said.contains("serving clients");
    wait_for("the log is written", PATIENCE, || {
        is_whole(&proxy.process().stderr())
    });
    proxy.process().stderr()
}

#[test]
fn copies_that_are_none_are_said_at_the_start() {
    let (one, other) = (Memcached::start(), Memcached::start());
    let (a, b) = (one.port(), other.port());
    for (servers, backups, more, expected) in [
        (&[a, b][..], &[][..], &[][..], None),
        (&[a, a], &[], &[], Some("the same server as -s")),
        (&[a], &[a], &[], Some("its keys have no copy there")),
        (&[a], &[b, b], &[], Some("it counts once")),
        (
            &[a],
            &[b],
            &["--copies", "2"],
            Some("--copies 2: there is only 1 backup"),
        ),
        (&[a], &[b], &["--copies", "1"], None),
    ] {
        let proxy = Magent::front(servers, backups).args(more).start();
        let said = said_at_start(&proxy);
        let warned: Vec<&str> = said.lines().filter(|line| line.contains("WARN")).collect();
        match expected {
            None => assert_eq!(warned, [""; 0], "{servers:?} {backups:?}"),
            Some(expected) => {
                assert_eq!(warned.len(), 1, "{said}");
                assert!(warned[0].contains(expected), "{said}");
            }
        }
    }
    // By a name it is found once names are resolved.
    let proxy = Magent::front(&[a], &[])
        .args(&["-b", &format!("localhost:{a}")])
        .start();
    let said = said_at_start(&proxy);
    assert!(
        said.contains(&format!("-b localhost:{a}: the same server as")),
        "{said}"
    );
}

#[test]
fn magent_is_no_server_of_its_own() {
    let port = Port::claim().number();
    for line in [
        format!("-D -l 127.0.0.1 -p {port} -s 127.0.0.1:{port}"),
        format!("-D -p {port} -s 127.0.0.1 -b localhost:{port}"),
        format!("-l localhost -p {port} -s 127.0.0.1:{port}"),
    ] {
        let (code, stderr) = run(&line);
        assert_eq!(code, 71, "{line}: {stderr}");
        assert!(
            stderr.contains("that is where magent itself listens"),
            "{line}: {stderr}"
        );
        assert_eq!(stderr.lines().count(), 1, "{line}: {stderr}");
    }
}

#[test]
fn the_test_of_a_file_says_what_copies_are_none() {
    let directory = TempDir::new();
    let path = directory.path("pools.yml");
    let test = |text: &str| {
        std::fs::write(&path, text).unwrap();
        let words = ["-t", "-c", &path].map(str::to_owned);
        run_magent_output(&words)
    };
    let pool = "a:\n  listen: 127.0.0.1:7001\n  servers:\n  - 127.0.0.1:7002:1\n";
    let (code, said, _) = test(pool);
    assert_eq!(
        (code, said.contains("nothing is wrong")),
        (0, true),
        "{said}"
    );
    let (code, said, stderr) = test(&format!("{pool}  backups:\n  - 127.0.0.1:7002\n"));
    assert_eq!((code, said.as_str()), (0, ""), "{stderr}");
    let expected = "pool 'a': backups: 127.0.0.1:7002: the same server as servers: 127.0.0.1:7002: its keys have no copy there";
    assert!(stderr.contains(expected), "{stderr}");
    let (code, _, stderr) = test(&pool.replace("7002", "7001"));
    assert_eq!(code, 1, "{stderr}");
    assert!(
        stderr.contains("that is where magent itself listens"),
        "{stderr}"
    );
}

#[test]
fn the_endpoint_takes_a_name() {
    let (server, port) = (Memcached::start(), Port::claim());
    let at = format!("localhost:{}", port.number());
    let _proxy = Magent::front(&[server.port()], &[])
        .args(&["--admin", &at])
        .start();
    let mut stream = TcpStream::connect(&at).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    assert!(reply.starts_with("HTTP/1.1 200 "), "{reply}");
    let (code, stderr) = run("-D -s 127.0.0.1 -p 1 -l 127.0.0.1 --admin no-such-host.invalid:1");
    assert_eq!(code, 71, "{stderr}");
}

#[test]
fn nothing_at_all_is_answered_with_the_line_to_type() {
    let (code, stderr) = run("");
    assert_eq!((code, stderr.lines().count()), (64, 1), "{stderr}");
    assert!(
        stderr.contains("magent -s HOST[:PORT] -b HOST[:PORT]"),
        "{stderr}"
    );
    assert!(stderr.contains("-h"), "{stderr}");
    let (code, stderr) = run("-s ::1:11211");
    assert_eq!(code, 64, "{stderr}");
    assert!(
        stderr.contains("IPv6 stands in brackets ([::1]:11211)"),
        "{stderr}"
    );
}
