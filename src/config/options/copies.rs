//! How copies are kept equal, and what a server that returns gets.

use super::{Row, ACKS, JOURNAL_KEYS_MAX, READ_REPAIRS, REJOINS, RESYNC_RATE_MAX};
use crate::config::values::{choice, put_proxy_id, within, word};

pub(super) const ROWS: &[Row] = &[
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
];
