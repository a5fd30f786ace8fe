//! Real clients, in their pinned versions, against magent over real memcached: their ordinary life, then the same round again
//! and again while the primary is killed and comes back, then their life once more.
//!
//! `fetch.sh` brings the packages (`make deps` runs it). What could not be fetched is skipped aloud. A script takes
//! `PORT SECONDS [PROTOCOL]`, says `looping` when its life was well, and ends with
//! `rounds=N errors=N wrong=N first=...`: how many rounds there were, in how many the client saw an error, in how many
//! something else than what had been acknowledged.

mod tools;

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::common::process::mortal;
use crate::common::{skipped, Magent, Memcached};

/// How long the rounds go on. The primary is killed in them and has time to come back.
const SECONDS: &str = "1.6";

/// Where `fetch.sh` has put what is not installed in the system.
fn fetched(path: &str) -> PathBuf {
    let variable = |name| std::env::var_os(name).map(PathBuf::from);
    let cache = || variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")));
    let home = variable("MAGENT_CACHE").or_else(|| Some(cache()?.join("magent")));
    home.unwrap_or_default().join("clients").join(path)
}

/// A file of this folder.
fn script(name: &str) -> String {
    format!("{}/tests/clients/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// Two primaries, a backup, and magent.
struct Service {
    servers: Vec<Memcached>,
    proxy: Magent,
}

impl Service {
    fn start() -> Service {
        let servers: Vec<_> = (0..3).map(|_| Memcached::start()).collect();
        let proxy = Magent::front(
            &[servers[0].port(), servers[1].port()],
            &[servers[2].port()],
        )
        .start();
        Service { servers, proxy }
    }

    /// Kills the first primary, goes on without it for a while, and starts it again.
    fn lose_and_regain(&mut self) {
        std::thread::sleep(Duration::from_millis(300));
        self.servers[0].kill();
        std::thread::sleep(Duration::from_millis(400));
        self.servers[0].restart();
    }
}

/// True, and said aloud, when what a client needs is not here.
fn skips(name: &str, needs: &Path) -> bool {
    let missing = !needs.exists();
    if missing {
        skipped(&format!("{name}: no {}", needs.display()));
    }
    missing
}

/// The last line of a script.
struct Report {
    rounds: u32,
    errors: u32,
    wrong: u32,
    text: String,
}

impl Report {
    fn read(text: &str) -> Option<Report> {
        let number = |name: &str| -> Option<u32> {
            let word = text
                .split(' ')
                .find_map(|word| word.strip_prefix(&format!("{name}=")[..]))?;
            word.parse().ok()
        };
        Some(Report {
            rounds: number("rounds")?,
            errors: number("errors")?,
            wrong: number("wrong")?,
            text: text.to_string(),
        })
    }
}

/// Runs a client's script. Nothing may be wrong, and no error seen, although a primary dies.
#[track_caller]
fn live(mut command: Command, protocol: &str) {
    let mut service = Service::start();
    command.args([&service.proxy.port().to_string(), SECONDS]);
    if !protocol.is_empty() {
        command.arg(protocol);
    }
    command.stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let mut stderr = child.stderr.take().expect("stderr is piped");
    let complaints = std::thread::spawn(move || {
        let mut text = Vec::new();
        let _ = stderr.read_to_end(&mut text);
        String::from_utf8_lossy(&text).into_owned()
    });
    let stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
    let mut said = Vec::new();
    for line in stdout.lines() {
        let line = line.unwrap_or_default();
        if line == "looping" {
            service.lose_and_regain();
        }
        said.push(line);
    }
    let status = child.wait().expect("a child can be waited for");
    let complaints = complaints.join().expect("a reader does not panic");
    let last = said.last().and_then(|line| Report::read(line));
    let Some(report) = last.filter(|_| status.success()) else {
        panic!("{status}; stdout: {said:#?}; stderr:\n{complaints}");
    };
    assert!(report.rounds > 0, "{}", report.text);
    assert_eq!((report.errors, report.wrong), (0, 0), "{}", report.text);
    service.proxy.assert_alive();
}

fn python(name: &str, protocol: &str) {
    let packages = fetched("python");
    if skips(name, &packages) {
        return;
    }
    let mut command = mortal("python3");
    command.env("PYTHONPATH", packages);
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    command.arg(script(&format!("python/{name}_client.py")));
    live(command, protocol);
}

fn node(name: &str) {
    let packages = fetched("node/node_modules");
    if skips(name, &packages) {
        return;
    }
    let mut command = mortal("node");
    command.env("NODE_PATH", packages);
    command.arg(script(&format!("node/{name}_client.js")));
    live(command, "");
}

/// PHP's extensions are where `php-config` would say; php itself knows.
fn php(name: &str, extension: &str, protocol: &str) {
    let has = Command::new("php")
        .args([
            "-r",
            &format!("exit((int)!extension_loaded('{extension}'));"),
        ])
        .status();
    if !has.is_ok_and(|status| status.success()) {
        skipped(&format!("{name}: no php with {extension}"));
        return;
    }
    let mut command = mortal("php");
    command.args(["-d", "display_errors=stderr", "-d", "session.save_path="]);
    command.arg(script(&format!("php/{name}_client.php")));
    live(command, protocol);
}

#[test]
fn pymemcache() {
    python("pymemcache", "");
}

#[test]
fn pylibmc_text() {
    python("pylibmc", "text");
}

#[test]
fn meta_memcache() {
    python("meta_memcache", "");
}

#[test]
fn memcachio() {
    python("memcachio", "");
}

#[test]
fn django_over_pymemcache() {
    python("django", "pymemcache");
}

#[test]
fn django_over_pylibmc() {
    python("django", "pylibmc");
}

#[test]
fn node_memcached() {
    node("memcached");
}

#[test]
fn php_memcached_text() {
    php("memcached", "memcached", "text");
}

#[test]
fn php_session_text() {
    php("session", "memcached", "text");
}

#[test]
fn php_memcache_text() {
    php("memcache", "memcache", "text");
}

#[test]
fn cache_memcached_fast() {
    let has = Command::new("perl")
        .args(["-MCache::Memcached::Fast", "-e1"])
        .stderr(Stdio::null())
        .status();
    if !has.is_ok_and(|status| status.success()) {
        skipped("Cache::Memcached::Fast: perl does not find it");
        return;
    }
    let mut command = mortal("perl");
    command.arg(script("fast_client.pl"));
    live(command, "");
}

#[test]
fn gomemcache() {
    let program = fetched("go/client");
    if !skips("gomemcache", &program) {
        live(mortal(&program.to_string_lossy()), "");
    }
}

fn rust(name: &str, protocol: &str) {
    let program = fetched(&format!("rust/{name}"));
    if !skips(&format!("the {name} crate"), &program) {
        live(mortal(&program.to_string_lossy()), protocol);
    }
}

#[test]
fn rust_memcache_text() {
    rust("memcache", "text");
}

#[test]
fn rust_async_memcached() {
    rust("async_memcached", "");
}

// The binary protocol: clients that know nothing else, that begin with it, or that are told to.

#[test]
fn python_binary_memcached() {
    python("bmemcached", "");
}

#[test]
fn pylibmc_binary() {
    python("pylibmc", "binary");
}

#[test]
fn memjs() {
    node("memjs");
}

#[test]
fn php_memcached_binary() {
    php("memcached", "memcached", "binary");
}

#[test]
fn php_session_binary() {
    php("session", "memcached", "binary");
}

#[test]
fn php_memcache_binary() {
    php("memcache", "memcache", "binary");
}

/// dalli of the system speaks the binary protocol unless told otherwise; from version 5 on it knows meta commands only.
fn dalli(options: &[&str]) {
    let has = Command::new("ruby")
        .args(options)
        .args(["-rdalli", "-e0"])
        .stderr(Stdio::null())
        .status();
    if !has.is_ok_and(|status| status.success()) {
        skipped(&format!(
            "dalli {options:?}: ruby does not find it, or is too old for it"
        ));
        return;
    }
    let mut command = mortal("ruby");
    command.args(options).arg(script("dalli_client.rb"));
    live(command, "");
}

#[test]
fn dalli_of_the_system() {
    dalli(&[]);
}

#[test]
fn dalli_5() {
    let library = fetched("dalli/lib");
    if !skips("dalli 5", &library) {
        dalli(&["-I", &library.to_string_lossy()]);
    }
}

#[test]
fn rust_memcache_binary() {
    rust("memcache", "binary");
}
