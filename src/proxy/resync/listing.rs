//! Flow: a server lists its keys, on a connection of its own.

use super::super::classic::{listed_expiry, listed_size};
use super::super::ids::{Action, LinkId};
use super::super::journal::NotedKey;
use super::super::server::{LinkState, Role, Server};
use super::super::Proxy;
use super::{Listed, RETRY};
use crate::proto::token::Token;
use crate::proto::Verb;
use crate::time::Span;

/// Taken for the size of an item of which the listing does not tell it.
const SIZE_UNTOLD: u32 = 1024;

impl Proxy {
    pub(in crate::proxy) fn listing_link(&self, source: usize) -> LinkId {
        Server::link_id(source, self.servers[source].conns)
    }

    /// Whether `id` is a connection for listings.
    pub(in crate::proxy) fn is_listing(&self, id: LinkId) -> bool {
        usize::from(id.conn) == self.servers[usize::from(id.server)].conns
    }

    /// The connection for the listing is made.
    pub(in crate::proxy) fn begin_listing(&mut self, id: LinkId) {
        self.link_mut(id).state = LinkState::Ready;
        if !self.meta {
            self.resync.epochs = self.order.epochs();
        }
        let purpose = (Role::Listing, Verb::Stats, None);
        let by_use = self.resync.by_use.contains(&usize::from(id.server));
        let line: &[u8] = if by_use {
            b"lru_crawler metadump all\r\n"
        } else {
            b"lru_crawler metadump hash\r\n"
        };
        self.queue_bytes(id, line, None, Token::default(), purpose);
    }

    /// The connection for the listing is gone: it is asked for again later.
    pub(in crate::proxy) fn listing_closed(&mut self, id: LinkId) {
        let memory = &mut self.memory;
        self.servers[usize::from(id.server)].links[usize::from(id.conn)].reset(memory);
        self.survey_closed(id);
        if self.resync.source == Some(usize::from(id.server)) {
            self.resync.source = None;
            self.resync.retry = Some(self.now + RETRY);
        }
    }

    /// A line of the listing. False: the connection has done its duty.
    pub(in crate::proxy) fn take_listing(&mut self, id: LinkId, line: &[u8]) -> bool {
        let source = usize::from(id.server);
        if let Some(key) = line.strip_prefix(b"key=") {
            let end = key
                .iter()
                .position(|&byte| byte == b' ')
                .unwrap_or(key.len());
            if let Some(key) = decode(&key[..end]) {
                if self.is_surveying(source) {
                    self.note_surveyed(source, &key);
                } else {
                    self.note_listed(source, &key, line);
                }
            }
            return true;
        }
        if line == b"OK" {
            return true;
        }
        if self.is_surveying(source) {
            self.close_listing(id);
            self.surveyed(source, line);
            return false;
        }
        if line == b"END" || line.starts_with(b"NOTSTARTED") {
            self.resync.listed = true;
        } else if is_busy(line) {
            self.resync.retry = Some(self.now + RETRY);
        } else if !self.resync.by_use.contains(&source) {
            // It may be one that walks along the order of use only.
            self.resync.by_use.push(source);
            self.resync.retry = Some(self.now);
        } else {
            // It cannot list: its keys come over as they are asked for, and the target stays cold.
            log::warn!(
                "server {}: lists no keys: {}",
                self.servers[source].name,
                line.escape_ascii()
            );
            self.resync.retry = Some(self.now + Span(RETRY.0 * 60));
        }
        self.close_listing(id);
        if self.resync.listed {
            self.check_listed();
        } else {
            self.resync.source = None;
        }
        false
    }

    /// Whether a listing is not one for the background copy.
    fn is_surveying(&self, source: usize) -> bool {
        self.routes.ejects() || self.ejects.survey.source() == Some(source)
    }

    /// Closes the connection for the listing.
    pub(in crate::proxy) fn close_listing(&mut self, id: LinkId) {
        let memory = &mut self.memory;
        self.servers[usize::from(id.server)].links[usize::from(id.conn)].reset(memory);
        self.actions.push_back(Action::CloseLink(id));
    }

    /// `line`: what the listing says of the key.
    fn note_listed(&mut self, source: usize, key: &[u8], line: &[u8]) {
        let Some(target) = self.resync.target else {
            return;
        };
        if self.lists.is_reserved(key) {
            return;
        }
        let route = self.routes.of(key);
        let ranks = 0..self.routes.ranks();
        let copies = ranks.filter_map(|rank| self.routes.server(route, rank));
        let mut belongs = false;
        let mut listed_before = false;
        for server in copies {
            belongs |= server == target;
            listed_before |= self.resync.vouchers.contains(&server);
        }
        // Each key is copied once, though several sources list it.
        if belongs && !listed_before {
            // In later slices the same keys are listed again.
            self.resync.total += u64::from(self.resync.backlog.is_first());
            let round = self.resync.round;
            self.resync.backlog.offer(key, || {
                let listed = Listed {
                    expires: listed_expiry(line),
                    size: listed_size(line).unwrap_or(SIZE_UNTOLD),
                    round,
                    source: source as u16,
                };
                (NotedKey::listed(key), listed)
            });
        }
    }
}

/// Whether a server that was asked for a listing is to be asked again: it makes another one, or its hash table grows.
pub(in crate::proxy) fn is_busy(line: &[u8]) -> bool {
    line.starts_with(b"BUSY") || line.starts_with(b"ERROR locked")
}

/// A key as `metadump` writes it: bytes other than letters, digits and `-._~` as `%XX`.
fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut key = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        if byte != b'%' {
            key.push(byte);
            rest = after;
            continue;
        }
        let digits = std::str::from_utf8(after.get(..2)?).ok()?;
        key.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &after[2..];
    }
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listed_keys_are_decoded() {
        assert_eq!(decode(b"key%3A0").as_deref(), Some(&b"key:0"[..]));
        assert_eq!(decode(b"%e4%80").as_deref(), Some(&[0xe4, 0x80][..]));
        assert_eq!(decode(b"a%4"), None);
    }
}
