//! Which servers, and which keys go where.

use super::Row;
use crate::config::addr;
use crate::config::values::{check_servers, copies, none, put_path, within};
use crate::config::{Copies, Distribution};
use crate::time::Span;

pub(super) const ROWS: &[Row] = &[
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
        short: "c",
        long: "config",
        value: "FILE",
        meaning: "the pools are in this YAML file, in twemproxy's schema; SIGHUP reads it again. Instead of -s, -b, -p, \
                  -l, -f, -k and --eject; the other options hold for pools that say nothing else",
        default: none,
        set: |c, v| put_path(&mut c.file, v),
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
            c.copies = copies(v)?;
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
];
