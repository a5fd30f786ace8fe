//! Every option in every spelling, and every message.

use std::os::unix::ffi::OsStringExt;

use super::*;
use crate::config::Distribution;
use crate::config::{Ack, Copies, ReadRepair, Rejoin, ServerSpec};
use crate::time::Span;

fn parse_words(words: &[&str]) -> Result<Parsed, UsageError> {
    parse(words.iter().map(OsString::from))
}

/// The configuration that `line` asks for; `-s a` is added.
fn config(line: &str) -> Config {
    let words: Vec<&str> = line.split_whitespace().chain(["-s", "a"]).collect();
    match parse_words(&words) {
        Ok(Parsed::Run(config)) => *config,
        other => panic!("{line}: {other:?}"),
    }
}

/// The message that `line` earns; `-s a` is added.
fn error(line: &str) -> String {
    let words: Vec<&str> = line.split(' ').chain(["-s", "a"]).collect();
    error_of(&words)
}

fn error_of(words: &[&str]) -> String {
    match parse_words(words) {
        Err(UsageError(text)) => {
            assert!(!text.contains('\n'), "one line: {text}");
            text
        }
        other => panic!("{words:?}: {other:?}"),
    }
}

fn server(host: &str, port: u16, weight: u32) -> ServerSpec {
    ServerSpec {
        host: host.into(),
        port,
        weight,
        name: None,
    }
}

#[test]
fn defaults_are_magents() {
    let expected = Config {
        servers: vec![server("a", 11211, 1)],
        ..Config::default()
    };
    assert_eq!(config(""), expected);
}

#[test]
fn each_option_short_long_glued_and_apart() {
    type Change = fn(&mut Config);
    let cases: &[(&[&str], Change)] = &[
        (&["-u root", "-uroot", "--user root", "--user=root"], |c| {
            c.user = Some("root".into())
        }),
        (&["-g 65534", "-g65534", "--group=65534"], |c| {
            c.group = Some("65534".into())
        }),
        (
            &["-p 12000", "-p12000", "--port 12000", "--port=12000"],
            |c| c.port = 12000,
        ),
        (
            &["-l 10.0.0.1 -l[::1]", "--listen=10.0.0.1 --listen ::1"],
            |c| c.listen = vec!["10.0.0.1".into(), "::1".into()],
        ),
        (&["-f /run/m.sock", "--socket=/run/m.sock"], |c| {
            c.socket = Some("/run/m.sock".into());
        }),
        (&["-p 0 -f x", "--socket x --port=0"], |c| {
            c.port = 0;
            c.socket = Some("x".into());
        }),
        (&["-b b -b c:1", "--backup b --backup=c:1"], |c| {
            c.backups = vec![server("b", 11211, 1), server("c", 1, 1)];
        }),
        (&["-n 51200", "-n51200", "--max-conns=51200"], |c| {
            c.max_conns = 51200
        }),
        (&["-i 4", "--server-conns 4"], |c| c.server_conns = 4),
        (&["-k", "--ketama"], |c| {
            c.distribution = Distribution::MagentKetama
        }),
        (&["-D", "--foreground"], |c| c.foreground = true),
        (&["-v", "--verbose"], |c| {
            c.foreground = true;
            c.verbose = 1;
        }),
        (
            &["-vvv", "-v -vv", "--verbose --verbose -v", "-vv --verbose"],
            |c| {
                c.foreground = true;
                c.verbose = 3;
            },
        ),
        (&["-kDp 80", "-Dkp80"], |c| {
            c.distribution = Distribution::MagentKetama;
            c.foreground = true;
            c.port = 80;
        }),
        (&["--timeout 50", "--timeout=50"], |c| {
            c.timeout = Span::from_millis(50)
        }),
        (&["--copies all"], |c| c.copies = Copies::All),
        (&["--copies 1", "--copies=1"], |c| {
            c.copies = Copies::AtMost(1)
        }),
        (&["--ack primary", "--ack=all --ack=primary"], |c| {
            c.ack = Ack::Primary
        }),
        (
            &["--ack all", "--rejoin safe", "--read-repair auto"],
            |_| (),
        ),
        (&["--journal-keys 0"], |c| c.journal_keys = 0),
        (&["--journal-keys=1000000000"], |c| {
            c.journal_keys = 1_000_000_000
        }),
        (&["--rejoin as-is"], |c| c.rejoin = Rejoin::AsIs),
        (&["--read-repair always"], |c| {
            c.read_repair = ReadRepair::Always
        }),
        (&["--read-repair=off"], |c| c.read_repair = ReadRepair::Off),
        (&["--resync-rate 0"], |c| c.resync_rate = 0),
        (&["--proxy-id n1/a:1", "--proxy-id=n1/a:1"], |c| {
            c.proxy_id = "n1/a:1".into()
        }),
        (&["--verify -b b", "-b b --verify"], |c| {
            c.verify = true;
            c.backups = vec![server("b", 11211, 1)];
            c.resync_rate = 50_000;
        }),
        (&["--verify -b b --resync-rate 20000"], |c| {
            c.verify = true;
            c.backups = vec![server("b", 11211, 1)];
        }),
        (&["--pidfile /run/m.pid"], |c| {
            c.pidfile = Some("/run/m.pid".into())
        }),
        (&["--log-file m.log"], |c| c.log_file = Some("m.log".into())),
        (
            &[
                "--max-item-size 4m",
                "--max-item-size=4096k",
                "--max-item-size 4194304",
            ],
            |c| {
                c.max_item_size = 4 << 20;
            },
        ),
        (
            &[
                "--memory-limit 2g",
                "--memory-limit 2G",
                "--memory-limit 2048M",
            ],
            |c| {
                c.memory_limit = 2 << 30;
            },
        ),
        (&["--idle-timeout 60"], |c| {
            c.idle_timeout = Some(Span::from_secs(60))
        }),
        (&["--idle-timeout 0"], |_| ()),
        (&["--drain-ms 0"], |c| c.drain = Span(0)),
    ];
    for (spellings, change) in cases {
        let mut expected = config("");
        change(&mut expected);
        for line in *spellings {
            assert_eq!(config(line), expected, "{line}");
        }
    }
}

#[test]
fn servers_keep_their_order() {
    let parsed = config("-s x:1:2 --server=[::1]:3 -sy");
    assert_eq!(
        parsed.servers,
        [
            server("x", 1, 2),
            server("::1", 3, 1),
            server("y", 11211, 1),
            server("a", 11211, 1)
        ]
    );
}

#[test]
fn the_last_of_two_counts() {
    assert_eq!(config("-p 1 --port 2").port, 2);
    assert_eq!(config("--user a -u b").user.as_deref(), Some("b"));
}

#[test]
fn the_published_line() {
    let parsed = config("-u root -n 51200 -l 172.17.7.66 -p 12000 -b b:11211");
    assert_eq!(parsed.max_conns, 51200);
    assert_eq!(parsed.listen, ["172.17.7.66"]);
    assert!(!parsed.foreground);
}

#[test]
fn help_and_version_need_nothing_else() {
    for words in [
        &["-h"][..],
        &["--help"],
        &["-D", "-h", "word"],
        &["-p", "x", "-h"],
    ] {
        assert_eq!(parse_words(words), Ok(Parsed::Help), "{words:?}");
    }
    for words in [&["-V"][..], &["--version"]] {
        assert_eq!(parse_words(words), Ok(Parsed::Version), "{words:?}");
    }
}

#[test]
fn every_wrong_value_is_named_as_written() {
    for (line, message) in [
        ("-p 70000", "-p 70000: not a port (0 to 65535)"),
        ("-p70000", "-p 70000: not a port (0 to 65535)"),
        ("--port 70000", "--port 70000: not a port (0 to 65535)"),
        ("--port=70000", "--port 70000: not a port (0 to 65535)"),
        ("-kp 70000", "-p 70000: not a port (0 to 65535)"),
        ("-u x --port=abc", "--port abc: not a port (0 to 65535)"),
        ("-ux -n 1 -p -1", "-p -1: not a port (0 to 65535)"),
        ("-p +1", "-p +1: not a port (0 to 65535)"),
        ("-p ", "-p '': not a port (0 to 65535)"),
        ("--port=", "--port '': not a port (0 to 65535)"),
        ("-p a\nb", "-p a\\nb: not a port (0 to 65535)"),
        ("-u ", "-u '': not a user name or id"),
        ("--group a:b", "--group a:b: not a group name or id"),
        (
            "-l 10.0.0.1:80",
            "-l 10.0.0.1:80: not an address or name (the port is given with -p)",
        ),
        ("--listen 1.2.3", "--listen 1.2.3: '1.2.3' is not an IPv4 address"),
        ("-s b:0", "-s b:0: '0' is not a port (1 to 65535)"),
        ("--server b:1:9999", "--server b:1:9999: '9999' is not a weight (1 to 1000)"),
        ("-b b:1:2", "-b b:1:2: a backup takes no weight (HOST[:PORT])"),
        ("--backup=", "--backup '': the host is missing"),
        ("-n 0", "-n 0: not a number from 1 to 10000000"),
        ("-n many", "-n many: not a number from 1 to 10000000"),
        ("--max-conns 99999999999999999999", "--max-conns 99999999999999999999: not a number from 1 to 10000000"),
        ("-i 0", "-i 0: not a number from 1 to 64"),
        ("--server-conns=65", "--server-conns 65: not a number from 1 to 64"),
        ("--timeout 0", "--timeout 0: not a number from 1 to 60000"),
        ("--copies 0", "--copies 0: not a number of copies (1 to 1000, or all)"),
        ("--copies some", "--copies some: not a number of copies (1 to 1000, or all)"),
        ("--ack both", "--ack both: not one of all, primary"),
        ("--ack=", "--ack '': not one of all, primary"),
        ("--rejoin asis", "--rejoin asis: not one of safe, as-is"),
        ("--read-repair on", "--read-repair on: not one of auto, always, off"),
        ("--journal-keys -1", "--journal-keys -1: not a number from 0 to 1000000000"),
        ("--resync-rate 1k", "--resync-rate 1k: not a number from 0 to 100000000"),
        (
            "--proxy-id=a\tb",
            "--proxy-id a\\tb: not a name (1 to 64 printable ASCII characters, no blanks)",
        ),
        (
            "--proxy-id=",
            "--proxy-id '': not a name (1 to 64 printable ASCII characters, no blanks)",
        ),
        (
            "--proxy-id é",
            "--proxy-id é: not a name (1 to 64 printable ASCII characters, no blanks)",
        ),
        ("--verify=1", "--verify: takes no value"),
        (
            "--eject",
            "--eject: there is no other server for the keys (needs two -s)",
        ),
        (
            "--eject -s b -b c",
            "--eject: not with -b (the keys of a dead primary are on its backups)",
        ),
        (
            "--eject -s b --rejoin as-is",
            "--eject: not with --rejoin as-is (old values would be served)",
        ),
        ("--verify", "--verify: there are no copies to compare (needs -b)"),
        (
            "--max-item-size 1",
            "--max-item-size 1: not a size from 1k to 1g (bytes, or with k, m, g)",
        ),
        (
            "--memory-limit 5x",
            "--memory-limit 5x: not a size from 1m to 1024g (bytes, or with k, m, g)",
        ),
        (
            "--memory-limit 99999999999999999g",
            "--memory-limit 99999999999999999g: not a size from 1m to 1024g (bytes, or with k, m, g)",
        ),
        (
            "--memory-limit 1m",
            "--memory-limit 1m: too small for --max-item-size 1m (at least twice as much)",
        ),
        ("--idle-timeout -5", "--idle-timeout -5: not a number from 0 to 31536000"),
        ("--drain-ms x", "--drain-ms x: not a number from 0 to 3600000"),
        ("--pidfile ", "--pidfile '': not a path"),
        ("--log-file=", "--log-file '': not a path"),
        ("-f ", "-f '': not a path"),
        ("-p 0", "-p 0: nothing would listen (needs -f PATH)"),
        (
            "--max-item-size=600000k",
            "--memory-limit 1g: too small for --max-item-size 600000k (at least twice as much)",
        ),
        ("--port=0", "--port 0: nothing would listen (needs -f PATH)"),
        ("-x", "-x: unknown option (-h lists them)"),
        ("-Dx", "-x: unknown option (-h lists them)"),
        ("--nonsense=1", "--nonsense: unknown option (-h lists them)"),
        ("--timeuot 5", "--timeuot: unknown option (did you mean --timeout?)"),
        ("--read_repair=off", "--read_repair: unknown option (did you mean --read-repair?)"),
        ("-verify", "-e: unknown option (did you mean --verify?)"),
        (
            "-timeout 5",
            "5: not an option, and nothing else is taken; did you mean --timeout?",
        ),
        (
            "-timeout=5",
            "-i meout=5: not a number from 1 to 64; did you mean --timeout?",
        ),
        ("--a\nb", "--a\\nb: unknown option (-h lists them)"),
        ("--ketama=1", "--ketama: takes no value"),
        ("word", "word: not an option, and nothing else is taken"),
        ("", "'': not an option, and nothing else is taken"),
        ("-- -p", "-p: not an option, and nothing else is taken"),
        ("-p x -n 0", "-p x: not a port (0 to 65535)"),
        ("-n 0 -p x", "-n 0: not a number from 1 to 10000000"),
        ("--n 0", "--n 0: not a number from 1 to 10000000"),
    ] {
        assert_eq!(error(line), message, "{line}");
    }
}

#[test]
fn a_proxy_id_is_not_too_long() {
    let fits = "x".repeat(64);
    assert_eq!(config(&format!("--proxy-id {fits}")).proxy_id, fits);
    assert_eq!(
        error(&format!("--proxy-id {fits}x")),
        format!("--proxy-id {fits}x: not a name (1 to 64 printable ASCII characters, no blanks)")
    );
}

#[test]
fn verify_listens_nowhere() {
    let config = config("--verify -b b -p 0 -l 10.0.0.1 -n 5");
    assert!(config.verify && config.port == 0);
}

#[test]
fn a_socket_path_fits_its_address() {
    let fits = "x".repeat(107);
    assert_eq!(config(&format!("-f {fits}")).socket, Some(fits.into()));
    let long = "x".repeat(108);
    assert_eq!(
        error(&format!("-f {long}")),
        format!("-f {long}: too long for a socket (at most 107 bytes)")
    );
}

#[test]
fn what_is_missing() {
    assert_eq!(
        error_of(&[]),
        "which servers? Type: magent -s HOST[:PORT] -b HOST[:PORT] (-h lists all options)"
    );
    assert_eq!(
        error_of(&["-D"]),
        "-s: at least one server is needed (-s HOST[:PORT][:WEIGHT]; -h lists all options)"
    );
    assert_eq!(error_of(&["-s"]), "-s: a value is missing");
    assert_eq!(error_of(&["--server"]), "--server: a value is missing");
}

#[test]
fn too_many_servers() {
    let words: Vec<String> = (0..1001).map(|n| format!("-bb{n}")).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    assert_eq!(
        error_of(&words),
        "-b b1000: too many servers (at most 1000 with the backups)"
    );
}

#[test]
fn bytes_that_are_no_text() {
    let words = [
        OsString::from("-s"),
        OsString::from_vec(b"a\xff\n".to_vec()),
    ];
    assert_eq!(
        parse(words),
        Err(UsageError("a\u{fffd}\\n: not UTF-8".into()))
    );
}
