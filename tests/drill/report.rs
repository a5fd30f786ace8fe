//! The table of `make drill`, one row as soon as it is known.

use std::io::Write;
use std::process::Command;
use std::time::Duration;

use crate::drill::lab::Report;
use crate::drill::process::is_real_time;
use crate::drill::scenes::Scene;
use crate::options::Options;

/// What the figures depend on, and the head of the table.
pub fn conditions(options: &Options, track_process: bool) {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load: Vec<&str> = load.split(' ').take(3).collect();
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    println!(
        "profile {}, {} runs each; {}; memcached {}; Linux {}; {cpus} CPUs, load at the start {}; real-time priority {}; track_process {}",
        options.profile,
        options.runs,
        first_line("keepalived", "--version"),
        first_line("memcached", "-V").replace("memcached ", ""),
        first_line("uname", "-r"),
        load.join(" "),
        if is_real_time() { "on" } else { "off" },
        if track_process { "on" } else { "off (the kernel refuses it here)" },
    );
    if !options.render.is_empty() {
        println!("keepalived/render: {}", options.render.join(" "));
    }
    println!();
    println!("| drill | what is done | outage ms: min | median | max | goal | failed | reconnects | lost keys | stale reads | both masters ms |");
    println!("|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|");
    flush();
}

/// One drill.
pub fn row(options: &Options, scene: &Scene, reports: &[Report]) {
    let Some(outage) = spread(reports, |report| millis(report.window.outage)) else {
        return;
    };
    let goal = scene.goal[usize::from(options.profile == "classic")];
    let goal_text = goal.map_or("-".to_string(), |goal| goal.to_string());
    let mark = if goal.is_some_and(|goal| outage.median > goal) {
        " (!)"
    } else {
        ""
    };
    let number =
        |count: fn(&Report) -> u64| spread(reports, count).map_or(String::new(), |s| s.text());
    let lost: usize = reports.iter().map(|report| report.lost.len()).sum();
    let stale: usize = reports.iter().map(|report| report.stale).sum();
    println!(
        "| {} | {} | {} | {}{mark} | {} | {goal_text} | {} | {} | {lost} | {stale} | {} |",
        scene.name,
        scene.title,
        outage.min,
        outage.median,
        outage.max,
        number(|report| u64::from(report.window.failed)),
        number(|report| u64::from(report.window.reconnects)),
        number(|report| millis(report.both)),
    );
    for (run, report) in reports.iter().enumerate() {
        let found = !report.lost.is_empty() || report.stale > 0;
        if options.verbose || found {
            println!("    run {}: {} keys read back", run + 1, report.keys);
            for note in report
                .notes
                .iter()
                .take(if options.verbose { 60 } else { 12 })
            {
                println!("        {note}");
            }
        }
    }
    flush();
}

struct Spread {
    min: u64,
    median: u64,
    max: u64,
}

impl Spread {
    fn text(&self) -> String {
        if self.min == self.max {
            self.min.to_string()
        } else {
            format!("{} ({}-{})", self.median, self.min, self.max)
        }
    }
}

fn spread(reports: &[Report], of: impl Fn(&Report) -> u64) -> Option<Spread> {
    let mut values: Vec<u64> = reports.iter().map(of).collect();
    values.sort_unstable();
    Some(Spread {
        min: *values.first()?,
        median: values[values.len() / 2],
        max: *values.last()?,
    })
}

fn millis(time: Duration) -> u64 {
    time.as_micros().div_ceil(1000) as u64
}

fn first_line(program: &str, argument: &str) -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    let output = Command::new(program)
        .arg(argument)
        .env("PATH", format!("{path}:/usr/sbin:/sbin"))
        .output();
    let Ok(output) = output else {
        return format!("{program}: not there");
    };
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    text.lines().next().unwrap_or_default().trim().to_string()
}

fn flush() {
    // Nobody reads any more: nothing to be done about it.
    let _ = std::io::stdout().flush();
}
