//! The figures of servers.

use super::{number, sample_name};
use crate::admin::metrics::{Page, Type};
use crate::proxy::report::{Report, ServerReport, STATES};

/// A figure of each server.
type ServerFigure = (&'static str, &'static str, fn(&ServerReport<'_>) -> f64);

type Labelled<'a> = ([(&'static str, &'a str); 3], &'a ServerReport<'a>);

pub(in crate::admin) fn servers(page: &mut Page, reports: &[Report<'_>]) {
    let servers: Vec<Labelled<'_>> = reports.iter().flat_map(labelled).collect();
    page.family(
        "magent_server_state",
        Type::Gauge,
        "1 for the state that the server is in.",
    );
    for &([pool, name, role], server) in &servers {
        for state in STATES {
            let labels = [pool, name, role, ("state", state)];
            page.sample(
                "magent_server_state",
                &labels,
                number(server.state == state),
            );
        }
    }
    let gauges: [ServerFigure; 8] = [
        ("magent_server_up", "1 while the server is used.", |s| {
            number(matches!(s.state, "up" | "cold"))
        }),
        (
            "magent_server_state_seconds",
            "Since it went up or down.",
            |s| s.seconds_in_state,
        ),
        (
            "magent_server_connections",
            "Links that belong to it.",
            |s| s.connections as f64,
        ),
        (
            "magent_server_in_flight",
            "Requests whose answer is due.",
            |s| s.in_flight as f64,
        ),
        (
            "magent_server_journal_keys",
            "Keys it missed and has to forget.",
            |s| s.journal_keys as f64,
        ),
        (
            "magent_server_journal_complete",
            "1 unless the journal ran over.",
            |s| number(s.journal_complete),
        ),
        (
            "magent_server_view",
            "The view it last took part in.",
            |s| s.view as f64,
        ),
        (
            "magent_server_ejected_place",
            "Place of its keys with --eject; 0: at home.",
            |s| s.ejected_place as f64,
        ),
    ];
    of_servers(page, Type::Gauge, &gauges, &servers);
    let counters: [ServerFigure; 5] = [
        (
            "magent_server_requests",
            "Requests sent to it, probes not counted.",
            |s| s.requests as f64,
        ),
        ("magent_server_sent_bytes", "Written to it.", |s| {
            s.bytes_sent as f64
        }),
        ("magent_server_received_bytes", "Read from it.", |s| {
            s.bytes_received as f64
        }),
        (
            "magent_server_timeouts",
            "Requests that were not answered in time.",
            |s| s.timeouts as f64,
        ),
        (
            "magent_server_relapses",
            "How often it was lost before it had answered a client.",
            |s| s.relapses as f64,
        ),
    ];
    of_servers(page, Type::Counter, &counters, &servers);
    page.family(
        "magent_server_lost",
        Type::Counter,
        "How often it was lost or not reached, by reason.",
    );
    for &([pool, name, role], server) in &servers {
        for (why, count) in &server.lost {
            page.sample(
                "magent_server_lost_total",
                &[pool, name, role, ("reason", why.name())],
                count,
            );
        }
    }
    let help = "From queueing a request to its answer, probes included.";
    page.family("magent_server_seconds", Type::Histogram, help);
    for &(labels, server) in &servers {
        page.histogram("magent_server_seconds", &labels, server.latency);
    }
}

fn of_servers(page: &mut Page, kind: Type, figures: &[ServerFigure], servers: &[Labelled<'_>]) {
    for (name, help, value) in figures {
        page.family(name, kind, help);
        let name = sample_name(name, kind);
        for &(labels, server) in servers {
            page.sample(&name, &labels, value(server));
        }
    }
}

fn labelled<'a>(report: &'a Report<'a>) -> impl Iterator<Item = Labelled<'a>> {
    report.servers.iter().map(|server| {
        let labels = [
            ("pool", report.pool),
            ("server", server.name),
            ("role", server.role),
        ];
        (labels, server)
    })
}
