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

pub mod admin;
mod adopt;
mod client;
mod descriptors;
mod linger;
mod link;
mod listener;
mod loader;
mod phase;
mod place;
mod pool;
mod presence;
mod reload;
mod resolve;
mod still;
mod stream;
mod takeover;
mod token;

use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mio::net::TcpListener;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Waker};

use self::admin::Endpoint;
use self::loader::Loader;
use self::phase::{Phase, Told};
use self::pool::Pool;
use self::token::Origin;
use crate::config::Config;
use crate::pools::Plan;
use crate::sys::activation::Passed;
use crate::sys::clock::Clock;
use crate::sys::instance::Marks;
use crate::sys::log::Logs;
use crate::sys::notify::Notifier;
use crate::sys::pidfile::PidFile;
use crate::sys::signal::Signals;
use crate::sys::takeover::Pair;
use crate::sys::trusted::Owner;
use crate::sys::SystemError;
use crate::time::{Span, Time};

pub use self::descriptors::provide as provide_descriptors;
pub use self::listener::Listeners;
pub use self::place::{asked_unix, places, Place, Spot};
pub use self::pool::PoolParts;
pub use self::reload::mark_of;
pub use self::resolve::{Addresses, Endpoint as ServerAddress};
pub(crate) use self::stream::Stream;

/// Most reads of one connection in one turn, or a fast one would starve the others.
const READS_MAX: usize = 4;
/// Most events taken at once.
const EVENTS_MAX: usize = 1024;
/// Most rounds of actions and writes before new input is looked at.
const SETTLE_MAX: usize = 8;
/// What a [`Server`] is made of; all of it was opened while the process had its rights.
pub struct Parts {
    /// The pools, at most [`crate::config::file::POOLS_MAX`].
    pub pools: Vec<PoolParts>,
    /// The listener of `--admin`.
    pub admin: Option<TcpListener>,
    /// The marks of a running magent.
    pub marks: Marks,
    /// The log, to be opened again on SIGHUP.
    pub logs: Logs,
    /// The supervisor.
    pub notifier: Notifier,
    /// What the command line says.
    pub process: Config,
    /// The pid file.
    pub pidfile: Option<PidFile>,
    /// The magent whose place this one takes.
    pub predecessor: Option<Pair>,
}

/// Opens what a pool listens at: by the sockets that were passed for it, or by its own. `marks` are those this process
/// holds; see [`crate::sys::user::Identity::owner`] for `owner`.
pub fn open(
    plan: Plan,
    passed: &mut Passed,
    marks: &Marks,
    owner: Owner,
) -> Result<PoolParts, SystemError> {
    let mut listeners = Listeners::default();
    for place in &plan.places {
        let spot = Spot::Tcp(place.address);
        let listener = match adopt::tcp(passed, place)? {
            Some(listener) => listener,
            None => listener::Listener::tcp(place, marks)?,
        };
        listeners.push(spot, listener);
    }
    let config = plan.config;
    if let Some(path) = &config.socket {
        let listener = match adopt::unix(passed, &config, path)? {
            Some(listener) => listener,
            None => listener::Listener::unix(&config, path, owner)?,
        };
        listeners.push(Spot::Unix(path.clone()), listener);
    }
    Ok(PoolParts {
        config,
        listeners,
        addresses: plan.addresses,
    })
}

/// Refuses sockets that were passed for other addresses than these.
pub fn check_passed(passed: &Passed, places: &[Place], paths: &[&Path]) -> Result<(), SystemError> {
    adopt::all_are_asked_for(passed, places, paths)
}

/// The event loop and all it owns.
pub struct Server {
    poll: Poll,
    /// By their numbers; a number whose pool is gone is free.
    pools: Vec<Option<Pool>>,
    signals: Signals,
    marks: Option<Marks>,
    logs: Logs,
    admin: Option<Endpoint>,
    notifier: Notifier,
    told: Told,
    phase: Phase,
    drain: Span,
    /// How long keys are handed over after a reload.
    handover: Span,
    loader: Loader,
    /// Removed when the proxy has ended.
    pidfile: Option<PidFile>,
    /// The magent whose place this one takes, until it may go.
    predecessor: Option<Pair>,
    /// The magent that takes the place of this one.
    newcomer: Option<Pair>,
    /// Those who have connected to a mark and not asked for anything yet.
    askers: Vec<Pair>,
    /// Those who have asked to take over, before this one serves.
    asked: Vec<Pair>,
    clock: Clock,
}

impl Server {
    /// Makes the poll and the cores. The last step of the start that can fail.
    pub fn new(parts: Parts) -> io::Result<Server> {
        let clock = Clock::start();
        let now = Time(0);
        let poll = Poll::new()?;
        let signals = Signals::new()?;
        let registry = poll.registry();
        registry.register(
            &mut SourceFd(&signals.as_raw_fd()),
            token::SIGNALS,
            Interest::READABLE,
        )?;
        takeover::register(&parts.marks, registry)?;
        let process = &parts.process;
        // Who is to find it by a name will ask by that.
        let own = process.admin.iter().map(|at| at.host.clone());
        let names: Vec<String> = process.admin_names.iter().cloned().chain(own).collect();
        let admin = parts
            .admin
            .map(|listener| Endpoint::new(listener, &names, registry, now));
        let admin = admin.transpose()?;
        let waker = Arc::new(Waker::new(registry, token::WAKER)?);
        let mut pools = Vec::with_capacity(parts.pools.len());
        for (number, parts) in parts.pools.into_iter().enumerate() {
            let registry = registry.try_clone()?;
            pools.push(Some(Pool::new(parts, number, registry, &waker, clock, now)));
        }
        let server = Server {
            poll,
            pools,
            signals,
            marks: Some(parts.marks),
            logs: parts.logs,
            admin,
            notifier: parts.notifier,
            told: Told::default(),
            phase: Phase::Starting,
            drain: parts.process.drain,
            handover: parts.process.handover,
            loader: Loader::new(parts.process, waker),
            pidfile: parts.pidfile,
            predecessor: parts.predecessor,
            newcomer: None,
            askers: Vec::new(),
            asked: Vec::new(),
            clock,
        };
        server.notifier.warn();
        Ok(server)
    }

    /// Serves until a signal ends it. An error means that the poll itself failed.
    pub fn run(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS_MAX);
        let mut now = self.now();
        loop {
            for pool in self.pools.iter_mut().flatten() {
                pool.stillness.begin_turn(now);
                if pool.is_due(now) {
                    pool.turn(now);
                }
            }
            self.advance(now)?;
            self.tell_supervisor(now);
            if self.phase == Phase::Over {
                return Ok(());
            }
            let timeout = self.timeout(now);
            match self.poll.poll(&mut events, timeout) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            }
            let before = now;
            now = self.now();
            for pool in self.pools.iter_mut().flatten() {
                pool.wake(before, slept_at_most(timeout), now);
            }
            for event in &events {
                match token::origin(event.token()) {
                    Origin::Pool(number, part) => {
                        if let Some(Some(pool)) = self.pools.get_mut(number) {
                            pool.event(part, event, now);
                        }
                    }
                    Origin::Takeover => self.takeover_event(now),
                    Origin::Signals => self.take_signals(now),
                    Origin::Admin => self.admit(now),
                    Origin::AdminConn(place) => self.attend(place, event, now),
                    Origin::Waker => {
                        for pool in self.pools.iter_mut().flatten() {
                            pool.resolver.collect();
                        }
                        self.take_loaded(now);
                    }
                }
            }
            for pool in self.pools.iter_mut().flatten() {
                if pool.is_due(now) {
                    pool.put_off(now);
                    pool.touched = true;
                }
            }
            self.tend_admin(now);
        }
    }

    fn now(&self) -> Time {
        self.clock.now()
    }

    /// How long the poll may sleep. `None`: until something happens.
    fn timeout(&self, now: Time) -> Option<Duration> {
        let pools = self.pools.iter().flatten();
        let pools = pools.filter_map(|pool| if pool.touched { Some(now) } else { pool.due });
        let next = pools
            .min()
            .into_iter()
            .chain(self.notifier.next_kick())
            .chain(self.admin.as_ref().map(Endpoint::next_timeout))
            .min()?;
        if next <= now {
            return Some(Duration::ZERO);
        }
        // The poll rounds up to whole milliseconds, so it never wakes just before a deadline and spins.
        Some(Duration::from_micros(next.since(self.now()).0))
    }
}

/// How long a poll with that timeout may take.
fn slept_at_most(timeout: Option<Duration>) -> Span {
    Span(timeout.map_or(u64::MAX, |timeout| timeout.as_micros() as u64))
}
