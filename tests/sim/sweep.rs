//! The tests: sweeps over seeds, and whether the simulator itself can be believed.

use std::env;
use std::time::{Duration, Instant};

use super::profile::Profile;
use super::sabotage::{Bug, Sabotage};
use super::world::{Tally, World};

pub(super) fn knob(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is not a number: {text}")),
    )
}

pub(super) struct Run {
    pub(super) tally: Tally,
    pub(super) digest: u64,
    pub(super) outcome: Result<(), String>,
}

pub(super) fn run(profile: Profile, seed: u64, steps: u64, sabotage: Sabotage) -> Run {
    let mut world = World::new(seed, profile, steps, sabotage);
    world.trace = env::var("MAGENT_SIM_TRACE").is_ok_and(|value| value == "1");
    if world.trace {
        println!("{:#?}", world.plan);
    }
    if world.trace {
        use std::io::Write;
        // What the core itself says, between the events.
        let _ = env_logger::builder()
            .filter_level(log::LevelFilter::Info)
            .format(|out, record| writeln!(out, "             core: {}", record.args()))
            .target(env_logger::Target::Stdout)
            .try_init();
    }
    let outcome = world.run();
    Run {
        tally: world.tally,
        digest: world.digest,
        outcome,
    }
}

/// What this thread has used of a processor.
fn cpu_time() -> Duration {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID)
        .expect("there is such a clock");
    Duration::from(time)
}

/// A sweep ends when so many of its runs have failed.
const FAILURES_MAX: usize = 10;

/// Runs a profile's seeds and adds up what happened in them.
fn sweep(profile: Profile, seeds: u64) -> Tally {
    let mut sum = Tally::default();
    let only = env::var("MAGENT_SIM_PROFILE").ok();
    if only.is_some_and(|name| Profile::named(&name) != Some(profile)) {
        return sum;
    }
    let steps = knob("MAGENT_SIM_STEPS").unwrap_or(400);
    let time = knob("MAGENT_SIM_TIME").map(Duration::from_secs);
    let first = knob("MAGENT_SIM_SEED");
    let count = knob("MAGENT_SIM_SEEDS").unwrap_or(match (first, time) {
        (_, Some(_)) => u64::MAX,
        (Some(_), None) => 1,
        (None, None) => seeds,
    });
    let first = first.unwrap_or(0);
    let name = profile.name();
    let mut failures = Vec::new();
    let (begin, cpu_before) = (Instant::now(), cpu_time());
    for seed in first..first.saturating_add(count) {
        if time.is_some_and(|time| begin.elapsed() >= time) {
            break;
        }
        let Run { tally, outcome, .. } = run(profile, seed, steps, Sabotage::none());
        sum.add(&tally);
        if let Err(why) = outcome {
            failures.push(format!(
                "profile {name}, seed {seed}, request {} of {steps}, {why}\n\
                 again: make simulate PROFILE={name} SEED={seed} STEPS={steps} TRACE=1",
                tally.requests
            ));
            if failures.len() == FAILURES_MAX {
                break;
            }
        }
    }
    let rate = sum.requests as f64 / (cpu_time() - cpu_before).as_secs_f64();
    let unchecked = 100.0 * sum.unchecked as f64 / (sum.checked + sum.unchecked).max(1) as f64;
    println!(
        "{name}: {rate:.0} requests per second of one core, {unchecked:.2} % too hard to check; {sum:?}"
    );
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    sum
}

#[test]
fn calm() {
    sweep(Profile::Calm, 80);
}

#[test]
fn failover() {
    sweep(Profile::Failover, 80);
}

#[test]
fn slow() {
    sweep(Profile::Slow, 60);
}

#[test]
fn returning() {
    sweep(Profile::Return, 100);
}

#[test]
fn cold() {
    sweep(Profile::Cold, 100);
}

#[test]
fn full() {
    sweep(Profile::Full, 60);
}

#[test]
fn garbage() {
    sweep(Profile::Garbage, 60);
}

#[test]
fn takeover() {
    sweep(Profile::Takeover, 100);
}

#[test]
fn eject() {
    sweep(Profile::Eject, 60);
}

#[test]
fn frames_calm() {
    sweep(Profile::FramesCalm, 60);
}

#[test]
fn frames_return() {
    sweep(Profile::FramesReturn, 60);
}

#[test]
fn frames_takeover() {
    sweep(Profile::FramesTakeover, 60);
}

#[test]
fn frames_slow() {
    sweep(Profile::FramesSlow, 40);
}

#[test]
fn pieces() {
    sweep(Profile::Pieces, 30);
}

#[test]
fn pieces_slow() {
    sweep(Profile::PiecesSlow, 30);
}

#[test]
fn narrow() {
    sweep(Profile::Narrow, 60);
}

#[test]
fn lags() {
    sweep(Profile::Lags, 60);
}

/// Two kinds of schedules are not mended yet: a proxy that dies as it raises a view and is followed by one with another list
/// (seed 12), and a backup that took an `append` on an older value (seed 40).
#[test]
#[ignore = "seeds 12 and 40 find what is not mended yet"]
fn lists() {
    sweep(Profile::Lists, 60);
}

#[test]
fn overlap() {
    sweep(Profile::Overlap, 60);
}

#[test]
fn reload() {
    sweep(Profile::Reload, 60);
}

#[test]
fn twins() {
    sweep(Profile::Twins, 60);
}

#[test]
fn twins_takeover() {
    sweep(Profile::TwinsTakeover, 40);
}

#[test]
fn moving() {
    sweep(Profile::Moving, 60);
}

#[test]
fn a_seed_is_a_schedule() {
    for profile in Profile::ALL {
        for seed in 1000..1003 {
            let [one, two] = [0, 1].map(|_| run(profile, seed, 200, Sabotage::none()));
            assert_eq!(one.digest, two.digest, "{profile:?} {seed}");
            assert_eq!(one.tally.events, two.tally.events, "{profile:?} {seed}");
        }
    }
}

#[test]
fn what_should_happen_does() {
    let mut sum = Tally::default();
    for profile in Profile::ALL {
        for seed in 2000..2010 {
            sum.add(&run(profile, seed, 200, Sabotage::none()).tally);
        }
    }
    let counts = [
        sum.failovers,
        sum.resets,
        sum.faults,
        sum.errors,
        sum.held,
        sum.mirrored,
        sum.failed_reads,
        sum.checked,
    ];
    assert!(counts.iter().all(|&count| count > 0), "{sum:?}");
    assert!(
        sum.unchecked * 3 <= sum.checked,
        "too much was too hard to check: {sum:?}"
    );
}

#[test]
fn planted_bugs_are_found() {
    const WITHIN: u64 = 40;
    for bug in Bug::ALL {
        let found = (0..WITHIN).find(|&seed| {
            let profiles = [Profile::Calm, Profile::Failover];
            profiles.iter().any(|&profile| {
                run(profile, seed, 300, Sabotage::new(bug, seed))
                    .outcome
                    .is_err()
            })
        });
        println!("{bug:?}: found with seed {found:?}");
        assert!(
            found.is_some(),
            "{bug:?} is not found within {WITHIN} seeds"
        );
    }
    // What was found was the bug, and not something else in these seeds.
    for seed in 0..WITHIN / 4 {
        for profile in [Profile::Calm, Profile::Failover] {
            let honest = run(profile, seed, 300, Sabotage::none()).outcome;
            assert_eq!(honest, Ok(()), "{profile:?} {seed}");
        }
    }
}

impl Tally {
    fn add(&mut self, other: &Tally) {
        let sums = [
            (&mut self.requests, other.requests),
            (&mut self.replies, other.replies),
            (&mut self.events, other.events),
            (&mut self.resets, other.resets),
            (&mut self.faults, other.faults),
            (&mut self.moves, other.moves),
            (&mut self.errors, other.errors),
            (&mut self.failovers, other.failovers),
            (&mut self.failed_reads, other.failed_reads),
            (&mut self.held, other.held),
            (&mut self.mirrored, other.mirrored),
            (&mut self.checked, other.checked),
            (&mut self.unchecked, other.unchecked),
            (&mut self.lost, other.lost),
            (&mut self.disagreements, other.disagreements),
            (&mut self.cut_off, other.cut_off),
            (&mut self.halves, other.halves),
        ];
        for (sum, more) in sums {
            *sum += more;
        }
    }
}
