//! SIGHUP: the file of the pools is read again (by `loader`). What can fail comes first; then pools are added, changed and
//! closed, and no connection is lost by it.

use std::io;
use std::os::fd::AsRawFd;

use mio::unix::SourceFd;
use mio::Interest;

use super::descriptors::{links_each, provide};
use super::listener::Listener;
use super::place::Spot;
use super::pool::{Door, Pool};
use super::{token, Listeners, Phase, PoolParts, Server};
use crate::config::{file, Config};
use crate::pools::{Failure, Plan};
use crate::proxy::events::Kind;
use crate::sys::instance::{self, Marks, Taken};
use crate::sys::SystemError;
use crate::time::{Span, Time};

/// Listeners that were opened for pools, by the pool's place in the file.
type Opened = Vec<(usize, Spot, Listener)>;

impl Server {
    /// SIGHUP.
    pub(super) fn reload(&mut self) {
        self.logs.reopen();
        if self.loader.has_file() && self.phase != Phase::Draining {
            self.loader.begin();
        }
    }

    /// Takes what has been read; called when the waker fired.
    pub(super) fn take_loaded(&mut self, now: Time) {
        if self.phase == Phase::Draining {
            return;
        }
        while let Some(loaded) = self.loader.take() {
            let done = loaded.and_then(|plans| self.carry_out(plans, now).map_err(Failure::System));
            if let Err(failure) = done {
                let failure = failure.to_string();
                for line in failure.lines() {
                    log::error!("{line}");
                }
                log::error!("the configuration is what it was");
                let first = failure.lines().next().unwrap_or_default();
                let detail = format!("nothing is changed: {first}");
                for pool in self.pools.iter_mut().flatten() {
                    pool.proxy.reload_failed(&failure, now);
                    pool.proxy.happened(Kind::Reload, "", detail.as_str(), now);
                }
            }
        }
    }

    fn carry_out(&mut self, mut plans: Vec<Plan>, now: Time) -> Result<(), SystemError> {
        if let Some(text) = provide(&mut plans) {
            log::warn!("{text}");
        }
        let opened = self.open_new(&plans)?;
        // From here on nothing fails.
        let mut listeners: Vec<Listeners> = plans.iter().map(|_| Listeners::default()).collect();
        for (index, plan) in plans.iter().enumerate() {
            for spot in wanted(plan) {
                if let Some(listener) = self.take_from_others(plan, &spot) {
                    listeners[index].push(spot, listener);
                }
            }
        }
        for (index, spot, listener) in opened {
            listeners[index].push(spot, listener);
        }
        self.close_missing(&plans, now);
        for (plan, listeners) in plans.into_iter().zip(listeners) {
            match self.number_of(&plan.config) {
                Some(number) => {
                    if let Some(pool) = self.pools[number].as_mut() {
                        pool.change(plan, listeners, self.handover, now);
                    }
                }
                None => self.add_pool(plan, listeners, now),
            }
        }
        self.release_marks();
        Ok(())
    }

    /// The number of the pool of that name that is served.
    fn number_of(&self, config: &Config) -> Option<usize> {
        let mut pools = self.pools.iter();
        pools.position(|pool| {
            let pool = pool
                .as_ref()
                .filter(|pool| !matches!(pool.door, Door::Closing(_)));
            pool.is_some_and(|pool| pool.config.pool == config.pool)
        })
    }

    /// Opens what nobody here listens at yet, and listens to its marks.
    fn open_new(&mut self, plans: &[Plan]) -> Result<Opened, SystemError> {
        let opened = self.open_new_unheard(plans)?;
        for (_, mark) in self.marks.iter().flat_map(Marks::iter) {
            // Those that are registered already say so; without it a takeover is not heard by way of that mark.
            let descriptor = mark.as_raw_fd();
            let mut mark = SourceFd(&descriptor);
            let _ = self
                .poll
                .registry()
                .register(&mut mark, token::TAKEOVER, Interest::READABLE);
        }
        Ok(opened)
    }

    fn open_new_unheard(&mut self, plans: &[Plan]) -> Result<Opened, SystemError> {
        if plans.len() > file::POOLS_MAX {
            return Err(SystemError::new("-c", "too many pools"));
        }
        let mut marks = self.marks.take().unwrap_or_default();
        let (mut opened, mut taken) = (Vec::new(), Vec::new());
        let mut failed = None;
        'all: for (index, plan) in plans.iter().enumerate() {
            for spot in wanted(plan) {
                let pools = self.pools.iter().flatten();
                if pools
                    .into_iter()
                    .any(|pool| pool.listeners.listens_at(&spot))
                {
                    continue;
                }
                match open_one(plan, &spot, &mut marks, &mut taken) {
                    Ok(listener) => opened.push((index, spot, listener)),
                    Err(error) => {
                        failed = Some(error);
                        break 'all;
                    }
                }
            }
        }
        if failed.is_some() {
            taken.iter().for_each(|name| marks.release(name));
        }
        self.marks = Some(marks);
        failed.map_or(Ok(opened), Err)
    }

    /// A listener that another pool has now and that this one is to have.
    fn take_from_others(&mut self, plan: &Plan, spot: &Spot) -> Option<Listener> {
        let others = self.pools.iter_mut().flatten();
        let mut others = others.filter(|pool| pool.config.pool != plan.config.pool);
        others.find_map(|pool| {
            let mut listener = pool.listeners.take(spot)?;
            // It is registered anew by its new pool.
            let _ = listener.deregister(&pool.registry);
            Some(listener)
        })
    }

    /// Closes pools that are no more.
    fn close_missing(&mut self, plans: &[Plan], now: Time) {
        let until = now + self.drain;
        for pool in self.pools.iter_mut().flatten() {
            let stays = plans
                .iter()
                .any(|plan| plan.config.pool == pool.config.pool);
            if !stays && !matches!(pool.door, Door::Closing(_)) {
                let name = pool.config.pool.as_deref().unwrap_or_default();
                let detail = format!("pool '{name}' is closed");
                pool.proxy.happened(Kind::Reload, "", detail, now);
                pool.close(until, now);
            }
        }
    }

    fn add_pool(&mut self, plan: Plan, listeners: Listeners, now: Time) {
        let number = match self.pools.iter().position(Option::is_none) {
            Some(free) => free,
            None if self.pools.len() < file::POOLS_MAX => {
                self.pools.push(None);
                self.pools.len() - 1
            }
            None => {
                return log::error!("too many pools at the same time; SIGHUP later adds the rest")
            }
        };
        let registry = match self.poll.registry().try_clone() {
            Ok(registry) => registry,
            Err(error) => return log::error!("a pool cannot be added: {error}"),
        };
        let parts = PoolParts {
            config: plan.config,
            listeners,
            addresses: plan.addresses,
        };
        let mut pool = Pool::new(
            parts,
            number,
            registry,
            self.loader.waker(),
            self.clock,
            now,
        );
        let name = pool.config.pool.as_deref().unwrap_or_default();
        let detail = format!("pool '{name}' is added");
        pool.proxy.happened(Kind::Reload, "", detail, now);
        self.pools[number] = Some(pool);
    }

    /// Gives up the marks of places that nobody here listens at any more.
    fn release_marks(&mut self) {
        let pools = self.pools.iter().flatten();
        let spots: Vec<String> = pools
            .flat_map(|pool| pool.listeners.spots())
            .filter_map(|spot| mark_of(&spot).ok())
            .collect();
        if let Some(marks) = &mut self.marks {
            marks.keep(&spots);
        }
    }
}

/// Where a pool wants to listen.
fn wanted(plan: &Plan) -> impl Iterator<Item = Spot> + '_ {
    let tcp = plan.places.iter().map(|place| Spot::Tcp(place.address));
    let unix = plan.config.socket.iter().cloned().map(Spot::Unix);
    tcp.chain(unix)
}

/// The mark of a place.
pub fn mark_of(spot: &Spot) -> io::Result<String> {
    match spot {
        Spot::Tcp(address) => Ok(instance::tcp_mark(address)),
        Spot::Unix(path) => instance::socket_mark(path),
    }
}

fn open_one(
    plan: &Plan,
    spot: &Spot,
    marks: &mut Marks,
    taken: &mut Vec<String>,
) -> Result<Listener, SystemError> {
    let place = plan
        .places
        .iter()
        .find(|place| *spot == Spot::Tcp(place.address));
    let asked = match (place, spot) {
        (Some(place), _) => place.asked.clone(),
        (None, Spot::Unix(path)) => super::asked_unix(&plan.config, path),
        (None, Spot::Tcp(address)) => address.to_string(),
    };
    if !place.is_some_and(|place| place.reuseport) {
        let failed = |error: io::Error| SystemError::io(&asked, &error);
        let name = mark_of(spot).map_err(failed)?;
        if !marks.has(&name) {
            if marks.take(&name).map_err(failed)? == Taken::Theirs {
                return Err(SystemError::new(asked, "in use by another magent"));
            }
            taken.push(name);
        }
    }
    match (place, spot) {
        (Some(place), _) => Listener::tcp(place, marks),
        (None, Spot::Unix(path)) => Listener::unix(&plan.config, path, (None, None)),
        (None, Spot::Tcp(address)) => Err(SystemError::new(address, "not asked for")),
    }
}

impl Pool {
    /// Becomes what `plan` says; `listeners` are those that are new.
    fn change(&mut self, plan: Plan, listeners: Listeners, handover: Span, now: Time) {
        let keeps: Vec<Spot> = wanted(&plan).collect();
        for index in 0..self.listeners.len() {
            if !self.listeners.is_one_of(index, &keeps) {
                // Those who wait at that door come in.
                self.accept(index, now);
                self.listeners.close(index);
            }
        }
        for (spot, mut listener) in listeners.into_all() {
            let index = self.listeners.len();
            if self.door == Door::Open {
                let registered = listener.register(&self.registry, self.tokens.listener(index));
                if let Err(error) = registered {
                    log::error!("a listener cannot be watched: {error}");
                }
            }
            self.listeners.push(spot, listener);
        }
        self.touched = true;
        if plan.config == self.config {
            return;
        }
        let name = plan.config.pool.as_deref().unwrap_or_default();
        let detail = format!("pool '{name}' is changed");
        self.proxy.happened(Kind::Reload, "", detail, now);
        let joining = self.proxy.reload(plan.config.clone(), handover, now);
        let mut addresses: Vec<_> = plan.addresses.into_iter().map(Some).collect();
        for position in joining {
            self.links.add(links_each(&plan.config));
            if let Some(addresses) = addresses.get_mut(position).and_then(Option::take) {
                self.resolver.add(addresses);
            }
        }
        self.config = plan.config;
    }

    /// Gives servers the indices that the core has given them. True when it has.
    pub(super) fn follow_reload(&mut self) -> bool {
        let Some(moves) = self.proxy.take_moves() else {
            return false;
        };
        self.links.rearrange(&moves, &self.registry, self.tokens);
        self.resolver.rearrange(&moves);
        for waiting in [&mut self.again, &mut self.writable] {
            waiting.retain_mut(|id| id.follow(&moves));
        }
        true
    }

    /// The core begins anew: its servers are those of the configuration, whatever was under way.
    pub(super) fn arrange_servers(&mut self) {
        let specs = self.config.servers.iter().chain(&self.config.backups);
        let moves = self.resolver.moves_to(specs);
        self.resolver.rearrange(&moves);
        self.links = super::link::Links::default();
        for _ in moves.iter().flatten() {
            self.links.add(links_each(&self.config));
        }
    }
}
