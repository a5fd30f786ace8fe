//! Where magent is to listen, and which options asked for it. Names are resolved here; nothing is opened.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

use super::resolve;
use crate::config::Config;
use crate::sys::SystemError;

/// Where a listener listens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Spot {
    /// By TCP.
    Tcp(SocketAddr),
    /// At a path.
    Unix(PathBuf),
}

/// A TCP address to listen at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// The address.
    pub address: SocketAddr,
    /// The options that asked for it, for messages.
    pub asked: String,
    /// IPv6 only, or IPv4 as well through the same socket.
    pub(super) only_v6: bool,
    /// Without IPv6 on this host all IPv4 addresses will do.
    pub(super) or_v4: bool,
    pub(super) backlog: i32,
    /// Other processes may listen there as well.
    pub reuseport: bool,
}

/// The TCP addresses that `-l` and `-p`, or `listen` in a file, ask for, names resolved, in a fixed order without repetition.
pub fn places(config: &Config) -> Result<Vec<Place>, SystemError> {
    let port = config.port;
    if config.listen.is_empty() && port > 0 {
        return Ok(vec![Place {
            backlog: config.backlog,
            reuseport: config.reuseport,
            address: (Ipv6Addr::UNSPECIFIED, port).into(),
            asked: format!("-p {port}"),
            only_v6: false,
            or_v4: true,
        }]);
    }
    let mut places: Vec<Place> = Vec::new();
    let ours = config.listen.iter().filter(|_| port > 0).map(|host| {
        let option = format!("-l {host}");
        (host, port, format!("{option} -p {port}"), option)
    });
    let files = config.listen_at.iter().map(|(host, port)| {
        let pool = config.pool.as_deref().unwrap_or_default();
        let asked = format!("pool '{pool}': listen: {host}:{port}");
        (host, *port, asked.clone(), asked)
    });
    for (host, port, asked, name) in ours.chain(files) {
        let found = (host.as_str(), port).to_socket_addrs();
        let found = found.map_err(|error| resolve::failure(name, &error))?;
        places.extend(found.map(|address| Place {
            backlog: config.backlog,
            reuseport: config.reuseport,
            address,
            asked: asked.clone(),
            only_v6: false,
            or_v4: false,
        }));
    }
    // Two starts of the same line must ask for the marks in the same order, or each could get one of two.
    places.sort_by_key(|place| place.address);
    places.dedup_by_key(|place| place.address);
    let any_v4 = places
        .iter()
        .any(|p| p.address.ip() == IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    for place in &mut places {
        // `-l ::` alone means everything; next to `-l 0.0.0.0` it must leave IPv4 to that.
        place.only_v6 = any_v4 || place.address.ip() != IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    }
    Ok(places)
}

/// How a Unix socket was asked for, for messages.
pub fn asked_unix(config: &Config, path: &Path) -> String {
    match &config.pool {
        Some(pool) => format!("pool '{pool}': listen: {}", path.display()),
        None => format!("-f {}", path.display()),
    }
}

impl Place {
    /// Whether a socket at that address is the one.
    pub(super) fn is_at(&self, address: SocketAddr) -> bool {
        let any_v4 = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), self.address.port());
        address == self.address || (self.or_v4 && address == any_v4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(port: u16, listen: &[&str]) -> Config {
        Config {
            port,
            listen: listen.iter().map(|&l| l.to_owned()).collect(),
            ..Config::default()
        }
    }

    fn addresses(listen: &[&str]) -> Vec<String> {
        let places = places(&config(80, listen)).unwrap();
        places.iter().map(|p| p.address.to_string()).collect()
    }

    #[test]
    fn which_places() {
        assert_eq!(addresses(&[]), ["[::]:80"]);
        assert_eq!(
            addresses(&["127.0.0.2", "127.0.0.1", "127.0.0.2"]),
            ["127.0.0.1:80", "127.0.0.2:80"]
        );
        assert!(addresses(&["localhost"]).contains(&"127.0.0.1:80".to_owned()));
        assert!(places(&config(0, &["127.0.0.1"])).unwrap().is_empty());
    }

    #[test]
    fn all_of_ipv6_takes_ipv4_unless_that_is_asked_for_too() {
        let only = |listen: &[&str]| {
            let places = places(&config(80, listen)).unwrap();
            places
                .iter()
                .find(|p| p.address.is_ipv6())
                .map(|p| p.only_v6)
        };
        assert_eq!(only(&[]), Some(false));
        assert_eq!(only(&["::"]), Some(false));
        assert_eq!(only(&["::", "0.0.0.0"]), Some(true));
        assert_eq!(only(&["::1"]), Some(true));
    }

    #[test]
    fn a_name_that_does_not_resolve_is_named() {
        let error = places(&config(80, &["no-such-host.invalid"]))
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("-l no-such-host.invalid: does not resolve"),
            "{error}"
        );
    }
}
