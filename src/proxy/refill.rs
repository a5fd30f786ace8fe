//! Flow: an item that was fetched from one copy is written to the one that lacks it.

use super::item::Item;
use super::repair::Then;
use super::sabotage::{is, Sabotage};
use super::server::Role;
use super::Proxy;
use crate::proto::token::{push_decimal, Token};
use crate::proto::Verb;

/// memcached takes a time to live over 30 days for a moment since 1970.
pub(super) const RELATIVE_MAX: u64 = 30 * 24 * 60 * 60;

impl Proxy {
    /// Writes the item to the server that lacks it, with what was left of its life, unless one is there by now.
    pub(super) fn write_item(&mut self, id: u32, item: &Item<'_>) {
        let unix = self.facts.unix(self.now);
        let repair = &self.repairs[id as usize];
        let name = item.key.unwrap_or(repair.key().key());
        let base64 = item.base64 || (item.key.is_none() && repair.key().is_base64());
        let mut request = b"ms ".to_vec();
        request.extend_from_slice(name);
        let key = Token {
            start: 3,
            end: request.len(),
        };
        request.push(b' ');
        push_decimal(&mut request, (item.data.len() - 2) as u64);
        if base64 {
            request.extend_from_slice(b" b");
        }
        request.extend_from_slice(b" T");
        push_decimal(
            &mut request,
            match item.ttl {
                // A moment long ago.
                None if is(Sabotage::ForeverAsNow) => RELATIVE_MAX + 1,
                None => 0,
                Some(_) if is(Sabotage::TimeForgotten) => 0,
                Some(ttl) if ttl > RELATIVE_MAX && !is(Sabotage::MonthAsRelative) => unix + ttl,
                Some(ttl) => ttl,
            },
        );
        request.extend_from_slice(b" F");
        request.extend_from_slice(item.flags);
        let version = item.version.filter(|_| self.explicit_cas);
        if let Some(version) = version {
            push_version(&mut request, version);
        }
        if !matches!(repair.then(), Then::Over(_)) {
            request.extend_from_slice(b" ME");
        }
        request.extend_from_slice(b"\r\n");
        request.extend_from_slice(item.data);
        let link_id = self.link_for(repair.target(), repair.route());
        let mark = item.stale.then(|| stale_mark(name, base64, version));
        let txn = match repair.then() {
            Then::Answer(txn) => Some(*txn),
            Then::Over(over) => Some(over.txn),
            _ => None,
        };
        let role = match repair.then() {
            Then::Over(_) => Role::Exact,
            Then::Resync(_) => Role::Bring(id),
            _ => Role::Refill,
        };
        let purpose = (role, Verb::MetaSet, txn);
        self.queue_bytes(link_id, &request, None, key, purpose);
        if let Some(line) = mark {
            // A stale item is brought over as one: who reads it first may refill it.
            let purpose = (Role::Refill, Verb::MetaDelete, None);
            self.queue_bytes(link_id, &line, None, key, purpose);
        }
    }

    /// The copy that was asked for a stale item took that for a client who is going to refill it: it is told that nobody is.
    pub(super) fn give_back(&mut self, id: u32, version: Option<u64>) {
        let repair = &self.repairs[id as usize];
        let server = repair.asked();
        let name = repair.key().key();
        let version = version.filter(|_| self.explicit_cas);
        let line = stale_mark(name, repair.key().is_base64(), version);
        let key = Token {
            start: 3,
            end: 3 + name.len(),
        };
        let link_id = self.link_for(server, repair.route());
        let purpose = (Role::Refill, Verb::MetaDelete, None);
        self.queue_bytes(link_id, &line, None, key, purpose);
    }
}

/// The request that marks an item as stale; `name` stands behind its first three bytes.
fn stale_mark(name: &[u8], base64: bool, version: Option<u64>) -> Vec<u8> {
    let mut line = b"md ".to_vec();
    line.extend_from_slice(name);
    let flags: &[u8] = if base64 { b" I b" } else { b" I" };
    line.extend_from_slice(flags);
    if let Some(version) = version {
        push_version(&mut line, version);
    }
    line.extend_from_slice(b"\r\n");
    line
}

fn push_version(line: &mut Vec<u8>, version: u64) {
    line.extend_from_slice(b" E");
    push_decimal(line, version);
}
