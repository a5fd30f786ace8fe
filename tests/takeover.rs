//! `--takeover`: a new process takes the place of a running one, and no client is refused.

use crate::common;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;
use std::thread;

use common::files::TempDir;
use common::magent::{magent_binary, run_magent};
use common::process::{mortal, wait_answering, Process};
use common::{wait_for, Client, Memcached, Port, PATIENCE};
use nix::sys::signal::Signal;

struct Place {
    directory: TempDir,
    port: Port,
    admin: Port,
    server: Memcached,
}

impl Place {
    fn new() -> Place {
        Place {
            directory: TempDir::new(),
            port: Port::claim(),
            admin: Port::claim(),
            server: Memcached::start(),
        }
    }

    fn options(&self) -> Vec<String> {
        let words = format!(
            "-v -l 127.0.0.1 -p {} -f {} -s 127.0.0.1:{} --pidfile {} --drain-ms 60000 --timeout 5000 --admin 127.0.0.1:{}",
            self.port.number(),
            self.directory.path("m.sock"),
            self.server.port(),
            self.directory.path("pid"),
            self.admin.number(),
        );
        words.split(' ').map(str::to_owned).collect()
    }

    fn start(&self, more: &[&str]) -> Process {
        let mut process = Process::start(mortal(&magent_binary()).args(self.options()).args(more));
        wait_answering(self.port.number(), &mut process, "magent");
        process
    }

    fn pid(&self) -> u32 {
        let text = std::fs::read_to_string(self.directory.path("pid")).unwrap_or_default();
        text.trim().parse().unwrap_or_default()
    }
}

fn wait_served_by(place: &Place, process: &Process) {
    wait_for("the newcomer has the pid file", PATIENCE, || {
        place.pid() == process.pid()
    });
}

#[test]
fn nobody_is_refused_and_those_who_are_there_finish() {
    let place = Place::new();
    let mut old = place.start(&[]);
    let number = place.port.number();
    let mut staying = Client::connect(number);
    staying.set("k", "v");
    let stop = Arc::new(AtomicBool::new(false));
    let done = Arc::new(AtomicU64::new(0));
    let worker = |n: usize| {
        let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
        thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                // A connection for each request.
                let mut client = Client::try_connect(number).expect("nobody is refused");
                client.set(&format!("w{n}"), "x");
                assert_eq!(client.get("k").as_deref(), Some("v"));
                done.fetch_add(1, Ordering::Relaxed);
            }
        })
    };
    let workers: Vec<_> = (0..4).map(worker).collect();
    let more = |count: u64| {
        let before = done.load(Ordering::Relaxed);
        wait_for("clients get on", PATIENCE, || {
            done.load(Ordering::Relaxed) > before + count
        });
    };
    more(50);
    let mut new = place.start(&["--takeover"]);
    wait_served_by(&place, &new);
    more(200);
    // The client of the old one is served by the old one, for as long as it stays.
    assert_eq!(staying.get("k").as_deref(), Some("v"));
    assert_eq!(staying.stat("pid"), old.pid().to_string());
    // It is told to go a moment after the pid file is written.
    wait_for("the old one accepts nobody any more", PATIENCE, || {
        old.stderr().contains("another magent has taken over")
    });
    assert_eq!(Client::connect(number).stat("pid"), new.pid().to_string());
    assert!(old.ended().is_none());
    let mut page = Client::connect(place.admin.number());
    page.send(b"GET /healthz HTTP/1.0\r\n\r\n");
    assert_eq!(
        page.line(),
        b"HTTP/1.1 200 OK\r\n",
        "the newcomer has that place, too"
    );
    drop(staying);
    assert!(
        old.wait(PATIENCE).success(),
        "with its last client the old one ends"
    );
    // Once more, and the sockets, the mark and the pid file are the third one's.
    let third = place.start(&["--takeover"]);
    wait_served_by(&place, &third);
    more(50);
    stop.store(true, Ordering::Relaxed);
    for worker in workers {
        worker.join().expect("nobody was refused");
    }
    assert!(new.wait(PATIENCE).success());
    let mut local =
        std::os::unix::net::UnixStream::connect(place.directory.path("m.sock")).unwrap();
    std::io::Write::write_all(&mut local, b"get k\r\n").unwrap();
    let mut reply = [0; 21];
    std::io::Read::read_exact(&mut local, &mut reply).unwrap();
    assert_eq!(&reply, b"VALUE k 0 1\r\nv\r\nEND\r\n");
    drop(local);
    let options = place.options();
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    assert_eq!(run_magent(&options).0, 0, "a magent runs there already");
    let mut third = third;
    third.signal(Signal::SIGTERM);
    assert!(third.wait(PATIENCE).success());
    assert!(!std::path::Path::new(&place.directory.path("pid")).exists());
    assert!(!std::path::Path::new(&place.directory.path("m.sock")).exists());
}

#[test]
fn without_a_magent_it_is_an_ordinary_start() {
    let place = Place::new();
    let process = place.start(&["--takeover"]);
    assert_eq!(place.pid(), process.pid());
}

/// A newcomer that fails leaves everything as it was.
#[test]
fn a_newcomer_that_fails_changes_nothing() {
    let place = Place::new();
    let mut old = place.start(&[]);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let other = taken.local_addr().unwrap().port();
    let text = format!(
        "a: {{listen: '127.0.0.1:{}', servers: [s:1:1]}}\nb: {{listen: '127.0.0.1:{other}', servers: ['127.0.0.1:1:1']}}\n",
        place.port.number()
    )
    .replace("[s:1:1]", "['127.0.0.1:1:1']");
    let file = place.directory.path("magent.yml");
    std::fs::write(&file, text).unwrap();
    let pidfile = place.directory.path("pid");
    let (code, said) = run_magent(&["-D", "-c", &file, "--takeover", "--pidfile", &pidfile]);
    assert_eq!(code, 71, "{said}");
    assert!(said.contains("already in use"), "{said}");
    let mut client = Client::connect(place.port.number());
    client.set("k", "v");
    assert_eq!(client.stat("pid"), old.pid().to_string());
    assert_eq!(place.pid(), old.pid());
    assert!(std::path::Path::new(&place.directory.path("m.sock")).exists());
    // And the next one can.
    drop(client);
    let new = place.start(&["--takeover"]);
    wait_served_by(&place, &new);
    assert!(old.wait(PATIENCE).success());
}

/// Sockets are handed to root and to the same user, to nobody else.
#[test]
fn another_user_gets_nothing() {
    if !nix::unistd::geteuid().is_root() {
        common::skipped("needs root");
        return;
    }
    let place = Place::new();
    let old = place.start(&[]);
    let mut command = mortal("setpriv");
    command.args([
        "--reuid",
        "65534",
        "--clear-groups",
        "--no-new-privs",
        &magent_binary(),
    ]);
    command.args(place.options()).arg("--takeover");
    let mut stranger = Process::start(&mut command);
    let status = stranger.wait(PATIENCE);
    wait_for("stderr is read", PATIENCE, || stranger.stderr_is_whole());
    assert_eq!(status.code(), Some(71), "{}", stranger.stderr());
    assert!(
        stranger.stderr().contains("hands nothing over"),
        "{}",
        stranger.stderr()
    );
    assert_eq!(
        Client::connect(place.port.number()).stat("pid"),
        old.pid().to_string()
    );
}
