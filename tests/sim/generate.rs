//! What clients ask for: every command, over few keys, with values that name the write they come from.

use super::long;
use super::profile::Plan;
use super::request::encode;
use super::rng::Rng;

/// Makes one client's requests.
pub struct Generator {
    pub(super) rng: Rng,
    pub(super) name: u64,
    pub(super) count: u64,
    pub(super) keys: usize,
    times: bool,
    short: bool,
    pub(super) deadly_gats: bool,
    pub(super) vivify: bool,
    marks: bool,
    /// Long values, and keys that are no words.
    pieces: bool,
    twins: bool,
    /// A time to live that not all runs outlast: copies do not forget an item at the same moment, as their seconds begin at
    /// different times.
    hours: i64,
    pub(super) flushes: u64,
    /// The next request is one.
    pub flush_next: bool,
    /// The next one in words writes a long value to this key.
    pub write_next: Option<usize>,
    /// The last version seen of each key.
    pub tokens: Vec<u64>,
}

/// The name of a key. `odd`: some are no words; `twins`: they share buckets.
pub fn key(index: usize, odd: bool, twins: bool) -> String {
    match index % 5 {
        _ if twins => twin(index),
        _ if odd && is_odd(index) => format!("no\tword\x01{index}"),
        0 => format!("k{index}"),
        1 => format!("user:{index}"),
        2 => format!("n{index}"),
        3 => format!("a-rather-long-key-with-number-{index}"),
        _ => format!("x/{index}"),
    }
}

/// A key of a list in which all of them are in one of two buckets: `ab` and `bA` have the same hash.
fn twin(index: usize) -> String {
    let bits = (0..6).map(|bit| if index >> bit & 1 == 0 { "ab" } else { "bA" });
    format!("t{}{}", index % 2, bits.collect::<String>())
}

/// Whether it is no word where there are such.
fn is_odd(index: usize) -> bool {
    index % 5 == 4
}

impl Generator {
    pub fn new(seed: u64, plan: &Plan) -> Generator {
        Generator {
            rng: Rng::new(seed),
            name: seed >> 44,
            count: 0,
            keys: plan.keys,
            times: plan.times,
            short: plan.short_times,
            deadly_gats: plan.deadly_gats,
            vivify: plan.vivify,
            marks: plan.marks,
            pieces: plan.pieces,
            twins: plan.twins,
            hours: if plan.profile.returns() { 40_000 } else { 100 },
            flushes: plan.flushes,
            flush_next: false,
            write_next: None,
            tokens: vec![0; plan.keys],
        }
    }

    pub(super) fn exptime(&mut self) -> i64 {
        if !self.times || self.rng.one_in(2) {
            return 0;
        }
        let absolute = super::world::EPOCH + 5000;
        if self.short && self.rng.one_in(2) {
            return self.rng.pick(&[1, 2, 4]);
        }
        let far = super::world::EPOCH + 40 * 24 * 3600;
        let hours = self.hours;
        self.rng
            .pick(&[hours, 3600, 2_592_000, 2_592_001, absolute, far, -1])
    }

    /// The name of a key.
    pub(super) fn key(&self, index: usize) -> String {
        key(index, self.pieces, self.twins)
    }

    /// Whether only frames and meta commands can name a key.
    pub(super) fn is_odd(&self, index: usize) -> bool {
        self.pieces && is_odd(index)
    }

    pub(super) fn value(&mut self) -> String {
        if self.pieces && self.rng.one_in(4) {
            let length = long::length(&mut self.rng);
            return long::stretch(format!("{}.{}.", self.name, self.count), length);
        }
        self.short_value()
    }

    /// What is put to the end or the front of another one: it stays below the limit.
    fn short_value(&mut self) -> String {
        if self.rng.one_in(4) {
            return self.rng.below(2000).to_string();
        }
        let mut value = format!("{}.{}.", self.name, self.count);
        let length = match self.rng.below(60) {
            0 => self.rng.range(7000, 10_000),
            1..4 => self.rng.range(500, 4200),
            _ => self.rng.below(40),
        };
        while (value.len() as u64) < length {
            value.push_str("abcdefgh\r\nEND\r\n");
        }
        value
    }

    pub(super) fn flags(&mut self) -> u64 {
        if self.pieces && !self.rng.one_in(4) {
            // First lines are the same more often.
            return 0;
        }
        self.rng.pick(&[0, 0, 1, 77, 4_294_967_295])
    }

    /// A version that the client has seen of this key, or one that nobody has.
    pub(super) fn token(&mut self, index: usize) -> u64 {
        let seen = self.tokens[index];
        if seen == 0 || self.rng.one_in(8) {
            1_000_000_000_000_000 + self.rng.below(1000)
        } else {
            seen
        }
    }

    /// Appends a request, or a few that belong together; where each ends.
    pub fn push(&mut self, out: &mut Vec<u8>, ends: &mut Vec<usize>) {
        let index = self.rng.index(self.keys);
        let flushes = std::mem::take(&mut self.flush_next);
        if flushes || (self.flushes > 0 && self.rng.one_in(self.flushes)) {
            // Not with a delay: servers count it by their own seconds, so copies may differ after one.
            let line =
                self.rng
                    .pick(&["flush_all\r\n", "flush_all 0\r\n", "flush_all noreply\r\n"]);
            return self.end(out, ends, line);
        }
        let over = self.write_next.take().filter(|&index| !self.is_odd(index));
        if let Some(index) = over {
            let (key, length) = (self.key(index), long::COMMON);
            let value = long::stretch(format!("{}.{}.", self.name, self.count), length);
            let text = format!("set {key} 0 0 {length}\r\n{value}\r\n");
            return self.end(out, ends, &text);
        }
        match self.rng.below(20) {
            0..13 if self.is_odd(index) => {
                let text = self.meta(index, "");
                self.end(out, ends, &text);
            }
            0..7 => self.push_retrieval(index, out, ends),
            7..13 => self.push_classic(index, out, ends),
            13..17 => {
                let text = self.meta(index, "");
                self.end(out, ends, &text);
            }
            17 => {
                // Quiet ones come in runs that a command with a sure reply ends.
                for _ in 0..self.rng.range(1, 5) {
                    let index = self.rng.index(self.keys);
                    let text = self.meta(index, " q");
                    self.end(out, ends, &text);
                }
                self.end(out, ends, "mn\r\n");
            }
            _ => {
                let line = self.rng.pick(&[
                    "version\r\n",
                    "mn\r\n",
                    "verbosity 1\r\n",
                    "stats\r\n",
                    "nonsense\r\n",
                ]);
                self.end(out, ends, line);
            }
        }
    }

    fn end(&mut self, out: &mut Vec<u8>, ends: &mut Vec<usize>, text: &str) {
        self.count += 1;
        out.extend_from_slice(text.as_bytes());
        ends.push(out.len());
    }

    fn push_retrieval(&mut self, index: usize, out: &mut Vec<u8>, ends: &mut Vec<usize>) {
        let verb = self.rng.pick(&["get", "get", "get", "gets", "gat", "gats"]);
        let mut line = verb.to_string();
        if verb.starts_with("gat") {
            let exptime = self.exptime();
            let deadly = exptime < 0 || exptime == 2_592_001;
            line.push_str(&format!(
                " {}",
                if deadly && !self.deadly_gats {
                    0
                } else {
                    exptime
                }
            ));
        }
        let most = 2 * self.keys.min(20) as u64;
        let keys = match self.rng.below(60) {
            0..20 if self.pieces => self.rng.range(2, 4),
            0 => self.rng.range(2, 40),
            1..20 => self.rng.range(2, most.min(8)),
            _ => 1,
        };
        line.push(' ');
        line.push_str(&self.key(index));
        for _ in 1..keys {
            let index = self.rng.index(self.keys);
            if !self.is_odd(index) {
                line.push(' ');
                line.push_str(&self.key(index));
            }
        }
        line.push_str("\r\n");
        self.end(out, ends, &line);
    }

    fn push_classic(&mut self, index: usize, out: &mut Vec<u8>, ends: &mut Vec<usize>) {
        let verbs = [
            "set", "set", "set", "set", "add", "replace", "append", "prepend", "cas", "cas",
            "incr", "decr", "delete", "touch",
        ];
        let verb = self.rng.pick(&verbs);
        let noreply = if self.rng.one_in(8) { " noreply" } else { "" };
        let key = self.key(index);
        let text = match verb {
            "incr" | "decr" => format!("{verb} {key} {}{noreply}\r\n", self.rng.below(50)),
            "delete" => format!("delete {key}{noreply}\r\n"),
            "touch" => format!("touch {key} {}{noreply}\r\n", self.exptime()),
            _ => {
                let (flags, exptime) = (self.flags(), self.exptime());
                let value = match verb {
                    "append" | "prepend" => self.short_value(),
                    _ => self.value(),
                };
                let cas = if verb == "cas" {
                    format!(" {}", self.token(index))
                } else {
                    String::new()
                };
                let length = value.len();
                format!("{verb} {key} {flags} {exptime} {length}{cas}{noreply}\r\n{value}\r\n")
            }
        };
        self.end(out, ends, &text);
    }

    /// A meta command; each carries an opaque of its own, which tells replies apart.
    fn meta(&mut self, index: usize, quiet: &str) -> String {
        let verb = self.rng.pick(&["mg", "mg", "ms", "ms", "md", "ma"]);
        let plain = self.key(index);
        let base64 = self.rng.one_in(8) || self.is_odd(index);
        let name = if base64 {
            String::from_utf8(encode(plain.as_bytes())).expect("base64 is text")
        } else {
            plain
        };
        let mut flags = format!(" O{}.{}{quiet}", self.name, self.count);
        let mut give = |rng: &mut Rng, text: &str, times: u64| {
            if rng.one_in(times) {
                flags.push(' ');
                flags.push_str(text);
            }
        };
        if base64 {
            give(&mut self.rng, "b", 1);
        }
        give(&mut self.rng, "k", 3);
        let with_time = format!("T{}", self.exptime());
        let rng = &mut self.rng;
        match verb {
            "mg" => {
                for flag in ["v", "t", "f", "s", "c", "h", "l"] {
                    give(rng, flag, 2);
                }
                give(rng, "u", 8);
                if self.vivify {
                    let made = format!("N{}", if self.times { self.hours - 70 } else { 0 });
                    give(rng, &made, 8);
                }
                let early = format!("R{}", self.hours - 70);
                give(rng, &early, 8);
                give(rng, &with_time, 8);
                format!("mg {name}{flags}\r\n")
            }
            "ms" => {
                let mode = rng.pick(&["", "MS", "ME", "MR", "MA", "MP"]);
                if !mode.is_empty() {
                    give(rng, mode, 1);
                }
                give(rng, "F5", 3);
                give(rng, "c", 3);
                give(rng, &with_time, 3);
                let compare = rng.one_in(if self.marks { 2 } else { 5 });
                let value = match mode {
                    "MA" | "MP" => self.short_value(),
                    _ => self.value(),
                };
                if compare {
                    flags.push_str(&format!(" C{}", self.token(index)));
                    if self.marks && self.rng.one_in(2) {
                        // If the item is newer by now, this is put in as stale.
                        flags.push_str(" I");
                    }
                }
                format!("ms {name} {}{flags}\r\n{value}\r\n", value.len())
            }
            "md" => {
                if rng.one_in(3) {
                    give(rng, "I", 1);
                    give(rng, &with_time, 2);
                }
                if rng.one_in(6) {
                    flags.push_str(&format!(" C{}", self.token(index)));
                }
                format!("md {name}{flags}\r\n")
            }
            _ => {
                let mode = rng.pick(&["MI", "MD"]);
                give(rng, mode, 2);
                if self.vivify {
                    give(rng, "N0", 3);
                }
                give(rng, "J7", 3);
                give(rng, "D3", 3);
                give(rng, "v", 2);
                give(rng, "t", 2);
                give(rng, "c", 3);
                give(rng, &with_time, 8);
                format!("ma {name}{flags}\r\n")
            }
        }
    }
}
