//! Bugs planted in the core itself (`magent::proxy::sabotage`): the checks must find each of them, in runs that the core
//! passes without it. Needs the feature `sabotage`: `cargo test --features sabotage --test sim planted`.

use magent::proxy::sabotage::{plant, Sabotage};

use super::profile::Profile;
use super::sabotage::{self, Bug};
use super::sweep::run;

/// Seeds that are tried for each bug.
const WITHIN: u64 = 400;

const STEPS: u64 = 400;

/// What is planted: in the core, or at its edge.
#[derive(Clone, Copy, Debug)]
enum Planted {
    Core(Sabotage),
    Edge(Bug),
}

/// Where a bug shows: in which runs, and a seed that was seen to find it. It is tried first; when the runs have changed,
/// another one finds it.
fn hint(bug: Sabotage) -> (Profile, u64) {
    match bug {
        Sabotage::StampSkipped => (Profile::Return, 2),
        Sabotage::LossUnstamped => (Profile::Takeover, 51),
        Sabotage::ForeignStampIgnored => (Profile::Takeover, 8),
        Sabotage::MirroredEarly => (Profile::Calm, 1),
        Sabotage::HoldSkipped => (Profile::Calm, 1),
        Sabotage::RefillNotCancelled => (Profile::Cold, 29),
        Sabotage::MirrorNotHealed => (Profile::Full, 6),
        Sabotage::ForeverAsNow => (Profile::Return, 0),
        Sabotage::TimeForgotten => (Profile::Return, 2),
        Sabotage::MonthAsRelative => (Profile::Return, 4),
        Sabotage::JournalIgnored => (Profile::Return, 2),
        Sabotage::OverflowUnnoticed => (Profile::Return, 2),
        Sabotage::UnknownKept => (Profile::Return, 18),
        Sabotage::NotSettled => (Profile::Return, 8),
        Sabotage::FlushForgotten => (Profile::Return, 13),
        Sabotage::FlushOvertaken => (Profile::Cold, 318),
        Sabotage::MissBelieved => (Profile::Cold, 1),
        Sabotage::WarmTooEarly => (Profile::Return, 0),
        Sabotage::AnsweredEarly => (Profile::Takeover, 32),
        Sabotage::ReadNotOrdered => (Profile::Calm, 1),
        Sabotage::TokenWithoutServer => (Profile::Return, 26),
    }
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

/// Looks for the bug. What found it must be silent without it.
fn find(planted: Planted, profile: Profile, first: u64) {
    let name = profile.name();
    for seed in std::iter::once(first).chain(0..WITHIN) {
        let Err(why) = outcome(planted, profile, seed) else {
            continue;
        };
        let line = why.lines().next().unwrap_or_default();
        let line: String = line.chars().take(120).collect();
        println!("{planted:?}: found by profile {name}, seed {seed}: {line}");
        let honest = run(profile, seed, STEPS, sabotage::Sabotage::none()).outcome;
        assert_eq!(honest, Ok(()), "profile {name}, seed {seed}, without a bug");
        return;
    }
    panic!("{planted:?} is not found by profile {name} within {WITHIN} seeds");
}

#[test]
fn planted_in_the_core() {
    for bug in Sabotage::ALL {
        let (profile, first) = hint(bug);
        find(Planted::Core(bug), profile, first);
    }
}

#[test]
fn planted_at_the_edge() {
    find(Planted::Edge(Bug::ClosedWithoutReset), Profile::Return, 5);
}
