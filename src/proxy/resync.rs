//! Flow and room: the background copy. A cold server gets back, at a steady pace, what its peers hold.
//!
//! The peers list their keys (`lru_crawler metadump hash`, on a connection of its own); each key that belongs on the cold
//! server is brought over as a read repair would. When all peers have been listed, the server is warm. One server is
//! filled at a time.
//!
//! A listed key is done when the target has answered for it, or when its copies say that they do not have it. One that could
//! not be had waits once more. What a listing names need not be brought over only if a warm copy has been listed before: a
//! cold one may lack it.
//!
//! A listing is read as fast as it comes. While its reader is slow, memcached holds the lock of the keys that it is about to
//! list, and commands for them wait; so what does not fit is not left unread, but left out and listed once more.
//!
//! The walk along the hash table meets every item. Servers that do not know it (before 1.6) walk along the order of use
//! (`metadump all`), which passes over items that are in use at that moment, so they are listed twice.

mod listing;
mod pace;

use super::events::Kind;
use super::ids::Action;
use super::journal::NotedKey;
use super::repair::Then;
use super::sabotage::{is, Sabotage};
use super::server::{LinkState, State};
use super::Proxy;
pub(super) use listing::is_busy;
use pace::Window;

use crate::hash::Slices;
use crate::time::{Span, Time};

/// Listed keys that may wait; with more, they are listed again.
pub(super) const LISTED_MAX: usize = 500_000;

/// A listing that could not be had is asked for again after this.
const RETRY: Span = Span::from_millis(1000);

/// The pace is kept over steps of this length.
const STEP: Span = Span::from_millis(10);

/// A listing that left keys out is repeated after this.
const AGAIN: Span = Span::from_millis(10_000);

/// After a key that could not be had the copy pauses for this long.
const FAILED: Span = Span::from_millis(100);

/// What is known of a key that is to be brought over.
#[derive(Clone, Copy, Debug)]
pub struct Listed {
    /// When the item expires, seconds since 1970; 0: never. Servers without meta commands do not tell it otherwise.
    pub expires: Option<u64>,
    /// About how many bytes it takes.
    size: u32,
    /// Which copy it belongs to.
    round: u32,
    /// Who listed it.
    source: u16,
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
    /// Servers that have been listed, and have been warm since: they named what they and the target hold.
    vouchers: Vec<usize>,
    backlog: Slices<(NotedKey, Listed)>,
    /// Whose keys the backlog holds.
    sliced: Option<usize>,
    /// Servers without meta commands: what had been written when the present listing began, and how many keys were left
    /// out since, as they were written to.
    epochs: (Vec<u32>, u64),
    skipped: u64,
    window: Window,
    /// Counts copies: what is still on its way for an earlier one is not counted for this one.
    round: u32,
    /// Nothing more goes on its way before.
    rests_until: Time,
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
            vouchers: Vec::new(),
            backlog: Slices::new(LISTED_MAX),
            sliced: None,
            epochs: (Vec::new(), 0),
            skipped: 0,
            window: Window::default(),
            round: 0,
            rests_until: Time(0),
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

    /// A copy that follows this one.
    fn next(&self) -> Resync {
        Resync {
            round: self.round.wrapping_add(1),
            ..Resync::default()
        }
    }

    /// A server is lost: whatever it holds when it returns, it does not vouch for keys any more.
    pub fn note_loss(&mut self, server: usize) {
        self.vouchers.retain(|&other| other != server);
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
        // It goes over the same connections, and can wait.
        self.end_survey();
        let sources = (0..self.servers.len()).filter(|&source| self.shares_keys(source, target));
        self.resync = Resync {
            target: Some(target),
            sources: sources.collect(),
            began: self.now,
            paced: self.now,
            ..self.resync.next()
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
        let servers = &self.servers;
        let lists = |&source: &usize| servers[source].state != State::Twin;
        self.resync.sources.retain(lists);
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
        self.resync.vouchers.clear();
        self.resync.skipped = 0;
        self.resync.sent = None;
        self.resync.retry = Some(self.now + pause);
    }

    /// A key has been dealt with; `failed`: a copy that may have it did not tell.
    pub(super) fn resynced(&mut self, listed: Listed, key: NotedKey, failed: bool) {
        if listed.round != self.resync.round {
            return;
        }
        let resync = &mut self.resync;
        resync.window.leave(listed.size);
        let source = usize::from(listed.source);
        if !failed {
            resync.done += 1;
        } else if resync.source == Some(source) {
            resync.rests_until = self.now + FAILED;
            resync.backlog.put_back((key, listed));
        }
        // Else the source is going to be listed once more.
        self.check_listed();
    }

    /// An answer for a key on its way tells what the links carry.
    pub(super) fn note_pace(&mut self, repair: u32, asked: Time) {
        if let Then::Resync(listed) = self.repairs[repair as usize].then() {
            let patience = Span(self.settings.timeout.0 / 4);
            let (listed, now) = (*listed, self.now);
            self.resync
                .window
                .answered(listed.size, asked, now, patience);
        }
    }

    /// Whether the server that listed a key is away, so that nobody can say whether it is still there.
    pub(super) fn is_source_away(&self, listed: &Listed) -> bool {
        !self.servers[usize::from(listed.source)].is_up()
    }

    fn check_listed(&mut self) {
        let servers = &self.servers;
        let resync = &mut self.resync;
        if resync.listed && resync.backlog.is_empty() && resync.window.is_empty() {
            let source = resync.source.take();
            if !resync.backlog.advance() {
                resync.vouchers.extend(
                    source.filter(|&source| !servers[source].cold || is(Sabotage::ColdVouches)),
                );
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
        if self.resync.rests_until > self.now {
            return;
        }
        while self.resync.window.has_room() && self.resync.allowance > 0 {
            let Some((noted, listed)) = self.resync.backlog.pop() else {
                break;
            };
            self.resync.allowance -= 1;
            self.resync.window.enter(listed.size);
            let route = self.route_of_noted(&noted);
            if !self.meta && self.is_overtaken(route.hash) {
                self.resync.note_skipped();
                self.resynced(listed, noted, false);
                continue;
            }
            self.begin_repair(&noted, route, target, Then::Resync(listed));
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
        let waits = !self.resync.backlog.is_empty() && self.resync.window.has_room();
        waits.then(|| self.resync.rests_until.max(self.resync.paced + STEP))
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
        self.resync = self.resync.next();
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
        let next = self.resync.next();
        let over = std::mem::replace(&mut self.resync, next);
        if let Some(target) = over.target {
            let detail = format!("background copy given up after {} keys", over.done);
            self.happened_to(target, Kind::ResyncEnded, detail);
        }
    }
}
