//! `stats` and `version`: what people, memcached's own tools and exporters read.

use crate::common;

use std::collections::HashMap;
use std::process::Command;

use common::{wait_for, Client, Magent, Memcached, Port, PATIENCE};

fn stats(client: &mut Client) -> HashMap<String, String> {
    let reply = client.ask("stats");
    let (lines, end) = reply.rsplit_once("\r\n").expect("more than one line");
    assert_eq!(end, "END");
    let pair = |line: &str| {
        let mut words = line.splitn(3, ' ');
        assert_eq!(words.next(), Some("STAT"), "{line:?}");
        let name = words.next().expect("a name").to_string();
        (
            name,
            words
                .next()
                .unwrap_or_else(|| panic!("no value: {line:?}"))
                .to_string(),
        )
    };
    lines.split("\r\n").map(pair).collect()
}

/// A version as memcached's clients want to read it: some take it for a number.
#[track_caller]
fn assert_version(text: &str) {
    let parts: Vec<Result<u32, _>> = text.split('.').map(str::parse).collect();
    assert!(parts.iter().all(Result::is_ok), "version {text}");
}

#[test]
fn the_lines_that_everybody_reads() {
    let servers = [Memcached::start(), Memcached::start()];
    let proxy = Magent::front(&[servers[0].port()], &[servers[1].port()]).start();
    let mut client = proxy.client();
    let before = stats(&mut client);
    for name in [
        "pid",
        "uptime",
        "time",
        "version",
        "curr_connections",
        "total_connections",
        "cmd_get",
        "cmd_set",
        "cmd_touch",
        "cmd_flush",
        "get_hits",
        "get_misses",
        "rusage_user",
        "rusage_system",
        "pointer_size",
    ] {
        assert!(before.contains_key(name), "no {name} in {before:?}");
    }
    assert_eq!(before["pid"], proxy.process().pid().to_string());
    assert_version(&before["version"]);
    assert_eq!(before["magent_version"], env!("CARGO_PKG_VERSION"));
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    assert!(
        before["time"]
            .parse::<u64>()
            .unwrap()
            .abs_diff(now.as_secs())
            <= 2
    );
    assert!(before["uptime"].parse::<u64>().unwrap() < 60);

    let _others: Vec<_> = (0..3).map(|_| proxy.client()).collect();
    client.set("a", "1");
    client.set("b", "1");
    client.send("set c 0 0 1 noreply\r\n1\r\n");
    client.ask("get a");
    client.ask("get a b nokey");
    client.ask("get nokey");
    client.ask("touch a 0");
    client.ask("flush_all");
    wait_for("the others are counted", PATIENCE, || {
        stats(&mut client)["curr_connections"]
            .parse::<u64>()
            .unwrap()
            >= 4
    });
    let after = stats(&mut client);
    let grown =
        |name: &str| after[name].parse::<u64>().unwrap() - before[name].parse::<u64>().unwrap();
    let expect = [
        ("cmd_get", 5),
        ("get_hits", 3),
        ("get_misses", 2),
        ("cmd_set", 3),
        ("cmd_touch", 1),
        ("cmd_flush", 1),
    ];
    for (name, by) in expect {
        assert_eq!(grown(name), by, "{name} as memcached counts it");
    }
    assert!(grown("total_connections") >= 3);
}

#[test]
fn counts_are_memcacheds_own() {
    let (alone, behind) = (Memcached::start(), Memcached::start());
    let proxy = Magent::front(&[behind.port()], &[]).start();
    let count = |client: &mut Client| {
        client.converse(
            b"get a\r\nset a 0 0 1\r\n1\r\nget a a b\r\ngets a\r\nincr a 1\r\nincr b 1\r\ndecr a 1\r\ndelete b\r\n\
              cas a 0 0 1 99999999999\r\nx\r\ntouch a 0\r\ntouch b 0\r\ngat 0 a\r\ngat 0 b\r\nadd a 0 0 1\r\nx\r\n\
              delete a\r\nflush_all\r\n",
        );
        stats(client)
    };
    let (expect, got) = (count(&mut alone.client()), count(&mut proxy.client()));
    for name in [
        "cmd_get",
        "cmd_set",
        "cmd_touch",
        "cmd_flush",
        "get_hits",
        "get_misses",
    ] {
        assert_eq!(got[name], expect[name], "{name}");
    }
}

#[test]
fn reset_counts_from_zero() {
    let server = Memcached::start();
    let proxy = Magent::front(&[server.port()], &[]).start();
    let mut client = proxy.client();
    client.set("a", "1");
    client.ask("get a");
    assert_eq!(client.stat("cmd_get"), "1");
    assert_eq!(client.ask("stats reset"), "RESET");
    for name in ["cmd_get", "cmd_set", "get_hits", "get_misses"] {
        assert_eq!(client.stat(name), "0", "{name}");
    }
    assert_eq!(client.get("a").as_deref(), Some("1"));
    assert_eq!(client.stat("get_hits"), "1");
}

#[test]
fn matrix_lines_as_of_old() {
    let servers = [Memcached::start(), Memcached::start(), Memcached::start()];
    let [first, second, backup] = servers.each_ref().map(Memcached::port);
    let proxy = Magent::front(&[first, second], &[backup]).start();
    let reply = proxy.client().ask("stats matrix");
    let lines: Vec<_> = reply
        .split("\r\n")
        .filter(|line| line.starts_with("matrix "))
        .collect();
    assert_eq!(lines.len(), 2, "primaries only: {reply}");
    for (n, port) in [first, second].iter().enumerate() {
        let head = format!("matrix {} -> 127.0.0.1:{port}, pool size ", n + 1);
        let size = lines[n]
            .strip_prefix(&head)
            .unwrap_or_else(|| panic!("{reply}"));
        assert!(size.parse::<u32>().is_ok(), "{reply}");
    }
    assert!(reply.ends_with("END"), "{reply}");
}

#[test]
fn servers_and_their_states() {
    let mut servers = [Memcached::start(), Memcached::start()];
    let [primary, backup] = servers.each_ref().map(Memcached::port);
    let proxy = Magent::front(&[primary], &[backup]).start();
    let mut client = proxy.client();
    client.set("a", "1");
    let reply = client.ask("stats servers");
    assert!(reply.ends_with("END"), "{reply}");
    let all_stat = reply
        .split("\r\n")
        .all(|line| line.starts_with("STAT ") || line == "END");
    assert!(all_stat, "clients read nothing else: {reply}");
    for part in [
        primary.to_string(),
        backup.to_string(),
        "primary".into(),
        "backup".into(),
    ] {
        assert!(reply.contains(&part), "no {part} in {reply}");
    }
    let healthy = client.ask("stats servers");
    servers[0].kill();
    assert_eq!(client.get("a").as_deref(), Some("1"));
    wait_for("the state has changed", PATIENCE, || {
        let reply = client.ask("stats servers");
        reply.contains("down") && !healthy.contains("down")
    });
}

#[test]
fn other_words_are_well_formed() {
    let server = Memcached::start();
    let proxy = Magent::front(&[server.port()], &[]).start();
    let mut client = proxy.client();
    for word in ["items", "slabs", "settings", "sizes", "conns"] {
        let reply = client.ask(&format!("stats {word}"));
        let good = reply
            .split("\r\n")
            .all(|line| line.starts_with("STAT ") || line == "END");
        assert!(good && reply.ends_with("END"), "stats {word}: {reply}");
    }
    assert_eq!(client.ask("mn"), "MN", "the connection is in step");
}

#[test]
fn version_says_what_the_servers_can() {
    let mut server = Memcached::start();
    let proxy = Magent::front(&[server.port()], &[]).start();
    let mut client = proxy.client();
    let number = server.client().ask("version");
    let reply = client.ask("version");
    assert_eq!(reply, number);
    assert_version(reply.strip_prefix("VERSION ").unwrap());
    assert_eq!(
        binary_version(proxy.port()),
        reply["VERSION ".len()..],
        "the binary protocol says the same"
    );
    // The server is gone: many clients send nothing else to see whether there is anybody.
    server.kill();
    assert_eq!(client.get("key1"), None);
    assert_eq!(client.ask("version"), number);
}

#[test]
fn version_is_a_number_before_any_server_has_answered() {
    let nowhere = Port::claim();
    let proxy = Magent::front(&[nowhere.number()], &[]).start();
    let reply = proxy.client().ask("version");
    assert_version(reply.strip_prefix("VERSION ").unwrap());
    assert_eq!(binary_version(proxy.port()), reply["VERSION ".len()..]);
}

/// What is answered to `version` of the binary protocol.
fn binary_version(port: u16) -> String {
    let mut client = Client::connect(port);
    let mut question = [0; 24];
    (question[0], question[1]) = (0x80, 0x0b);
    client.try_send(&question).expect("it is there");
    let head = client.exactly(24);
    assert_eq!(head[..2], [0x81, 0x0b]);
    let length = u32::from_be_bytes(head[8..12].try_into().unwrap());
    String::from_utf8(client.exactly(length as usize)).unwrap()
}

/// A tool of libmemcached, run on the port: what it prints.
fn tool(name: &str, port: u16) -> Option<String> {
    let run = Command::new(name)
        .arg(format!("--servers=127.0.0.1:{port}"))
        .output();
    let output = match run {
        Ok(output) => output,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            common::skipped(&format!("{name} is not installed"));
            return None;
        }
        Err(error) => panic!("{name}: {error}"),
    };
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(output.status.success(), "{name}: {}: {text}", output.status);
    Some(text)
}

#[test]
fn the_tools_of_libmemcached_understand_it() {
    let servers = [Memcached::start(), Memcached::start()];
    let proxy = Magent::front(&[servers[0].port()], &[servers[1].port()]).start();
    tool("memcping", proxy.port());
    if let Some(text) = tool("memcstat", proxy.port()) {
        for name in ["pid", "uptime", "version", "curr_connections", "get_hits"] {
            assert!(text.contains(&format!("{name}:")), "no {name} in {text}");
        }
    }
    proxy.client().set("a", "1");
    tool("memcflush", proxy.port());
    assert_eq!(proxy.client().get("a"), None);
}

/// The numbers of one `stats` of the servers, under their names.
fn numbers(client: &mut Client, command: &str) -> HashMap<String, u64> {
    let reply = client.ask(command);
    let lines: Vec<_> = reply.lines().collect();
    assert_eq!(lines.last(), Some(&"END"), "{reply}");
    let pair = |line: &&str| {
        let mut words = line.strip_prefix("STAT ")?.splitn(2, ' ');
        Some((words.next()?.to_string(), words.next()?.parse().ok()?))
    };
    lines.iter().filter_map(pair).collect()
}

/// The keys that `stats cachedump` lists, in order.
fn dumped(client: &mut Client, command: &str) -> Vec<String> {
    let reply = client.ask(command);
    assert!(reply.ends_with("END"), "{reply}");
    let key = |line: &str| Some(line.strip_prefix("ITEM ")?.split(' ').next()?.to_string());
    let mut keys: Vec<_> = reply.lines().filter_map(key).collect();
    keys.sort();
    keys
}

#[test]
fn statistics_of_the_servers_are_added_up_and_copies_are_not() {
    // Without its maintainer memcached dumps all items of a class; else only those that have lain a while.
    let mut servers = [(); 3].map(|()| Memcached::with(&["-o", "no_lru_maintainer"]));
    let proxy = Magent::front(
        &[servers[0].port(), servers[1].port()],
        &[servers[2].port()],
    )
    .start();
    let mut client = proxy.client();
    let keys: Vec<_> = (10..30).map(|n| format!("key{n}")).collect();
    for key in &keys {
        client.set(key, "x");
    }
    let own: Vec<u64> = servers[..2]
        .iter()
        .map(|server| numbers(&mut server.client(), "stats items")["items:1:number"])
        .collect();
    assert!(own.iter().all(|&number| number > 0), "on both: {own:?}");
    let items = numbers(&mut client, "stats items");
    assert_eq!(items["items:1:number"], own.iter().sum::<u64>());
    let one = numbers(&mut servers[0].client(), "stats slabs");
    let both = numbers(&mut client, "stats slabs");
    assert_eq!(both["1:chunk_size"], one["1:chunk_size"]);
    assert_eq!(both["active_slabs"], one["active_slabs"]);
    assert_eq!(both["1:total_pages"], 2 * one["1:total_pages"]);
    assert!(client.ask("stats sizes").ends_with("END"));
    assert_eq!(dumped(&mut client, "stats cachedump 1 0"), keys);
    assert_eq!(dumped(&mut client, "stats cachedump 1 3").len(), 6);

    // One that hangs is left out, and does not hold up what comes after for longer than the time limit.
    servers[1].freeze();
    let left = numbers(&mut client, "stats items");
    assert_eq!(left["items:1:number"], own[0]);
    servers[1].thaw();

    // With a primary down its keys are listed by the backup, and the others still once.
    servers[0].kill();
    wait_for("the listing is whole", PATIENCE, || {
        let _ = client.ask("get key10");
        dumped(&mut client, "stats cachedump 1 0") == keys
    });
    servers[1].kill();
    servers[2].kill();
    wait_for("nobody is left", PATIENCE, || {
        client.ask("stats items") == "END" && client.ask("stats cachedump 1 0") == "END"
    });
}

/// The names and values of one `stats`.
fn page(client: &mut Client, command: &str) -> HashMap<String, String> {
    let reply = client.ask(command);
    assert!(reply.ends_with("END"), "{command}: {reply}");
    let pair = |line: &str| {
        let (name, value) = line.strip_prefix("STAT ")?.split_once(' ')?;
        Some((name.to_string(), value.to_string()))
    };
    let pairs: Vec<_> = reply.lines().filter_map(pair).collect();
    let map: HashMap<_, _> = pairs.iter().cloned().collect();
    assert_eq!(map.len(), pairs.len(), "each name once: {reply}");
    assert_eq!(map.len() + 1, reply.lines().count(), "{reply}");
    map
}

fn number(page: &HashMap<String, String>, name: &str) -> u64 {
    let value = page.get(name).unwrap_or_else(|| panic!("no {name}"));
    value
        .parse()
        .unwrap_or_else(|_| panic!("{name} is no number: {value}"))
}

/// The same by the binary protocol.
fn binary_page(port: u16, what: &str) -> HashMap<String, String> {
    let mut client = Client::connect(port);
    let mut question = vec![0; 24];
    (question[0], question[1], question[3], question[11]) =
        (0x80, 0x10, what.len() as u8, what.len() as u8);
    question.extend_from_slice(what.as_bytes());
    client.try_send(&question).expect("it is there");
    let mut map = HashMap::new();
    loop {
        let head = client.exactly(24);
        assert_eq!(head[..2], [0x81, 0x10]);
        assert_eq!(head[6..8], [0, 0], "a success");
        let name = usize::from(u16::from_be_bytes([head[2], head[3]]));
        let length = u32::from_be_bytes(head[8..12].try_into().unwrap());
        let body = String::from_utf8(client.exactly(length as usize)).unwrap();
        if body.is_empty() {
            return map;
        }
        map.insert(body[..name].to_string(), body[name..].to_string());
    }
}

#[track_caller]
fn assert_has_all(page: &HashMap<String, String>, names: &HashMap<String, String>) {
    let missing: Vec<_> = names
        .keys()
        .filter(|&name| !page.contains_key(name))
        .collect();
    assert!(missing.is_empty(), "memcached has them: {missing:?}");
}

#[test]
fn memcacheds_general_fields_are_the_primaries_together() {
    let mut servers = [(); 3].map(|()| Memcached::start());
    let proxy = Magent::front(
        &[servers[0].port(), servers[1].port()],
        &[servers[2].port()],
    )
    .args(&["--timeout", "1500"])
    .start();
    let mut client = proxy.client();
    let alone = page(&mut servers[0].client(), "stats");
    // Each write is seen by the next question, however soon it comes. With the first one the proxy's own items come.
    let mut ours = 0;
    for count in 1..=20 {
        client.set(&format!("key{count}"), "value");
        let got = page(&mut client, "stats");
        assert_has_all(&got, &alone);
        if count == 1 {
            ours = number(&got, "curr_items") - 1;
            assert!(ours <= 4, "{ours}");
        }
        assert_eq!(number(&got, "curr_items"), ours + count);
        assert_eq!(number(&got, "total_items"), ours + count);
    }
    let got = page(&mut client, "stats");
    let own = [0, 1].map(|index: usize| page(&mut servers[index].client(), "stats"));
    for name in [
        "bytes",
        "curr_items",
        "limit_maxbytes",
        "threads",
        "hash_bytes",
    ] {
        let sum = own.iter().map(|page| number(page, name)).sum::<u64>();
        assert_eq!(number(&got, name), sum, "{name}");
    }
    for name in ["accepting_conns", "hash_power_level"] {
        assert_eq!(got[name], own[0][name], "{name}");
    }
    assert_eq!(got["pid"], proxy.process().pid().to_string());
    assert_eq!(number(&got, "cmd_set"), 20);
    let binary = binary_page(proxy.port(), "");
    assert_has_all(&binary, &got);
    assert_eq!(binary["curr_items"], got["curr_items"]);

    // One that hangs is left out, and what comes behind the question waits for the time limit and no longer.
    servers[1].freeze();
    client.send("set key1 0 0 1\r\n1\r\n");
    let _ = client.line();
    let left = page(&mut client, "stats");
    let first = page(&mut servers[0].client(), "stats");
    assert_eq!(left["curr_items"], first["curr_items"]);
    assert_eq!(left["limit_maxbytes"], own[0]["limit_maxbytes"]);
    servers[1].thaw();

    // With no primary left the backup is asked; with nobody left there are all the names.
    servers[0].kill();
    servers[1].kill();
    wait_for("the backup is asked", PATIENCE, || {
        let _ = client.ask("get key1");
        page(&mut client, "stats")["curr_items"] != "0"
    });
    servers[2].kill();
    wait_for("nobody is left", PATIENCE, || {
        page(&mut client, "stats")["curr_items"] == "0"
    });
    let nobody = page(&mut client, "stats");
    assert!(number(&nobody, "limit_maxbytes") > 0, "it is divided by");
    let mut names = alone;
    // A word, and names that came and went with versions.
    names.retain(|name, value| value.parse::<f64>().is_ok() && !name.starts_with("slab_reassign_"));
    assert_has_all(&nobody, &names);
}

#[test]
fn settings_are_the_proxys_own_where_it_has_them() {
    let servers = [
        Memcached::with(&["-m", "32"]),
        Memcached::with(&["-I", "2m"]),
    ];
    let proxy = Magent::front(&[servers[0].port(), servers[1].port()], &[])
        .args(&["-n", "321", "--max-item-size", "4m"])
        .start();
    let mut client = proxy.client();
    let own = [0, 1].map(|index: usize| page(&mut servers[index].client(), "stats settings"));
    let got = page(&mut client, "stats settings");
    assert_has_all(&got, &own[0]);
    assert_eq!(
        number(&got, "maxbytes"),
        own.iter().map(|page| number(page, "maxbytes")).sum::<u64>()
    );
    for (name, value) in [
        ("maxconns", "321"),
        ("tcpport", &proxy.port().to_string()),
        ("item_size_max", "1048576"),
        ("num_threads", "1"),
        ("domain_socket", "NULL"),
        ("auth_enabled_sasl", "no"),
        ("growth_factor", &own[0]["growth_factor"]),
        ("evictions", "on"),
    ] {
        assert_eq!(got[name], value, "{name}");
    }
    assert_eq!(binary_page(proxy.port(), "settings"), got);
}

/// Who asks without end costs the servers little: one question serves all who wait, and what is known is used again.
#[test]
fn many_questions_are_few_for_the_servers() {
    let server = Memcached::start();
    let proxy = Magent::front(&[server.port()], &[]).start();
    let mut client = proxy.client();
    let requests = |client: &mut Client| -> u64 {
        let reply = client.ask("stats servers");
        let line = reply.lines().find_map(|line| line.split_once(":requests "));
        line.expect("it is told").1.parse().expect("a number")
    };
    let before = requests(&mut client);
    let many = "stats\r\n".repeat(500);
    let mut reply = client.converse(many.as_bytes());
    reply.retain(|&byte| byte != b'\r');
    let ends = reply
        .split(|&byte| byte == b'\n')
        .filter(|line| line == b"END");
    assert_eq!(ends.count(), 500);
    let asked = requests(&mut client) - before;
    assert!((1..50).contains(&asked), "{asked} for 500 questions");
}
