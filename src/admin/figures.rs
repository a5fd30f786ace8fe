//! What there is to count and to measure: the families of metrics, each with its name, unit and meaning.
//! docs/observability.md says what to do when one moves.

mod servers;

use std::borrow::Cow;

use super::metrics::{Page, Type};
use super::process::Facts;
use crate::proto::Verb;
use crate::proxy::events::Kind;
use crate::proxy::report::{Report, ResyncReport};
use crate::proxy::stats::Outcome;

pub(super) use servers::servers;

/// A figure of each pool.
type Figure = (&'static str, &'static str, fn(&Report<'_>) -> f64);
type ResyncFigure = (&'static str, &'static str, fn(&ResyncReport<'_>) -> u64);

pub(super) fn process(page: &mut Page, reports: &[Report<'_>], facts: &Facts, version: &str) {
    page.family("magent_build", Type::Info, "The running magent.");
    page.sample("magent_build_info", &[("version", version)], 1);
    let first = reports.first();
    let cpu = first.map_or(0.0, |report| report.cpu_seconds);
    page.family(
        "process_cpu_seconds",
        Type::Counter,
        "User and system CPU time.",
    );
    page.sample("process_cpu_seconds_total", &[], cpu);
    let gauges = [
        (
            "process_start_time_seconds",
            "Start, in seconds since 1970.",
            first.map_or(0.0, |report| report.started),
        ),
        (
            "process_resident_memory_bytes",
            "Memory in RAM.",
            facts.resident_bytes as f64,
        ),
        (
            "process_virtual_memory_bytes",
            "Address space.",
            facts.virtual_bytes as f64,
        ),
        (
            "process_open_fds",
            "Open descriptors.",
            facts.open_fds as f64,
        ),
        (
            "process_max_fds",
            "Most open descriptors.",
            facts.max_fds as f64,
        ),
    ];
    for (name, help, value) in gauges {
        page.family(name, Type::Gauge, help);
        page.sample(name, &[], value);
    }
    page.family(
        "magent_log_dropped",
        Type::Counter,
        "Lines of the log that nobody took in time.",
    );
    page.sample("magent_log_dropped_total", &[], facts.log_dropped as f64);
}

pub(super) fn pools(page: &mut Page, reports: &[Report<'_>]) {
    let gauges: [Figure; 8] = [
        (
            "magent_client_connections",
            "Client connections now.",
            |r| r.connections.0 as f64,
        ),
        (
            "magent_client_connections_max",
            "Most client connections (-n).",
            |r| r.connections.1 as f64,
        ),
        (
            "magent_buffered_bytes",
            "Buffered requests and replies.",
            |r| r.memory.0 as f64,
        ),
        (
            "magent_buffered_bytes_max",
            "Most bytes buffered (--memory-limit).",
            |r| r.memory.1 as f64,
        ),
        (
            "magent_healthy",
            "1 while every key has a live copy.",
            |r| number(r.lacking.is_empty()),
        ),
        ("magent_active", "1 while clients ask for keys.", |r| {
            number(r.is_active)
        }),
        ("magent_view", "The highest view known.", |r| r.view as f64),
        (
            "magent_ejected_keys",
            "Keys known to lie at another primary.",
            |r| r.ejected_keys as f64,
        ),
    ];
    of_pools(page, Type::Gauge, &gauges, reports);
    let counters: [Figure; 24] = [
        (
            "magent_client_connections_accepted",
            "Client connections accepted.",
            |r| r.counters.total_connections as f64,
        ),
        (
            "magent_client_connections_rejected",
            "Turned away over -n.",
            |r| r.counters.rejected_connections as f64,
        ),
        ("magent_client_received_bytes", "Read from clients.", |r| {
            r.counters.bytes_read as f64
        }),
        ("magent_client_sent_bytes", "Written to clients.", |r| {
            r.counters.bytes_written as f64
        }),
        (
            "magent_refused_too_large",
            "Refused over --max-item-size.",
            |r| r.counters.store_too_large as f64,
        ),
        (
            "magent_refused_no_memory",
            "Refused over --memory-limit.",
            |r| r.counters.store_no_memory as f64,
        ),
        (
            "magent_failover_keys",
            "Keys asked of another copy than the primary's.",
            |r| r.counters.failovers as f64,
        ),
        (
            "magent_failed_read_keys",
            "Keys that no copy could be asked for; clients saw a miss.",
            |r| r.counters.failed_reads as f64,
        ),
        (
            "magent_failed_writes",
            "Writes that no copy could take, or of unknown outcome.",
            |r| r.counters.failed_writes as f64,
        ),
        (
            "magent_refused_full_requests",
            "Requests whose turn at a full server did not come within the time limit.",
            |r| r.counters.refused_full as f64,
        ),
        (
            "magent_mirrored_writes",
            "Requests sent to further copies.",
            |r| r.counters.mirrored as f64,
        ),
        (
            "magent_degraded_writes",
            "Writes that left out a copy.",
            |r| r.counters.degraded_writes as f64,
        ),
        (
            "magent_disagreements",
            "Further copies that answered otherwise.",
            |r| r.counters.disagreements as f64,
        ),
        (
            "magent_heals",
            "Keys deleted on a copy that differed.",
            |r| r.counters.heals as f64,
        ),
        (
            "magent_refills",
            "Keys brought from one copy to another.",
            |r| r.counters.refills as f64,
        ),
        (
            "magent_refills_cancelled",
            "Keys not brought over, as a write had passed.",
            |r| r.counters.refills_cancelled as f64,
        ),
        (
            "magent_entry_flushes",
            "Returning servers that were flushed.",
            |r| r.counters.entry_flushes as f64,
        ),
        ("magent_views_raised", "Views raised by this proxy.", |r| {
            r.counters.views_raised as f64
        }),
        (
            "magent_ejected_writes",
            "Writes that went to another primary than the key's.",
            |r| r.counters.ejected_writes as f64,
        ),
        (
            "magent_ejected_deletes",
            "Deletions of keys away from their primary.",
            |r| r.counters.ejected_deletes as f64,
        ),
        (
            "magent_held_requests",
            "Requests that waited for another on the same key.",
            |r| r.counters.held as f64,
        ),
        (
            "magent_clients_cut_off",
            "Clients given up in the middle of a long value.",
            |r| r.counters.cut_off as f64,
        ),
        (
            "magent_values_set_aside",
            "Long values that clients did not read, to be asked for again.",
            |r| r.counters.set_aside as f64,
        ),
        (
            "magent_begun_anew",
            "Times that all under way was dropped after a stop of the process.",
            |r| r.counters.begun_anew as f64,
        ),
    ];
    of_pools(page, Type::Counter, &counters, reports);
}

fn of_pools(page: &mut Page, kind: Type, figures: &[Figure], reports: &[Report<'_>]) {
    for (name, help, value) in figures {
        page.family(name, kind, help);
        let name = sample_name(name, kind);
        for report in reports {
            page.sample(&name, &[("pool", report.pool)], value(report));
        }
    }
}

pub(super) fn commands(page: &mut Page, reports: &[Report<'_>]) {
    page.family(
        "magent_requests",
        Type::Counter,
        "Requests by command and result; of retrievals each key counts.",
    );
    for report in reports {
        for verb in Verb::ALL {
            for outcome in Outcome::ALL {
                let count = report.commands.counted(verb, outcome);
                if count > 0 {
                    let labels = [
                        ("pool", report.pool),
                        ("command", verb.name()),
                        ("result", outcome.name()),
                    ];
                    page.sample("magent_requests_total", &labels, count);
                }
            }
        }
    }
    let help = "From queueing a request to its server's answer, by command.";
    page.family("magent_command_seconds", Type::Histogram, help);
    for report in reports {
        for verb in Verb::ALL {
            let latency = report.commands.latency(verb);
            if latency.total() > 0 {
                let labels = [("pool", report.pool), ("command", verb.name())];
                page.histogram("magent_command_seconds", &labels, latency);
            }
        }
    }
}

pub(super) fn changes(page: &mut Page, reports: &[Report<'_>]) {
    page.family("magent_events", Type::Counter, "State changes by kind.");
    for report in reports {
        for kind in Kind::ALL {
            let labels = [("pool", report.pool), ("event", kind.name())];
            page.sample("magent_events_total", &labels, report.events.count(kind));
        }
    }
    page.family(
        "magent_address_here",
        Type::Gauge,
        "1 while this host has the address of -l.",
    );
    for report in reports {
        for (ip, here, _) in &report.addresses {
            let labels = [("pool", report.pool), ("address", &ip.to_string())];
            page.sample("magent_address_here", &labels, number(*here));
        }
    }
    let figures: [ResyncFigure; 4] = [
        (
            "magent_resync_running",
            "1 while a server is being filled.",
            |_| 1,
        ),
        ("magent_resync_keys_done", "Keys dealt with.", |resync| {
            resync.done
        }),
        (
            "magent_resync_keys_listed",
            "Keys listed so far.",
            |resync| resync.listed,
        ),
        (
            "magent_resync_seconds_left",
            "For the listed keys.",
            |resync| resync.seconds_left,
        ),
    ];
    for (name, help, value) in figures {
        page.family(name, Type::Gauge, help);
        for report in reports {
            let resync = report.resync.as_ref();
            let labels = [
                ("pool", report.pool),
                ("server", resync.map_or("", |resync| resync.server)),
            ];
            page.sample(name, &labels, resync.map_or(0, value));
        }
    }
}

/// What the samples of a family are called.
fn sample_name(family: &'static str, kind: Type) -> Cow<'static, str> {
    match kind {
        Type::Counter => format!("{family}_total").into(),
        _ => family.into(),
    }
}

fn number(is: bool) -> f64 {
    f64::from(u8::from(is))
}
