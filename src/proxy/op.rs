//! One keyed request on its way: borrowed while it can go at once, owned while it must wait its turn.

use std::rc::Rc;

use super::ids::ClientId;
use super::journal::NotedKey;
use super::route::Route;
use crate::buf::{Body, Memory};
use crate::proto::meta::Meta;
use crate::proto::request::Request;
use crate::proto::token::Token;
use crate::proto::Verb;
use crate::time::Time;

/// A data block, with its line end but for `Bare`.
#[derive(Clone, Copy, Debug)]
pub enum Data<'a> {
    /// The command has none.
    None,
    /// Small: copied into each stream.
    Inline(&'a [u8]),
    /// The same, without the line end that belongs to it.
    Bare(&'a [u8]),
    /// Large: shared by the streams.
    Shared(&'a Body),
}

/// A request that goes to servers.
#[derive(Clone, Copy, Debug)]
pub struct Op<'a> {
    /// Who asked.
    pub client: ClientId,
    /// The place of the reply in that client's order.
    pub seq: u32,
    /// The command as servers get it.
    pub verb: Verb,
    /// The command as the client gave it, in whose words it is answered.
    pub asked: Verb,
    /// The line as the client sent it, without its end.
    pub line: &'a [u8],
    /// The part of the line that is not passed on.
    pub strip: Token,
    /// The key's place in the line; retrievals: the first of this batch.
    pub key: Token,
    /// Retrievals: where the batch ends in the line, and how many keys it has.
    pub keys_end: usize,
    /// See `keys_end`; 1 for all other commands.
    pub key_count: usize,
    /// Retrievals: the reply ends with `END` (not so for the first parts of a long list of keys).
    pub last: bool,
    /// Storage commands: the data block.
    pub data: Data<'a>,
    /// Nominal replies are not wanted.
    pub quiet: bool,
    /// Meta commands: their flags.
    pub meta: Meta,
    /// `gat`: the time to live.
    pub exptime: i32,
    /// Where the (first) key lives.
    pub route: Route,
}

/// How a command treats the copies of its key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// Changes nothing: asked of the acting primary.
    Read,
    /// Has the same outcome everywhere: sent to all copies at once.
    Unconditional,
    /// Depends on what is there: decided by the acting primary, its outcome is mirrored.
    Conditional,
}

impl<'a> Op<'a> {
    /// An op made of a parsed request; `data` is its block.
    pub fn new(client: ClientId, seq: u32, request: &Request<'a>, data: Data<'a>) -> Op<'a> {
        Op {
            client,
            seq,
            verb: request.verb,
            asked: request.verb,
            line: request.line,
            strip: request.strip,
            key: request.key,
            keys_end: request.line.len(),
            key_count: 1,
            last: true,
            data,
            quiet: request.quiet,
            meta: request.meta,
            exptime: request.exptime,
            route: Route::default(),
        }
    }

    /// Keys of a retrieval, the line apart.
    pub fn of_keys(
        client: ClientId,
        seq: u32,
        verb: Verb,
        exptime: i32,
        key_count: usize,
    ) -> Op<'static> {
        Op {
            client,
            seq,
            verb,
            asked: verb,
            line: &[],
            strip: Token::default(),
            key: Token::default(),
            keys_end: 0,
            key_count,
            last: true,
            data: Data::None,
            quiet: false,
            meta: Meta::default(),
            exptime,
            route: Route::default(),
        }
    }

    /// How this command treats the copies of its key.
    pub fn class(&self) -> Class {
        match self.verb {
            Verb::Set | Verb::Delete | Verb::Touch => Class::Unconditional,
            Verb::Add | Verb::Replace | Verb::Append | Verb::Prepend | Verb::Cas => {
                Class::Conditional
            }
            Verb::Incr | Verb::Decr | Verb::MetaArithmetic => Class::Conditional,
            // T changes the time to live, N and R hand out the right to refill.
            Verb::MetaGet if self.has_any(b"TNR") => Class::Conditional,
            Verb::MetaSet if self.meta.has(b'C') => Class::Conditional,
            Verb::MetaSet if !matches!(self.meta.mode, 0 | b'S' | b's') => Class::Conditional,
            Verb::MetaDelete if self.meta.has(b'C') => Class::Conditional,
            Verb::MetaSet | Verb::MetaDelete => Class::Unconditional,
            _ => Class::Read,
        }
    }

    /// Its key, to be remembered.
    pub fn noted(&self) -> NotedKey {
        NotedKey::new(self.key.of(self.line), self.meta.has(b'b'))
    }

    fn has_any(&self, letters: &[u8]) -> bool {
        letters.iter().any(|&letter| self.meta.has(letter))
    }

    /// An owned copy, for one that must wait.
    pub fn to_held(self, memory: &mut Memory) -> Held {
        let mut bytes = self.line.to_vec();
        let mut body = None;
        match self.data {
            Data::None => {}
            Data::Inline(data) => bytes.extend_from_slice(data),
            Data::Bare(data) => {
                bytes.extend_from_slice(data);
                bytes.extend_from_slice(b"\r\n");
            }
            Data::Shared(shared) => body = Some(Rc::clone(shared)),
        }
        memory.take(bytes.len());
        Held {
            op: self.detached(),
            line_len: self.line.len(),
            bytes,
            body,
            since: Time(0),
        }
    }
}

/// An op with its own bytes.
#[derive(Debug)]
pub struct Held {
    op: Op<'static>,
    line_len: usize,
    /// The line, then the data block if it is small.
    bytes: Vec<u8>,
    body: Option<Body>,
    /// When it was put aside.
    pub since: Time,
}

impl Op<'_> {
    /// The same without anything borrowed.
    fn detached(self) -> Op<'static> {
        Op {
            line: &[],
            data: Data::None,
            client: self.client,
            seq: self.seq,
            verb: self.verb,
            asked: self.asked,
            strip: self.strip,
            key: self.key,
            keys_end: self.keys_end,
            key_count: self.key_count,
            last: self.last,
            quiet: self.quiet,
            meta: self.meta,
            exptime: self.exptime,
            route: self.route,
        }
    }
}

impl Held {
    /// An op whose line is `line` and whose data block comes later; see [`Held::with_data`].
    pub fn of_line(op: &Op<'_>) -> Held {
        Held {
            op: op.detached(),
            line_len: op.line.len(),
            bytes: op.line.to_vec(),
            body: None,
            since: Time(0),
        }
    }

    /// The op again.
    pub fn op(&self) -> Op<'_> {
        let data = if let Some(body) = &self.body {
            Data::Shared(body)
        } else if self.bytes.len() > self.line_len {
            Data::Inline(&self.bytes[self.line_len..])
        } else {
            Data::None
        };
        self.with_data(data)
    }

    /// The op with a data block given from outside.
    pub fn with_data<'a>(&'a self, data: Data<'a>) -> Op<'a> {
        Op {
            line: &self.bytes[..self.line_len],
            data,
            ..self.op
        }
    }

    /// The ring has changed: its key lives there now.
    pub fn set_route(&mut self, route: Route) {
        self.op.route = route;
    }

    /// Gives its memory back.
    pub fn release(self, memory: &mut Memory) {
        memory.give(self.bytes.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::request::{parse, Parsed};

    fn class(line: &[u8]) -> Class {
        let client = ClientId {
            index: 0,
            generation: 0,
        };
        match parse(line, false) {
            Parsed::Request(request) => Op::new(client, 0, &request, Data::None).class(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn who_decides() {
        for line in [&b"get k"[..], b"gat 5 k", b"mg k v", b"me k"] {
            assert_eq!(class(line), Class::Read, "{}", line.escape_ascii());
        }
        for line in [
            &b"set k 0 0 1"[..],
            b"delete k",
            b"touch k 0",
            b"ms k 1",
            b"ms k 1 MS",
            b"md k I",
        ] {
            assert_eq!(class(line), Class::Unconditional, "{}", line.escape_ascii());
        }
        for line in [
            &b"add k 0 0 1"[..],
            b"incr k 1",
            b"mg k T5",
            b"ms k 1 C3",
            b"ms k 1 ME",
            b"md k C1",
            b"ma k",
        ] {
            assert_eq!(class(line), Class::Conditional, "{}", line.escape_ascii());
        }
    }
}
