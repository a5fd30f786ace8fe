//! `--check` and `--watch`: what a script of keepalived's, its track file and people are told of a running proxy.

use crate::common;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use common::files::TempDir;
use common::magent::{magent_binary, run_magent_output};
use common::process::{mortal, Process};
use common::{timed, wait_for, Magent, Memcached, Port, ABOUT_ONE_TIMEOUT, AT_ONCE, PATIENCE};
use nix::sys::signal::Signal;

/// Exit codes of `--check`, and numbers in the track file.
const HEALTHY: i32 = 0;
const DEGRADED: i32 = 1;
const SILENT: i32 = 2;

/// For those who are not to wait for anything: a busy machine takes longer than the default of 300 ms.
const PATIENT: [&str; 2] = ["--timeout", "20000"];

/// The exit code and the line.
#[track_caller]
fn check(place: &str, more: &[&str]) -> (i32, String) {
    let line = [&["--check", place], more].concat();
    let words: Vec<String> = line.iter().map(ToString::to_string).collect();
    let (code, stdout, stderr) = run_magent_output(&words);
    assert_eq!(stderr, "", "{line:?}");
    assert_eq!(stdout.lines().count(), 1, "{line:?}: {stdout:?}");
    (code, stdout.trim_end().to_owned())
}

fn at(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

#[test]
fn a_healthy_proxy_by_every_way_to_it() {
    let (servers, directory) = ([Memcached::start(), Memcached::start()], TempDir::new());
    let path = directory.path("socket");
    let proxy = Magent::front(&[servers[0].port()], &[servers[1].port()])
        .args(&["-f", &path])
        .start();
    let port = proxy.port();
    for place in [at(port), format!("localhost:{port}"), path] {
        wait_for("both servers are up", PATIENCE, || {
            check(&place, &[]) == (HEALTHY, format!("{place}: healthy: 2 of 2 servers live"))
        });
    }
    let health = proxy.client().ask("stats health");
    assert!(health.starts_with("STAT health ok\r\n"), "{health}");
    assert!(health.contains("STAT 127.0.0.1:here yes\r\n"), "{health}");
}

#[test]
fn no_server_is_asked() {
    let server = Memcached::start();
    // So patient that the stopped server counts as up for as long as the test runs.
    let proxy = Magent::front(&[server.port()], &[])
        .args(&["--timeout", "60000"])
        .start();
    assert_eq!(check(&at(proxy.port()), &PATIENT).0, HEALTHY);
    server.freeze();
    for _ in 0..20 {
        let (code, line) = check(&at(proxy.port()), &PATIENT);
        assert_eq!(code, HEALTHY, "{line}");
    }
    server.thaw();
}

#[test]
fn keys_without_a_live_copy_are_degraded_service() {
    let mut servers = [Memcached::start(), Memcached::start(), Memcached::start()];
    let [first, second, backup] = servers.each_ref().map(Memcached::port);
    let with = Magent::front(&[first, second], &[backup]).start();
    let without = Magent::front(&[first, second], &[]).start();
    servers[1].kill();
    let place = at(without.port());
    let line = format!(
        "{place}: degraded: no live copy of the keys of {}; 1 of 2 servers live",
        at(second)
    );
    wait_for("the loss is seen", PATIENCE, || {
        check(&place, &[]) == (DEGRADED, line.clone())
    });
    let place = at(with.port());
    let line = format!("{place}: healthy: 2 of 3 servers live");
    wait_for("the loss is seen by the other", PATIENCE, || {
        check(&place, &[]) == (HEALTHY, line.clone())
    });
    servers[2].kill();
    wait_for("the backup is gone too", PATIENCE, || {
        check(&place, &[]).0 == DEGRADED
    });
    servers[1].restart();
    wait_for("one copy is enough", PATIENCE, || {
        check(&place, &[]).0 == HEALTHY
    });
}

#[test]
fn a_stopped_proxy_is_noticed_in_time() {
    let (server, directory) = (Memcached::start(), TempDir::new());
    let path = directory.path("socket");
    let proxy = Magent::front(&[server.port()], &[])
        .args(&["-f", &path])
        .start();
    proxy.process().freeze();
    for place in [at(proxy.port()), path] {
        for (more, limit) in [(&[][..], 300), (&["--timeout", "100"], 100)] {
            let ((code, line), time) = timed(|| check(&place, more));
            let text = format!("{place}: not answering: no answer within {limit} ms");
            assert_eq!((code, line), (SILENT, text));
            assert!(time >= Duration::from_millis(limit), "{time:?}");
            assert!(time < Duration::from_millis(limit) + AT_ONCE, "{time:?}");
        }
    }
    proxy.process().thaw();
    assert_eq!(check(&at(proxy.port()), &PATIENT).0, HEALTHY);
}

#[test]
fn nobody_there_and_somebody_else_there() {
    let (port, memcached) = (Port::claim(), Memcached::start());
    let place = at(port.number());
    let text = format!("{place}: not answering: Connection refused");
    assert_eq!(check(&place, &[]), (SILENT, text));
    let (code, line) = check("/nonexistent/socket", &[]);
    assert_eq!(code, SILENT);
    assert!(line.ends_with("No such file or directory"), "{line}");
    let (code, line) = check(&at(memcached.port()), &[]);
    assert_eq!(code, SILENT);
    assert!(
        line.contains("not a magent: it answered 'VERSION 1."),
        "{line}"
    );

    // One that speaks otherwise, one that hangs up, and a magent from before.
    let others: [(&'static [u8], i32, &str); 3] = [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", SILENT, "not a magent"),
        (b"", SILENT, "closed the connection"),
        (
            b"ERROR\r\nVERSION 1.6.18-magent-1.0.0\r\n",
            HEALTHY,
            "too old to tell more",
        ),
    ];
    for (answer, code, part) in others {
        let listener = TcpListener::bind("127.0.0.1:0").expect("some port is free");
        let place = at(listener.local_addr().expect("it is bound").port());
        let other = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("the check comes");
            let mut question = [0; 64];
            let _ = stream.read(&mut question);
            let _ = stream.write_all(answer);
        });
        let (got, line) = check(&place, &PATIENT);
        other.join().expect("no panic");
        assert_eq!(got, code, "{line}");
        assert!(line.contains(part), "{line}");
    }
}

#[test]
fn a_full_proxy_is_not_a_dead_one() {
    let server = Memcached::start();
    let proxy = Magent::front(&[server.port()], &[])
        .args(&["-n", "1"])
        .start();
    // The one that saw it start may not be gone yet.
    let mut only = proxy.client();
    wait_for("the only place is taken", PATIENCE, || {
        let _ = only.try_send(b"mn\r\n");
        let is_in = only
            .until_or_end(b"\r\n")
            .is_ok_and(|line| line == b"MN\r\n");
        if !is_in {
            only = proxy.client();
        }
        is_in
    });
    let (code, line) = check(&at(proxy.port()), &PATIENT);
    assert_eq!(code, HEALTHY, "{line}");
    assert!(line.contains("as many clients as it may"), "{line}");
}

/// A watcher and its file.
struct Watch {
    process: Process,
    path: String,
}

impl Watch {
    fn start(place: &str, path: String, more: &[&str]) -> Watch {
        let mut command = mortal(&magent_binary());
        command.args(["--watch", place, "--track-file", &path]);
        let process = Process::start(command.args(more));
        Watch { process, path }
    }

    /// The number in the file, when there is one.
    fn says(&self) -> Option<i32> {
        let text = std::fs::read_to_string(&self.path).ok()?;
        // Never half a number: it is one digit and a line end, or the file is not there.
        assert_eq!(text.len(), 2, "{text:?}");
        text.trim_end().parse().ok()
    }

    #[track_caller]
    fn wait(&self, number: i32) {
        wait_for(&format!("the file says {number}"), PATIENCE, || {
            self.says() == Some(number)
        });
    }

    /// Changes with every write, as each is a new file.
    fn identity(&self) -> u64 {
        std::fs::metadata(&self.path).expect("it is there").ino()
    }
}

/// Waits until the watcher has asked that often.
#[track_caller]
fn questions(client: &mut common::Client, count: u64) {
    const OWN: u64 = "stats\r\n".len() as u64;
    const WATCHERS: u64 = "stats health\r\nversion\r\n".len() as u64;
    let mut read = || client.stat("bytes_read").parse::<u64>().unwrap();
    let before = read();
    let mut own = 0;
    wait_for("the watcher has asked", PATIENCE, || {
        own += OWN;
        read() >= before + own + count * WATCHERS
    });
}

#[test]
fn the_track_file_follows_the_proxy() {
    let (mut servers, directory) = ([Memcached::start(), Memcached::start()], TempDir::new());
    let [first, second] = servers.each_ref().map(Memcached::port);
    let proxy = Magent::front(&[first, second], &[]).start();
    // Not the default of 300 ms: the machine may be busy, and a pause of the proxy would be taken for a hang.
    let limit = ["--timeout", "5000"];
    let watch = Watch::start(&at(proxy.port()), directory.path("track"), &limit);
    watch.wait(HEALTHY);
    let comm = std::fs::read_to_string(format!("/proc/{}/comm", watch.process.pid()));
    assert_eq!(comm.unwrap(), "magent-watch\n", "no stand-in for the proxy");

    // While nothing changes nothing is written, and one connection is enough.
    let (written, connections) = (watch.identity(), || {
        proxy
            .client()
            .stat("total_connections")
            .parse::<u64>()
            .unwrap()
    });
    let before = connections();
    questions(&mut proxy.client(), 20);
    // Two of them are this test's own.
    assert_eq!(connections(), before + 2);
    assert_eq!(watch.identity(), written);

    proxy.process().freeze();
    let ((), time) = timed(|| watch.wait(SILENT));
    assert!(time < ABOUT_ONE_TIMEOUT, "a hang was seen after {time:?}");
    proxy.process().thaw();
    watch.wait(HEALTHY);

    servers[0].kill();
    watch.wait(DEGRADED);
    servers[0].restart();
    watch.wait(HEALTHY);

    assert_eq!(proxy.end(Signal::SIGTERM).code(), Some(0));
    watch.wait(SILENT);
    for part in [
        "healthy: 2 of 2 servers live",
        "not answering: no answer within 5000 ms",
        "degraded: no live copy of the keys of",
        "not answering: Connection refused",
    ] {
        // Written before the file, but read by another thread.
        wait_for(&format!("the log says {part}"), PATIENCE, || {
            watch.process.stderr().contains(part)
        });
    }
}

#[test]
fn a_watcher_that_ends_leaves_its_last_word() {
    let (server, directory) = (Memcached::start(), TempDir::new());
    let proxy = Magent::front(&[server.port()], &[]).start();
    let mut watch = Watch::start(&at(proxy.port()), directory.path("track"), &PATIENT);
    watch.wait(HEALTHY);
    watch.process.signal(Signal::SIGTERM);
    assert_eq!(watch.process.wait(PATIENCE).code(), Some(0));
    assert_eq!(watch.says(), Some(HEALTHY));
    assert_eq!(std::fs::read_dir(directory.path("")).unwrap().count(), 1);

    let mut watch = Watch::start(&at(Port::claim().number()), watch.path.clone(), &[]);
    watch.wait(SILENT);
    watch.process.signal(Signal::SIGINT);
    assert_eq!(watch.process.wait(PATIENCE).code(), Some(0));
    assert_eq!(watch.says(), Some(SILENT));
}

#[test]
fn what_is_no_failure_moves_nothing() {
    let (server, directory, port) = (Memcached::start(), TempDir::new(), Port::claim());
    let number = port.number().to_string();
    let start = || {
        let mut command = mortal(&magent_binary());
        let place = at(server.port());
        command.args(["-D", "-l", "127.0.0.1", "-p", &number, "-s", &place]);
        let mut proxy = Process::start(&mut command);
        common::process::wait_answering(port.number(), &mut proxy, "magent");
        proxy
    };
    let mut proxy = start();
    let watch = Watch::start(&at(port.number()), directory.path("track"), &PATIENT);
    watch.wait(HEALTHY);
    let written = watch.identity();

    // Restarted within the limit: another connection, the same word.
    proxy.kill();
    let _proxy = start();
    let watched = || {
        let mut client = common::Client::connect(port.number());
        client.stat("curr_connections") == "2"
    };
    wait_for("the watcher is back", PATIENCE, watched);
    assert_eq!((watch.says(), watch.identity()), (Some(HEALTHY), written));

    // A watcher that was stopped itself blames nobody.
    let strict = Watch::start(
        &at(port.number()),
        directory.path("strict"),
        &["--timeout", "3000"],
    );
    strict.wait(HEALTHY);
    let written = strict.identity();
    strict.process.freeze();
    // Time must pass for it, more than its limit.
    std::thread::sleep(Duration::from_secs(4));
    strict.process.thaw();
    // The other one asks as often.
    questions(&mut common::Client::connect(port.number()), 10);
    assert_eq!((strict.says(), strict.identity()), (Some(HEALTHY), written));
}

#[test]
fn a_file_that_cannot_be_written_is_tried_again() {
    let (server, directory) = (Memcached::start(), TempDir::new());
    let proxy = Magent::front(&[server.port()], &[]).start();
    let path = directory.path("later/track");
    let watch = Watch::start(&at(proxy.port()), path, &[]);
    wait_for("the trouble is logged", PATIENCE, || {
        watch.process.stderr().contains("No such file or directory")
    });
    std::fs::create_dir(directory.path("later")).unwrap();
    watch.wait(HEALTHY);
    let text = watch.process.stderr();
    assert_eq!(text.matches("No such file").count(), 1, "{text}");
}
