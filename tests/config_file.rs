//! `-c`: pools from a file, its test, and where keys go, with the real program.

use crate::common;

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use common::files::TempDir;
use common::magent::{magent_binary, run_magent, run_magent_output};
use common::process::{mortal, wait_answering, Process};
use common::{Client, Memcached, Port};
use nix::sys::signal::Signal;

fn write(directory: &TempDir, name: &str, text: &str) -> String {
    let path = directory.path(name);
    std::fs::write(&path, text).unwrap();
    path
}

fn output(arguments: &[&str]) -> (i32, String, String) {
    let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
    run_magent_output(&arguments)
}

const GOOD: &str = "a:\n  listen: 127.0.0.1:1\n  servers: [s:1:1]\nb:\n  listen: 127.0.0.1:2\n  servers: [s:1:1]\n";

#[test]
fn a_file_is_tested_without_serving() {
    let directory = TempDir::new();
    let good = write(&directory, "good.yml", GOOD);
    let said = format!("magent: {good}: 2 pools, nothing is wrong\n");
    for test in [
        &["-t", "-c", &good][..],
        &["--test-conf", "--conf-file", &good],
    ] {
        assert_eq!(output(test), (0, said.clone(), String::new()));
    }
    let bad = "a:\n  listen: 127.0.0.1:1\n  hash: fnvla_64\n  servers:\n   - this list has servers\n   - s:1:1\n  timout: 5\n";
    let bad = write(&directory, "bad.yml", bad);
    let wrong = [
        "3:9: 'fnvla_64': hash: not one of one_at_a_time, md5, crc16, crc32, crc32a, fnv1_64, fnv1a_64, fnv1_32, fnv1a_32, \
         hsieh, murmur, jenkins (the nearest one is fnv1a_64)",
        "5:6: 'this list has servers': servers: 'has' behind the name: a name is one word; a remark begins with '#'",
        "7:3: 'timout': unknown key (the nearest one is timeout)",
    ];
    let wrong: String = wrong.map(|line| format!("magent: {bad}:{line}\n")).concat();
    assert_eq!(
        output(&["-t", "-c", &bad]),
        (1, String::new(), wrong.clone())
    );
    // A start says the same, also one that would go to the background.
    assert_eq!(run_magent(&["-c", &bad, "-D"]), (64, wrong.clone()));
    assert_eq!(run_magent(&["-c", &bad]), (64, wrong));
    let missing = directory.path("missing.yml");
    let text = format!("magent: -c {missing}: No such file or directory\n");
    assert_eq!(run_magent(&["-c", &missing]), (71, text.clone()));
    assert_eq!(run_magent(&["-t", "-c", &missing]), (1, text));
    assert_eq!(
        run_magent(&["-t"]),
        (64, "magent: -t: which file? (needs -c FILE)\n".into())
    );
}

#[test]
fn options_that_belong_into_the_file_are_refused_beside_it() {
    let directory = TempDir::new();
    let good = write(&directory, "good.yml", GOOD);
    for (arguments, wrong) in [
        (&["-s", "22222"][..], "-s: not with -c (servers are in the file; instead of twemproxy's port for statistics there is --admin ADDR:PORT)"),
        (&["-k"], "-k: not with -c (the pools are in the file)"),
        (&["--eject"], "--eject: not with -c (the pools are in the file)"),
        (&["-d", "-D"], "-d: not with -D"),
        (&["-m", "512"], "-m: not needed, buffers are as large as what is in them (see --memory-limit); leave it out"),
        (&["-p", "/run/x.pid"], "-p: not with -c (where to listen is in the file; for a pid file there is --pidfile FILE)"),
        (&["--route"], "--route: which keys? (they stand behind all options)"),
    ] {
        let all: Vec<&str> = ["-c", &good].into_iter().chain(arguments.iter().copied()).collect();
        assert_eq!(run_magent(&all), (64, format!("magent: {wrong}\n")));
    }
}

#[test]
fn where_keys_go() {
    let directory = TempDir::new();
    let good = write(&directory, "good.yml", GOOD);
    let line = |pool, key, hash: u32| format!("key={key} pool={pool} hash={hash} primary=s:1\n");
    let expect = line("a", "x", 2_248_283_911) + &line("b", "x", 2_248_283_911);
    let (code, out, _) = output(&["-c", &good, "--route", "x"]);
    assert_eq!((code, out), (0, expect));
    let (code, out, _) = output(&[
        "-s", "a", "-s", "b", "-b", "c", "-b", "d", "--route", "key1", "key2",
    ]);
    let expect = "key=key1 pool=- hash=2090432895 primary=b:11211 backups=d:11211,c:11211\n\
                  key=key2 pool=- hash=2090432896 primary=a:11211 backups=c:11211,d:11211\n";
    assert_eq!((code, out.as_str()), (0, expect));
}

#[test]
fn pools_stand_beside_each_other_in_one_process() {
    let servers = [Memcached::start(), Memcached::start(), Memcached::start()];
    let [first, second, backup] = servers.each_ref().map(Memcached::port);
    let directory = TempDir::new();
    let ports = [Port::claim(), Port::claim()];
    let [one, two] = ports.each_ref().map(Port::number);
    let socket = directory.path("m.sock");
    let text = format!(
        "one:\n  listen: [127.0.0.1:{one}, {socket} 0600]\n  servers: ['127.0.0.1:{first}:1']\n  backups: ['127.0.0.1:{backup}']\n  \
         client_connections: 2\n  timeout: 5000\n\
         two:\n  listen: 127.0.0.1:{two}\n  timeout: 5000\n  servers:\n  - 127.0.0.1:{second}:1\n"
    );
    let file = write(&directory, "magent.yml", &text);
    let mut magent = Process::start(mortal(&magent_binary()).args(["-v", "-c", &file]));
    wait_answering(one, &mut magent, "magent");
    wait_answering(two, &mut magent, "magent");

    let mut ours = Client::connect(one);
    ours.set("k", "one");
    Client::connect(two).set("k", "two");
    let held = servers
        .each_ref()
        .map(|server| server.client().get("k").unwrap());
    assert_eq!(held, ["one", "two", "one"]);
    let mode = std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);

    // The limit is the pool's own.
    let mut second = Client::connect(one);
    assert_eq!(second.get("k").as_deref(), Some("one"));
    let mut third = Client::connect(one);
    assert_eq!(third.line(), b"SERVER_ERROR too many open connections\r\n");
    let mut others: Vec<Client> = (0..3).map(|_| Client::connect(two)).collect();
    for other in &mut others {
        assert_eq!(other.get("k").as_deref(), Some("two"));
    }
    // A pool's server is no concern of the other's.
    let mut servers = servers;
    servers[1].kill();
    assert_eq!(ours.get("k").as_deref(), Some("one"));
    // The same file once more is a magent that runs already.
    assert_eq!(run_magent(&["-c", &file]).0, 0);
    magent.signal(Signal::SIGTERM);
    assert!(magent.wait(common::PATIENCE).success());
    assert!(!std::path::Path::new(&socket).exists());
}

#[test]
fn a_server_may_be_a_unix_socket() {
    let directory = TempDir::new();
    let socket = directory.path("memcached.sock");
    let user = if nix::unistd::geteuid().is_root() {
        &["-u", "root"][..]
    } else {
        &[]
    };
    let server = Process::start(mortal("memcached").args(["-s", &socket]).args(user));
    let port = Port::claim();
    let text = format!(
        "p: {{listen: '127.0.0.1:{}', timeout: 5000, servers: ['{socket}:1 local']}}\n",
        port.number()
    );
    let file = write(&directory, "magent.yml", &text);
    let mut magent = Process::start(mortal(&magent_binary()).args(["-v", "-c", &file]));
    wait_answering(port.number(), &mut magent, "magent");
    let mut client = Client::connect(port.number());
    common::wait_for("the server is up", common::PATIENCE, || {
        client.stat("magent_servers_up") == "1"
    });
    client.set("k", "v");
    assert_eq!(client.get("k").as_deref(), Some("v"));
    drop(server);
    common::wait_for("it is down", common::PATIENCE, || {
        client.stat("magent_servers_up") == "0"
    });
}

/// `-d`, `-o` and `-v N` as twemproxy has them.
#[test]
fn a_daemon_as_twemproxy_starts_it() {
    let server = Memcached::start();
    let directory = TempDir::new();
    let port = Port::claim();
    let text = format!(
        "p: {{listen: '127.0.0.1:{}', timeout: 5000, servers: ['127.0.0.1:{}:1']}}\n",
        port.number(),
        server.port()
    );
    let file = write(&directory, "nutcracker.yml", &text);
    let (log, pid) = (directory.path("log"), directory.path("pid"));
    let status = Command::new(magent_binary())
        .args(["-d", "-v", "6", "-c", &file, "-o", &log, "--pid-file", &pid])
        .status()
        .unwrap();
    assert!(status.success());
    let daemon = common::files::Daemon::of(&pid);
    let mut client = Client::connect(port.number());
    client.set("k", "v");
    common::wait_for("the log has its line", common::PATIENCE, || {
        let text = std::fs::read_to_string(&log);
        text.unwrap_or_default().contains("serving clients")
    });
    daemon.signal(Signal::SIGTERM);
    common::wait_for("the daemon ends", common::PATIENCE, || !daemon.runs());
}
