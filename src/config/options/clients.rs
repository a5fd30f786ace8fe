//! Where clients connect, and what they may use up.

use super::{Row, CONNS_MAX, SOCKET_PATH_MAX};
use crate::config::addr::{self, number};
use crate::config::values::{bytes, bytes_text, none, put_path, within};
use crate::time::Span;

pub(super) const ROWS: &[Row] = &[
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
];
