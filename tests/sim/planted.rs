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

#[test]
fn bugs_in_the_core_are_found() {
    let within = knob("MAGENT_SIM_SEEDS").unwrap_or(100);
    let steps = knob("MAGENT_SIM_STEPS").unwrap_or(400);
    let edge = [Planted::Edge(Bug::ClosedWithoutReset)];
    let all = Sabotage::ALL.map(Planted::Core);
    for planted in all.into_iter().chain(edge) {
        if std::env::var("BUG").is_ok_and(|name| !format!("{planted:?}").contains(&name)) {
            continue;
        }
        let mut text = String::new();
        for profile in [
            Profile::Return,
            Profile::Full,
            Profile::Cold,
            Profile::Takeover,
        ] {
            let found: Vec<u64> = (0..within)
                .filter(|&seed| finds(planted, profile, seed, steps))
                .collect();
            text.push_str(&format!(
                "{}:{} {:?} ",
                profile.name(),
                found.len(),
                found.first()
            ));
        }
        println!("{planted:?}: {text}");
    }
}
