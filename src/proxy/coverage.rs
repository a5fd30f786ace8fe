//! The room of what `stats health` tells: whether every key has a live copy, and which addresses of clients are here.

use std::net::IpAddr;

use super::route::{Route, Routes};
use crate::time::Time;

/// Whether every key has a live copy. Looked at anew only when a server has come or gone since.
#[derive(Debug)]
pub struct Coverage {
    routes: Vec<Route>,
    /// Per server, as it was when `lacking` was found.
    live: Vec<bool>,
    /// Primaries of keys without a live copy, ascending.
    lacking: Vec<u16>,
}

impl Coverage {
    /// Knows the placement; no server is live yet.
    pub fn new(routes: &Routes) -> Coverage {
        Coverage {
            routes: routes.all(),
            live: Vec::new(),
            lacking: Vec::new(),
        }
    }

    /// The primaries of keys that have no live copy, by index, given which servers are live.
    pub fn lacking(
        &mut self,
        placement: &Routes,
        live: impl Iterator<Item = bool> + Clone,
    ) -> &[u16] {
        if !live.clone().eq(self.live.iter().copied()) {
            self.live.clear();
            self.live.extend(live);
            let (routes, live) = (&self.routes, &self.live);
            let lacking = routes
                .iter()
                .filter(|route| !placement.is_live(**route, live));
            self.lacking = lacking.map(|route| route.primary()).collect();
            self.lacking.dedup();
        }
        &self.lacking
    }
}

/// An address of `-l`, as the edge last saw it.
#[derive(Clone, Copy, Debug)]
pub struct Address {
    /// The address.
    pub ip: IpAddr,
    /// This host has it.
    pub is_here: bool,
    /// Since when; no earlier than the start.
    pub since: Time,
}

/// Takes note of an address in a list that holds each once. Whether that is news.
pub fn note(addresses: &mut Vec<Address>, ip: IpAddr, is_here: bool, now: Time) -> bool {
    let new = Address {
        ip,
        is_here,
        since: now,
    };
    match addresses.iter_mut().find(|address| address.ip == ip) {
        Some(address) if address.is_here == is_here => return false,
        Some(address) => *address = new,
        None => addresses.push(new),
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Copies, ServerSpec};

    const NONE: [u16; 0] = [];

    fn lacking(primaries: &[u16], backups: &[u16], copies: Copies, live: &[u16]) -> Vec<u16> {
        let spec = |&port: &u16| ServerSpec {
            host: "h".into(),
            port,
            weight: 1,
            name: None,
        };
        let routes = Routes::new(&Config {
            servers: primaries.iter().map(spec).collect(),
            backups: backups.iter().map(spec).collect(),
            copies,
            ..Config::default()
        });
        let mut coverage = Coverage::new(&routes);
        let all = primaries.iter().chain(backups);
        coverage
            .lacking(&routes, all.map(|port| live.contains(port)))
            .to_vec()
    }

    #[test]
    fn without_backups_each_primary_counts() {
        assert_eq!(lacking(&[1, 2], &[], Copies::All, &[1, 2]), NONE);
        assert_eq!(lacking(&[1, 2], &[], Copies::All, &[1]), [1]);
        assert_eq!(lacking(&[1, 2, 3], &[], Copies::All, &[]), [0, 1, 2]);
    }

    #[test]
    fn with_eject_another_primary_will_do() {
        let servers = |count: u16| {
            (1..=count).map(|port| ServerSpec {
                host: "h".into(),
                port,
                weight: 1,
                name: None,
            })
        };
        let routes = |count| {
            Routes::new(&Config {
                servers: servers(count).collect(),
                eject: true,
                ..Config::default()
            })
        };
        let lacking = |count: u16, away: u16| {
            let routes = routes(count);
            let live = (0..count).map(|server| server >= away);
            Coverage::new(&routes).lacking(&routes, live).len()
        };
        assert_eq!([lacking(3, 0), lacking(3, 2), lacking(3, 3)], [0, 0, 3]);
        // A key has not as many places.
        assert_eq!([lacking(40, 15), lacking(40, 16)], [0, 16]);
    }

    #[test]
    fn any_backup_will_do_when_all_hold_all() {
        assert_eq!(lacking(&[1, 2], &[3, 4], Copies::All, &[4]), NONE);
        assert_eq!(lacking(&[1, 2], &[3, 4], Copies::All, &[1]), [1]);
    }

    #[test]
    fn with_one_copy_it_is_the_hashed_backup_that_counts() {
        let one = Copies::AtMost(1);
        // Keys of the first primary are all on the first backup, as 2 and 2 have a common divisor.
        assert_eq!(lacking(&[1, 2], &[3, 4], one, &[2, 3]), NONE);
        assert_eq!(lacking(&[1, 2], &[3, 4], one, &[2, 4]), [0]);
        // 3 and 2 have none: every combination is some key's.
        assert_eq!(lacking(&[1, 2, 3], &[4, 5], one, &[2, 3, 4]), [0]);
        assert_eq!(lacking(&[1, 2, 3], &[4, 5], one, &[2, 3, 4, 5]), NONE);
        let two = Copies::AtMost(2);
        assert_eq!(lacking(&[1, 2, 3], &[4, 5, 6], two, &[2, 3, 4]), NONE);
        assert_eq!(lacking(&[1], &[4, 5, 6], two, &[4]), [0]);
    }

    #[test]
    fn a_server_that_is_its_own_backup_is_no_second_copy() {
        assert_eq!(lacking(&[1, 2], &[1, 2], Copies::All, &[1]), NONE);
        // Seen differently through its two entries for a moment.
        let routes = Routes::new(&Config {
            servers: vec![crate::config::addr::parse_server("h:1").unwrap()],
            backups: vec![crate::config::addr::parse_backup("h:1").unwrap()],
            ..Config::default()
        });
        let mut coverage = Coverage::new(&routes);
        assert_eq!(coverage.lacking(&routes, [false, true].into_iter()), [0]);
    }

    #[test]
    fn what_was_found_is_found_again_when_a_server_changes() {
        let routes = Routes::new(&Config {
            servers: vec![crate::config::addr::parse_server("h:1").unwrap()],
            ..Config::default()
        });
        let mut coverage = Coverage::new(&routes);
        for live in [true, false, false, true] {
            let expect: &[u16] = if live { &[] } else { &[0] };
            assert_eq!(coverage.lacking(&routes, [live].into_iter()), expect);
        }
    }

    #[test]
    fn an_address_is_noted_once_and_keeps_its_time() {
        let mut all = Vec::new();
        let ip: IpAddr = "192.0.2.1".parse().unwrap();
        for (here, at, since) in [(false, 1, 1), (false, 5, 1), (true, 7, 7), (true, 9, 7)] {
            note(&mut all, ip, here, Time(at));
            assert_eq!(all.len(), 1);
            assert_eq!((all[0].is_here, all[0].since), (here, Time(since)));
        }
    }
}
