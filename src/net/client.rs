//! The clients' side of the loop: accept, read, close. A client that is idle is a socket and a few flags here.

use std::io::{self, Read, Write};

use mio::event::Event;
use mio::Interest;
use socket2::SockRef;

use super::pool::Pool;
use super::stream::Stream;
use super::READS_MAX;
use crate::proxy::{ClientId, ConnId};
use crate::sys;
use crate::time::{Span, Time};

/// Most connections accepted from one listener in one turn: those that are served already come first.
const ACCEPTS_MAX: usize = 64;

/// How long to wait with accepting when descriptors ran out and none was freed here.
const EXHAUSTED_PAUSE: Span = Span::from_millis(100);

/// What the kernel takes for a client that it cannot send yet.
const UNSENT_MAX: u32 = 256 * 1024;

const REFUSAL: &[u8] = b"SERVER_ERROR too many open connections\r\n";

/// An accepted connection.
pub(super) struct Client {
    pub(super) stream: Stream,
    generation: u32,
    /// The kernel took no more: write again when it says so, not before.
    pub(super) blocked: bool,
    /// Already on the list of those to be read again.
    queued: bool,
    /// The other side has ended: no further event will come, so a short read proves nothing.
    ended: bool,
    /// The end of the stream was read and passed on.
    finished: bool,
}

impl Client {
    /// Tells it from earlier owners of its index.
    pub(super) fn generation(&self) -> u32 {
        self.generation
    }

    /// Whether this is the one that the core means, and not a later owner of its index.
    pub(super) fn is(&self, id: ClientId) -> bool {
        self.generation == id.generation
    }
}

/// Whether the listeners are to be asked for more.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Accepting {
    /// When the poll says so.
    OnEvent,
    /// In the next turn: a turn's share was used up.
    Again,
    /// Descriptors ran out. No event will tell that there are some again, so a timer, or a close, does.
    Exhausted(Time),
}

impl Pool {
    /// Accepts from one listener until it is empty or the turn's share is used up.
    pub(super) fn accept(&mut self, index: usize, now: Time) {
        for _ in 0..ACCEPTS_MAX {
            let Some(listener) = self.listeners.get(index) else {
                return;
            };
            match listener.accept() {
                Ok(stream) => self.welcome(stream, now),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if sys::is_exhausted(&error) => {
                    if !self.exhausted_logged {
                        log::warn!("cannot accept clients: {}", sys::reason(&error));
                        self.exhausted_logged = true;
                    }
                    self.accepting = Accepting::Exhausted(now + EXHAUSTED_PAUSE);
                    return;
                }
                // The client gave up before it was accepted, or an error of its network: the next one is waiting.
                Err(_) => {}
            }
        }
        self.accepting = Accepting::Again;
    }

    /// Accepts from all listeners, when it was put off and is due.
    pub(super) fn accept_again(&mut self, now: Time) {
        match self.accepting {
            Accepting::OnEvent => return,
            Accepting::Exhausted(until) if now < until => return,
            Accepting::Exhausted(_) | Accepting::Again => self.accepting = Accepting::OnEvent,
        }
        for index in 0..self.listeners.len() {
            self.accept(index, now);
        }
        if self.accepting == Accepting::OnEvent && self.exhausted_logged {
            log::info!("clients are accepted again");
            self.exhausted_logged = false;
        }
    }

    pub(super) fn welcome(&mut self, mut stream: Stream, now: Time) {
        let Some(id) = self.proxy.client_opened(now) else {
            // A fresh socket has room for one line; if not, the client is lost either way.
            let _ = stream.write(REFUSAL);
            self.lingering.put(stream, now);
            return;
        };
        if let Stream::Tcp(stream) = &stream {
            // Or the kernel would take several long values for each client that reads nothing. Should it fail, it takes them.
            let _ = SockRef::from(stream).set_tcp_notsent_lowat(UNSENT_MAX);
        }
        let interest = Interest::READABLE | Interest::WRITABLE;
        let registered = self
            .registry
            .register(&mut stream, self.tokens.client(id), interest);
        if let Err(error) = registered {
            log::warn!("a client could not be watched: {}", sys::reason(&error));
            self.proxy.client_closed(id, now);
            return;
        }
        let index = id.index as usize;
        if index >= self.clients.len() {
            self.clients.resize_with(index + 1, || None);
        }
        self.clients[index] = Some(Client {
            stream,
            generation: id.generation,
            blocked: false,
            queued: false,
            ended: false,
            finished: false,
        });
    }

    /// The client that the core calls by that name, if it is still the same one.
    pub(super) fn client(&mut self, id: ClientId) -> Option<&mut Client> {
        let client = self.clients.get_mut(id.index as usize)?.as_mut()?;
        client.is(id).then_some(client)
    }

    pub(super) fn client_event(&mut self, index: usize, event: &Event, now: Time) {
        let Some(client) = self.clients.get_mut(index).and_then(Option::as_mut) else {
            return;
        };
        let id = ClientId {
            index: index as u32,
            generation: client.generation,
        };
        client.ended |= event.is_read_closed();
        if event.is_writable() && client.blocked {
            client.blocked = false;
            self.writable.push(ConnId::Client(id));
        }
        let broken = event.is_error() || event.is_write_closed();
        if broken && (client.finished || !self.proxy.wants_read(id)) {
            // Nothing can be sent to it, and what it may have sent is not wanted now.
            self.client_broke(id, now);
        } else if event.is_readable() || event.is_read_closed() || broken {
            self.read_client(id, now);
        }
    }

    /// Reads until the kernel has nothing left, the core wants no more, or the turn's share is used up.
    pub(super) fn read_client(&mut self, id: ClientId, now: Time) {
        for _ in 0..READS_MAX {
            if !self.proxy.wants_read(id) {
                return;
            }
            let Some(client) = self
                .clients
                .get_mut(id.index as usize)
                .and_then(Option::as_mut)
            else {
                return;
            };
            if !client.is(id) || client.finished {
                return;
            }
            match client.stream.read(&mut self.scratch) {
                Ok(0) => {
                    client.finished = true;
                    self.proxy.client_finished(id, now);
                    return;
                }
                Ok(count) => {
                    let drained = count < self.scratch.len() && !client.ended;
                    self.proxy.client_received(id, &self.scratch[..count], now);
                    if drained {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return self.client_broke(id, now),
            }
        }
        self.read_again(id);
    }

    /// Reads every client once more, event or not.
    pub(super) fn read_all(&mut self, now: Time) {
        for index in 0..self.clients.len() {
            if let Some(client) = &self.clients[index] {
                let id = ClientId {
                    index: index as u32,
                    generation: client.generation,
                };
                self.read_client(id, now);
            }
        }
    }

    /// Puts the client on the list of those that are read in the next turn, whether or not an event comes.
    pub(super) fn read_again(&mut self, id: ClientId) {
        let Some(client) = self.client(id) else {
            return;
        };
        if !client.queued {
            client.queued = true;
            self.again.push(ConnId::Client(id));
        }
    }

    /// Reads a client that was put off.
    pub(super) fn client_again(&mut self, id: ClientId, now: Time) {
        if let Some(client) = self.client(id) {
            client.queued = false;
            self.read_client(id, now);
        }
    }

    /// The connection is useless: tells the core.
    pub(super) fn client_broke(&mut self, id: ClientId, now: Time) {
        if self.take_client(id).is_some() {
            self.proxy.client_closed(id, now);
        }
    }

    /// The core is done with the client.
    pub(super) fn close_client(&mut self, id: ClientId, now: Time) {
        if let Some(client) = self.take_client(id) {
            // One that has ended itself cannot be hurt by a reset: nothing it sent is unread.
            if !client.finished {
                let mut stream = client.stream;
                // It would wake the loop for bytes that nobody wants. Should it fail, they are ignored.
                let _ = self.registry.deregister(&mut stream);
                self.lingering.put(stream, now);
            }
        }
    }

    fn take_client(&mut self, id: ClientId) -> Option<Client> {
        self.client(id)?;
        let client = self.clients.get_mut(id.index as usize)?.take();
        self.descriptor_freed();
        client
    }

    /// A descriptor is free again: those who could not be accepted may be now.
    pub(super) fn descriptor_freed(&mut self) {
        if let Accepting::Exhausted(_) = self.accepting {
            self.accepting = Accepting::Again;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_client_costs_little() {
        // Debug builds of mio keep the poll's number in each socket.
        let most = if cfg!(debug_assertions) { 40 } else { 16 };
        assert!(
            size_of::<Option<Client>>() <= most,
            "{}",
            size_of::<Option<Client>>()
        );
    }
}
