//! What an operator sees: metrics, health and a page, over a small HTTP endpoint (`--admin`). Pure: bytes and time in,
//! bytes out; the edge owns the sockets.

mod history;
mod http;
mod json;
mod metrics;
mod process;

use self::history::History;
use self::http::{Answer, Question};
use crate::proxy::report::Report;
use crate::time::{Span, Time};

pub use self::http::Conn;
pub use self::process::{Facts, OutsideFacts};

/// The page: one file, nothing from elsewhere.
const PAGE: &str = include_str!("page.html");

/// How often the history takes note.
pub const SAMPLE_EVERY: Span = Span::from_millis(2000);

/// What is kept between questions.
#[derive(Debug)]
pub struct Admin {
    history: History,
    next_sample: Time,
    version: &'static str,
    facts: OutsideFacts,
}

impl Admin {
    /// Begins with an empty history. `facts` looks at the process when it is asked.
    pub fn new(facts: OutsideFacts, now: Time) -> Admin {
        Admin {
            history: History::default(),
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
    pub fn sample(&mut self, report: &Report<'_>, now: Time) {
        if now >= self.next_sample {
            self.next_sample = now + SAMPLE_EVERY;
            self.history.note(report);
        }
    }

    /// Answers the next question of `conn`. False: there is no whole one, or the answer before is not sent yet.
    pub fn serve(&self, conn: &mut Conn, report: &Report<'_>) -> bool {
        let Some(question) = conn.next_question() else {
            return false;
        };
        let answer = self.answer(&question, report);
        conn.answer(&question, answer);
        true
    }

    fn answer(&self, question: &Question, report: &Report<'_>) -> Answer {
        match question.path() {
            "/metrics" => {
                let open = question.wants_open_metrics;
                let text = metrics::render(report, &(self.facts)(), self.version, open);
                Answer::new(200, metrics::content_type(open), text)
            }
            "/healthz" => health(report),
            "/readyz" => readiness(report),
            "/stats.json" => Answer::json(json::stats(report, &self.history, self.version)),
            "/nutcracker.json" => Answer::json(json::nutcracker(report, self.version)),
            "/" | "/index.html" => Answer::page(PAGE),
            _ => Answer::text(
                404,
                "not found: / /metrics /healthz /readyz /stats.json /nutcracker.json",
            ),
        }
    }
}

/// 200 while every key has a live copy.
fn health(report: &Report<'_>) -> Answer {
    match report.lacking.first() {
        None => Answer::text(200, "ok"),
        Some(first) => Answer::text(
            503,
            &format!(
                "degraded: keys of {} of {} primaries have no live copy; the first is {first}",
                report.lacking.len(),
                report
                    .servers
                    .iter()
                    .filter(|s| s.role == "primary")
                    .count()
            ),
        ),
    }
}

/// 200 while clients are served: all servers have been tried, and the end has not begun.
fn readiness(report: &Report<'_>) -> Answer {
    if report.is_draining {
        Answer::text(503, "ending: no new clients")
    } else if !report.is_ready {
        Answer::text(503, "starting: servers are being connected to")
    } else {
        Answer::text(200, "ok")
    }
}
