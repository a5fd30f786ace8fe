//! Bugs planted in the core itself (`magent::proxy::sabotage`): the checks of the runs must find each of them, in runs that
//! the core passes without it.

use magent::proxy::sabotage::{plant, Sabotage};

use super::profile::Profile;
use super::sabotage::{self, Bug};
use super::sweep::{knob, run};

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

fn finds(planted: Planted, profile: Profile, seed: u64, steps: u64) -> bool {
    let _guard = Guard;
    let world = match planted {
        Planted::Core(bug) => {
            plant(Some(bug));
            sabotage::Sabotage::none()
        }
        Planted::Edge(bug) => sabotage::Sabotage::new(bug, seed),
    };
    run(profile, seed, steps, world).outcome.is_err()
}

/// Each bug with the kind of run that meets it soonest.
const SOONEST: [(Planted, Profile); 21] = [
    (Planted::Core(Sabotage::StampSkipped), Profile::Return),
    (Planted::Core(Sabotage::LossUnstamped), Profile::Return),
    (
        Planted::Core(Sabotage::ForeignStampIgnored),
        Profile::Takeover,
    ),
    (Planted::Core(Sabotage::MirroredEarly), Profile::Return),
    (Planted::Core(Sabotage::HoldSkipped), Profile::Full),
    (
        Planted::Core(Sabotage::RefillNotCancelled),
        Profile::Takeover,
    ),
    (Planted::Core(Sabotage::MirrorNotHealed), Profile::Cold),
    (Planted::Core(Sabotage::ForeverAsNow), Profile::Return),
    (Planted::Core(Sabotage::TimeForgotten), Profile::Return),
    (Planted::Core(Sabotage::MonthAsRelative), Profile::Return),
    (Planted::Core(Sabotage::JournalIgnored), Profile::Return),
    (Planted::Core(Sabotage::OverflowUnnoticed), Profile::Return),
    (Planted::Core(Sabotage::UnknownKept), Profile::Return),
    (Planted::Core(Sabotage::NotSettled), Profile::Takeover),
    (Planted::Core(Sabotage::FlushForgotten), Profile::Return),
    (Planted::Core(Sabotage::FlushOvertaken), Profile::Takeover),
    (Planted::Core(Sabotage::MissBelieved), Profile::Cold),
    (Planted::Core(Sabotage::WarmTooEarly), Profile::Return),
    (Planted::Core(Sabotage::ReadNotOrdered), Profile::Full),
    (
        Planted::Core(Sabotage::TokenWithoutServer),
        Profile::Takeover,
    ),
    (Planted::Edge(Bug::ClosedWithoutReset), Profile::Takeover),
];

#[test]
fn bugs_in_the_core_are_found() {
    let within = knob("MAGENT_SIM_SEEDS").unwrap_or(300);
    let steps = knob("MAGENT_SIM_STEPS").unwrap_or(400);
    let mut missed = Vec::new();
    for (planted, profile) in SOONEST {
        let found = (0..within).find(|&seed| finds(planted, profile, seed, steps));
        match found {
            Some(seed) => {
                println!("{planted:?}: found by {} with seed {seed}", profile.name());
                let sound = run(profile, seed, steps, sabotage::Sabotage::none());
                assert!(sound.outcome.is_ok(), "{planted:?}: also without it");
            }
            None => missed.push(planted),
        }
    }
    assert!(
        missed.is_empty(),
        "not found within {within} seeds: {missed:?}"
    );
}
