//! The servers' side of the loop: connect, read, close. When, whether and how often is the core's business; which of
//! a name's addresses is ours.

use std::io::{self, Read};
use std::time::Duration;

use mio::event::Event;
use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry};
use socket2::SockRef;

use super::pool::Pool;
use super::resolve::Endpoint;
use super::stream::Stream;
use super::token::Tokens;
use crate::proxy::{CloseReason, ConnId, LinkId};
use crate::time::Time;

/// Most reads of one link in one turn: what they bring goes to a client in one write. With values of 1 MB 4 cost an eighth
/// more, 16 no less; but the more there are, the longer others wait.
const LINK_READS_MAX: usize = 8;

/// What the kernel takes of requests that it cannot send yet. What it has taken counts as sent: its time limit runs.
const UNSENT_MAX: u32 = 128 * 1024;

/// A connection to a server, being made or made.
pub(super) struct Link {
    pub(super) stream: Stream,
    address: Endpoint,
    /// While it is being made: how many more addresses may be tried after this one.
    left: usize,
    connected: bool,
    /// The kernel took no more: write again when it says so, not before.
    pub(super) blocked: bool,
    /// Already on the list of those to be read again.
    queued: bool,
    /// The other side has ended: no further event will come, so a short read proves nothing.
    ended: bool,
}

/// The places of all connections to servers.
#[derive(Default)]
pub(super) struct Links {
    /// By server, then by connection; the last one is the one that the core uses now and then to list keys.
    servers: Vec<Vec<Option<Link>>>,
}

impl Links {
    /// Places for one more server, with so many connections, the background one included.
    pub fn add(&mut self, conns: usize) {
        let mut places = Vec::new();
        places.resize_with(conns, || None);
        self.servers.push(places);
    }

    pub fn get_mut(&mut self, id: LinkId) -> Option<&mut Option<Link>> {
        let places = self.servers.get_mut(usize::from(id.server))?;
        places.get_mut(usize::from(id.conn))
    }

    pub fn is_background(&self, id: LinkId) -> bool {
        let places = self.servers.get(usize::from(id.server));
        places.is_some_and(|places| usize::from(id.conn) + 1 == places.len())
    }

    /// Takes all connections out.
    pub fn take_all(&mut self) -> impl Iterator<Item = Link> + '_ {
        let places = self.servers.iter_mut().flatten();
        places.filter_map(Option::take)
    }

    /// Servers have other indices, by the old one; connections of those that have none are closed.
    pub fn rearrange(&mut self, moves: &[Option<u16>], registry: &Registry, tokens: Tokens) {
        let count = moves.iter().flatten().count();
        let mut servers = Vec::new();
        servers.resize_with(count, Vec::new);
        for (places, server) in self.servers.drain(..).zip(moves) {
            let Some(server) = *server else {
                places.into_iter().flatten().for_each(Link::reset);
                continue;
            };
            servers[usize::from(server)] = places;
        }
        for (server, places) in servers.iter_mut().enumerate() {
            for (conn, link) in places.iter_mut().enumerate() {
                let id = LinkId {
                    server: server as u16,
                    conn: conn as u16,
                };
                let Some(link) = link else {
                    continue;
                };
                // An event that is due comes again under the new token. Should it fail, the server is found silent.
                let interest = Interest::READABLE | Interest::WRITABLE;
                let _ = registry.reregister(&mut link.stream, tokens.link(id), interest);
            }
        }
        self.servers = servers;
    }
}

impl Link {
    /// Closes it so that bytes that are still on their way are not carried out later.
    pub(super) fn reset(self) {
        if let Stream::Tcp(stream) = &self.stream {
            // Should it fail, the connection is closed in the ordinary way.
            let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
        }
    }
}

impl Pool {
    pub(super) fn link(&mut self, id: LinkId) -> Option<&mut Link> {
        self.links.get_mut(id)?.as_mut()
    }

    /// Begins to connect to the server's current address; where that fails at once, to its others.
    pub(super) fn connect(&mut self, id: LinkId, now: Time) {
        if let Some(address) = self.address_in_use(id) {
            match self.begin(id, address, 0) {
                Ok(link) => self.put_link(id, link),
                Err(error) => self.proxy.link_closed(id, reason(&error), now),
            }
            return;
        }
        let tries = self
            .resolver
            .server(id.server)
            .map_or(0, |server| server.count());
        self.connect_any(id, tries, CloseReason::Unreachable, now);
    }

    /// For the background connection: where the others lead. A name may mean another host by now, and what that one
    /// holds says nothing of this one.
    fn address_in_use(&mut self, id: LinkId) -> Option<Endpoint> {
        if !self.links.is_background(id) {
            return None;
        }
        let mut others = (0..id.conn).map(|conn| LinkId { conn, ..id });
        others.find_map(|other| {
            let link = self.link(other).filter(|link| link.connected)?;
            Some(link.address.clone())
        })
    }

    fn put_link(&mut self, id: LinkId, link: Link) {
        if let Some(place) = self.links.get_mut(id) {
            *place = Some(link);
        }
    }

    /// Tries up to `tries` addresses. `why` is what the core hears when none is left.
    fn connect_any(&mut self, id: LinkId, tries: usize, mut why: CloseReason, now: Time) {
        for left in (0..tries).rev() {
            let Some(server) = self.resolver.server(id.server) else {
                break;
            };
            let address = server.current().clone();
            match self.begin(id, address.clone(), left) {
                Ok(link) => return self.put_link(id, link),
                Err(error) => {
                    log::debug!("{address}: {}", crate::sys::reason(&error));
                    why = reason(&error);
                    server_failed(self, id, &address, now);
                }
            }
        }
        self.proxy.link_closed(id, why, now);
    }

    fn begin(&self, id: LinkId, address: Endpoint, left: usize) -> io::Result<Link> {
        let mut stream = match &address {
            Endpoint::Tcp(address) => {
                let stream = TcpStream::connect(*address)?;
                stream.set_nodelay(true)?;
                // Only a matter of how well time limits are kept: without it the kernel takes megabytes that have not left.
                let _ = SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT_MAX);
                Stream::Tcp(stream)
            }
            Endpoint::Unix(path) => Stream::Unix(UnixStream::connect(path)?),
        };
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.registry
            .register(&mut stream, self.tokens.link(id), interest)?;
        Ok(Link {
            stream,
            address,
            left,
            connected: false,
            blocked: false,
            queued: false,
            ended: false,
        })
    }

    pub(super) fn link_event(&mut self, id: LinkId, event: &Event, now: Time) {
        let Some(link) = self.link(id) else {
            return;
        };
        if !link.connected {
            match link.stream.is_established() {
                Ok(false) => return,
                Ok(true) => {
                    link.connected = true;
                    self.proxy.link_connected(id, now);
                }
                Err(error) => return self.connect_failed(id, &error, now),
            }
        }
        let Some(link) = self.link(id) else {
            return;
        };
        link.ended |= event.is_read_closed();
        if event.is_writable() && link.blocked {
            link.blocked = false;
            self.writable.push(ConnId::Link(id));
        }
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            self.read_link(id, now);
        }
    }

    /// This address does not answer: on to the next, and only when there is none the core hears of it.
    fn connect_failed(&mut self, id: LinkId, error: &io::Error, now: Time) {
        if let Some(link) = self.take_link(id) {
            log::debug!("{}: {}", link.address, crate::sys::reason(error));
            server_failed(self, id, &link.address, now);
            self.connect_any(id, link.left, reason(error), now);
        }
    }

    /// Reads until the kernel has nothing left, or the turn's share is used up.
    pub(super) fn read_link(&mut self, id: LinkId, now: Time) {
        for _ in 0..LINK_READS_MAX {
            let Some(link) = self.links.get_mut(id).and_then(Option::as_mut) else {
                return;
            };
            match link.stream.read(&mut self.scratch) {
                Ok(0) => return self.link_broke(id, now),
                Ok(count) => {
                    let drained = count < self.scratch.len() && !link.ended;
                    self.proxy
                        .link_received_in(id, &mut self.scratch, count, now);
                    if drained {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return self.link_broke(id, now),
            }
        }
        self.read_link_again(id);
    }

    /// Puts the link on the list of those that are read in the next turn, whether or not an event comes.
    fn read_link_again(&mut self, id: LinkId) {
        let Some(link) = self.link(id) else {
            return;
        };
        if !link.queued {
            link.queued = true;
            self.again.push(ConnId::Link(id));
        }
    }

    /// Reads a link that was put off.
    pub(super) fn link_again(&mut self, id: LinkId, now: Time) {
        // It may have been closed and made anew since; then this is one read too many, which does no harm.
        if let Some(link) = self.link(id) {
            link.queued = false;
            if link.connected {
                self.read_link(id, now);
            }
        }
    }

    /// An established connection ended.
    pub(super) fn link_broke(&mut self, id: LinkId, now: Time) {
        if self.take_link(id).is_some() {
            self.resolver.renew(id.server, now);
            self.proxy.link_closed(id, CloseReason::Disconnected, now);
        }
    }

    /// The core gives the connection up.
    pub(super) fn close_link(&mut self, id: LinkId, now: Time) {
        let Some(link) = self.take_link(id) else {
            return;
        };
        let (connected, address) = (link.connected, link.address.clone());
        link.reset();
        if connected {
            // The background connection is closed when its work is done: no sign of trouble.
            if !self.links.is_background(id) {
                self.resolver.renew(id.server, now);
            }
        } else {
            // It took too long: the next attempt goes to the next address.
            server_failed(self, id, &address, now);
        }
    }

    fn take_link(&mut self, id: LinkId) -> Option<Link> {
        let link = self.links.get_mut(id)?.take();
        self.descriptor_freed();
        link
    }
}

fn server_failed(shell: &mut Pool, id: LinkId, address: &Endpoint, now: Time) {
    if let Some(server) = shell.resolver.server(id.server) {
        server.failed(address);
    }
    shell.resolver.renew(id.server, now);
}

fn reason(error: &io::Error) -> CloseReason {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => CloseReason::Refused,
        io::ErrorKind::ConnectionReset => CloseReason::Disconnected,
        _ => CloseReason::Unreachable,
    }
}
