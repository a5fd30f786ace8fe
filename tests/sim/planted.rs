//! Bugs planted in the core itself (`magent::proxy::sabotage`): the checks of the runs must find each of them, in runs that
//! the core passes without it. Needs the feature `sabotage`: `cargo test --features sabotage --test sim planted::`.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Mutex;

use magent::proxy::sabotage::{plant, Sabotage};

use super::profile::Profile;
use super::sabotage::{self, Bug};
use super::sweep::{knob, run};

const STEPS: u64 = 400;

/// What is planted: in the core, or at its edge.
#[derive(Clone, Copy, Debug)]
enum Planted {
    Core(Sabotage),
    Edge(Bug),
}

/// Takes the bug out again, however the run ends.
struct Guard;

impl Drop for Guard {
    fn drop(&mut self) {
        plant(None);
    }
}

/// What the checks say of a run with the bug.
fn outcome(planted: Planted, profile: Profile, seed: u64) -> Result<(), String> {
    let _guard = Guard;
    let world = match planted {
        Planted::Core(bug) => {
            plant(Some(bug));
            sabotage::Sabotage::none()
        }
        Planted::Edge(bug) => sabotage::Sabotage::new(bug, seed),
    };
    run(profile, seed, STEPS, world).outcome
}

/// Each bug with the kind of run that meets it soonest, and a seed that was seen to find it. That one is tried first; when
/// the runs have changed, another finds it.
const SOONEST: [(Planted, Profile, u64); 34] = [
    (Planted::Core(Sabotage::OtherTrusted), Profile::Moving, 1),
    (Planted::Core(Sabotage::TwinsApart), Profile::Twins, 1),
    (
        Planted::Core(Sabotage::LeftoversForgotten),
        Profile::Reload,
        11,
    ),
    (Planted::Core(Sabotage::QueueIsLate), Profile::Narrow, 0),
    (Planted::Core(Sabotage::ColdVouches), Profile::Overlap, 12),
    (
        Planted::Core(Sabotage::OvertakenDropped),
        Profile::Overlap,
        1216,
    ),
    (Planted::Core(Sabotage::StampSkipped), Profile::Return, 1),
    (
        Planted::Core(Sabotage::LossUnstamped),
        Profile::Takeover,
        32,
    ),
    (
        Planted::Core(Sabotage::ForeignStampIgnored),
        Profile::Takeover,
        8,
    ),
    (Planted::Core(Sabotage::MirroredEarly), Profile::Return, 1),
    (Planted::Core(Sabotage::HoldSkipped), Profile::Full, 1),
    (
        Planted::Core(Sabotage::RefillNotCancelled),
        Profile::Cold,
        12,
    ),
    (Planted::Core(Sabotage::MirrorNotHealed), Profile::Full, 13),
    (Planted::Core(Sabotage::ForeverAsNow), Profile::Return, 0),
    (Planted::Core(Sabotage::TimeForgotten), Profile::Return, 2),
    (Planted::Core(Sabotage::MonthAsRelative), Profile::Return, 2),
    (Planted::Core(Sabotage::JournalIgnored), Profile::Return, 2),
    (
        Planted::Core(Sabotage::OverflowUnnoticed),
        Profile::Return,
        2,
    ),
    (Planted::Core(Sabotage::UnknownKept), Profile::Return, 69),
    (Planted::Core(Sabotage::NotSettled), Profile::Return, 17),
    (Planted::Core(Sabotage::FlushForgotten), Profile::Return, 8),
    (Planted::Core(Sabotage::FlushOvertaken), Profile::Cold, 5798),
    (Planted::Core(Sabotage::MissBelieved), Profile::Cold, 0),
    (Planted::Core(Sabotage::WarmTooEarly), Profile::Return, 0),
    (
        Planted::Core(Sabotage::AnsweredEarly),
        Profile::Takeover,
        204,
    ),
    (Planted::Core(Sabotage::ReadNotOrdered), Profile::Full, 1),
    (
        Planted::Core(Sabotage::TokenWithoutServer),
        Profile::Return,
        26,
    ),
    (
        Planted::Core(Sabotage::QuietFailureHidden),
        Profile::FramesCalm,
        0,
    ),
    (
        Planted::Core(Sabotage::FrameMisplaced),
        Profile::FramesCalm,
        0,
    ),
    (Planted::Core(Sabotage::PassedTwice), Profile::Pieces, 4),
    (
        Planted::Core(Sabotage::PassingUnchecked),
        Profile::Pieces,
        551,
    ),
    (
        Planted::Core(Sabotage::PassingOvertaken),
        Profile::Pieces,
        21,
    ),
    (Planted::Core(Sabotage::PassingGivenUp), Profile::Pieces, 12),
    (Planted::Edge(Bug::ClosedWithoutReset), Profile::Return, 2),
];

/// Whether one of these runs finds the bug. The same run without it must be sound.
fn found(planted: Planted, profile: Profile, seeds: impl Iterator<Item = u64>) -> bool {
    let name = profile.name();
    for seed in seeds {
        let Err(why) = outcome(planted, profile, seed) else {
            continue;
        };
        let line = why.lines().next().unwrap_or_default();
        let line: String = line.chars().take(120).collect();
        println!("{planted:?}: found by {name} with seed {seed}: {line}");
        let sound = run(profile, seed, STEPS, sabotage::Sabotage::none()).outcome;
        let also = format!("{name}, seed {seed}: also without {planted:?}");
        assert_eq!(sound, Ok(()), "{also}");
        return true;
    }
    false
}

#[test]
fn each_is_found() {
    let within = knob("MAGENT_SIM_SEEDS").unwrap_or(400);
    let only = std::env::var("MAGENT_SIM_PROFILE").ok();
    let missed = Mutex::new(Vec::new());
    let next = AtomicUsize::new(0);
    // A bug is planted for one thread.
    let work = || {
        while let Some(&(planted, profile, first)) =
            SOONEST.get(next.fetch_add(1, Ordering::Relaxed))
        {
            if only.as_ref().is_some_and(|only| only != profile.name()) {
                continue;
            }
            let seeds = std::iter::once(first).chain(0..within);
            if !found(planted, profile, seeds) {
                missed.lock().expect("no panic while locked").push(planted);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let missed = missed.into_inner().expect("no panic while locked");
    assert!(
        missed.is_empty(),
        "not found within {within} seeds: {missed:?}"
    );
}
