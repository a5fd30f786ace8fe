//! Two nodes and one address, with real keepalived: the short form of `make drill`. Each test is one drill, once, in a
//! lab of its own (see `drill`), which needs root and the right to make namespaces.
//!
//! What must hold is that no acknowledged key is lost and nothing stale is read. The bounds on time are wide: how fast it
//! is, `make drill` measures.

use crate::common;
use crate::drill;

use std::path::{Path, PathBuf};
use std::time::Duration;

use drill::book::Finding;
use drill::lab::{self, Report, Side};
use drill::node::Setup;
use drill::scenes::{self, Kind};
use drill::{connector, network};

/// Nothing that is right takes so long, on the slowest machine.
const LONG: Duration = Duration::from_secs(8);

/// Runs a drill. `None`, and a loud word, where there is no right to.
fn run(name: &str) -> Option<Report> {
    if let Err(why) = network::rights() {
        common::skipped(&format!(
            "{name}: {why}; needs root, namespaces and keepalived"
        ));
        return None;
    }
    let scene = scenes::named(name).expect("the drill is there");
    let setup = Setup {
        magent: PathBuf::from(env!("CARGO_BIN_EXE_magent")),
        render: Vec::new(),
        track_process: connector::works(),
        guide: scene.kind == Kind::Guide,
        later: Duration::ZERO,
        tag: String::new(),
    };
    let logs = Path::new(env!("CARGO_TARGET_TMPDIR")).join("ha").join(name);
    let report = lab::run(&setup, Some(&logs), scene.act);
    let report = report.unwrap_or_else(|why| panic!("{name}: {why}"));
    let all = report.notes.join("\n");
    assert!(report.keys > 1000, "{} keys\n{all}", report.keys);
    assert!(report.window.succeeded > 20, "no work done\n{all}");
    assert!(report.window.outage < LONG, "outage\n{all}");
    Some(report)
}

/// The same, and in the end only that node has the address.
fn run_to(name: &str, side: Side) {
    if let Some(report) = run(name) {
        let all = report.notes.join("\n");
        assert_eq!(report.findings, [], "{all}");
        assert_eq!(report.holders, [side], "{all}");
    }
}

#[test]
fn a_killed_proxy_loses_the_address() {
    run_to("proxy-killed", Side::B);
}

#[test]
fn a_hung_proxy_loses_the_address() {
    // Killed in the end.
    run_to("proxy-hung", Side::B);
}

#[test]
fn a_proxy_that_wakes_undoes_nothing() {
    run_to("proxy-wakes", Side::B);
}

#[test]
fn a_drained_proxy_loses_the_address() {
    run_to("drain", Side::B);
}

#[test]
fn the_address_moves_when_keepalived_is_stopped() {
    run_to("keepalived-stopped", Side::B);
}

#[test]
fn a_node_loses_power_and_returns() {
    run_to("power-on", Side::B);
}

#[test]
fn a_hung_memcached_moves_nothing() {
    run_to("primary-hung", Side::A);
}

#[test]
fn the_guides_way() {
    run_to("guide-stopped", Side::B);
}

/// Both nodes were masters. What one side alone acknowledged, before the clients followed the address to the other, may
/// go: the later view wins. But no more than that, and once the nodes see each other nothing stale is read.
#[test]
fn a_split_is_healed() {
    let Some(report) = run("split") else {
        return;
    };
    let all = report.notes.join("\n");
    assert_eq!(report.holders, [Side::A], "{all}");
    assert!(report.both > Duration::from_secs(4), "no split\n{all}");
    assert!(report.lost.len() < 150, "{} lost\n{all}", report.lost.len());
    // Cut at 0, healed after 5500 ms.
    let healed = report.findings.iter().filter(|(ms, _)| *ms > 5500);
    let stale = healed.filter(|(_, finding)| !matches!(finding, Finding::Lost(_)));
    assert_eq!(stale.count(), 0, "{all}");
}
