//! From a frame to a request in the words of the text protocol.

use super::{Asked, Kind, HEADER, NO_CREATION, REQUEST};
use crate::proto::meta::{encode_base64, Meta};
use crate::proto::request::{blank, Request};
use crate::proto::token::{push_decimal, Token};
use crate::proto::{replies, Verb, KEY_MAX};

/// memcached takes the length of a body for a signed number, and gives the connection up where that is negative.
const BODY_MAX: u32 = i32::MAX as u32;

/// A frame that can be carried out; its value, if any, follows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Frame<'a> {
    /// What it asks for.
    pub kind: Kind,
    /// Quiet.
    pub quiet: bool,
    /// Length of header, extras and key.
    pub length: usize,
    /// Length of the value.
    pub value_len: usize,
    extras: &'a [u8],
    key: &'a [u8],
    /// The key can stand in a line of the text protocol.
    word: bool,
    cas: u64,
}

/// What became of the front of a client's bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Parsed<'a> {
    /// The frame is not complete up to the end of its key.
    More,
    /// The connection is given up without a word.
    Close,
    /// It is not carried out: `reply` in the text protocol's words.
    Refused {
        /// Whose the reply is.
        asked: Asked,
        /// The reply.
        reply: &'static [u8],
        /// How long it is up to the end of its key, and how much of its value is to be thrown away. `None`: the connection
        /// is given up with this reply.
        rest: Option<(usize, usize)>,
    },
    /// It can be carried out.
    Request(Asked, Frame<'a>),
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut number = [0; N];
    number.copy_from_slice(&bytes[at..at + N]);
    number
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(number(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(number(bytes, at))
}

/// Understands the frame at the front of `bytes`.
pub fn parse(bytes: &[u8]) -> Parsed<'_> {
    if bytes.len() < HEADER {
        return Parsed::More;
    }
    if bytes[0] != REQUEST {
        return Parsed::Close;
    }
    let key_len = usize::from(u16::from_be_bytes(number(bytes, 2)));
    let extras_len = usize::from(bytes[4]);
    let length = HEADER + extras_len + key_len;
    if bytes.len() < length {
        return Parsed::More;
    }
    let body_len = u32_at(bytes, 8);
    let mut asked = Asked {
        opcode: bytes[1],
        opaque: u32_at(bytes, 12),
        key: None,
    };
    let kind = asked.kind();
    let ends = |asked, reply| Parsed::Refused {
        asked,
        reply,
        rest: None,
    };
    let Some(value_len) = (body_len as usize).checked_sub(extras_len + key_len) else {
        return ends(asked, replies::ERROR);
    };
    if key_len > KEY_MAX {
        return ends(asked, replies::BAD_FORMAT);
    }
    let (has_key, has_value) = (key_len > 0, value_len > 0);
    let fits = match kind {
        Kind::Get | Kind::Delete => extras_len == 0 && has_key && !has_value,
        Kind::Set | Kind::Add | Kind::Replace => extras_len == 8 && has_key,
        Kind::Append | Kind::Prepend => extras_len == 0 && has_key,
        Kind::Increment | Kind::Decrement => extras_len == 20 && has_key && !has_value,
        Kind::Touch | Kind::GetAndTouch => extras_len == 4 && has_key && !has_value,
        Kind::Flush => matches!(extras_len, 0 | 4) && !has_key && !has_value,
        Kind::Stat => extras_len == 0 && !has_value,
        Kind::Noop | Kind::Version | Kind::Quit => body_len == 0,
        Kind::Sasl => asked.opcode != 0x20 || body_len == 0,
        Kind::Unknown => true,
    };
    if !fits {
        return ends(asked, replies::BAD_FORMAT);
    }
    if body_len > BODY_MAX {
        return Parsed::Close;
    }
    if matches!(kind, Kind::Sasl | Kind::Unknown) {
        return Parsed::Refused {
            asked,
            reply: replies::ERROR,
            rest: Some((length, value_len)),
        };
    }
    let extras = &bytes[HEADER..HEADER + extras_len];
    let key = &bytes[HEADER + extras_len..length];
    let word = is_word(key);
    // A server names the key of a hit, unless it was asked in base64; of a miss nobody does.
    if asked.wants_key() && (!asked.is_quiet() || !word) {
        asked.key = Some(key.into());
    }
    let frame = Frame {
        kind,
        quiet: asked.is_quiet(),
        length,
        value_len,
        extras,
        key,
        word,
        cas: u64_at(bytes, 16),
    };
    Parsed::Request(asked, frame)
}

/// Whether a key can stand in a line of the text protocol.
fn is_word(key: &[u8]) -> bool {
    let Some(last) = key.last_chunk() else {
        return key.iter().all(|&byte| byte > b' ' && byte != 0x7f);
    };
    let mut eights = key.chunks_exact(8).filter_map(<[u8]>::first_chunk);
    fits_in_word(*last) && eights.all(|&eight| fits_in_word(eight))
}

/// Whether none of eight bytes ends a word: all are above a space, and none is 0x7f.
fn fits_in_word(eight: [u8; 8]) -> bool {
    const ONES: u64 = u64::MAX / 255;
    const HIGH: u64 = ONES << 7;
    let eight = u64::from_ne_bytes(eight);
    // The high bit of a byte is set by the subtraction where the byte is below what is taken from it, and was below 0x80.
    let below = eight.wrapping_sub(ONES * 0x21) & !eight;
    let rubout = eight ^ (ONES * 0x7f);
    let is_rubout = rubout.wrapping_sub(ONES) & !rubout;
    (below | is_rubout) & HIGH == 0
}

/// A time to live as the text protocol has it, which knows no numbers over 31 bits: those moments, from 2038 on, are never.
fn exptime(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(0)
}

impl<'a> Frame<'a> {
    /// The same in a line, and what there is to know of it. The error is the reply to what has no line. `meta`: the servers
    /// know meta commands; those that do not tell no CAS of what they store. A retrieval's line is the key alone: that is all
    /// of it that is looked at again.
    pub fn compose<'b>(
        &self,
        meta: bool,
        line: &'b mut Vec<u8>,
    ) -> Result<Request<'b>, &'static [u8]>
    where
        'a: 'b,
    {
        if self.word && matches!(self.kind, Kind::Get | Kind::GetAndTouch) {
            return Ok(self.retrieval());
        }
        line.clear();
        match self.kind {
            Kind::Flush | Kind::Stat | Kind::Version | Kind::Noop => {}
            _ if !meta => return self.compose_classic(line),
            _ => {}
        }
        match self.kind {
            Kind::Get | Kind::GetAndTouch | Kind::Touch | Kind::Delete => self.compose_keyed(line),
            Kind::Set | Kind::Add | Kind::Replace | Kind::Append | Kind::Prepend => {
                self.compose_storage(line)
            }
            Kind::Increment | Kind::Decrement => self.compose_counter(line),
            Kind::Stat => {
                // `detail dump` and others are more than one word.
                let is_text = |&byte: &u8| byte >= b' ' && byte != 0x7f;
                let listing = self.key.starts_with(b"cachedump");
                if !self.key.iter().all(is_text) || listing {
                    return Err(replies::ERROR);
                }
                line.extend_from_slice(b"stats ");
                line.extend_from_slice(self.key);
                Ok(blank(Verb::Stats, line))
            }
            Kind::Flush => {
                line.extend_from_slice(b"flush_all");
                let delay = self
                    .extras
                    .first_chunk()
                    .map(|&delay| u32::from_be_bytes(delay));
                Ok(Request {
                    exptime: exptime(delay.unwrap_or(0)),
                    ..blank(Verb::FlushAll, line)
                })
            }
            Kind::Version => Ok(blank(Verb::Version, line)),
            _ => Ok(blank(Verb::MetaNoop, line)),
        }
    }

    /// Length of the key as memcached keeps it, which is not in base64.
    pub fn key_len(&self) -> usize {
        self.key.len()
    }

    fn retrieval(&self) -> Request<'a> {
        let (verb, exptime) = match self.kind {
            Kind::Get => (Verb::Gets, 0),
            _ => (Verb::Gats, exptime(u32_at(self.extras, 0))),
        };
        Request {
            key: Token {
                start: 0,
                end: self.key.len(),
            },
            exptime,
            ..blank(verb, self.key)
        }
    }

    /// The command and the key, which stands in base64 where it is no word.
    fn begin(&self, command: &[u8], line: &mut Vec<u8>) -> Result<(Token, Meta), &'static [u8]> {
        line.extend_from_slice(command);
        let start = line.len();
        let mut meta = Meta::default();
        if self.word {
            line.extend_from_slice(self.key);
        } else {
            encode_base64(self.key, line);
            meta.set(b'b');
        }
        let key = Token {
            start,
            end: line.len(),
        };
        if meta.has(b'b') {
            if key.end - key.start > KEY_MAX {
                return Err(replies::BAD_FORMAT);
            }
            line.extend_from_slice(b" b");
        }
        Ok((key, meta))
    }

    fn compose_keyed<'b>(&self, line: &'b mut Vec<u8>) -> Result<Request<'b>, &'static [u8]> {
        match self.kind {
            Kind::Delete => {
                let (key, mut meta) = self.begin(b"md ", line)?;
                self.push_cas(&mut meta, line);
                Ok(Request {
                    key,
                    meta,
                    ..blank(Verb::MetaDelete, line)
                })
            }
            _ => {
                let (key, mut meta) = self.begin(b"mg ", line)?;
                if self.kind != Kind::Get {
                    let ttl = exptime(u32_at(self.extras, 0));
                    push_flag(b'T', u64::from(ttl.unsigned_abs()), &mut meta, line);
                }
                let shown: &[u8] = match self.kind {
                    Kind::Touch => b"fc",
                    _ => b"vfc",
                };
                for &letter in shown {
                    meta.set(letter);
                    line.extend_from_slice(&[b' ', letter]);
                }
                Ok(Request {
                    key,
                    meta,
                    ..blank(Verb::MetaGet, line)
                })
            }
        }
    }

    fn compose_storage<'b>(&self, line: &'b mut Vec<u8>) -> Result<Request<'b>, &'static [u8]> {
        line.extend_from_slice(b"ms ");
        let start = line.len();
        let word = self.word;
        if word {
            line.extend_from_slice(self.key);
        } else {
            encode_base64(self.key, line);
        }
        let end = line.len();
        if end - start > KEY_MAX {
            return Err(replies::BAD_FORMAT);
        }
        line.push(b' ');
        push_decimal(line, self.value_len as u64);
        // Where a CAS is given, memcached asks for nothing else of add and replace.
        let mode = match self.kind {
            Kind::Add if self.cas == 0 => b'E',
            Kind::Replace if self.cas == 0 => b'R',
            Kind::Append => b'A',
            Kind::Prepend => b'P',
            _ => 0,
        };
        let mut meta = Meta::of_mode(mode);
        if !word {
            meta.set(b'b');
            line.extend_from_slice(b" b");
        }
        if mode != 0 {
            line.extend_from_slice(&[b' ', b'M', mode]);
        }
        meta.set(b'c');
        line.extend_from_slice(b" c");
        if self.extras.len() == 8 {
            let flags = u32_at(self.extras, 0);
            let ttl = exptime(u32_at(self.extras, 4));
            meta.client_flags = flags != 0;
            if flags != 0 {
                push_flag(b'F', u64::from(flags), &mut meta, line);
            }
            if ttl != 0 {
                push_flag(b'T', u64::from(ttl.unsigned_abs()), &mut meta, line);
            }
        }
        self.push_cas(&mut meta, line);
        Ok(Request {
            key: Token { start, end },
            data_len: self.value_len,
            client_flags: meta.client_flags,
            meta,
            ..blank(Verb::MetaSet, line)
        })
    }

    fn compose_counter<'b>(&self, line: &'b mut Vec<u8>) -> Result<Request<'b>, &'static [u8]> {
        let (key, mut meta) = self.begin(b"ma ", line)?;
        if self.kind == Kind::Decrement {
            meta.mode = b'D';
            meta.set(b'M');
            line.extend_from_slice(b" MD");
        }
        push_flag(b'D', u64_at(self.extras, 0), &mut meta, line);
        let ttl = u32_at(self.extras, 16);
        if ttl != NO_CREATION {
            push_flag(b'J', u64_at(self.extras, 8), &mut meta, line);
            let ttl = exptime(ttl);
            push_flag(b'N', u64::from(ttl.unsigned_abs()), &mut meta, line);
        }
        self.push_cas(&mut meta, line);
        for letter in *b"vc" {
            meta.set(letter);
            line.extend_from_slice(&[b' ', letter]);
        }
        Ok(Request {
            key,
            meta,
            ..blank(Verb::MetaArithmetic, line)
        })
    }

    /// For servers without meta commands: what can be said in other words.
    fn compose_classic<'b>(&self, line: &'b mut Vec<u8>) -> Result<Request<'b>, &'static [u8]> {
        let plain = self.cas == 0;
        let counts = matches!(self.kind, Kind::Increment | Kind::Decrement);
        let (command, verb): (&[u8], Verb) = match self.kind {
            Kind::Set if plain => (b"set ", Verb::Set),
            Kind::Add if plain => (b"add ", Verb::Add),
            Kind::Replace if plain => (b"replace ", Verb::Replace),
            Kind::Set | Kind::Add | Kind::Replace => (b"cas ", Verb::Cas),
            Kind::Append if plain => (b"append ", Verb::Append),
            Kind::Prepend if plain => (b"prepend ", Verb::Prepend),
            Kind::Delete if plain => (b"delete ", Verb::Delete),
            Kind::Touch => (b"touch ", Verb::Touch),
            _ if !counts || !plain || u32_at(self.extras, 16) != NO_CREATION => {
                return Err(replies::NO_META);
            }
            Kind::Increment => (b"incr ", Verb::Incr),
            _ => (b"decr ", Verb::Decr),
        };
        if !self.word {
            return Err(replies::NO_META);
        }
        let (key, _) = self.begin(command, line)?;
        let mut push = |number: u64| {
            line.push(b' ');
            push_decimal(line, number);
        };
        let mut client_flags = false;
        if self.kind.stores() {
            let (mut flags, mut ttl) = (0, 0);
            if self.extras.len() == 8 {
                flags = u32_at(self.extras, 0);
                ttl = exptime(u32_at(self.extras, 4)).unsigned_abs();
            }
            client_flags = flags != 0;
            for number in [u64::from(flags), u64::from(ttl), self.value_len as u64] {
                push(number);
            }
            if verb == Verb::Cas {
                push(self.cas);
            }
        } else if counts {
            push(u64_at(self.extras, 0));
        } else if self.kind == Kind::Touch {
            push(u64::from(exptime(u32_at(self.extras, 0)).unsigned_abs()));
        }
        Ok(Request {
            key,
            data_len: self.value_len,
            client_flags,
            ..blank(verb, line)
        })
    }

    fn push_cas(&self, meta: &mut Meta, line: &mut Vec<u8>) {
        if self.cas != 0 {
            push_flag(b'C', self.cas, meta, line);
        }
    }
}

fn push_flag(letter: u8, number: u64, meta: &mut Meta, line: &mut Vec<u8>) {
    meta.set(letter);
    line.extend_from_slice(&[b' ', letter]);
    push_decimal(line, number);
}
