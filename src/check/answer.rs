//! What is asked of a proxy, and what its answer means. Bytes in, verdict out.

use crate::plain::one_line;

/// The question. `version` comes second: what does not know the first tells by it what it is.
pub const QUESTION: &[u8] = b"stats health\r\nversion\r\n";

/// More than any magent answers: a thousand addresses of `-l` and the rest.
const ANSWER_MAX: usize = 256 * 1024;

/// What an older magent says of itself in the answer to `version`: 1.0 and later, and 0.6.
const OLDER: [&str; 2] = ["-magent-", "memcached agent"];

/// How a proxy is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Verdict {
    /// It answers, and every key has a live copy.
    Healthy,
    /// It answers, but some keys have no live copy.
    Degraded,
    /// No good answer.
    Silent,
}

impl Verdict {
    /// The exit code of `--check`, and the value that `--watch` writes.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The word for logs.
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Healthy => "healthy",
            Verdict::Degraded => "degraded",
            Verdict::Silent => "not answering",
        }
    }
}

/// A verdict with the reason.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// How it is.
    pub verdict: Verdict,
    /// Why, in a few words.
    pub why: String,
}

impl Finding {
    /// There was no good answer.
    pub fn silent(why: impl Into<String>) -> Finding {
        Finding {
            verdict: Verdict::Silent,
            why: why.into(),
        }
    }
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.verdict.name(), self.why)
    }
}

/// An answer that is coming in.
#[derive(Default)]
pub struct Answer {
    bytes: Vec<u8>,
    /// Where the line begins that is not complete.
    at: usize,
    health: Option<String>,
    servers: String,
    live: String,
    without_copy: Option<(String, String)>,
}

impl Answer {
    /// Takes what came; a finding when the answer is complete, or can be no good one any more.
    pub fn take(&mut self, bytes: &[u8]) -> Option<Finding> {
        self.bytes.extend_from_slice(bytes);
        while let Some(length) = memchr::memchr(b'\n', &self.bytes[self.at..]) {
            let line = self.bytes[self.at..self.at + length].trim_ascii_end();
            let line = one_line(&String::from_utf8_lossy(line)).into_owned();
            self.at += length + 1;
            if let Some(finding) = self.line(&line) {
                return Some(finding);
            }
        }
        (self.bytes.len() > ANSWER_MAX)
            .then(|| Finding::silent("not a magent: its answer has no end"))
    }

    fn line(&mut self, line: &str) -> Option<Finding> {
        let mut words = line.splitn(3, ' ');
        let (first, name) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        let value = words.next().unwrap_or("").to_owned();
        match (first, name) {
            ("STAT", "health") => self.health = Some(value),
            ("STAT", "servers") => self.servers = value,
            ("STAT", "servers_live") => self.live = value,
            ("STAT", "primaries_without_copy") if value != "0" => {
                self.without_copy = Some((value, String::new()));
            }
            ("STAT", "without_copy") => {
                if let Some((_, server)) = &mut self.without_copy {
                    *server = value;
                }
            }
            // What it has to say is more than is known here, or less: `matrix` is magent 0.6's.
            ("STAT" | "matrix" | "END" | "ERROR" | "CLIENT_ERROR", _) => {}
            ("SERVER_ERROR", "too") => {
                return Some(Finding {
                    verdict: Verdict::Healthy,
                    why: "it answers, but has as many clients as it may (-n)".into(),
                })
            }
            ("VERSION", _) => return Some(self.judge(line)),
            _ => {
                let shown: String = line.chars().take(60).collect();
                let why = format!("not a magent: it answered '{}'", shown);
                return Some(Finding::silent(why));
            }
        }
        None
    }

    /// The last line of the answer has come.
    fn judge(&self, version: &str) -> Finding {
        let live = format!("{} of {} servers live", self.live, self.servers);
        let (verdict, why) = match (self.health.as_deref(), &self.without_copy) {
            (Some("ok"), _) => (Verdict::Healthy, live),
            (Some(_), Some((count, first))) => (
                Verdict::Degraded,
                format!(
                    "no live copy of the keys of {first}{}; {live}",
                    match count.as_str() {
                        "1" => String::new(),
                        count => format!(" and others ({count} primaries)"),
                    }
                ),
            ),
            (Some(word), None) => (Verdict::Degraded, format!("it says '{word}'; {live}")),
            (None, _) if OLDER.iter().any(|name| version.contains(name)) => (
                Verdict::Healthy,
                format!("it answers, but is too old to tell more ({version})"),
            ),
            (None, _) => {
                let shown: String = version.chars().take(60).collect();
                let why = format!("not a magent: it answered '{}'", shown);
                (Verdict::Silent, why)
            }
        };
        Finding { verdict, why }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The finding, fed whole and byte by byte.
    fn found(text: &str) -> (u8, String) {
        let whole = Answer::default().take(text.as_bytes()).expect("an end");
        let mut answer = Answer::default();
        let mut pieces = text.as_bytes().chunks(1);
        let bytewise = pieces.find_map(|byte| answer.take(byte));
        assert_eq!(bytewise.as_ref(), Some(&whole));
        (whole.verdict.code(), whole.to_string())
    }

    #[test]
    fn what_it_says_commands_no_terminal() {
        for text in [
            "\x1b[2J\r\n",
            "STAT health \x1b[2J\r\nVERSION 1\r\n",
            "STAT health ok\r\nSTAT servers \x1b]0;x\x07\r\nVERSION 1\r\n",
            "VERSION -magent-\x1b[31m\r\n",
        ] {
            let (_, why) = found(text);
            assert!(!why.contains(char::is_control), "{why:?}");
        }
    }

    #[test]
    fn a_magent_is_believed() {
        let answer = |health: &str, more: &str| {
            found(&format!(
                "STAT health {health}\r\nSTAT servers 3\r\nSTAT servers_live 2\r\n{more}\
                 STAT 192.0.2.1:here yes\r\nEND\r\nVERSION 1.6.18-magent-1.0.0\r\n"
            ))
        };
        let none = "STAT primaries_without_copy 0\r\n";
        assert_eq!(
            answer("ok", none),
            (0, "healthy: 2 of 3 servers live".into())
        );
        let one = "STAT primaries_without_copy 1\r\nSTAT without_copy a:1\r\n";
        let text = "degraded: no live copy of the keys of a:1; 2 of 3 servers live";
        assert_eq!(answer("degraded", one), (1, text.into()));
        let two = "STAT primaries_without_copy 2\r\nSTAT without_copy a:1\r\n";
        let text =
            "degraded: no live copy of the keys of a:1 and others (2 primaries); 2 of 3 servers live";
        assert_eq!(answer("degraded", two), (1, text.into()));
        let text = "degraded: it says 'odd'; 2 of 3 servers live";
        assert_eq!(answer("odd", none), (1, text.into()));
    }

    #[test]
    fn others_are_told_apart() {
        for (text, code, line) in [
            (
                "ERROR\r\nVERSION 1.6.18\r\n",
                2,
                "not answering: not a magent: it answered 'VERSION 1.6.18'",
            ),
            (
                "ERROR\r\nVERSION 1.6.18-magent-1.0.0\r\n",
                0,
                "healthy: it answers, but is too old to tell more (VERSION 1.6.18-magent-1.0.0)",
            ),
            (
                "matrix 1 -> 10.0.0.1:11211, pool size 0\r\nEND\r\nVERSION memcached agent v0.6\r\n",
                0,
                "healthy: it answers, but is too old to tell more (VERSION memcached agent v0.6)",
            ),
            (
                "SERVER_ERROR too many open connections\r\n",
                0,
                "healthy: it answers, but has as many clients as it may (-n)",
            ),
            (
                "HTTP/1.1 400 Bad\tRequest\r\n",
                2,
                "not answering: not a magent: it answered 'HTTP/1.1 400 Bad\\tRequest'",
            ),
            ("\n", 2, "not answering: not a magent: it answered ''"),
        ] {
            assert_eq!(found(text), (code, line.into()));
        }
        let endless = vec![b'x'; ANSWER_MAX + 1];
        let finding = Answer::default().take(&endless).map(|found| found.verdict);
        assert_eq!(finding, Some(Verdict::Silent));
        assert_eq!(
            Answer::default().take(b"STAT health ok\r\nEND\r\nVERS"),
            None
        );
    }
}
