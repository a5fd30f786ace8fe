//! Flow: copies on servers without meta commands (memcached before 1.6.10).
//!
//! Their commands do not tell how long an item has to live, so a key cannot be brought over when it is asked for: a cold
//! server is written to, but does not act while another copy can. The background copy fills it, with the expiry that the
//! listing gives, as long as nothing has changed since:
//!
//! ```text
//!   source, listing:  key=k exp=1795167703 ...
//!   source:           get k ---- VALUE k 7 5
//!   target:           add k 7 1795167703 5
//! ```
//!
//! A key that was written to meanwhile is left for the next listing; the server is warm after a listing that left none.

use super::order::bucket;
use super::repair::Then;
use super::server::Role;
use super::Proxy;
use crate::proto::response::value_head;
use crate::proto::token::{next_token, parse_decimal, push_decimal, Token};
use crate::proto::Verb;

/// The expiry in a line of the listing, seconds since 1970; 0: never. `None`: it has none.
pub(super) fn listed_expiry(line: &[u8]) -> Option<u64> {
    let at = memchr::memmem::find(line, b" exp=")? + 5;
    let end = memchr::memchr(b' ', &line[at..]).map_or(line.len(), |length| at + length);
    match &line[at..end] {
        b"-1" => Some(0),
        number => parse_decimal(number).filter(|&expiry| expiry > 0),
    }
}

/// How much of a server's memory the item in a line of the listing takes.
pub(super) fn listed_size(line: &[u8]) -> Option<u32> {
    let at = memchr::memmem::rfind(line, b" size=")? + 6;
    let end = memchr::memchr(b' ', &line[at..]).map_or(line.len(), |length| at + length);
    parse_decimal(&line[at..end])?.try_into().ok()
}

impl Proxy {
    /// Asks a server of the old kind for the key of the repair `id`.
    pub(super) fn fetch_classic(&mut self, id: u32, server: usize) {
        let repair = &self.repairs[id as usize];
        let route = repair.route();
        let mut line = b"get ".to_vec();
        line.extend_from_slice(repair.key().key());
        let key = Token {
            start: 4,
            end: line.len(),
        };
        line.extend_from_slice(b"\r\n");
        let link_id = self.link_for(server, route);
        self.queue_bytes(
            link_id,
            &line,
            None,
            key,
            (Role::Fetch(id), Verb::Get, None),
        );
    }

    /// A server of the old kind has answered for the key of the repair `id`: `answer`, whole.
    pub(super) fn fetched_classic(&mut self, id: u32, answer: &[u8]) {
        let repair = &self.repairs[id as usize];
        let (route, target) = (repair.route(), repair.target());
        if self.is_overtaken(route.hash) {
            self.counters.refills_cancelled += 1;
            self.resync.note_skipped();
        } else if self.servers[target].is_up() && self.write_classic(id, answer) {
            self.counters.refills += 1;
            return;
        } else {
            return self.fetch_next(id);
        }
        self.end_repair(id, true);
    }

    /// Puts the item in `answer` on the target of the repair `id`. False: it holds none.
    fn write_classic(&mut self, id: u32, answer: &[u8]) -> bool {
        let repair = &self.repairs[id as usize];
        let Then::Resync(listed) = repair.then() else {
            return false;
        };
        let Some(expires) = listed.expires else {
            return false;
        };
        let Some((data, flags)) = split(answer) else {
            return false;
        };
        let unix = self.facts.unix(self.now);
        if expires != 0 && expires <= unix {
            return false;
        }
        let (route, target) = (repair.route(), repair.target());
        let mut request = b"add ".to_vec();
        request.extend_from_slice(repair.key().key());
        let key = Token {
            start: 4,
            end: request.len(),
        };
        request.push(b' ');
        request.extend_from_slice(flags);
        request.push(b' ');
        push_decimal(&mut request, expires);
        request.push(b' ');
        push_decimal(&mut request, (data.len() - 2) as u64);
        request.extend_from_slice(b"\r\n");
        request.extend_from_slice(data);
        let link_id = self.link_for(target, route);
        self.queue_bytes(
            link_id,
            &request,
            None,
            key,
            (Role::Bring(id), Verb::Add, None),
        );
        true
    }

    /// Whether a listed key has been written to since the listing began, so that what the listing says of it is old.
    pub(super) fn is_overtaken(&self, hash: u32) -> bool {
        let bucket = bucket(hash);
        let now = self.order.epoch(bucket);
        self.resync.epoch_at_listing(bucket) != Some(now)
    }
}

/// The data of a `VALUE` answer, with its line end, and the flags.
fn split(answer: &[u8]) -> Option<(&[u8], &[u8])> {
    let newline = memchr::memchr(b'\n', answer)?;
    let line = answer[..newline].trim_ascii_end();
    let head = value_head(line)?;
    let flags = next_token(line, head.key.end)?;
    let data = answer.get(newline + 1..newline + 1 + head.data_len + 2)?;
    Some((data, flags.of(line)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_listing_tells() {
        let line = b"key=k exp=1795167703 la=5 cas=2 fetch=no cls=1 size=64";
        assert_eq!(listed_expiry(line), Some(1_795_167_703));
        assert_eq!(listed_expiry(b"key=k exp=-1 la=5"), Some(0));
        assert_eq!(listed_expiry(b"key=k exp=-94 la=5"), None);
        assert_eq!(listed_expiry(b"key=k"), None);
        assert_eq!((listed_size(line), listed_size(b"key=k")), (Some(64), None));
        assert_eq!(listed_size(b"key=k size=7 x=1"), Some(7));
    }

    #[test]
    fn an_item_as_get_shows_it() {
        let found = split(b"VALUE k 7 5\r\nhello\r\nEND\r\n");
        assert_eq!(found, Some((&b"hello\r\n"[..], &b"7"[..])));
        assert_eq!(split(b"END\r\n"), None);
    }
}
