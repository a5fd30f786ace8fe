//! `--admin`: metrics, health and statistics over HTTP, on a running proxy with real servers.

use crate::common;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpStream;

use common::lit::Lit;
use common::source::{read, repository};
use common::{wait_for, Memcached, PATIENCE};
use serde_json::Value;

impl Lit {
    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Status, head and body of the answer to a GET.
    fn get(&self, path: &str, headers: &str) -> (u16, String, String) {
        let mut stream = self.connect();
        let ask =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}Connection: close\r\n\r\n");
        stream.write_all(ask.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
        (status.expect("a status"), head.to_owned(), body.to_owned())
    }

    fn stats(&self) -> Value {
        let (status, _, body) = self.get("/stats.json", "");
        assert_eq!(status, 200);
        serde_json::from_str(&body).expect("JSON")
    }

    fn metrics(&self) -> Metrics {
        let (status, head, body) = self.get("/metrics", "");
        assert_eq!(status, 200);
        assert!(head.contains("text/plain; version=0.0.4"), "{head}");
        Metrics::parse(&body)
    }
}

/// The samples of a text exposition, checked line by line.
struct Metrics(BTreeMap<String, f64>);

impl Metrics {
    fn parse(text: &str) -> Metrics {
        let mut samples = BTreeMap::new();
        let (mut family, mut seen) = (String::new(), BTreeSet::new());
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
                assert!(seen.insert(name.to_owned()), "twice: {line}");
                family = name.to_owned();
            } else if !line.starts_with("# HELP ") {
                let (series, value) = line.rsplit_once(' ').expect(line);
                assert!(series.starts_with(&family), "{line} under {family}");
                let value: f64 = value.parse().expect(line);
                assert!(
                    samples.insert(series.to_owned(), value).is_none(),
                    "twice: {line}"
                );
            }
        }
        Metrics(samples)
    }

    /// The only sample of that name whose labels contain all of these.
    #[track_caller]
    fn one(&self, name: &str, labels: &[&str]) -> f64 {
        let found: Vec<f64> = self
            .0
            .iter()
            .filter(|(series, _)| series.split('{').next() == Some(name))
            .filter(|(series, _)| labels.iter().all(|label| series.contains(label)))
            .map(|(_, value)| *value)
            .collect();
        assert_eq!(found.len(), 1, "{name} {labels:?}: {found:?}");
        found[0]
    }
}

#[test]
fn metrics_count_what_passed() {
    let lit = Lit::new(&[]);
    let mut client = lit.proxy.client();
    for n in 0..50 {
        client.set(&format!("k{n}"), "value");
    }
    for n in 0..60 {
        client.get(&format!("k{n}"));
    }
    client.ask("incr nothing 1");
    client.ask("add k0 0 0 1\r\nx");
    client.ask("mg k1 v");
    let metrics = lit.metrics();
    let requests = |command: &str, result: &str| {
        let labels = [
            format!("command=\"{command}\""),
            format!("result=\"{result}\""),
        ];
        metrics.one("magent_requests_total", &[&labels[0], &labels[1]])
    };
    assert_eq!(requests("set", "ok"), 50.0);
    assert_eq!(requests("get", "hit"), 50.0);
    assert_eq!(requests("get", "miss"), 10.0);
    assert_eq!(requests("incr", "miss"), 1.0);
    assert_eq!(requests("add", "not_stored"), 1.0);
    assert_eq!(requests("mg", "hit"), 1.0);
    assert_eq!(metrics.one("magent_healthy", &[]), 1.0);
    assert_eq!(
        metrics.one("magent_client_connections", &["pool=\"default\""]),
        1.0
    );
    let command = ["command=\"get\"", "le=\"+Inf\""];
    assert_eq!(metrics.one("magent_command_seconds_bucket", &command), 60.0);
    assert_eq!(
        metrics.one("magent_command_seconds_count", &["command=\"get\""]),
        60.0
    );
    assert!(metrics.one("magent_command_seconds_sum", &["command=\"get\""]) > 0.0);
    for server in &lit.primaries {
        let server = format!("server=\"127.0.0.1:{}\"", server.port());
        assert_eq!(metrics.one("magent_server_up", &[&server]), 1.0);
        let state = [server.as_str(), "state=\"up\""];
        assert_eq!(metrics.one("magent_server_state", &state), 1.0);
        assert!(metrics.one("magent_server_requests_total", &[&server]) > 0.0);
        assert!(metrics.one("magent_server_sent_bytes_total", &[&server]) > 0.0);
    }
    assert!(metrics.one("process_resident_memory_bytes", &[]) > 1e6);
}

#[test]
fn open_metrics_for_those_who_ask_for_them() {
    let lit = Lit::new(&[]);
    let accept = "Accept: application/openmetrics-text; version=1.0.0,text/plain;q=0.5\r\n";
    let (status, head, body) = lit.get("/metrics", accept);
    assert_eq!(status, 200);
    assert!(
        head.contains("application/openmetrics-text; version=1.0.0"),
        "{head}"
    );
    assert!(body.ends_with("# EOF\n"));
    assert!(body.contains("# TYPE magent_client_sent_bytes counter\n"));
    assert!(body.contains("\nmagent_client_sent_bytes_total{"));
    assert!(body.contains("# TYPE magent_build info\n"));
}

#[test]
fn health_and_events_follow_the_servers() {
    let mut lit = Lit::new(&[]);
    assert_eq!(lit.get("/healthz", "").0, 200);
    assert_eq!(lit.get("/readyz", "").0, 200);
    let mut client = lit.proxy.client();
    client.set("k", "v");
    lit.primaries[0].kill();
    let name = format!("127.0.0.1:{}", lit.primaries[0].port());
    let state = |lit: &Lit| {
        let stats = lit.stats();
        let servers = stats["pools"][0]["servers"].as_array().unwrap().clone();
        let server = servers
            .iter()
            .find(|server| server["name"] == name.as_str());
        server.unwrap()["state"].as_str().unwrap().to_owned()
    };
    wait_for("it is seen as down", PATIENCE, || state(&lit) == "down");
    // The backup has all keys.
    assert_eq!(lit.get("/healthz", "").0, 200);
    lit.primaries[0].restart();
    wait_for("it is up again", PATIENCE, || {
        client.get("k");
        state(&lit) == "up"
    });
    let stats = lit.stats();
    let events = stats["pools"][0]["events"].as_array().unwrap();
    let of = |event: &str| {
        let found = events
            .iter()
            .find(|one| one["event"] == event && one["subject"] == name.as_str());
        found
            .unwrap_or_else(|| panic!("{event} in {events:?}"))
            .clone()
    };
    assert_eq!(of("server_down")["detail"], "down: disconnected");
    let order = [
        "server_down",
        "server_cold",
        "resync_begun",
        "resync_ended",
        "server_warm",
    ];
    let times: Vec<f64> = order
        .iter()
        .map(|event| of(event)["time"].as_f64().unwrap())
        .collect();
    assert!(times.windows(2).all(|two| two[0] <= two[1]), "{times:?}");
    let metrics = lit.metrics();
    assert_eq!(
        metrics.one("magent_events_total", &["event=\"server_cold\""]),
        1.0
    );
    let lost = [
        format!("server=\"{name}\""),
        "reason=\"disconnected\"".to_owned(),
    ];
    // One more when a connection was made to the one that was about to end.
    let times = metrics.one("magent_server_lost_total", &[&lost[0], &lost[1]]);
    assert!((1.0..=2.0).contains(&times), "{times}");
    // The log has the same words.
    let said = format!("server {name}: down: disconnected");
    wait_for("the log has it", PATIENCE, || {
        let log = lit.proxy.process().stderr();
        let mut lines = log.lines();
        lines.any(|line| line.contains(&said) && line.contains("event=server_down"))
    });
}

#[test]
fn without_a_live_copy_it_is_not_healthy() {
    let mut lit = Lit::new(&[]);
    lit.primaries[1].kill();
    lit.backup.kill();
    let name = format!("127.0.0.1:{}", lit.primaries[1].port());
    wait_for("keys are not served", PATIENCE, || {
        let (status, _, body) = lit.get("/healthz", "");
        status == 503 && body.contains("1 of 2 primaries") && body.contains(&name)
    });
    assert_eq!(lit.stats()["healthy"], false);
    assert_eq!(lit.metrics().one("magent_healthy", &[]), 0.0);
}

#[test]
fn the_log_in_json_is_json() {
    let mut lit = Lit::new(&["--log-format", "json"]);
    lit.primaries[0].kill();
    wait_for("it is logged", PATIENCE, || {
        lit.proxy.process().stderr().contains("server_down")
    });
    let log = lit.proxy.process().stderr();
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}")))
        .collect();
    let down = lines
        .iter()
        .find(|line| line["event"] == "server_down")
        .unwrap();
    assert_eq!(down["level"], "warn");
    assert_eq!(
        down["subject"],
        format!("127.0.0.1:{}", lit.primaries[0].port())
    );
    assert!(down["time"].as_str().unwrap().ends_with('Z'), "{down}");
}

#[test]
fn twemproxys_layout() {
    let lit = Lit::new(&[]);
    lit.proxy.client().set("k", "v");
    let (status, _, body) = lit.get("/nutcracker.json", "");
    assert_eq!(status, 200);
    let stats: Value = serde_json::from_str(&body).unwrap();
    let server = &stats["default"][format!("127.0.0.1:{}", lit.primaries[0].port())];
    for field in [
        "server_eof",
        "requests",
        "responses",
        "out_queue",
        "server_ejected_at",
    ] {
        assert!(server[field].is_number(), "{field} in {stats}");
    }
    assert_eq!(server["server_connections"], 1);
}

#[test]
fn bad_questions_and_idle_visitors_hurt_nobody() {
    let lit = Lit::new(&[]);
    // More than there is room for, silent: the newest is served.
    let idle: Vec<TcpStream> = (0..40).map(|_| lit.connect()).collect();
    assert_eq!(lit.get("/readyz", "").0, 200);
    drop(idle);
    for bytes in [
        "get key\r\n",
        "POST / HTTP/1.1\r\n\r\n",
        "\r\n\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
    ] {
        let mut stream = lit.connect();
        stream.write_all(bytes.as_bytes()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(
            answer.is_empty()
                || answer.starts_with("HTTP/1.1 4")
                || answer.starts_with("HTTP/1.1 5"),
            "{bytes:?}: {answer}"
        );
    }
    let (status, _, page) = lit.get("/", "");
    assert_eq!(status, 200);
    assert!(page.starts_with("<!doctype html>") && page.len() < 60_000);
    // Nothing from elsewhere.
    assert!(!page.contains("http://") && !page.contains("https://"));
    assert_eq!(lit.get("/nothing", "").0, 404);
    assert_eq!(lit.proxy.client().get("k"), None);
}

#[test]
fn foreign_pages_cannot_read_it() {
    let lit = Lit::new(&["--admin-name", "cache.example"]);
    let ask = |head: &str| {
        let mut stream = lit.connect();
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let named = |name: &str| {
        ask(&format!(
            "GET /stats.json HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n"
        ))
    };
    for name in ["127.0.0.1:1", "[::1]", "localhost:12001", "cache.example"] {
        assert!(named(name).starts_with("HTTP/1.1 200 "), "{name}");
    }
    for name in [
        "rebound.example",
        "cache.example.evil",
        "127.0.0.1.evil.example:80",
    ] {
        let answer = named(name);
        assert!(answer.starts_with("HTTP/1.1 421 "), "{name}: {answer}");
        assert!(!answer.contains("servers"), "{name}: {answer}");
    }
    let page = ask("GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    for header in [
        "Content-Security-Policy: default-src 'none'; script-src 'self';",
        "frame-ancestors 'none'",
        "X-Frame-Options: DENY",
    ] {
        assert!(page.contains(header), "{header}: {page}");
    }
    let smuggled = ask("GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nContent-Length: 30\r\n\r\nGET /stats.json HTTP/1.1\r\n\r\n");
    assert!(smuggled.starts_with("HTTP/1.1 400 "), "{smuggled}");
    assert_eq!(smuggled.matches("HTTP/1.1 ").count(), 1, "{smuggled}");
}

#[test]
fn slow_requests_are_logged_with_what_they_waited_for() {
    let lit = Lit::new(&["--slow-ms", "2000", "--timeout", "20000"]);
    let mut client = lit.proxy.client();
    client.set("counter", "1");
    // Until it is known how long replies are, few are asked for at a time.
    assert_eq!(client.get("counter").as_deref(), Some("1"));
    assert!(!lit.proxy.process().stderr().contains("slow:"));
    // Both primaries and the backup stand still: whoever has the key.
    lit.primaries.iter().for_each(Memcached::freeze);
    lit.backup.freeze();
    client.send("incr counter 1\r\nget counter\r\nset counter 0 0 1\r\n5\r\n");
    wait_for("it waits for a server", PATIENCE, || {
        lit.proxy.client().stat("magent_in_flight") != "0"
    });
    std::thread::sleep(std::time::Duration::from_millis(2500));
    lit.primaries.iter().for_each(Memcached::thaw);
    lit.backup.thaw();
    assert_eq!(client.line(), b"2\r\n");
    client.until(b"STORED\r\n");
    // printf counter | md5sum
    let key = "886bb73b3156b0aa";
    for said in [
        format!("slow: incr {key}: "),
        "waited for the decision of 127.0.0.1:".to_owned(),
        format!("slow: set {key}: "),
        "waited for another request on the key".to_owned(),
        "event=slow_request command=".to_owned(),
    ] {
        wait_for(&said, PATIENCE, || {
            lit.proxy.process().stderr().contains(&said)
        });
    }
    assert!(!lit.proxy.process().stderr().contains("incr counter"));
}

/// Names of metrics, without what histograms add to theirs, as they are told.
fn exported(lit: &Lit) -> BTreeSet<String> {
    let (_, _, text) = lit.get("/metrics", "");
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    types
        .map(|rest| rest.split(' ').next().unwrap().to_owned())
        .collect()
}

/// All words of `text` that look like a metric's name.
fn named(text: &str) -> BTreeSet<String> {
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    let names = words.filter(|word| {
        let known = ["magent_", "process_"]
            .iter()
            .any(|start| word.starts_with(start));
        known && word.len() > "process_".len()
    });
    let bare = |word: &str| word.strip_suffix("_bucket").unwrap_or(word).to_owned();
    names.map(bare).collect()
}

#[test]
fn documents_dashboard_and_alerts_know_the_metrics() {
    let lit = Lit::new(&[]);
    let exported = exported(&lit);
    assert_eq!(named(&read("docs/observability.md")), exported);
    for path in ["docs/grafana.json", "docs/alerts.yml"] {
        let named = named(&read(path));
        assert!(named.len() > 8, "{path}");
        let unknown: Vec<&String> = named.difference(&exported).collect();
        assert!(unknown.is_empty(), "{path}: {unknown:?}");
    }
    let dashboard: Value = serde_json::from_str(&read("docs/grafana.json")).unwrap();
    assert!(dashboard["panels"].as_array().unwrap().len() > 8);
    // Events as well.
    let events = read("docs/observability.md");
    for (series, _) in lit.metrics().0 {
        if let Some(rest) = series.strip_prefix("magent_events_total{") {
            let event = rest
                .split("event=\"")
                .nth(1)
                .unwrap()
                .trim_end_matches("\"}");
            assert!(events.contains(&format!("`{event}`")), "{event}");
        }
    }
    // Debian's prometheus has a checker of its own.
    match std::process::Command::new("promtool")
        .args(["check", "rules"])
        .arg(repository("docs/alerts.yml"))
        .output()
    {
        Ok(checked) => assert!(checked.status.success(), "{checked:?}"),
        Err(_) => common::skipped("no promtool here: docs/alerts.yml is not checked by it"),
    }
}
