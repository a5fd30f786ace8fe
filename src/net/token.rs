//! Poll tokens: numbers from which an event finds its connection by an index, without a search.
//!
//! ```text
//!   pool | index | kind: 0 the process (signals, waker, admin), 1 listeners (and addresses), 2 links, 3 clients
//! ```

use mio::Token;

use crate::proxy::{ClientId, LinkId};

/// The signal descriptor.
pub(super) const SIGNALS: Token = Token(0);
/// The waker of the resolver's threads.
pub(super) const WAKER: Token = Token(4);
/// The listener of `--admin`; its connections follow, four apart.
pub(super) const ADMIN: Token = Token(12);
/// Most connections of `--admin`.
pub(super) const ADMIN_CONNS: usize = 16;

/// A connection of `--admin`.
pub(super) fn admin_conn(place: usize) -> Token {
    Token(ADMIN.0 + ((1 + place) << KIND_BITS))
}

/// Marks, and a magent that takes over.
pub(super) const TAKEOVER: Token = Token(8);

const KIND_BITS: u32 = 2;
/// Enough for [`crate::config::file::POOLS_MAX`].
const POOL_BITS: u32 = 10;
const INDEX_BITS: u32 = usize::BITS - POOL_BITS - KIND_BITS;
const INDEX_MASK: usize = (1 << INDEX_BITS) - 1;

/// Connections to one server, the background one included: at most 256.
const CONN_BITS: u32 = 8;
const CONN_MASK: usize = (1 << CONN_BITS) - 1;

const LISTENER: usize = 1;
const LINK: usize = 2;
const CLIENT: usize = 3;

/// Where an event comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Origin {
    Signals,
    Waker,
    Takeover,
    Admin,
    /// The place of one of its connections.
    AdminConn(usize),
    /// A pool, and what of it.
    Pool(usize, Part),
}

/// What of a pool an event is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Part {
    Addresses,
    Listener(usize),
    Link(LinkId),
    /// The index of a client; its generation is in the table.
    Client(usize),
}

/// Where an event with this token comes from.
pub(super) fn origin(token: Token) -> Origin {
    let (kind, rest) = (token.0 & ((1 << KIND_BITS) - 1), token.0 >> KIND_BITS);
    let (pool, index) = (rest >> INDEX_BITS, rest & INDEX_MASK);
    let part = match kind {
        CLIENT => Part::Client(index),
        // Both fit: they were made of a LinkId's own numbers.
        LINK => Part::Link(LinkId {
            server: (index >> CONN_BITS) as u16,
            conn: (index & CONN_MASK) as u16,
        }),
        LISTENER if index == INDEX_MASK => Part::Addresses,
        LISTENER => Part::Listener(index),
        _ if token == SIGNALS => return Origin::Signals,
        _ if token == TAKEOVER => return Origin::Takeover,
        _ if token == WAKER => return Origin::Waker,
        _ if token == ADMIN => return Origin::Admin,
        _ => return Origin::AdminConn(((token.0 - ADMIN.0) >> KIND_BITS) - 1),
    };
    Origin::Pool(pool, part)
}

/// The tokens of one pool.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tokens {
    pool: usize,
}

impl Tokens {
    /// `pool`: below [`crate::config::file::POOLS_MAX`].
    pub fn new(pool: usize) -> Tokens {
        Tokens { pool }
    }

    fn token(&self, kind: usize, index: usize) -> Token {
        Token((self.pool << INDEX_BITS | index & INDEX_MASK) << KIND_BITS | kind)
    }

    /// The kernel has word of addresses.
    pub fn addresses(&self) -> Token {
        self.token(LISTENER, INDEX_MASK)
    }

    pub fn listener(&self, index: usize) -> Token {
        self.token(LISTENER, index)
    }

    pub fn link(&self, id: LinkId) -> Token {
        let conn = usize::from(id.conn) & CONN_MASK;
        self.token(LINK, usize::from(id.server) << CONN_BITS | conn)
    }

    pub fn client(&self, id: ClientId) -> Token {
        self.token(CLIENT, id.index as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_finds_its_way_back() {
        assert_eq!(origin(SIGNALS), Origin::Signals);
        assert_eq!(origin(WAKER), Origin::Waker);
        assert_eq!(origin(TAKEOVER), Origin::Takeover);
        for pool in [0, 1, 999] {
            let tokens = Tokens::new(pool);
            let part = |part| Origin::Pool(pool, part);
            assert_eq!(origin(tokens.addresses()), part(Part::Addresses));
            for index in [0, 1, 70_000] {
                assert_eq!(origin(tokens.listener(index)), part(Part::Listener(index)));
                let id = ClientId {
                    index: index as u32,
                    generation: 7,
                };
                assert_eq!(origin(tokens.client(id)), part(Part::Client(index)));
            }
            for server in [0, 5, 999] {
                for conn in [0, 1, 255] {
                    let id = LinkId { server, conn };
                    assert_eq!(origin(tokens.link(id)), part(Part::Link(id)));
                }
            }
        }
    }
}
