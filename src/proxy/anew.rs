//! After the process has stood still: whether something old is under way, and how to be rid of it.

use super::server::Role;
use super::Proxy;
use crate::config::Config;
use crate::time::{Span, Time};

/// Who asks for the health again within this time watches.
const WATCHED_FOR: Span = Span::from_millis(200);

impl Proxy {
    /// All that is under way is forgotten, without a word to clients and servers, whose connections are gone: as when the
    /// process starts, but for the counters.
    pub fn begin_anew(&mut self, config: &Config, now: Time) {
        let fresh = Proxy::new(config, self.facts, now);
        let old = std::mem::replace(self, fresh);
        self.counters = old.counters;
        self.counters.begun_anew += 1;
        self.commands = old.commands;
        self.events = old.events;
        self.started = old.started;
        self.next_generation = old.next_generation;
        self.addresses = old.addresses;
        self.draining = old.draining;
        self.health_asked = old.health_asked;
        self.reload.keep_told(old.reload);
    }

    /// Whether something is under way that changes what servers hold, or may lead to it.
    pub fn has_unsettled(&self) -> bool {
        let only_looks = |role| {
            matches!(
                role,
                Role::Probe | Role::Stamp | Role::Process | Role::Inquire(_)
            )
        };
        let mut links = self.servers.iter().flat_map(|server| &server.links);
        let in_flight = links.any(|link| link.fifo.iter().any(|flight| !only_looks(flight.role)));
        in_flight || !self.txns.is_empty() || self.order.is_holding() || self.barrier.is_raised()
    }

    /// Whether somebody keeps asking for this proxy's health, who may move its address at any time.
    pub fn is_watched(&self, now: Time) -> bool {
        let asked = self.health_asked;
        asked.is_some_and(|asked| now.since(asked) < WATCHED_FOR)
    }
}
