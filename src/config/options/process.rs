//! The process: whose it is, how it begins and ends.

use super::Row;
use crate::config::values::{none, put_name, put_path, within};
use crate::time::Span;

pub(super) const ROWS: &[Row] = &[
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
        short: "",
        long: "pidfile",
        value: "PATH",
        meaning: "write the process id here; removed at exit",
        default: none,
        set: |c, v| put_path(&mut c.pidfile, v),
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
        long: "takeover",
        value: "",
        meaning: "take the listening sockets over from the magent that has them, and let it go once clients are served",
        default: none,
        set: |c, _| {
            c.takeover = true;
            Ok(())
        },
    },
];
