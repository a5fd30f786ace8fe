//! The table of options: one row says how an option is written, what it means, what its default is
//! and how its value is checked. Parser and `-h` text are made from the same rows.

use std::path::PathBuf;

use super::addr::{self, number};
use super::{Config, Copies};
use crate::time::Span;

/// Most servers, primaries and backups together.
pub const SERVERS_MAX: usize = 1000;

/// Most client connections that can be asked for: what Linux allows as open files, and more.
pub const CONNS_MAX: u64 = 10_000_000;

/// The longest path of a Unix socket: what `sockaddr_un` holds besides its final NUL.
pub const SOCKET_PATH_MAX: usize = 107;

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
            c.ketama = true;
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
        long: "pidfile",
        value: "PATH",
        meaning: "write the process id here; removed at exit",
        default: none,
        set: |c, v| put_path(&mut c.pidfile, v),
    },
    Row {
        short: "",
        long: "log-file",
        value: "PATH",
        meaning: "log to this file (reopened on SIGHUP) instead of stderr or, as a daemon, syslog",
        default: none,
        set: |c, v| put_path(&mut c.log_file, v),
    },
];

fn none(_: &Config) -> String {
    String::new()
}

fn within(text: &str, least: u64, most: u64) -> Result<u64, String> {
    number(text)
        .filter(|n| (least..=most).contains(n))
        .ok_or_else(|| format!("not a number from {least} to {most}"))
}

/// A number of bytes with an optional k, m or g (powers of 1024, as memcached's `-I`).
fn bytes(text: &str, least: u64, most: u64) -> Result<usize, String> {
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 10),
        Some(b'm' | b'M') => (&text[..text.len() - 1], 20),
        Some(b'g' | b'G') => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    number(digits)
        .and_then(|n| n.checked_mul(1 << shift))
        .filter(|n| (least..=most).contains(n))
        .and_then(|n| usize::try_from(n).ok())
        .ok_or_else(|| {
            let (least, most) = (bytes_text(least as usize), bytes_text(most as usize));
            format!("not a size from {least} to {most} (bytes, or with k, m, g)")
        })
}

fn bytes_text(bytes: usize) -> String {
    for (shift, suffix) in [(30, 'g'), (20, 'm'), (10, 'k')] {
        if bytes > 0 && bytes.trailing_zeros() >= shift {
            return format!("{}{suffix}", bytes >> shift);
        }
    }
    bytes.to_string()
}

fn put_name(slot: &mut Option<String>, value: &str, wrong: &str) -> Result<(), String> {
    if value.is_empty() || value.contains([':', '\n', '\0']) {
        return Err(wrong.into());
    }
    *slot = Some(value.to_owned());
    Ok(())
}

fn put_path(slot: &mut Option<PathBuf>, value: &str) -> Result<(), String> {
    if value.is_empty() || value.contains('\0') {
        return Err("not a path".into());
    }
    *slot = Some(PathBuf::from(value));
    Ok(())
}

fn check_servers(config: &Config) -> Result<(), String> {
    if config.servers.len() + config.backups.len() > SERVERS_MAX {
        return Err(format!(
            "too many servers (at most {SERVERS_MAX} with the backups)"
        ));
    }
    Ok(())
}
