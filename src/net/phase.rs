//! From the start to the end: when clients are accepted, what signals do, and what a supervisor hears of it.

use std::io;

use super::Server;
use crate::config::Config;
use crate::sys::signal::Signal;
use crate::time::{Span, Time};

/// How often the supervisor's line on the servers is brought up to date, if they changed.
const STATUS_EVERY: Span = Span::from_millis(1000);

/// Where the process stands between start and end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Servers are being connected to; clients wait in the kernel's queue until that time at most.
    Starting(Time),
    /// Clients are served.
    Serving,
    /// No new clients; those there are get their answers until that time at most.
    Draining(Time),
    /// The end, now.
    Over,
}

impl Phase {
    /// The first one. Connect and first answer may take the timeout each.
    pub(super) fn starting(config: &Config, now: Time) -> Phase {
        Phase::Starting(now + config.timeout + config.timeout)
    }
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
        match self.phase {
            Phase::Starting(until) if self.proxy.is_ready() || now >= until => {
                for (index, listener) in self.listeners.iter_mut().enumerate() {
                    listener.register(self.poll.registry(), self.tokens.listener(index))?;
                }
                self.phase = Phase::Serving;
                log::info!("serving clients");
                self.notifier.say("READY=1");
            }
            Phase::Draining(until) if self.proxy.is_drained() || now >= until => {
                self.phase = Phase::Over;
            }
            _ => {}
        }
        Ok(())
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
        let (servers, live) = self.proxy.server_counts();
        if self.told.counts != Some((servers, live)) {
            self.told.counts = Some((servers, live));
            self.notifier
                .say(&format!("STATUS=serving: {live} of {servers} servers live"));
        }
    }

    pub(super) fn take_signals(&mut self, now: Time) {
        while let Some(signal) = self.signals.take() {
            match signal {
                Signal::Reopen => self.logs.reopen(),
                Signal::End => self.end(now),
            }
        }
    }

    /// The first signal lets clients finish, the second ends at once.
    fn end(&mut self, now: Time) {
        if let Phase::Draining(_) = self.phase {
            self.phase = Phase::Over;
            return;
        }
        log::info!("ending: no new clients, requests in flight finish");
        self.notifier
            .say("STOPPING=1\nSTATUS=ending: requests in flight finish");
        if self.phase == Phase::Serving {
            // What had reached this host before the signal is still answered: those who wait at the door come in, and
            // what they and the others have sent is read.
            for index in 0..self.listeners.len() {
                self.accept(index, now);
            }
            self.read_all(now);
        }
        // A magent started now may have the place: it must not take this one for a running one.
        self.listeners.clear();
        self.marks = None;
        self.proxy.begin_drain(now);
        self.phase = Phase::Draining(now + self.drain);
    }
}
