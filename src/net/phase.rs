//! From the start to the end: when clients are accepted, what signals do, and what a supervisor hears of it.

use std::io;

use super::pool::Door;
use super::Server;
use crate::sys;
use crate::sys::pidfile::PidFile;
use crate::sys::signal::Signal;
use crate::time::{Span, Time};

/// How often the supervisor's line on the servers is brought up to date, if they changed.
const STATUS_EVERY: Span = Span::from_millis(1000);

/// Where the process stands between start and end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Some pool is not open yet.
    Starting,
    /// Clients are served.
    Serving,
    /// No new clients; those there are get their answers.
    Draining,
    /// The end, now.
    Over,
}

/// What the supervisor was last told of the servers.
#[derive(Default)]
pub(super) struct Told {
    counts: Option<(usize, usize)>,
    next: Time,
}

impl Server {
    /// Steps from phase to phase.
    pub(super) fn advance(&mut self, now: Time) -> io::Result<()> {
        for slot in &mut self.pools {
            let Some(pool) = slot else {
                continue;
            };
            pool.open(now)?;
            pool.end_leaving(now);
            if pool.is_over(now) {
                *slot = None;
            }
        }
        let mut pools = self.pools.iter().flatten();
        match self.phase {
            Phase::Starting if pools.all(|pool| pool.door == Door::Open) => {
                self.phase = Phase::Serving;
                log::info!("serving clients");
                self.notifier.say("READY=1");
                self.succeed();
                self.answer_asked();
            }
            Phase::Draining if pools.next().is_none() => self.phase = Phase::Over,
            _ => {}
        }
        Ok(())
    }

    /// Clients are served: the magent before this one may go.
    fn succeed(&mut self) {
        let Some(predecessor) = self.predecessor.take() else {
            return;
        };
        if let Some(Err(error)) = self.pidfile.as_mut().map(PidFile::rewrite) {
            log::warn!("--pidfile: {}", sys::reason(&error));
        }
        predecessor.go();
        log::info!("the magent before this one has been let go");
    }

    /// Tells the supervisor that the loop turns, and how many servers are live when that has changed.
    pub(super) fn tell_supervisor(&mut self, now: Time) {
        if !self.notifier.is_heard() {
            return;
        }
        self.notifier.kick(now);
        if self.phase != Phase::Serving || now < self.told.next {
            return;
        }
        self.told.next = now + STATUS_EVERY;
        let pools = self.pools.iter().flatten();
        let counts = pools.map(|pool| pool.proxy.server_counts());
        let (servers, live) = counts.fold((0, 0), |sum, pool| (sum.0 + pool.0, sum.1 + pool.1));
        if self.told.counts != Some((servers, live)) {
            self.told.counts = Some((servers, live));
            self.notifier
                .say(&format!("STATUS=serving: {live} of {servers} servers live"));
        }
    }

    pub(super) fn take_signals(&mut self, now: Time) {
        while let Some(signal) = self.signals.take() {
            match signal {
                Signal::Reopen => self.reload(),
                Signal::End => self.end(now),
            }
        }
    }

    /// The first signal lets clients finish, the second ends at once.
    fn end(&mut self, now: Time) {
        if self.phase == Phase::Draining {
            self.phase = Phase::Over;
            return;
        }
        log::info!("ending: no new clients, requests in flight finish");
        self.notifier
            .say("STOPPING=1\nSTATUS=ending: requests in flight finish");
        for pool in self.pools.iter_mut().flatten() {
            pool.close(now + self.drain, now);
        }
        // A magent started now may have the place: it must not take this one for a running one.
        self.marks = None;
        self.phase = Phase::Draining;
    }
}
