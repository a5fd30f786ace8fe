//! The keys of a pool: one row each says how it is written, what it means and how its value is checked.

use super::place::{parse_listen, Listen};
use crate::config::options::{
    ACKS, CONNS_MAX, JOURNAL_KEYS_MAX, READ_REPAIRS, REJOINS, RESYNC_RATE_MAX,
};
use crate::config::values::{bytes, choice, copies, put_proxy_id, within};
use crate::config::{Config, Distribution};
use crate::hash::KEY_HASHES;
use crate::time::Span;

/// Most milliseconds that `timeout` can be.
const TIMEOUT_MAX: u64 = 3_600_000;

/// What `timeout: 0`, which is none for twemproxy, is here: a server that says nothing for so long is lost in any case.
const TIMEOUT_NONE: u64 = 60_000;

/// Most connections to one server.
const SERVER_CONNECTIONS_MAX: u64 = 255;

/// How keys can be distributed.
pub const DISTRIBUTIONS: &[(&str, Distribution)] = &[
    ("ketama", Distribution::Ketama),
    ("modula", Distribution::Modula),
    ("random", Distribution::Random),
    ("magent", Distribution::Magent),
    ("magent-ketama", Distribution::MagentKetama),
    ("jump", Distribution::Jump),
    ("rendezvous", Distribution::Rendezvous),
];

/// A pool as far as its file has been read.
pub struct Draft {
    /// What it becomes.
    pub config: Config,
    /// `auto_eject_hosts`.
    pub eject: bool,
    /// The `hash` that was given.
    pub hash: bool,
    /// `redis: true`.
    pub redis: bool,
}

/// A key with one value.
pub struct Row {
    /// As it is written.
    pub key: &'static str,
    /// Checks the value and takes it; the error says what is wrong and what is allowed.
    pub set: fn(&mut Draft, &str) -> Result<(), String>,
}

/// Keys whose values are lists.
pub const LISTS: [&str; 2] = ["servers", "backups"];

/// All keys with one value: first twemproxy's, then magent's own.
pub const ROWS: &[Row] = &[
    Row {
        key: "listen",
        set: |draft, v| {
            match parse_listen(v)? {
                Listen::Tcp(host, port) => draft.config.listen_at.push((host, port)),
                Listen::Unix(..) if draft.config.socket.is_some() => {
                    return Err("a second Unix socket (a pool has one at most)".into())
                }
                Listen::Unix(path, mode) => {
                    draft.config.socket = Some(path.into());
                    draft.config.socket_mode = mode;
                }
            }
            Ok(())
        },
    },
    Row {
        key: "hash",
        set: |draft, v| {
            draft.config.hash = choice(v, KEY_HASHES)?;
            draft.hash = true;
            Ok(())
        },
    },
    Row {
        key: "hash_tag",
        set: |draft, v| {
            let tag = <[u8; 2]>::try_from(v.as_bytes());
            let tag = tag.map_err(|_| "not a tag of two characters, as \"{}\"".to_owned())?;
            draft.config.hash_tag = Some(tag);
            Ok(())
        },
    },
    Row {
        key: "distribution",
        set: |draft, v| {
            draft.config.distribution = choice(v, DISTRIBUTIONS)?;
            Ok(())
        },
    },
    Row {
        key: "timeout",
        set: |draft, v| {
            let given = within(v, 0, TIMEOUT_MAX)?;
            let millis = if given == 0 { TIMEOUT_NONE } else { given };
            draft.config.timeout = Span::from_millis(millis);
            Ok(())
        },
    },
    Row {
        key: "backlog",
        set: |draft, v| {
            draft.config.backlog = within(v, 1, i32::MAX as u64)? as i32;
            Ok(())
        },
    },
    Row {
        key: "client_connections",
        set: |draft, v| {
            let most = within(v, 0, CONNS_MAX)? as usize;
            // 0: no limit of the pool's own.
            draft.config.max_conns = if most == 0 {
                draft.config.max_conns
            } else {
                most
            };
            Ok(())
        },
    },
    Row {
        key: "preconnect",
        // It always does.
        set: |_, v| truth(v).map(drop),
    },
    Row {
        key: "server_connections",
        set: |draft, v| {
            draft.config.server_conns = within(v, 1, SERVER_CONNECTIONS_MAX)? as usize;
            Ok(())
        },
    },
    Row {
        key: "auto_eject_hosts",
        set: |draft, v| {
            draft.eject = truth(v)?;
            Ok(())
        },
    },
    Row {
        key: "server_retry_timeout",
        set: |draft, v| {
            let millis = within(v, 0, TIMEOUT_MAX)?;
            draft.config.retry_max = Span::from_millis(millis.max(20));
            Ok(())
        },
    },
    Row {
        key: "server_failure_limit",
        // A failure costs no client anything, so there is nothing to wait for.
        set: |_, v| within(v, 0, u64::from(u32::MAX)).map(drop),
    },
    Row {
        key: "tcpkeepalive",
        // It always does.
        set: |_, v| truth(v).map(drop),
    },
    Row {
        key: "reuseport",
        set: |draft, v| {
            draft.config.reuseport = truth(v)?;
            Ok(())
        },
    },
    Row {
        key: "redis",
        set: |draft, v| {
            draft.redis = truth(v)?;
            match draft.redis {
                true => Err("this is a pool of Redis servers, and magent speaks memcached only: leave it to twemproxy, \
                             in a file of its own"
                    .into()),
                false => Ok(()),
            }
        },
    },
    Row {
        key: "redis_auth",
        set: |_, _| Err("only for Redis, which magent does not speak".into()),
    },
    Row {
        key: "redis_db",
        set: |_, v| within(v, 0, u64::from(u32::MAX)).map(drop),
    },
    Row {
        key: "copies",
        set: |draft, v| {
            draft.config.copies = copies(v)?;
            Ok(())
        },
    },
    Row {
        key: "ack",
        set: |draft, v| {
            draft.config.ack = choice(v, ACKS)?;
            Ok(())
        },
    },
    Row {
        key: "rejoin",
        set: |draft, v| {
            draft.config.rejoin = choice(v, REJOINS)?;
            Ok(())
        },
    },
    Row {
        key: "read_repair",
        set: |draft, v| {
            draft.config.read_repair = choice(v, READ_REPAIRS)?;
            Ok(())
        },
    },
    Row {
        key: "resync_rate",
        set: |draft, v| {
            draft.config.resync_rate = within(v, 0, RESYNC_RATE_MAX)? as u32;
            Ok(())
        },
    },
    Row {
        key: "journal_keys",
        set: |draft, v| {
            draft.config.journal_keys = within(v, 0, JOURNAL_KEYS_MAX)? as usize;
            Ok(())
        },
    },
    Row {
        key: "memory_limit",
        set: |draft, v| {
            draft.config.memory_limit = bytes(v, 1 << 20, 1 << 40)?;
            Ok(())
        },
    },
    Row {
        key: "max_item_size",
        set: |draft, v| {
            draft.config.max_item_size = bytes(v, 1 << 10, 1 << 30)?;
            Ok(())
        },
    },
    Row {
        key: "idle_timeout",
        set: |draft, v| {
            let seconds = within(v, 0, 31_536_000)?;
            draft.config.idle_timeout = (seconds > 0).then(|| Span::from_secs(seconds));
            Ok(())
        },
    },
    Row {
        key: "proxy_id",
        set: |draft, v| put_proxy_id(&mut draft.config.proxy_id, v),
    },
];

/// All keys of a pool.
pub fn all() -> impl Iterator<Item = &'static str> {
    ROWS.iter().map(|row| row.key).chain(LISTS)
}

fn truth(text: &str) -> Result<bool, String> {
    match text {
        "true" | "True" | "TRUE" => Ok(true),
        "false" | "False" | "FALSE" => Ok(false),
        _ => Err("neither true nor false".into()),
    }
}
