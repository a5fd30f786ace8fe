//! One picture: pure text out of `/stats.json`, and of the one before for what counts per second.

use std::borrow::Cow;
use std::fmt::Write;

use serde_json::Value;

use crate::plain::one_line;

const BOLD: &str = "\x1b[1m";
const DIM: &str = "\x1b[2m";
const PLAIN: &str = "\x1b[0m";

/// How a state looks: green, yellow, red.
fn colour_of(state: &str) -> &'static str {
    match state {
        "up" => "\x1b[32m",
        "down" => "\x1b[31m",
        _ => "\x1b[33m",
    }
}

/// The picture: no line longer than `columns`, no more than `lines`.
pub fn of(
    stats: &Value,
    before: Option<&Value>,
    whom: &str,
    (columns, lines): (usize, usize),
    colour: bool,
) -> String {
    let mut picture = Picture {
        text: String::new(),
        columns,
        left: lines,
        colour,
    };
    let seconds = |stats: &Value| stats["time"].as_f64().unwrap_or(0.0);
    let passed = before.map(|before| (seconds(stats) - seconds(before)).max(0.001));
    let health = if stats["healthy"] == true {
        ("healthy", "up")
    } else {
        ("NOT HEALTHY", "down")
    };
    let head = format!(
        "magent {} at {whom}, up {}",
        text(&stats["version"]),
        span(number(&stats["uptime"]))
    );
    picture.line(&[
        (BOLD, &head),
        (colour_of(health.1), &format!("  {}", health.0)),
    ]);
    let empty = Vec::new();
    for pool in stats["pools"].as_array().unwrap_or(&empty) {
        let then = before.and_then(|before| {
            let mut pools = before["pools"].as_array()?.iter();
            pools.find(|then| then["name"] == pool["name"])
        });
        pool_lines(&mut picture, pool, then.zip(passed), seconds(stats));
    }
    picture.text
}

/// `now`: when the pool was asked, in seconds since 1970.
fn pool_lines(picture: &mut Picture, pool: &Value, then: Option<(&Value, f64)>, now: f64) {
    let rate = |path: &[&str]| {
        let find = |from: &Value| number(path.iter().fold(from, |value, key| &value[*key]));
        match then {
            Some((before, seconds)) => short((find(pool) - find(before)).max(0.0) / seconds),
            None => "-".into(),
        }
    };
    picture.line(&[]);
    let serving = if pool["active"] == true {
        "serving"
    } else {
        "not asked at present"
    };
    let addresses = pool["addresses"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let here: Vec<String> = addresses
        .iter()
        .filter(|address| !text(&address["address"]).starts_with("127."))
        .map(|address| {
            let place = if address["here"] == true {
                "here"
            } else {
                "not here"
            };
            format!(
                ", {} is {place}, {}",
                text(&address["address"]),
                span(number(&address["seconds"]))
            )
        })
        .collect();
    let head = format!("pool {}: {serving}{}", text(&pool["name"]), here.concat());
    picture.line(&[(BOLD, &head)]);
    let (hits, misses) = (
        number(&pool["keys"]["hits"]),
        number(&pool["keys"]["misses"]),
    );
    let ratio = if hits + misses > 0.0 {
        format!("{:.1} %", 100.0 * hits / (hits + misses))
    } else {
        "-".into()
    };
    let line = format!(
        "clients {}   hits/s {}   misses/s {}   hit ratio {ratio}   in {}B/s   out {}B/s   buffered {}B",
        short(number(&pool["connections"]["now"])),
        rate(&["keys", "hits"]),
        rate(&["keys", "misses"]),
        rate(&["bytes", "received"]),
        rate(&["bytes", "sent"]),
        short(number(&pool["memory"]["buffered"])),
    );
    picture.line(&[("", &line)]);
    let line = format!(
        "failed reads {}   failed writes {}   failovers {}   disagreements {}   refills {}",
        short(number(&pool["keys"]["failed"])),
        short(number(&pool["writes"]["failed"])),
        short(number(&pool["keys"]["failovers"])),
        short(number(&pool["copies"]["disagreements"])),
        short(number(&pool["copies"]["refills"])),
    );
    picture.line(&[("", &line)]);
    let servers = pool["servers"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let width = servers
        .iter()
        .map(|server| text(&server["name"]).len())
        .max()
        .unwrap_or(0)
        .max(6);
    let head = format!(
        "{:width$}  {:8} {:10} {:>7} {:>9} {:>9} {:>8} {:>8} {:>8} {:>8}",
        "server",
        "role",
        "state",
        "since",
        "req/s",
        "in flight",
        "p50",
        "p99",
        "timeouts",
        "journal"
    );
    picture.line(&[(DIM, &head)]);
    for (index, server) in servers.iter().enumerate() {
        let requests = match then {
            Some((before, seconds)) => {
                let old = number(&before["servers"][index]["requests"]);
                short((number(&server["requests"]) - old).max(0.0) / seconds)
            }
            None => "-".into(),
        };
        let state = text(&server["state"]);
        let (left, right) = (
            format!(
                "{:width$}  {:8} ",
                text(&server["name"]),
                text(&server["role"])
            ),
            format!(
                " {:>7} {requests:>9} {:>9} {:>8} {:>8} {:>8} {:>8}",
                span(number(&server["seconds_in_state"])),
                short(number(&server["in_flight"])),
                micros(number(&server["p50_us"])),
                micros(number(&server["p99_us"])),
                short(number(&server["timeouts"])),
                short(number(&server["journal_keys"])),
            ),
        );
        picture.line(&[
            ("", &left),
            (colour_of(&state), &format!("{state:10}")),
            ("", &right),
        ]);
    }
    if pool["resync"].is_object() {
        let resync = &pool["resync"];
        let (done, listed) = (number(&resync["keys_done"]), number(&resync["keys_listed"]));
        let filled = if listed > 0.0 {
            (done / listed * 20.0) as usize
        } else {
            0
        }
        .min(20);
        let line = format!(
            "background copy to {}: [{}{}] {} of {} keys, {} per second, {} left",
            text(&resync["server"]),
            "#".repeat(filled),
            ".".repeat(20 - filled),
            short(done),
            short(listed),
            short(number(&resync["keys_per_second"])),
            span(number(&resync["seconds_left"])),
        );
        picture.line(&[(colour_of("cold"), &line)]);
    }
    let events = pool["events"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    for event in events.iter().rev().take(5) {
        let age = now - number(&event["last"]);
        let subject = text(&event["subject"]);
        let colon = if subject.is_empty() { "" } else { ": " };
        let times = match number(&event["repeats"]) {
            repeats if repeats > 0.0 => format!(", {} times", repeats + 1.0),
            _ => String::new(),
        };
        let line = format!(
            "{:>7} ago  {} {subject}{colon}{}{times}",
            span(age),
            text(&event["event"]),
            text(&event["detail"])
        );
        picture.line(&[(DIM, &line)]);
    }
}

struct Picture {
    text: String,
    columns: usize,
    left: usize,
    colour: bool,
}

impl Picture {
    /// One line of pieces, each with how it looks.
    fn line(&mut self, pieces: &[(&str, &str)]) {
        if self.left <= 1 {
            return;
        }
        self.left -= 1;
        let mut room = self.columns;
        for (look, piece) in pieces {
            // What comes from outside must not speak to the terminal.
            let plain = piece
                .chars()
                .map(|letter| if letter.is_control() { '?' } else { letter });
            let piece: String = plain.take(room).collect();
            room -= piece.chars().count();
            if self.colour && !look.is_empty() {
                let _ = write!(self.text, "{look}{piece}{PLAIN}");
            } else {
                self.text.push_str(&piece);
            }
        }
        self.text.push('\n');
    }
}

fn text(value: &Value) -> Cow<'_, str> {
    one_line(value.as_str().unwrap_or("-"))
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(0.0)
}

fn short(number: f64) -> String {
    match number {
        n if n >= 1e9 => format!("{:.1}G", n / 1e9),
        n if n >= 1e6 => format!("{:.1}M", n / 1e6),
        n if n >= 1e4 => format!("{:.1}k", n / 1e3),
        n => format!("{n:.0}"),
    }
}

fn micros(micros: f64) -> String {
    match micros {
        0.0 => "-".into(),
        n if n >= 1e6 => format!("{:.1}s", n / 1e6),
        n if n >= 1e3 => format!("{:.1}ms", n / 1e3),
        n => format!("{n:.0}us"),
    }
}

fn span(seconds: f64) -> String {
    match seconds {
        n if n < 90.0 => format!("{:.0}s", n.max(0.0)),
        n if n < 5400.0 => format!("{:.0}min", n / 60.0),
        n if n < 129_600.0 => format!("{:.0}h", n / 3600.0),
        n => format!("{:.0}d", n / 86_400.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn stats(hits: u64, time: f64) -> Value {
        json!({
            "service": "magent", "version": "1", "time": time, "uptime": 7200.0, "healthy": true,
            "pools": [{
                "name": "default", "active": true,
                "keys": {"hits": hits, "misses": 0, "failed": 0, "failovers": 0},
                "writes": {"failed": 0}, "copies": {"disagreements": 0, "refills": 3},
                "bytes": {"received": 0, "sent": 0}, "connections": {"now": 5}, "memory": {"buffered": 12_345},
                "addresses": [{"address": "192.0.2.1", "here": false, "seconds": 30.0}],
                "servers": [
                    {"name": "a:1", "role": "primary", "state": "up", "seconds_in_state": 1.0, "requests": hits, "p50_us": 128},
                    {"name": "b:1\u{1b}[2J", "role": "backup", "state": "down", "seconds_in_state": 90.0, "requests": 0},
                ],
                "resync": {"server": "a:1", "keys_done": 50, "keys_listed": 100, "keys_per_second": 10, "seconds_left": 5},
                "events": [{"time": time - 30.0, "last": time - 3.0, "event": "server_down", "subject": "b:1", "detail": "down: refused", "repeats": 2}],
            }],
        })
    }

    #[test]
    fn a_picture_says_what_counts() {
        let picture = of(
            &stats(3000, 102.0),
            Some(&stats(1000, 100.0)),
            "h:1",
            (200, 100),
            false,
        );
        for part in [
            "up 2h  healthy",
            "pool default: serving, 192.0.2.1 is not here, 30s",
            "hits/s 1000 ",
            "hit ratio 100.0 %",
            "[##########..........] 50 of 100 keys",
            "3s ago  server_down b:1: down: refused, 3 times",
            "buffered 12.3kB",
        ] {
            assert!(picture.contains(part), "{part} in\n{picture}");
        }
        assert!(
            !picture.contains('\x1b'),
            "no colour, and nothing from outside"
        );
        let first = of(&stats(3000, 102.0), None, "h:1", (200, 100), true);
        assert!(
            first.contains("\x1b[31mdown") && first.contains("hits/s - "),
            "{first}"
        );
    }

    #[test]
    fn it_fits_the_terminal() {
        let picture = of(&stats(1, 1.0), None, "h:1", (30, 6), false);
        assert!(
            picture.lines().all(|line| line.chars().count() <= 30),
            "{picture}"
        );
        assert!(picture.lines().count() <= 6, "{picture}");
    }

    #[test]
    fn nothing_that_is_answered_panics() {
        for stats in [
            json!({}),
            json!({"pools": [{}]}),
            json!({"pools": [{"servers": [{}], "resync": {}, "events": [{}]}]}),
        ] {
            of(&stats, Some(&stats), "h:1", (80, 24), true);
        }
    }
}
