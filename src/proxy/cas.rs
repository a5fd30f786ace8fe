//! CAS tokens that name the server which gave them.
//!
//! memcached's CAS uniques are counters of one server; another server's item may carry the same number by chance. So
//! the proxy hands out tokens whose top bits name the server, and takes only the deciding server's own back:
//!
//! ```text
//!   63        57 56      52 51                                   0
//!   | server + 1 | start    | the server's own unique            |
//! ```
//!
//! `start` changes with the server's process: a token from before a restart is not taken for one of the new counter.
//! A server that is a magent itself names its own servers; its tokens pass as they are.

use super::sabotage::{is, Sabotage};
use super::version::is_version;
use crate::proto::token::{next_token, parse_decimal, parse_u64, push_decimal, Token};
use crate::proto::Verb;

/// Bits that the server's own unique may take.
const UNIQUE_BITS: u32 = 52;

/// A unique that no item has: the server says that the item differs, or is not there.
const NEVER: u64 = u64::MAX;

/// What names a server in its tokens; 0: its tokens pass as they are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tag(u64);

impl Tag {
    /// The tag of the server with this index, started at `start` (seconds; any number that differs after a restart).
    pub fn new(server: usize, start: u64) -> Tag {
        if is(Sabotage::TokenWithoutServer) {
            return Tag::none();
        }
        let server = server as u64 % 127 + 1;
        Tag(((server << 5) | (start % 32)) << UNIQUE_BITS)
    }

    /// Tokens of this server pass as they are.
    pub fn none() -> Tag {
        Tag(0)
    }

    fn seal(self, unique: u64) -> u64 {
        if unique >> UNIQUE_BITS == 0 {
            self.0 | unique
        } else {
            unique
        }
    }

    /// The server's unique in a token; [`NEVER`] if another server gave it. `numbers`: clients may number items
    /// themselves (`E`), and then ask for a number of their own.
    fn open(self, token: u64, numbers: bool) -> u64 {
        let own = numbers && token >> UNIQUE_BITS == 0;
        // 0 is no token: some commands take it for "whatever is there".
        if self.0 == 0 || token == 0 || is_version(token) || own {
            token
        } else if token >> UNIQUE_BITS == self.0 >> UNIQUE_BITS {
            token & ((1 << UNIQUE_BITS) - 1)
        } else {
            NEVER
        }
    }
}

/// Where the line `line` that answers a meta command has a unique, and what clients are told in its place. 0 comes with
/// failures and means nothing.
pub fn token_of_meta(verb: Verb, line: &[u8], tag: Tag) -> Option<(Token, u64)> {
    let token = match verb {
        Verb::MetaDebug => {
            let token = next_token(line, memchr::memmem::find(line, b" cas=")?)?;
            let start = token.start + 4;
            Token { start, ..token }
        }
        // The commonest: nothing else is told.
        _ if line.starts_with(b"HD c") && !line[4..].contains(&b' ') => Token {
            start: 4,
            end: line.len(),
        },
        _ => meta_flag(line, 2, b'c')?,
    };
    match parse_decimal(token.of(line)) {
        None | Some(0) => None,
        Some(unique) => Some((token, tag.seal(unique))),
    }
}

/// The same for a `VALUE` line, of which `cas` is known.
pub fn token_of_value(cas: Option<(u64, Token)>, tag: Tag) -> Option<(Token, u64)> {
    cas.filter(|&(unique, _)| unique != 0)
        .map(|(unique, token)| (token, tag.seal(unique)))
}

/// Writes the reply line `line` (without its end) to `out`, with its line end, and `token` as clients are told it.
pub fn write_tagged(line: &[u8], (token, cas): (Token, u64), out: &mut Vec<u8>) {
    replace(line, token, cas, out);
    out.extend_from_slice(b"\r\n");
}

/// Where the request `line` carries a token that decides, if it does.
pub fn condition(verb: Verb, line: &[u8]) -> Option<Token> {
    match verb {
        Verb::Cas => {
            let mut token = Token::default();
            for _ in 0..6 {
                token = next_token(line, token.end)?;
            }
            Some(token)
        }
        Verb::MetaSet | Verb::MetaDelete | Verb::MetaArithmetic => {
            let key = next_token(line, next_token(line, 0)?.end)?;
            meta_flag(line, key.end, b'C')
        }
        _ => None,
    }
}

/// Writes `line` to `out` with the token at `token` opened for the server with `tag`; `None`: for one that cannot have
/// given it (a version is as good there). `numbers`: see [`Tag::open`].
pub fn open_request(line: &[u8], token: Token, tag: Option<Tag>, numbers: bool, out: &mut Vec<u8>) {
    let given = parse_u64(token.of(line)).unwrap_or(NEVER);
    let unique = match tag {
        Some(tag) => tag.open(given, numbers),
        None if is_version(given) => given,
        None => NEVER,
    };
    replace(line, token, unique, out);
}

fn replace(line: &[u8], token: Token, number: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(&line[..token.start]);
    push_decimal(out, number);
    out.extend_from_slice(&line[token.end..]);
}

/// The argument of the meta flag `letter`, looked for from `from` on.
fn meta_flag(line: &[u8], from: usize, letter: u8) -> Option<Token> {
    let mut at = from;
    while let Some(token) = next_token(line, at) {
        at = token.end;
        if line[token.start] == letter && token.end > token.start + 1 {
            return Some(Token {
                start: token.start + 1,
                end: token.end,
            });
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::response::value_head;

    fn tagged(verb: Verb, line: &[u8], tag: Tag) -> Option<String> {
        let token = match verb {
            Verb::Gets => token_of_value(value_head(line)?.cas, tag)?,
            _ => token_of_meta(verb, line, tag)?,
        };
        let mut out = Vec::new();
        write_tagged(line, token, &mut out);
        Some(String::from_utf8(out).unwrap())
    }

    fn opened(verb: Verb, line: &str, tag: Option<Tag>) -> String {
        let token = condition(verb, line.as_bytes()).unwrap();
        let mut out = Vec::new();
        open_request(line.as_bytes(), token, tag, false, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_token_goes_round_and_only_its_server_takes_it() {
        let (first, second) = (Tag::new(0, 7), Tag::new(1, 7));
        let reply = tagged(Verb::Gets, b"VALUE k 0 1 42", first).unwrap();
        let token = reply.trim_end().rsplit(' ').next().unwrap().to_string();
        let request = format!("cas k 0 0 1 {token}");
        assert_eq!(opened(Verb::Cas, &request, Some(first)), "cas k 0 0 1 42");
        let never = format!("cas k 0 0 1 {NEVER}");
        assert_eq!(opened(Verb::Cas, &request, Some(second)), never);
        assert_eq!(opened(Verb::Cas, &request, Some(Tag::new(0, 8))), never);
        assert_eq!(opened(Verb::Cas, &request, None), never);
        assert_eq!(opened(Verb::Cas, "cas k 0 0 1 42", Some(first)), never);
    }

    #[test]
    fn meta_flags_carry_tokens_too() {
        let tag = Tag::new(2, 0);
        let reply = tagged(Verb::MetaGet, b"VA 1 kc5 c5 Oc9", tag).unwrap();
        let token = 3u64 << 57 | 5;
        assert_eq!(reply, format!("VA 1 kc5 c{token} Oc9\r\n"));
        assert_eq!(tagged(Verb::MetaSet, b"EX c0", tag), None);
        assert_eq!(tagged(Verb::MetaSet, b"HD", tag), None);
        let debug = tagged(Verb::MetaDebug, b"ME k exp=-1 cas=5 cls=1", tag);
        let expected = format!("ME k exp=-1 cas={} cls=1\r\n", 3u64 << 57 | 5);
        assert_eq!(debug, Some(expected));
        let request = format!("ms C5 1 C{token} T0");
        assert_eq!(opened(Verb::MetaSet, &request, Some(tag)), "ms C5 1 C5 T0");
    }

    #[test]
    fn a_magent_behind_names_its_own_servers() {
        let passed = tagged(Verb::Gets, b"VALUE k 0 1 42", Tag::none());
        assert_eq!(passed.as_deref(), Some("VALUE k 0 1 42\r\n"));
        let request = "cas k 0 0 1 42";
        assert_eq!(opened(Verb::Cas, request, Some(Tag::none())), request);
    }
}
