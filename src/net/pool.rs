//! One pool: its core, and the sockets around it. All that happens between two polls.

use std::io;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use mio::event::Event;
use mio::{Registry, Waker};

use super::client::{Accepting, Client};
use super::descriptors::{linger_max, links_each};
use super::linger::Lingering;
use super::link::Links;
use super::presence::Presence;
use super::resolve::{Addresses, Resolver};
use super::still::Stillness;
use super::stream::Stream;
use super::token::{Part, Tokens};
use super::{Listeners, SETTLE_MAX};
use crate::buf::CHUNK;
use crate::config::Config;
use crate::proxy::{Action, ConnId, ProcessFacts, Proxy, WriteState};
use crate::sys::clock::Clock;
use crate::sys::{self, limits};
use crate::time::{Span, Time};

/// How long clients that are let go at last have for what they asked for.
const LAST_ANSWERS: Span = Span::from_millis(1000);

/// Whether clients are accepted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Door {
    /// Servers are being connected to; clients wait in the kernel's queue until that time at most.
    Opening(Time),
    /// They are.
    Open,
    /// No more, but those that are there are served until that time.
    Leaving(Time),
    /// No more; those that are there get their answers until that time at most.
    Closing(Time),
}

impl Door {
    /// The first state. Connect and first answer may take the timeout each.
    pub fn opening(config: &Config, now: Time) -> Door {
        Door::Opening(now + config.timeout + config.timeout)
    }
}

/// When so many clients have been written to in a turn, as many may have asked for more already: what servers are to get
/// waits for that, one turn, and leaves in half as many writes. Fewer would seldom be worth a turn; more are enough by themselves.
const HOLD_AT: RangeInclusive<usize> = 8..=64;

/// More than that is work enough for the servers to begin with.
const HOLD_BYTES: RangeInclusive<usize> = 1..=1024;

/// A pool and all it owns.
pub(super) struct Pool {
    /// What it was made of, or last changed to.
    pub config: Config,
    pub proxy: Proxy,
    pub registry: Registry,
    pub tokens: Tokens,
    pub listeners: Listeners,
    pub accepting: Accepting,
    pub exhausted_logged: bool,
    pub clients: Vec<Option<Client>>,
    pub links: Links,
    pub presence: Presence,
    pub resolver: Resolver,
    pub lingering: Lingering,
    /// Connections to read in the next turn without waiting for an event.
    pub again: Vec<ConnId>,
    /// Connections that were blocked and can be written again.
    pub writable: Vec<ConnId>,
    pub scratch: Vec<u8>,
    pub door: Door,
    /// Clients that were taken from the kernel's queue before the door is open.
    pub early: Vec<Stream>,
    pub stillness: Stillness,
    pub clock: Clock,
    /// What servers are to get was kept back in the last turn; see `HOLD_AT`.
    held: bool,
    /// Something has happened since the last turn.
    pub touched: bool,
    /// When the next turn is due if nothing happens.
    pub due: Option<Time>,
}

/// What a [`Pool`] is made of.
pub struct PoolParts {
    /// What it is.
    pub config: Config,
    /// Where its clients come from.
    pub listeners: Listeners,
    /// The servers' addresses: primaries, then backups.
    pub addresses: Vec<Addresses>,
}

impl Pool {
    /// A pool with this number. `clock`: the loop's.
    pub fn new(
        parts: PoolParts,
        number: usize,
        registry: Registry,
        waker: &Arc<Waker>,
        clock: Clock,
        now: Time,
    ) -> Pool {
        let config = parts.config;
        let unix = SystemTime::now().duration_since(UNIX_EPOCH);
        let since = clock.now().0;
        let facts = ProcessFacts {
            pid: std::process::id(),
            unix_micros_at_zero: unix
                .map_or(0, |unix| (unix.as_micros() as u64).saturating_sub(since)),
            rusage: limits::cpu_time,
        };
        let servers = config.servers.len() + config.backups.len();
        let tokens = Tokens::new(number);
        let mut links = Links::default();
        (0..servers).for_each(|_| links.add(links_each(&config)));
        let mut pool = Pool {
            proxy: Proxy::new(&config, facts, now),
            presence: Presence::new(&parts.listeners, &registry, tokens.addresses()),
            registry,
            tokens,
            listeners: parts.listeners,
            accepting: Accepting::OnEvent,
            exhausted_logged: false,
            clients: Vec::new(),
            links,
            resolver: Resolver::new(parts.addresses, Arc::clone(waker)),
            lingering: Lingering::new(linger_max(limits::open_files())),
            again: Vec::new(),
            writable: Vec::new(),
            scratch: vec![0; CHUNK],
            door: Door::opening(&config, now),
            early: Vec::new(),
            stillness: Stillness::default(),
            clock,
            held: false,
            touched: true,
            due: None,
            config,
        };
        pool.note_addresses(now);
        pool
    }

    /// Its name in messages: ` of pool 'name'`, or nothing.
    pub fn said(&self) -> String {
        let name = self.config.pool.as_ref();
        name.map_or_else(String::new, |name| format!(" of pool '{name}'"))
    }

    /// Whether it has anything to do now.
    pub fn is_due(&self, now: Time) -> bool {
        self.touched || self.due.is_some_and(|due| due <= now)
    }

    /// One turn, up to the poll: judges by the time of the last one, as whatever had come by then has been read.
    pub fn turn(&mut self, now: Time) {
        self.proxy.tick(now);
        if self.proxy.has_calmed() {
            sys::memory::give_back();
        }
        let settled = self.settle(now);
        if !settled {
            // More of the same at once.
            self.touched = true;
            self.due = Some(now);
            return;
        }
        self.touched = false;
        self.due = self.next_timeout(now);
    }

    pub fn event(&mut self, part: Part, event: &Event, now: Time) {
        self.touched = true;
        match part {
            Part::Client(index) => self.client_event(index, event, now),
            Part::Link(id) => self.link_event(id, event, now),
            Part::Listener(index) => self.accept(index, now),
            Part::Addresses => self.addresses_changed(now),
        }
    }

    /// Begins to accept clients, once its servers have answered or had the time.
    pub fn open(&mut self, now: Time) -> io::Result<()> {
        match self.door {
            Door::Opening(until) if self.proxy.is_ready() || now >= until => {}
            _ => return Ok(()),
        }
        for (index, listener) in self.listeners.iter_mut() {
            listener.register(&self.registry, self.tokens.listener(index))?;
        }
        self.door = Door::Open;
        for stream in std::mem::take(&mut self.early) {
            self.welcome(stream, now);
        }
        if self.config.pool.is_some() {
            log::info!("clients{} are served", self.said());
        }
        Ok(())
    }

    /// No new clients; those there are get their answers until `until` at most.
    pub fn close(&mut self, until: Time, now: Time) {
        if matches!(self.door, Door::Open | Door::Leaving(_)) {
            // What had reached this host before is still answered: those who wait at the door come in, and what they and the
            // others have sent is read.
            for index in 0..self.listeners.len() {
                self.accept(index, now);
            }
            self.read_all(now);
        }
        self.listeners.clear();
        self.proxy.begin_drain(now);
        self.door = Door::Closing(until);
        self.touched = true;
    }

    /// Accepts nobody any more, and serves those that are there until `until`.
    pub fn leave(&mut self, until: Time) {
        self.listeners.clear();
        self.door = Door::Leaving(until);
        self.touched = true;
    }

    /// Goes on with leaving.
    pub fn end_leaving(&mut self, now: Time) {
        if let Door::Leaving(until) = self.door {
            if self.proxy.is_drained() {
                self.door = Door::Closing(until);
            } else if now >= until {
                self.close(now + LAST_ANSWERS, now);
            }
        }
    }

    /// Whether it was closed, and nobody is left or the time is over.
    pub fn is_over(&self, now: Time) -> bool {
        matches!(self.door, Door::Closing(until) if self.proxy.is_drained() || now >= until)
    }

    /// Does what the core asks for and writes what it has. Both can lead to more of the other (a write fails, a client
    /// may be read again). False when there may be more still.
    fn settle(&mut self, now: Time) -> bool {
        let mut written = 0;
        for _ in 0..SETTLE_MAX {
            let acted = self.act(now) | self.follow_reload();
            let before = written;
            written += self.write_clients(now);
            if !self.held && HOLD_AT.contains(&written) {
                self.held = HOLD_BYTES.contains(&self.proxy.unsent());
                if self.held {
                    return false;
                }
            }
            let wrote = self.write_links(now) || written > before;
            if !acted && !wrote {
                self.held = false;
                return true;
            }
        }
        self.held = false;
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

    /// Writes what clients are to get; to how many.
    fn write_clients(&mut self, now: Time) -> usize {
        let mut written = 0;
        // Taken, as a failing write needs the whole of self; put back to keep its room.
        let mut writable = std::mem::take(&mut self.writable);
        for id in writable.drain(..) {
            written += 1;
            self.write(id, now);
        }
        self.writable = writable;
        while let Some(id) = self.proxy.poll_dirty_client() {
            written += 1;
            self.write(id, now);
        }
        written
    }

    fn write_links(&mut self, now: Time) -> bool {
        let mut wrote = false;
        while let Some(id) = self.proxy.poll_dirty_link() {
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
                if self.is_too_late(now) {
                    return;
                }
                match self.links.get_mut(link_id).and_then(Option::as_mut) {
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
    pub(super) fn put_off(&mut self, now: Time) {
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

    /// When the next turn is due. `None`: when something happens.
    fn next_timeout(&self, now: Time) -> Option<Time> {
        if !self.again.is_empty() || !self.writable.is_empty() {
            return Some(now);
        }
        let accept = match self.accepting {
            Accepting::OnEvent => None,
            Accepting::Again => return Some(now),
            Accepting::Exhausted(until) => Some(until),
        };
        let door = match self.door {
            Door::Opening(until) | Door::Leaving(until) | Door::Closing(until) => Some(until),
            Door::Open => None,
        };
        let timers = [
            self.proxy.next_timeout(),
            accept,
            door,
            self.lingering.next_timeout(),
            self.presence.next_timeout(),
        ];
        self.sleep_in_pieces(timers.into_iter().flatten().min(), now)
    }
}
