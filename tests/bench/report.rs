//! What was measured, as text: where it was measured, the command lines, the table.

use std::fs;
use std::process::Command;

use crate::measure::{Outcome, Round, Series};
use crate::peers::Programs;
use crate::procs::{first_line, Cpus};
use crate::rows::What;

/// From this share of its CPU on, requests per second are what the proxy can carry.
const FULL: f64 = 0.95;

/// Prints the machine, the versions and the conditions.
pub fn conditions(programs: &Programs, cpus: Cpus, real: bool) {
    print!("{}", conditions_text(programs, cpus, real));
}

/// The same as text.
pub fn conditions_text(programs: &Programs, cpus: Cpus, real: bool) -> String {
    let mut out = Vec::new();
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown CPU", |(_, name)| name);
    let many = info
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    out.push(format!(
        "machine: {model}, {many} CPUs, Linux {}",
        kernel.trim()
    ));
    for line in programs.versions() {
        out.push(line);
    }
    out.push(format!("rustc: {}", first_line("rustc".as_ref(), "-V")));
    if let Some(commit) = commit() {
        out.push(format!("commit: {commit}"));
    }
    match (cpus.proxy, cpus.load, cpus.servers) {
        (Some(proxy), Some(load), Some(servers)) => {
            out.push(format!(
                "CPUs: proxies {proxy}, load generator {load}, servers {servers}"
            ));
        }
        _ => out.push("CPUs: only one, nothing is pinned; the figures mean little".to_string()),
    }
    if real {
        out.push("servers: memcached, one process and one thread each".to_string());
    } else {
        out.push("servers: look-alikes, one process for all (--real for memcached)".to_string());
    }
    out.join("\n") + "\n"
}

fn commit() -> Option<String> {
    let out = Command::new("git")
        .args(["describe", "--always", "--dirty"])
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&out.stdout).trim().to_string();
    (out.status.success() && !text.is_empty()).then_some(text)
}

/// Prints the command lines of all rows, each once.
pub fn command_lines(outcomes: &[Outcome]) {
    println!("\nCommand lines (ports differ from row to row):");
    for outcome in outcomes {
        println!("  {}", outcome.row.name);
        for line in &outcome.lines {
            println!("    {line}");
        }
    }
}

/// Prints the table.
pub fn table(outcomes: &[Outcome]) {
    println!();
    println!("Medians of the rounds. CPU us: the proxy's own CPU time per request (idle: bytes per connection);");
    println!("+-: median deviation; x: ratio to nutcracker, in w8 and w8r to magent without backups, in b1 and b2 to magent asked in text, in w1s to one whose metrics nobody fetches, in w8p to memcached's proxy that mirrors; paired by round,");
    println!("with its extremes; *: the proxy's CPU was full, so ops/s is what it can carry; latencies in us.");
    println!();
    println!(
        "{:5} {:15} {:>8} {:>4} {:>6} {:>11} {:>6} {:>9} {:>6} {:>6} {:>5} {:>7} {:>7} {:>7}",
        "row",
        "peer",
        "CPU us",
        "+-",
        "x CPU",
        "from-to",
        "goal",
        "ops/s",
        "x ops",
        "goal",
        "busy",
        "p50",
        "p99",
        "p99.9"
    );
    for outcome in outcomes {
        println!("{:5} {}", outcome.row.name, outcome.row.title);
        for note in &outcome.notes {
            println!("{:5} {note}", "");
        }
        let reference = outcome
            .series
            .iter()
            .find(|s| s.kind == outcome.row.reference);
        for series in &outcome.series {
            println!("{}", line(outcome, series, reference));
        }
    }
}

fn line(outcome: &Outcome, series: &Series, reference: Option<&Series>) -> String {
    let name = series.kind.name();
    if series.rounds.is_empty() {
        return format!("{:5} {name:15} no round was completed", "");
    }
    let costs: Vec<f64> = series
        .rounds
        .iter()
        .filter_map(|round| round.cost)
        .collect();
    // Who is compared with the goals: the first contender, which is always a magent.
    let ours = outcome.row.contenders.first() == Some(&series.kind);
    let goal = |goal: Option<f64>, sign: &str| match goal {
        Some(goal) if ours => format!("{sign}{goal:.2}"),
        _ => String::new(),
    };
    let (mut ratio, mut extremes) = (String::new(), String::new());
    let ratios = paired(series, reference, |round| round.cost);
    if !ratios.is_empty() {
        ratio = format!("{:.2}", median(&ratios));
        extremes = format!("{:.2}-{:.2}", least(&ratios), most(&ratios));
    }
    let (mut cost, mut spread) = ("-".to_string(), String::new());
    if !costs.is_empty() {
        let middle = median(&costs);
        cost = if middle < 100.0 {
            format!("{middle:.2}")
        } else {
            format!("{middle:.0}")
        };
        spread = format!("{:.0}%", deviation(&costs) / middle.max(1e-9) * 100.0);
    }
    let head = format!(
        "{:5} {name:15} {cost:>8} {spread:>4} {ratio:>6} {extremes:>11} {:>6}",
        "",
        goal(outcome.row.cpu_goal, "<")
    );
    if matches!(outcome.row.what, What::Idle { .. }) {
        return head.trim_end().to_string();
    }
    let of =
        |field: fn(&Round) -> f64| median(&series.rounds.iter().map(field).collect::<Vec<f64>>());
    let busy = of(|round| round.busy.unwrap_or(0.0));
    let full = if busy >= FULL { "*" } else { "" };
    let ops_ratios = paired(series, reference, |round| Some(round.ops));
    let ops_ratio = if ops_ratios.is_empty() {
        String::new()
    } else {
        format!("{:.2}", median(&ops_ratios))
    };
    let busy = if costs.is_empty() {
        "-".to_string()
    } else {
        format!("{:.0}%", busy * 100.0)
    };
    let misses: u64 = series.rounds.iter().map(|round| round.misses).sum();
    let misses = if misses > 0 {
        format!("  {misses} misses")
    } else {
        String::new()
    };
    format!(
        "{head} {:>9} {ops_ratio:>6} {:>6} {busy:>5} {:>7.0} {:>7.0} {:>7.0}{misses}",
        format!("{:.0}{full}", of(|round| round.ops)),
        goal(outcome.row.ops_goal, ">"),
        of(|round| round.latency[0]),
        of(|round| round.latency[1]),
        of(|round| round.latency[2]),
    )
}

/// The ratios of a figure to the reference's in the same round.
fn paired(
    series: &Series,
    reference: Option<&Series>,
    figure: impl Fn(&Round) -> Option<f64>,
) -> Vec<f64> {
    let Some(reference) = reference else {
        return Vec::new();
    };
    let pairs = series.rounds.iter().zip(&reference.rounds);
    pairs
        .filter_map(|(ours, theirs)| Some(figure(ours)? / figure(theirs)?))
        .filter(|ratio| ratio.is_finite())
        .collect()
}

/// The middle value, or the mean of the two.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[middle],
        _ => (sorted[middle - 1] + sorted[middle]) / 2.0,
    }
}

/// Median absolute deviation from the median.
fn deviation(values: &[f64]) -> f64 {
    let middle = median(values);
    let from: Vec<f64> = values.iter().map(|value| (value - middle).abs()).collect();
    median(&from)
}

fn least(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::INFINITY, f64::min)
}

fn most(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::NEG_INFINITY, f64::max)
}
