//! The table of options: one row says how an option is written, what it means, what its default is
//! and how its value is checked. Parser and `-h` text are made from the same rows.

use super::addr::{self, number};
use super::asking::{parse_target, parse_top};
use super::values::{
    bytes, bytes_text, check_servers, choice, none, put_name, put_path, put_proxy_id, within, word,
};
use super::{Ack, Config, Copies, Distribution, LogFormat, ReadRepair, Rejoin};
use crate::time::Span;

/// Most servers, primaries and backups together.
pub const SERVERS_MAX: usize = 1000;

/// Most client connections that can be asked for: what Linux allows as open files, and more.
pub const CONNS_MAX: u64 = 10_000_000;

/// The longest path of a Unix socket: what `sockaddr_un` holds besides its final NUL.
pub const SOCKET_PATH_MAX: usize = 107;

/// Most keys that a journal may hold: at some 100 bytes each, more memory than a host has.
pub(super) const JOURNAL_KEYS_MAX: u64 = 1_000_000_000;

/// The highest rate of the background copy: more than any server gives.
pub(super) const RESYNC_RATE_MAX: u64 = 100_000_000;

pub(super) const ACKS: &[(&str, Ack)] = &[("all", Ack::All), ("primary", Ack::Primary)];

pub(super) const REJOINS: &[(&str, Rejoin)] = &[("safe", Rejoin::Safe), ("as-is", Rejoin::AsIs)];

const LOG_FORMATS: &[(&str, LogFormat)] = &[("text", LogFormat::Text), ("json", LogFormat::Json)];

pub(super) const READ_REPAIRS: &[(&str, ReadRepair)] = &[
    ("auto", ReadRepair::Auto),
    ("always", ReadRepair::Always),
    ("off", ReadRepair::Off),
];

/// One option.
pub(super) struct Row {
    /// The letter, or empty.
    pub short: &'static str,
    /// The long name without its dashes.
    pub long: &'static str,
    /// How the value is called; empty for an option without value.
    pub value: &'static str,
    /// What it means.
    pub meaning: &'static str,
    /// Its default as `-h` prints it; empty: there is none.
    pub default: fn(&Config) -> String,
    /// Checks the value and takes it; the error says what is wrong and what is allowed.
    pub set: fn(&mut Config, &str) -> Result<(), String>,
}

/// Every option, in the order of `-h`.
pub(super) const TABLE: &[Row] = &[
    Row {
        short: "h",
        long: "help",
        value: "",
        meaning: "print this text and exit",
        default: none,
        set: |_, _| Ok(()),
    },
    Row {
        short: "V",
        long: "version",
        value: "",
        meaning: "print the version and exit",
        default: none,
        set: |_, _| Ok(()),
    },
    Row {
        short: "c",
        long: "config",
        value: "FILE",
        meaning: "the pools are in this YAML file, in twemproxy's schema; SIGHUP reads it again. Instead of -s, -b, -p, \
                  -l, -f, -k and --eject; the other options hold for pools that say nothing else",
        default: none,
        set: |c, v| put_path(&mut c.file, v),
    },
    Row {
        short: "t",
        long: "test-config",
        value: "",
        meaning: "serve nobody: say everything that is wrong in the file of -c, exit 0 if nothing is, 1 if anything is",
        default: none,
        set: |c, _| {
            c.test = true;
            Ok(())
        },
    },
    Row {
        short: "",
        long: "route",
        value: "",
        meaning: "serve nobody: print where the keys given behind all options go: pool, hash, primary, backups in order",
        default: none,
        set: |_, _| Ok(()),
    },
    Row {
        short: "u",
        long: "user",
        value: "NAME|UID",
        meaning: "run as this user (needs root)",
        default: none,
        set: |c, v| put_name(&mut c.user, v, "not a user name or id"),
    },
    Row {
        short: "g",
        long: "group",
        value: "NAME|GID",
        meaning: "run as this group (needs root); the user's own without it",
        default: none,
        set: |c, v| put_name(&mut c.group, v, "not a group name or id"),
    },
    Row {
        short: "p",
        long: "port",
        value: "N",
        meaning: "TCP port to listen on; 0: no TCP, only -f",
        default: |c| c.port.to_string(),
        set: |c, v| {
            let port = number(v).and_then(|n| u16::try_from(n).ok());
            c.port = port.ok_or("not a port (0 to 65535)")?;
            Ok(())
        },
    },
    Row {
        short: "l",
        long: "listen",
        value: "ADDR",
        meaning:
            "address or name to listen on, also one that this host does not have yet; repeatable",
        default: |_| "all".into(),
        set: |c, v| {
            c.listen.push(addr::parse_listen(v)?);
            Ok(())
        },
    },
    Row {
        short: "f",
        long: "socket",
        value: "PATH",
        meaning: "listen on this Unix socket as well (mode 0660, owned by -u and -g)",
        default: none,
        set: |c, v| {
            if v.len() > SOCKET_PATH_MAX {
                return Err(format!(
                    "too long for a socket (at most {SOCKET_PATH_MAX} bytes)"
                ));
            }
            put_path(&mut c.socket, v)
        },
    },
    Row {
        short: "s",
        long: "server",
        value: "HOST[:PORT][:WEIGHT]",
        meaning: "a memcached server; repeatable, at least one; their order places the keys",
        default: none,
        set: |c, v| {
            c.servers.push(addr::parse_server(v)?);
            check_servers(c)
        },
    },
    Row {
        short: "b",
        long: "backup",
        value: "HOST[:PORT]",
        meaning: "a memcached server that holds copies; repeatable",
        default: none,
        set: |c, v| {
            c.backups.push(addr::parse_backup(v)?);
            check_servers(c)
        },
    },
    Row {
        short: "n",
        long: "max-conns",
        value: "N",
        meaning: "most client connections at once",
        default: |c| c.max_conns.to_string(),
        set: |c, v| {
            c.max_conns = within(v, 1, CONNS_MAX)? as usize;
            Ok(())
        },
    },
    Row {
        short: "i",
        long: "server-conns",
        value: "N",
        meaning: "connections to each server; a key always uses the same one",
        default: |c| c.server_conns.to_string(),
        set: |c, v| {
            c.server_conns = within(v, 1, 64)? as usize;
            Ok(())
        },
    },
    Row {
        short: "k",
        long: "ketama",
        value: "",
        meaning: "place keys by ketama instead of modulo",
        default: none,
        set: |c, _| {
            c.distribution = Distribution::MagentKetama;
            Ok(())
        },
    },
    Row {
        short: "d",
        long: "daemon",
        value: "",
        meaning: "go to the background, also with -v; without -D and -v it is done anyway",
        default: none,
        set: |c, _| {
            c.daemon = true;
            Ok(())
        },
    },
    Row {
        short: "D",
        long: "foreground",
        value: "",
        meaning: "stay in the foreground",
        default: none,
        set: |c, _| {
            c.foreground = true;
            Ok(())
        },
    },
    Row {
        short: "v",
        long: "verbose",
        value: "",
        meaning: "stay in the foreground and say more; more with each v",
        default: none,
        set: |c, _| {
            c.foreground = true;
            c.verbose = c.verbose.saturating_add(1);
            Ok(())
        },
    },
    Row {
        short: "",
        long: "timeout",
        value: "MS",
        meaning: "milliseconds to connect to a server, and for each of its answers",
        default: |c| (c.timeout.0 / 1000).to_string(),
        set: |c, v| {
            c.timeout = Span::from_millis(within(v, 1, 60_000)?);
            Ok(())
        },
    },
    Row {
        short: "",
        long: "copies",
        value: "N|all",
        meaning: "how many backups hold each key; 1: only the hashed one, as magent 0.6",
        default: |c| match c.copies {
            Copies::All => "all".into(),
            Copies::AtMost(n) => n.to_string(),
        },
        set: |c, v| {
            let most = number(v).filter(|n| (1..=SERVERS_MAX as u64).contains(n));
            c.copies = match (v, most) {
                ("all", _) => Copies::All,
                (_, Some(n)) => Copies::AtMost(n as usize),
                _ => {
                    return Err(format!(
                        "not a number of copies (1 to {SERVERS_MAX}, or all)"
                    ))
                }
            };
            Ok(())
        },
    },
    Row {
        short: "",
        long: "eject",
        value: "",
        meaning: "without -b: while a server is away its keys go to the others, where they are missed at first; \
                  without it they are misses, and writes of them errors",
        default: none,
        set: |c, _| {
            c.eject = true;
            Ok(())
        },
    },
    Row {
        short: "",
        long: "ack",
        value: "all|primary",
        meaning: "a write is answered when all its copies that are up have it, or only the first",
        default: |c| word(c.ack, ACKS),
        set: |c, v| {
            c.ack = choice(v, ACKS)?;
            Ok(())
        },
    },
    Row {
        short: "",
        long: "journal-keys",
        value: "N",
        meaning: "keys written while a server was away that are remembered for it, to delete only \
                  those on its return; 0: none, it is flushed",
        default: |c| c.journal_keys.to_string(),
        set: |c, v| {
            c.journal_keys = within(v, 0, JOURNAL_KEYS_MAX)? as usize;
            Ok(())
        },
    },
    Row {
        short: "",
        long: "rejoin",
        value: "safe|as-is",
        meaning: "before a server that was away serves again, take from it what it may hold stale; or not",
        default: |c| word(c.rejoin, REJOINS),
        set: |c, v| {
            c.rejoin = choice(v, REJOINS)?;
            Ok(())
        },
    },
    Row {
        short: "",
        long: "read-repair",
        value: "auto|always|off",
        meaning: "ask the other copies for a key that a server misses: while it refills, always, or never",
        default: |c| word(c.read_repair, READ_REPAIRS),
        set: |c, v| {
            c.read_repair = choice(v, READ_REPAIRS)?;
            Ok(())
        },
    },
    Row {
        short: "",
        long: "resync-rate",
        value: "N",
        meaning: "keys per second that are copied to a server that came back; 0: none. With --verify: \
                  that are compared (50000 unless given); 0: as fast as it goes",
        default: |c| c.resync_rate.to_string(),
        set: |c, v| {
            c.resync_rate = within(v, 0, RESYNC_RATE_MAX)? as u32;
            Ok(())
        },
    },
    Row {
        short: "",
        long: "proxy-id",
        value: "NAME",
        meaning: "how this proxy signs on the servers; each of a pool needs its own, the same after a restart",
        default: |_| "host name/address".into(),
        set: |c, v| put_proxy_id(&mut c.proxy_id, v),
    },
    Row {
        short: "",
        long: "verify",
        value: "",
        meaning: "serve nobody: compare all copies of all keys once, exit 0 if none differ, 1 if any do",
        default: none,
        set: |c, _| {
            c.verify = true;
            Ok(())
        },
    },
    Row {
        short: "",
        long: "check",
        value: "ADDR",
        meaning: "serve nobody: ask the magent at HOST[:PORT] or at the path of a Unix socket how it is, within \
                  --timeout (then 300), and say so in one line and the exit code",
        default: none,
        set: |c, v| {
            c.check = Some(parse_target(v)?);
            Ok(())
        },
    },
    Row {
        short: "",
        long: "watch",
        value: "ADDR",
        meaning: "serve nobody: ask the magent at ADDR for ever, and write the exit code that --check \
                  would have to --track-file when it changes",
        default: none,
        set: |c, v| {
            c.watch = Some(parse_target(v)?);
            Ok(())
        },
    },
    Row {
        short: "",
        long: "top",
        value: "HOST[:PORT]",
        meaning: "serve nobody: show in the terminal, each second, how the magent with that --admin is (port 12001); \
                  q ends it",
        default: none,
        set: |c, v| {
            c.top = Some(parse_top(v)?);
            Ok(())
        },
    },
    Row {
        short: "",
        long: "track-file",
        value: "PATH",
        meaning: "the file that --watch writes and a track_file of keepalived reads",
        default: none,
        set: |c, v| put_path(&mut c.track_file, v),
    },
    Row {
        short: "",
        long: "interval",
        value: "MS",
        meaning: "milliseconds from one question of --watch to the next",
        default: |c| (c.interval.0 / 1000).to_string(),
        set: |c, v| {
            c.interval = Span::from_millis(within(v, 1, 60_000)?);
            Ok(())
        },
    },
    Row {
        short: "",
        long: "max-item-size",
        value: "BYTES",
        meaning: "largest item, as memcached's -I: 1k to 1024m (suffixes k, m, g)",
        default: |c| bytes_text(c.max_item_size),
        set: |c, v| {
            c.max_item_size = bytes(v, 1 << 10, 1 << 30)?;
            Ok(())
        },
    },
    Row {
        short: "",
        long: "memory-limit",
        value: "BYTES",
        meaning: "most memory for buffered requests and replies (suffixes k, m, g)",
        default: |c| bytes_text(c.memory_limit),
        set: |c, v| {
            c.memory_limit = bytes(v, 1 << 20, 1 << 40)?;
            Ok(())
        },
    },
    Row {
        short: "",
        long: "idle-timeout",
        value: "SECONDS",
        meaning: "close clients that were silent that long; 0: never",
        default: |c| c.idle_timeout.map_or(0, |t| t.0 / 1_000_000).to_string(),
        set: |c, v| {
            let seconds = within(v, 0, 31_536_000)?;
            c.idle_timeout = (seconds > 0).then(|| Span::from_secs(seconds));
            Ok(())
        },
    },
    Row {
        short: "",
        long: "handover",
        value: "SECONDS",
        meaning: "so long after a reload keys that have moved are fetched from where they were; 0: not at all",
        default: |c| (c.handover.0 / 1_000_000).to_string(),
        set: |c, v| {
            c.handover = Span::from_secs(within(v, 0, 31_536_000)?);
            Ok(())
        },
    },
    Row {
        short: "",
        long: "takeover",
        value: "",
        meaning: "take the listening sockets over from the magent that has them, and let it go once clients are served",
        default: none,
        set: |c, _| {
            c.takeover = true;
            Ok(())
        },
    },
    Row {
        short: "",
        long: "drain-ms",
        value: "MS",
        meaning: "how long SIGTERM lets requests in flight finish",
        default: |c| (c.drain.0 / 1000).to_string(),
        set: |c, v| {
            c.drain = Span::from_millis(within(v, 0, 3_600_000)?);
            Ok(())
        },
    },
    Row {
        short: "",
        long: "admin",
        value: "ADDR:PORT",
        meaning: "serve metrics, health and a page over HTTP at this IP address; anybody who gets there can read them",
        default: none,
        set: |c, v| {
            let address = v.parse().map_err(|_| "not an IP address and port (127.0.0.1:12001 or [::1]:12001)")?;
            c.admin = Some(address);
            Ok(())
        },
    },
    Row {
        short: "",
        long: "slow-ms",
        value: "MS",
        meaning: "log requests that take so long, with command, server and what they waited for; 0: none",
        default: |c| c.slow.map_or(0, |slow| slow.0 / 1000).to_string(),
        set: |c, v| {
            let ms = within(v, 0, 60_000)?;
            c.slow = (ms > 0).then(|| Span::from_millis(ms));
            Ok(())
        },
    },
    Row {
        short: "",
        long: "log-keys",
        value: "",
        meaning: "show keys as they are in the log of slow requests; without it a hash of each (the first half of its MD5)",
        default: none,
        set: |c, _| {
            c.log_keys = true;
            Ok(())
        },
    },
    Row {
        short: "",
        long: "log-format",
        value: "text|json",
        meaning: "lines of the log for people, or JSON objects",
        default: |c| word(c.log_format, LOG_FORMATS),
        set: |c, v| {
            c.log_format = choice(v, LOG_FORMATS)?;
            Ok(())
        },
    },
    Row {
        short: "",
        long: "pidfile",
        value: "PATH",
        meaning: "write the process id here; removed at exit",
        default: none,
        set: |c, v| put_path(&mut c.pidfile, v),
    },
    Row {
        short: "o",
        long: "log-file",
        value: "PATH",
        meaning: "log to this file (reopened on SIGHUP) instead of stderr or, as a daemon, syslog",
        default: none,
        set: |c, v| put_path(&mut c.log_file, v),
    },
];
