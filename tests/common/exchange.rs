//! Exchanges: what is sent, and what a real memcached answers; how to run one against any port.
//!
//! The tables in `tests/exchange/*.txt` read like transcripts:
//!
//!     == name              begins an exchange; `[whole]` after it: its bytes must stay in one packet
//!     > set @a 0 0 3       sent, CRLF is added; all lines of a step go as one packet
//!     < STORED             what memcached 1.6.18 answers, CRLF left out
//!     <awaits, <closed     at the end: the server waits for more bytes, or has closed the connection
//!     --                   the next step is sent when this one is answered
//!
//! In a sent line `@` is a name that no other run uses, `{x*250}` repeats, `{cas}` is the cas unique that came last,
//! `{b64 @k}` is base64; `\r \n \\ \xNN` are bytes, and `\c` at the end leaves the CRLF out.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::client::{find, Client};
use super::normal::Normal;
use super::{show, PATIENCE};

/// A named conversation on one connection.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// For messages.
    pub name: String,
    /// What is sent, one packet each, before expansion.
    pub steps: Vec<String>,
    /// The recorded replies of each step; empty when none is recorded.
    pub expect: Vec<Vec<String>>,
    /// Its meaning depends on where the packets end, in memcached itself: do not split it.
    pub whole: bool,
}

/// How an exchange ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    /// The server is ready for the next command.
    Ready,
    /// The server waits for the rest of something.
    Awaits,
    /// The server has closed the connection.
    Closed,
    /// Whichever it is: nothing more is sent, and what came until the server closes is taken.
    Any,
}

/// How the bytes of each step are cut into packets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Feed {
    /// All at once.
    Whole,
    /// In two, the second when the first has been read.
    SplitAt(usize),
    /// Each byte by itself.
    Bytewise,
}

/// The replies of one run, normalised and made readable, line by line for each step.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outcome(pub Vec<Vec<String>>);

impl std::fmt::Display for Outcome {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (n, step) in self.0.iter().enumerate() {
            if n > 0 {
                writeln!(out, "    --")?;
            }
            for line in step {
                writeln!(out, "    {line}")?;
            }
        }
        Ok(())
    }
}

impl Exchange {
    /// One of a single step and no recorded answer.
    pub fn new(name: impl Into<String>, step: impl Into<String>) -> Exchange {
        Exchange {
            name: name.into(),
            steps: vec![step.into()],
            expect: Vec::new(),
            whole: false,
        }
    }

    /// Reads a table.
    pub fn table(text: &str) -> Vec<Exchange> {
        let mut all: Vec<Exchange> = Vec::new();
        for line in text.lines() {
            if let Some(name) = line.strip_prefix("== ") {
                let whole = name.strip_suffix(" [whole]");
                all.push(Exchange::new(whole.unwrap_or(name), ""));
                let last = all.last_mut().expect("just pushed");
                last.whole = whole.is_some();
                continue;
            }
            let Some(last) = all.last_mut() else { continue };
            if line == "--" {
                last.steps.push(String::new());
            } else if let Some(sent) = line.strip_prefix("> ").or(line.strip_prefix('>')) {
                let step = last.steps.last_mut().expect("there is always a step");
                match sent.strip_suffix("\\c") {
                    Some(sent) => step.push_str(sent),
                    None => *step += &format!("{sent}\\r\\n"),
                }
            } else if line.starts_with('<') {
                last.expect.resize(last.steps.len(), Vec::new());
                let step = last.expect.last_mut().expect("just resized");
                step.push(line.strip_prefix("< ").unwrap_or(line).to_string());
            }
        }
        for exchange in &mut all {
            if !exchange.expect.is_empty() {
                exchange.expect.resize(exchange.steps.len(), Vec::new());
            }
        }
        all
    }

    /// The bytes of a step.
    fn expand(&self, step: usize, nonce: &str, cas: &str) -> Vec<u8> {
        // As long on either side, or a wrong length before it would cut it differently.
        let text = self.steps[step].replace("{cas}", &format!("{cas:0>20}"));
        let mut out = Vec::new();
        let mut rest = text.as_bytes();
        while let Some((&byte, after)) = rest.split_first() {
            let mut used = 0;
            match (byte, after) {
                (b'@', _) => out.extend_from_slice(nonce.as_bytes()),
                (b'\\', [b'r', ..]) => (out.push(b'\r'), used = 1).1,
                (b'\\', [b'n', ..]) => (out.push(b'\n'), used = 1).1,
                (b'\\', [b'\\', ..]) => (out.push(b'\\'), used = 1).1,
                (b'\\', [b'x', high, low, ..]) => {
                    let hex = [*high, *low];
                    let digits = std::str::from_utf8(&hex).expect("hex digits are ASCII");
                    out.push(u8::from_str_radix(digits, 16).expect("two hex digits"));
                    used = 3;
                }
                (b'{', _) => {
                    let end = find(after, b"}").expect("a brace is closed");
                    let word = std::str::from_utf8(&after[..end]).expect("braces hold ASCII");
                    if let Some(plain) = word.strip_prefix("b64 ") {
                        let plain = plain.replace('@', nonce);
                        out.extend_from_slice(base64(plain.as_bytes()).as_bytes());
                    } else {
                        let (one, times) = word.split_once('*').expect("a repetition");
                        let times = times.parse().expect("a number of times");
                        out.extend_from_slice(one.repeat(times).as_bytes());
                    }
                    used = end + 1;
                }
                _ => out.push(byte),
            }
            rest = &after[used..];
        }
        out
    }

    /// How many bytes the longest step has.
    pub fn longest(&self) -> usize {
        let sizes = (0..self.steps.len()).map(|step| self.expand(step, "nonce0", "0").len());
        sizes.max().unwrap_or(0)
    }

    /// Every base64 name in the exchange, to recognise in replies.
    fn base64_names(&self, nonce: &str) -> Vec<String> {
        let parts = self
            .steps
            .iter()
            .flat_map(|step| step.split("{b64 ").skip(1));
        let plain = parts.filter_map(|part| part.split('}').next());
        plain
            .map(|plain| base64(plain.replace('@', nonce).as_bytes()))
            .collect()
    }
}

/// A server, or a proxy, to run exchanges against; connections are kept from one to the next.
pub struct Target {
    /// For messages.
    pub name: String,
    port: u16,
    kept: Option<Client>,
    beside: Option<Client>,
}

impl Target {
    /// The one on this port.
    pub fn new(name: &str, port: u16) -> Target {
        Target {
            name: name.to_string(),
            port,
            kept: None,
            beside: None,
        }
    }

    /// Runs the exchange and finds out how it ends.
    pub fn explore(&mut self, exchange: &Exchange) -> Result<(Ending, Outcome), String> {
        let ready = self.run(
            exchange,
            Ending::Ready,
            Feed::Whole,
            Duration::from_millis(250),
        );
        if let Ok(outcome) = ready {
            return Ok((Ending::Ready, outcome));
        }
        let closed = self.run(
            exchange,
            Ending::Closed,
            Feed::Whole,
            Duration::from_millis(250),
        );
        if let Ok(outcome) = closed {
            return Ok((Ending::Closed, outcome));
        }
        let awaits = self.run(exchange, Ending::Awaits, Feed::Whole, PATIENCE)?;
        Ok((Ending::Awaits, awaits))
    }

    /// Runs the exchange once, under a new name for its keys; `Err` tells what came instead of the ending.
    pub fn run(
        &mut self,
        exchange: &Exchange,
        ending: Ending,
        feed: Feed,
        patience: Duration,
    ) -> Result<Outcome, String> {
        static RUNS: AtomicU64 = AtomicU64::new(0);
        // Letters and digits of 36, from the top: a nonce has no likeness to a word of the protocol.
        let nonce = base36(1_900_000_000 + RUNS.fetch_add(1, Ordering::Relaxed));
        self.run_as(&nonce, exchange, ending, feed, patience)
    }

    /// Runs the exchange with a given name in its keys.
    pub fn run_as(
        &mut self,
        nonce: &str,
        exchange: &Exchange,
        ending: Ending,
        feed: Feed,
        patience: Duration,
    ) -> Result<Outcome, String> {
        let names = exchange.base64_names(nonce);
        let kept = self.kept.take();
        let mut client = match kept {
            Some(client) => client,
            None => Client::try_connect(self.port).map_err(|error| error.to_string())?,
        }
        .patience(patience);
        let mut normal = Normal::default();
        let mut steps = Vec::new();
        for step in 0..exchange.steps.len() {
            let last = step + 1 == exchange.steps.len();
            let bytes = exchange.expand(step, nonce, &normal.last_cas);
            let ready = !last || ending == Ending::Ready;
            let mark = format!("NF O{nonce}{step}\r\n");
            let sentinel = match ready || ending == Ending::Any {
                true => format!("md {nonce}~nothing O{nonce}{step}\r\n"),
                false => String::new(),
            };
            self.feed(&mut client, &bytes, sentinel.as_bytes(), feed);
            if last && matches!(ending, Ending::Awaits | Ending::Any) {
                client.finish();
            }
            let got = if ready {
                match client.until_or_end(mark.as_bytes()) {
                    Ok(mut reply) => {
                        reply.truncate(reply.len() - mark.len());
                        reply
                    }
                    Err((how, sofar)) => return Err(format!("{how} after: {}", show(&sofar))),
                }
            } else {
                match client.until_or_end(b"\0 never sent \0") {
                    Err(("closed", reply)) => reply,
                    Err((how, sofar)) => return Err(format!("{how} after: {}", show(&sofar))),
                    Ok(reply) => return Err(format!("odd reply: {}", show(&reply))),
                }
            };
            let whole = got.strip_suffix(mark.as_bytes());
            let plain = normal.replies(whole.unwrap_or(&got));
            let mut lines = readable(&plain, nonce, &names);
            match ending {
                Ending::Awaits if last => lines.push("<awaits".to_string()),
                Ending::Closed if last => lines.push("<closed".to_string()),
                Ending::Any if last && whole.is_none() => lines.push("<lost".to_string()),
                _ => {}
            }
            steps.push(lines);
        }
        if ending == Ending::Ready {
            self.kept = Some(client);
        }
        Ok(Outcome(steps))
    }

    /// Sends the bytes and the sentinel. Errors are left to the reading side: a server may close in the middle.
    fn feed(&mut self, client: &mut Client, bytes: &[u8], sentinel: &[u8], feed: Feed) {
        match feed {
            Feed::Whole => {
                let _ = client.try_send(bytes);
                let _ = client.try_send(sentinel);
            }
            Feed::SplitAt(at) => {
                let (head, tail) = bytes.split_at(at.min(bytes.len()));
                let _ = client.try_send(head);
                // An answer on a second connection to the one loop shows that it has read what was sent before.
                let beside = self
                    .beside
                    .get_or_insert_with(|| Client::connect(self.port));
                beside.send("mn\r\n");
                beside.line();
                let _ = client.try_send(&[tail, sentinel].concat());
            }
            Feed::Bytewise => {
                for byte in bytes.chunks(1) {
                    if client.try_send(byte).is_err() {
                        break;
                    }
                }
                let _ = client.try_send(sentinel);
            }
        }
    }
}

/// Reply lines as the tables write them.
fn readable(bytes: &[u8], nonce: &str, names: &[String]) -> Vec<String> {
    let mut lines = Vec::new();
    for line in bytes.split_inclusive(|&byte| byte == b'\n') {
        let whole = line.strip_suffix(b"\r\n");
        let text = whole.unwrap_or(line).escape_ascii().to_string();
        let mut text = text.replace(nonce, "@");
        for name in names {
            text = text.replace(name.as_str(), "{b64}");
        }
        let text = squeeze(&text);
        // A line without CRLF is told apart from one with it.
        lines.push(text + if whole.is_some() { "" } else { "\\c" });
    }
    lines
}

/// Long runs of one character written as `{x*1000}`.
fn squeeze(text: &str) -> String {
    let mut out = String::new();
    let mut chars = text.chars().peekable();
    while let Some(one) = chars.next() {
        let mut times = 1;
        while chars.peek() == Some(&one) {
            chars.next();
            times += 1;
        }
        match times {
            0..=30 => out.extend(std::iter::repeat_n(one, times)),
            _ => out += &format!("{{{one}*{times}}}"),
        }
    }
    out
}

fn base36(mut number: u64) -> String {
    let mut digits = Vec::new();
    while number > 0 {
        digits.push(b"0123456789abcdefghijklmnopqrstuvwxyz"[(number % 36) as usize]);
        number /= 36;
    }
    digits.reverse();
    String::from_utf8(digits).expect("digits are ASCII")
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk
            .iter()
            .fold(0u32, |word, &byte| word << 8 | u32::from(byte))
            << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let digit = DIGITS[(word >> (18 - 6 * place) & 63) as usize];
            out.push(if place <= chunk.len() {
                digit as char
            } else {
                '='
            });
        }
    }
    out
}
