//! Prometheus' text format 0.0.4, and OpenMetrics 1.0 for those who ask for it. They differ in the names of counters in
//! `# TYPE` lines, and in the line at the end.

use std::fmt::{Display, Write};

use super::figures::{changes, commands, pools, process, servers};
use super::process::Facts;
use crate::proxy::report::Report;
use crate::proxy::stats::Latency;

/// Histogram bounds are 2^n microseconds for these n: 32 us to 8.4 s.
const BOUNDS: std::ops::RangeInclusive<usize> = 5..=23;

/// The media type.
pub fn content_type(open: bool) -> &'static str {
    if open {
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    } else {
        "text/plain; version=0.0.4; charset=utf-8"
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    Counter,
    Gauge,
    Histogram,
    /// A gauge that is always 1; the labels tell something.
    Info,
}

pub(super) struct Page {
    text: String,
    open: bool,
}

impl Page {
    /// Begins a family of metrics. Counters are named without `_total`.
    pub fn family(&mut self, name: &str, kind: Type, help: &str) {
        let word = match kind {
            Type::Counter => "counter",
            Type::Gauge => "gauge",
            Type::Histogram => "histogram",
            Type::Info if self.open => "info",
            Type::Info => "gauge",
        };
        let end = match kind {
            Type::Counter if !self.open => "_total",
            Type::Info if !self.open => "_info",
            _ => "",
        };
        let _ = writeln!(
            self.text,
            "# HELP {name}{end} {help}\n# TYPE {name}{end} {word}"
        );
    }

    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.text.push_str(name);
        for (index, (label, value)) in labels.iter().enumerate() {
            self.text.push(if index == 0 { '{' } else { ',' });
            let _ = write!(self.text, "{label}=\"");
            for letter in value.chars() {
                match letter {
                    '\\' => self.text.push_str("\\\\"),
                    '"' => self.text.push_str("\\\""),
                    '\n' => self.text.push_str("\\n"),
                    letter => self.text.push(letter),
                }
            }
            self.text.push('"');
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }

    pub fn histogram(&mut self, name: &str, labels: &[(&str, &str)], latency: &Latency) {
        let bucket = format!("{name}_bucket");
        let mut seen = 0;
        let below = |page: &mut Page, bound: &str, seen: u64| {
            let labels = [labels, &[("le", bound)]].concat();
            page.sample(&bucket, &labels, seen);
        };
        for (power, count) in latency.buckets().iter().enumerate() {
            seen += count;
            if BOUNDS.contains(&power) {
                below(self, &((1u64 << power) as f64 / 1e6).to_string(), seen);
            }
        }
        below(self, "+Inf", latency.total());
        self.sample(&format!("{name}_sum"), labels, latency.sum() as f64 / 1e6);
        self.sample(&format!("{name}_count"), labels, latency.total());
    }
}

/// All metrics of the pools and the process.
pub fn render(reports: &[Report<'_>], facts: &Facts, version: &str, open: bool) -> String {
    let mut page = Page {
        text: String::with_capacity(16 * 1024),
        open,
    };
    process(&mut page, reports, facts, version);
    pools(&mut page, reports);
    commands(&mut page, reports);
    changes(&mut page, reports);
    servers(&mut page, reports);
    if open {
        page.text.push_str("# EOF\n");
    }
    page.text
}
