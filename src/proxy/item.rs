//! An item as a server shows it, to be brought to another one.

use super::version::is_version;
use crate::proto::token::{next_token, parse_decimal};

/// An item as `mg <key> v t f k c` shows it.
pub(super) struct Item<'a> {
    /// Remaining seconds; `None`: for ever.
    pub(super) ttl: Option<u64>,
    pub(super) flags: &'a [u8],
    /// With its line end.
    pub(super) data: &'a [u8],
    /// The unique that all copies have.
    pub(super) version: Option<u64>,
    /// Marked as stale by `md I`.
    pub(super) stale: bool,
    /// This reader has been given the right to refill it.
    pub(super) won: bool,
    /// The key as the server writes it, and whether that is base64.
    pub(super) key: Option<&'a [u8]>,
    pub(super) base64: bool,
}

impl<'a> Item<'a> {
    /// Reads `VA <length> t<ttl> f<flags> k<key>` and its data. `None`: it is none.
    pub(super) fn parse(answer: &'a [u8]) -> Option<Item<'a>> {
        let newline = memchr::memchr(b'\n', answer)?;
        let line = answer[..newline].trim_ascii_end();
        let mut item = Item {
            ttl: None,
            flags: b"0",
            data: &answer[newline + 1..],
            version: None,
            stale: false,
            won: false,
            key: None,
            base64: false,
        };
        let mut at = 3;
        while let Some(token) = next_token(line, at) {
            at = token.end;
            let text = token.of(line);
            match text[0] {
                b't' if &text[1..] != b"-1" => item.ttl = Some(parse_decimal(&text[1..])?.max(1)),
                b'f' => item.flags = &text[1..],
                b'c' => item.version = parse_decimal(&text[1..]).filter(|&c| is_version(c)),
                b'X' => item.stale = true,
                b'W' => item.won = true,
                b'k' => item.key = Some(&text[1..]),
                b'b' => item.base64 = true,
                _ => {}
            }
        }
        (item.data.len() >= 2).then_some(item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_as_servers_show_them() {
        let item = Item::parse(b"VA 5 t300 f4294967295\r\nhello\r\n").unwrap();
        assert_eq!((item.ttl, item.flags), (Some(300), &b"4294967295"[..]));
        assert_eq!(item.data, b"hello\r\n");
        let binary = Item::parse(b"VA 1 t5 f0 kYQ== b\r\nx\r\n").unwrap();
        assert_eq!((binary.key, binary.base64), (Some(&b"YQ=="[..]), true));
        let forever = Item::parse(b"VA 0 t-1 f0\r\n\r\n").unwrap();
        assert_eq!((forever.ttl, forever.data), (None, &b"\r\n"[..]));
        assert!(!item.stale && Item::parse(b"VA 1 t5 f0 X W\r\nx\r\n").unwrap().stale);
        assert!(Item::parse(b"EN\r\n").is_none());
    }
}
