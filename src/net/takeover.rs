//! The old side of a takeover: a newcomer asks a mark, gets what it needs to stand in, and says when it does.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use mio::unix::SourceFd;
use mio::{Interest, Registry};

use super::pool::Door;
use super::{token, Phase, Server};
use crate::sys::instance::Marks;
use crate::sys::takeover::{self, Pair};
use crate::time::Time;

/// Most connections that may be there without having asked: whoever starts a second
/// magent comes, looks who is here, and goes.
const ASKERS_MAX: usize = 16;
/// Longer than the kernel's queue of a mark: more come only while they are taken.
const ROUNDS_MAX: usize = 64;

/// Listens to the marks.
pub(super) fn register(marks: &Marks, registry: &Registry) -> io::Result<()> {
    for (_, mark) in marks.iter() {
        registry.register(
            &mut SourceFd(&mark.as_raw_fd()),
            token::TAKEOVER,
            Interest::READABLE,
        )?;
    }
    Ok(())
}

impl Server {
    /// A mark has been spoken to, or the newcomer speaks.
    pub(super) fn takeover_event(&mut self, now: Time) {
        if let Some(newcomer) = &self.newcomer {
            match newcomer.has_gone() {
                Ok(true) => self.leave(now),
                Ok(false) => {}
                Err(_) => {
                    log::warn!("the magent that wanted to take over has gone: this one serves on");
                    self.newcomer = None;
                }
            }
        }
        self.let_askers_in();
        let asking = self.those_who_ask();
        self.asked.extend(asking);
        if self.phase != Phase::Starting {
            self.answer_asked();
        }
    }

    /// Hands over to the first of those who have asked; the others are sent away. While this one does not serve yet they wait.
    pub(super) fn answer_asked(&mut self) {
        for pair in std::mem::take(&mut self.asked) {
            if self.newcomer.is_some() || self.phase != Phase::Serving {
                continue;
            }
            match self.hand_over(pair) {
                Ok(pair) => self.newcomer = Some(pair),
                Err(error) => log::warn!("handing over to another magent failed: {error}"),
            }
        }
    }

    /// Takes those who have connected to the marks; they may ask a moment later.
    fn let_askers_in(&mut self) {
        let registry = self.poll.registry();
        for (_, mark) in self.marks.iter().flat_map(Marks::iter) {
            // Edge-triggered: until nobody is left.
            let waiting = std::iter::from_fn(|| takeover::accept(mark.as_fd()));
            for pair in waiting.take(ROUNDS_MAX) {
                let Some(pair) = pair else {
                    continue;
                };
                let descriptor = pair.as_raw_fd();
                if registry
                    .register(
                        &mut SourceFd(&descriptor),
                        token::TAKEOVER,
                        Interest::READABLE,
                    )
                    .is_ok()
                {
                    self.askers.push(pair);
                }
            }
        }
        for some in [&mut self.askers, &mut self.asked] {
            let surplus = some.len().saturating_sub(ASKERS_MAX);
            some.drain(..surplus);
        }
    }

    fn those_who_ask(&mut self) -> Vec<Pair> {
        let mut asking = Vec::new();
        for pair in std::mem::take(&mut self.askers) {
            match pair.has_asked() {
                Ok(true) => asking.push(pair),
                Ok(false) => self.askers.push(pair),
                Err(_) => {}
            }
        }
        asking
    }

    fn hand_over(&self, pair: Pair) -> io::Result<Pair> {
        log::info!("another magent asks to take over: it gets the listening sockets");
        for (name, mark) in self.marks.iter().flat_map(Marks::iter) {
            pair.hand(&format!("mark {name}"), mark.as_fd())?;
        }
        for pool in self.pools.iter().flatten() {
            for listener in pool.listeners.iter() {
                pair.hand("listener", listener.fd())?;
            }
        }
        if let Some(pidfile) = &self.pidfile {
            if let Some(fd) = pidfile.fd() {
                pair.hand(&format!("pidfile {}", pidfile.path().display()), fd)?;
            }
        }
        if let Some(admin) = &self.admin {
            pair.hand("admin", admin.fd())?;
        }
        pair.end()?;
        Ok(pair)
    }

    /// The newcomer serves. Those who are connected here are served to their end, or until the drain is over; where
    /// copies are kept only what they asked for by now, as two proxies at a time must not write them.
    fn leave(&mut self, now: Time) {
        log::info!("another magent has taken over: no new clients, those that are here may finish");
        self.newcomer = None;
        self.notifier
            .say("STOPPING=1\nSTATUS=another magent has taken over");
        let until = now + self.drain;
        for pool in self.pools.iter_mut().flatten() {
            pool.listeners.leave(&pool.registry);
            match pool.door {
                Door::Closing(_) => {}
                _ if pool.proxy.keeps_copies() => pool.close(until, now),
                _ => pool.leave(until),
            }
        }
        for (_, mark) in self.marks.iter().flat_map(Marks::iter) {
            // Open in the other process, it would go on waking this one.
            let descriptor = mark.as_raw_fd();
            let mut mark = SourceFd(&descriptor);
            let _ = self.poll.registry().deregister(&mut mark);
        }
        self.marks = None;
        self.leave_admin();
        if let Some(pidfile) = self.pidfile.take() {
            pidfile.leave();
        }
        self.phase = Phase::Draining;
    }
}
