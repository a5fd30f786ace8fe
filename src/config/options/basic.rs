//! What is served and where, by which servers, as which process: the options of magent 0.6 and what belongs to them.

use super::{Row, CONNS_MAX, SOCKET_PATH_MAX};
use crate::config::addr::{self, number};
use crate::config::values::{check_servers, none, put_name, put_path, within};
use crate::config::Distribution;

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
];
