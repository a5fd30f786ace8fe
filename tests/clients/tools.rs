//! Programs: libmemcached's tools, the exporter for prometheus, nginx.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Stdio;

use super::{fetched, script, skips, Service};
use crate::common::files::TempDir;
use crate::common::process::{mortal, Process};
use crate::common::{skipped, wait_for, Port, PATIENCE};

/// Runs one of libmemcached's tools to its end: whether it was content, and what it wrote. `None`: it is not installed.
#[track_caller]
fn tool(name: &str, arguments: &[&str]) -> Option<(bool, String)> {
    let places = ["/usr/bin", "/usr/local/bin"].map(|place| Path::new(place).join(name));
    let Some(program) = places.iter().find(|place| place.exists()) else {
        skipped(&format!("{name} is not installed"));
        return None;
    };
    let mut command = mortal(&program.to_string_lossy());
    let output = command.args(arguments).stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = [output.stdout, output.stderr].concat();
    Some((
        output.status.success(),
        String::from_utf8_lossy(&text).into_owned(),
    ))
}

/// memccapable tries each command and says which of them is not as memcached's.
fn capable(flag: &str) {
    let service = Service::start();
    let port = service.proxy.port().to_string();
    let Some((content, said)) = tool("memccapable", &["-h", "127.0.0.1", "-p", &port, flag]) else {
        return;
    };
    let passed = said.matches("[pass]").count();
    assert!(content && passed > 10 && !said.contains("FAIL"), "{said}");
}

#[test]
fn memccapable_text() {
    capable("-a");
}

#[test]
fn memccapable_binary() {
    capable("-b");
}

#[test]
fn memcstat_and_the_other_tools() {
    let service = Service::start();
    let servers = format!("--servers=127.0.0.1:{}", service.proxy.port());
    let Some((content, said)) = tool("memcstat", &[&servers]) else {
        return;
    };
    assert!(content && said.contains("cmd_get"), "{said}");
    for what in ["settings", "items", "slabs"] {
        let (content, said) = tool("memcstat", &[&servers, what]).expect("it was there");
        assert!(content, "memcstat {what}: {said}");
    }
    let directory = TempDir::new();
    let file = directory.path("copied");
    std::fs::write(&file, "a value").expect("a file can be written");
    let well = |name: &str, arguments: &[&str]| {
        let (content, said) = tool(name, arguments).expect("they come in one package");
        assert!(content, "{name} {arguments:?}: {said}");
        said
    };
    well("memcping", &[&servers]);
    well("memccp", &[&servers, &file]);
    assert!(well("memccat", &[&servers, "copied"]).contains("a value"));
    let binary = [&servers, "--binary", "copied"];
    assert!(well("memccat", &binary).contains("a value"));
    well(
        "memctouch",
        &[&servers, "--binary", "--expire=60", "copied"],
    );
    well("memctouch", &[&servers, "--expire=60", "copied"]);
    well("memcdump", &[&servers]);
    well("memcrm", &[&servers, "copied"]);
    well("memcflush", &[&servers]);
}

/// Many connections at once. Its own word on what was lost is all the judgement there is.
fn slap(binary: &[&str]) {
    let mut service = Service::start();
    let server = format!("127.0.0.1:{}", service.proxy.port());
    let arguments = ["-s", &server, "-T", "1", "-c", "32", "-t", "2s"];
    let running = std::thread::scope(|scope| {
        let slap = scope.spawn(|| tool("memcaslap", &[&arguments, binary].concat()));
        service.lose_and_regain();
        slap.join().expect("a tool that runs does not panic")
    });
    let Some((content, said)) = running else {
        return;
    };
    let number = |name: &str| -> u64 {
        let at = said
            .find(name)
            .unwrap_or_else(|| panic!("no {name} in {said}"));
        let digits = said[at + name.len()..].trim_start();
        let end = digits.find(|c: char| !c.is_ascii_digit());
        digits[..end.unwrap_or(digits.len())].parse().unwrap_or(0)
    };
    assert!(content, "{said}");
    assert!(number("cmd_set:") > 50, "{said}");
    service.proxy.assert_alive();
}

#[test]
fn memcaslap_text() {
    slap(&[]);
}

#[test]
fn memcaslap_binary() {
    slap(&["-B"]);
}

/// What an HTTP server answers to one GET: status and body.
fn fetch(port: u16, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n").ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1)?.parse().ok()?;
    let (_, body) = answer.split_once("\r\n\r\n")?;
    Some((status, body.to_string()))
}

#[test]
fn nginx_memcached_pass() {
    let program = fetched("unpacked/usr/sbin/nginx");
    if skips("nginx", &program) {
        return;
    }
    let mut service = Service::start();
    let (directory, front) = (TempDir::new(), Port::claim());
    let template = std::fs::read_to_string(script("nginx.conf")).expect("it is in the tree");
    let folder = directory.path("");
    let conf = template
        .replace("@DIR@", folder.trim_end_matches('/'))
        .replace("@FRONT@", &front.number().to_string())
        .replace("@MAGENT@", &service.proxy.port().to_string());
    let path = directory.path("nginx.conf");
    std::fs::write(&path, conf).expect("a file can be written");
    let mut command = mortal(&program.to_string_lossy());
    command.args(["-c", &path, "-e", "stderr"]);
    let nginx = Process::start(&mut command);
    wait_for("nginx answers", PATIENCE, || {
        fetch(front.number(), "/nothing").is_some()
    });
    let mut client = service.proxy.client();
    let pages: Vec<_> = (0..40).map(|n| format!("/{n}")).collect();
    for page in &pages {
        client.set(&format!("page:{page}"), &format!("this is {page}"));
    }
    let all_there = || {
        for page in &pages {
            let wanted = Some((200, format!("this is {page}")));
            assert_eq!(fetch(front.number(), page), wanted, "{}", nginx.stderr());
        }
        assert_eq!(
            fetch(front.number(), "/nothing").map(|answer| answer.0),
            Some(404)
        );
    };
    all_there();
    service.servers[0].kill();
    all_there();
    service.servers[0].restart();
    all_there();
}

#[test]
fn prometheus_memcached_exporter() {
    let program = fetched("exporter/usr/bin/prometheus-memcached-exporter");
    if skips("prometheus-memcached-exporter", &program) {
        return;
    }
    let mut service = Service::start();
    let port = Port::claim();
    let mut command = mortal(&program.to_string_lossy());
    command.arg(format!(
        "--memcached.address=127.0.0.1:{}",
        service.proxy.port()
    ));
    command.arg(format!("--web.listen-address=127.0.0.1:{}", port.number()));
    let exporter = Process::start(&mut command);
    service.proxy.client().set("key", "value");
    let is_up = || {
        let answer = fetch(port.number(), "/metrics");
        answer.is_some_and(|(status, body)| status == 200 && body.contains("\nmemcached_up 1"))
    };
    wait_for("the exporter finds the service up", PATIENCE, is_up);
    service.servers[0].kill();
    assert!(is_up(), "{}", exporter.stderr());
}
