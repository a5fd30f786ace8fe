//! The flags of the meta commands (`mg ms md ma`).
//!
//! Source: `protocol.txt` of memcached 1.6, and the order in which the server finds mistakes.

use super::replies;
use super::token::{parse_i32, parse_u32, parse_u64, Tokens};

/// memcached takes at most this many words in a meta command, the command itself included.
const WORDS_MAX: usize = 19;

/// Longest opaque word, with its `O`.
const OPAQUE_MAX: usize = 32;

/// The flags of one meta command: which letters it has, and what the proxy needs of them.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Meta {
    letters: u64,
    /// `M`: the mode's letter; 0 without one.
    pub mode: u8,
    /// `F` with a number other than 0 (such items are four bytes larger).
    pub client_flags: bool,
}

fn bit(letter: u8) -> u64 {
    if letter.is_ascii_alphabetic() {
        1 << (letter - b'A')
    } else {
        0
    }
}

impl Meta {
    /// Whether the flag `letter` was given.
    pub fn has(&self, letter: u8) -> bool {
        self.letters & bit(letter) != 0
    }

    /// The flags of a command whose only ones are its mode (0: none) and those set later.
    pub fn of_mode(mode: u8) -> Meta {
        let mut meta = Meta {
            mode,
            ..Meta::default()
        };
        if mode != 0 {
            meta.set(b'M');
        }
        meta
    }

    /// Adds the flag `letter`.
    pub fn set(&mut self, letter: u8) {
        self.letters |= bit(letter);
    }

    /// `me` has no flags but `b`.
    pub fn set_base64(&mut self) {
        self.letters |= bit(b'b');
    }
}

/// Which of the meta commands; they differ in limits and in how they word a mistake.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Command {
    /// `mg`
    Get,
    /// `ms`
    Set,
    /// `md`
    Delete,
    /// `ma`
    Arithmetic,
}

impl Command {
    /// The reply when there are too many words, else `None`.
    pub fn refuse_word_count(self, words: usize) -> Option<&'static [u8]> {
        match self {
            _ if words <= WORDS_MAX => None,
            Command::Get => Some(replies::GET_FLAGS_TOO_LONG),
            _ => Some(replies::FLAGS_TOO_LONG),
        }
    }

    fn is_mode(self, mode: u8) -> bool {
        match self {
            Command::Set => b"EAPRSeaprs".contains(&mode),
            Command::Arithmetic => b"ID+-id".contains(&mode),
            Command::Get | Command::Delete => true,
        }
    }
}

/// Checks the flags from word `first` on. `explicit_cas`: the servers know `E` and `x` (1.6.27 and later).
/// The error is memcached's reply.
pub fn parse(
    command: Command,
    line: &[u8],
    tokens: &Tokens,
    first: usize,
    explicit_cas: bool,
) -> Result<Meta, &'static [u8]> {
    let mut meta = Meta::default();
    let preparse = parse_flags(line, tokens, first, explicit_cas, &mut meta);
    if let Err(reply) = preparse {
        return Err(match command {
            Command::Get | Command::Set => reply,
            Command::Delete | Command::Arithmetic => replies::INVALID_OR_DUPLICATE_FLAG,
        });
    }
    if meta.mode != 0 && !command.is_mode(meta.mode) {
        return Err(match command {
            Command::Arithmetic => replies::BAD_ARITHMETIC_MODE,
            _ => replies::BAD_SET_MODE,
        });
    }
    let opaque_too_long = tokens.as_slice().iter().skip(first).any(|token| {
        let text = token.of(line);
        text[0] == b'O' && text.len() > OPAQUE_MAX
    });
    if opaque_too_long {
        return Err(replies::OPAQUE_TOO_LONG);
    }
    Ok(meta)
}

fn parse_flags(
    line: &[u8],
    tokens: &Tokens,
    first: usize,
    explicit_cas: bool,
    meta: &mut Meta,
) -> Result<(), &'static [u8]> {
    // memcached goes on after a bad number and reports the last mistake; a bad letter ends it at once.
    let mut mistake = false;
    let mut reply = replies::BAD_FORMAT;
    let mut refuse = |text: Option<&'static [u8]>| {
        mistake = true;
        if let Some(text) = text {
            reply = text;
        }
    };
    let mut seen = 0u128;
    for token in tokens.as_slice().iter().skip(first) {
        let text = token.of(line);
        let letter = text[0];
        if letter >= 127 || seen & (1 << letter) != 0 {
            return Err(replies::DUPLICATE_FLAG);
        }
        seen |= 1 << letter;
        meta.letters |= bit(letter);
        let argument = &text[1..];
        match letter {
            b'N' | b'T' | b'R' if parse_i32(argument).is_none() => {
                refuse(Some(replies::BAD_FLAG_TOKEN));
            }
            b'C' if parse_u64(argument).is_none() => refuse(Some(replies::BAD_FLAG_TOKEN)),
            b'E' | b'x' if !explicit_cas => return Err(replies::INVALID_FLAG),
            b'E' if parse_u64(argument).is_none() => refuse(Some(replies::BAD_FLAG_TOKEN)),
            b'F' => match parse_u32(argument) {
                Some(flags) => meta.client_flags = flags != 0,
                None => refuse(None),
            },
            b'M' if text.len() != 2 => refuse(Some(replies::BAD_MODE_LENGTH)),
            b'M' => meta.mode = text[1],
            b'J' if parse_u64(argument).is_none() => refuse(Some(replies::BAD_INITIAL)),
            b'D' if parse_u64(argument).is_none() => refuse(Some(replies::BAD_META_DELTA)),
            b'b' if decode_base64(tokens.get(1).of(line)).is_none() => {
                refuse(Some(replies::BAD_BASE64));
            }
            b'N' | b'T' | b'R' | b'C' | b'E' | b'x' | b'J' | b'D' | b'b' => {}
            b'l' | b'O' | b'P' | b'L' | b'k' | b's' | b't' | b'c' | b'f' => {}
            b'v' | b'h' | b'u' | b'q' | b'I' => {}
            _ => return Err(replies::INVALID_FLAG),
        }
    }
    if mistake {
        Err(reply)
    } else {
        Ok(())
    }
}

/// Decodes a key given with the `b` flag (RFC 4648, with padding). `None` if it is not base64, or empty.
pub fn decode_base64(text: &[u8]) -> Option<Vec<u8>> {
    if text.is_empty() || text.len() % 4 != 0 {
        return None;
    }
    let padding = text.iter().rev().take_while(|&&byte| byte == b'=').count();
    if padding > 2 {
        return None;
    }
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let mut bits = 0u32;
    for (index, &byte) in text.iter().enumerate() {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            b'=' if index >= text.len() - padding => 0,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        if index % 4 == 3 {
            out.extend_from_slice(&bits.to_be_bytes()[1..]);
            bits = 0;
        }
    }
    out.truncate(out.len() - padding);
    Some(out)
}

/// Encodes a key for the `b` flag, to the end of `out`.
pub fn encode_base64(key: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for three in key.chunks(3) {
        let byte = |index: usize| three.get(index).copied().map_or(0, u32::from);
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        let mut four = [18, 12, 6, 0].map(|shift| DIGITS[(bits >> shift & 63) as usize]);
        four[three.len() + 1..].fill(b'=');
        out.extend_from_slice(&four);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(command: Command, line: &[u8], first: usize) -> Result<Meta, &'static [u8]> {
        parse(command, line, &Tokens::split(line), first, false)
    }

    #[test]
    fn letters_and_mode_are_kept() {
        let meta = flags(Command::Set, b"ms k 2 T0 ME F1 q", 3).unwrap();
        assert!(meta.has(b'q') && meta.has(b'T') && !meta.has(b'v'));
        assert_eq!((meta.mode, meta.client_flags), (b'E', true));
    }

    #[test]
    fn mistakes_are_worded_as_memcached_does() {
        let cases: [(Command, &[u8], usize, &[u8]); 9] = [
            (Command::Get, b"mg a v v", 2, replies::DUPLICATE_FLAG),
            (Command::Get, b"mg a Z", 2, replies::INVALID_FLAG),
            (Command::Get, b"mg a E1", 2, replies::INVALID_FLAG),
            (Command::Get, b"mg a T", 2, replies::BAD_FLAG_TOKEN),
            (Command::Get, b"mg Z! b", 2, replies::BAD_BASE64),
            (Command::Set, b"ms a 2 Fx", 3, replies::BAD_FORMAT),
            (Command::Set, b"ms a 2 MZ", 3, replies::BAD_SET_MODE),
            (
                Command::Delete,
                b"md a Cx",
                2,
                replies::INVALID_OR_DUPLICATE_FLAG,
            ),
            (
                Command::Arithmetic,
                b"ma a MX",
                2,
                replies::BAD_ARITHMETIC_MODE,
            ),
        ];
        for (command, line, first, expected) in cases {
            assert_eq!(
                flags(command, line, first),
                Err(expected),
                "{}",
                line.escape_ascii()
            );
        }
    }

    #[test]
    fn base64_needs_its_padding() {
        assert_eq!(decode_base64(b"Zm9v").as_deref(), Some(&b"foo"[..]));
        assert_eq!(decode_base64(b"YQ==").as_deref(), Some(&b"a"[..]));
        assert_eq!(decode_base64(b"YQ="), None);
        assert_eq!(decode_base64(b"YQ"), None);
        assert_eq!(decode_base64(b"===="), None);
        assert_eq!(decode_base64(b""), None);
    }
    #[test]
    fn base64_there_and_back() {
        for length in 1..=250 {
            let key: Vec<u8> = (0..length).map(|n| (n * 37 + length) as u8).collect();
            let mut text = Vec::new();
            encode_base64(&key, &mut text);
            assert_eq!(decode_base64(&text).as_deref(), Some(&key[..]));
        }
        let mut text = Vec::new();
        encode_base64(b"foo\xff", &mut text);
        assert_eq!(text, b"Zm9v/w==");
    }
}
