//! What a client sent: one command line, understood byte by byte.
//!
//! Nothing is copied: a [`Request`] borrows the line and says where its parts are. A line that memcached would refuse
//! yields the reply memcached gives, and how much of what follows must be swallowed.

mod admin;

use super::meta::{self, Meta};
use super::replies;
use super::token::{next_token, parse_i32, parse_u32, parse_u64, Token, Tokens};
use super::{Verb, KEY_MAX};

/// A command line that can be carried out.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The command.
    pub verb: Verb,
    /// The line without its end (and without what follows a NUL byte, which memcached does not see).
    pub line: &'a [u8],
    /// The word of `line` that is not passed on (`noreply`, `q`), with the space before it; empty if none.
    pub strip: Token,
    /// The key; for retrievals the first key, more may follow up to the end of the line.
    pub key: Token,
    /// Storage commands: length of the data block without its line end.
    pub data_len: usize,
    /// `noreply`, or the meta flag `q`.
    pub quiet: bool,
    /// Storage commands: the item has client flags other than 0.
    pub client_flags: bool,
    /// `gat`: the time to live; `flush_all`: the delay in seconds.
    pub exptime: i32,
    /// Meta commands: their flags.
    pub meta: Meta,
}

/// What became of a line.
#[derive(Clone, Copy, Debug)]
pub enum Parsed<'a> {
    /// It can be carried out.
    Request(Request<'a>),
    /// It is wrong: say `reply` (unless `silent`), after swallowing `swallow` bytes that follow the line.
    Refused {
        /// memcached's words.
        reply: &'static [u8],
        /// The client asked for no reply.
        silent: bool,
        /// Bytes of data that belong to the line.
        swallow: usize,
    },
    /// Say this, and take no more from this client.
    Last(&'static [u8]),
    /// memcached closes the connection: HTTP, and other things that were never meant for it.
    Close,
}

const fn refused<'a>(reply: &'static [u8]) -> Parsed<'a> {
    Parsed::Refused {
        reply,
        silent: false,
        swallow: 0,
    }
}

/// Understands one line (without its end). `explicit_cas`: the servers know the meta flags `E` and `x`.
pub fn parse(line: &[u8], explicit_cas: bool) -> Parsed<'_> {
    // The commonest of all, first.
    let plain = match line.first_chunk() {
        Some(b"get ") => parse_plain_get(Verb::Get, 4, line),
        Some(b"gets") if line.get(4) == Some(&b' ') => parse_plain_get(Verb::Gets, 5, line),
        _ => None,
    };
    if let Some(request) = plain {
        return Parsed::Request(request);
    }
    let line = match memchr::memchr(0, line) {
        Some(end) => &line[..end],
        None => line,
    };
    let tokens = Tokens::split(line);
    let command = tokens.get(0).of(line);
    if command.len() < 2 {
        return refused(replies::ERROR);
    }
    let words = Words {
        line,
        tokens: &tokens,
        explicit_cas,
    };
    match command {
        b"set" => words.storage(Verb::Set),
        b"add" => words.storage(Verb::Add),
        b"replace" => words.storage(Verb::Replace),
        b"append" => words.storage(Verb::Append),
        b"prepend" => words.storage(Verb::Prepend),
        b"cas" => words.storage(Verb::Cas),
        b"get" | b"bget" => words.retrieval(Verb::Get),
        b"gets" => words.retrieval(Verb::Gets),
        b"gat" => words.retrieval(Verb::Gat),
        b"gats" => words.retrieval(Verb::Gats),
        b"delete" => words.delete(),
        b"incr" => words.number(Verb::Incr),
        b"decr" => words.number(Verb::Decr),
        b"touch" => words.number(Verb::Touch),
        b"mg" => words.meta(Verb::MetaGet, meta::Command::Get),
        b"ms" => words.meta_set(),
        b"md" => words.meta(Verb::MetaDelete, meta::Command::Delete),
        b"ma" => words.meta(Verb::MetaArithmetic, meta::Command::Arithmetic),
        b"me" => words.meta_debug(),
        b"mn" => words.request(Verb::MetaNoop),
        b"flush_all" => words.flush_all(),
        b"verbosity" => words.verbosity(),
        b"version" => words.request(Verb::Version),
        b"quit" => words.request(Verb::Quit),
        b"stats" => words.request(Verb::Stats),
        b"shutdown" => refused(replies::NO_SHUTDOWN),
        b"cache_memlimit" => words.memlimit(),
        b"watch" => refused(replies::NO_WATCH),
        b"slabs" => words.slabs(),
        b"lru" => words.lru(),
        b"lru_crawler" => words.crawler(),
        _ => words.unknown(command),
    }
}

/// `get` or `gets` of one or more keys, the first at `start`, with single spaces and no surprises; anything else takes the
/// long way.
fn parse_plain_get(verb: Verb, start: usize, line: &[u8]) -> Option<Request<'_>> {
    if memchr::memchr(0, line).is_some() {
        return None;
    }
    let mut start = start;
    let mut first = Token::default();
    loop {
        let rest = &line[start..];
        let length = memchr::memchr(b' ', rest).unwrap_or(rest.len());
        if length == 0 || length > KEY_MAX {
            return None;
        }
        let end = start + length;
        if first.end == 0 {
            first = Token { start, end };
        }
        if end == line.len() {
            break;
        }
        start = end + 1;
    }
    Some(Request {
        key: first,
        ..blank(verb, line)
    })
}

/// A request of that line with nothing but its verb.
pub(super) fn blank(verb: Verb, line: &[u8]) -> Request<'_> {
    Request {
        verb,
        line,
        strip: Token::default(),
        key: Token::default(),
        data_len: 0,
        quiet: false,
        client_flags: false,
        exptime: 0,
        meta: Meta::default(),
    }
}

struct Words<'a, 't> {
    line: &'a [u8],
    tokens: &'t Tokens,
    explicit_cas: bool,
}

impl<'a> Words<'a, '_> {
    fn text(&self, index: usize) -> &'a [u8] {
        self.tokens.get(index).of(self.line)
    }

    fn count(&self) -> usize {
        self.tokens.len()
    }

    fn request(&self, verb: Verb) -> Parsed<'a> {
        Parsed::Request(blank(verb, self.line))
    }

    /// memcached looks for `noreply` in the last word, whatever its place.
    fn noreply(&self) -> bool {
        self.text(self.count() - 1) == b"noreply"
    }

    /// The last word with the space before it, to be left out of what servers get.
    fn last_word(&self) -> Token {
        self.without_gap(self.count() - 1)
    }

    fn without_gap(&self, index: usize) -> Token {
        Token {
            start: self.tokens.get(index - 1).end,
            end: self.tokens.get(index).end,
        }
    }

    fn refuse(&self, reply: &'static [u8], silent: bool) -> Parsed<'a> {
        Parsed::Refused {
            reply,
            silent,
            swallow: 0,
        }
    }

    fn key_fits(&self) -> bool {
        self.text(1).len() <= KEY_MAX
    }

    fn storage(&self, verb: Verb) -> Parsed<'a> {
        let needed = if verb == Verb::Cas { 6 } else { 5 };
        if self.count() != needed && self.count() != needed + 1 {
            return refused(replies::ERROR);
        }
        let quiet = self.noreply();
        let flags = parse_u32(self.text(2));
        let exptime = parse_i32(self.text(3));
        let length = parse_i32(self.text(4));
        let cas_is_number = verb != Verb::Cas || parse_u64(self.text(5)).is_some();
        let (Some(flags), Some(_), Some(length), true, true) =
            (flags, exptime, length, cas_is_number, self.key_fits())
        else {
            return self.refuse(replies::BAD_FORMAT, quiet);
        };
        let Some(data_len) = data_length(length) else {
            return self.refuse(replies::BAD_FORMAT, quiet);
        };
        let strip = if quiet {
            self.last_word()
        } else {
            Token::default()
        };
        Parsed::Request(Request {
            key: self.tokens.get(1),
            data_len,
            quiet,
            strip,
            client_flags: flags != 0,
            ..blank(verb, self.line)
        })
    }

    fn retrieval(&self, verb: Verb) -> Parsed<'a> {
        if self.count() < 2 {
            return refused(replies::ERROR);
        }
        let mut exptime = 0;
        let mut at = self.tokens.get(0).end;
        if verb.is_gat() {
            match parse_i32(self.text(1)) {
                Some(number) => exptime = number,
                None => return refused(replies::BAD_EXPTIME),
            }
            at = self.tokens.get(1).end;
        }
        let mut key = Token::default();
        while let Some(token) = next_token(self.line, at) {
            if token.end - token.start > KEY_MAX {
                return refused(replies::BAD_FORMAT);
            }
            if key.end == 0 {
                key = token;
            }
            at = token.end;
        }
        if key.end == 0 {
            // `gat 10` asks for nothing, and gets it.
            return refused(replies::END);
        }
        Parsed::Request(Request {
            key,
            exptime,
            ..blank(verb, self.line)
        })
    }

    fn delete(&self) -> Parsed<'a> {
        if self.count() < 2 || self.count() > 4 {
            return refused(replies::ERROR);
        }
        let mut quiet = false;
        let mut strip = Token::default();
        if self.count() > 2 {
            let hold_is_zero = self.text(2) == b"0";
            quiet = self.noreply();
            let valid = if self.count() == 3 {
                hold_is_zero || quiet
            } else {
                hold_is_zero && quiet
            };
            if !valid {
                return self.refuse(replies::BAD_DELETE, quiet);
            }
            strip = Token {
                start: self.tokens.get(1).end,
                end: self.line.len(),
            };
        }
        if !self.key_fits() {
            return self.refuse(replies::BAD_FORMAT, quiet);
        }
        Parsed::Request(Request {
            key: self.tokens.get(1),
            quiet,
            strip,
            ..blank(Verb::Delete, self.line)
        })
    }

    /// `incr`, `decr`, `touch`: a key and a number.
    fn number(&self, verb: Verb) -> Parsed<'a> {
        if self.count() != 3 && self.count() != 4 {
            return refused(replies::ERROR);
        }
        let quiet = self.noreply();
        if !self.key_fits() {
            return self.refuse(replies::BAD_FORMAT, quiet);
        }
        if verb == Verb::Touch {
            if parse_i32(self.text(2)).is_none() {
                return self.refuse(replies::BAD_EXPTIME, quiet);
            }
        } else if parse_u64(self.text(2)).is_none() {
            return self.refuse(replies::BAD_DELTA, quiet);
        }
        let strip = if quiet {
            self.last_word()
        } else {
            Token::default()
        };
        Parsed::Request(Request {
            key: self.tokens.get(1),
            quiet,
            strip,
            ..blank(verb, self.line)
        })
    }

    fn flush_all(&self) -> Parsed<'a> {
        if self.count() > 3 {
            return refused(replies::ERROR);
        }
        let quiet = self.noreply();
        let mut exptime = 0;
        if self.count() != if quiet { 2 } else { 1 } {
            match parse_i32(self.text(1)) {
                Some(number) => exptime = number,
                None => return self.refuse(replies::BAD_EXPTIME, quiet),
            }
        }
        Parsed::Request(Request {
            quiet,
            exptime,
            ..blank(Verb::FlushAll, self.line)
        })
    }

    fn meta(&self, verb: Verb, command: meta::Command) -> Parsed<'a> {
        if self.count() < 2 {
            return refused(replies::ERROR);
        }
        if !self.key_fits() {
            return refused(replies::BAD_FORMAT);
        }
        if let Some(reply) = command.refuse_word_count(self.count()) {
            return refused(reply);
        }
        match meta::parse(command, self.line, self.tokens, 2, self.explicit_cas) {
            Ok(flags) => self.meta_request(verb, flags, 0),
            Err(reply) => refused(reply),
        }
    }

    fn meta_set(&self) -> Parsed<'a> {
        if self.count() < 2 {
            return refused(replies::ERROR);
        }
        if !self.key_fits() || self.count() == 2 {
            return refused(replies::BAD_FORMAT);
        }
        if let Some(reply) = meta::Command::Set.refuse_word_count(self.count()) {
            return refused(reply);
        }
        let Some(data_len) = parse_i32(self.text(2)).and_then(data_length) else {
            return refused(replies::BAD_FORMAT);
        };
        let command = meta::Command::Set;
        match meta::parse(command, self.line, self.tokens, 3, self.explicit_cas) {
            Ok(flags) => self.meta_request(Verb::MetaSet, flags, data_len),
            Err(reply) => Parsed::Refused {
                reply,
                silent: false,
                swallow: data_len + 2,
            },
        }
    }

    fn meta_request(&self, verb: Verb, flags: Meta, data_len: usize) -> Parsed<'a> {
        let mut strip = Token::default();
        if flags.has(b'q') {
            let words = self.tokens.as_slice();
            let q = (2..words.len()).find(|&index| self.text(index)[0] == b'q');
            if let Some(index) = q {
                strip = self.without_gap(index);
            }
        }
        Parsed::Request(Request {
            key: self.tokens.get(1),
            data_len,
            quiet: flags.has(b'q'),
            strip,
            client_flags: flags.client_flags,
            meta: flags,
            ..blank(verb, self.line)
        })
    }

    fn meta_debug(&self) -> Parsed<'a> {
        if self.count() < 2 || !self.key_fits() {
            return refused(replies::BAD_FORMAT);
        }
        let mut flags = Meta::default();
        if self.count() >= 3 && self.text(2) == b"b" {
            if meta::decode_base64(self.text(1)).is_none() {
                return refused(replies::BAD_FORMAT);
            }
            flags.set_base64();
        }
        self.meta_request(Verb::MetaDebug, flags, 0)
    }

    fn unknown(&self, command: &[u8]) -> Parsed<'a> {
        // memcached decides by the first letter, and looks for HTTP only where no command of its own begins so.
        let own = matches!(command[0], b'g' | b's' | b'a' | b'c' | b'i' | b'd' | b't')
            || (command[0] == b'm' && command.len() == 2);
        if !own && self.text(self.count() - 1).starts_with(b"HTTP/") {
            return Parsed::Close;
        }
        refused(replies::ERROR)
    }
}

/// The length of a data block, if memcached would take the number.
fn data_length(number: i32) -> Option<usize> {
    if number > i32::MAX - 2 {
        return None;
    }
    usize::try_from(number).ok()
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
