//! Which of this host's addresses come and go, and the clients that are cut off when one does. When an address moves
//! to another node its connections stay established here, for ever as far as the kernel is concerned: neither side
//! hears of it. They would count against `-n`, so they are closed.

use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use socket2::SockRef;

use super::pool::Pool;
use super::stream::Stream;
use super::Listeners;
use crate::proxy::ClientId;
use crate::sys;
use crate::sys::netlink::{Addresses, Changes};
use crate::time::{Span, Time};

/// An address that is back after this time keeps its clients: some programs take addresses away to set them again.
const GRACE: Span = Span::from_millis(500);

/// The addresses of this host, as far as they matter here.
pub(super) struct Presence {
    /// Without it (no netlink where magent runs) silent clients are found by keepalive alone.
    addresses: Option<Addresses>,
    /// Concrete addresses that are listened at.
    listened: Vec<IpAddr>,
    /// Whether any address may be a client's, as all are listened at.
    all: bool,
    /// Addresses that left, and until when they may come back.
    leaving: Vec<(IpAddr, Time)>,
}

impl Presence {
    /// Reads the addresses and asks for word of changes.
    pub fn new(listeners: &Listeners, registry: &Registry, token: Token) -> Presence {
        let mut presence = Presence {
            addresses: None,
            listened: listeners.ips().filter(|ip| !ip.is_unspecified()).collect(),
            all: listeners.ips().any(|ip| ip.is_unspecified()),
            leaving: Vec::new(),
        };
        if !presence.all && presence.listened.is_empty() {
            return presence;
        }
        let opened = Addresses::open().and_then(|addresses| {
            let descriptor = addresses.as_raw_fd();
            let mut source = SourceFd(&descriptor);
            registry.register(&mut source, token, Interest::READABLE)?;
            Ok(addresses)
        });
        match opened {
            Ok(addresses) => presence.addresses = Some(addresses),
            Err(error) => log::warn!(
                "addresses of this host cannot be followed (netlink): {}",
                sys::reason(&error)
            ),
        }
        presence
    }

    /// When clients may have to be closed.
    pub fn next_timeout(&self) -> Option<Time> {
        self.leaving.iter().map(|(_, until)| *until).min()
    }

    /// Whether clients can come by that address.
    fn concerns(&self, ip: IpAddr) -> bool {
        self.all || self.listened.contains(&ip)
    }

    /// Takes the addresses off the list whose time is over.
    fn due(&mut self, now: Time) -> Vec<IpAddr> {
        let due = self.leaving.iter().filter(|(_, until)| *until <= now);
        let due: Vec<IpAddr> = due.map(|(ip, _)| *ip).collect();
        self.leaving.retain(|(_, until)| *until > now);
        due
    }
}

impl Pool {
    /// Says of each address of `-l` whether it is here.
    pub(super) fn note_addresses(&mut self, now: Time) {
        let Some(addresses) = &self.presence.addresses else {
            return;
        };
        for &ip in &self.presence.listened {
            // Of the loopback network every address is here, though one is listed.
            let is_here = ip.is_loopback() || addresses.has(ip);
            self.proxy.note_address(ip, is_here, now);
        }
    }

    /// The kernel has word of addresses.
    pub(super) fn addresses_changed(&mut self, now: Time) {
        let Some(addresses) = &mut self.presence.addresses else {
            return;
        };
        let Changes { came, left } = addresses.take();
        for ip in came {
            self.presence.leaving.retain(|(leaving, _)| *leaving != ip);
            if self.presence.listened.contains(&ip) {
                self.proxy.note_address(ip, true, now);
            }
        }
        for ip in left {
            if !self.presence.concerns(ip) {
                continue;
            }
            if self.presence.listened.contains(&ip) {
                self.proxy.note_address(ip, false, now);
            }
            self.presence.leaving.retain(|(leaving, _)| *leaving != ip);
            self.presence.leaving.push((ip, now + GRACE));
        }
    }

    /// Closes the clients of addresses that left and are not back.
    pub(super) fn close_departed(&mut self, now: Time) {
        if self.presence.next_timeout().is_none_or(|due| now < due) {
            return;
        }
        let departed = self.presence.due(now);
        let mut closed = 0;
        for index in 0..self.clients.len() {
            let Some(client) = &self.clients[index] else {
                continue;
            };
            let ip = client.stream.local_ip();
            if !ip.is_some_and(|ip| departed.contains(&ip)) {
                continue;
            }
            forget(&client.stream);
            let id = ClientId {
                index: index as u32,
                generation: client.generation(),
            };
            self.client_broke(id, now);
            closed += 1;
        }
        if closed > 0 {
            let departed: Vec<String> = departed.iter().map(ToString::to_string).collect();
            log::info!(
                "address {} left: {closed} clients closed",
                departed.join(", ")
            );
        }
    }
}

/// Whether the address by which the client came can be another host's later.
pub(super) fn may_move(stream: &Stream) -> bool {
    stream.local_ip().is_some_and(|ip| !ip.is_loopback())
}

/// No goodbye, which could not leave this host anyway and would be tried again for minutes.
pub(super) fn forget(stream: &Stream) {
    if let Stream::Tcp(stream) = stream {
        // Should it fail, the connection is closed in the ordinary way.
        let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
    }
}
