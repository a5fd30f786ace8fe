use proptest::prelude::*;

use super::*;
use crate::config::{Ack, Copies, Distribution, ReadRepair, Rejoin, ServerSpec};
use crate::hash::KeyHash;
use crate::time::Span;

fn read(text: &str) -> Result<Vec<Config>, Vec<String>> {
    let read = parse(text.as_bytes(), &Config::default());
    read.map_err(|mistakes| mistakes.iter().map(Mistake::to_string).collect())
}

#[track_caller]
fn pool(text: &str) -> Config {
    let mut pools = read(text).unwrap_or_else(|wrong| panic!("{wrong:#?}"));
    assert_eq!(pools.len(), 1);
    pools.remove(0)
}

fn spec(host: &str, port: u16, weight: u32, name: Option<&str>) -> ServerSpec {
    ServerSpec {
        host: host.into(),
        port,
        weight,
        name: name.map(str::to_owned),
    }
}

/// As it is found in guides.
const PLAIN: &str = "\
alpha:
  listen: 127.0.0.1:22121
  hash: fnv1a_64
  distribution: ketama
  auto_eject_hosts: true
  redis: false
  server_retry_timeout: 2000
  server_failure_limit: 3
  servers:
   - 127.0.0.1:11220:1
   - 127.0.0.1:11221:1 second
";

fn plain() -> Config {
    Config {
        pool: Some("alpha".into()),
        port: 0,
        listen_at: vec![("127.0.0.1".into(), 22121)],
        hash: KeyHash::Fnv1ax64,
        distribution: Distribution::Ketama,
        eject: true,
        retry_max: Span::from_millis(2000),
        servers: vec![
            spec("127.0.0.1", 11220, 1, None),
            spec("127.0.0.1", 11221, 1, Some("second")),
        ],
        ..Config::default()
    }
}

#[test]
fn a_plain_file() {
    assert_eq!(pool(PLAIN), plain());
}

#[test]
fn the_same_in_any_style_of_yaml() {
    let crlf = PLAIN.replace('\n', "\r\n");
    let bom = format!("\u{feff}{PLAIN}");
    let document = format!("%YAML 1.2\n---\n# pools\n{PLAIN}...\n");
    let flow = "{alpha: {listen: '127.0.0.1:22121', \"hash\": fnv1a_64, auto_eject_hosts: True,\n server_retry_timeout: 2000,\n \
                servers: [127.0.0.1:11220:1, '127.0.0.1:11221:1 second']}}";
    let folded = PLAIN.replace("fnv1a_64", ">-\n    fnv1a_64");
    let anchored = PLAIN
        .replace("- 127.0.0.1:11220:1\n", "- &one 127.0.0.1:11220:1\n")
        .replace("alpha:", "alpha: &pool");
    let tagged = PLAIN.replace("3\n", "!!int 3\n");
    let flat = PLAIN.replace("   - ", "  - ");
    let first = {
        let (head, servers) = PLAIN.split_once("  servers:").unwrap();
        let (name, keys) = head.split_once('\n').unwrap();
        format!("{name}\n  servers:{servers}{keys}")
    };
    for text in [
        &crlf, &bom, &document, flow, &folded, &anchored, &tagged, &flat, &first,
    ] {
        assert_eq!(pool(text), plain(), "{text}");
    }
}

#[test]
fn every_key() {
    let config = pool(
        "\
p q:
  listen: /run/magent 1.sock 0666
  hash: murmur
  hash_tag: \"{}\"
  distribution: modula
  timeout: 400
  backlog: 1024
  client_connections: 77
  preconnect: true
  server_connections: 3
  auto_eject_hosts: true
  server_retry_timeout: 0
  server_failure_limit: 0
  tcpkeepalive: true
  reuseport: true
  redis: false
  redis_db: 0
  servers: [a:1:100000, '/run/m.sock:2 unix']
  backups: [b:2, c:3:1]
  copies: 1
  ack: primary
  rejoin: as-is
  read_repair: always
  resync_rate: 5
  journal_keys: 6
  memory_limit: 10m
  max_item_size: 2m
  idle_timeout: 7
  proxy_id: me
",
    );
    let expect = Config {
        pool: Some("p q".into()),
        port: 0,
        socket: Some("/run/magent 1.sock".into()),
        socket_mode: 0o666,
        hash: KeyHash::Murmur,
        hash_tag: Some(*b"{}"),
        distribution: Distribution::Modula,
        timeout: Span::from_millis(400),
        backlog: 1024,
        max_conns: 77,
        server_conns: 3,
        eject: false,
        retry_max: Span::from_millis(20),
        reuseport: true,
        servers: vec![
            spec("a", 1, 100_000, None),
            spec("/run/m.sock", 0, 2, Some("unix")),
        ],
        backups: vec![spec("b", 2, 1, None), spec("c", 3, 1, None)],
        copies: Copies::AtMost(1),
        ack: Ack::Primary,
        rejoin: Rejoin::AsIs,
        read_repair: ReadRepair::Always,
        resync_rate: 5,
        journal_keys: 6,
        memory_limit: 10 << 20,
        max_item_size: 2 << 20,
        idle_timeout: Some(Span::from_secs(7)),
        proxy_id: "me".into(),
        ..Config::default()
    };
    assert_eq!(config, expect);
}

#[test]
fn several_pools_and_listeners() {
    let text = "a:\n  listen: [127.0.0.1:1, '::1:1', /run/a.sock]\n  servers: [x:1:1]\n  distribution: magent\n\
                b:\n  listen: 127.0.0.1:2\n  servers: [x:1:1]\n  distribution: jump\n";
    let pools = read(text).unwrap();
    let listens = vec![("127.0.0.1".to_owned(), 1), ("::1".to_owned(), 1)];
    assert_eq!(pools[0].listen_at, listens);
    assert_eq!(pools[0].socket, Some("/run/a.sock".into()));
    assert_eq!(pools[0].hash, KeyHash::Djb31);
    assert_eq!(pools[1].pool.as_deref(), Some("b"));
    assert_eq!(pools[1].hash, KeyHash::Fnv1ax64);
}

#[track_caller]
fn wrong(text: &str, expect: &[&str]) {
    assert_eq!(
        read(text),
        Err(expect.iter().map(ToString::to_string).collect()),
        "{text}"
    );
}

/// A pool with one line more.
fn with(line: &str) -> String {
    format!("p:\n  listen: a:1\n  {line}\n  servers:\n  - s:1:1\n")
}

#[test]
fn each_wrong_value_is_told_with_its_place() {
    for (line, expect) in [
        ("hash: fnvla_64", "3:9: 'fnvla_64': hash: not one of one_at_a_time, md5, crc16, crc32, crc32a, fnv1_64, fnv1a_64, fnv1_32, fnv1a_32, hsieh, murmur, jenkins (the nearest one is fnv1a_64)"),
        ("distribution: Ketama", "3:17: 'Ketama': distribution: not one of ketama, modula, random, magent, magent-ketama, jump, rendezvous (the nearest one is ketama)"),
        ("hash_tag: '{'", "3:13: '{': hash_tag: not a tag of two characters, as \"{}\""),
        ("timeout: 4s", "3:12: '4s': timeout: not a number from 0 to 3600000"),
        ("timeout: -1", "3:12: '-1': timeout: not a number from 0 to 3600000"),
        ("preconnect: yes", "3:15: 'yes': preconnect: neither true nor false"),
        ("server_connections: 0", "3:23: '0': server_connections: not a number from 1 to 255"),
        ("timeout:", "3:3: 'timeout': no value"),
        ("timeout: [1]", "3:12: 'timeout': a list, where timeout has one value"),
        ("auto_eject_host: true", "3:3: 'auto_eject_host': unknown key (the nearest one is auto_eject_hosts)"),
        ("listen: b:1", "3:3: 'listen': given before in this pool, in line 2"),
        ("redis: true", "3:10: 'true': redis: this is a pool of Redis servers, and magent speaks memcached only: leave it to twemproxy, in a file of its own"),
        ("backups: [s]", "3:13: 's': backups: no port (a backup is HOST:PORT [NAME] or /PATH [NAME]); a remark begins with '#'"),
        ("ack: some", "3:8: 'some': ack: not one of all, primary"),
        ("memory_limit: 1m", "3:3: 'memory_limit': a memory_limit of 1m is too small for a max_item_size of 1m (at least twice as much)"),
    ] {
        wrong(&with(line), &[expect]);
    }
}

#[test]
fn wrong_shapes() {
    let form = "no pool (NAME: and below it, indented, at least listen: and servers:)";
    for text in ["", "\n\n", "# nothing\n", "{}"] {
        let column = if text == "{}" { "1:1: '{}': " } else { "1:1: " };
        wrong(text, &[&format!("{column}{form}")]);
    }
    wrong(
        "- a\n",
        &["1:1: a list, not pools (NAME: and below it, indented, its keys)"],
    );
    wrong(
        "p:\n",
        &["1:1: 'p': an empty pool (its keys come below its name, indented)"],
    );
    wrong(
        "p: 5\n",
        &["1:4: '5': a value, where the keys of pool 'p' belong"],
    );
    wrong(
        "p:\n  hash: md5\n",
        &[
            "1:1: 'p': a pool without listen:",
            "1:1: 'p': a pool without servers:",
        ],
    );
    wrong(
        "p:\n  listen: a:1\n  servers:\n",
        &["3:3: 'servers': no server (a list, each server in a line of its own behind '- ')"],
    );
    wrong("p:\n  listen: a:1\n  servers: s:1:1\n", &["3:12: 's:1:1': servers: a value, not a list, each server in a line of its own behind '- '"]);
    let two = "p:\n  listen: a:1\n  servers: [s:1:1]\n";
    wrong(
        &format!("{two}---\n{two}"),
        &["4:1: '---': a second document (all pools are in one)"],
    );
    wrong(
        &format!("{two}{}", two.replace("p:", "q:")),
        &["5:11: 'a:1': listened at before, in line 2"],
    );
    wrong(
        &format!("{two}{}", two.replace("a:1", "a:2")),
        &["4:1: 'p': the name of a pool before, in line 1"],
    );
    wrong(
        "p:\n  listen: a:1\n  servers: [s:1:1, s:1:2]\n",
        &["3:20: 's:1': a server of this pool before, in line 3"],
    );
    wrong("listen: a:1\n", &["1:1: 'listen': listen of a pool that is not in one (NAME: comes first, and the keys below it, indented)"]);
}

#[test]
fn all_mistakes_at_once() {
    wrong(
        "p:\n  listen: a\n  hsah: md5\n  servers:\n  - this server is the first one\n  - s:1:1\n  - s:2\n  timeout: soon\n",
        &[
            "2:11: 'a': listen: no port (an address is HOST:PORT or /PATH)",
            "3:3: 'hsah': unknown key (the nearest one is hash)",
            "5:5: 'this server is the first one': servers: 'is' behind the name: a name is one word; a remark begins with '#'",
            "7:5: 's:2': servers: no weight (a server is HOST:PORT:WEIGHT [NAME] or /PATH:WEIGHT [NAME])",
            "8:12: 'soon': timeout: not a number from 0 to 3600000",
        ],
    );
}

#[test]
fn typographic_characters_and_tabs_are_recognised() {
    let found = read("p:\n  listen: a:1\n  servers:\n   – s:1:1\n   hash: md5\n").unwrap_err();
    assert!(
        found.iter().any(|line| line.contains("typographic")),
        "{found:?}"
    );
    let found = read("p:\n\tlisten: a:1\n").unwrap_err();
    assert!(
        found
            .iter()
            .any(|line| line.starts_with("2:") && line.contains("not by tabs")),
        "{found:?}"
    );
    let found = parse(b"p:\n  a\xff: 1\n", &Config::default()).unwrap_err();
    assert_eq!(found[0].to_string(), "2:4: '\\xff': not UTF-8");
    let place = |bytes: &[u8]| parse(bytes, &Config::default()).unwrap_err()[0].at;
    for (bytes, line, column) in [
        (&b"\0\0\r\x80"[..], 2, 1),
        (b"p:\r\n \xff", 2, 2),
        (b"\n\r\n\r\xff", 4, 1),
    ] {
        assert_eq!(place(bytes), Position { line, column }, "{bytes:?}");
    }
}

#[test]
fn aliases_do_not_multiply_without_end() {
    let mut text = String::from("a: &a [x,x,x,x,x,x,x,x,x,x]\n");
    for (one, other) in ["ab", "bc", "cd", "de", "ef", "fg", "gh"]
        .iter()
        .map(|pair| pair.split_at(1))
    {
        let many = vec![format!("*{one}"); 10].join(",");
        text.push_str(&format!("{other}: &{other} [{many}]\n"));
    }
    let found = read(&text).unwrap_err();
    assert!(
        found.iter().any(|line| line.contains("too large")),
        "{found:?}"
    );
    let deep = format!("p: {}{}", "[".repeat(100), "]".repeat(100));
    let found = read(&deep).unwrap_err();
    assert!(
        found.iter().any(|line| line.contains("nested too deeply")),
        "{found:?}"
    );
    assert!(read("p: &p [*p]").is_err());
}

/// Mistakes lie within the text, and say something.
fn check_places(bytes: &[u8], mistakes: &[Mistake]) {
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<usize> = text
        .split(['\n', '\r'])
        .map(|line| line.chars().count())
        .collect();
    assert!(!mistakes.is_empty());
    for mistake in mistakes {
        assert!((1..=lines.len()).contains(&mistake.at.line), "{mistake}");
        let longest = lines.iter().max().unwrap();
        assert!((1..=longest + 1).contains(&mistake.at.column), "{mistake}");
        assert!(
            !mistake.wrong.is_empty() && !mistake.to_string().contains('\n'),
            "{mistake:?}"
        );
    }
    let order = mistakes.windows(2).all(|pair| pair[0].at <= pair[1].at);
    assert!(order, "{mistakes:?}");
}

/// Pieces of a good file in any order, and pieces of bad ones.
fn piece() -> impl Strategy<Value = String> {
    let keys: Vec<&'static str> = keys::all().collect();
    prop_oneof![
        proptest::sample::select(keys).prop_map(|key| format!("  {key}: ")),
        proptest::sample::select(vec![
            "p:\n",
            "q:\n",
            "\n",
            "  - ",
            "   - s:1:1\n",
            "[",
            "]",
            "{",
            "}",
            "&a ",
            "*a",
            "true\n",
            "5\n",
            "a:1\n",
            "'",
            "\"",
            "#",
            "---\n",
            "...\n",
            "%YAML 1.2\n",
            "|\n",
            ">\n",
            "? ",
            ": ",
            "!!int ",
            "\t",
            "<<: ",
            "~\n",
            "fnv1a_64\n",
            "all\n",
            "–",
            "\u{feff}",
            "\u{0}",
            "\r",
            "\r\n",
            "\u{85}",
            "\u{2028}",
            "\\x",
            "@",
            "`",
            "- - -",
        ])
        .prop_map(str::to_owned),
        "[ -~]{0,12}",
        "\\PC{0,4}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_understood_or_refused_with_a_place(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Err(mistakes) = parse(&bytes, &Config::default()) {
            check_places(&bytes, &mistakes);
        }
    }

    #[test]
    fn any_pieces_are_understood_or_refused_with_a_place(pieces in proptest::collection::vec(piece(), 0..30)) {
        let text = pieces.concat();
        match parse(text.as_bytes(), &Config::default()) {
            Ok(pools) => prop_assert!(pools.iter().all(|pool| !pool.servers.is_empty())),
            Err(mistakes) => check_places(text.as_bytes(), &mistakes),
        }
    }

    #[test]
    fn a_good_file_with_a_piece_put_in_or_taken_out(at in 0..PLAIN.len(), length in 0usize..20, new in piece()) {
        let text = format!("{}{new}{}", &PLAIN[..at], &PLAIN[(at + length).min(PLAIN.len())..]);
        if let Err(mistakes) = parse(text.as_bytes(), &Config::default()) {
            check_places(text.as_bytes(), &mistakes);
        }
    }
}
