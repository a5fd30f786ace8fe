//! Seeded noise, sent to a real memcached and through the proxy: the same replies are demanded, closing included.
//!
//! `MAGENT_FUZZ_SEED` starts from a given seed (a failure prints it), `MAGENT_FUZZ_CASES` sets how many cases.
//! What is left out of the noise, because memcached's own answer to it hangs on the clock or on packets: times of a
//! few seconds, small cas uniques, retrievals of keys over 250 bytes, very long lines. While an unsent reply holds an
//! item, incr makes a new one in its place: marks that are then lost (`ma T`, `h`, won and stale) are kept from the
//! one key that is counted, and its numbers keep their length. `mg` and `ma` with too long an opaque are errors that act all the same: left out too.

use crate::common;

use common::exchange::{Ending, Exchange, Feed, Outcome, Target};
use common::rng::Rng;
use common::{Magent, Memcached, PATIENCE};

const KEYS: [&str; 8] = [
    "@a",
    "@a",
    "@b",
    "@n",
    "@n",
    "@c",
    "@{k*244}",
    "@\\xe4\\x80",
];
const NUMBERS: [&str; 15] = [
    "-1",
    "0",
    "00",
    "+0",
    "x",
    "1x",
    "4294967296",
    "18446744073709551615",
    "18446744073709551616",
    "99999999999999999999",
    "-2147483649",
    "2147483648",
    "2592001",
    "0x10",
    "1.5",
];
const SPANS: [&str; 6] = ["0", "0", "0", "100", "300", "-1"];
const BYTES: [&str; 12] = [
    "\\x00", "\\x01", "\\x09", "\\x0b", "\\r", "\\x1b", "\\x7f", "\\x80", "\\xff", ":", "A", "!",
];

/// Makes command lines.
struct Grammar {
    rng: Rng,
}

impl Grammar {
    fn key(&mut self, retrieval: bool) -> String {
        match self.rng.below(40) {
            0 if !retrieval => "@{k*245}".to_string(),
            1 => "@missing".to_string(),
            _ => self.rng.pick(&KEYS).to_string(),
        }
    }

    fn value(&mut self) -> (usize, String) {
        match self.rng.below(40) {
            // Not more: where a read of 16 KiB ends, memcached sends what it would else hold back.
            0 => (3000, "0123\r\n789\n".repeat(300)),
            1 => (2100, "get ab\r\n123456789012\n".repeat(100)),
            2..=12 => {
                let number = (20_000 + self.rng.below(60_000)).to_string();
                (number.len(), number)
            }
            _ => {
                let size = self.rng.below(20);
                (size, "x".repeat(size))
            }
        }
    }

    /// The unique that was seen belongs to `@a`; another server may have given the same number to another key.
    fn cas(&mut self, key: &str) -> String {
        let choices = ["900000000000", "0", "{cas}", "{cas}"];
        let count = if key == "@a" { 4 } else { 2 };
        choices[self.rng.below(count)].to_string()
    }

    /// A well-formed command: its words, and the data that follows.
    fn command(&mut self) -> (Vec<String>, Option<(usize, String)>) {
        let words = |text: String| text.split(' ').map(str::to_string).collect::<Vec<_>>();
        let quiet = if self.rng.one_in(4) { " noreply" } else { "" };
        let key = self.key(false);
        let span = self.rng.pick(&SPANS);
        match self.rng.below(24) {
            0..=5 => {
                let verb = self
                    .rng
                    .pick(&["set", "set", "add", "replace", "append", "prepend"]);
                let (flags, value) = (self.rng.pick(&["0", "5", "4294967295"]), self.value());
                let line = format!("{verb} {key} {flags} {span} {}{quiet}", value.0);
                (words(line), Some(value))
            }
            6 => {
                let (cas, value) = (self.cas(&key), self.value());
                (
                    words(format!("cas {key} 3 {span} {} {cas}{quiet}", value.0)),
                    Some(value),
                )
            }
            7..=9 => {
                let verb = self.rng.pick(&["get", "get", "gets"]);
                (words(format!("{verb} {}", self.keys())), None)
            }
            10 => {
                let verb = self.rng.pick(&["gat", "gats"]);
                (words(format!("{verb} {span} {}", self.keys())), None)
            }
            11 => (
                words(format!("delete {key}{}{quiet}", self.rng.pick(&["", " 0"]))),
                None,
            ),
            12..=13 => {
                let key = self.counter(key);
                let verb = self.rng.pick(&["incr", "decr"]);
                (
                    words(format!(
                        "{verb} {key} {}{quiet}",
                        self.rng.pick(&["1", "7", "0"])
                    )),
                    None,
                )
            }
            14 => (words(format!("touch {key} {span}{quiet}")), None),
            15 => {
                let line = self.rng.pick(&[
                    "flush_all",
                    "flush_all 0",
                    "flush_all -1",
                    "version",
                    "verbosity 0",
                    "mn",
                    "mn",
                    "version",
                    "",
                    "me @a",
                    "bogus",
                    "quit",
                    "GET / HTTP/1.1",
                ]);
                (words(format!("{line}{quiet}")), None)
            }
            16..=18 => (
                words(format!("mg {key}{}", self.flags(&key, "vktfschlquOTNRb"))),
                None,
            ),
            19..=20 => {
                let value = self.value();
                let flags = self.flags(&key, "kcqOTFMCIb");
                (words(format!("ms {key} {}{flags}", value.0)), Some(value))
            }
            21 => (
                words(format!("md {key}{}", self.flags(&key, "kqOCITb"))),
                None,
            ),
            _ => {
                let key = self.counter(key);
                (
                    words(format!("ma {key}{}", self.flags(&key, "kqOCNJDMvtcb"))),
                    None,
                )
            }
        }
    }

    /// The one key that is counted, or one that is no key.
    fn counter(&mut self, key: String) -> String {
        let odd = key.contains("k*245") || key.contains("missing");
        if odd {
            key
        } else {
            "@n".to_string()
        }
    }

    fn keys(&mut self) -> String {
        let keys: Vec<_> = (0..1 + self.rng.below(5)).map(|_| self.key(true)).collect();
        keys.join(" ")
    }

    fn flags(&mut self, key: &str, letters: &str) -> String {
        let mut out = String::new();
        for letter in letters
            .chars()
            .filter(|_| self.rng.one_in(4))
            .collect::<Vec<_>>()
        {
            // A key is base64 by chance only, and then an error: rarely worth it.
            if letter == 'b' && !self.rng.one_in(6) {
                continue;
            }
            if matches!(letter, 'h' | 'R' | 'I') && key == "@n" {
                continue;
            }
            let value = match letter {
                'O' if letters.contains('I') => {
                    self.rng.pick(&["1", "{o*31}", "{o*32}"]).to_string()
                }
                'O' => self.rng.pick(&["opaque", "1", "{o*30}", ""]).to_string(),
                'T' | 'N' => self.rng.pick(&SPANS).to_string(),
                'R' => self.rng.pick(&["50", "200"]).to_string(),
                'F' => self.rng.pick(&["0", "9", "4294967295"]).to_string(),
                'C' => self.cas(key),
                'M' => self
                    .rng
                    .pick(&["S", "E", "A", "P", "R", "I", "D", "+", "-", "X"])
                    .to_string(),
                'J' | 'D' => self.rng.pick(&["0", "1", "13"]).to_string(),
                _ => String::new(),
            };
            let value = match self.rng.below(16) {
                0 => self
                    .rng
                    .pick(&["x", "-1", "0", "1x", "99999999999999999999"])
                    .to_string(),
                _ => value,
            };
            let at = match self.rng.one_in(2) {
                true => 0,
                false => out.len(),
            };
            out.insert_str(at, &format!(" {letter}{value}"));
        }
        out
    }

    /// Spoils a command in one place.
    fn spoil(&mut self, words: &mut Vec<String>) {
        let at = self.rng.below(words.len());
        match self.rng.below(7) {
            0 => drop(words.remove(at)),
            1 => words.insert(at, words[at].clone()),
            2 if at > 0 => words[at] = self.rng.pick(&NUMBERS).to_string(),
            3 => words[at] = shout(&words[at]),
            4 => words[at] += self.rng.pick(&BYTES),
            5 => words[at] = format!("{}{}", self.rng.pick(&BYTES), words[at]),
            _ => words.push(
                self.rng
                    .pick(&["noreply", "0", "x", "@b", "k", "O1", "q"])
                    .to_string(),
            ),
        }
    }

    /// One line with its data, as the tables write it.
    fn item(&mut self) -> String {
        let (mut words, value) = self.command();
        if self.rng.one_in(4) {
            self.spoil(&mut words);
        }
        let retrieval = words.first().is_some_and(|verb| verb.starts_with('g'));
        if retrieval {
            // Bytes added to the longest key would make it too long.
            for word in &mut words {
                *word = word.replace("k*244", "k*240").replace("k*245", "k*240");
            }
        }
        tame(&mut words);
        let gap = if self.rng.one_in(30) { "  " } else { " " };
        let mut line = words.join(gap);
        match self.rng.below(60) {
            0 => line.insert(0, ' '),
            1 => line.push(' '),
            _ => {}
        }
        line += if self.rng.one_in(12) { "\\n" } else { "\\r\\n" };
        if let Some((_, mut data)) = value {
            match self.rng.below(24) {
                0 => data.push('y'),
                1 => data += "yyyyy",
                2 => drop(data.pop()),
                _ => {}
            }
            line += &data;
            line += if self.rng.one_in(40) { "\\n" } else { "\\r\\n" };
        }
        line
    }

    /// A case: a healthy beginning that shows a cas unique, then noise, an item each.
    fn case(&mut self) -> Vec<String> {
        let (number, size) = (self.rng.below(4000) + 5000, self.rng.below(10));
        let value = "v".repeat(size);
        let mut items = vec![format!(
            "set @n 1 0 4\\r\\n{number}\\r\\nset @a 2 300 {size}\\r\\n{value}\\r\\ngets @a\\r\\n"
        )];
        items.extend((0..4 + self.rng.below(12)).map(|_| self.item()));
        items
    }
}

/// Takes out what two right answers exist for. A unique shown for one key says nothing about a key on another server,
/// and as a length or a time it is another number on each side. memcached 1.6.18 answers a quiet `ma` that creates its
/// item, though its protocol says it does not; and it carries `mg` and `ma` with too long an opaque out before it
/// refuses them.
fn tame(words: &mut [String]) {
    if words.len() > 1 && words.iter().any(|word| word.contains("{cas}")) {
        words[1] = "@a".to_string();
    }
    let verb = words.first().cloned().unwrap_or_default();
    let counts = verb.contains("ma");
    let quiet = words.iter().skip(2).any(|word| word.contains('q'));
    for (at, word) in words.iter_mut().enumerate() {
        if word.contains("{cas}") && !(verb == "cas" && at == 5) && !word.contains('C') {
            *word = "0".to_string();
        }
        if (counts || verb.contains("mg")) && word.contains("O{") {
            *word = word
                .replace("*32}", "*28}")
                .replace("*31}", "*28}")
                .replace("*30}", "*28}");
        }
        if counts && quiet && at > 1 {
            *word = word.replace('N', "J");
        }
    }
}

/// In capitals, but for what the tables' notation means.
fn shout(word: &str) -> String {
    let capitals = word.to_uppercase();
    let notation = capitals.replace("\\X", "\\x").replace("{CAS}", "{cas}");
    notation.replace("{K", "{k")
}

/// Equal, or lost in the middle of a data block: memcached holds the replies of the commands before it back until the
/// block is complete, and a client that ends there never sees them. To have answered them is no fault. How many it
/// holds hangs on its reads; that nothing is lost before a close is demanded by the tables.
fn agree(expect: &Outcome, got: &Outcome) -> bool {
    let (Some(last), Some(other)) = (expect.0.last(), got.0.last()) else {
        return false;
    };
    let (lost, also) = (last.split_last(), other.split_last());
    match (lost, also) {
        (Some((mark, seen)), Some((same, more))) if mark == "<lost" && same == mark => {
            expect.0[..expect.0.len() - 1] == got.0[..got.0.len() - 1]
                && (more.starts_with(seen) || seen.starts_with(more))
        }
        _ => expect == got,
    }
}

/// The first item is a step of its own: its replies show the cas unique that the others may use.
fn exchange(items: &[String]) -> Exchange {
    let mut exchange = Exchange::new("fuzz", items[0].clone());
    exchange.steps.push(items[1..].concat());
    exchange
}

/// Runs a case on both sides; what differs.
fn difference(
    items: &[String],
    feed: Feed,
    targets: &mut [Target; 2],
    turn: &mut u64,
) -> Option<(Result<Outcome, String>, Result<Outcome, String>)> {
    // The same name on both sides: where a wrong length cuts a line in two, half of it may come back.
    *turn += 1;
    let nonce = format!("z{turn:05}");
    let exchange = exchange(items);
    let [server, proxy] = targets;
    let expect = server.run_as(&nonce, &exchange, Ending::Any, Feed::Whole, PATIENCE);
    let got = proxy.run_as(&nonce, &exchange, Ending::Any, feed, PATIENCE / 4);
    let same = matches!((&expect, &got), (Ok(expect), Ok(got)) if agree(expect, got));
    (!same).then_some((expect, got))
}

fn knob(name: &str, default: u64) -> u64 {
    let set = std::env::var(name).ok();
    set.map_or(default, |text| text.parse().expect("a number"))
}

fn fuzz(proxy_port: u16, salt: u64) {
    let seed = knob("MAGENT_FUZZ_SEED", 1);
    let cases = knob("MAGENT_FUZZ_CASES", 1500);
    let server = Memcached::start();
    let mut targets = [
        Target::new("memcached", server.port()),
        Target::new("the proxy", proxy_port),
    ];
    let (mut turn, mut answered) = (0, 0);
    for case in 0..cases {
        let mut grammar = Grammar {
            rng: Rng(seed.wrapping_add(case).wrapping_mul(0x2545_f491_4f6c_dd1d) ^ salt),
        };
        let mut items = grammar.case();
        let feed = match grammar.rng.below(8) {
            0 => Feed::SplitAt(grammar.rng.below(200)),
            1 => Feed::Bytewise,
            _ => Feed::Whole,
        };
        let Some(first) = difference(&items, feed, &mut targets, &mut turn) else {
            answered += 1;
            continue;
        };
        let whole = items.clone();
        // Leave out whatever is not needed to see the difference.
        for at in (1..items.len()).rev() {
            let mut fewer = items.clone();
            fewer.remove(at);
            if difference(&fewer, feed, &mut targets, &mut turn).is_some() {
                items = fewer;
            }
        }
        // What does not happen again is shown as it happened.
        let (expect, got) =
            difference(&items, feed, &mut targets, &mut turn).unwrap_or_else(|| {
                items = whole;
                first
            });
        let text = |side| match side {
            Ok(outcome) => Outcome::to_string(&outcome),
            Err(why) => format!("    {why}\n"),
        };
        panic!(
            "MAGENT_FUZZ_SEED={} MAGENT_FUZZ_CASES=1 shows it again ({feed:?}):\n  sent:\n    {}\n  memcached:\n{}  the proxy:\n{}",
            seed.wrapping_add(case),
            items.join("").replace("\\n", "\\n\n    ").trim_end(),
            text(expect),
            text(got),
        );
    }
    assert_eq!(answered, cases);
}

#[test]
fn one_server_behind_the_proxy() {
    let server = Memcached::start();
    let proxy = Magent::front(&[server.port()], &[]).start();
    fuzz(proxy.port(), 0);
}

#[test]
fn two_primaries_and_a_backup_behind_the_proxy() {
    let servers = [Memcached::start(), Memcached::start(), Memcached::start()];
    let [first, second, backup] = servers.each_ref().map(Memcached::port);
    let proxy = Magent::front(&[first, second], &[backup]).start();
    fuzz(proxy.port(), 77);
}

/// The measure measured: two memcacheds must never differ, or the noise holds what is left to chance.
#[test]
fn memcached_agrees_with_itself() {
    let other = Memcached::start();
    // Its cas uniques are others from the start, as those of a proxy are.
    let sets = "set x 0 0 1\r\nx\r\n".repeat(997);
    other.client().converse(sets.as_bytes());
    fuzz(other.port(), 0);
}
