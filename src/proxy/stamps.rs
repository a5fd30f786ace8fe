//! Flow: stamps are read and written, and views raised.

use std::rc::Rc;

use super::events::Kind;
use super::ids::LinkId;
use super::lists::{Named, LISTS_KEY};
use super::op::Op;
use super::sabotage::{is, Sabotage};
use super::server::{InFlight, LinkState, Role, Server, State};
use super::txn::TxnId;
use super::view::{stamp_key_of, Ejected, Origin, Stamp, View};
use super::Proxy;
use crate::proto::response::Code;
use crate::proto::token::{push_decimal, Token};
use crate::proto::Verb;
use crate::time::{Span, Time};

impl Proxy {
    /// Asks the servers that are up for their stamps.
    pub(super) fn ask_stamps(&mut self) {
        for server in 0..self.servers.len() {
            if self.servers[server].is_up() {
                self.ask_stamp(server);
            }
        }
    }

    pub(super) fn ask_stamp(&mut self, server: usize) {
        let line = self.lists.request();
        let key = Token {
            start: 4,
            end: line.len() - 2,
        };
        self.servers[server].answer.clear();
        let purpose = (Role::Stamp, Verb::Get, None);
        self.queue_bytes(Server::link_id(server, 0), &line, None, key, purpose);
    }

    /// Whether every server that is up has been asked for its stamp since `since`, and has answered.
    pub(super) fn has_stamps_since(&self, since: Time) -> bool {
        let mut up = self.servers.iter().filter(|server| server.is_up());
        up.all(|server| server.stamp_asked >= since)
    }

    /// The server has answered for its stamp.
    pub(super) fn stamp_answered(&mut self, id: LinkId, flight: &InFlight, code: Code) {
        let asked = flight.queued;
        let index = usize::from(id.server);
        let text = std::mem::take(&mut self.servers[index].answer);
        let trusted = !self.servers[index].is_magent;
        let text = if code == Code::End { &text[..] } else { b"" };
        let said = self.lists.read(text, trusted);
        let length = (flight.end - flight.start) as usize;
        if !self.lists.settled && length < self.lists.request().len() {
            // Stamps under another list that has become known since count as well: they are asked for before anything is made
            // of this.
            return self.ask_stamp(index);
        }
        let stamp = said.stamp;
        self.note_lists(index, said.named);
        let foreign = |stamp: &Stamp| stamp.view.owner != self.me;
        let stamp = stamp.filter(|stamp| !is(Sabotage::ForeignStampIgnored) || !foreign(stamp));
        let active = self.is_active();
        let server = &mut self.servers[index];
        if server.restamps == 0 {
            server.stamp_asked = server.stamp_asked.max(asked);
            match stamp {
                Some(stamp) => {
                    // Not what it said before, too: a reload may have told this proxy more.
                    let is_new = server.stamp.as_ref() != Some(&stamp);
                    if server.is_up() && !active && is_new {
                        // Nor what it says under another ring: it may lack what belongs on it now.
                        let knows_ring = self.lists.is_named(&server.named);
                        server.cold = stamp.cold || (server.cold && !knows_ring);
                    }
                    let lacks_own = server.is_up() && stamp.list != self.lists.own.key;
                    let is_current = stamp.view == self.view;
                    server.stamp = Some(stamp);
                    if lacks_own && is_current && active && self.lists.settled {
                        self.restamp(index);
                    }
                }
                // Flushed or evicted while the connection stood: the server has missed nothing, if it had the present
                // stamp.
                None if server.is_up() => {
                    let may = self.lists.settled || !self.lists.has_others();
                    if active && may && self.view.number > 0 && server.view() == self.view {
                        self.restamp(index);
                    }
                }
                None => server.stamp = None,
            }
        }
        let link = self.link_mut(id);
        if link.state == LinkState::Unproven {
            link.state = LinkState::Ready;
            if self.now.since(asked) >= Span(self.settings.timeout.0 / 2) {
                self.doubt_unknown(index);
            }
            self.link_ready(index);
        } else {
            self.consider();
        }
    }

    /// Stamps a server, on each of its connections: no write may stand before the stamp.
    pub(super) fn restamp(&mut self, index: usize) {
        if !self.may_stamp() {
            return;
        }
        let server = &mut self.servers[index];
        if server.entry_due > 0 {
            // Another connection's deletions may still be on their way: it is stamped when they are done.
            return;
        }
        let stamp = Stamp {
            view: self.view,
            origin: self.origin.clone(),
            cold: server.cold,
            ejected: self.ejects.said.clone(),
            flush: self.flush_moment(),
            list: self.lists.own.key,
        };
        let keys: Vec<u64> = self.lists.written().collect();
        for list in keys {
            if list == stamp.list {
                self.put_item(index, &stamp_key_of(list), &stamp.value());
                continue;
            }
            // For proxies that have not been told of this list yet. Their places are others.
            let mut other = Stamp {
                origin: None,
                ..stamp.clone()
            };
            if self.routes.ejects() {
                let last = self.routes.places() - 1;
                other.ejected = Ejected::everywhere(self.servers.len(), last);
            }
            self.put_item(index, &stamp_key_of(list), &other.value());
        }
        self.servers[index].stamp = Some(stamp);
    }

    /// Writes an item of the proxy's own, on each connection: no write may stand before it.
    fn put_item(&mut self, index: usize, name: &[u8], value: &str) {
        let mut request = b"set ".to_vec();
        request.extend_from_slice(name);
        let key = Token {
            start: 4,
            end: request.len(),
        };
        request.extend_from_slice(b" 0 0 ");
        push_decimal(&mut request, value.len() as u64);
        request.extend_from_slice(format!("\r\n{value}\r\n").as_bytes());
        for conn in 0..self.servers[index].conns {
            self.servers[index].restamps += 1;
            let purpose = (Role::Restamp, Verb::Set, None);
            self.queue_bytes(Server::link_id(index, conn), &request, None, key, purpose);
        }
    }

    /// A server names these lists. It has lost this proxy's, if that has been written there.
    fn note_lists(&mut self, index: usize, named: Named) {
        let server = &mut self.servers[index];
        if server.restamps > 0 || server.is_magent {
            return;
        }
        server.leftovers =
            named.share.leftovers || (server.leftovers && !self.lists.is_named(&named));
        server.named = named;
        if server.is_up() && self.lists.settled && self.is_active() {
            self.announce(index);
        }
    }

    /// Names this proxy's list on a server, if it is not named there and others may have to find what was stamped under it.
    pub(super) fn announce(&mut self, index: usize) {
        let server = &self.servers[index];
        if server.named.share != self.share(index) || !self.lists.is_named(&server.named) {
            self.name_list(index);
        }
    }

    /// The same, whether it was named or not: a flush has taken that away.
    pub(super) fn name_list(&mut self, index: usize) {
        let server = &self.servers[index];
        let matters = self.has_views() || self.lists.has_others();
        if !matters || !self.is_safe() || server.is_magent || server.entry_due > 0 {
            return;
        }
        let (named, text) = self.lists.announcement(&server.named, self.share(index));
        self.servers[index].named = named;
        self.put_item(index, LISTS_KEY, &text);
    }

    /// A first write is about to go to servers of this list. From now on what was stamped under others does not count: the view
    /// is raised, so that whoever comes back to one of them sees which servers missed it.
    #[cold]
    pub(super) fn settle_list(&mut self) {
        self.lists.settled = true;
        if !self.is_safe() {
            return;
        }
        let (list, view) = (self.lists.own.key, self.view);
        let is_own = |server: &Server| {
            let stamp = server.stamp.as_ref();
            stamp.is_some_and(|stamp| stamp.list == list && stamp.view == view)
        };
        let continues = view != View::default() && self.servers.iter().any(is_own);
        let named = self.servers.iter().map(|server| &server.named);
        let moved = named
            .into_iter()
            .any(|named| self.lists.ring_differs(named));
        if moved && self.routes.ejects() {
            // By the ring before, keys were at other places.
            let last = self.routes.places() - 1;
            let everywhere = Ejected::everywhere(self.routes.primaries(), last);
            self.ejects.known.merge(&everywhere);
            self.ejects.record.forget();
        }
        if (self.lists.has_others() || moved) && !continues && !is(Sabotage::ListUnsettled) {
            self.raise_view();
        }
        for index in 0..self.servers.len() {
            if self.servers[index].is_up() {
                self.announce(index);
            }
        }
        self.stamp_cold();
    }

    /// Whether a view may be stamped under this list. One of another list may not: nobody could tell then whether anything has
    /// been written under this one.
    pub(super) fn may_stamp(&self) -> bool {
        self.lists.settled || !self.lists.has_others()
    }

    /// A stamp has been taken.
    pub(super) fn restamp_answered(&mut self, id: LinkId, code: Code) {
        let server = &mut self.servers[usize::from(id.server)];
        server.restamps = server.restamps.saturating_sub(1);
        if code != Code::Stored {
            log::warn!("server {}: it takes no stamp", server.name);
        }
    }

    /// Other proxies, and this one after a restart, must see which servers are cold. Not before the stamps are known that
    /// another proxy may have written. So must they where a server took part in the present view and its stamp was lost.
    pub(super) fn stamp_cold(&mut self) {
        let unsure = self.barrier.awaits_stamps() || self.recheck.is_some() || !self.may_stamp();
        if !self.is_safe() || !self.is_active() || unsure {
            return;
        }
        for index in 0..self.servers.len() {
            let server = &self.servers[index];
            let says_cold = server.stamp.as_ref().is_some_and(|stamp| stamp.cold);
            let unstamped = self.only_stamp_lost(server);
            if !server.is_up() || (!unstamped && (!server.cold || says_cold)) {
                continue;
            }
            if self.view == View::default() {
                return self.raise_view();
            }
            self.restamp(index);
        }
    }

    /// Whether a server took part in the present view, and only its stamp was lost, with the proxy that had just raised the
    /// view. It is not taken for one that missed writes: all copies of a key could be in that place, and be flushed.
    ///
    /// Not where two proxies have raised views at the same time.
    pub(super) fn only_stamp_lost(&self, server: &Server) -> bool {
        let view = server.view();
        let includes = |origin: &Rc<Origin>| {
            server
                .place
                .is_some_and(|place| origin.includes(place, view))
        };
        let is_between = |other: &Server| {
            let other = other.view();
            other > view && other < self.view
        };
        self.has_views()
            && !self.routes.ejects()
            && server.journal.is_empty()
            && self.origin.as_ref().is_some_and(includes)
            && !self.servers.iter().any(is_between)
    }

    /// A new view begins: servers that are not up take no part in it.
    pub(super) fn raise_view(&mut self) {
        if self.recheck.is_some() {
            // Stamping the servers now would hide which of them the last view has left out.
            self.raise_due = true;
            return;
        }
        // It is a view of this list.
        self.lists.settled = true;
        self.ejects.said = self.ejects.known.clone();
        // Finer than seconds: of two proxies that raise one after the other, unseen by each other, the later one wins.
        let unix_ms = self.facts.unix_micros(self.now) / 1000;
        let away = |server: &&Server| !server.is_up() && server.state != State::Twin;
        let away = self.servers.iter().filter(away);
        let mut without: Vec<u16> = away.filter_map(|server| server.place).collect();
        without.sort_unstable();
        self.origin = Some(Rc::new(Origin {
            before: self.view,
            without,
        }));
        self.view = View {
            number: (self.view.number + 1).max(unix_ms),
            owner: self.me,
        };
        self.counters.views_raised += 1;
        let detail = format!("view {} raised", self.view.number);
        self.happened(Kind::ViewRaised, "", detail, self.now);
        for index in 0..self.servers.len() {
            if self.servers[index].is_up() {
                self.announce(index);
                self.restamp(index);
            } else {
                self.servers[index].left_out = self.view;
            }
        }
    }

    /// Whether the present view would let the server `index` pass for one that missed nothing, though it is about to.
    pub(super) fn needs_view_without(&self, index: usize) -> bool {
        let (view, server) = (self.view, &self.servers[index]);
        let is_twin = server.state == State::Twin;
        !is_twin && (view == View::default() || server.left_out != view)
    }

    /// A write is about to leave out the server `index`: the others are stamped ahead of it.
    pub(super) fn leave_out(&mut self, index: usize) {
        if !self.is_safe() || !self.has_views() {
            return;
        }
        self.counters.degraded_writes += 1;
        if is(Sabotage::StampSkipped) {
            return;
        }
        if self.needs_view_without(index) {
            self.raise_view();
        }
    }

    /// A write is not answered before the servers that hold it are stamped: another proxy must see that one missed it.
    pub(super) fn fence(&mut self, id: TxnId) {
        let txn = self.txns.at(id);
        let (route, all) = (txn.route, txn.verb == Verb::FlushAll);
        if txn.answered || !self.is_safe() {
            return;
        }
        for index in 0..self.servers.len() {
            let copies = 0..self.routes.places();
            let concerned = all
                || copies
                    .clone()
                    .any(|rank| self.routes.server(route, rank) == Some(index));
            if concerned && self.servers[index].is_up() {
                let link_id = self.link_for(index, route);
                let purpose = (Role::Fence, Verb::Version, Some(id));
                self.queue_bytes(link_id, b"version\r\n", None, Token::default(), purpose);
            }
        }
    }

    /// Notes that the servers of `op`'s key that are not up miss it. Called before the write goes to the others, of which
    /// that of rank `acting` is the first.
    pub(super) fn leave_out_absent(&mut self, op: &Op<'_>, acting: usize) {
        if !self.lists.settled {
            self.settle_list();
        }
        if self.routes.ejects() {
            return self.write_at(op, acting);
        }
        for rank in 0..self.routes.ranks() {
            let Some(server) = self.routes.server(op.route, rank) else {
                continue;
            };
            if !self.servers[server].is_up() {
                self.leave_out(server);
                self.servers[server].journal.note(op.noted());
            }
        }
    }
}
