//! The examples for containers: that they are what their tools take, and that magent does with them what they say.

use crate::common;

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;

use common::files::TempDir;
use common::magent::{magent_binary, run_magent_output};
use common::process::{here, mortal, run, wait_answering, Process};
use common::source::{read, repository};
use common::{wait_for, Memcached, Port, PATIENCE};
use magent::config::args::{parse, Parsed};
use magent::config::Config;
use saphyr_parser::{Event, Parser, ScalarStyle, StrInput};
use serde_json::{Map, Value};

const COMPOSE: &str = "docs/examples/compose.yaml";
const POOLS: &str = "docs/examples/pools.yml";
const PROXIES: &str = "docs/examples/kubernetes/magent.yaml";
const SERVERS: &str = "docs/examples/kubernetes/memcached.yaml";

/// The documents of a file. Keys that are no text, and anything twice, would be a mistake.
fn documents(path: &str) -> Vec<Value> {
    let text = read(path);
    let mut documents = Vec::new();
    // What is open, each with the key whose value comes next, and its anchor.
    let mut open: Vec<(Value, Option<String>, usize)> = Vec::new();
    let mut anchors: HashMap<usize, Value> = HashMap::new();
    for event in Parser::new(StrInput::new(&text)) {
        let (event, _) = event.unwrap_or_else(|error| panic!("{path}: {error}"));
        let value = match event {
            Event::SequenceStart(anchor, _) => {
                open.push((Value::Array(Vec::new()), None, anchor));
                continue;
            }
            Event::MappingStart(anchor, _) => {
                open.push((Value::Object(Map::new()), None, anchor));
                continue;
            }
            Event::Scalar(text, ScalarStyle::Plain, _, _) => match &*text {
                "" | "~" | "null" => Value::Null,
                "true" => true.into(),
                "false" => false.into(),
                text => match text.parse::<u64>() {
                    Ok(number) => number.into(),
                    Err(_) => text.into(),
                },
            },
            Event::Scalar(text, ..) => Value::String(text.into_owned()),
            Event::Alias(anchor) => anchors[&anchor].clone(),
            Event::SequenceEnd | Event::MappingEnd => {
                let (value, _, anchor) = open.pop().expect("it was begun");
                anchors.insert(anchor, value.clone());
                value
            }
            _ => continue,
        };
        match open.last_mut() {
            None => documents.push(value),
            Some((Value::Array(list), ..)) => list.push(value),
            Some((Value::Object(map), key, _)) => match key.take() {
                None => *key = Some(value.as_str().expect("a key is text").to_owned()),
                Some(key) => {
                    let twice = map.insert(key.clone(), value);
                    assert_eq!(twice, None, "{path}: {key} stands twice");
                }
            },
            Some((other, ..)) => panic!("{path}: {other}"),
        }
    }
    documents
}

/// A part of it, which has to be there.
#[track_caller]
fn at<'a>(value: &'a Value, pointer: &str) -> &'a Value {
    let part = value.pointer(pointer);
    part.unwrap_or_else(|| panic!("{pointer} in {value:#}"))
}

#[track_caller]
fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    let part = at(value, pointer);
    part.as_str()
        .unwrap_or_else(|| panic!("{pointer}: {part} is no text"))
}

#[track_caller]
fn texts(value: &Value, pointer: &str) -> Vec<String> {
    let list = at(value, pointer).as_array().expect("a list");
    let texts = list.iter().map(|item| item.as_str().expect("text"));
    texts.map(str::to_owned).collect()
}

/// The only object of a kind.
fn of_kind<'a>(documents: &'a [Value], kind: &str) -> &'a Value {
    let mut found = documents.iter().filter(|d| text(d, "/kind") == kind);
    let first = found.next().expect(kind);
    assert!(found.next().is_none(), "{kind}: more than one");
    first
}

/// What magent makes of the arguments.
fn config(arguments: &[String]) -> Config {
    match parse(arguments.iter().map(OsString::from)) {
        Ok(Parsed::Run(config)) => *config,
        other => panic!("{arguments:?}: {other:?}"),
    }
}

/// The pool of an example's file: its file's text, and its servers' names.
fn pool(text: &str) -> Vec<String> {
    let directory = TempDir::new();
    let path = directory.path("pools.yml");
    std::fs::write(&path, text).expect("written");
    let (code, said, stderr) = run_magent_output(&["-t", "-c", &path].map(str::to_owned));
    assert_eq!(code, 0, "{stderr}");
    assert!(said.contains("1 pool, nothing is wrong"), "{said}");
    let names = text.lines().filter_map(|line| {
        let server = line.trim().strip_prefix("- ")?;
        Some(server.split(':').next()?.to_owned())
    });
    names.collect()
}

#[test]
fn compose_has_the_servers_of_its_pool() {
    let file = documents(COMPOSE);
    assert_eq!(file.len(), 1);
    let services = at(&file[0], "/services");
    let config = config(&texts(services, "/magent/command"));
    assert_eq!(
        text(services, "/magent/volumes/0"),
        format!("./pools.yml:{}:ro", config.file.expect("-c").display())
    );
    let mut servers = pool(&read(POOLS));
    servers.sort();
    assert_eq!(servers, texts(services, "/magent/depends_on"));
    for server in &servers {
        let command = texts(services, &format!("/{server}/command"));
        assert_eq!(command[..2], ["memcached", "-m"], "{server}");
    }
    // The question of its health is one that magent understands.
    let mut question = texts(services, "/magent/healthcheck/test");
    assert_eq!(question.remove(0), "CMD");
    question.remove(0);
    let parsed = parse(question.iter().map(OsString::from));
    assert!(matches!(parsed, Ok(Parsed::Check(_))), "{parsed:?}");

    if !here("docker-compose") {
        return common::skipped("no docker-compose here: its schema is not asked");
    }
    let path = repository(COMPOSE);
    let (code, said) = run(Command::new("docker-compose")
        .arg("-f")
        .arg(path)
        .args(["config", "-q"]));
    assert_eq!(code, 0, "{said}");
}

#[test]
fn the_objects_of_kubernetes_fit_together() {
    let proxies = documents(PROXIES);
    let servers = documents(SERVERS);
    let all: Vec<&Value> = proxies.iter().chain(&servers).collect();
    let mut names: Vec<(&str, &str)> = Vec::new();
    for object in &all {
        let kind = text(object, "/kind");
        let version = match kind {
            "Service" | "ConfigMap" => "v1",
            "StatefulSet" => "apps/v1",
            "PodDisruptionBudget" => "policy/v1",
            other => panic!("{other}"),
        };
        assert_eq!(text(object, "/apiVersion"), version, "{kind}");
        let name = (kind, text(object, "/metadata/name"));
        assert!(!names.contains(&name), "{name:?} twice");
        names.push(name);
    }
    // What is selected is there, and has the port.
    let labels = |app: &Value| {
        let sets = all
            .iter()
            .filter(|object| text(object, "/kind") == "StatefulSet");
        sets.filter(|set| at(set, "/spec/template/metadata/labels/app") == app)
            .count()
    };
    for object in &all {
        let pointer = match text(object, "/kind") {
            "Service" => "/spec/selector/app",
            "ConfigMap" => continue,
            _ => "/spec/selector/matchLabels/app",
        };
        assert_eq!(labels(at(object, pointer)), 1, "{object:#}");
    }
    for (documents, service) in [(&proxies, "magent-proxies"), (&servers, "memcached")] {
        let set = of_kind(documents, "StatefulSet");
        assert_eq!(text(set, "/spec/serviceName"), service);
        assert!(names.contains(&("Service", service)), "{service}");
    }
    assert_eq!(
        at(of_kind(&proxies, "StatefulSet"), "/spec/replicas"),
        &Value::from(2)
    );

    // The servers of the pool are the pods of the set.
    let map = of_kind(&proxies, "ConfigMap");
    let mut pool = pool(text(map, "/data/pools.yml"));
    pool.sort();
    let replicas = at(of_kind(&servers, "StatefulSet"), "/spec/replicas").as_u64();
    let pods = (0..replicas.expect("a number")).map(|n| format!("memcached-{n}.memcached"));
    assert_eq!(pool, pods.collect::<Vec<_>>());
}

#[test]
fn the_container_of_kubernetes_finds_its_file_and_is_probed_where_it_listens() {
    let proxies = documents(PROXIES);
    let set = of_kind(&proxies, "StatefulSet");
    let container = at(set, "/spec/template/spec/containers/0");
    let config = config(&texts(container, "/args"));
    assert!(config.foreground, "a container ends with its process");
    let admin = config.admin.expect("--admin");
    let ports = at(container, "/ports").as_array().expect("a list");
    let port = |name: &str| {
        let port = ports
            .iter()
            .find(|port| text(port, "/name") == name)
            .expect(name);
        at(port, "/containerPort").as_u64().expect("a number")
    };
    assert_eq!(u64::from(admin.port), port("admin"));
    let map = of_kind(&proxies, "ConfigMap");
    let pools = text(map, "/data/pools.yml");
    assert!(pools.contains(&format!("listen: 0.0.0.0:{}\n", port("memcached"))));
    let mounted = text(container, "/volumeMounts/0/mountPath");
    assert_eq!(
        config.file.expect("-c").to_str(),
        Some(&format!("{mounted}/pools.yml")[..])
    );
    assert_eq!(
        text(set, "/spec/template/spec/volumes/0/configMap/name"),
        text(map, "/metadata/name")
    );
    // The grace is longer than what comes before the end: preStop, and --drain-ms.
    let grace = at(set, "/spec/template/spec/terminationGracePeriodSeconds").as_u64();
    let sleep = at(container, "/lifecycle/preStop/sleep/seconds").as_u64();
    assert!(grace.unwrap() > sleep.unwrap() + config.drain.0.div_ceil(1_000_000));
}

/// What an endpoint answers, first line and all.
fn http(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let question = format!("GET {path} HTTP/1.1\r\nHost: 10.1.2.3:{port}\r\nConnection: close\r\n");
    stream.write_all(question.as_bytes()).ok()?;
    stream.write_all(b"\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// The container's own arguments and file, with servers and ports of this host in place of names.
#[test]
fn the_probes_of_kubernetes_are_answered() {
    let proxies = documents(PROXIES);
    let set = of_kind(&proxies, "StatefulSet");
    let container = at(set, "/spec/template/spec/containers/0");
    let mut servers: Vec<Memcached> = (0..3).map(|_| Memcached::start()).collect();
    let (port, admin, directory) = (Port::claim(), Port::claim(), TempDir::new());
    let mut pools = text(of_kind(&proxies, "ConfigMap"), "/data/pools.yml").to_owned();
    for (n, server) in servers.iter().enumerate() {
        let name = format!("memcached-{n}.memcached:11211");
        pools = pools.replace(&name, &format!("127.0.0.1:{}", server.port()));
    }
    pools = pools.replace("0.0.0.0:11211", &format!("127.0.0.1:{}", port.number()));
    // As a ConfigMap is mounted: a link to what is there now.
    std::fs::write(directory.path("now"), pools).expect("written");
    std::os::unix::fs::symlink("now", directory.path("pools.yml")).expect("link");
    let arguments = texts(container, "/args").into_iter().map(|word| {
        word.replace("/etc/magent/", &directory.path(""))
            .replace("0.0.0.0:12001", &format!("127.0.0.1:{}", admin.number()))
    });
    let mut proxy = Process::start(mortal(&magent_binary()).args(arguments));
    wait_answering(port.number(), &mut proxy, "magent");

    let path = |probe: &str| text(container, &format!("/{probe}/httpGet/path"));
    let is = |path: &str, code: &str| {
        http(admin.number(), path).is_some_and(|answer| answer.starts_with(code))
    };
    let (ready, live) = (path("readinessProbe"), path("livenessProbe"));
    wait_for("ready", PATIENCE, || is(ready, "HTTP/1.1 200 "));
    assert!(is(live, "HTTP/1.1 200 "), "{live}");
    // All servers are gone: it serves misses, and is not to be started again for that.
    for server in &mut servers {
        server.kill();
    }
    wait_for("no live copy", PATIENCE, || is("/healthz", "HTTP/1.1 503 "));
    assert!(is(ready, "HTTP/1.1 200 ") && is(live, "HTTP/1.1 200 "));
    assert_eq!(proxy.ended(), None);
}
