//! Limits, the end of a process and its successor, and what people are told.

use super::{Row, LOG_FORMATS};
use crate::config::asking::parse_admin;
use crate::config::values::{bytes, bytes_text, choice, none, put_path, within, word};
use crate::time::Span;

pub(super) const ROWS: &[Row] = &[
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
        meaning: "serve metrics, health and a page over HTTP at this address or name; anybody who gets there can read them",
        default: none,
        set: |c, v| {
            c.admin = Some(parse_admin(v)?);
            Ok(())
        },
    },
    Row {
        short: "",
        long: "admin-name",
        value: "NAME",
        meaning: "a name that --admin may be asked by, besides addresses, localhost and the name of this host; repeatable",
        default: none,
        set: |c, v| {
            if v.is_empty() || v.contains(|letter: char| letter.is_whitespace() || letter == ':') {
                return Err("not a host name".into());
            }
            c.admin_names.push(v.into());
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
