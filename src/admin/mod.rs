//! What an operator sees: metrics, health and a page, over a small HTTP endpoint (`--admin`). Pure: bytes and time in,
//! bytes out; the edge owns the sockets.

mod figures;
mod history;
mod http;
mod json;
mod metrics;
mod process;

use std::collections::BTreeMap;
use std::net::IpAddr;

use self::history::History;
use self::http::{Answer, Question};
use crate::proxy::report::Report;
use crate::time::{Span, Time};

pub use self::http::Conn;
pub use self::process::{Facts, OutsideFacts};

/// The page: nothing in it comes from elsewhere.
const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// How often the history takes note.
pub const SAMPLE_EVERY: Span = Span::from_millis(2000);

/// What is kept between questions.
#[derive(Debug)]
pub struct Admin {
    histories: BTreeMap<String, History>,
    next_sample: Time,
    version: &'static str,
    facts: OutsideFacts,
    /// Names that this endpoint is asked by, in lower case.
    names: Vec<String>,
}

impl Admin {
    /// Begins with an empty history. `facts` looks at the process when it is asked. `names`: those that it may be asked by,
    /// besides addresses and `localhost`.
    pub fn new(facts: OutsideFacts, names: &[String], now: Time) -> Admin {
        Admin {
            names: names.iter().map(|name| name.to_ascii_lowercase()).collect(),
            histories: BTreeMap::new(),
            next_sample: now,
            version: env!("CARGO_PKG_VERSION"),
            facts,
        }
    }

    /// When [`Admin::sample`] is due.
    pub fn next_timeout(&self) -> Time {
        self.next_sample
    }

    /// Notes how things are, for the page's charts.
    pub fn sample(&mut self, reports: &[Report<'_>], now: Time) {
        if now < self.next_sample {
            return;
        }
        self.next_sample = now + SAMPLE_EVERY;
        self.histories
            .retain(|name, _| reports.iter().any(|report| report.pool == name));
        for report in reports {
            match self.histories.get_mut(report.pool) {
                Some(history) => history.note(report),
                None => {
                    let mut history = History::default();
                    history.note(report);
                    self.histories.insert(report.pool.to_owned(), history);
                }
            }
        }
    }

    /// Answers the next question of `conn`. False: there is no whole one, or the answer before is not sent yet.
    pub fn serve(&self, conn: &mut Conn, reports: &[Report<'_>]) -> bool {
        let Some(question) = conn.next_question() else {
            return false;
        };
        let answer = self.answer(&question, reports);
        conn.answer(&question, answer);
        true
    }

    /// Whether the endpoint may be asked by that name. A page from elsewhere could otherwise have its own name lead here, and read
    /// the answers in a visitor's browser (DNS rebinding). Such a name is never an address.
    fn is_known_as(&self, host: &str) -> bool {
        let host = host.strip_suffix('.').unwrap_or(host);
        host == "localhost"
            || host.parse::<IpAddr>().is_ok()
            || self.names.iter().any(|name| name == host)
    }

    fn answer(&self, question: &Question, reports: &[Report<'_>]) -> Answer {
        if question
            .host
            .as_ref()
            .is_some_and(|host| !self.is_known_as(host))
        {
            return Answer::text(
                421,
                "not a name of this endpoint; --admin-name NAME makes it one",
            );
        }
        match question.path() {
            "/metrics" => {
                let open = question.wants_open_metrics;
                let text = metrics::render(reports, &(self.facts)(), self.version, open);
                Answer::new(200, metrics::content_type(open), text)
            }
            "/healthz" => health(reports),
            "/readyz" => readiness(reports),
            "/stats.json" => Answer::json(json::stats(reports, &self.histories, self.version)),
            "/nutcracker.json" => Answer::json(json::nutcracker(reports, self.version)),
            "/" | "/index.html" => Answer::page("text/html; charset=utf-8", PAGE),
            "/page.css" => Answer::page("text/css; charset=utf-8", STYLE),
            "/page.js" => Answer::page("text/javascript; charset=utf-8", SCRIPT),
            _ => Answer::text(
                404,
                "not found: / /metrics /healthz /readyz /stats.json /nutcracker.json",
            ),
        }
    }
}

/// 200 while every key of every pool has a live copy.
fn health(reports: &[Report<'_>]) -> Answer {
    let lacking: Vec<String> = reports
        .iter()
        .filter(|report| !report.lacking.is_empty())
        .map(|report| {
            let primaries = report.servers.iter().filter(|server| server.is_primary());
            format!(
                "pool {}: keys of {} of {} primaries have no live copy: {}",
                report.pool,
                report.lacking.len(),
                primaries.count(),
                report.lacking.join(" ")
            )
        })
        .collect();
    if lacking.is_empty() {
        Answer::text(200, "ok")
    } else {
        Answer::text(503, &lacking.join("\n"))
    }
}

/// 200 while clients are served: all servers have been tried, and the end has not begun.
fn readiness(reports: &[Report<'_>]) -> Answer {
    if reports.iter().any(|report| report.is_draining) {
        Answer::text(503, "ending: no new clients")
    } else if !reports.iter().all(|report| report.is_ready) {
        Answer::text(503, "starting: servers are being connected to")
    } else {
        Answer::text(200, "ok")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_it_may_be_asked_by() {
        let admin = Admin::new(Facts::default, &["Cache1.example".into()], Time(0));
        for host in [
            "127.0.0.1",
            "::1",
            "10.0.0.1",
            "localhost",
            "cache1.example",
            "cache1.example.",
        ] {
            assert!(admin.is_known_as(host), "{host}");
        }
        for host in [
            "evil.example",
            "example",
            "127.0.0.1.evil.example",
            "localhost.evil",
            "",
            "1::1::1",
        ] {
            assert!(!admin.is_known_as(host), "{host}");
        }
    }
}
