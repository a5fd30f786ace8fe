//! Poll tokens: dense ranges of numbers, so that an event finds its connection by an index.
//!
//! ```text
//!   0 signals | 1 waker | 2 addresses | 3 admin's listener | 4.. its connections | listeners ... | links: server * conns + conn ... | clients: index ...
//! ```

use mio::Token;

use crate::proxy::{ClientId, LinkId};

/// The signal descriptor.
pub(super) const SIGNALS: Token = Token(0);
/// The waker of the resolver's threads.
pub(super) const WAKER: Token = Token(1);
/// The kernel has word of addresses.
pub(super) const ADDRESSES: Token = Token(2);
/// The listener of `--admin`; its connections follow.
pub(super) const ADMIN: Token = Token(3);
/// Most connections of `--admin`.
pub(super) const ADMIN_CONNS: usize = 16;
const FIRST: usize = 4 + ADMIN_CONNS;

/// Where an event comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Origin {
    Signals,
    Waker,
    Addresses,
    Admin,
    /// The place of one of its connections.
    AdminConn(usize),
    Listener(usize),
    Link(LinkId),
    /// The index of a client; its generation is in the table.
    Client(usize),
}

/// The ranges of one server's tokens.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tokens {
    links: usize,
    clients: usize,
    /// Links of each server, the background one included.
    conns: usize,
}

impl Tokens {
    pub fn new(listeners: usize, servers: usize, conns: usize) -> Tokens {
        let links = FIRST + listeners;
        let clients = links + servers * conns;
        Tokens {
            links,
            clients,
            conns,
        }
    }

    pub fn admin_conn(&self, place: usize) -> Token {
        Token(ADMIN.0 + 1 + place)
    }

    pub fn listener(&self, index: usize) -> Token {
        Token(FIRST + index)
    }

    /// The place of a link in a table of all links.
    pub fn link_index(&self, id: LinkId) -> usize {
        usize::from(id.server) * self.conns + usize::from(id.conn)
    }

    /// Whether it is the last of its server's links, the one that the core uses now and then to list keys.
    pub fn is_background(&self, id: LinkId) -> bool {
        usize::from(id.conn) + 1 == self.conns
    }

    pub fn link(&self, id: LinkId) -> Token {
        Token(self.links + self.link_index(id))
    }

    pub fn client(&self, id: ClientId) -> Token {
        Token(self.clients + id.index as usize)
    }

    pub fn origin(&self, token: Token) -> Origin {
        match token {
            SIGNALS => Origin::Signals,
            WAKER => Origin::Waker,
            ADDRESSES => Origin::Addresses,
            ADMIN => Origin::Admin,
            Token(n) if n < FIRST => Origin::AdminConn(n - ADMIN.0 - 1),
            Token(n) if n < self.links => Origin::Listener(n - FIRST),
            Token(n) if n < self.clients => {
                let index = n - self.links;
                // Both fit: they were made of a LinkId's own numbers.
                Origin::Link(LinkId {
                    server: (index / self.conns) as u16,
                    conn: (index % self.conns) as u16,
                })
            }
            Token(n) => Origin::Client(n - self.clients),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_finds_its_way_back() {
        let tokens = Tokens::new(3, 5, 4);
        assert_eq!(tokens.origin(SIGNALS), Origin::Signals);
        assert_eq!(tokens.origin(WAKER), Origin::Waker);
        assert_eq!(tokens.origin(ADDRESSES), Origin::Addresses);
        let mut last = ADDRESSES;
        let mut next = |token: Token| {
            assert_eq!(token.0, last.0 + 1);
            last = token;
            tokens.origin(token)
        };
        assert_eq!(next(ADMIN), Origin::Admin);
        for place in 0..ADMIN_CONNS {
            assert_eq!(next(tokens.admin_conn(place)), Origin::AdminConn(place));
        }
        for index in 0..3 {
            assert_eq!(next(tokens.listener(index)), Origin::Listener(index));
        }
        for server in 0..5 {
            for conn in 0..4 {
                let id = LinkId { server, conn };
                assert_eq!(next(tokens.link(id)), Origin::Link(id));
                assert_eq!(tokens.is_background(id), conn == 3);
            }
        }
        for index in 0..10 {
            let id = ClientId {
                index,
                generation: 7,
            };
            assert_eq!(next(tokens.client(id)), Origin::Client(index as usize));
        }
    }
}
