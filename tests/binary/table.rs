//! The table of frames: how it is read, run against a port, and made comparable.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::common::Client;

/// A conversation on one connection: the frames of each step, as they stand in the table.
pub struct Exchange {
    pub name: String,
    pub steps: Vec<Vec<String>>,
    pub whole: bool,
}

pub fn table() -> Vec<Exchange> {
    let mut all: Vec<Exchange> = Vec::new();
    for line in include_str!("../exchange/binary.txt").lines() {
        if let Some(name) = line.strip_prefix("== ") {
            let whole = name.strip_suffix(" [whole]");
            all.push(Exchange {
                name: whole.unwrap_or(name).to_string(),
                steps: vec![Vec::new()],
                whole: whole.is_some(),
            });
        } else if let Some(exchange) = all.last_mut() {
            match line.strip_prefix("> ") {
                Some(frame) => exchange.steps.last_mut().unwrap().push(frame.to_string()),
                None if line == "--" => exchange.steps.push(Vec::new()),
                None => assert!(line.is_empty(), "{line}"),
            }
        }
    }
    assert!(all.len() > 60, "the table is not read: {}", all.len());
    all
}

const OPCODES: [&str; 37] = [
    "get",
    "set",
    "add",
    "replace",
    "delete",
    "increment",
    "decrement",
    "quit",
    "flush",
    "getq",
    "noop",
    "version",
    "getk",
    "getkq",
    "append",
    "prepend",
    "stat",
    "setq",
    "addq",
    "replaceq",
    "deleteq",
    "incrementq",
    "decrementq",
    "quitq",
    "flushq",
    "appendq",
    "prependq",
    "verbosity",
    "touch",
    "gat",
    "gatq",
    "",
    "",
    "",
    "",
    "gatk",
    "gatkq",
];

fn opcode(name: &str) -> u8 {
    if let Some(hex) = name.strip_prefix("0x") {
        return u8::from_str_radix(hex, 16).unwrap();
    }
    let place = OPCODES.iter().position(|&known| known == name);
    place.unwrap_or_else(|| panic!("no opcode {name}")) as u8
}

/// The bytes that `text` stands for.
fn plain(text: &str, nonce: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        rest = &rest[1..];
        match first {
            '@' => out.extend_from_slice(nonce.as_bytes()),
            '\\' => {
                out.push(u8::from_str_radix(&rest[1..3], 16).unwrap());
                rest = &rest[3..];
            }
            '{' => {
                let (word, behind) = rest.split_once('}').unwrap();
                let (one, times) = word.split_once('*').unwrap();
                out.extend_from_slice(one.repeat(times.parse().unwrap()).as_bytes());
                rest = behind;
            }
            _ => out.push(first as u8),
        }
    }
    out
}

fn hex(text: &str) -> Vec<u8> {
    let byte = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(byte).collect()
}

fn number(text: &str) -> u64 {
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).unwrap(),
        None => text.parse().unwrap(),
    }
}

/// A frame that is as it should be.
pub fn frame(
    opcode: u8,
    opaque: u32,
    cas: u64,
    extras: &[u8],
    key: &[u8],
    value: &[u8],
) -> Vec<u8> {
    let body = extras.len() + key.len() + value.len();
    let mut out = vec![0x80, opcode];
    out.extend_from_slice(&(key.len() as u16).to_be_bytes());
    out.extend_from_slice(&[extras.len() as u8, 0, 0, 0]);
    out.extend_from_slice(&(body as u32).to_be_bytes());
    out.extend_from_slice(&opaque.to_be_bytes());
    out.extend_from_slice(&cas.to_be_bytes());
    for part in [extras, key, value] {
        out.extend_from_slice(part);
    }
    out
}

/// A frame as a line of the table describes it.
fn described(line: &str, opaque: u32, nonce: &str, last_cas: u64) -> Vec<u8> {
    let mut words = line.split(' ');
    let opcode = opcode(words.next().unwrap());
    let (mut key, mut extras, mut value, mut cas) = (Vec::new(), Vec::new(), Vec::new(), 0);
    let mut odd = Vec::new();
    for word in words {
        let (name, text) = word.split_once('=').unwrap();
        match name {
            "key" => key = plain(text, nonce),
            "x" => extras = hex(text),
            "value" => value = plain(text, nonce),
            "cas" if text == "{cas}" => cas = last_cas,
            "cas" => cas = number(text),
            _ => odd.push((name, number(text))),
        }
    }
    let mut out = frame(opcode, opaque, cas, &extras, &key, &value);
    for (name, number) in odd {
        let bytes = number.to_be_bytes();
        match name {
            "magic" => out[0] = bytes[7],
            "keylen" => out[2..4].copy_from_slice(&bytes[6..]),
            "extlen" => out[4] = bytes[7],
            "type" => out[5] = bytes[7],
            "vbucket" => out[6..8].copy_from_slice(&bytes[6..]),
            "bodylen" => out[8..12].copy_from_slice(&bytes[4..]),
            _ => panic!("{name}"),
        }
    }
    out
}

/// The opaque of the noop that ends each step.
const SENTINEL: u32 = 0x5e47_1e1e;

fn sentinel() -> Vec<u8> {
    frame(0x0a, SENTINEL, 0, b"", b"", b"")
}

/// The response to it.
fn mark() -> Vec<u8> {
    let mut mark = sentinel();
    mark[0] = 0x81;
    mark
}

/// How the bytes of a step are cut into packets.
#[derive(Clone, Copy, Debug)]
pub enum Feed {
    Whole,
    SplitAt(usize),
    Bytewise,
}

pub struct Target {
    pub name: &'static str,
    port: u16,
    kept: Option<Client>,
    beside: Option<Client>,
}

impl Target {
    pub fn new(name: &'static str, port: u16) -> Target {
        Target {
            name,
            port,
            kept: None,
            beside: None,
        }
    }

    /// Runs the exchange: its responses, made comparable.
    pub fn run(&mut self, exchange: &Exchange, feed: Feed) -> Vec<String> {
        static RUNS: AtomicU64 = AtomicU64::new(0);
        let nonce = format!("{:06}", RUNS.fetch_add(1, Ordering::Relaxed) % 1_000_000);
        let kept = self.kept.take();
        let mut client = kept.unwrap_or_else(|| Client::connect(self.port));
        let mut seen = Vec::new();
        let mut out = Vec::new();
        for frames in &exchange.steps {
            let last_cas = seen.last().copied().unwrap_or(0);
            let bytes: Vec<u8> = frames
                .iter()
                .enumerate()
                .flat_map(|(n, line)| described(line, n as u32, &nonce, last_cas))
                .collect();
            self.feed(&mut client, &bytes, feed);
            match client.until_or_end(&mark()) {
                Ok(reply) => {
                    readable(&reply[..reply.len() - 24], &nonce, &mut seen, &mut out);
                    out.push("--".to_string());
                }
                Err((how, reply)) => {
                    readable(&reply, &nonce, &mut seen, &mut out);
                    out.push(how.to_string());
                    return out;
                }
            }
        }
        self.kept = Some(client);
        out
    }

    fn feed(&mut self, client: &mut Client, bytes: &[u8], feed: Feed) {
        let end = sentinel();
        match feed {
            Feed::Whole => {
                let _ = client.try_send(&[bytes, &end].concat());
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
                let _ = client.try_send(&[tail, &end].concat());
            }
            Feed::Bytewise => {
                for byte in bytes.chunks(1) {
                    if client.try_send(byte).is_err() {
                        break;
                    }
                }
                let _ = client.try_send(&end);
            }
        }
    }
}

/// Responses as one can read them: every byte of theirs, but the CAS by its place among those that came.
fn readable(bytes: &[u8], nonce: &str, seen: &mut Vec<u64>, out: &mut Vec<String>) {
    let mut rest = bytes;
    while rest.len() >= 24 {
        let (head, behind) = rest.split_at(24);
        let length = u32::from_be_bytes(head[8..12].try_into().unwrap()) as usize;
        let cas = u64::from_be_bytes(head[16..24].try_into().unwrap());
        let place = match cas {
            0 => 0,
            _ => {
                let known = seen.iter().position(|&one| one == cas);
                seen.extend(known.is_none().then_some(cas));
                known.map_or(seen.len(), |at| at + 1)
            }
        };
        let body = &behind[..length.min(behind.len())];
        let text = body.escape_ascii().to_string().replace(nonce, "@");
        let text = match text.len() {
            0..=2000 => text,
            length => format!("{}...({length})", &text[..100]),
        };
        let head: String = head[..16]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        out.push(format!("{head} cas#{place} {text}"));
        rest = &behind[body.len()..];
    }
    if !rest.is_empty() {
        out.push(format!("rest {}", rest.escape_ascii()));
    }
}

/// How many bytes the longest step has.
pub fn longest(exchange: &Exchange) -> usize {
    let length = |frames: &Vec<String>| -> usize {
        let frames = frames.iter();
        frames
            .map(|line| described(line, 0, "000000", 0).len())
            .sum()
    };
    exchange.steps.iter().map(length).max().unwrap_or(0)
}
