//! The shell scripts that are shipped: that they are shell, and what they say and do.

use crate::common;

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::{symlink, MetadataExt, PermissionsExt};
use std::process::Command;
use std::time::Duration;

use common::files::TempDir;
use common::process::{mortal, run, Process};
use common::source::{read, repository};
use common::{timed, wait_for, Magent, Memcached, PATIENCE};
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;

#[test]
fn shell_scripts_are_shell() {
    for path in [
        "keepalived/render",
        "keepalived/check_magent.sh",
        "keepalived/notify_magent.sh",
        "keepalived/drain_magent.sh",
        "keepalived/guide/master/magent.sh",
        "keepalived/guide/backup/magent.sh",
        "systemd/packaging/install.sh",
        "systemd/packaging/deb.sh",
        "systemd/packaging/debian/postinst",
        "systemd/packaging/debian/prerm",
        "systemd/packaging/debian/postrm",
    ] {
        let (code, text) = run(Command::new("sh").arg("-n").arg(repository(path)));
        assert_eq!(code, 0, "{path}: {text}");
        assert!(read(path).starts_with("#!/bin/sh\n"), "{path}");
        assert_ne!(
            fs::metadata(repository(path)).expect("there").mode() & 0o111,
            0,
            "{path}: not executable"
        );
    }
}

fn check(arguments: &[&str]) -> (i32, String) {
    run(Command::new(repository("keepalived/check_magent.sh"))
        .args(arguments)
        .env("MAGENT_CHECK", env!("CARGO_BIN_EXE_magent")))
}

#[test]
fn the_check_sees_what_keepalived_has_to_know() {
    let mut server = Memcached::start();
    let proxy = Magent::front(&[server.port()], &[]).start();
    let address = format!("127.0.0.1:{}", proxy.port());
    wait_for("healthy", PATIENCE, || {
        check(&["--strict", &address]).0 == 0
    });
    assert_eq!(check(&[&address, "20000"]).0, 0);

    server.kill();
    wait_for("degraded", PATIENCE, || {
        check(&["--strict", &address]).0 == 1
    });
    let (code, text) = check(&[&address, "20000"]);
    assert_eq!(code, 0, "it answers, so it keeps the address: {text}");

    proxy.process().signal(Signal::SIGSTOP);
    let ((code, text), took) = timed(|| check(&[&address, "200"]));
    assert_eq!(code, 2, "{text}");
    assert!(
        took >= Duration::from_millis(200) && text.lines().count() == 1,
        "{took:?} {text}"
    );
    proxy.process().signal(Signal::SIGCONT);
    proxy.end(Signal::SIGTERM);
    assert_eq!(check(&[&address]).0, 2);
    assert_eq!(check(&["/nonexistent/magent.sock"]).0, 2);
    assert_eq!(check(&["a", "b", "c"]).0, 3);
    assert_eq!(check(&["127.0.0.1:1", "soon"]).0, 3);
}

#[test]
fn notify_leaves_the_state() {
    let directory = TempDir::new();
    let run_directory = directory.path("");
    let notify = |arguments: &[&str]| {
        run(Command::new(repository("keepalived/notify_magent.sh"))
            .args(arguments)
            .env("MAGENT_RUN", &run_directory))
    };
    for state in ["BACKUP", "MASTER", "FAULT", "STOP"] {
        let (code, text) = notify(&["INSTANCE", "magent", state, "254"]);
        assert_eq!((code, text.as_str()), (0, ""));
        let file = fs::read_to_string(directory.path("magent.state")).expect("the file");
        assert!(
            file.starts_with(&format!("{state} 20")) && file.ends_with("Z\n"),
            "{file}"
        );
    }
    let left = fs::read_dir(&run_directory).expect("directory").count();
    assert_eq!(left, 1, "nothing is left beside it");
    assert_eq!(notify(&["INSTANCE", "../evil", "MASTER", "254"]).0, 64);
    assert_eq!(notify(&["INSTANCE"]).0, 64);
    // Never through somebody's link.
    symlink("/etc/passwd", directory.path("other.state")).expect("link");
    assert_eq!(notify(&["INSTANCE", "other", "MASTER", "1"]).0, 0);
    let replaced = fs::symlink_metadata(directory.path("other.state")).expect("there");
    assert!(replaced.is_file());
}

#[test]
fn drain_writes_and_waits_only_where_keepalived_runs() {
    let directory = TempDir::new();
    let (file, pids) = (directory.path("drain"), directory.path("pid"));
    let drain = |arguments: &[&str]| {
        let mut command = Command::new(repository("keepalived/drain_magent.sh"));
        timed(|| run(command.args(arguments).env("KEEPALIVED_PIDS", &pids)))
    };
    let said = || fs::read_to_string(&file).expect("the file");
    assert_eq!(drain(&["on", &file, "60000"]).0 .0, 0);
    assert_eq!(said(), "1\n");
    assert_eq!(drain(&["off", &file]).0 .0, 0);
    assert_eq!(said(), "0\n");
    // keepalived runs, but no address leaves: the whole wait, and no more.
    fs::write(&pids, "1\n").expect("written");
    let ((code, text), took) = drain(&["on", &file, "200"]);
    assert_eq!((code, text.as_str()), (0, ""));
    assert!(took >= Duration::from_millis(200), "{took:?}");
    for wrong in [&["up"][..], &[], &["on", &file, "soon"]] {
        assert_eq!(drain(wrong).0 .0, 64);
    }
    assert_eq!(drain(&["on", "/nonexistent/drain"]).0 .0, 71);
}

/// Where nothing can be installed, one line says all that is missing, and what to type.
#[test]
fn what_is_missing_is_said_in_one_line() {
    let directory = TempDir::new();
    let bin = directory.path("bin");
    fs::create_dir(&bin).expect("made");
    for tool in ["sh", "sed", "tr", "cat", "dirname", "cut", "grep"] {
        let (_, path) = run(Command::new("sh").args(["-c", &format!("command -v {tool}")]));
        symlink(path.trim(), format!("{bin}/{tool}")).expect("link");
    }
    // Not root. No packages are known, and none may be asked for.
    let fake = |name: &str, text: &str| {
        let path = format!("{bin}/{name}");
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("written");
        fs::set_permissions(path, PermissionsExt::from_mode(0o755)).expect("executable");
    };
    fake("id", "echo 1000");
    fake("apt-get", "echo NEVER");
    for (command, also, not) in [
        ("run", "memcached", "valgrind"),
        ("test", "valgrind", "nonsense"),
    ] {
        let (code, text) = run(Command::new(format!("{bin}/sh"))
            .arg(repository("tests/scripts/deps.sh"))
            .arg(command)
            .env_clear()
            .envs([("PATH", &bin), ("HOME", &bin)]));
        assert_eq!((code, text.lines().count()), (1, 1), "{text}");
        assert_eq!(text.matches("apt-get install").count(), 1, "{text}");
        for word in ["rustc", "cargo", "gcc", "iproute2", also] {
            assert!(text.contains(&format!(" {word}")), "{word}: {text}");
        }
        assert!(!text.contains("NEVER") && !text.contains(not), "{text}");
    }
}

/// The end of `make run` is also the end of what the drill started again as a daemon.
#[test]
fn the_end_of_the_drill_ends_what_it_started_again() {
    let directory = TempDir::new();
    let said = directory.path("said");
    let mut drill = Process::start(
        // A shell ignores Ctrl-C for what it starts in the background, perhaps these tests, and so would the drill.
        mortal("env")
            .args(["--default-signal=INT", "sh"])
            .args(["-c", "exec \"$0\" \"$1\" 23700 >\"$2\""])
            .arg(repository("tests/scripts/run.sh"))
            .args([env!("CARGO_BIN_EXE_magent"), &said]),
    );
    let text = || fs::read_to_string(&said).unwrap_or_default();
    wait_for("the drill runs", PATIENCE, || text().contains("Ctrl-C"));
    let text = text();
    let word = |line: &str, after: &str| {
        let line = text.lines().find(|known| known.contains(line)).expect(line);
        let (_, rest) = line.split_once(after).expect("a word");
        rest.split_whitespace().next().expect("a word").to_owned()
    };
    let port: u16 = word("primary 1  ", "127.0.0.1:").parse().expect("a port");
    let pid = word("primary 1  ", "pid ").parse().expect("a pid");
    let accepts = || TcpStream::connect(("127.0.0.1", port)).is_ok();
    kill(Pid::from_raw(pid), Signal::SIGTERM).expect("it runs");
    wait_for("primary 1 ended", PATIENCE, || !accepts());

    let (_, options) = text.split_once("    memcached ").expect("the line");
    let options = options.lines().next().expect("the line");
    let options: Vec<_> = options
        .split(" -P")
        .next()
        .expect("options")
        .split(' ')
        .collect();
    assert!(options.contains(&"-d"), "{options:?}");
    let (code, text) = run(Command::new("memcached").args(options));
    assert_eq!(code, 0, "{text}");
    wait_for("primary 1 is back", PATIENCE, accepts);

    drill.signal(Signal::SIGINT);
    drill.wait(PATIENCE);
    assert!(!accepts(), "it still runs");
}
