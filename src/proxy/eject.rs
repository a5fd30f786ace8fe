//! Flow and room: `--eject`: while a primary is away, its keys are at other primaries.
//!
//! A key has places: its primary, then other primaries in an order of its own. The first that is up acts for it, and is the
//! only one that is written. What lies at another place must never be served once it is old:
//!
//! ```text
//!   P is away    set k 1   Q: set stamp "P's keys are at their 2nd place, too"; set k 1    noted for P: k    record: k
//!   P is back              P: delete k, before it is used
//!                set k 2   P: set k 2    Q: delete k
//!   all are up             Q: delete what is in the record; all: set stamp "each key is at its primary"
//!   P is away    get k     Q: nothing
//! ```
//!
//! So long as the stamps name P, each write of one of its keys is a deletion at the other places, whoever wrote there. The
//! record only serves to end that: a proxy that knows all keys that were written there itself deletes them; for another one
//! the servers list theirs (`survey`).

use super::events::Kind;
use super::journal::{Journal, NotedKey};
use super::op::Op;
use super::route::Route;
use super::server::{Role, Server};
use super::survey::Survey;
use super::txn::TxnId;
use super::view::{Ejected, View};
use super::Proxy;

/// Keys of the record that are deleted at a time.
const TIDY_BATCH: usize = 512;

/// What this proxy knows of keys away from their primaries.
#[derive(Debug)]
pub struct Ejects {
    /// Where keys may lie.
    pub known: Ejected,
    /// The same, as the stamps of the present view have it.
    pub said: Ejected,
    /// Keys that were written away from their primary; not complete: other proxies may have written more.
    pub record: Journal,
    /// Deletions for the proxy's own reasons that are under way.
    pub due: usize,
    /// Where the record does not tell all.
    pub survey: Survey,
    /// The `flush_all` under way has been carried out wherever it was answered.
    pub flushed: bool,
}

impl Ejects {
    /// Each key is at its primary. `limit`: most keys of the record.
    pub fn new(limit: usize) -> Ejects {
        Ejects {
            known: Ejected::default(),
            said: Ejected::default(),
            record: Journal::new(limit),
            due: 0,
            survey: Survey::default(),
            flushed: false,
        }
    }
}

impl Proxy {
    /// The first place of a key that is up, and its server; `None` if that is below `from`: behind a server that is up nothing
    /// is to be found.
    pub(super) fn acting_place(&self, route: Route, from: usize) -> Option<(usize, usize)> {
        let mut places = 0..self.routes.places();
        let found = places.find_map(|place| {
            let server = self.routes.server(route, place)?;
            self.servers[server].is_up().then_some((place, server))
        });
        found.filter(|&(place, _)| place >= from)
    }

    /// A write of `op`'s key is about to go to its place `acting`.
    pub(super) fn write_at(&mut self, op: &Op<'_>, acting: usize) {
        if self.last_place(op.route, acting) > 0 {
            self.note_ejected(op.route, &op.noted(), acting);
        }
    }

    /// The highest place at which the key may be, when it is about to be written at the place `acting`.
    fn last_place(&self, route: Route, acting: usize) -> usize {
        self.ejects.known.place(route.primary()).max(acting)
    }

    /// A write of a key is about to go to its place `acting`: its places that are away miss it, and the stamps say so
    /// ahead of it.
    pub(super) fn note_ejected(&mut self, route: Route, noted: &NotedKey, acting: usize) {
        let primary = route.primary();
        if acting > 0 {
            if self.ejects.known.note(primary, acting) {
                let detail = "ejected, its keys go to other servers";
                self.happened_to(usize::from(primary), Kind::ServerEjected, detail);
            }
            self.counters.ejected_writes += 1;
            self.ejects.record.note(noted.clone());
        }
        let mut raise = self.ejects.known != self.ejects.said;
        for place in 0..=self.last_place(route, acting) {
            let Some(server) = self.routes.server(route, place) else {
                continue;
            };
            if !self.servers[server].is_up() {
                self.counters.degraded_writes += 1;
                raise |= self.needs_view_without(server);
                self.servers[server].journal.note(noted.clone());
            }
        }
        if raise {
            self.raise_view();
        }
    }

    /// The key of a write that goes to the place `acting` is deleted at the places behind that. Its client is answered
    /// when that is done, too.
    pub(super) fn delete_behind(
        &mut self,
        id: TxnId,
        route: Route,
        noted: impl FnOnce() -> NotedKey,
        acting: usize,
    ) {
        let last = self.last_place(route, acting);
        if last <= acting {
            return;
        }
        let noted = noted();
        for place in acting + 1..=last {
            let server = self.routes.server(route, place);
            if let Some(server) = server.filter(|&server| self.servers[server].is_up()) {
                self.counters.ejected_deletes += 1;
                self.delete_for(Some(id), server, route, &noted, Role::Behind);
            }
        }
    }

    /// Another proxy's `view` is the present one now: what its stamps say counts. Called before it is taken over.
    pub(super) fn adopt_ejected(&mut self, view: View) {
        let mut said = Ejected::default();
        let connected = self.servers.iter().filter(|server| server.is_connected());
        let stamps = connected.filter_map(|server| server.stamp.as_ref());
        let own = self.lists.own.key;
        let mut elsewhere = false;
        for stamp in stamps.filter(|stamp| stamp.view == view) {
            elsewhere |= stamp.list != own && self.routes.ejects();
            if stamp.list == own {
                said.merge(&stamp.ejected);
            }
        }
        let last = self.routes.places() - 1;
        let everywhere = Ejected::everywhere(self.routes.primaries(), last);
        // While two serve at the same time, the other may not have seen what this one has said.
        self.end_survey();
        let both = self.view.owner == self.me && self.is_active();
        let ejects = &mut self.ejects;
        if both {
            ejects.known.merge(&said);
        } else {
            ejects.known = said.clone();
        }
        ejects.said = said;
        if elsewhere {
            // Written under another list, they name other servers.
            ejects.known.merge(&everywhere);
        }
        ejects.record.clear();
        if !ejects.known.is_empty() {
            ejects.record.forget();
        }
    }

    /// With all servers in use, keys are deleted where they do not belong; when that is done, the stamps say that each key is
    /// at its primary. Called now and then.
    pub(super) fn tidy(&mut self) {
        // While keys are handed over, what does not belong on a server is what its new one is to get.
        if self.reload.is_near() || self.reload.handover.is_some() {
            return;
        }
        if !self.routes.ejects() {
            return self.tidy_leftovers();
        }
        if self.ejects.known.is_empty() {
            return;
        }
        if self.recheck.is_some() || !self.servers.iter().all(Server::is_up_or_twin) {
            return self.end_survey();
        }
        // Only a proxy that serves decides; and not before it knows what others did.
        if !self.is_active() || self.barrier.is_raised() {
            return;
        }
        if self.ejects.record.is_complete() {
            self.tidy_record();
        } else {
            self.survey();
        }
    }

    fn tidy_record(&mut self) {
        if self.ejects.due > 0 {
            return;
        }
        let keys = self.ejects.record.take(TIDY_BATCH);
        if keys.is_empty() {
            return self.end_ejection();
        }
        for noted in keys {
            let route = self.route_of_noted(&noted);
            for place in 1..=self.last_place(route, 0) {
                if let Some(server) = self.routes.server(route, place) {
                    self.ejects.due += 1;
                    self.counters.ejected_deletes += 1;
                    self.delete_on(server, route, &noted, Role::Tidy);
                }
            }
        }
    }

    /// A key that did not belong on a server is gone, or the server is.
    pub(super) fn tidied(&mut self) {
        self.ejects.due = self.ejects.due.saturating_sub(1);
    }

    /// No server that is up holds a key that does not belong there.
    pub(super) fn end_ejection(&mut self) {
        self.ejects.known = Ejected::default();
        self.ejects.record.clear();
        self.end_survey();
        log::info!("each key is at its primary");
        self.raise_view();
    }
}
