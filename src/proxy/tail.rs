//! The last piece of an answer, often the whole of it, on its way from a server to a client.
//!
//! A CAS token in it stands there as the server gave it. What the client is told instead is put into words as the reply
//! leaves, and only for a client that speaks text: a frame holds numbers.

use crate::proto::response::ValueHead;
use crate::proto::token::{Decimal, Token};

/// The last piece of an answer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tail<'a> {
    /// As the server said it, line ends included.
    pub text: &'a [u8],
    /// What the client is told for the token; 0: there is none.
    cas: u64,
    /// Where the token stands.
    from: u32,
    /// See `from`.
    to: u32,
    /// Of a whole `VALUE` answer with its `END`: what stands in it.
    value: Option<Value>,
}

/// What stands in a `VALUE` answer, and where.
#[derive(Clone, Copy, Debug)]
struct Value {
    flags: u32,
    key_end: u32,
    data_at: u32,
    data_len: u32,
}

/// What stands in an answer with one value, for a client that wants it in a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Found<'a> {
    /// The client's flags.
    pub flags: u32,
    /// The key.
    pub key: &'a [u8],
    /// The data without its line end.
    pub data: &'a [u8],
}

impl<'a> Tail<'a> {
    /// One without a token.
    pub fn new(text: &'a [u8]) -> Tail<'a> {
        Tail {
            text,
            ..Tail::default()
        }
    }

    /// One whose token at `token` is shown as `cas`.
    pub fn with_token(text: &'a [u8], token: Token, cas: u64) -> Tail<'a> {
        Tail {
            text,
            cas,
            from: token.start as u32,
            to: token.end as u32,
            value: None,
        }
    }

    /// A whole `VALUE` answer with its `END`: its first line says `head`, and its data begins at `data_at`. Such an answer is
    /// in one buffer of the edge, far below 4 GiB.
    pub fn of_value(
        text: &'a [u8],
        head: &ValueHead,
        data_at: usize,
        token: Option<(Token, u64)>,
    ) -> Tail<'a> {
        let (token, cas) = token.unwrap_or_default();
        Tail {
            value: Some(Value {
                flags: head.flags,
                key_end: head.key.end as u32,
                data_at: data_at as u32,
                data_len: head.data_len as u32,
            }),
            ..Tail::with_token(text, token, cas)
        }
    }

    /// The value, if that is all that is told.
    pub fn found(&self) -> Option<Found<'a>> {
        let value = self.value?;
        let at = value.data_at as usize;
        Some(Found {
            flags: value.flags,
            key: self.text.get(KEY_AT..value.key_end as usize)?,
            data: self.text.get(at..at + value.data_len as usize)?,
        })
    }

    /// What the client is told for a token; 0: there is none.
    pub fn cas(&self) -> u64 {
        self.cas
    }

    /// Whether it is `HD` with a token and nothing else.
    pub fn is_done_with_token(&self) -> bool {
        self.cas != 0
            && self.from as usize == DONE.len()
            && self.to as usize + 2 == self.text.len()
            && self.text.starts_with(DONE)
    }

    /// How long it is as a client that speaks text sees it.
    pub fn shown_len(&self) -> usize {
        let digits = self
            .cas
            .checked_ilog10()
            .map_or(0, |tens| tens as usize + 1);
        self.text.len() - (self.to - self.from) as usize + digits
    }

    /// As a client that speaks text is to see it.
    pub fn show(&self, then: impl FnOnce([&[u8]; 3])) {
        if self.cas == 0 {
            return then([self.text, b"", b""]);
        }
        let (before, behind) = (
            &self.text[..self.from as usize],
            &self.text[self.to as usize..],
        );
        then([before, Decimal::new(self.cas).as_bytes(), behind]);
    }
}

/// Where the key of a `VALUE` line begins.
const KEY_AT: usize = 6;

/// What stands before the token where nothing else is told.
const DONE: &[u8] = b"HD c";

/// The reply that tells of a write `cas` and nothing else.
pub fn done_with(cas: u64, then: impl FnOnce([&[u8]; 3])) {
    then([DONE, Decimal::new(cas).as_bytes(), b"\r\n"]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(tail: &Tail<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        tail.show(|pieces| out = pieces.concat());
        assert_eq!(tail.shown_len(), out.len());
        out
    }

    #[test]
    fn a_token_is_shown_as_the_client_knows_it() {
        let token = Token { start: 4, end: 6 };
        let done = Tail::with_token(b"HD c42\r\n", token, 1 << 57 | 42);
        assert!(done.is_done_with_token());
        assert_eq!(shown(&done), b"HD c144115188075855914\r\n");
        let more = Tail::with_token(b"HD c42 k1\r\n", token, 7);
        assert!(!more.is_done_with_token());
        assert_eq!(shown(&more), b"HD c7 k1\r\n");
        assert_eq!(shown(&Tail::new(b"HD\r\n")), b"HD\r\n");
        assert!(!Tail::new(b"HD c42\r\n").is_done_with_token());
        let mut out = Vec::new();
        done_with(1 << 57 | 42, |pieces| out = pieces.concat());
        assert_eq!(out, shown(&done));
    }
}
