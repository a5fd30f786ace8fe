//! What people are told.

use super::{Row, LOG_FORMATS};
use crate::config::asking::parse_admin;
use crate::config::values::{choice, none, put_path, within, word};
use crate::time::Span;

pub(super) const ROWS: &[Row] = &[
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
        short: "o",
        long: "log-file",
        value: "PATH",
        meaning: "log to this file (reopened on SIGHUP) instead of stderr or, as a daemon, syslog",
        default: none,
        set: |c, v| put_path(&mut c.log_file, v),
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
];
