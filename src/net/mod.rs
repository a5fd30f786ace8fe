//! The edge: sockets, names, signals and the clock around the pure core.
//!
//! One turn of the loop, in this order:
//!
//! ```text
//!   now -> tick -> actions -> write each dirty connection once -> poll(next timeout)
//!       -> now -> each event: accept, or read into the one scratch buffer and hand the slice to the core,
//!                 or note that it is writable -> those put off in earlier turns
//! ```
//!
//! Nothing is written while events are handled, so all requests of a turn that go to one server leave in one write.
//! Every socket is registered once, edge-triggered, for reading and writing; what that demands is commented where it
//! is done. The edge looks into no request and decides nothing about servers.

mod adopt;
mod client;
mod linger;
mod link;
mod listener;
mod phase;
mod presence;
mod resolve;
mod stream;
mod token;

use std::io;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Waker};

use self::client::{Accepting, Client};
use self::linger::{Lingering, LINGER_MAX};
use self::link::Link;
use self::phase::{Phase, Told};
use self::presence::{Presence, STOOD_STILL};
use self::resolve::Resolver;
use self::token::{Origin, Tokens};
use crate::buf::CHUNK;
use crate::config::Config;
use crate::proxy::{Action, ConnId, ProcessFacts, Proxy, WriteState};
use crate::sys::activation::Passed;
use crate::sys::instance::Marks;
use crate::sys::limits;
use crate::sys::log::Logs;
use crate::sys::memory;
use crate::sys::notify::Notifier;
use crate::sys::signal::Signals;
use crate::sys::SystemError;
use crate::time::{Span, Time};

pub use self::listener::{places, Place};
pub use self::resolve::Addresses;
pub(crate) use self::stream::Stream;

/// Most reads of one connection in one turn, or a fast one would starve the others.
const READS_MAX: usize = 4;
/// Most events taken at once.
const EVENTS_MAX: usize = 1024;
/// Most rounds of actions and writes before new input is looked at.
const SETTLE_MAX: usize = 8;
/// Descriptors besides clients, links and listeners: standard streams, epoll, signals, netlink, the supervisor, log,
/// pid file, marks, and what the C library opens to resolve names.
const DESCRIPTORS_SPARE: usize = 64;

/// What a [`Server`] is made of; all of it was opened while the process had its rights.
pub struct Parts {
    /// Where clients come from.
    pub listeners: Listeners,
    /// The servers' addresses: primaries, then backups.
    pub addresses: Vec<Addresses>,
    /// The marks of a running magent.
    pub marks: Marks,
    /// The log, to be opened again on SIGHUP.
    pub logs: Logs,
    /// The supervisor.
    pub notifier: Notifier,
}

/// The bound listeners.
#[derive(Default)]
pub struct Listeners(Vec<listener::Listener>);

impl Listeners {
    /// The addresses that TCP listeners are bound to.
    fn ips(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.0.iter().filter_map(listener::Listener::ip)
    }

    /// Listens at a TCP address, by the socket that was passed for it or by one of its own; `marks` are those this
    /// process holds.
    pub fn add_tcp(
        &mut self,
        place: &Place,
        passed: &mut Passed,
        marks: &Marks,
    ) -> Result<(), SystemError> {
        self.0.push(match adopt::tcp(passed, place)? {
            Some(listener) => listener,
            None => listener::Listener::tcp(place, marks)?,
        });
        Ok(())
    }

    /// Listens at a Unix socket, the one that was passed or one of its own; see [`crate::sys::user::Identity::owner`] for its owner.
    pub fn add_unix(
        &mut self,
        path: &Path,
        passed: &mut Passed,
        owner: (Option<u32>, Option<u32>),
    ) -> Result<(), SystemError> {
        self.0.push(match adopt::unix(passed, path)? {
            Some(listener) => listener,
            None => listener::Listener::unix(path, owner)?,
        });
        Ok(())
    }
}

/// Refuses sockets that were passed for other addresses than these.
pub fn check_passed(
    passed: &Passed,
    places: &[Place],
    path: Option<&Path>,
) -> Result<(), SystemError> {
    adopt::all_are_asked_for(passed, places, path)
}

/// How many descriptors `config` needs, with that many listeners.
pub fn descriptors_needed(config: &Config, listeners: usize) -> u64 {
    let links = (config.servers.len() + config.backups.len()) * links_each(config);
    (config.max_conns + links + 2 * listeners + LINGER_MAX + DESCRIPTORS_SPARE) as u64
}

/// Places for connections to each server: the ones of `-i`, and one that lists keys in the background now and then.
fn links_each(config: &Config) -> usize {
    config.server_conns + 1
}

/// The event loop and all it owns.
pub struct Server {
    proxy: Proxy,
    poll: Poll,
    tokens: Tokens,
    signals: Signals,
    marks: Option<Marks>,
    logs: Logs,
    listeners: Vec<listener::Listener>,
    accepting: Accepting,
    exhausted_logged: bool,
    clients: Vec<Option<Client>>,
    links: Vec<Option<Link>>,
    presence: Presence,
    notifier: Notifier,
    told: Told,
    resolver: Resolver,
    lingering: Lingering,
    /// Connections to read in the next turn without waiting for an event.
    again: Vec<ConnId>,
    /// Connections that were blocked and can be written again.
    writable: Vec<ConnId>,
    scratch: Vec<u8>,
    phase: Phase,
    drain: Span,
    started: Instant,
}

impl Server {
    /// Makes the poll and the core. The last step of the start that can fail.
    pub fn new(config: &Config, parts: Parts) -> io::Result<Server> {
        let started = Instant::now();
        let unix = SystemTime::now().duration_since(UNIX_EPOCH);
        let facts = ProcessFacts {
            pid: std::process::id(),
            unix_micros_at_zero: unix.map_or(0, |since| since.as_micros() as u64),
            rusage: limits::cpu_time,
        };
        let now = Time(0);
        let servers = config.servers.len() + config.backups.len();
        let poll = Poll::new()?;
        let signals = Signals::new()?;
        let registry = poll.registry();
        registry.register(
            &mut SourceFd(&signals.as_raw_fd()),
            token::SIGNALS,
            Interest::READABLE,
        )?;
        let presence = Presence::new(&parts.listeners, registry);
        let waker = Waker::new(registry, token::WAKER)?;
        let mut links = Vec::new();
        links.resize_with(servers * links_each(config), || None);
        let mut server = Server {
            proxy: Proxy::new(config, facts, now),
            tokens: Tokens::new(parts.listeners.0.len(), servers, links_each(config)),
            poll,
            signals,
            marks: Some(parts.marks),
            logs: parts.logs,
            listeners: parts.listeners.0,
            accepting: Accepting::OnEvent,
            exhausted_logged: false,
            clients: Vec::new(),
            links,
            presence,
            notifier: parts.notifier,
            told: Told::default(),
            resolver: Resolver::new(parts.addresses, waker),
            lingering: Lingering::default(),
            again: Vec::new(),
            writable: Vec::new(),
            scratch: vec![0; CHUNK],
            // Connect and first answer may take the timeout each.
            phase: Phase::Starting(now + config.timeout + config.timeout),
            drain: config.drain,
            started,
        };
        server.notifier.warn();
        server.note_addresses(now);
        Ok(server)
    }

    /// Serves until a signal ends it. An error means that the poll itself failed.
    pub fn run(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS_MAX);
        let mut now = self.now();
        loop {
            // Judged by the time of the last poll: whatever had come by then has been read.
            self.proxy.tick(now);
            if self.proxy.has_calmed() {
                memory::give_back();
            }
            let settled = self.settle(now);
            self.advance(now)?;
            self.tell_supervisor(now);
            if self.phase == Phase::Over {
                return Ok(());
            }
            let timeout = if settled {
                self.timeout()
            } else {
                Some(Duration::ZERO)
            };
            match self.poll.poll(&mut events, timeout) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            }
            let before = now;
            now = self.now();
            let still = Span(now.since(before).0.saturating_sub(slept_at_most(timeout).0));
            if still > STOOD_STILL {
                self.close_unread(still, now);
            }
            for event in &events {
                match self.tokens.origin(event.token()) {
                    Origin::Client(index) => self.client_event(index, event, now),
                    Origin::Link(id) => self.link_event(id, event, now),
                    Origin::Listener(index) => self.accept(index, now),
                    Origin::Signals => self.take_signals(now),
                    Origin::Addresses => self.addresses_changed(now),
                    Origin::Waker => self.resolver.collect(),
                }
            }
            self.put_off(now);
        }
    }

    fn now(&self) -> Time {
        // Instant is CLOCK_MONOTONIC; u64 microseconds last half a million years.
        Time(self.started.elapsed().as_micros() as u64)
    }

    /// Does what the core asks for and writes what it has. Both can lead to more of the other (a write fails, a client
    /// may be read again). False when there may be more still.
    fn settle(&mut self, now: Time) -> bool {
        for _ in 0..SETTLE_MAX {
            let acted = self.act(now);
            let wrote = self.write_dirty(now);
            if !acted && !wrote {
                return true;
            }
        }
        false
    }

    fn act(&mut self, now: Time) -> bool {
        let mut acted = false;
        while let Some(action) = self.proxy.poll_action() {
            acted = true;
            match action {
                Action::Connect(id) => self.connect(id, now),
                Action::CloseLink(id) => self.close_link(id, now),
                Action::CloseClient(id) => self.close_client(id, now),
                // Its event may have come while it was held back, and will not come again.
                Action::ReadClient(id) => self.read_again(id),
            }
        }
        acted
    }

    fn write_dirty(&mut self, now: Time) -> bool {
        let mut wrote = false;
        // Taken, as a failing write needs the whole of self; put back to keep its room.
        let mut writable = std::mem::take(&mut self.writable);
        for id in writable.drain(..) {
            wrote = true;
            self.write(id, now);
        }
        self.writable = writable;
        while let Some(id) = self.proxy.poll_dirty() {
            wrote = true;
            self.write(id, now);
        }
        wrote
    }

    /// Writes once. A connection that is blocked is left alone: its event will come.
    fn write(&mut self, id: ConnId, now: Time) {
        let result = match id {
            ConnId::Client(client_id) => {
                let index = client_id.index as usize;
                match self.clients.get_mut(index).and_then(Option::as_mut) {
                    Some(client) if client.is(client_id) && !client.blocked => self
                        .proxy
                        .write_to(id, &mut client.stream, now)
                        .map(|state| client.blocked = state == WriteState::Blocked),
                    _ => return,
                }
            }
            ConnId::Link(link_id) => {
                let index = self.tokens.link_index(link_id);
                match self.links.get_mut(index).and_then(Option::as_mut) {
                    Some(link) if !link.blocked => self
                        .proxy
                        .write_to(id, &mut link.stream, now)
                        .map(|state| link.blocked = state == WriteState::Blocked),
                    _ => return,
                }
            }
        };
        if result.is_err() {
            match id {
                ConnId::Client(id) => self.client_broke(id, now),
                ConnId::Link(id) => {
                    // What the server had answered before it closed still counts.
                    self.read_link(id, now);
                    self.link_broke(id, now);
                }
            }
        }
    }

    /// Reads and accepts what was put off in this turn or before.
    fn put_off(&mut self, now: Time) {
        let mut again = std::mem::take(&mut self.again);
        for id in again.drain(..) {
            match id {
                ConnId::Client(id) => self.client_again(id, now),
                ConnId::Link(id) => self.link_again(id, now),
            }
        }
        // Those that were put off once more are on the new list; the larger room is kept.
        if self.again.is_empty() {
            self.again = again;
        }
        if self.lingering.sweep(&mut self.scratch, now) {
            self.descriptor_freed();
        }
        self.close_departed(now);
        self.accept_again(now);
    }

    /// How long the poll may sleep. `None`: until something happens.
    fn timeout(&self) -> Option<Duration> {
        if !self.again.is_empty() || !self.writable.is_empty() {
            return Some(Duration::ZERO);
        }
        let accept = match self.accepting {
            Accepting::OnEvent => None,
            Accepting::Again => return Some(Duration::ZERO),
            Accepting::Exhausted(until) => Some(until),
        };
        let phase = match self.phase {
            Phase::Starting(until) | Phase::Draining(until) => Some(until),
            Phase::Serving | Phase::Over => None,
        };
        let timers = [
            self.proxy.next_timeout(),
            accept,
            phase,
            self.lingering.next_timeout(),
            self.presence.next_timeout(),
            self.notifier.next_kick(),
        ];
        let next = timers.into_iter().flatten().min()?;
        // The poll rounds up to whole milliseconds, so it never wakes just before a deadline and spins.
        Some(Duration::from_micros(next.since(self.now()).0))
    }
}

/// How long a poll with that timeout may take.
fn slept_at_most(timeout: Option<Duration>) -> Span {
    Span(timeout.map_or(u64::MAX, |timeout| timeout.as_micros() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_for_each_connection_that_there_may_be() {
        let needed = |line: &str| {
            let words = line.split(' ').map(Into::into);
            match crate::config::args::parse(words) {
                Ok(crate::config::args::Parsed::Run(config)) => descriptors_needed(&config, 3),
                other => panic!("{line}: {other:?}"),
            }
        };
        let fixed = 6 + (LINGER_MAX + DESCRIPTORS_SPARE) as u64;
        assert_eq!(needed("-n 100 -s a"), fixed + 100 + 2);
        assert_eq!(needed("-n 100 -s a -s b -b c -i 4"), fixed + 100 + 15);
    }
}
