//! `make bench`: magent beside its peers, on one machine, in one run.
//!
//! - [`rows`]: what is measured; [`peers`]: who; [`options`]: the bench's command line.
//! - [`measure`]: one row, contenders in turn; [`report`]: the table.
//! - [`load`], [`replies`], [`outbox`], [`corpus`]: the load generator, which checks every reply.
//! - [`returns`]: rows about servers that go and come back.
//! - [`memory`], [`fair`], [`growth`] (with [`svg`]): measurements of their own, on common [`ground`].
//! - [`lookalike`]: servers that cost less than memcached. [`procs`]: processes, CPUs, ports.
//!
//! This file is the entry and is not called `main.rs`, because cargo takes every directory below
//! `tests` with a `main.rs` for a test.

mod corpus;
mod fair;
mod ground;
mod growth;
mod load;
mod lookalike;
mod measure;
mod memory;
mod options;
mod outbox;
mod peers;
mod procs;
mod replies;
mod report;
mod returns;
mod rows;
mod scraper;
mod svg;

use std::path::Path;
use std::process::ExitCode;

use corpus::Corpus;
use peers::{Place, Programs};
use procs::{Cpus, Ports};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let result = match args.split_first() {
        Some((first, rest)) if first == "lookalike" => lookalike(rest).map(|()| true),
        Some((first, rest)) if first == "memory" => memory::run(rest),
        Some((first, rest)) if first == "fair" => fair::run(rest),
        Some((first, rest)) if first == "growth" => growth::run(rest),
        _ => bench(&args),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("bench: {why}");
            ExitCode::FAILURE
        }
    }
}

/// The servers' process: keys, size of values, ports.
fn lookalike(args: &[String]) -> Result<(), String> {
    let numbers: Result<Vec<usize>, _> = args.iter().map(|arg| arg.parse::<usize>()).collect();
    let numbers = numbers.map_err(|e| format!("lookalike KEYS SIZE PORT...: {e}"))?;
    let [keys, size, ports @ ..] = &numbers[..] else {
        return Err("lookalike KEYS SIZE PORT...".to_string());
    };
    let ports: Result<Vec<u16>, _> = ports.iter().map(|&port| u16::try_from(port)).collect();
    let ports = ports.map_err(|e| format!("lookalike: port: {e}"))?;
    procs::raise_descriptor_limit()?;
    lookalike::serve(&ports, &Corpus::new(*keys, *size))
}

/// Measures what was asked for. False: there were failures, and they have been printed.
fn bench(args: &[String]) -> Result<bool, String> {
    let Some(options) = options::parse(args)? else {
        return Ok(true);
    };
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench");
    std::fs::create_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    let programs = Programs::find(options.magent.clone(), options.memcached_proxy.clone())?;
    let cpus = Cpus::deal()?;
    procs::raise_descriptor_limit()?;
    report::conditions(&programs, cpus, options.real);
    let mut place = Place {
        programs: &programs,
        cpus,
        dir: &dir,
        ports: Ports::new(),
    };
    let mut outcomes = Vec::new();
    for row in rows::all() {
        if !options.rows.is_empty() && !options.rows.iter().any(|name| name == row.name) {
            continue;
        }
        if !row
            .contenders
            .iter()
            .any(|kind| options.peers.contains(kind))
        {
            continue;
        }
        eprint!("{} ", row.name);
        outcomes.push(measure::measure(&mut place, &row, &options));
        eprintln!();
    }
    report::command_lines(&outcomes);
    report::table(&outcomes);
    let failures: Vec<&String> = outcomes
        .iter()
        .flat_map(|outcome| &outcome.failures)
        .collect();
    for failure in &failures {
        println!("FAILED {failure}");
    }
    Ok(failures.is_empty())
}
