//! What a server holds under given keys: pipelined `mg`, which neither counts as a use of the item nor changes it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use md5::{Digest, Md5};

use super::compare::Item;
use super::dial::{dial, name_of, read_line, unexpected};
use crate::config::ServerSpec;
use crate::proto::meta::encode_base64;
use crate::proto::KEY_MAX;
use crate::sys::reason;
use crate::time::Span;

/// A busy server may need longer for a batch of large values than for one answer.
const SILENCE_MIN: Duration = Duration::from_secs(5);

/// The longest value that can be a counter.
const NUMBER_MAX: usize = 24;

/// The longest request: a key, the command and its flags.
pub const REQUEST_MAX: usize = KEY_MAX + 16;

/// What is wanted to be known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Want {
    /// Whether there is an item.
    Presence,
    /// The item.
    Item,
}

/// What a server holds under a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// Nothing.
    Absent,
    /// An item that was not asked for.
    Held,
    /// This item.
    Item(Item),
}

/// A connection for questions to one server.
pub struct Asker {
    name: String,
    reader: Option<BufReader<TcpStream>>,
    trouble: Option<String>,
    listed: bool,
    items: u64,
    line: Vec<u8>,
    requests: Vec<u8>,
}

impl Asker {
    /// Connects and finds out whether the server knows `mg`. A failure is remembered, not returned.
    pub fn connect(spec: &ServerSpec, timeout: Span) -> Asker {
        let patience = Duration::from_micros(timeout.0);
        let mut asker = Asker {
            name: name_of(spec),
            listed: true,
            ..Asker::unused()
        };
        let opened = dial(spec, patience, patience.max(SILENCE_MIN));
        match opened.and_then(|reader| asker.greet(reader)) {
            Ok(reader) => asker.reader = Some(reader),
            Err(why) => asker.fail(why),
        }
        asker
    }

    /// For a server that another place of the list stands for.
    pub fn unused() -> Asker {
        Asker {
            name: String::new(),
            reader: None,
            trouble: None,
            listed: false,
            items: 0,
            line: Vec::new(),
            requests: Vec::new(),
        }
    }

    fn greet(&mut self, mut reader: BufReader<TcpStream>) -> Result<BufReader<TcpStream>, String> {
        let sent = reader.get_mut().write_all(b"mn\r\nstats\r\n");
        sent.map_err(|error| reason(&error))?;
        read_line(&mut reader, &mut self.line)?;
        if self.line != b"MN" {
            return Err("it knows no meta commands (memcached 1.6.10 or newer is needed)".into());
        }
        loop {
            read_line(&mut reader, &mut self.line)?;
            if self.line == b"END" {
                return Ok(reader);
            }
            let stat = self.line.strip_prefix(b"STAT ");
            let stat = stat.ok_or_else(|| unexpected(&self.line))?;
            if let Some(count) = stat.strip_prefix(b"curr_items ").and_then(number) {
                self.items = count;
            }
        }
    }

    /// Whether it answers.
    pub fn is_readable(&self) -> bool {
        self.reader.is_some()
    }

    /// Whether it answers, and its list of keys was read, or is going to be.
    pub fn is_listed(&self) -> bool {
        self.is_readable() && self.listed
    }

    /// How many items it had at the start.
    pub fn items(&self) -> u64 {
        self.items
    }

    /// The server's name, and what was wrong with it first.
    pub fn trouble(&self) -> Option<(&str, &str)> {
        let why = self.trouble.as_deref()?;
        Some((&self.name, why))
    }

    /// Its keys could not be listed; what it holds can still be asked.
    pub fn listing_failed(&mut self, why: String) {
        self.listed = false;
        self.trouble.get_or_insert(why);
    }

    fn fail(&mut self, why: String) {
        self.reader = None;
        self.trouble.get_or_insert(why);
    }

    /// Sends a question for each key, each of which [`can_be_named`].
    pub fn send<'a>(&mut self, keys: impl Iterator<Item = &'a [u8]>, want: Want) {
        self.requests.clear();
        for key in keys {
            put_request(&mut self.requests, key, want);
        }
        if self.requests.is_empty() {
            return;
        }
        if let Some(reader) = &mut self.reader {
            if let Err(error) = reader.get_mut().write_all(&self.requests) {
                self.fail(reason(&error));
            }
        }
    }

    /// The next answer, in the order of the questions. `None`: the server answers no more.
    pub fn receive(&mut self) -> Option<Answer> {
        let reader = self.reader.as_mut()?;
        match read_answer(reader, &mut self.line) {
            Ok(answer) => Some(answer),
            Err(why) => {
                self.fail(why);
                None
            }
        }
    }
}

/// Whether a key can stand in a command, as it is or in base64. Others can come by the binary protocol only.
pub fn can_be_named(key: &[u8]) -> bool {
    name_size(key) <= KEY_MAX
}

/// The size of a request for the key, roughly.
pub fn request_size(key: &[u8]) -> usize {
    name_size(key) + 16
}

fn name_size(key: &[u8]) -> usize {
    if is_plain(key) {
        key.len()
    } else {
        key.len().div_ceil(3) * 4
    }
}

fn is_plain(key: &[u8]) -> bool {
    !key.iter().any(|&byte| byte <= b' ' || byte == 0x7f)
}

/// `u` leaves the item's place in the server's order of use alone.
fn put_request(out: &mut Vec<u8>, key: &[u8], want: Want) {
    out.extend_from_slice(b"mg ");
    let plain = is_plain(key);
    if plain {
        out.extend_from_slice(key);
    } else {
        encode_base64(key, out);
    }
    out.extend_from_slice(match want {
        Want::Presence => b" t u",
        Want::Item => b" v t f u",
    });
    if !plain {
        out.extend_from_slice(b" b");
    }
    out.extend_from_slice(b"\r\n");
}

fn read_answer(reader: &mut BufReader<TcpStream>, line: &mut Vec<u8>) -> Result<Answer, String> {
    read_line(reader, line)?;
    let mut words = line.split(|&byte| byte == b' ');
    match words.next() {
        Some(b"EN") => return Ok(Answer::Absent),
        Some(b"HD") => return Ok(Answer::Held),
        Some(b"VA") => {}
        _ => return Err(unexpected(line)),
    }
    let size = words.next().and_then(number);
    let (mut ttl, mut flags) = (None, None);
    for word in words {
        match word.split_first() {
            Some((b't', b"-1")) => ttl = Some(None),
            Some((b't', seconds)) => ttl = number(seconds).map(Some),
            Some((b'f', value)) => flags = number(value),
            _ => {}
        }
    }
    let (Some(size), Some(ttl), Some(flags)) = (size, ttl, flags) else {
        return Err(unexpected(line));
    };
    let digest = read_value(reader, size)?;
    Ok(Answer::Item(Item {
        size,
        digest,
        flags,
        ttl,
    }))
}

/// Reads a value and its line end; only a digest of it is kept, as values can be large and many.
fn read_value(reader: &mut BufReader<TcpStream>, size: u64) -> Result<[u8; 16], String> {
    let failed = |error: std::io::Error| format!("within a value: {}", reason(&error));
    let digest = if size <= NUMBER_MAX as u64 {
        let mut value = [0; NUMBER_MAX];
        let value = &mut value[..size as usize];
        reader.read_exact(value).map_err(failed)?;
        Md5::digest(counted(value))
    } else {
        let mut digest = Md5::new();
        let mut left = size;
        while left > 0 {
            let bytes = reader.fill_buf().map_err(failed)?;
            if bytes.is_empty() {
                return Err("the connection ended within a value".into());
            }
            let count = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            digest.update(&bytes[..count]);
            reader.consume(count);
            left -= count as u64;
        }
        digest.finalize()
    };
    let mut end = [0; 2];
    reader.read_exact(&mut end).map_err(failed)?;
    if end != *b"\r\n" {
        return Err("a value is longer than it should be".into());
    }
    Ok(digest.into())
}

/// A counter without the blanks that `decr` leaves behind it when it gets shorter; other values as they are.
fn counted(value: &[u8]) -> &[u8] {
    let digits = value.trim_ascii_end();
    let padding = &value[digits.len()..];
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    if is_number && padding.iter().all(|&byte| byte == b' ') {
        digits
    } else {
        value
    }
}

fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_for_every_key() {
        for (key, want, request) in [
            (&b"a"[..], Want::Item, &b"mg a v t f u\r\n"[..]),
            (b"a\xff%", Want::Presence, b"mg a\xff% t u\r\n"),
            (b"a b", Want::Item, b"mg YSBi v t f u b\r\n"),
            (b"\0", Want::Presence, b"mg AA== t u b\r\n"),
        ] {
            let mut out = Vec::new();
            put_request(&mut out, key, want);
            assert_eq!(out, request);
            assert!(out.len() <= request_size(key));
        }
        assert!(can_be_named(&[b'a'; 250]) && !can_be_named(&[b'a'; 251]));
        assert!(can_be_named(&[0; 186]) && !can_be_named(&[0; 190]));
        assert!(request_size(&[0; 186]) <= REQUEST_MAX);
    }

    #[test]
    fn only_counters_lose_their_blanks() {
        for (value, kept) in [
            (&b"99 "[..], &b"99"[..]),
            (b"9   ", b"9"),
            (b"100", b"100"),
            (b"a ", b"a "),
            (b" ", b" "),
            (b"", b""),
            (b"1 2 ", b"1 2 "),
            (b"1\n", b"1\n"),
        ] {
            assert_eq!(counted(value), kept, "{}", value.escape_ascii());
        }
    }
}
