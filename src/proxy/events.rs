//! What happened to the pool: one word for each kind of change, the same in the log, in metrics and on the page.
//!
//! The last ones are kept, so that who looks later sees what came before. One that repeats itself (a server that is
//! refused again and again) is counted in place of its line.

use std::collections::VecDeque;

use crate::time::{Span, Time};

/// How many are kept.
pub const KEPT: usize = 50;

/// The same event of the same server within this time is a repetition.
const REPEATS_WITHIN: Span = Span::from_secs(10);

/// How many of them are told, within that time, before they are only counted.
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
}

impl Kind {
    /// All of them, in the order of their numbers.
    pub const ALL: [Kind; 18] = [
        Kind::ServerUp,
        Kind::ServerDown,
        Kind::ServerStale,
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
    ];

    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::ServerUp => "server_up",
            Kind::ServerDown => "server_down",
            Kind::ServerStale => "server_stale",
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
        }
    }

    /// Whether somebody may have to do something about it.
    fn is_warning(self) -> bool {
        matches!(
            self,
            Kind::ServerDown
                | Kind::ServerStale
                | Kind::LimitHit
                | Kind::StoodStill
                | Kind::ServerStrange
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
    last: Time,
}

/// The last events, and how many there were of each kind.
#[derive(Debug)]
pub struct Events {
    kept: VecDeque<Event>,
    counts: [u64; Kind::ALL.len()],
}

impl Default for Events {
    fn default() -> Events {
        Events {
            kept: VecDeque::new(),
            counts: [0; Kind::ALL.len()],
        }
    }
}

impl Events {
    /// Takes note of an event, and tells the log unless it only repeats.
    pub fn happened(&mut self, now: Time, kind: Kind, subject: &str, detail: String) {
        self.counts[kind as usize] += 1;
        let same = |event: &&mut Event| event.kind == kind && event.subject == subject;
        if let Some(event) = self.kept.iter_mut().rev().find(same) {
            if event.detail == detail && now.since(event.last) < REPEATS_WITHIN {
                event.repeats += 1;
                event.last = now;
                if event.repeats >= TOLD {
                    return;
                }
                return tell(kind, subject, &event.detail);
            }
        }
        tell(kind, subject, &detail);
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

fn tell(kind: Kind, subject: &str, detail: &str) {
    let level = if kind.is_warning() {
        log::Level::Warn
    } else {
        log::Level::Info
    };
    let event = kind.name();
    if subject.is_empty() {
        log::log!(target: "magent", level, event; "{detail}");
    } else {
        log::log!(target: "magent", level, event, subject; "{subject}: {detail}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repetitions_are_counted_and_not_kept() {
        let mut events = Events::default();
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
        let mut events = Events::default();
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
