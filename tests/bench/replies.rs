//! Checks the replies of one connection, byte for byte, as they stream in. Values are compared
//! where they lie: nothing is gathered but the piece of a line that was cut by a read.

use std::collections::VecDeque;

use hdrhistogram::Histogram;

use crate::corpus::{Corpus, KEY_LEN};

/// No line that we may get is longer; more without a line's end is an error.
const LINE_MAX: usize = 512;

/// What was asked, in the order in which it has to be answered.
#[derive(Clone, Copy)]
pub enum Asked {
    /// A get of the keys from this one on (how many is a constant of the row).
    Get(usize),
    /// A set.
    Set,
}

/// What a measurement adds up to. Times are nanoseconds.
pub struct Sample {
    /// Requests answered.
    pub ops: u64,
    /// Keys that were asked for and not found.
    pub misses: u64,
    /// Latencies, in units of 100 ns.
    pub latency: Histogram<u64>,
}

impl Sample {
    /// Nothing measured yet.
    pub fn new() -> Sample {
        // 0.1 us to 100 s, three digits.
        let latency =
            Histogram::new_with_bounds(1, 1_000_000_000, 3).expect("the bounds are in order");
        Sample {
            ops: 0,
            misses: 0,
            latency,
        }
    }

    fn answered(&mut self, took_ns: u64) {
        self.ops += 1;
        self.latency.saturating_record(took_ns / 100);
    }
}

enum State {
    Line,
    Body { key: usize, at: usize },
    AfterBody,
}

/// The reading side of one connection.
pub struct Replies {
    waiting: VecDeque<(Asked, u64)>,
    state: State,
    partial: Vec<u8>,
    keys_per_get: usize,
    binary: bool,
    /// The keys of the current get that have come, by their place in it: a proxy may answer in any order.
    seen: Vec<bool>,
    found: usize,
}

impl Replies {
    /// For gets of `keys_per_get` keys; `binary`: in frames.
    pub fn new(keys_per_get: usize, binary: bool) -> Replies {
        Replies {
            waiting: VecDeque::new(),
            state: State::Line,
            partial: Vec::new(),
            keys_per_get,
            binary,
            seen: vec![false; keys_per_get],
            found: 0,
        }
    }

    /// A request was sent, or should have been, at `due_ns`.
    pub fn expect(&mut self, asked: Asked, due_ns: u64) {
        self.waiting.push_back((asked, due_ns));
    }

    /// How many requests have no answer yet.
    pub fn outstanding(&self) -> usize {
        self.waiting.len()
    }

    /// Takes what was read. An error says what is wrong with it; the run is over then.
    pub fn feed(
        &mut self,
        mut bytes: &[u8],
        corpus: &Corpus,
        now_ns: u64,
        sample: &mut Sample,
    ) -> Result<(), String> {
        while !bytes.is_empty() {
            bytes = match self.state {
                State::Body { key, at } => self.body(bytes, corpus, key, at)?,
                _ if self.binary => self.frame(bytes, corpus)?,
                State::Line | State::AfterBody => self.line(bytes, corpus, now_ns, sample)?,
            };
            let whole = matches!(self.state, State::AfterBody);
            if whole && self.binary {
                let Some((_, due_ns)) = self.waiting.pop_front() else {
                    return Err("a frame that nobody asked for".to_string());
                };
                self.state = State::Line;
                sample.answered(now_ns.saturating_sub(due_ns));
            }
        }
        Ok(())
    }

    /// A header, and the flags of a value. The state is `AfterBody` when the reply is complete.
    fn frame<'a>(&mut self, bytes: &'a [u8], corpus: &Corpus) -> Result<&'a [u8], String> {
        let (key, opcode, extras, value) = match self.waiting.front() {
            Some(&(Asked::Get(key), _)) => (Some(key), 0, 4, corpus.size()),
            Some(&(Asked::Set, _)) => (None, 1, 0, 0),
            None => return Err("a frame that nobody asked for".to_string()),
        };
        let n = (24 + extras - self.partial.len()).min(bytes.len());
        self.partial.extend_from_slice(&bytes[..n]);
        if self.partial.len() < 24 + extras {
            return Ok(&[]);
        }
        let length = ((extras + value) as u32).to_be_bytes();
        let head = &self.partial;
        let well = head[..8] == [0x81, opcode, 0, 0, extras as u8, 0, 0, 0];
        if !well || head[8..12] != length {
            return Err(format!("wrong frame: {}", shown(head)));
        }
        self.partial.clear();
        self.state = match key {
            Some(key) if value > 0 => State::Body { key, at: 0 },
            _ => State::AfterBody,
        };
        Ok(&bytes[n..])
    }

    fn body<'a>(
        &mut self,
        bytes: &'a [u8],
        corpus: &Corpus,
        key: usize,
        at: usize,
    ) -> Result<&'a [u8], String> {
        let value = &corpus.value(key)[at..];
        let n = value.len().min(bytes.len());
        if bytes[..n] != value[..n] {
            return Err(format!(
                "wrong value of key {key} within {n} bytes from {at}"
            ));
        }
        self.state = if n == value.len() {
            State::AfterBody
        } else {
            State::Body { key, at: at + n }
        };
        Ok(&bytes[n..])
    }

    fn line<'a>(
        &mut self,
        bytes: &'a [u8],
        corpus: &Corpus,
        now_ns: u64,
        sample: &mut Sample,
    ) -> Result<&'a [u8], String> {
        // The usual case by far: a whole header of known length, needing no search for its end.
        if self.partial.is_empty()
            && matches!(self.state, State::Line)
            && bytes.len() >= corpus.header_len()
        {
            if let Some(key) = header(&bytes[..corpus.header_len()], corpus) {
                self.begin_value(key, corpus)?;
                return Ok(&bytes[corpus.header_len()..]);
            }
        }
        let Some(end) = memchr::memchr(b'\n', bytes) else {
            if self.partial.len() + bytes.len() > LINE_MAX {
                return Err(format!("a line without end: {}", shown(bytes)));
            }
            self.partial.extend_from_slice(bytes);
            return Ok(&[]);
        };
        let (head, rest) = bytes.split_at(end + 1);
        if self.partial.is_empty() {
            self.whole_line(head, corpus, now_ns, sample)?;
        } else {
            let mut line = std::mem::take(&mut self.partial);
            line.extend_from_slice(head);
            self.whole_line(&line, corpus, now_ns, sample)?;
            line.clear();
            self.partial = line;
        }
        Ok(rest)
    }

    fn whole_line(
        &mut self,
        line: &[u8],
        corpus: &Corpus,
        now_ns: u64,
        sample: &mut Sample,
    ) -> Result<(), String> {
        if matches!(self.state, State::AfterBody) {
            if line != b"\r\n" {
                return Err(format!("a value is longer than announced: {}", shown(line)));
            }
            self.state = State::Line;
            return Ok(());
        }
        if let Some(key) = header(line, corpus) {
            return self.begin_value(key, corpus);
        }
        let Some(&(asked, due_ns)) = self.waiting.front() else {
            return Err(format!("a reply that nobody asked for: {}", shown(line)));
        };
        match (asked, line) {
            (Asked::Set, b"STORED\r\n") => {}
            (Asked::Get(_), b"END\r\n") => {
                sample.misses += (self.keys_per_get - self.found) as u64;
                self.seen.fill(false);
                self.found = 0;
            }
            _ => return Err(format!("wrong reply: {}", shown(line))),
        }
        self.waiting.pop_front();
        sample.answered(now_ns.saturating_sub(due_ns));
        Ok(())
    }

    fn begin_value(&mut self, key: usize, corpus: &Corpus) -> Result<(), String> {
        let Some(&(Asked::Get(first), _)) = self.waiting.front() else {
            return Err(format!("a value of key {key} where none was asked for"));
        };
        let place = (key + corpus.keys() - first) % corpus.keys();
        match self.seen.get_mut(place) {
            Some(seen) if !*seen => *seen = true,
            Some(_) => return Err(format!("key {key} came twice")),
            None => return Err(format!("key {key} came, asked was for {first}")),
        }
        self.found += 1;
        self.state = State::Body { key, at: 0 };
        Ok(())
    }
}

/// The key of a `VALUE` line that is exactly as it has to be.
fn header(line: &[u8], corpus: &Corpus) -> Option<usize> {
    let rest = line.strip_prefix(b"VALUE ")?;
    let (name, end) = rest.split_at_checked(KEY_LEN)?;
    (end == corpus.header_end()).then(|| corpus.index(name))?
}

fn shown(bytes: &[u8]) -> String {
    format!(
        "{:?}",
        String::from_utf8_lossy(&bytes[..bytes.len().min(80)])
    )
}
