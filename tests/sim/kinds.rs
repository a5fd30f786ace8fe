//! What the search for an order needs to know of operations: which may pass which.

use super::linear::Rules;
use super::op::{Op, Seen};
use super::request::{Request, Verb};

/// What an operation may pass and be passed by.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    Read,
    /// A read that sets the time to live.
    Touch,
    Write,
}

/// What the search needs to know of an operation again and again.
#[derive(Clone, Copy)]
pub(super) struct Kind {
    /// It changed nothing, whatever the key held: a read, or a write that was refused.
    pub(super) harmless: bool,
    pub(super) class: Class,
    /// A retrieval, and whether it found something.
    pub(super) found: Option<bool>,
    pub(super) unknown: bool,
}

impl Kind {
    pub(super) fn of(op: &Op, rules: Rules) -> Kind {
        let request = &op.request;
        let touches = request.verb.is_retrieval() && !is_read(request);
        let class = match touches {
            true if rules.times => Class::Touch,
            false if !is_read(request) => Class::Write,
            _ => Class::Read,
        };
        let mut kind = Kind {
            harmless: false,
            class,
            found: None,
            unknown: op.seen == Seen::Unknown,
        };
        if let Seen::Reply(reply) = &op.seen {
            let refused: [&[u8]; 7] = [
                b"NOT_STORED",
                b"NOT_FOUND",
                b"EXISTS",
                b"NS",
                b"NF",
                b"EX",
                b"EN",
            ];
            let reads = class == Class::Read;
            kind.harmless = reads || refused.iter().any(|word| reply.starts_with(word));
            kind.found = request.verb.is_retrieval().then_some(!reply.is_empty());
        }
        kind
    }

    /// Whether it is a retrieval that sets times to live.
    pub(super) fn is_touch(self) -> bool {
        self.class == Class::Touch
    }
}

/// Which clients have operations in front that have not taken effect: a client's operations on one key take effect in
/// their order, but for those whose outcome is unknown.
#[derive(Default)]
pub(super) struct Waiting {
    reads: u64,
    touches: u64,
    writes: u64,
}

impl Waiting {
    /// Where a read may be asked again, what its client has asked for behind it without waiting may pass it.
    pub(super) fn may_go(&self, op: &Op, kind: Kind, rules: Rules) -> bool {
        let before = match kind.class {
            Class::Write if !rules.session => self.writes,
            Class::Touch | Class::Read if rules.late => self.writes,
            Class::Touch | Class::Read if !rules.session => self.writes | self.touches,
            _ => self.writes | self.touches | self.reads,
        };
        before & (1 << op.client) == 0
    }

    pub(super) fn note(&mut self, op: &Op, kind: Kind) {
        let client = 1 << op.client;
        match kind.class {
            Class::Read => self.reads |= client,
            Class::Touch => self.touches |= client,
            Class::Write => self.writes |= client,
        }
    }
}

/// Whether a request changes nothing that anybody could see.
pub fn is_read(request: &Request) -> bool {
    match request.verb {
        Verb::Get | Verb::Gets => true,
        Verb::Mg => !request
            .words
            .iter()
            .any(|word| matches!(word[0], b'T' | b'N' | b'R')),
        _ => false,
    }
}
