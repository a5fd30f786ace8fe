//! The sockets of `--admin`. Few connections, few bytes, and one answer each in a turn: clients of the cache do not
//! notice it.

use std::io::{self, Read};
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry};

use super::pool::Pool;
use super::token::{admin_conn, ADMIN, ADMIN_CONNS};
use super::{resolve, Server};
use crate::admin::{Admin, Conn};
use crate::config::AdminAt;
use crate::proxy::report::Report;
use crate::sys::{facts, host_name, SystemError};
use crate::time::{Span, Time};

/// A connection that asks nothing for so long is closed, and so is one that does not take its answer.
const IDLE: Span = Span::from_secs(15);

/// Bytes read of a connection at a time.
const READ: usize = 4096;

/// Most reads of a connection in one turn.
const ROUNDS_MAX: usize = 8;

/// The endpoint.
pub(super) struct Endpoint {
    admin: Admin,
    listener: TcpListener,
    conns: [Option<Visitor>; ADMIN_CONNS],
}

struct Visitor {
    stream: TcpStream,
    conn: Conn,
    until: Time,
}

/// Listens there: at the first address of a name that can be had. `inherited`: the listener of a magent before this one, which
/// will do if it is at one of them.
pub fn open(at: &AdminAt, inherited: Option<OwnedFd>) -> Result<TcpListener, SystemError> {
    let asked = format!("--admin {at}");
    let found = (at.host.as_str(), at.port).to_socket_addrs();
    let addresses: Vec<SocketAddr> = found
        .map_err(|error| resolve::failure(asked.clone(), &error))?
        .collect();
    if let Some(listener) = inherited.map(std::net::TcpListener::from) {
        let there = listener.local_addr();
        if there.is_ok_and(|there| addresses.contains(&there)) {
            return Ok(TcpListener::from_std(listener));
        }
    }
    let mut failed = io::Error::from(io::ErrorKind::NotFound);
    for address in addresses {
        match TcpListener::bind(address) {
            Ok(listener) => return Ok(listener),
            Err(error) => failed = error,
        }
    }
    Err(SystemError::io(asked, &failed))
}

impl Endpoint {
    /// The listening socket.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    pub(super) fn new(
        mut listener: TcpListener,
        names: &[String],
        registry: &Registry,
        now: Time,
    ) -> io::Result<Endpoint> {
        let host = host_name().ok();
        let names: Vec<String> = names.iter().cloned().chain(host).collect();
        registry.register(&mut listener, ADMIN, Interest::READABLE)?;
        Ok(Endpoint {
            admin: Admin::new(facts::of_this_process, &names, now),
            listener,
            conns: [const { None }; ADMIN_CONNS],
        })
    }

    pub(super) fn next_timeout(&self) -> Time {
        let idle = self.conns.iter().flatten().map(|visitor| visitor.until);
        idle.fold(self.admin.next_timeout(), Time::min)
    }
}

impl Server {
    /// Another process has the endpoint now.
    pub(super) fn leave_admin(&mut self) {
        if let Some(mut endpoint) = self.admin.take() {
            // Open there, it would go on waking this process.
            let _ = self.poll.registry().deregister(&mut endpoint.listener);
        }
    }

    /// Takes note of how things are, and closes those who only stand there.
    pub(super) fn tend_admin(&mut self, now: Time) {
        let Some(endpoint) = &mut self.admin else {
            return;
        };
        if now < endpoint.next_timeout() {
            return;
        }
        if now >= endpoint.admin.next_timeout() {
            let reports: Vec<Report<'_>> = reports(&mut self.pools, now).collect();
            endpoint.admin.sample(&reports, now);
        }
        for place in &mut endpoint.conns {
            if place.as_ref().is_some_and(|visitor| visitor.until <= now) {
                *place = None;
            }
        }
    }

    /// Somebody is at the door.
    pub(super) fn admit(&mut self, now: Time) {
        let Some(endpoint) = &mut self.admin else {
            return;
        };
        // Edge-triggered: until nobody is left. An error is met again with the next one.
        while let Ok((mut stream, _)) = endpoint.listener.accept() {
            // The one that has been silent for the longest time makes room.
            let free = endpoint.conns.iter().position(Option::is_none);
            let oldest = || {
                let until =
                    |place: &usize| endpoint.conns[*place].as_ref().map(|visitor| visitor.until);
                (0..ADMIN_CONNS).min_by_key(until)
            };
            let Some(place) = free.or_else(oldest) else {
                continue;
            };
            let _ = stream.set_nodelay(true);
            let interest = Interest::READABLE | Interest::WRITABLE;
            let token = admin_conn(place);
            endpoint.conns[place] = None;
            if self
                .poll
                .registry()
                .register(&mut stream, token, interest)
                .is_ok()
            {
                endpoint.conns[place] = Some(Visitor {
                    stream,
                    conn: Conn::default(),
                    until: now + IDLE,
                });
            }
        }
    }

    /// A connection has something, or takes something.
    pub(super) fn attend(&mut self, place: usize, event: &Event, now: Time) {
        let Some(endpoint) = &mut self.admin else {
            return;
        };
        let Some(visitor) = endpoint.conns.get_mut(place).and_then(Option::as_mut) else {
            return;
        };
        let admin = &endpoint.admin;
        let pools = &mut self.pools;
        let goes_on = visitor.go_on(now, |conn| {
            let reports: Vec<Report<'_>> = reports(pools, now).collect();
            admin.serve(conn, &reports)
        });
        if event.is_error() || !matches!(goes_on, Ok(true)) {
            endpoint.conns[place] = None;
        }
    }
}

fn reports(pools: &mut [Option<Pool>], now: Time) -> impl Iterator<Item = Report<'_>> {
    let pools = pools.iter_mut().flatten();
    pools.map(move |pool| pool.proxy.report(now))
}

impl Visitor {
    /// Reads, answers and writes until the kernel has nothing more or takes nothing more. False: it is over.
    fn go_on(&mut self, now: Time, mut serve: impl FnMut(&mut Conn) -> bool) -> io::Result<bool> {
        let mut buffer = [0; READ];
        for _ in 0..ROUNDS_MAX {
            if !self.conn.write_to(&mut self.stream)? {
                return Ok(true);
            }
            if self.conn.is_over() {
                return Ok(false);
            }
            // Behind an answer that is sent there may be the next question already.
            if serve(&mut self.conn) {
                continue;
            }
            match self.stream.read(&mut buffer) {
                Ok(0) => return Ok(false),
                Ok(count) => {
                    self.until = now + IDLE;
                    self.conn.received(&buffer[..count]);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        // Who has so much to ask in one moment does not want to know.
        Ok(false)
    }
}
