//! Flow and room: the background copy. A cold server gets back, at a steady pace, what its peers hold.
//!
//! The peers list their keys (`lru_crawler metadump hash`, on a connection of its own); each key that belongs on the cold
//! server is brought over as a read repair would. When all peers have been listed, the server is warm. One server is
//! filled at a time.
//!
//! A listing is read as fast as it comes. While its reader is slow, memcached holds the lock of the keys that it is about to
//! list, and commands for them wait; so what does not fit is not left unread, but left out and listed once more.
//!
//! The walk along the hash table meets every item. Servers that do not know it (before 1.6) walk along the order of use
//! (`metadump all`), which passes over items that are in use at that moment, so they are listed twice.

mod listing;

use super::events::Kind;
use super::ids::Action;
use super::journal::NotedKey;
use super::repair::Then;
use super::server::LinkState;
use super::Proxy;
pub(super) use listing::is_busy;

use crate::hash::Slices;
use crate::time::{Span, Time};

/// Keys on their way at the same time.
const WINDOW: usize = 128;

/// Listed keys that may wait; with more, they are listed again.
pub(super) const LISTED_MAX: usize = 500_000;

/// A listing that could not be had is asked for again after this.
const RETRY: Span = Span::from_millis(1000);

/// The pace is kept over steps of this length.
const STEP: Span = Span::from_millis(10);

/// A listing that left keys out is repeated after this.
const AGAIN: Span = Span::from_millis(10_000);

/// A key that waits to be brought over.
#[derive(Debug)]
struct Listed {
    key: NotedKey,
    /// See [`Then::Resync`].
    expires: Option<u64>,
}

/// The background copy.
#[derive(Debug)]
pub struct Resync {
    /// The server that is being filled.
    pub target: Option<usize>,
    /// Servers that are to be listed.
    sources: Vec<usize>,
    /// Servers that do not walk along their hash table.
    by_use: Vec<usize>,
    /// All have been listed once.
    again: bool,
    /// The one that is listing now.
    source: Option<usize>,
    /// The present listing has ended.
    listed: bool,
    backlog: Slices<Listed>,
    /// Whose keys the backlog holds.
    sliced: Option<usize>,
    /// Servers without meta commands: what had been written when the present listing began, and how many keys were left
    /// out since, as they were written to.
    epochs: (Vec<u32>, u64),
    skipped: u64,
    in_flight: usize,
    /// Keys listed that belong on the target; brought over or found nowhere any more.
    pub total: u64,
    /// See `total`.
    pub done: u64,
    /// When it began.
    pub began: Time,
    /// Keys that may go before `paced`.
    allowance: u32,
    paced: Time,
    retry: Option<Time>,
    /// When the last key was on its way to the target.
    sent: Option<Time>,
}

impl Default for Resync {
    fn default() -> Resync {
        Resync {
            target: None,
            sources: Vec::new(),
            by_use: Vec::new(),
            again: false,
            source: None,
            listed: false,
            backlog: Slices::new(LISTED_MAX),
            sliced: None,
            epochs: (Vec::new(), 0),
            skipped: 0,
            in_flight: 0,
            total: 0,
            done: 0,
            began: Time(0),
            allowance: 0,
            paced: Time(0),
            retry: None,
            sent: None,
        }
    }
}

impl Resync {
    /// A listed key was written to meanwhile: it is left for the next listing.
    pub fn note_skipped(&mut self) {
        self.skipped += 1;
    }

    /// What had been written to a bucket when the present listing began.
    pub fn epoch_at_listing(&self, bucket: usize) -> Option<(u32, u64)> {
        let epoch = *self.epochs.0.get(bucket)?;
        Some((epoch, self.epochs.1))
    }

    /// The server that is listing its keys.
    pub fn source(&self) -> Option<usize> {
        self.source
    }
}

impl Proxy {
    /// Begins to fill a cold server, if there is one and none is being filled.
    pub(super) fn plan_resync(&mut self) {
        if self.settings.resync_rate == 0 || !self.is_active() || self.reload.is_near() {
            return;
        }
        if let Some(target) = self.resync.target {
            // A source that was away may have come back.
            if self.servers[target].is_up() && self.servers[target].cold {
                return self.next_source();
            }
            self.end_resync();
        }
        let Some(target) = self.servers.iter().position(|s| s.is_up() && s.cold) else {
            return;
        };
        let sources = (0..self.servers.len()).filter(|&source| self.shares_keys(source, target));
        self.resync = Resync {
            target: Some(target),
            sources: sources.collect(),
            began: self.now,
            paced: self.now,
            ..Resync::default()
        };
        self.happened_to(target, Kind::ResyncBegun, "background copy begins");
        self.next_source();
    }

    /// Primaries share no keys with each other; all other servers may.
    fn shares_keys(&self, one: usize, other: usize) -> bool {
        let both_primaries = self.servers[one].is_primary && self.servers[other].is_primary;
        one != other && !both_primaries
    }

    /// Lists the next source that is up; with none left the target is warm.
    fn next_source(&mut self) {
        if self.resync.source.is_some() || self.resync.retry.is_some_and(|at| at > self.now) {
            return;
        }
        if self.resync.sources.is_empty() {
            if !self.resync.again && !self.resync.by_use.is_empty() {
                return self.list_again(RETRY);
            }
            if self.resync.skipped > 0 {
                return self.list_again(AGAIN);
            }
            return self.settle_resync();
        }
        let servers = &self.servers;
        let Some(place) = self.resync.sources.iter().position(|&s| servers[s].is_up()) else {
            // What they hold is not known; the target stays cold, and asks.
            self.resync.retry = Some(self.now + RETRY);
            return;
        };
        let source = self.resync.sources[place];
        if self.owes_answers(source, self.resync.began) {
            // Writes that left the target out may still be on their way to it. The listing goes over a connection of its own,
            // and would be there before them.
            self.resync.retry = Some(self.now + STEP);
            return;
        }
        self.resync.source = Some(source);
        self.resync.listed = false;
        self.resync.retry = None;
        if self.resync.sliced != Some(source) {
            self.resync.backlog.restart();
            self.resync.sliced = Some(source);
        }
        let id = self.listing_link(source);
        self.link_mut(id).state = LinkState::Connecting;
        self.actions.push_back(Action::Connect(id));
    }

    /// All keys are on their way. The target is warm when it has answered for them: what it was asked before them it may
    /// still have missed.
    fn settle_resync(&mut self) {
        let Some(target) = self.resync.target else {
            return;
        };
        let sent = *self.resync.sent.get_or_insert(self.now);
        if self.owes_answers(target, sent) {
            self.resync.retry = Some(self.now + STEP);
        } else {
            self.finish_resync();
        }
    }

    /// Whether answers are due to what a server was asked until `time`.
    fn owes_answers(&self, server: usize, time: Time) -> bool {
        let mut heads = self.servers[server]
            .links
            .iter()
            .filter_map(|link| link.fifo.front());
        heads.any(|head| head.queued <= time)
    }

    /// Lists all sources once more: something may have been left out.
    fn list_again(&mut self, pause: Span) {
        let Some(target) = self.resync.target else {
            return;
        };
        self.resync.again = true;
        let sources = (0..self.servers.len()).filter(|&source| self.shares_keys(source, target));
        self.resync.sources = sources.collect();
        self.resync.skipped = 0;
        self.resync.sent = None;
        self.resync.retry = Some(self.now + pause);
    }

    /// One key more has been dealt with.
    pub(super) fn resynced(&mut self) {
        self.resync.in_flight = self.resync.in_flight.saturating_sub(1);
        self.resync.done += 1;
        self.check_listed();
    }

    fn check_listed(&mut self) {
        let resync = &mut self.resync;
        if resync.listed && resync.backlog.is_empty() && resync.in_flight == 0 {
            let source = resync.source.take();
            if !resync.backlog.advance() {
                resync.sources.retain(|&other| Some(other) != source);
                resync.sliced = None;
            }
            self.next_source();
        }
    }

    /// Sends as many keys as the pace allows. Called with each turn.
    pub(super) fn pump_resync(&mut self) {
        let Some(target) = self.resync.target else {
            if self.servers.iter().any(|server| server.cold) {
                self.plan_resync();
            }
            return;
        };
        if !self.servers[target].is_up() || !self.servers[target].cold {
            return self.end_resync();
        }
        if !self.may_copy() {
            return;
        }
        if self.resync.source.is_none() {
            self.next_source();
        }
        self.grant();
        while self.resync.in_flight < WINDOW && self.resync.allowance > 0 {
            let Some(listed) = self.resync.backlog.pop() else {
                break;
            };
            let noted = listed.key;
            self.resync.allowance -= 1;
            self.resync.in_flight += 1;
            let route = self.route_of_noted(&noted);
            if !self.meta && self.is_overtaken(route.hash) {
                self.resync.note_skipped();
                self.resynced();
                continue;
            }
            let then = Then::Resync {
                expires: listed.expires,
            };
            self.begin_repair(&noted, route, target, then);
        }
    }

    /// Grants keys for the time that has passed.
    fn grant(&mut self) {
        let rate = u64::from(self.settings.resync_rate);
        let passed = self.now.since(self.resync.paced).0;
        let steps = passed / STEP.0;
        if steps > 0 {
            let per_step = (rate * STEP.0 / 1_000_000).max(1);
            let grant = per_step * steps.min(10);
            self.resync.allowance = (u64::from(self.resync.allowance) + grant)
                .min(per_step * 10)
                .try_into()
                .unwrap_or(u32::MAX);
            self.resync.paced = self.now;
        }
    }

    /// When the background copy wants to go on.
    pub(super) fn resync_timeout(&self) -> Option<Time> {
        self.resync.target?;
        if !self.may_copy() {
            return None;
        }
        if self.resync.source.is_none() {
            return self.resync.retry;
        }
        let waits = !self.resync.backlog.is_empty() && self.resync.in_flight < WINDOW;
        waits.then(|| self.resync.paced + STEP)
    }

    fn finish_resync(&mut self) {
        if let Some(target) = self.resync.target {
            let server = &mut self.servers[target];
            server.cold = false;
            if server.stamp.is_some() {
                self.restamp(target);
            }
            let took = self.now.since(self.resync.began).0 / 1000;
            let detail = format!("{} keys gone through in {took} ms", self.resync.done);
            self.happened_to(target, Kind::ResyncEnded, &detail);
            self.happened_to(target, Kind::ServerWarm, format!("warm, {detail}"));
        }
        self.resync = Resync::default();
        self.plan_resync();
    }

    /// The target is gone, or warm already.
    pub(super) fn end_resync(&mut self) {
        if let Some(source) = self.resync.source {
            let id = self.listing_link(source);
            if self.link_mut(id).state != LinkState::Closed {
                self.close_listing(id);
            }
        }
        // Keys still on their way count for nobody.
        let over = std::mem::take(&mut self.resync);
        if let Some(target) = over.target {
            let detail = format!("background copy given up after {} keys", over.done);
            self.happened_to(target, Kind::ResyncEnded, detail);
        }
    }
}
