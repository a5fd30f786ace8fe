//! Mistakes with which magent runs, but not as its user thinks: a copy that is none. Each is one line. Told by what the
//! addresses say; two names of one server are told when both have answered.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use super::Plan;
use crate::config::{Config, Copies, ServerSpec};
use crate::net::ServerAddress;

/// A server, as it was asked for, and the addresses that it has.
struct Known<'a> {
    option: &'static str,
    spec: &'a ServerSpec,
    addresses: Vec<ServerAddress>,
}

impl Known<'_> {
    fn is_at(&self, endpoint: &ServerAddress) -> bool {
        self.addresses.contains(endpoint)
    }

    fn is(&self, other: &Known<'_>) -> bool {
        self.spec.address() == other.spec.address()
            || self.addresses.iter().any(|address| other.is_at(address))
    }

    fn said(&self) -> String {
        format!("{} {}", self.option, self.spec.address())
    }
}

/// What is doubtful in a pool that is about to be opened.
pub fn of_plan(plan: &Plan) -> Vec<String> {
    let addresses = plan.addresses.iter().map(|server| server.known().to_vec());
    doubts(&plan.config, &known(&plan.config, addresses))
}

/// The same as far as it can be told without asking for names.
pub fn of_config(config: &Config) -> Vec<String> {
    doubts(config, &known_numbers(config))
}

/// The server of a pool that is the pool itself, as far as that can be told without asking for names.
pub fn itself_in(config: &Config) -> Option<String> {
    itself(config, &listens(config), &known_numbers(config))
}

/// The server of this pool that is this pool.
pub(super) fn is_itself(plan: &Plan) -> Option<String> {
    let addresses = plan.addresses.iter().map(|server| server.known().to_vec());
    let listens: Vec<_> = plan.places.iter().map(|place| place.address).collect();
    itself(&plan.config, &listens, &known(&plan.config, addresses))
}

fn known(config: &Config, addresses: impl Iterator<Item = Vec<ServerAddress>>) -> Vec<Known<'_>> {
    let (servers, backups) = words(config);
    let servers = config.servers.iter().map(|spec| (servers, spec));
    let all = servers.chain(config.backups.iter().map(|spec| (backups, spec)));
    let known = |((option, spec), addresses)| Known {
        option,
        spec,
        addresses,
    };
    all.zip(addresses).map(known).collect()
}

fn known_numbers(config: &Config) -> Vec<Known<'_>> {
    let specs = config.servers.iter().chain(&config.backups);
    let addresses = specs.map(|spec| match (spec.is_unix(), spec.host.parse()) {
        (true, _) => vec![ServerAddress::Unix(spec.host.clone().into())],
        (_, Ok(ip)) => vec![ServerAddress::Tcp(SocketAddr::new(ip, spec.port))],
        (_, Err(_)) => Vec::new(),
    });
    known(config, addresses)
}

/// How servers and backups are asked for.
fn words(config: &Config) -> (&'static str, &'static str) {
    match config.pool {
        Some(_) => ("servers:", "backups:"),
        None => ("-s", "-b"),
    }
}

/// Where it listens, as far as that is numbers.
fn listens(config: &Config) -> Vec<SocketAddr> {
    let hosts = config.listen.iter().map(|host| (host, config.port));
    let hosts = hosts.chain(config.listen_at.iter().map(|(host, port)| (host, *port)));
    let numbers = hosts.filter_map(|(host, port)| Some(SocketAddr::new(host.parse().ok()?, port)));
    let any = config
        .listen
        .is_empty()
        .then(|| ([0; 16], config.port).into());
    numbers
        .chain(any)
        .filter(|address| address.port() > 0)
        .collect()
}

fn doubts(config: &Config, servers: &[Known<'_>]) -> Vec<String> {
    let mut said = Vec::new();
    let pool = in_pool(config);
    let primaries = config.servers.len();
    for (index, server) in servers.iter().enumerate() {
        let Some(before) = servers[..index].iter().find(|before| before.is(server)) else {
            continue;
        };
        let (this, before_is_primary) = (
            server.said(),
            index >= primaries && before.option != server.option,
        );
        let why = match before_is_primary {
            true => "its keys have no copy there",
            false => "it counts once",
        };
        said.push(format!(
            "{pool}{this}: the same server as {}: {why}",
            before.said()
        ));
    }
    let backups = config.backups.len();
    if let Copies::AtMost(copies) = config.copies {
        if copies > backups {
            let copies_are = match config.pool {
                Some(_) => "copies:",
                None => "--copies",
            };
            let there_are = match backups {
                0 => "there are no backups".to_owned(),
                1 => "there is only 1 backup".to_owned(),
                _ => format!("there are only {backups} backups"),
            };
            said.push(format!("{pool}{copies_are} {copies}: {there_are}"));
        }
    }
    said
}

fn itself(config: &Config, listens: &[SocketAddr], servers: &[Known<'_>]) -> Option<String> {
    let is_own = |server: &&Known<'_>| {
        let by_tcp = |listen: &SocketAddr| {
            server.addresses.iter().any(|address| match address {
                ServerAddress::Tcp(there) if listen.ip().is_unspecified() => {
                    there.port() == listen.port() && is_here(there.ip())
                }
                ServerAddress::Tcp(there) => there == listen,
                ServerAddress::Unix(_) => false,
            })
        };
        let by_path = |path| server.is_at(&ServerAddress::Unix(path));
        listens.iter().any(by_tcp) || config.socket.clone().is_some_and(by_path)
    };
    let server = servers.iter().find(is_own)?;
    let pool = in_pool(config);
    Some(format!(
        "{pool}{}: that is where magent itself listens",
        server.said()
    ))
}

fn in_pool(config: &Config) -> String {
    let pool = config.pool.as_deref();
    pool.map_or_else(String::new, |pool| format!("pool '{pool}': "))
}

/// Whether an address is this host's: what is sent to it from here comes from it, too. Nothing is sent.
fn is_here(ip: IpAddr) -> bool {
    let any = match ip {
        IpAddr::V4(_) => SocketAddr::from(([0; 4], 0)),
        IpAddr::V6(_) => SocketAddr::from(([0; 16], 0)),
    };
    let source = UdpSocket::bind(any).and_then(|socket| {
        socket.connect((ip, 9))?;
        socket.local_addr()
    });
    ip.is_loopback() || source.is_ok_and(|source| source.ip() == ip)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::args::{parse, Parsed};

    fn said(line: &str) -> Vec<String> {
        match parse(line.split_whitespace().map(Into::into)) {
            Ok(Parsed::Run(config)) => {
                let mut said = of_config(&config);
                said.extend(itself_in(&config));
                said
            }
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn each_in_one_line() {
        for (line, expected) in [
            ("-s a -s b -b c --copies 1", None),
            ("-s a -s a", Some("-s a:11211: the same server as -s a:11211: it counts once")),
            (
                "-s 127.0.0.1:1 -b 127.0.0.1:1",
                Some("-b 127.0.0.1:1: the same server as -s 127.0.0.1:1: its keys have no copy there"),
            ),
            ("-s a -b b:2 -b b:2", Some("-b b:2: the same server as -b b:2: it counts once")),
            ("-s a -b b --copies 2", Some("--copies 2: there is only 1 backup")),
            ("-s a --copies 1", Some("--copies 1: there are no backups")),
            (
                "-l 127.0.0.1 -p 7 -s 127.0.0.1:7",
                Some("-s 127.0.0.1:7: that is where magent itself listens"),
            ),
            (
                "-p 7 -s a -b [::1]:7",
                Some("-b ::1:7: that is where magent itself listens"),
            ),
            ("-p 7 -s 192.0.2.1:7", None),
            ("-l 127.0.0.1 -p 7 -s 127.0.0.2:7", None),
        ] {
            let expected: Vec<_> = expected.into_iter().collect();
            assert_eq!(said(line), expected, "{line}");
        }
    }
}
