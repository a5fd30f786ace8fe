//! Explicit versions: all copies of a key get the same CAS unique, so a token outlives the server that gave it.
//!
//! memcached 1.6.27 and later take a unique from outside (the meta flag `E`). Where every copy understands it, each
//! write carries a version made here; classic commands, which have no place for one, go to the servers in their meta
//! form, and the answers come back in classic words:
//!
//! ```text
//!   cas k 0 60 1 <token>   ->   ms k 1 T60 F0 C<token> E<version>   HD -> STORED   EX -> EXISTS   NF -> NOT_FOUND
//!   incr k 5               ->   ma k v D5 E<version>                VA 2 \ 10 -> 10
//! ```
//!
//! A version, 64 bits: seven zeros (where a server's own uniques carry its number), a one, 52 bits of microseconds since
//! 1970, 4 bits that tell proxies apart.

use super::op::Op;
use super::tail::Tail;
use super::Proxy;
use crate::proto::meta::Meta;
use crate::proto::response::Code;
use crate::proto::token::{push_decimal, Token, Tokens};
use crate::proto::Verb;

/// The bit that only versions have, with none above it.
const MARK: u64 = 1 << 56;

/// memcached takes no more words in a meta command.
const WORDS_MAX: usize = 19;

/// Whether this is a version made by a proxy: it means the same on every server.
pub(super) fn is_version(unique: u64) -> bool {
    unique >> 56 == 1
}

/// Makes versions: each higher than the one before.
#[derive(Debug)]
pub(super) struct Versions {
    last: u64,
    node: u64,
}

impl Versions {
    /// `me`: the number of this proxy.
    pub(super) fn new(me: u64) -> Versions {
        Versions {
            last: 0,
            node: me % 16,
        }
    }

    /// The next one. `micros`: microseconds since 1970.
    fn next(&mut self, micros: u64) -> u64 {
        self.last = micros.max(self.last + 1);
        MARK | (self.last << 4 & (MARK - 1)) | self.node
    }
}

impl Proxy {
    /// Whether `op` must carry a version.
    pub(super) fn wants_version(&self, op: &Op<'_>) -> bool {
        if !self.explicit_cas || self.routes.ranks() == 1 {
            return false;
        }
        let has = |letter| op.meta.has(letter);
        let makes_unique = match op.verb {
            Verb::Set | Verb::Add | Verb::Replace | Verb::Append | Verb::Prepend | Verb::Cas => {
                return true;
            }
            Verb::Incr | Verb::Decr => return true,
            Verb::MetaSet | Verb::MetaArithmetic => true,
            Verb::MetaDelete => has(b'I') || has(b'x'),
            Verb::MetaGet => has(b'N'),
            _ => false,
        };
        makes_unique && !has(b'E') && Tokens::split(op.line).len() < WORDS_MAX
    }

    /// `op` with a version, in `line`.
    pub(super) fn with_version<'a>(&mut self, op: &Op<'a>, line: &'a mut Vec<u8>) -> Op<'a> {
        let micros = self.facts.unix_micros(self.now);
        let version = self.versions.next(micros);
        compose(op, version, line)
    }
}

fn compose<'a>(op: &Op<'a>, version: u64, line: &'a mut Vec<u8>) -> Op<'a> {
    let mut meta = op.meta;
    let mut key = op.key;
    let mut verb = op.verb;
    if op.verb.is_meta() {
        line.extend_from_slice(op.line);
    } else {
        let tokens = Tokens::split(op.line);
        let word = |index: usize| tokens.get(index).of(op.line);
        let counts = matches!(op.verb, Verb::Incr | Verb::Decr);
        verb = if counts {
            Verb::MetaArithmetic
        } else {
            Verb::MetaSet
        };
        line.extend_from_slice(if counts { b"ma " } else { b"ms " });
        line.extend_from_slice(word(1));
        key = Token {
            start: 3,
            end: line.len(),
        };
        if counts {
            line.extend_from_slice(b" v D");
            line.extend_from_slice(word(2));
        } else {
            line.push(b' ');
            line.extend_from_slice(word(4));
            line.extend_from_slice(b" T");
            line.extend_from_slice(word(3));
            line.extend_from_slice(b" F");
            line.extend_from_slice(word(2));
        }
        let mode = match op.verb {
            Verb::Add => b'E',
            Verb::Replace => b'R',
            Verb::Append => b'A',
            Verb::Prepend => b'P',
            Verb::Decr => b'D',
            _ => 0,
        };
        meta = Meta::of_mode(mode);
        if mode != 0 {
            line.extend_from_slice(&[b' ', b'M', mode]);
        }
        if op.verb == Verb::Cas {
            meta.set(b'C');
            line.extend_from_slice(b" C");
            line.extend_from_slice(word(5));
        }
    }
    line.extend_from_slice(b" E");
    push_decimal(line, version);
    Op {
        verb,
        line,
        key,
        meta,
        // The classic line was made anew, without the word; a meta line is passed on whole, or without its `q`.
        strip: if op.verb.is_meta() {
            op.strip
        } else {
            Token::default()
        },
        ..*op
    }
}

/// What a client that asked `asked` is told of an answer that came in meta words.
pub(super) fn told<'a>(asked: Verb, code: Code, tail: &Tail<'a>) -> (Code, Tail<'a>) {
    if asked.is_meta() {
        return (code, *tail);
    }
    let (code, text): (Code, &[u8]) = match code {
        Code::MetaDone => (Code::Stored, b"STORED\r\n"),
        Code::MetaNotStored => (Code::NotStored, b"NOT_STORED\r\n"),
        Code::MetaExists => (Code::Exists, b"EXISTS\r\n"),
        Code::MetaNotFound => (Code::NotFound, b"NOT_FOUND\r\n"),
        Code::MetaValue => (Code::Number, value_of(tail.text)),
        _ => return (code, *tail),
    };
    (code, Tail::new(text))
}

/// The value in a whole answer `VA ...`, with its line end.
pub(super) fn value_of(answer: &[u8]) -> &[u8] {
    let text = answer.strip_suffix(b"\r\n").unwrap_or(answer);
    let start = memchr::memrchr(b'\n', text).map_or(0, |newline| newline + 1);
    &answer[start..]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::request::{parse, Parsed};
    use crate::proxy::op::{Class, Data};
    use crate::proxy::ClientId;

    #[test]
    fn versions_rise_and_name_no_server() {
        let mut versions = Versions::new(0x1234_5677);
        let first = versions.next(1_795_000_000_000_000);
        let second = versions.next(1_795_000_000_000_000);
        let third = versions.next(1_700_000_000_000_000);
        assert!(first < second && second < third);
        assert!(is_version(first) && first % 16 == 7);
        assert!(!is_version(42) && !is_version(1 << 57 | 42) && !is_version(u64::MAX));
    }

    #[test]
    fn commands_in_their_meta_form() {
        let client = ClientId {
            index: 0,
            generation: 0,
        };
        for (classic, expected) in [
            ("set k 5 60 1", "ms k 1 T60 F5 E9"),
            ("set k 5 60 1 noreply", "ms k 1 T60 F5 E9"),
            ("add k 5 60 1", "ms k 1 T60 F5 ME E9"),
            ("replace k 5 60 1", "ms k 1 T60 F5 MR E9"),
            ("append k 5 60 1", "ms k 1 T60 F5 MA E9"),
            ("prepend k 5 60 1", "ms k 1 T60 F5 MP E9"),
            ("cas k 5 60 1 77", "ms k 1 T60 F5 C77 E9"),
            ("incr k 5", "ma k v D5 E9"),
            ("decr k 5 noreply", "ma k v D5 MD E9"),
            ("ms k 1 q O5", "ms k 1 q O5 E9"),
            ("md k I T30", "md k I T30 E9"),
        ] {
            let Parsed::Request(request) = parse(classic.as_bytes(), true) else {
                panic!("{classic}");
            };
            let op = Op::new(client, 0, &request, Data::None);
            let mut line = Vec::new();
            let op = compose(&op, 9, &mut line);
            assert_eq!(op.line.escape_ascii().to_string(), expected);
            assert_eq!(op.key.of(op.line), b"k");
            // Servers see what they would have seen: who decides stays the same.
            let plain = Op::new(client, 0, &request, Data::None);
            assert_eq!(op.class(), plain.class(), "{classic}");
            assert_eq!(op.asked, request.verb);
            if let Parsed::Request(again) = parse(op.line, true) {
                let again = Op::new(client, 0, &again, Data::None);
                assert_eq!((again.class(), again.verb), (op.class(), op.verb));
            }
        }
        let delete = parse(b"delete k", true);
        assert!(matches!(delete, Parsed::Request(request)
            if Op::new(client, 0, &request, Data::None).class() == Class::Unconditional));
    }

    #[test]
    fn answers_in_classic_words() {
        let told = |asked, code, text| {
            let (code, tail) = told(asked, code, &Tail::new(text));
            (code, tail.text)
        };
        let stored = told(Verb::Add, Code::MetaDone, b"HD\r\n");
        assert_eq!(stored, (Code::Stored, &b"STORED\r\n"[..]));
        let number = told(Verb::Incr, Code::MetaValue, b"VA 2\r\n10\r\n");
        assert_eq!(number, (Code::Number, &b"10\r\n"[..]));
        let meta = told(Verb::MetaSet, Code::MetaDone, b"HD k1\r\n");
        assert_eq!(meta, (Code::MetaDone, &b"HD k1\r\n"[..]));
        assert_eq!(value_of(b"10\r\n"), b"10\r\n");
    }
}
