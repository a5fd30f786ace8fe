//! Counting, telling, and not being too fast.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _};
use std::thread;
use std::time::{Duration, Instant};

use super::compare::Verdict;

/// How many different keys are named.
const NAMED_MAX: usize = 10;

const ON_TERMINAL: Duration = Duration::from_secs(1);
const ELSEWHERE: Duration = Duration::from_secs(10);

/// A pause in the work of which nothing is caught up.
const LAG_MAX: Duration = Duration::from_secs(1);

/// The result so far.
#[derive(Default)]
pub struct Tally {
    equal: u64,
    absent: u64,
    /// Keys whose copies differ.
    pub different: u64,
    /// Keys found where no copy of them belongs.
    pub misplaced: u64,
    unchecked: u64,
    named: Vec<String>,
}

impl Tally {
    /// Counts a key, for good.
    pub fn count(&mut self, key: &[u8], verdict: Verdict) {
        match verdict {
            Verdict::Equal => self.equal += 1,
            Verdict::Absent => self.absent += 1,
            Verdict::Unchecked => self.unchecked += 1,
            Verdict::Gone => {}
            Verdict::Different(what) => {
                self.different += 1;
                if self.named.len() < NAMED_MAX {
                    self.named.push(format!("{}: {what}", key.escape_ascii()));
                }
            }
        }
    }

    fn line(&self) -> String {
        let keys = self.equal + self.absent + self.different + self.unchecked;
        format!(
            "keys {keys} equal {} absent {} different {} misplaced {}",
            self.equal, self.absent, self.different, self.misplaced
        )
    }

    /// The whole result. `troubles`: servers, and why they could not be read.
    pub fn text<'a>(&self, troubles: impl Iterator<Item = (&'a str, &'a str)>) -> String {
        let mut text = self.line() + "\n";
        // Writing to a String cannot fail.
        for named in &self.named {
            let _ = writeln!(text, "different {named}");
        }
        let more = self.different - self.named.len() as u64;
        if more > 0 {
            let _ = writeln!(text, "different: {more} more");
        }
        if self.unchecked > 0 {
            let count = self.unchecked;
            let _ = writeln!(
                text,
                "not compared: {count}, fewer than two copies can be read"
            );
        }
        for (name, why) in troubles {
            let _ = writeln!(text, "not read: {name}: {why}");
        }
        text
    }
}

/// Where it stands, now and then, on stderr.
pub struct Progress {
    terminal: bool,
    last: Instant,
    shown: bool,
    server: String,
    listed: u64,
    items: u64,
}

impl Progress {
    /// `items`: how many there are to be listed, about.
    pub fn new(items: u64) -> Progress {
        Progress {
            terminal: io::stderr().is_terminal(),
            last: Instant::now(),
            shown: false,
            server: String::new(),
            listed: 0,
            items,
        }
    }

    /// That server is being listed.
    pub fn at(&mut self, server: String) {
        self.server = server;
    }

    /// So many more were listed.
    pub fn tell(&mut self, listed: usize, tally: &Tally) {
        self.listed += listed as u64;
        let interval = if self.terminal {
            ON_TERMINAL
        } else {
            ELSEWHERE
        };
        if self.last.elapsed() < interval {
            return;
        }
        self.last = Instant::now();
        self.shown = true;
        let percent = (self.listed * 100)
            .checked_div(self.items)
            .unwrap_or(100)
            .min(100);
        let line = format!("{percent}% at {}: {}", self.server, tally.line());
        // Nobody need watch.
        let _ = if self.terminal {
            write!(io::stderr(), "\r{line}\x1b[K")
        } else {
            writeln!(io::stderr(), "magent: {line}")
        };
    }

    /// The result follows.
    pub fn end(&mut self) {
        if self.terminal && self.shown {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

/// So many keys per second.
pub struct Pace {
    rate: u32,
    from: Instant,
    done: u64,
}

impl Pace {
    /// `rate` 0: no limit.
    pub fn new(rate: u32) -> Pace {
        Pace {
            rate,
            from: Instant::now(),
            done: 0,
        }
    }

    /// Waits until `count` more keys are due.
    pub fn pay(&mut self, count: usize) {
        self.done += count as u64;
        let pause = self.pause(Instant::now());
        if !pause.is_zero() {
            thread::sleep(pause);
        }
    }

    fn pause(&mut self, now: Instant) -> Duration {
        if self.rate == 0 {
            return Duration::ZERO;
        }
        let due = Duration::from_secs_f64(self.done as f64 / f64::from(self.rate));
        let elapsed = now.saturating_duration_since(self.from);
        if elapsed > due + LAG_MAX {
            // It waited for something else: what was not done then is not done faster now.
            (self.from, self.done) = (now, 0);
        }
        due.saturating_sub(elapsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_result_names_ten() {
        let mut tally = Tally::default();
        tally.count(b"a", Verdict::Equal);
        tally.count(b"b", Verdict::Absent);
        tally.count(b"c", Verdict::Unchecked);
        tally.count(b"d", Verdict::Gone);
        for n in 0..12 {
            tally.count(
                format!("k {n}\n").as_bytes(),
                Verdict::Different("value".into()),
            );
        }
        let text = tally.text([("s:1", "refused")].into_iter());
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[0],
            "keys 15 equal 1 absent 1 different 12 misplaced 0"
        );
        assert_eq!(lines[1], "different k 0\\n: value");
        assert_eq!(
            lines[10..],
            [
                "different k 9\\n: value",
                "different: 2 more",
                "not compared: 1, fewer than two copies can be read",
                "not read: s:1: refused"
            ]
        );
    }

    #[test]
    fn the_pace_is_kept_and_nothing_is_caught_up() {
        let mut pace = Pace::new(1000);
        let start = pace.from;
        let at = |ms: u64| start + Duration::from_millis(ms);
        pace.done = 500;
        assert_eq!(pace.pause(at(100)), Duration::from_millis(400));
        assert_eq!(pace.pause(at(600)), Duration::ZERO);
        assert_eq!(pace.pause(at(5000)), Duration::ZERO);
        pace.done += 500;
        assert_eq!(pace.pause(at(5000)), Duration::from_millis(500));
        let mut free = Pace::new(0);
        free.done = 1 << 60;
        assert_eq!(free.pause(start), Duration::ZERO);
    }
}
