//! Flow and room: statistics that only the servers have, asked of several and answered as of one.
//!
//! ```text
//!   stats items        P1: STAT items:1:number 5 END     P2: STAT items:1:number 7 END    ->   STAT items:1:number 12 END
//!   stats cachedump    P1: ITEM a [1 b; 0 s] END         P2: ITEM b [1 b; 0 s] END        ->   both, and one END
//! ```
//!
//! Copies are not counted twice: the primaries are asked, and the backups only while a primary is down; an item that several
//! servers list is shown once. A server that does not answer in time is left out.

use std::collections::HashSet;

use super::census::Page;
use super::client::Reply;
use super::ids::ClientId;
use super::server::{Role, Server};
use super::sums::{of_counters, Sums};
use super::Proxy;
use crate::proto::response::Code;
use crate::proto::token::{next_token, Token};
use crate::proto::{replies, Verb};

/// Most bytes of a listing. memcached gives at most 2 MiB.
const LISTING_MAX: usize = 8 * 1024 * 1024;

/// What is asked of all servers, and what has come.
#[derive(Debug)]
pub struct Inquiry {
    asker: Asker,
    /// Servers whose answer is due.
    due: usize,
    found: Found,
    /// What the first server said that refused.
    error: Option<Vec<u8>>,
    /// One server at least has answered.
    answered: bool,
}

/// What servers said.
#[derive(Debug)]
pub enum Found {
    /// Numbers under names, in the order in which the names came.
    Sums(Sums),
    /// Lines of items.
    Items(Vec<u8>),
}

/// Who wants to know.
#[derive(Clone, Copy, Debug)]
pub enum Asker {
    /// A client, for the reply at this place in its order.
    Client(ClientId, u32),
    /// All clients who wait for this page.
    Census(Page),
    /// Nobody any more.
    Nobody,
}

impl Proxy {
    /// Asks the servers for `line` (with its end). `lists`: the answer is a listing of items, not numbers.
    pub(super) fn inquire(&mut self, id: ClientId, line: &[u8], lists: bool) {
        let Some(client) = self.client_mut(id) else {
            return;
        };
        let seq = client.open_slot(1);
        let found = if lists {
            Found::Items(Vec::new())
        } else {
            Found::Sums(Sums::new(of_counters))
        };
        let whole = self
            .servers
            .iter()
            .all(|s| s.is_up_or_twin() || !s.is_primary);
        let asked = (0..self.servers.len()).filter(|&index| {
            let server = &self.servers[index];
            server.is_up() && (server.is_primary || !whole)
        });
        let asked: Vec<usize> = asked.collect();
        self.ask_servers(Asker::Client(id, seq), line, found, &asked);
    }

    /// Asks the servers `asked` for `line`; the number of the inquiry.
    pub(super) fn ask_servers(
        &mut self,
        asker: Asker,
        line: &[u8],
        found: Found,
        asked: &[usize],
    ) -> u32 {
        let inquiry = self.inquiries.insert(Inquiry {
            asker,
            // One more while they are being asked.
            due: 1 + asked.len(),
            found,
            error: None,
            answered: false,
        });
        for &server in asked {
            let purpose = (Role::Inquire(inquiry as u32), Verb::Stats, None);
            let link = Server::link_id(server, 0);
            self.queue_bytes(link, line, None, Token::default(), purpose);
        }
        self.end_share(inquiry as u32);
        inquiry as u32
    }

    /// A line of a server's answer that is not the last one.
    pub(super) fn inquiry_line(&mut self, inquiry: u32, line: &[u8]) {
        match &mut self.inquiries[inquiry as usize].found {
            Found::Sums(sums) => sums.add(line),
            Found::Items(items) if items.len() + line.len() < LISTING_MAX => {
                let name = next_token(line, 5).unwrap_or_default();
                if !self.lists.is_reserved(name.of(line)) {
                    items.extend_from_slice(line);
                    items.extend_from_slice(b"\r\n");
                    self.memory.take(line.len() + 2);
                }
            }
            Found::Items(_) => {}
        }
    }

    /// A server has said all.
    pub(super) fn inquiry_answered(&mut self, inquiry: u32, code: Code, tail: &[u8]) {
        let entry = &mut self.inquiries[inquiry as usize];
        if code.is_error() {
            entry.error.get_or_insert_with(|| tail.to_vec());
        } else {
            entry.answered = true;
        }
        self.end_share(inquiry);
    }

    /// One server less is due: it has answered, or is not going to.
    pub(super) fn end_share(&mut self, inquiry: u32) {
        let entry = &mut self.inquiries[inquiry as usize];
        entry.due -= 1;
        if entry.due > 0 {
            return;
        }
        self.end_inquiry(inquiry);
        self.inquiries.remove(inquiry as usize);
    }

    /// Whoever wants to know is told what has come so far.
    pub(super) fn end_inquiry(&mut self, inquiry: u32) {
        let entry = &mut self.inquiries[inquiry as usize];
        let asker = std::mem::replace(&mut entry.asker, Asker::Nobody);
        let nothing = Found::Sums(Sums::new(of_counters));
        let found = std::mem::replace(&mut entry.found, nothing);
        let (error, answered) = (entry.error.take(), entry.answered);
        match (asker, found) {
            (Asker::Client(id, seq), found) => {
                let reply = self.inquiry_reply(found, error.filter(|_| !answered));
                self.replace_reply(id, seq, Reply::Bytes(reply));
                self.finish_slot(id, seq, 1, b"");
            }
            (Asker::Census(page), Found::Sums(sums)) => self.census_taken(page, sums, answered),
            (Asker::Nobody | Asker::Census(_), _) => {}
        }
    }

    fn inquiry_reply(&mut self, found: Found, error: Option<Vec<u8>>) -> Vec<u8> {
        let mut reply = self.memory.buffer();
        match (found, error) {
            (_, Some(error)) => reply.extend_from_slice(&error),
            (Found::Sums(sums), None) => {
                sums.write(&mut reply, |_| true);
                reply.extend_from_slice(replies::END);
            }
            (Found::Items(items), None) => {
                self.memory.give(items.len());
                write_items(&items, &mut reply);
                reply.extend_from_slice(replies::END);
            }
        }
        reply
    }
}

/// `ITEM key [...]`: each key once.
fn write_items(items: &[u8], out: &mut Vec<u8>) {
    let mut seen = HashSet::new();
    for line in items.split_inclusive(|&byte| byte == b'\n') {
        if next_token(line, 5).is_some_and(|key| seen.insert(key.of(line))) {
            out.extend_from_slice(line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_is_listed_once() {
        let mut out = Vec::new();
        let items = b"ITEM a [1 b; 0 s]\r\nITEM b [1 b; 0 s]\r\nITEM a [1 b; 0 s]\r\n";
        write_items(items, &mut out);
        assert_eq!(out, b"ITEM a [1 b; 0 s]\r\nITEM b [1 b; 0 s]\r\n");
    }
}
