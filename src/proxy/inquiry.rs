//! Flow and room: statistics that only the servers have, asked of several and answered as of one.
//!
//! ```text
//!   stats items        P1: STAT items:1:number 5 END     P2: STAT items:1:number 7 END    ->   STAT items:1:number 12 END
//!   stats cachedump    P1: ITEM a [1 b; 0 s] END         P2: ITEM b [1 b; 0 s] END        ->   both, and one END
//! ```
//!
//! Copies are not counted twice: the primaries are asked, and the backups only while a primary is down; an item that several
//! servers list is shown once. A server that does not answer in time is left out.

use std::collections::{HashMap, HashSet};

use super::client::Reply;
use super::ids::ClientId;
use super::server::{Role, Server};
use super::Proxy;
use crate::proto::response::Code;
use crate::proto::token::{next_token, parse_decimal, Token};
use crate::proto::{replies, Verb};

/// memcached has some 60 slab classes with some 25 lines each; more names than this are not kept.
const NAMES_MAX: usize = 16 * 1024;

/// Most bytes of a listing. memcached gives at most 2 MiB.
const LISTING_MAX: usize = 8 * 1024 * 1024;

/// What is asked of all servers, and what has come.
#[derive(Debug)]
pub struct Inquiry {
    client: ClientId,
    seq: u32,
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
enum Found {
    /// Numbers under names, in the order in which the names came.
    Sums(Sums),
    /// Lines of items.
    Items(Vec<u8>),
}

#[derive(Debug, Default)]
struct Sums {
    lines: Vec<(Vec<u8>, Value)>,
    places: HashMap<Vec<u8>, usize>,
}

#[derive(Debug)]
enum Value {
    Number(u64),
    Text(Vec<u8>),
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
            Found::Sums(Sums::default())
        };
        let inquiry = self.inquiries.insert(Inquiry {
            client: id,
            seq,
            // One more while they are being asked.
            due: 1,
            found,
            error: None,
            answered: false,
        });
        let whole = self.servers.iter().all(|s| s.is_up() || !s.is_primary);
        for server in 0..self.servers.len() {
            let asked = self.servers[server].is_primary || !whole;
            if asked && self.servers[server].is_up() {
                self.inquiries[inquiry].due += 1;
                let purpose = (Role::Inquire(inquiry as u32), Verb::Stats, None);
                let link = Server::link_id(server, 0);
                self.queue_bytes(link, line, None, Token::default(), purpose);
            }
        }
        self.end_share(inquiry as u32);
    }

    /// A line of a server's answer that is not the last one.
    pub(super) fn inquiry_line(&mut self, inquiry: u32, line: &[u8]) {
        match &mut self.inquiries[inquiry as usize].found {
            Found::Sums(sums) => sums.add(line),
            Found::Items(items) if items.len() + line.len() < LISTING_MAX => {
                let name = next_token(line, 5).unwrap_or_default();
                if name.of(line) != self.stamp_key {
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
        let entry = self.inquiries.remove(inquiry as usize);
        let mut reply = self.memory.buffer();
        match (entry.found, entry.error) {
            (_, Some(error)) if !entry.answered => reply.extend_from_slice(&error),
            (Found::Sums(sums), _) => {
                sums.write(&mut reply);
                reply.extend_from_slice(replies::END);
            }
            (Found::Items(items), _) => {
                self.memory.give(items.len());
                write_items(&items, &mut reply);
                reply.extend_from_slice(replies::END);
            }
        }
        self.replace_reply(entry.client, entry.seq, Reply::Bytes(reply));
        self.finish_slot(entry.client, entry.seq, 1, b"");
    }
}

impl Sums {
    /// `STAT name value`
    fn add(&mut self, line: &[u8]) {
        let Some(name) = next_token(line, 5) else {
            return;
        };
        let value = &line[(name.end + 1).min(line.len())..];
        let name = name.of(line);
        let number = parse_decimal(value);
        if let Some(&place) = self.places.get(name) {
            if let (Value::Number(sum), Some(number)) = (&mut self.lines[place].1, number) {
                *sum = if is_the_same_everywhere(name) {
                    (*sum).max(number)
                } else {
                    sum.wrapping_add(number)
                };
            }
        } else if self.lines.len() < NAMES_MAX {
            self.places.insert(name.to_vec(), self.lines.len());
            let value = number.map_or_else(|| Value::Text(value.to_vec()), Value::Number);
            self.lines.push((name.to_vec(), value));
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        for (name, value) in &self.lines {
            out.extend_from_slice(b"STAT ");
            out.extend_from_slice(name);
            out.push(b' ');
            match value {
                Value::Number(number) => out.extend_from_slice(number.to_string().as_bytes()),
                Value::Text(text) => out.extend_from_slice(text),
            }
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// Whether a sum over servers would mean nothing: sizes of a class, ages. The highest is shown then.
fn is_the_same_everywhere(name: &[u8]) -> bool {
    let last = name.rsplit(|&byte| byte == b':').next().unwrap_or(name);
    last.starts_with(b"age")
        || matches!(
            last,
            b"chunk_size" | b"chunks_per_page" | b"evicted_time" | b"active_slabs"
        )
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
    fn numbers_are_added_and_what_is_one_for_all_is_not() {
        let mut sums = Sums::default();
        for line in [
            "STAT items:1:number 5",
            "STAT items:1:age 70",
            "STAT sizes_status disabled",
            "STAT 1:chunk_size 96",
            "STAT items:1:number 7",
            "STAT items:1:age 60",
            "STAT 1:chunk_size 96",
            "STAT sizes_status disabled",
            "STAT",
            "STAT empty",
        ] {
            sums.add(line.as_bytes());
        }
        let mut out = Vec::new();
        sums.write(&mut out);
        let expected = "STAT items:1:number 12\r\nSTAT items:1:age 70\r\n\
            STAT sizes_status disabled\r\nSTAT 1:chunk_size 96\r\nSTAT empty \r\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn an_item_is_listed_once() {
        let mut out = Vec::new();
        let items = b"ITEM a [1 b; 0 s]\r\nITEM b [1 b; 0 s]\r\nITEM a [1 b; 0 s]\r\n";
        write_items(items, &mut out);
        assert_eq!(out, b"ITEM a [1 b; 0 s]\r\nITEM b [1 b; 0 s]\r\n");
    }
}
