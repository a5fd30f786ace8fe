//! Flow: while keys are handed over after a reload, what is written at a key's new place is deleted at its old one.

use super::ids::LinkId;
use super::journal::NotedKey;
use super::op::Op;
use super::read::key_token;
use super::repair::is_base64;
use super::route::Route;
use super::server::{InFlight, Role};
use super::txn::TxnId;
use super::Proxy;
use crate::proto::Verb;

impl Proxy {
    /// The server where the key was before, if what is written to the key now leaves an old value there.
    fn former_place(&self, route: Route) -> Option<usize> {
        let former = route.former()?;
        let mut copies =
            (0..self.routes.ranks()).filter_map(|rank| self.routes.server(route, rank));
        // One of the copies gets the write itself.
        (!copies.any(|copy| copy == former)).then_some(former)
    }

    /// A write is about to go to the copies of a key. If the server of its old copy is away, it misses that its copy is old:
    /// the others are stamped ahead of the write.
    pub(super) fn leave_out_former(&mut self, op: &Op<'_>) {
        let former = self.former_place(op.route);
        let away = former.filter(|&former| !self.servers[former].is_up());
        if let Some(former) = away {
            self.leave_out(former);
        }
    }

    /// An unconditional write goes to the copies of its key: its old copy goes.
    pub(super) fn delete_former(&mut self, id: TxnId, op: &Op<'_>) {
        // Without a value of its own it needs the old one; see `touched`.
        if op.verb != Verb::Touch {
            self.forget_former(id, op.route, || op.noted());
        }
    }

    /// A copy at the key's new place has another time to live: with the one from before the old copy could outlive it.
    pub(super) fn touched(&mut self, link: LinkId, id: TxnId, flight: &InFlight) {
        let route = self.txns.at(id).route;
        if route.former().is_some() {
            let bytes = self.flight_bytes(link, flight).to_vec();
            self.delete_former_of(id, route, flight, &bytes);
        }
    }

    /// A conditional write has been decided with effect at the key's new place.
    pub(super) fn delete_former_of(
        &mut self,
        id: TxnId,
        route: Route,
        flight: &InFlight,
        request: &[u8],
    ) {
        let key = key_token(flight).of(request);
        self.forget_former(id, route, || {
            NotedKey::new(key, is_base64(flight.verb, request))
        });
    }

    fn forget_former(&mut self, id: TxnId, route: Route, noted: impl FnOnce() -> NotedKey) {
        let Some(former) = self.former_place(route) else {
            return;
        };
        let noted = noted();
        if self.servers[former].is_up() {
            self.delete_for(Some(id), former, route, &noted, Role::Behind);
        } else {
            self.servers[former].journal.note(noted);
            let missed = self.is_safe() && self.has_views() && self.needs_view_without(former);
            if missed {
                // Lost since the write was sent.
                self.leave_out(former);
                self.fence(id);
            }
        }
    }
}
