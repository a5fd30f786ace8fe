//! `make drill`: every drill of the lab, several times, and a table of what the clients saw.
//!
//! This file is the entry and is not called `main.rs`, because cargo takes every directory below
//! `tests` with a `main.rs` for a test.

#[path = "mod.rs"]
mod drill;
mod options;
mod report;

use std::process::ExitCode;
use std::time::Duration;

use drill::scenes::{Kind, Scene};
use drill::{connector, lab, network, node::Setup};
use options::Options;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match options::parse(&args).and_then(|options| options.map_or(Ok(true), |o| table(&o))) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("drill: {why}");
            ExitCode::FAILURE
        }
    }
}

/// False: something was lost, stale, or could not be run.
fn table(options: &Options) -> Result<bool, String> {
    network::rights().map_err(|why| format!("needs root and network namespaces: {why}"))?;
    let track_process = connector::works();
    report::conditions(options, track_process);
    let mut clean = true;
    for scene in &options.scenes {
        let mut reports = Vec::new();
        for run in 0..options.runs {
            match lab::run(
                &setup(options, scene, run, track_process),
                options.keep(scene, run).as_deref(),
                scene.act,
            ) {
                Ok(one) => reports.push(one),
                Err(why) => {
                    clean = false;
                    println!("FAILED {} run {}: {why}", scene.name, run + 1);
                }
            }
        }
        clean &= reports
            .iter()
            .all(|one| one.lost.is_empty() && one.stale == 0);
        report::row(options, scene, &reports);
    }
    Ok(clean)
}

fn setup(options: &Options, scene: &Scene, run: usize, track_process: bool) -> Setup {
    let mut render = vec!["--profile".to_string(), options.profile.to_string()];
    match scene.kind {
        Kind::Preempts => render.push("--preempt".to_string()),
        Kind::Stays | Kind::Guide => {}
    }
    render.extend(options.render.iter().cloned());
    Setup {
        magent: options.magent.clone(),
        render,
        track_process,
        guide: scene.kind == Kind::Guide,
        // Faults meet adverts, checks and probes at another moment each time, and the same ones when run again.
        later: Duration::from_millis(run as u64 * 173 % 1000),
        tag: String::new(),
    }
}
