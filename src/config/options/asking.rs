//! Options of a magent that serves nobody, and asks files, servers or another magent instead.

use super::Row;
use crate::config::asking::{parse_admin, parse_target};
use crate::config::values::{none, put_path, within};
use crate::time::Span;

pub(super) const ROWS: &[Row] = &[
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
        long: "top",
        value: "HOST[:PORT]",
        meaning: "serve nobody: show in the terminal, each second, how the magent with that --admin is (port 12001); \
                  q ends it",
        default: none,
        set: |c, v| {
            c.top = Some(parse_admin(v)?);
            Ok(())
        },
    },
];
