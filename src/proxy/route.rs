//! Which servers hold a key: the primary by its hash, then the backups in order of preference.

use crate::config::{Config, Copies, ServerSpec};
use crate::hash::{djb31, Ring};

/// Where one key lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Route {
    /// magent's hash of the key, 31 bits.
    pub hash: u32,
    primary: u16,
    /// Index among the backups of the first one; the others follow in cyclic order.
    first_backup: u16,
}

impl Route {
    /// The index of the primary.
    pub fn primary(self) -> u16 {
        self.primary
    }
}

/// The placement of all keys; fixed at start.
#[derive(Debug)]
pub struct Routes {
    primaries: Ring,
    backups: Option<Ring>,
    primary_count: usize,
    backup_count: usize,
    /// How many backups hold each key.
    copies: usize,
    /// Per server: the lowest index with the same address. A server given twice holds one copy, not two.
    identity: Vec<u16>,
}

impl Routes {
    /// The placement that `config` asks for.
    pub fn new(config: &Config) -> Routes {
        let copies = match config.copies {
            Copies::All => config.backups.len(),
            Copies::AtMost(limit) => limit.min(config.backups.len()),
        };
        let all: Vec<&ServerSpec> = config.servers.iter().chain(&config.backups).collect();
        let same = |a: &ServerSpec, b: &ServerSpec| a.host == b.host && a.port == b.port;
        let identity = all
            .iter()
            .map(|spec| all.iter().position(|other| same(spec, other)).unwrap_or(0) as u16)
            .collect();
        Routes {
            primaries: ring(&config.servers, config.ketama),
            backups: (copies > 0).then(|| ring(&config.backups, config.ketama)),
            primary_count: config.servers.len(),
            backup_count: config.backups.len(),
            copies,
            identity,
        }
    }

    /// Where `key` lives.
    pub fn of(&self, key: &[u8]) -> Route {
        let hash = djb31(key);
        let first_backup = match &self.backups {
            Some(ring) => ring.pick_hashed(hash, key) as u16,
            None => 0,
        };
        Route {
            hash,
            primary: self.primaries.pick_hashed(hash, key) as u16,
            first_backup,
        }
    }

    /// How many ranks a key has: its primary and its backups.
    pub fn ranks(&self) -> usize {
        1 + self.copies
    }

    /// Every combination of a primary and a first backup that some key has, by primary. Where the first backup makes no
    /// difference, as all of them hold every key, there is one for each primary.
    pub fn all(&self) -> Vec<Route> {
        let backups = match &self.backups {
            Some(backups) if self.copies < self.backup_count => backups,
            _ => &Ring::modula(&[1]),
        };
        let meetings = self.primaries.meetings(backups).into_iter();
        let route = |(primary, first_backup)| Route {
            hash: 0,
            primary,
            first_backup,
        };
        meetings.map(route).collect()
    }

    /// Whether any server that holds a copy is live; `live` has an entry for each server.
    pub fn is_live(&self, route: Route, live: &[bool]) -> bool {
        let is_live = |server: usize| live.get(server).copied().unwrap_or(false);
        let mut ranks = (0..self.ranks()).filter_map(|rank| self.server(route, rank));
        ranks.any(is_live)
    }

    /// The server that holds the copy of rank `rank` (0: the primary). `None`: it would be the primary once more.
    pub fn server(&self, route: Route, rank: usize) -> Option<usize> {
        if rank == 0 {
            return Some(usize::from(route.primary));
        }
        let backup = (usize::from(route.first_backup) + rank - 1) % self.backup_count;
        let server = self.primary_count + backup;
        let primary = usize::from(route.primary);
        (self.identity[server] != self.identity[primary]).then_some(server)
    }
}

fn ring(servers: &[ServerSpec], ketama: bool) -> Ring {
    if ketama {
        let named: Vec<(String, u32)> = servers
            .iter()
            .map(|spec| (format!("{}:{}", spec.host, spec.port), spec.weight))
            .collect();
        Ring::ketama(&named)
    } else {
        let weights: Vec<u32> = servers.iter().map(|spec| spec.weight).collect();
        Ring::modula(&weights)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(port: u16) -> ServerSpec {
        ServerSpec {
            host: "127.0.0.1".into(),
            port,
            weight: 1,
        }
    }

    fn config(primaries: &[u16], backups: &[u16], copies: Copies) -> Config {
        Config {
            servers: primaries.iter().map(|&port| spec(port)).collect(),
            backups: backups.iter().map(|&port| spec(port)).collect(),
            copies,
            ..Config::default()
        }
    }

    fn servers(routes: &Routes, key: &[u8]) -> Vec<usize> {
        let route = routes.of(key);
        (0..routes.ranks())
            .filter_map(|rank| routes.server(route, rank))
            .collect()
    }

    #[test]
    fn the_published_placement_of_three_and_two() {
        let routes = Routes::new(&config(&[1, 2, 3], &[4, 5], Copies::AtMost(1)));
        assert_eq!(servers(&routes, b"key1"), [0, 4]);
        assert_eq!(servers(&routes, b"key2"), [1, 3]);
        assert_eq!(servers(&routes, b"key3"), [2, 4]);
    }

    #[test]
    fn all_backups_hold_a_key_the_hashed_one_first() {
        let routes = Routes::new(&config(&[1, 2, 3], &[4, 5], Copies::All));
        assert_eq!(servers(&routes, b"key1"), [0, 4, 3]);
        assert_eq!(servers(&routes, b"key2"), [1, 3, 4]);
    }

    #[test]
    fn a_server_given_twice_holds_one_copy() {
        let routes = Routes::new(&config(&[1, 2], &[1, 2], Copies::All));
        for key in [&b"key1"[..], b"key2", b"key3"] {
            assert_eq!(servers(&routes, key).len(), 2);
        }
        let alone = Routes::new(&config(&[1, 2], &[], Copies::All));
        assert_eq!(servers(&alone, b"key1"), [1]);
    }
}
