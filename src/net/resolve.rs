//! The servers' addresses. Names are resolved at the start, and again after a connection to that server failed: in
//! a thread of its own, as the C library can take many seconds and the event loop none. Numeric addresses never are.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{mpsc, Arc};
use std::thread;

use mio::Waker;

use crate::config::ServerSpec;
use crate::sys::SystemError;
use crate::time::{Span, Time};

/// A name is asked for at most this often.
const INTERVAL: Span = Span::from_secs(1);

/// Most threads that ask at once. A server that finds none free is asked for at its next failure.
const THREADS_MAX: usize = 16;

/// Where one connection goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Endpoint {
    /// By TCP.
    Tcp(SocketAddr),
    /// To a Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Tcp(address) => address.fmt(f),
            Endpoint::Unix(path) => path.display().fmt(f),
        }
    }
}

type Answer = (u64, io::Result<Vec<Endpoint>>);

/// Addresses of one server; made before the process goes to the background.
pub struct Addresses {
    spec: ServerSpec,
    numeric: bool,
    known: Vec<Endpoint>,
    /// Index into `known`: where the next connection goes.
    current: usize,
    asking: bool,
    asked: Option<Time>,
    /// Tells it from others when its place among them changes.
    id: u64,
}

impl Addresses {
    /// Resolves `spec`, given by `option`; waits for the answer.
    pub fn resolve(option: &str, spec: &ServerSpec) -> Result<Addresses, SystemError> {
        let asked = format!("{option} {}", spec.host);
        let known = match spec.is_unix() {
            true => vec![Endpoint::Unix(PathBuf::from(&spec.host))],
            false => look_up(&spec.host, spec.port).map_err(|error| failure(asked, &error))?,
        };
        Ok(Addresses {
            spec: spec.clone(),
            numeric: spec.is_unix() || spec.host.parse::<IpAddr>().is_ok(),
            known,
            current: 0,
            asking: false,
            asked: None,
            id: 0,
        })
    }

    /// All of them.
    pub fn known(&self) -> &[Endpoint] {
        &self.known
    }

    /// How many addresses there are to try; never zero.
    pub fn count(&self) -> usize {
        self.known.len()
    }

    /// Where the next connection goes.
    pub fn current(&self) -> &Endpoint {
        // `known` is never empty and `current` always below its length.
        &self.known[self.current]
    }

    /// `address` did not work. When it is still the current one, the next is.
    pub fn failed(&mut self, address: &Endpoint) {
        if self.current() == address {
            self.current = (self.current + 1) % self.known.len();
        }
    }

    /// Takes a new answer; the address in use stays current when it is still among them. True when anything changed.
    fn replace(&mut self, mut found: Vec<Endpoint>) -> bool {
        let current = self.current().clone();
        // Round-robin answers come in any order: a different order is no change.
        let same = found.len() == self.known.len() && found.iter().all(|a| self.known.contains(a));
        if same || found.is_empty() {
            return false;
        }
        self.current = found.iter().position(|a| *a == current).unwrap_or(0);
        std::mem::swap(&mut self.known, &mut found);
        true
    }
}

/// All servers' addresses, and the threads that renew them.
pub(super) struct Resolver {
    servers: Vec<Addresses>,
    sender: Sender<Answer>,
    answers: Receiver<Answer>,
    waker: Arc<Waker>,
    threads: usize,
    next_id: u64,
}

impl Resolver {
    pub fn new(servers: Vec<Addresses>, waker: Arc<Waker>) -> Resolver {
        let (sender, answers) = mpsc::channel();
        let mut resolver = Resolver {
            servers: Vec::with_capacity(servers.len()),
            sender,
            answers,
            waker,
            threads: 0,
            next_id: 0,
        };
        servers.into_iter().for_each(|server| resolver.add(server));
        resolver
    }

    /// One more server, with the next index.
    pub fn add(&mut self, server: Addresses) {
        self.next_id += 1;
        let id = self.next_id;
        self.servers.push(Addresses { id, ..server });
    }

    /// Servers have other indices, by the old one; those that have none are gone.
    pub fn rearrange(&mut self, moves: &[Option<u16>]) {
        let servers = std::mem::take(&mut self.servers).into_iter().zip(moves);
        let mut servers: Vec<(u16, Addresses)> = servers
            .filter_map(|(server, index)| Some(((*index)?, server)))
            .collect();
        servers.sort_by_key(|(index, _)| *index);
        self.servers = servers.into_iter().map(|(_, server)| server).collect();
    }

    /// By the old index, the index that each server has in the order of these; none where it is none of them.
    pub fn moves_to<'a>(&self, specs: impl Iterator<Item = &'a ServerSpec>) -> Vec<Option<u16>> {
        let mut moves = vec![None; self.servers.len()];
        for (new, spec) in specs.enumerate() {
            let same = |server: &Addresses| server.spec.address() == spec.address();
            let mut all = self.servers.iter().enumerate();
            // The last one is the one that joined last.
            let found = all.rfind(|(old, server)| moves[*old].is_none() && same(server));
            if let Some((old, _)) = found {
                moves[old] = Some(new as u16);
            }
        }
        moves
    }

    /// The addresses of a server, by its index.
    pub fn server(&mut self, index: u16) -> Option<&mut Addresses> {
        self.servers.get_mut(usize::from(index))
    }

    /// A connection to that server failed: ask for its name again, unless that is under way or was just done.
    pub fn renew(&mut self, index: u16, now: Time) {
        let index = usize::from(index);
        let Some(server) = self.servers.get_mut(index) else {
            return;
        };
        let recent = server
            .asked
            .is_some_and(|asked| now.since(asked) < INTERVAL);
        if server.numeric || server.asking || recent || self.threads >= THREADS_MAX {
            return;
        }
        let (host, port, id) = (server.spec.host.clone(), server.spec.port, server.id);
        let (sender, waker) = (self.sender.clone(), Arc::clone(&self.waker));
        let spawned = thread::Builder::new()
            .name("magent-dns".into())
            .spawn(move || {
                // When the loop is gone, so is the process.
                let _ = sender.send((id, look_up(&host, port)));
                let _ = waker.wake();
            });
        server.asked = Some(now);
        match spawned {
            Ok(_) => {
                server.asking = true;
                self.threads += 1;
            }
            Err(error) => log::warn!("cannot resolve {}: {error}", server.spec.host),
        }
    }

    /// Takes the answers that have come; called when the waker fired.
    pub fn collect(&mut self) {
        while let Ok((id, answer)) = self.answers.try_recv() {
            self.threads -= 1;
            let Some(server) = self.servers.iter_mut().find(|server| server.id == id) else {
                continue;
            };
            server.asking = false;
            let host = &server.spec.host;
            match answer {
                Ok(found) => {
                    let text = format!("{host} is now {}", join(&found));
                    if server.replace(found) {
                        log::info!("{text}");
                    }
                }
                Err(error) => log::debug!(
                    "{host} does not resolve ({}); the old address is kept",
                    why(&error)
                ),
            }
        }
    }
}

/// The error of a name at the start.
pub(super) fn failure(asked: String, error: &io::Error) -> SystemError {
    SystemError::new(asked, format_args!("does not resolve ({})", why(error)))
}

fn look_up(host: &str, port: u16) -> io::Result<Vec<Endpoint>> {
    let mut found: Vec<Endpoint> = Vec::new();
    for address in (host, port).to_socket_addrs()?.map(Endpoint::Tcp) {
        if !found.contains(&address) {
            found.push(address);
        }
    }
    if found.is_empty() {
        return Err(io::Error::other("no address"));
    }
    Ok(found)
}

fn why(error: &io::Error) -> String {
    let text = crate::sys::reason(error);
    match text.strip_prefix("failed to lookup address information: ") {
        Some(rest) => rest.to_owned(),
        None => text,
    }
}

fn join(addresses: &[Endpoint]) -> String {
    let texts: Vec<String> = addresses.iter().map(Endpoint::to_string).collect();
    texts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(host: &str) -> ServerSpec {
        ServerSpec {
            host: host.into(),
            port: 7,
            weight: 1,
            name: None,
        }
    }

    fn address(n: u8) -> Endpoint {
        Endpoint::Tcp(SocketAddr::from(([127, 0, 0, n], 7)))
    }

    fn addresses(known: &[u8]) -> Addresses {
        let mut addresses = Addresses::resolve("-s", &spec("127.0.0.1")).unwrap();
        addresses.known = known.iter().map(|&n| address(n)).collect();
        addresses
    }

    #[test]
    fn numbers_and_names() {
        let numeric = Addresses::resolve("-s", &spec("127.0.0.1")).unwrap();
        assert!(numeric.numeric);
        assert_eq!((numeric.current(), numeric.count()), (&address(1), 1));
        assert!(
            !Addresses::resolve("-s", &spec("localhost"))
                .unwrap()
                .numeric
        );
        let unix = spec("/run/m.sock");
        let unix = Addresses::resolve("-s", &unix).unwrap();
        assert!(unix.numeric && unix.current().to_string() == "/run/m.sock");
        let error = Addresses::resolve("-b", &spec("no-such-host.invalid")).err();
        let error = error.map(|e| e.to_string()).unwrap_or_default();
        assert!(
            error.starts_with("-b no-such-host.invalid: does not resolve ("),
            "{error}"
        );
    }

    #[test]
    fn failures_go_round() {
        let mut server = addresses(&[1, 2, 3]);
        server.failed(&address(1));
        server.failed(&address(1)); // A second connection's news about the same address.
        assert_eq!(server.current(), &address(2));
        server.failed(&address(2));
        server.failed(&address(3));
        assert_eq!(server.current(), &address(1));
    }

    #[test]
    fn a_new_answer_keeps_the_address_in_use() {
        let mut server = addresses(&[1, 2]);
        server.failed(&address(1));
        assert!(
            !server.replace(vec![address(2), address(1)]),
            "only another order"
        );
        assert!(!server.replace(Vec::new()), "no answer");
        assert!(server.replace(vec![address(3), address(2)]));
        assert_eq!(server.current(), &address(2));
        assert!(server.replace(vec![address(4)]));
        assert_eq!(server.current(), &address(4));
    }
}
