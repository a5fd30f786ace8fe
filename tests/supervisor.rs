//! Those who start magent: systemd, by its sockets and its watchdog, and a script of keepalived's.

use crate::common;

use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::files::{Daemon, TempDir};
use common::magent::magent_binary;
use common::process::{mortal, Process};
use common::{timed, wait_for, Client, Magent, Memcached, Port, PATIENCE};
use nix::sys::signal::Signal;

/// What `sysexits.h` calls EX_OSERR.
const SYSTEM: i32 = 71;

/// The end of a notify socket that systemd has.
struct Ear {
    socket: UnixDatagram,
    heard: Vec<String>,
}

impl Ear {
    fn new(socket: UnixDatagram) -> Ear {
        socket.set_nonblocking(true).unwrap();
        Ear {
            socket,
            heard: Vec::new(),
        }
    }

    /// Takes what has come; the lines of all datagrams.
    fn listen(&mut self) -> &[String] {
        let mut buffer = [0; 4096];
        while let Ok(count) = self.socket.recv(&mut buffer) {
            let text = String::from_utf8_lossy(&buffer[..count]);
            self.heard.extend(text.lines().map(str::to_owned));
        }
        &self.heard
    }

    #[track_caller]
    fn wait(&mut self, line: &str) {
        wait_for(&format!("systemd hears {line}"), PATIENCE, || {
            self.listen().iter().any(|heard| heard == line)
        });
    }

    fn kicks(&mut self) -> usize {
        let lines = self.listen().iter();
        lines.filter(|line| *line == "WATCHDOG=1").count()
    }
}

/// The proxy in the foreground in front of that server.
fn foreground(port: &Port, server: &Memcached) -> Command {
    let mut command = mortal(&magent_binary());
    let (port, server) = (port.number().to_string(), server.port());
    command.args(["-D", "-l", "127.0.0.1", "-p", &port]);
    command.args(["-s", &format!("127.0.0.1:{server}")]);
    command
}

#[test]
fn systemd_hears_when_it_is_ready_and_when_it_ends() {
    let (mut server, directory, port) = (Memcached::start(), TempDir::new(), Port::claim());
    let path = directory.path("notify");
    let name = format!("magent-test-notify-{}", port.number());
    let abstract_name = SocketAddr::from_abstract_name(&name).unwrap();
    let places = [
        (UnixDatagram::bind(&path).unwrap(), path),
        (
            UnixDatagram::bind_addr(&abstract_name).unwrap(),
            format!("@{name}"),
        ),
    ];
    for (socket, place) in places {
        let mut ear = Ear::new(socket);
        let mut command = foreground(&port, &server);
        let mut proxy = Process::start(command.env("NOTIFY_SOCKET", &place));
        ear.wait("READY=1");
        // No waiting here: it must accept already.
        let mut client = Client::connect(port.number());
        assert_eq!(client.get("key1"), None);
        ear.wait("STATUS=serving: 1 of 1 servers live");
        server.kill();
        ear.wait("STATUS=serving: 0 of 1 servers live");
        server.restart();
        proxy.signal(Signal::SIGTERM);
        assert_eq!(proxy.wait(PATIENCE).code(), Some(0));
        ear.wait("STOPPING=1");
        let ready = ear.heard.iter().filter(|line| *line == "READY=1");
        assert_eq!(ready.count(), 1, "{:?}", ear.heard);
        assert_eq!(ear.kicks(), 0, "no watchdog was asked for");
    }
}

#[test]
fn a_proxy_that_cannot_listen_is_never_ready() {
    let (server, directory, port) = (Memcached::start(), TempDir::new(), Port::claim());
    let path = directory.path("notify");
    let mut ear = Ear::new(UnixDatagram::bind(&path).unwrap());
    let _stranger = TcpListener::bind(("127.0.0.1", port.number())).unwrap();
    let mut proxy = Process::start(foreground(&port, &server).env("NOTIFY_SOCKET", &path));
    assert_eq!(proxy.wait(PATIENCE).code(), Some(SYSTEM));
    assert_eq!(ear.listen(), [""; 0]);
}

#[test]
fn the_loop_itself_keeps_the_watchdog_quiet() {
    let (server, directory, port) = (Memcached::start(), TempDir::new(), Port::claim());
    let path = directory.path("notify");
    let mut ear = Ear::new(UnixDatagram::bind(&path).unwrap());
    let mut command = foreground(&port, &server);
    command.env("NOTIFY_SOCKET", &path);
    let proxy = Process::start(command.env("WATCHDOG_USEC", "200000"));
    let begin = Instant::now();
    ear.wait("READY=1");
    wait_for("it is kicked again and again", PATIENCE, || {
        ear.kicks() >= 10
    });
    // Twice in each 200 ms at most, also while clients keep the loop busy; the first at once.
    let kicks = ear.kicks();
    let most = begin.elapsed().as_millis() as usize / 100 + 1;
    assert!(kicks <= most, "{kicks} kicks, not {most}");
    proxy.freeze();
    let before = ear.kicks();
    // Time must pass to see that nothing is said in it.
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(ear.kicks(), before, "a stopped loop says nothing");
    proxy.thaw();
    wait_for("it goes on", PATIENCE, || ear.kicks() > before);

    // Meant for another process it is not for this one.
    let other = Port::claim();
    let mut command = foreground(&other, &server);
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_PID", "1");
    drop(proxy);
    ear.listen();
    ear.heard.clear();
    let _proxy = Process::start(command.env("WATCHDOG_USEC", "20000"));
    ear.wait("STATUS=serving: 1 of 1 servers live");
    assert_eq!(ear.kicks(), 0);
}

#[test]
fn a_watcher_is_ready_when_the_file_is_written() {
    let (server, directory) = (Memcached::start(), TempDir::new());
    let proxy = Magent::front(&[server.port()], &[]).start();
    let (path, track) = (directory.path("notify"), directory.path("track"));
    let mut ear = Ear::new(UnixDatagram::bind(&path).unwrap());
    let place = format!("127.0.0.1:{}", proxy.port());
    let mut command = mortal(&magent_binary());
    command.args(["--watch", &place, "--track-file", &track]);
    command.args(["--timeout", "20000"]);
    command
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "100000");
    let watch = Process::start(&mut command);
    ear.wait("READY=1");
    assert_eq!(std::fs::read_to_string(&track).unwrap(), "0\n");
    ear.wait(&format!("STATUS={place}: healthy: 1 of 1 servers live"));
    wait_for("it is kicked", PATIENCE, || ear.kicks() > 5);
    watch.signal(Signal::SIGTERM);
    ear.wait("STOPPING=1");
}

#[test]
fn a_process_in_the_background_says_nothing() {
    let (server, directory, port) = (Memcached::start(), TempDir::new(), Port::claim());
    let (path, pidfile) = (directory.path("notify"), directory.path("pid"));
    let mut ear = Ear::new(UnixDatagram::bind(&path).unwrap());
    let mut command = mortal(&magent_binary());
    let number = port.number().to_string();
    command.args(["-l", "127.0.0.1", "-p", &number, "--pidfile", &pidfile]);
    command.args(["-s", &format!("127.0.0.1:{}", server.port())]);
    command
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "20000");
    let mut parent = Process::start(&mut command);
    assert_eq!(parent.wait(PATIENCE).code(), Some(0));
    let daemon = Daemon::of(&pidfile);
    let mut client = Client::connect(port.number());
    assert_eq!(client.get("key1"), None);
    daemon.signal(Signal::SIGTERM);
    wait_for("the daemon has ended", PATIENCE, || !daemon.runs());
    assert_eq!(ear.listen(), [""; 0]);
}

/// Starts the proxy with a socket that was opened for it, as systemd passes it: descriptor 3, by the environment.
fn with_socket(socket: OwnedFd, arguments: &str) -> Process {
    let script = format!(
        "exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec '{}' {arguments}",
        magent_binary()
    );
    Process::start_with(mortal("sh").args(["-c", &script]).stdin(socket))
}

#[test]
fn a_socket_of_systemd_is_taken_over() {
    let (server, directory) = (Memcached::start(), TempDir::new());
    let server = format!("127.0.0.1:{}", server.port());
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = tcp.local_addr().unwrap().port();
    // One who came before magent is served too.
    let mut early = Client::connect(port);
    early.send("mn\r\n");
    let arguments = format!("-D -l 127.0.0.1 -p {port} -s {server}");
    let mut proxy = with_socket(tcp.into(), &arguments);
    assert_eq!(early.line(), b"MN\r\n");
    assert_eq!(Client::connect(port).get("key1"), None);
    proxy.signal(Signal::SIGTERM);
    assert_eq!(proxy.wait(PATIENCE).code(), Some(0));

    let path = directory.path("socket");
    let unix = UnixListener::bind(&path).unwrap();
    let mut proxy = with_socket(unix.into(), &format!("-D -p 0 -f {path} -s {server}"));
    let stream = UnixStream::connect(&path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    converse(stream);
    proxy.signal(Signal::SIGTERM);
    assert_eq!(proxy.wait(PATIENCE).code(), Some(0));
    assert!(
        std::path::Path::new(&path).exists(),
        "the file is systemd's"
    );
}

#[track_caller]
fn converse(mut stream: UnixStream) {
    use std::io::{Read, Write};
    stream.write_all(b"mn\r\nquit\r\n").unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    assert_eq!(reply, "MN\r\n");
}

#[test]
fn a_socket_that_no_option_asks_for_is_an_error() {
    let server = "-s 127.0.0.1:1";
    let own = Port::claim();
    for (arguments, part) in [
        (
            "-D -l 127.0.0.1 -p OWN",
            "asked for by none of -l, -p and -f",
        ),
        // The background has other process ids than systemd knows.
        ("-l 127.0.0.1 -p PASSED", "needs -D"),
        // All addresses are another place than one of them.
        ("-D -p PASSED", "asked for by none of -l, -p and -f"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port().to_string();
        let arguments = arguments.replace("PASSED", &port);
        let arguments = arguments.replace("OWN", &own.number().to_string());
        let mut proxy = with_socket(listener.into(), &format!("{arguments} {server}"));
        assert_eq!(proxy.wait(PATIENCE).code(), Some(SYSTEM), "{arguments}");
        wait_for("stderr is read", PATIENCE, || proxy.stderr_is_whole());
        let text = proxy.stderr();
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.contains("LISTEN_FDS") && text.contains(part), "{text}");
    }
    let (connected, _other) = UnixStream::pair().unwrap();
    let own = own.number();
    let arguments = format!("-D -l 127.0.0.1 -p {own} {server}");
    let mut proxy = with_socket(connected.into(), &arguments);
    assert_eq!(proxy.wait(PATIENCE).code(), Some(SYSTEM));
    wait_for("stderr is read", PATIENCE, || proxy.stderr_is_whole());
    let text = proxy.stderr();
    assert!(text.contains("not a listening stream socket"), "{text}");
}

#[test]
fn what_came_before_the_signal_is_answered() {
    let server = Memcached::start();
    let mut proxy = Magent::front(&[server.port()], &[])
        .args(&["--drain-ms", "20000", "--timeout", "20000"])
        .start();
    let mut known = proxy.client();
    known.set("key1", "value");
    let mut idle = proxy.client();
    idle.set("key2", "value");
    // All of this is in the kernel when the proxy looks again: which of it it hears of first is left to chance.
    proxy.process().freeze();
    let mut new = proxy.client();
    known.send("get key1\r\n");
    new.send("set key3 0 0 5\r\nvalue\r\nget key3\r\n");
    proxy.begin_end();
    proxy.process().thaw();
    let value = |key: &str| format!("VALUE {key} 0 5\r\nvalue\r\nEND\r\n");
    assert_eq!(known.read_to_end(), value("key1").as_bytes());
    let expect = format!("STORED\r\n{}", value("key3"));
    assert_eq!(new.read_to_end(), expect.as_bytes());
    assert_eq!(idle.read_to_end(), b"");
    assert_eq!(proxy.wait_end().code(), Some(0));
}

#[test]
fn a_client_that_was_held_back_gets_all_its_answers() {
    let server = Memcached::start();
    let mut proxy = Magent::front(&[server.port()], &[])
        .args(&["--drain-ms", "20000", "--timeout", "20000"])
        .start();
    let mut client = proxy.client();
    client.set("key1", &"x".repeat(100_000));
    // So many replies wait that it is not read any more; some of its requests are read and not taken in.
    client.send("get key1\r\n".repeat(400));
    let mut other = proxy.client();
    let mut last = String::new();
    wait_for("it is held back", PATIENCE, || {
        let now = other.stat("cmd_get");
        std::mem::replace(&mut last, now.clone()) == now && now != "0"
    });
    proxy.begin_end();
    let reply = client.read_to_end();
    let one = "VALUE key1 0 100000\r\n".len() + 100_000 + "\r\nEND\r\n".len();
    assert_eq!(reply.len(), 400 * one);
    assert_eq!(proxy.wait_end().code(), Some(0));
}

/// The field of /proc/PID/stat, counted from 0 behind the name.
fn stat_field(pid: i32, field: usize) -> i32 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let rest = stat.rsplit(')').next().unwrap_or_default();
    let text = rest.split_whitespace().nth(field).unwrap_or_default();
    text.parse().unwrap_or_default()
}

#[test]
fn the_last_line_of_a_keepalived_script() {
    const GROUP: usize = 2;
    const SESSION: usize = 3;
    let (server, directory, port) = (Memcached::start(), TempDir::new(), Port::claim());
    let pidfile = directory.path("pid");
    let user = match nix::unistd::Uid::effective().is_root() {
        true => "-u root ",
        false => "",
    };
    // As the guides have it: an address that is not here yet, every two seconds. Whoever runs the script waits until
    // nobody holds its stdout and stderr any more, as `output` does.
    let line = format!(
        "'{}' {user}-n 512 -l 192.0.2.66 -p {} -s 127.0.0.1:{} --pidfile {pidfile}",
        magent_binary(),
        port.number(),
        server.port()
    );
    let run = || {
        let mut command = Command::new("sh");
        command.args(["-c", &line]).stdin(Stdio::null());
        // keepalived is a service of systemd's itself, and its scripts have its environment.
        command.env("NOTIFY_SOCKET", "/nonexistent/notify");
        let (output, time) = timed(|| command.output().expect("sh runs"));
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert_eq!(
            (output.status.code(), said.as_str()),
            (Some(0), ""),
            "{line}"
        );
        // The guides' interval is 2 s; the rest is for a busy machine.
        assert!(time < PATIENCE / 2, "it returned after {time:?}");
    };
    run();
    let daemon = Daemon::of(&pidfile);
    assert_eq!(daemon.name(), "magent");
    for descriptor in 0..=2 {
        let target = daemon.descriptor(descriptor);
        assert_eq!(target.to_str(), Some("/dev/null"), "{descriptor}");
    }
    let own = std::process::id() as i32;
    for field in [GROUP, SESSION] {
        let theirs = stat_field(daemon.pid, field);
        assert_ne!(
            theirs,
            stat_field(own, field),
            "signals to the script miss it"
        );
        assert_ne!(theirs, 0);
    }
    for _ in 0..3 {
        run();
    }
    // Not even a hung one makes the script fail: that is what checks are for.
    daemon.signal(Signal::SIGSTOP);
    run();
    daemon.signal(Signal::SIGCONT);
    assert_eq!(Daemon::of(&pidfile).pid, daemon.pid);
    assert!(TcpStream::connect(("127.0.0.1", port.number())).is_err());
    daemon.signal(Signal::SIGTERM);
    wait_for("the daemon has ended", PATIENCE, || !daemon.runs());
}
