//! Commands with a CAS token from before the fault. Where all servers take numbers from outside, it is good after it;
//! elsewhere the client is told to ask again, and never that it won by chance.

use crate::common::pool::*;
use crate::common::{Client, Memcached, Pool};

/// With a token, for a key that holds 5 and has it.
const COMMANDS: [(&str, &str, &str); 4] = [
    ("cas K 0 0 1 T\r\n6", "STORED", "EXISTS"),
    ("ms K 1 CT\r\n6", "HD", "EX"),
    ("ma K CT v", "VA 1\r\n6", "EX"),
    ("md K CT", "HD", "EX"),
];

/// A pair of servers of each kind that there is here, and whether both take numbers from outside.
fn pairs(options: &[&str]) -> Vec<(Pool, bool)> {
    let new = || Memcached::of_release("trixie", &[]);
    let mut pairs = vec![vec![Memcached::start(), Memcached::start()]];
    if let (Some(one), Some(other), Some(third)) = (new(), new(), new()) {
        pairs.push(vec![one, other]);
        pairs.push(vec![third, Memcached::start()]);
    }
    let pool = |mut servers: Vec<Memcached>| {
        let versions = servers.iter().all(Memcached::takes_versions);
        let backups = servers.split_off(1);
        (Pool::of(servers, backups, options), versions)
    };
    pairs.into_iter().map(pool).collect()
}

fn token(client: &mut Client, key: &str) -> String {
    let reply = client.ask(&format!("gets {key}"));
    let head = reply.lines().next().unwrap_or_default();
    assert!(head.starts_with("VALUE "), "gets {key}: {reply}");
    head.rsplit(' ').next().unwrap_or_default().to_string()
}

fn with(command: &str, key: &str, token: &str) -> String {
    command.replace('K', key).replace('T', token)
}

/// A key for each command, and its token.
fn take_tokens(client: &mut Client) -> Vec<String> {
    let keys = 0..COMMANDS.len();
    keys.map(|n| {
        client.set(&format!("k{n}"), "5");
        token(client, &format!("k{n}"))
    })
    .collect()
}

/// Each command with its old token; where that is refused, with a new one.
#[track_caller]
fn assert_tokens(client: &mut Client, tokens: &[String], good: bool, when: &str) {
    for (n, (command, taken, refused)) in COMMANDS.iter().enumerate() {
        let key = format!("k{n}");
        let old = with(command, &key, &tokens[n]);
        let reply = client.ask(&old);
        assert_eq!(
            reply,
            *if good { taken } else { refused },
            "{when}: {old:?}"
        );
        if !good {
            assert_eq!(client.get(&key).as_deref(), Some("5"), "{when}");
            let fresh = token(client, &key);
            assert_eq!(client.ask(&with(command, &key, &fresh)), *taken, "{when}");
        }
        let left = if command.starts_with("md") {
            None
        } else {
            Some("6")
        };
        assert_eq!(client.get(&key).as_deref(), left, "{when}");
        // Once only.
        let again = client.ask(&old);
        let gone = ["NOT_FOUND", "NF"].contains(&again.as_str());
        assert!(again == *refused || gone, "{when}: {old:?} again: {again}");
    }
}

#[test]
fn with_the_primary_dead() {
    for (mut pool, versions) in pairs(&[]) {
        let mut client = pool.client();
        let tokens = take_tokens(&mut client);
        pool.primaries[0].kill();
        assert_tokens(&mut client, &tokens, versions, "the primary is dead");
    }
}

#[test]
fn with_the_primary_back_and_empty() {
    for (mut pool, versions) in pairs(&LAZY) {
        let mut client = pool.client();
        let tokens = take_tokens(&mut client);
        replace_by_empty(&mut client, &mut pool.primaries[0]);
        assert_eq!(state(&mut client, &pool.primaries[0]), "cold");
        assert_tokens(&mut client, &tokens, versions, "the primary is empty");
    }
}

#[test]
fn with_the_primary_stopped_and_with_it_killed_in_flight() {
    for kill in [false, true] {
        for (mut pool, versions) in pairs(&[]) {
            let mut client = pool.client();
            let tokens = take_tokens(&mut client);
            pool.primaries[0].freeze();
            let mut clients: Vec<Client> = tokens.iter().map(|_| pool.client()).collect();
            for (n, (command, ..)) in COMMANDS.iter().enumerate() {
                clients[n].send(with(command, &format!("k{n}"), &tokens[n]) + "\r\n");
            }
            if kill {
                crate::common::wait_for("all are in flight", crate::common::PATIENCE, || {
                    pool.client()
                        .stat("magent_in_flight")
                        .parse::<usize>()
                        .unwrap()
                        >= tokens.len()
                });
                pool.primaries[0].kill();
            }
            for (n, (command, taken, refused)) in COMMANDS.iter().enumerate() {
                let reply = String::from_utf8_lossy(&clients[n].reply()).into_owned();
                let expected = if versions { taken } else { refused };
                assert_eq!(reply.trim_end(), *expected, "{command:?}, killed: {kill}");
            }
        }
    }
}

#[test]
fn with_the_backup_dead_or_stopped() {
    for dead in [true, false] {
        for (mut pool, _) in pairs(&[]) {
            let mut client = pool.client();
            let tokens = take_tokens(&mut client);
            match dead {
                true => pool.backups[0].kill(),
                false => pool.backups[0].freeze(),
            }
            assert_tokens(&mut client, &tokens, true, "the backup is away");
        }
    }
}

#[test]
fn with_all_dead() {
    for (mut pool, _) in pairs(&[]) {
        let mut client = pool.client();
        let tokens = take_tokens(&mut client);
        pool.primaries[0].kill();
        pool.backups[0].kill();
        wait_state(&mut client, &pool.primaries[0], &["down"]);
        wait_state(&mut client, &pool.backups[0], &["down"]);
        for (n, (command, ..)) in COMMANDS.iter().enumerate() {
            let reply = client.ask(&with(command, &format!("k{n}"), &tokens[n]));
            assert_eq!(reply, "SERVER_ERROR no server for this key is up");
        }
    }
}
