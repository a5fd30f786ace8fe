//! Room: retrievals spread over several servers: which key is whose share, and what came of it.

use slab::Slab;

use super::ids::{ClientId, LinkId};
use super::op::Op;
use super::route::Route;
use crate::proto::token::Token;
use crate::proto::Verb;
use crate::time::Time;

/// No key, no part.
pub const NONE: u16 = u16::MAX;

/// So many retrievals that are over are kept for the next ones.
const SPARE_MAX: usize = 64;

/// Most that is reserved for the values of one part before they come.
pub const RESERVE_MAX: usize = 256 * 1024;

/// A key of a retrieval: where it lives, and where its value is.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    pub route: Route,
    /// Nothing may overtake this retrieval on its key.
    pub exclusive: bool,
    pub part: u16,
    /// The next key of the same part.
    pub next: u16,
    /// Its block in the part's buffer; length 0: none.
    pub start: usize,
    pub len: usize,
}

/// One server's share.
#[derive(Debug)]
pub struct Part {
    pub link: LinkId,
    /// Where its request begins in the log of the link, and its first key in the request.
    pub request: u64,
    pub first_key: Token,
    /// Its first key, its last, and the first that the answer has not passed.
    pub first: u16,
    pub last: u16,
    pub at: u16,
    /// How many keys it has, and how many the answer has passed.
    pub count: usize,
    pub seen: usize,
    /// The blocks that came.
    pub bytes: Vec<u8>,
    /// Where the block that is coming begins.
    pub block: usize,
}

/// A retrieval over several servers.
#[derive(Debug)]
pub struct Gather {
    pub client: ClientId,
    pub seq: u32,
    pub verb: Verb,
    pub exptime: i32,
    pub last: bool,
    pub keys: Vec<Wanted>,
    pub parts: Vec<Part>,
    /// Parts whose answer is due, and keys that are being brought over.
    pub due: usize,
    /// Keys that have been brought over, to which server, and since when that had been in use: to be asked for again.
    pub again: Vec<(u16, (usize, Time), Vec<u8>)>,
    /// They have been asked for again; what is missing now is missing.
    pub repaired: bool,
}

/// Retrievals under way, and room for more.
#[derive(Debug, Default)]
pub struct Gathers {
    pub slab: Slab<Gather>,
    pub spare: Vec<Gather>,
    pub targets: Vec<Target>,
}

impl Gathers {
    pub fn open(
        &mut self,
        client: ClientId,
        seq: u32,
        verb: Verb,
        (exptime, last): (i32, bool),
    ) -> u32 {
        let spare = self.spare.pop();
        let (keys, parts) = spare
            .map(|gather| (gather.keys, gather.parts))
            .unwrap_or_default();
        self.slab.insert(Gather {
            client,
            seq,
            verb,
            exptime,
            last,
            keys,
            parts,
            due: 0,
            again: Vec::new(),
            repaired: false,
        }) as u32
    }

    pub fn at(&mut self, id: u32) -> &mut Gather {
        &mut self.slab[id as usize]
    }

    /// Takes a retrieval back whose parts have been emptied.
    pub fn keep(&mut self, mut gather: Gather) {
        gather.keys.clear();
        gather.parts.clear();
        if self.spare.len() < SPARE_MAX {
            self.spare.push(gather);
        }
    }

    /// True when none is under way.
    pub fn is_empty(&self) -> bool {
        self.slab.is_empty()
    }

    /// Gives room back that nothing needs now.
    pub fn rest(&mut self) {
        self.spare = Vec::new();
        self.targets = Vec::new();
        if self.slab.is_empty() {
            self.slab = Slab::new();
        }
    }
}

/// A key about to be asked for.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its index in the retrieval.
    pub index: u16,
    /// Its place in the line.
    pub key: Token,
    /// Where it lives.
    pub route: Route,
    /// Whom to ask.
    pub link: LinkId,
}

impl Wanted {
    pub fn new(route: Route, exclusive: bool) -> Wanted {
        Wanted {
            route,
            exclusive,
            part: 0,
            next: NONE,
            start: 0,
            len: 0,
        }
    }
}

impl Target {
    /// Stands for a key none of whose copies is up.
    pub fn nowhere(index: usize, route: Route) -> Target {
        Target {
            index: index as u16,
            key: Token::default(),
            route,
            link: LinkId {
                server: u16::MAX,
                conn: u16::MAX,
            },
        }
    }

    pub fn is_somewhere(&self) -> bool {
        self.link.server != u16::MAX
    }
}

impl Part {
    /// A share that begins with the key of `target`.
    pub fn new(target: &Target, request: u64, first_key: Token) -> Part {
        Part {
            link: target.link,
            request,
            first_key,
            first: target.index,
            last: target.index,
            at: target.index,
            count: 0,
            seen: 0,
            bytes: Vec::new(),
            block: 0,
        }
    }
}

impl Gather {
    /// The values that came, in the order of the request.
    pub fn values(&self) -> impl Iterator<Item = &[u8]> + Clone {
        let found = self.keys.iter().filter(|wanted| wanted.len > 0);
        found.map(|wanted| {
            let part = &self.parts[usize::from(wanted.part)];
            &part.bytes[wanted.start..wanted.start + wanted.len]
        })
    }

    /// A request for `key_count` of its keys, for the transaction of a part.
    pub fn op(&self, key_count: usize) -> Op<'static> {
        Op::of_keys(self.client, self.seq, self.verb, self.exptime, key_count)
    }
}
