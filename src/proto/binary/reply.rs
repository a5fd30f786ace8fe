//! From a reply in the words of the text protocol to a frame.

use super::{Asked, Kind, Status, HEADER, RESPONSE};
use crate::proto::replies;
use crate::proto::response::{code, value_head, Code};
use crate::proto::token::{next_token, parse_decimal};

/// Longest head: header and the extras of a value, or the number of a counter.
const HEAD_MAX: usize = HEADER + 8;

/// A reply as it goes to the client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reply<'a> {
    /// Nothing is said.
    Silent,
    /// One response.
    One(Response<'a>),
    /// Several: of statistics.
    Several(Vec<u8>),
}

/// One response: its pieces, in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Response<'a> {
    head: [u8; HEAD_MAX],
    head_len: usize,
    key: &'a [u8],
    value: &'a [u8],
}

impl<'a> Response<'a> {
    /// Header, extras and, of counters, the value.
    pub fn head(&self) -> &[u8] {
        &self.head[..self.head_len]
    }

    /// The key.
    pub fn key(&self) -> &'a [u8] {
        self.key
    }

    /// The value.
    pub fn value(&self) -> &'a [u8] {
        self.value
    }

    /// All of it.
    pub fn pieces(&self) -> [&[u8]; 3] {
        [self.head(), self.key, self.value]
    }

    /// Its length.
    pub fn length(&self) -> usize {
        self.head_len + self.key.len() + self.value.len()
    }

    fn new(asked: &Asked, status: Status, cas: u64) -> Response<'a> {
        let mut head = [0; HEAD_MAX];
        head[0] = RESPONSE;
        head[1] = asked.opcode;
        head[6..8].copy_from_slice(&(status as u16).to_be_bytes());
        head[12..16].copy_from_slice(&asked.opaque.to_be_bytes());
        head[16..24].copy_from_slice(&cas.to_be_bytes());
        Response {
            head,
            head_len: HEADER,
            key: b"",
            value: b"",
        }
    }

    fn with_flags(mut self, flags: u32) -> Response<'a> {
        self.head[4] = 4;
        self.head[HEADER..HEADER + 4].copy_from_slice(&flags.to_be_bytes());
        self.head_len = HEADER + 4;
        self
    }

    fn with_number(mut self, number: u64) -> Response<'a> {
        self.head[HEADER..].copy_from_slice(&number.to_be_bytes());
        self.head_len = HEAD_MAX;
        self
    }

    fn with_key(mut self, key: &'a [u8]) -> Response<'a> {
        self.head[2..4].copy_from_slice(&(key.len() as u16).to_be_bytes());
        self.key = key;
        self
    }

    fn with_value(mut self, value: &'a [u8]) -> Response<'a> {
        self.value = value;
        self
    }

    /// Puts the length of the body in.
    fn closed(mut self) -> Response<'a> {
        let body = self.length() - HEADER;
        self.head[8..12].copy_from_slice(&(body as u32).to_be_bytes());
        self
    }

    fn complete(self) -> Reply<'a> {
        Reply::One(self.closed())
    }
}

/// The reply to a retrieval that found `data` under `key`.
pub fn value<'a>(
    asked: &Asked,
    flags: u32,
    cas: u64,
    key: &'a [u8],
    data: &'a [u8],
) -> Response<'a> {
    let response = Response::new(asked, Status::Success, cas).with_flags(flags);
    let response = if asked.wants_key() {
        response.with_key(key)
    } else {
        response
    };
    response.with_value(data).closed()
}

/// The reply to a write that took effect and left the item with `cas`.
pub fn done<'a>(asked: &Asked, cas: u64) -> Reply<'a> {
    success(asked, Response::new(asked, Status::Success, cas))
}

/// What a client that asked `asked` gets for `text`, a whole reply (without the `END` of a retrieval, if it likes).
/// `told`: the CAS to be told in place of the one in a meta reply; 0: that one.
pub fn encode<'a>(asked: &'a Asked, text: &'a [u8], told: u64) -> Reply<'a> {
    let end = memchr::memchr(b'\n', text).unwrap_or(text.len());
    let line = &text[..end];
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let behind = text.get(end + 1..).unwrap_or_default();
    let kind = asked.kind();
    let code = code(line);
    if kind == Kind::Stat {
        return statistics(asked, code, text);
    }
    match code {
        Code::Value => classic_value(asked, line, behind),
        Code::MetaValue => meta_value(asked, line, behind, told),
        Code::MetaDone => {
            let flags = Flags::of(line, 2, told);
            let response = Response::new(asked, Status::Success, flags.cas);
            success(
                asked,
                match kind {
                    Kind::Touch => response.with_flags(flags.client),
                    _ => response,
                },
            )
        }
        Code::Touched => {
            let response = Response::new(asked, Status::Success, 0);
            success(asked, response.with_flags(0))
        }
        Code::Stored | Code::Deleted | Code::Ok | Code::MetaNoop => done(asked, 0),
        Code::Number => match parse_decimal(line) {
            Some(number) => {
                let response = Response::new(asked, Status::Success, 0);
                success(asked, response.with_number(number))
            }
            None => error(asked, Status::InternalError, line),
        },
        Code::Version => {
            let version = line.get(8..).unwrap_or_default();
            let response = Response::new(asked, Status::Success, 0);
            response.with_value(version).complete()
        }
        Code::End | Code::MetaMiss => miss(asked),
        Code::NotFound | Code::MetaNotFound => error(asked, Status::NotFound, b""),
        Code::Exists | Code::MetaExists => error(asked, Status::Exists, b""),
        Code::NotStored | Code::MetaNotStored => {
            let status = match kind {
                Kind::Add => Status::Exists,
                Kind::Replace => Status::NotFound,
                _ => Status::NotStored,
            };
            error(asked, status, b"")
        }
        // A client that wants none gets none (`noreply` in text), and no other reply is empty.
        Code::Nonsense if line.is_empty() => Reply::Silent,
        _ => failure(asked, code, line),
    }
}

/// A success, of which quiet requests hear nothing.
fn success<'a>(asked: &Asked, response: Response<'a>) -> Reply<'a> {
    if asked.is_quiet() {
        Reply::Silent
    } else {
        response.complete()
    }
}

fn error<'a>(asked: &Asked, status: Status, words: &'a [u8]) -> Reply<'a> {
    let text = status.text();
    let value = if text.is_empty() { words } else { text };
    let response = Response::new(asked, status, 0);
    response.with_value(value).complete()
}

/// A retrieval found nothing.
fn miss(asked: &Asked) -> Reply<'_> {
    let retrieves = matches!(asked.kind(), Kind::Get | Kind::GetAndTouch);
    if retrieves && asked.is_quiet() {
        return Reply::Silent;
    }
    match &asked.key {
        Some(key) => {
            let response = Response::new(asked, Status::NotFound, 0);
            response.with_key(key).complete()
        }
        None => error(asked, Status::NotFound, b""),
    }
}

/// One of the three error lines, of a server or of the proxy.
fn failure<'a>(asked: &Asked, code: Code, line: &'a [u8]) -> Reply<'a> {
    let has = |words: &[u8]| memchr::memmem::find(line, words).is_some();
    let status = match code {
        Code::Error => Status::UnknownCommand,
        Code::ClientError if has(b"non-numeric") => Status::NonNumeric,
        Code::ClientError => Status::InvalidArguments,
        _ if has(b"object too large") => Status::TooLarge,
        _ if has(b"out of memory") || has(b"Out of memory") => Status::OutOfMemory,
        _ => Status::InternalError,
    };
    let words = line.strip_prefix(b"SERVER_ERROR ").unwrap_or(line);
    error(asked, status, words)
}

/// `VALUE key flags length cas`
fn classic_value<'a>(asked: &'a Asked, line: &'a [u8], behind: &'a [u8]) -> Reply<'a> {
    let Some(head) = value_head(line) else {
        return error(asked, Status::InternalError, b"");
    };
    let cas = head.cas.map_or(0, |(cas, _)| cas);
    let data = behind.get(..head.data_len).unwrap_or_default();
    Reply::One(value(asked, head.flags, cas, head.key.of(line), data))
}

/// `VA length flags...`
fn meta_value<'a>(asked: &'a Asked, line: &'a [u8], behind: &'a [u8], told: u64) -> Reply<'a> {
    let length = next_token(line, 3).map_or(0, |token| {
        let number = parse_decimal(token.of(line)).unwrap_or(0);
        usize::try_from(number).unwrap_or(0)
    });
    let data = behind.get(..length).unwrap_or_default();
    let flags = Flags::of(line, 3, told);
    let response = Response::new(asked, Status::Success, flags.cas);
    match asked.kind() {
        Kind::Increment | Kind::Decrement => match parse_decimal(data.trim_ascii_end()) {
            Some(number) => success(asked, response.with_number(number)),
            None => error(asked, Status::InternalError, b""),
        },
        _ => {
            let response = response.with_flags(flags.client);
            let response = match &asked.key {
                Some(key) if asked.wants_key() => response.with_key(key),
                _ => response,
            };
            response.with_value(data).complete()
        }
    }
}

/// What is needed of the flags of a meta reply.
#[derive(Default)]
struct Flags {
    client: u32,
    cas: u64,
}

impl Flags {
    /// `told`: the CAS that stands for the one in the line, unless it is 0.
    fn of(line: &[u8], from: usize, told: u64) -> Flags {
        let mut flags = Flags::default();
        let mut at = from;
        while let Some(token) = next_token(line, at) {
            at = token.end;
            let (letter, rest) = (line[token.start], &line[token.start + 1..token.end]);
            match letter {
                b'c' => flags.cas = parse_decimal(rest).unwrap_or(0),
                b'f' => flags.client = parse_decimal(rest).unwrap_or(0) as u32,
                _ => {}
            }
        }
        if told != 0 {
            flags.cas = told;
        }
        flags
    }
}

/// A response for each line, and an empty one that ends them. What memcached does not know is not found.
fn statistics<'a>(asked: &'a Asked, code: Code, text: &[u8]) -> Reply<'a> {
    match code {
        Code::ClientError if text == replies::BAD_FORMAT => {
            return error(asked, Status::InvalidArguments, b"");
        }
        _ if code.is_error() => return error(asked, Status::NotFound, b""),
        _ => {}
    }
    let mut out = Vec::with_capacity(text.len() * 2);
    for line in text.split(|&byte| byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        // `STAT name value`, and `matrix 1 -> ...`
        let line = match line {
            b"END" | b"RESET" | b"OK" | b"" => continue,
            _ => line.strip_prefix(b"STAT ").unwrap_or(line),
        };
        let space = memchr::memchr(b' ', line);
        let name = &line[..space.unwrap_or(line.len())];
        let value = space.map_or(&b""[..], |space| &line[space + 1..]);
        let response = Response::new(asked, Status::Success, 0);
        push(response.with_key(name).with_value(value), &mut out);
    }
    push(Response::new(asked, Status::Success, 0), &mut out);
    Reply::Several(out)
}

fn push(response: Response<'_>, out: &mut Vec<u8>) {
    if let Reply::One(response) = response.complete() {
        for piece in [response.head(), response.key(), response.value()] {
            out.extend_from_slice(piece);
        }
    }
}
