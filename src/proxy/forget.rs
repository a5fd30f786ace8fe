//! Flow: a key that was noted is deleted on one server.

use super::journal::NotedKey;
use super::route::Route;
use super::server::Role;
use super::txn::TxnId;
use super::Proxy;
use crate::proto::token::Token;
use crate::proto::Verb;

impl Proxy {
    /// Where a noted key lives.
    pub(super) fn route_of_noted(&self, noted: &NotedKey) -> Route {
        if noted.is_base64() {
            if let Some(plain) = crate::proto::meta::decode_base64(noted.key()) {
                return self.routes.of(&plain);
            }
        }
        self.routes.of(noted.key())
    }

    /// Deletes a key on one server, for the proxy's own reasons.
    pub(super) fn delete_on(&mut self, server: usize, route: Route, noted: &NotedKey, role: Role) {
        self.delete_for(None, server, route, noted, role);
    }

    /// The same, for the transaction `id`.
    pub(super) fn delete_for(
        &mut self,
        id: Option<TxnId>,
        server: usize,
        route: Route,
        noted: &NotedKey,
        role: Role,
    ) {
        let mut line = Vec::with_capacity(noted.key().len() + 16);
        let (word, verb) = if noted.is_base64() {
            (&b"md "[..], Verb::MetaDelete)
        } else {
            (&b"delete "[..], Verb::Delete)
        };
        line.extend_from_slice(word);
        let start = line.len();
        line.extend_from_slice(noted.key());
        let key = Token {
            start,
            end: line.len(),
        };
        if noted.is_base64() {
            line.extend_from_slice(b" b");
        }
        line.extend_from_slice(b"\r\n");
        let link_id = self.link_for(server, route);
        self.queue_bytes(link_id, &line, None, key, (role, verb, id));
    }
}
