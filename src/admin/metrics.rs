//! Prometheus' text format 0.0.4, and OpenMetrics 1.0 for those who ask for it. They differ in the names of counters in
//! `# TYPE` lines, and in the line at the end.

use std::fmt::{Display, Write};

use super::process::Facts;
use crate::proto::Verb;
use crate::proxy::events::Kind;
use crate::proxy::report::{Report, STATES};
use crate::proxy::stats::{Latency, Outcome};

/// The name of a pool that has none.
const POOL: &str = "default";

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
enum Type {
    Counter,
    Gauge,
    Histogram,
    /// A gauge that is always 1; the labels tell something.
    Info,
}

struct Page {
    text: String,
    open: bool,
}

impl Page {
    /// Begins a family of metrics. Counters are named without `_total`.
    fn family(&mut self, name: &str, kind: Type, help: &str) {
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

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
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

    fn gauge(&mut self, name: &str, help: &str, labels: &[(&str, &str)], value: impl Display) {
        self.family(name, Type::Gauge, help);
        self.sample(name, labels, value);
    }

    fn counter(&mut self, name: &str, help: &str, labels: &[(&str, &str)], value: impl Display) {
        self.family(name, Type::Counter, help);
        self.sample(&format!("{name}_total"), labels, value);
    }

    fn histogram(&mut self, name: &str, labels: &[(&str, &str)], latency: &Latency) {
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

/// All metrics of a pool and the process.
pub fn render(report: &Report<'_>, facts: &Facts, version: &str, open: bool) -> String {
    let mut page = Page {
        text: String::with_capacity(16 * 1024),
        open,
    };
    process(&mut page, report, facts, version);
    clients(&mut page, report);
    replication(&mut page, report);
    servers(&mut page, report);
    if open {
        page.text.push_str("# EOF\n");
    }
    page.text
}

fn process(page: &mut Page, report: &Report<'_>, facts: &Facts, version: &str) {
    page.family("magent_build", Type::Info, "The running magent.");
    page.sample("magent_build_info", &[("version", version)], 1);
    page.counter(
        "process_cpu_seconds",
        "User and system CPU time.",
        &[],
        report.cpu_seconds,
    );
    page.gauge(
        "process_start_time_seconds",
        "Start, in seconds since 1970.",
        &[],
        report.started,
    );
    page.gauge(
        "process_resident_memory_bytes",
        "Memory in RAM.",
        &[],
        facts.resident_bytes,
    );
    page.gauge(
        "process_virtual_memory_bytes",
        "Address space.",
        &[],
        facts.virtual_bytes,
    );
    page.gauge("process_open_fds", "Open descriptors.", &[], facts.open_fds);
    page.gauge(
        "process_max_fds",
        "Most open descriptors.",
        &[],
        facts.max_fds,
    );
}

fn clients(page: &mut Page, report: &Report<'_>) {
    let pool = [("pool", POOL)];
    let counters = report.counters;
    page.gauge(
        "magent_client_connections",
        "Client connections now.",
        &pool,
        report.connections.0,
    );
    page.gauge(
        "magent_client_connections_max",
        "Most client connections (-n).",
        &pool,
        report.connections.1,
    );
    page.counter(
        "magent_client_connections_accepted",
        "Client connections accepted.",
        &pool,
        counters.total_connections,
    );
    page.counter(
        "magent_client_connections_rejected",
        "Turned away over -n.",
        &pool,
        counters.rejected_connections,
    );
    page.counter(
        "magent_client_received_bytes",
        "Read from clients.",
        &pool,
        counters.bytes_read,
    );
    page.counter(
        "magent_client_sent_bytes",
        "Written to clients.",
        &pool,
        counters.bytes_written,
    );
    page.gauge(
        "magent_buffered_bytes",
        "Buffered requests and replies.",
        &pool,
        report.memory.0,
    );
    page.gauge(
        "magent_buffered_bytes_max",
        "Most bytes buffered (--memory-limit).",
        &pool,
        report.memory.1,
    );
    page.family(
        "magent_requests",
        Type::Counter,
        "Requests by command and result; of retrievals each key counts.",
    );
    let used = |&verb: &Verb| {
        Outcome::ALL
            .iter()
            .any(|&outcome| report.commands.counted(verb, outcome) > 0)
    };
    for verb in Verb::ALL.into_iter().filter(used) {
        for outcome in Outcome::ALL {
            let labels = [
                pool[0],
                ("command", verb.name()),
                ("result", outcome.name()),
            ];
            page.sample(
                "magent_requests_total",
                &labels,
                report.commands.counted(verb, outcome),
            );
        }
    }
    page.family(
        "magent_command_seconds",
        Type::Histogram,
        "From queueing a request to its server's answer, by command.",
    );
    for verb in Verb::ALL {
        let latency = report.commands.latency(verb);
        if latency.total() > 0 {
            page.histogram(
                "magent_command_seconds",
                &[pool[0], ("command", verb.name())],
                latency,
            );
        }
    }
    page.counter(
        "magent_refused_too_large",
        "Refused over --max-item-size.",
        &pool,
        counters.store_too_large,
    );
    page.counter(
        "magent_refused_no_memory",
        "Refused over --memory-limit.",
        &pool,
        counters.store_no_memory,
    );
}

fn replication(page: &mut Page, report: &Report<'_>) {
    let pool = [("pool", POOL)];
    let counters = report.counters;
    let healthy = u8::from(report.lacking.is_empty());
    page.gauge(
        "magent_healthy",
        "1 while every key has a live copy.",
        &pool,
        healthy,
    );
    page.gauge(
        "magent_active",
        "1 while clients ask for keys.",
        &pool,
        u8::from(report.is_active),
    );
    page.gauge("magent_view", "The highest view known.", &pool, report.view);
    let counted: [(&str, &str, u64); 16] = [
        (
            "magent_failover_keys",
            "Keys asked of another copy than the primary's.",
            counters.failovers,
        ),
        (
            "magent_failed_read_keys",
            "Keys that no copy could be asked for; clients saw a miss.",
            counters.failed_reads,
        ),
        (
            "magent_failed_writes",
            "Writes that no copy could take, or of unknown outcome.",
            counters.failed_writes,
        ),
        (
            "magent_mirrored_writes",
            "Requests sent to further copies.",
            counters.mirrored,
        ),
        (
            "magent_degraded_writes",
            "Writes that left out a copy.",
            counters.degraded_writes,
        ),
        (
            "magent_disagreements",
            "Further copies that answered otherwise.",
            counters.disagreements,
        ),
        (
            "magent_heals",
            "Keys deleted on a copy that differed.",
            counters.heals,
        ),
        (
            "magent_refills",
            "Keys brought from one copy to another.",
            counters.refills,
        ),
        (
            "magent_refills_cancelled",
            "Keys not brought over, as a write had passed.",
            counters.refills_cancelled,
        ),
        (
            "magent_entry_flushes",
            "Returning servers that were flushed.",
            counters.entry_flushes,
        ),
        (
            "magent_views_raised",
            "Views raised by this proxy.",
            counters.views_raised,
        ),
        (
            "magent_ejected_writes",
            "Writes that went to another primary than the key's.",
            counters.ejected_writes,
        ),
        (
            "magent_ejected_deletes",
            "Deletions of keys away from their primary.",
            counters.ejected_deletes,
        ),
        (
            "magent_held_requests",
            "Requests that waited for another on the same key.",
            counters.held,
        ),
        (
            "magent_clients_cut_off",
            "Clients given up in the middle of a long value.",
            counters.cut_off,
        ),
        (
            "magent_begun_anew",
            "Times that all under way was dropped after a stop of the process.",
            counters.begun_anew,
        ),
    ];
    for (name, help, value) in counted {
        page.counter(name, help, &pool, value);
    }
    page.gauge(
        "magent_ejected_keys",
        "Keys known to lie at another primary.",
        &pool,
        report.ejected_keys,
    );
    page.family("magent_events", Type::Counter, "State changes by kind.");
    for kind in Kind::ALL {
        page.sample(
            "magent_events_total",
            &[pool[0], ("event", kind.name())],
            report.events.count(kind),
        );
    }
    page.family(
        "magent_address_here",
        Type::Gauge,
        "1 while this host has the address of -l.",
    );
    for (ip, here, _) in &report.addresses {
        page.sample(
            "magent_address_here",
            &[pool[0], ("address", &ip.to_string())],
            u8::from(*here),
        );
    }
    let resync = report.resync.as_ref();
    let server = resync.map_or("", |resync| resync.server);
    let labels = [pool[0], ("server", server)];
    page.gauge(
        "magent_resync_running",
        "1 while a server is being filled.",
        &labels,
        u8::from(resync.is_some()),
    );
    let figures: [(&str, &str, u64); 3] = [
        (
            "magent_resync_keys_done",
            "Keys dealt with.",
            resync.map_or(0, |r| r.done),
        ),
        (
            "magent_resync_keys_listed",
            "Keys listed so far.",
            resync.map_or(0, |r| r.listed),
        ),
        (
            "magent_resync_seconds_left",
            "For the listed keys.",
            resync.map_or(0, |r| r.seconds_left),
        ),
    ];
    for (name, help, value) in figures {
        page.gauge(name, help, &labels, value);
    }
}

fn servers(page: &mut Page, report: &Report<'_>) {
    let labels = |index: usize| {
        let server = &report.servers[index];
        [
            ("pool", POOL),
            ("server", server.name),
            ("role", server.role),
        ]
    };
    let all = 0..report.servers.len();
    page.family(
        "magent_server_state",
        Type::Gauge,
        "1 for the state that the server is in.",
    );
    for index in all.clone() {
        for state in STATES {
            let [pool, server, role] = labels(index);
            let is = u8::from(report.servers[index].state == state);
            page.sample(
                "magent_server_state",
                &[pool, server, role, ("state", state)],
                is,
            );
        }
    }
    type Figure = (&'static str, &'static str, fn(&Report<'_>, usize) -> f64);
    let gauges: [Figure; 8] = [
        ("magent_server_up", "1 while the server is used.", |r, i| {
            f64::from(u8::from(matches!(r.servers[i].state, "up" | "cold")))
        }),
        (
            "magent_server_state_seconds",
            "Since it went up or down.",
            |r, i| r.servers[i].seconds_in_state,
        ),
        (
            "magent_server_connections",
            "Links that belong to it.",
            |r, i| r.servers[i].connections as f64,
        ),
        (
            "magent_server_in_flight",
            "Requests whose answer is due.",
            |r, i| r.servers[i].in_flight as f64,
        ),
        (
            "magent_server_journal_keys",
            "Keys it missed and has to forget.",
            |r, i| r.servers[i].journal_keys as f64,
        ),
        (
            "magent_server_journal_complete",
            "1 unless the journal ran over.",
            |r, i| f64::from(u8::from(r.servers[i].journal_complete)),
        ),
        (
            "magent_server_view",
            "The view it last took part in.",
            |r, i| r.servers[i].view as f64,
        ),
        (
            "magent_server_ejected_place",
            "Place of its keys with --eject; 0: at home.",
            |r, i| r.servers[i].ejected_place as f64,
        ),
    ];
    for (name, help, value) in gauges {
        page.family(name, Type::Gauge, help);
        for index in all.clone() {
            page.sample(name, &labels(index), value(report, index));
        }
    }
    let counters: [Figure; 4] = [
        (
            "magent_server_requests",
            "Requests sent to it, probes not counted.",
            |r, i| r.servers[i].requests as f64,
        ),
        ("magent_server_sent_bytes", "Written to it.", |r, i| {
            r.servers[i].bytes_sent as f64
        }),
        ("magent_server_received_bytes", "Read from it.", |r, i| {
            r.servers[i].bytes_received as f64
        }),
        (
            "magent_server_timeouts",
            "Requests that were not answered in time.",
            |r, i| r.servers[i].timeouts as f64,
        ),
    ];
    for (name, help, value) in counters {
        page.family(name, Type::Counter, help);
        for index in all.clone() {
            page.sample(
                &format!("{name}_total"),
                &labels(index),
                value(report, index),
            );
        }
    }
    page.family(
        "magent_server_lost",
        Type::Counter,
        "How often it was lost or not reached, by reason.",
    );
    for index in all.clone() {
        for (why, count) in &report.servers[index].lost {
            let [pool, server, role] = labels(index);
            page.sample(
                "magent_server_lost_total",
                &[pool, server, role, ("reason", why.name())],
                count,
            );
        }
    }
    page.family(
        "magent_server_seconds",
        Type::Histogram,
        "From queueing a request to its answer, probes included.",
    );
    for index in all {
        page.histogram(
            "magent_server_seconds",
            &labels(index),
            report.servers[index].latency,
        );
    }
}
