//! What one request costs the core alone: instructions, allocations and nanoseconds, by verb, size and setup. No sockets,
//! no clock: bytes in, bytes out.
//!
//! - [`rig`]: the core with recorded servers; [`cases`]: what is asked.
//! - [`count`]: allocations; [`callgrind`]: instructions; [`baseline`]: the table that is kept, and the comparison.
//!
//! `make test` runs it with `--check` and fails when a request needs more allocations than in `baseline.txt`, or more than 3 %
//! more instructions. Time is only printed. `make core-bench-baseline` writes the table anew.

mod baseline;
mod callgrind;
mod cases;
mod count;
mod rig;

// The simulator's model server: it is held against a real memcached there, and says here what servers answer.
#[allow(dead_code)]
#[path = "../../sim/item.rs"]
mod item;
#[allow(dead_code)]
#[path = "../../sim/memcached.rs"]
mod memcached;
#[allow(dead_code)]
#[path = "../../sim/meta.rs"]
mod meta;
#[allow(dead_code)]
#[path = "../../sim/request.rs"]
mod request;

use std::process::ExitCode;
use std::time::Instant;

use baseline::Figures;
use cases::Case;
use rig::{Rig, Turn};

/// Requests in each case whose allocations are counted, and whose instructions: callgrind is some fifty times slower.
const REQUESTS: usize = 1000;
const REQUESTS_UNDER_CALLGRIND: usize = 250;
/// Turns before: buffers reach the size that they keep.
const WARM_TURNS: usize = 40;
const WARM_TURNS_UNDER_CALLGRIND: usize = 4;
/// Times are the median of so many measurements.
const TIMED: usize = 5;

#[global_allocator]
static ALLOCATOR: count::Counting = count::Counting;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args
        .iter()
        .map(String::as_str)
        .filter(|word| *word != "--bench")
        .collect();
    let result = match words[..] {
        [callgrind::CHILD] => callgrind_child(),
        ["--check"] => measure().and_then(|figures| baseline::check(&figures)),
        ["--write"] => measure().and_then(|figures| baseline::write(&figures)),
        [] => measure().map(|figures| baseline::show(&figures)),
        _ => Err("usage: core [--check | --write]".to_string()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("core bench: {why}");
            ExitCode::FAILURE
        }
    }
}

fn prepare(case: &Case, warm: usize) -> Result<(Rig, Turn), String> {
    let mut rig = Rig::new(case)?;
    let mut record = || {
        let recorded = rig.record(case);
        recorded.map_err(|why| format!("{}: {why}", case.name()))
    };
    // Reads can be repeated: until every client may ask for as much at a time as it ever may.
    for _ in 0..case.rehearsals() {
        record()?;
    }
    let turn = record()?;
    for _ in 0..warm {
        rig.replay(&turn);
    }
    Ok((rig, turn))
}

/// The part that is measured. callgrind knows it by its name, so it must stay a function of its own.
#[inline(never)]
fn core_measured(rig: &mut Rig, turn: &Turn, turns: usize) {
    for _ in 0..turns {
        rig.replay(turn);
    }
}

/// callgrind writes its figures down when this returns.
#[inline(never)]
fn core_case_done(rig: &Rig) {
    std::hint::black_box(rig);
}

fn measure() -> Result<Vec<Figures>, String> {
    let instructions = callgrind::run()?;
    let cases = cases::all();
    if let Some(counted) = &instructions {
        if counted.len() != cases.len() {
            return Err(format!(
                "callgrind counted {} cases of {}",
                counted.len(),
                cases.len()
            ));
        }
    }
    let mut all = Vec::new();
    for (index, case) in cases.iter().enumerate() {
        let (mut rig, turn) = prepare(case, WARM_TURNS)?;
        let turns = REQUESTS / turn.requests;
        let before = count::allocations();
        core_measured(&mut rig, &turn, turns);
        let allocations = count::allocations() - before;
        rig.verify(&turn, WARM_TURNS + turns)
            .map_err(|why| format!("{}: {why}", case.name()))?;
        let mut times: Vec<u128> = (0..TIMED)
            .map(|_| {
                let began = Instant::now();
                core_measured(&mut rig, &turn, turns);
                began.elapsed().as_nanos() / REQUESTS as u128
            })
            .collect();
        times.sort_unstable();
        all.push(Figures {
            name: case.name(),
            ns: times[TIMED / 2],
            allocations,
            instructions: instructions.as_ref().map(|counted| counted[index]),
        });
    }
    Ok(all)
}

/// Under callgrind: every case once.
fn callgrind_child() -> Result<(), String> {
    for case in cases::all() {
        let (mut rig, turn) = prepare(&case, WARM_TURNS_UNDER_CALLGRIND)?;
        core_measured(&mut rig, &turn, REQUESTS_UNDER_CALLGRIND / turn.requests);
        core_case_done(&rig);
    }
    Ok(())
}
