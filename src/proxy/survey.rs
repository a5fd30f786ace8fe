//! Flow and room: keys that other proxies have left away from their primaries are looked for.
//!
//! Each server lists its keys, by its hash table (`lru_crawler metadump hash`): unlike a listing by its LRU, that leaves no
//! item out that is there all the while. Those that belong to another primary are deleted. All servers are up meanwhile, so
//! that no new ones come, and what was on its way before has arrived. In the end each key is at its primary.
//!
//! In pools with copies it is what a former ring has left that is looked for, on the servers that have some (`leftovers`).

use super::ids::{Action, LinkId};
use super::journal::NotedKey;
use super::resync::{is_busy, LISTED_MAX};
use super::server::{LinkState, Role};
use super::Proxy;
use crate::hash::Slices;
use crate::time::{Span, Time};

/// Deletions on their way at the same time.
const WINDOW: usize = 128;

/// A listing that could not be had is asked for again after this.
const RETRY: Span = Span::from_millis(1000);

/// The same for a server that does not know how to list.
const RETRY_UNABLE: Span = Span::from_millis(60_000);

/// Servers must have been up for so long: by then they have done what a proxy that is no more had sent them.
const GRACE: Span = Span::from_millis(1000);

/// How far it is.
#[derive(Debug)]
pub struct Survey {
    /// Servers that are still to be listed, the one that is being listed last. `None`: it has not begun.
    left: Option<Vec<usize>>,
    /// The one that is being listed.
    source: Option<usize>,
    /// Its listing has ended.
    listed: bool,
    /// Its keys that belong elsewhere.
    backlog: Slices<NotedKey>,
    retry: Time,
}

impl Survey {
    /// The server that is being listed.
    pub fn source(&self) -> Option<usize> {
        self.source
    }
}

impl Default for Survey {
    fn default() -> Survey {
        Survey {
            left: None,
            source: None,
            listed: false,
            backlog: Slices::new(LISTED_MAX),
            retry: Time(0),
        }
    }
}

impl Proxy {
    /// Does what can be done now. All servers are up, and this proxy decides.
    pub(super) fn survey(&mut self) {
        if self.ejects.survey.retry > self.now {
            return;
        }
        if self.ejects.survey.left.is_none() {
            if !self.is_calm() {
                return;
            }
            self.ejects.survey.left = Some(if self.routes.ejects() {
                log::info!("keys away from their primaries are looked for on all servers");
                (0..self.servers.len()).collect()
            } else {
                self.with_leftovers()
            });
        }
        loop {
            let survey = &mut self.ejects.survey;
            let Some(source) = survey.source else {
                match survey.left.as_ref().and_then(|left| left.last()) {
                    Some(&source) => self.survey_server(source),
                    None if self.routes.ejects() => self.end_ejection(),
                    None => self.end_survey(),
                }
                return;
            };
            while self.ejects.due < WINDOW {
                let Some(noted) = self.ejects.survey.backlog.pop() else {
                    break;
                };
                self.ejects.due += 1;
                self.counters.ejected_deletes += 1;
                let route = self.route_of_noted(&noted);
                self.delete_on(source, route, &noted, Role::Tidy);
            }
            if !self.ejects.survey.listed || self.ejects.due > 0 {
                return;
            }
            let survey = &mut self.ejects.survey;
            survey.source = None;
            if !survey.backlog.advance() {
                survey.left.as_mut().and_then(Vec::pop);
                if !self.routes.ejects() {
                    self.end_leftovers(source);
                }
            }
        }
    }

    /// Whether whatever may have been written away from its primary has been answered.
    fn is_calm(&self) -> bool {
        let since = self.servers.iter().map(|server| server.since).max();
        let since = since.unwrap_or(self.now);
        let mut links = self.servers.iter().flat_map(|server| &server.links);
        since + GRACE <= self.now
            && links.all(|link| link.fifo.front().is_none_or(|head| head.queued > since))
    }

    fn survey_server(&mut self, source: usize) {
        let survey = &mut self.ejects.survey;
        survey.source = Some(source);
        survey.listed = false;
        let id = self.listing_link(source);
        self.link_mut(id).state = LinkState::Connecting;
        self.actions.push_back(Action::Connect(id));
    }

    /// A server has listed this key.
    pub(super) fn note_surveyed(&mut self, source: usize, key: &[u8]) {
        if self.lists.is_reserved(key) || self.ejects.survey.source != Some(source) {
            return;
        }
        if !self.belongs(source, key) {
            let backlog = &mut self.ejects.survey.backlog;
            backlog.offer(key, || NotedKey::listed(key));
        }
    }

    /// Whether a key lies where it should.
    fn belongs(&self, server: usize, key: &[u8]) -> bool {
        let route = self.routes.of(key);
        if self.routes.ejects() {
            return self.routes.is_primary(server, route);
        }
        let mut ranks = 0..self.routes.ranks();
        ranks.any(|rank| self.routes.server(route, rank) == Some(server))
    }

    /// A listing has ended with this line; its connection has been closed.
    pub(super) fn surveyed(&mut self, source: usize, line: &[u8]) {
        let survey = &mut self.ejects.survey;
        if survey.source != Some(source) {
            return;
        }
        if line == b"END" || line.starts_with(b"NOTSTARTED") {
            survey.listed = true;
            return self.tidy();
        }
        survey.source = None;
        let busy = is_busy(line);
        survey.retry = self.now + if busy { RETRY } else { RETRY_UNABLE };
        if !busy {
            let name = &self.servers[source].name;
            log::warn!("server {name}: lists no keys: {}", line.escape_ascii());
        }
    }

    /// The connection of a listing is gone: it is asked for again later.
    pub(super) fn survey_closed(&mut self, id: LinkId) {
        let survey = &mut self.ejects.survey;
        if survey.source == Some(usize::from(id.server)) && !survey.listed {
            survey.source = None;
            survey.retry = self.now + RETRY;
        }
    }

    /// What has been listed so far is worth nothing any more.
    pub(super) fn end_survey(&mut self) {
        let survey = std::mem::take(&mut self.ejects.survey);
        if let Some(source) = survey.source {
            let id = self.listing_link(source);
            if self.link_mut(id).state != LinkState::Closed {
                self.close_listing(id);
            }
        }
    }
}
