//! `/stats.json`, and the same in the layout of twemproxy's statistics port.

use std::collections::BTreeMap;

use serde_json::{json, Map, Value};

use super::history::{percentile, History};
use crate::proto::Verb;
use crate::proxy::report::Report;
use crate::proxy::stats::Outcome;

/// Everything, for the page and for programs.
pub fn stats(
    reports: &[Report<'_>],
    histories: &BTreeMap<String, History>,
    version: &str,
) -> String {
    let first = reports.first();
    let pools: Vec<Value> = reports
        .iter()
        .map(|report| pool(report, histories.get(report.pool)))
        .collect();
    json!({
        "service": "magent",
        "version": version,
        "time": first.map(|report| report.unix_seconds),
        "uptime": first.map(|report| (report.unix_seconds - report.started).round()),
        "ready": reports.iter().all(|report| report.is_ready && !report.is_draining),
        "healthy": reports.iter().all(|report| report.lacking.is_empty()),
        "pools": pools,
    })
    .to_string()
}

fn pool(report: &Report<'_>, history: Option<&History>) -> Value {
    let counters = report.counters;
    let servers: Vec<Value> = report
        .servers
        .iter()
        .map(|server| {
            let lost = server
                .lost
                .iter()
                .map(|(why, count)| (why.name().to_owned(), json!(count)));
            json!({
                "name": server.name,
                "role": server.role,
                "state": server.state,
                "seconds_in_state": server.seconds_in_state.round(),
                "version": server.version.map(|[a, b, c]| format!("{a}.{b}.{c}")),
                "connections": server.connections,
                "in_flight": server.in_flight,
                "requests": server.requests,
                "bytes_sent": server.bytes_sent,
                "bytes_received": server.bytes_received,
                "timeouts": server.timeouts,
                "lost": lost.collect::<Map<String, Value>>(),
                "p50_us": percentile(server.latency.buckets(), 50),
                "p99_us": percentile(server.latency.buckets(), 99),
                "journal_keys": server.journal_keys,
                "journal_complete": server.journal_complete,
                "view": server.view,
                "ejected_place": server.ejected_place,
            })
        })
        .collect();
    let events: Vec<Value> = report
        .events
        .kept()
        .map(|event| {
            json!({
                "time": report.unix_time_of(event.at),
                "last": report.unix_time_of(event.last),
                "event": event.kind.name(),
                "subject": event.subject,
                "detail": event.detail,
                "repeats": event.repeats,
            })
        })
        .collect();
    let addresses: Vec<Value> = report
        .addresses
        .iter()
        .map(|(ip, here, seconds)| json!({"address": ip.to_string(), "here": here, "seconds": seconds.round()}))
        .collect();
    let resync = report.resync.as_ref().map(|resync| {
        json!({
            "server": resync.server,
            "keys_done": resync.done,
            "keys_listed": resync.listed,
            "seconds": resync.seconds,
            "keys_per_second": resync.rate,
            "seconds_left": resync.seconds_left,
        })
    });
    json!({
        "name": report.pool,
        "ready": report.is_ready && !report.is_draining,
        "healthy": report.lacking.is_empty(),
        "without_copy": report.lacking,
        "active": report.is_active,
        "view": report.view,
        "connections": {"now": report.connections.0, "max": report.connections.1,
            "accepted": counters.total_connections, "rejected": counters.rejected_connections},
        "memory": {"buffered": report.memory.0, "limit": report.memory.1},
        "bytes": {"received": counters.bytes_read, "sent": counters.bytes_written},
        "keys": {"hits": counters.get_hits, "misses": counters.get_misses,
            "failovers": counters.failovers, "failed": counters.failed_reads},
        "writes": {"mirrored": counters.mirrored, "degraded": counters.degraded_writes,
            "failed": counters.failed_writes},
        "copies": {"disagreements": counters.disagreements, "heals": counters.heals,
            "refills": counters.refills, "refills_cancelled": counters.refills_cancelled,
            "entry_flushes": counters.entry_flushes},
        "commands": commands(report),
        "servers": servers,
        "addresses": addresses,
        "resync": resync,
        "events": events,
        "history": history.map(History::to_json),
    })
}

fn commands(report: &Report<'_>) -> Map<String, Value> {
    let mut all = Map::new();
    for verb in Verb::ALL {
        let counts = Outcome::ALL.map(|outcome| (outcome, report.commands.counted(verb, outcome)));
        let used = counts.iter().filter(|(_, count)| *count > 0);
        let used: Map<String, Value> = used
            .map(|(outcome, count)| (outcome.name().to_owned(), json!(count)))
            .collect();
        if !used.is_empty() {
            all.insert(verb.name().to_owned(), Value::Object(used));
        }
    }
    all
}

/// twemproxy's layout: a pool's counters and its servers' in one object under the pool's name.
pub fn nutcracker(reports: &[Report<'_>], version: &str) -> String {
    let sum = |of: fn(&Report<'_>) -> u64| reports.iter().map(of).sum::<u64>();
    let first = reports.first();
    let mut all = Map::new();
    all.insert("service".into(), json!("nutcracker"));
    all.insert("source".into(), json!("magent"));
    all.insert("version".into(), json!(version));
    let uptime = first.map(|report| (report.unix_seconds - report.started).round());
    all.insert("uptime".into(), json!(uptime));
    all.insert(
        "timestamp".into(),
        json!(first.map(|report| report.unix_seconds.round())),
    );
    all.insert(
        "total_connections".into(),
        json!(sum(|report| report.counters.total_connections)),
    );
    all.insert(
        "curr_connections".into(),
        json!(sum(|report| report.connections.0 as u64)),
    );
    for report in reports {
        all.insert(
            report.pool.to_owned(),
            Value::Object(nutcracker_pool(report)),
        );
    }
    Value::Object(all).to_string()
}

fn nutcracker_pool(report: &Report<'_>) -> Map<String, Value> {
    let counters = report.counters;
    let mut pool = Map::new();
    let lost: u64 = report
        .servers
        .iter()
        .map(|server| server.lost.iter().map(|(_, n)| n).sum::<u64>())
        .sum();
    pool.insert("client_connections".into(), json!(report.connections.0));
    pool.insert(
        "client_eof".into(),
        json!(counters
            .total_connections
            .saturating_sub(report.connections.0 as u64)),
    );
    pool.insert(
        "client_err".into(),
        json!(counters.rejected_connections + counters.cut_off),
    );
    pool.insert(
        "forward_error".into(),
        json!(counters.failed_reads + counters.failed_writes),
    );
    pool.insert("fragments".into(), json!(0));
    pool.insert("server_ejects".into(), json!(lost));
    for server in &report.servers {
        let lost = |name: &str| {
            let found = server.lost.iter().find(|(why, _)| why.name() == name);
            found.map_or(0, |(_, count)| *count)
        };
        pool.insert(
            server.name.to_owned(),
            json!({
                "server_eof": lost("disconnected"),
                "server_err": lost("refused") + lost("unreachable") + lost("connect_timeout") + lost("nonsense"),
                "server_timedout": server.timeouts + lost("timeout"),
                "server_connections": if matches!(server.state, "up" | "cold") { server.connections } else { 0 },
                "server_ejected_at": if matches!(server.state, "up" | "cold") { 0.0 } else {
                    (report.unix_seconds - server.seconds_in_state) * 1e6
                }.round(),
                "requests": server.requests,
                "request_bytes": server.bytes_sent,
                "responses": server.requests.saturating_sub(server.in_flight as u64),
                "response_bytes": server.bytes_received,
                "in_queue": 0,
                "in_queue_bytes": 0,
                "out_queue": server.in_flight,
                "out_queue_bytes": 0,
            }),
        );
    }
    pool
}
