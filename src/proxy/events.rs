//! What happened to the pool: one word for each kind of change, the same in the log, in metrics and on the page.
//!
//! The last ones are kept, so that who looks later sees what came before. One that repeats itself (a server that is
//! refused again and again) is counted in place of its line.

use std::collections::VecDeque;

use log::{Level, Record};

use super::Proxy;
use crate::time::{Span, Time};

/// How many are kept.
pub const KEPT: usize = 50;

/// The same event of the same server within this time is a repetition.
const REPEATS_WITHIN: Span = Span::from_secs(10);

/// How many of them are told, within that time, before it is only told the 10th, 100th, 1000th ... time.
const TOLD: u32 = 5;

/// What happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A server is used from now on.
    ServerUp,
    /// A server is used no more; with the reason.
    ServerDown,
    /// A server is not used yet: it may hold values that were replaced while it was away.
    ServerStale,
    /// A server is another one by a second name.
    ServerTwin,
    /// A server was flushed, as it missed writes.
    ServerFlushed,
    /// A server is used, but lacks what its peers hold.
    ServerCold,
    /// A server has got back what its peers hold.
    ServerWarm,
    /// A server's keys go to others.
    ServerEjected,
    /// A view was raised.
    ViewRaised,
    /// The background copy to a server begins.
    ResyncBegun,
    /// It has ended.
    ResyncEnded,
    /// This proxy serves after a pause, in which another one may have.
    TakeOver,
    /// A limit is reached.
    LimitHit,
    /// It is not reached any more.
    LimitLeft,
    /// An address of clients came to this host or left it.
    AddressHere,
    /// See `AddressHere`.
    AddressGone,
    /// The process had been stopped.
    StoodStill,
    /// The configuration was read again.
    Reload,
    /// A server answered what nobody understands.
    ServerStrange,
    /// A server answers signs of life, but no client.
    ServerRelapses,
}

impl Kind {
    /// All of them, in the order of their numbers.
    pub const ALL: [Kind; 20] = [
        Kind::ServerUp,
        Kind::ServerDown,
        Kind::ServerStale,
        Kind::ServerTwin,
        Kind::ServerFlushed,
        Kind::ServerCold,
        Kind::ServerWarm,
        Kind::ServerEjected,
        Kind::ViewRaised,
        Kind::ResyncBegun,
        Kind::ResyncEnded,
        Kind::TakeOver,
        Kind::LimitHit,
        Kind::LimitLeft,
        Kind::AddressHere,
        Kind::AddressGone,
        Kind::StoodStill,
        Kind::Reload,
        Kind::ServerStrange,
        Kind::ServerRelapses,
    ];

    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::ServerUp => "server_up",
            Kind::ServerDown => "server_down",
            Kind::ServerStale => "server_stale",
            Kind::ServerTwin => "server_twin",
            Kind::ServerFlushed => "server_flushed",
            Kind::ServerCold => "server_cold",
            Kind::ServerWarm => "server_warm",
            Kind::ServerEjected => "server_ejected",
            Kind::ViewRaised => "view_raised",
            Kind::ResyncBegun => "resync_begun",
            Kind::ResyncEnded => "resync_ended",
            Kind::TakeOver => "take_over",
            Kind::LimitHit => "limit_hit",
            Kind::LimitLeft => "limit_left",
            Kind::AddressHere => "address_here",
            Kind::AddressGone => "address_gone",
            Kind::StoodStill => "stood_still",
            Kind::Reload => "reload",
            Kind::ServerStrange => "server_strange",
            Kind::ServerRelapses => "server_relapses",
        }
    }

    /// Whether somebody may have to do something about it.
    fn is_warning(self) -> bool {
        matches!(
            self,
            Kind::ServerDown
                | Kind::ServerStale
                | Kind::ServerTwin
                | Kind::LimitHit
                | Kind::StoodStill
                | Kind::ServerStrange
                | Kind::ServerRelapses
        )
    }
}

/// One that happened.
#[derive(Clone, Debug)]
pub struct Event {
    /// When.
    pub at: Time,
    /// What.
    pub kind: Kind,
    /// To whom: a server, an address, or nobody in particular (empty).
    pub subject: String,
    /// The rest of it, for people.
    pub detail: String,
    /// How often it was repeated since, within [`REPEATS_WITHIN`] of the one before.
    pub repeats: u32,
    /// When it was repeated last; `at`, if it was not.
    pub last: Time,
}

/// Which limits are reached.
#[derive(Debug, Default)]
struct Full {
    conns: bool,
    memory: bool,
}

/// The last events, and how many there were of each kind.
#[derive(Debug)]
pub struct Events {
    /// Its name, if it has one.
    pool: Option<String>,
    full: Full,
    kept: VecDeque<Event>,
    counts: [u64; Kind::ALL.len()],
}

impl Events {
    /// None yet. `pool`: its name, if it has one.
    pub fn new(pool: Option<String>) -> Events {
        Events {
            pool,
            full: Full::default(),
            kept: VecDeque::new(),
            counts: [0; Kind::ALL.len()],
        }
    }

    /// Takes note of an event, and tells the log unless it only repeats.
    pub fn happened(&mut self, now: Time, kind: Kind, subject: &str, detail: String) {
        self.counts[kind as usize] += 1;
        let same = |event: &&mut Event| event.kind == kind && event.subject == subject;
        if let Some(event) = self.kept.iter_mut().rev().find(same) {
            if event.detail == detail && now.since(event.last) < REPEATS_WITHIN {
                event.repeats = event.repeats.saturating_add(1);
                event.last = now;
                let times = event.repeats.saturating_add(1);
                if times <= TOLD {
                    tell(self.pool.as_deref(), kind, subject, &event.detail);
                } else if times == 10_u32.pow(times.ilog10()) {
                    let detail = format!("{detail}, {times} times");
                    tell(self.pool.as_deref(), kind, subject, &detail);
                }
                return;
            }
        }
        tell(self.pool.as_deref(), kind, subject, &detail);
        if self.kept.len() == KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(Event {
            at: now,
            kind,
            subject: subject.to_owned(),
            detail,
            repeats: 0,
            last: now,
        });
    }

    /// The last ones, the oldest first.
    pub fn kept(&self) -> impl Iterator<Item = &Event> {
        self.kept.iter()
    }

    /// How many there were of that kind, repetitions included.
    pub fn count(&self, kind: Kind) -> u64 {
        self.counts[kind as usize]
    }
}

impl Proxy {
    /// Something happened to a server.
    pub(super) fn happened_to(&mut self, server: usize, kind: Kind, detail: impl Into<String>) {
        let name = &self.servers[server].name;
        self.events.happened(self.now, kind, name, detail.into());
    }

    /// Something happened to the pool; `subject` may be empty.
    pub fn happened(&mut self, kind: Kind, subject: &str, detail: impl Into<String>, now: Time) {
        self.now = self.now.max(now);
        self.events.happened(self.now, kind, subject, detail.into());
    }

    /// Looks whether limits are reached still, and says so when one is not any more: each at a tenth below it.
    pub(super) fn look_at_limits(&mut self) {
        let most = self.settings.max_conns;
        if self.events.full.conns && self.clients.len() <= most - most.div_ceil(10) {
            self.events.full.conns = false;
            self.happened(
                Kind::LimitLeft,
                "-n",
                "clients are accepted again",
                self.now,
            );
        }
        let most = self.memory.limit();
        if self.events.full.memory && self.memory.used() <= most - most.div_ceil(10) {
            self.events.full.memory = false;
            self.happened(
                Kind::LimitLeft,
                "--memory-limit",
                "requests are taken again",
                self.now,
            );
        }
    }

    /// A client was turned away over `-n`.
    pub(super) fn conns_are_full(&mut self) {
        if !std::mem::replace(&mut self.events.full.conns, true) {
            let most = self.settings.max_conns;
            self.happened(
                Kind::LimitHit,
                "-n",
                format!("{most} clients, no more are accepted"),
                self.now,
            );
        }
    }

    /// A request was refused over `--memory-limit`.
    pub(super) fn memory_is_full(&mut self) {
        if !std::mem::replace(&mut self.events.full.memory, true) {
            let most = self.memory.limit();
            let detail = format!("{most} bytes are buffered, requests are refused");
            self.happened(Kind::LimitHit, "--memory-limit", detail, self.now);
        }
    }
}

/// One line of the log. What is a word in metrics is one here, too.
fn tell(pool: Option<&str>, kind: Kind, subject: &str, detail: &str) {
    let level = if kind.is_warning() {
        Level::Warn
    } else {
        Level::Info
    };
    if level > log::max_level() {
        return;
    }
    let whose = match kind {
        _ if subject.is_empty() => "",
        Kind::AddressHere | Kind::AddressGone => "address ",
        Kind::LimitHit | Kind::LimitLeft => "limit ",
        Kind::Reload | Kind::StoodStill => "",
        _ => "server ",
    };
    let colon = if subject.is_empty() { "" } else { ": " };
    let mut words = vec![("event", kind.name())];
    words.extend(pool.map(|pool| ("pool", pool)));
    if !subject.is_empty() {
        words.push(("subject", subject));
    }
    log::logger().log(
        &Record::builder()
            .level(level)
            .target("magent")
            .key_values(&words)
            .args(format_args!("{whose}{subject}{colon}{detail}"))
            .build(),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repetitions_are_counted_and_not_kept() {
        let mut events = Events::new(None);
        for second in 0..100 {
            events.happened(
                Time(second * 1_000_000),
                Kind::ServerDown,
                "a:1",
                "refused".into(),
            );
        }
        assert_eq!(events.kept().count(), 1);
        assert_eq!(events.kept().next().unwrap().repeats, 99);
        assert_eq!(events.count(Kind::ServerDown), 100);
        // After a pause it is news again, and so is another reason or another server.
        let later = Time(200 * 1_000_000);
        events.happened(later, Kind::ServerDown, "a:1", "refused".into());
        events.happened(later, Kind::ServerDown, "a:1", "timeout".into());
        events.happened(later, Kind::ServerDown, "b:1", "timeout".into());
        assert_eq!(events.kept().count(), 4);
    }

    #[test]
    fn the_last_ones_are_kept() {
        let mut events = Events::new(None);
        for n in 0..200 {
            events.happened(Time(n), Kind::ViewRaised, "", format!("view {n}"));
        }
        let kept: Vec<&Event> = events.kept().collect();
        assert_eq!(kept.len(), KEPT);
        assert_eq!(kept[0].detail, "view 150");
        assert_eq!(events.count(Kind::ViewRaised), 200);
    }

    #[test]
    fn kinds_are_in_the_order_of_their_numbers() {
        for (number, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, number);
        }
    }
}
