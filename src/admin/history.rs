//! The last minutes, for the page's charts: what was counted in each step, and how fast servers answered.

use std::collections::VecDeque;

use serde_json::{json, Value};

use crate::proxy::report::Report;
use crate::proxy::stats::Latency;

/// Steps kept: ten minutes at [`super::SAMPLE_EVERY`].
const KEPT: usize = 300;

/// One step.
#[derive(Debug)]
struct Step {
    /// Its end, in seconds since 1970.
    at: f64,
    /// Its length in seconds.
    seconds: f64,
    requests: u64,
    hits: u64,
    misses: u64,
    p50: u64,
    p99: u64,
    /// Requests to each server.
    servers: Vec<u64>,
}

#[derive(Debug, Default)]
struct Before {
    at: f64,
    requests: u64,
    hits: u64,
    misses: u64,
    latency: [u64; 32],
    servers: Vec<u64>,
}

/// The steps, and the figures at the end of the last one.
#[derive(Debug, Default)]
pub struct History {
    steps: VecDeque<Step>,
    before: Option<Before>,
}

impl History {
    /// Ends a step.
    pub fn note(&mut self, report: &Report<'_>) {
        let counters = report.counters;
        let now = Before {
            at: report.unix_seconds,
            requests: counters.cmd_get
                + counters.cmd_set
                + counters.cmd_touch
                + deletes_and_counts(report),
            hits: counters.get_hits,
            misses: counters.get_misses,
            latency: sum_of(report.servers.iter().map(|server| server.latency)),
            servers: report
                .servers
                .iter()
                .map(|server| server.requests)
                .collect(),
        };
        if let Some(before) = &self.before {
            // Counters can be set back; then a step shows nothing.
            let grown = |now: u64, before: u64| now.saturating_sub(before);
            let mut latency = now.latency;
            for (now, before) in latency.iter_mut().zip(before.latency) {
                *now = grown(*now, before);
            }
            if self.steps.len() == KEPT {
                self.steps.pop_front();
            }
            self.steps.push_back(Step {
                at: now.at,
                seconds: (now.at - before.at).max(0.001),
                requests: grown(now.requests, before.requests),
                hits: grown(now.hits, before.hits),
                misses: grown(now.misses, before.misses),
                p50: percentile(&latency, 50),
                p99: percentile(&latency, 99),
                servers: now
                    .servers
                    .iter()
                    .zip(before.servers.iter().chain(std::iter::repeat(&0)))
                    .map(|(&now, &before)| grown(now, before))
                    .collect(),
            });
        }
        self.before = Some(now);
    }

    /// The steps as columns.
    pub fn to_json(&self) -> Value {
        let column = |of: fn(&Step) -> Value| self.steps.iter().map(of).collect::<Vec<Value>>();
        json!({
            "time": column(|step| json!(step.at.round())),
            "requests_per_second": column(|step| json!((step.requests as f64 / step.seconds).round())),
            "hit_ratio": column(|step| match step.hits + step.misses {
                0 => Value::Null,
                all => json!((step.hits as f64 / all as f64 * 1000.0).round() / 1000.0),
            }),
            "p50_us": column(|step| json!(step.p50)),
            "p99_us": column(|step| json!(step.p99)),
            "server_requests_per_second": column(|step| {
                let rate = |&count: &u64| json!((count as f64 / step.seconds).round());
                Value::Array(step.servers.iter().map(rate).collect())
            }),
        })
    }
}

fn deletes_and_counts(report: &Report<'_>) -> u64 {
    let c = report.counters;
    c.delete_hits + c.delete_misses + c.incr_hits + c.incr_misses + c.decr_hits + c.decr_misses
}

fn sum_of<'a>(all: impl Iterator<Item = &'a Latency>) -> [u64; 32] {
    let mut sum = [0; 32];
    for latency in all {
        for (sum, count) in sum.iter_mut().zip(latency.buckets()) {
            *sum += count;
        }
    }
    sum
}

/// Upper bound in microseconds that `percent` of the counted stayed at or below; 0 without any.
pub fn percentile(counts: &[u64; 32], percent: u64) -> u64 {
    let total: u64 = counts.iter().sum();
    let wanted = (total * percent).div_ceil(100);
    let mut seen = 0;
    for (power, count) in counts.iter().enumerate() {
        seen += count;
        if *count > 0 && seen >= wanted {
            return 1 << power;
        }
    }
    0
}
