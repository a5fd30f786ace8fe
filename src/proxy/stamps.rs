//! Flow: stamps are read and written, and views raised.

use std::rc::Rc;

use super::events::Kind;
use super::ids::LinkId;
use super::op::Op;
use super::sabotage::{is, Sabotage};
use super::server::{LinkState, Role, Server};
use super::txn::TxnId;
use super::view::{Origin, Stamp, View};
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
        let mut line = b"get ".to_vec();
        line.extend_from_slice(&self.stamp_key);
        let key = Token {
            start: 4,
            end: line.len(),
        };
        line.extend_from_slice(b"\r\n");
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
    pub(super) fn stamp_answered(&mut self, id: LinkId, asked: Time, code: Code) {
        let index = usize::from(id.server);
        let text = std::mem::take(&mut self.servers[index].answer);
        let value = text.split(|&byte| byte == b'\n').nth(1);
        let stamp = value.and_then(Stamp::parse).filter(|_| code == Code::End);
        let foreign = |stamp: &Stamp| stamp.view.owner != self.me;
        let stamp = stamp.filter(|stamp| !is(Sabotage::ForeignStampIgnored) || !foreign(stamp));
        let active = self.is_active();
        let server = &mut self.servers[index];
        if server.restamps == 0 {
            server.stamp_asked = server.stamp_asked.max(asked);
            match stamp {
                Some(stamp) => {
                    if server.is_up() && !active {
                        server.cold = stamp.cold;
                    }
                    server.stamp = Some(stamp);
                }
                // Flushed or evicted while the connection stood: the server has missed nothing, if it had the present
                // stamp.
                None if server.is_up() => {
                    if active && self.view.number > 0 && server.view() == self.view {
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
        };
        let conns = server.conns;
        let value = stamp.value();
        server.stamp = Some(stamp);
        let mut request = b"set ".to_vec();
        request.extend_from_slice(&self.stamp_key);
        let key = Token {
            start: 4,
            end: request.len(),
        };
        request.extend_from_slice(b" 0 0 ");
        push_decimal(&mut request, value.len() as u64);
        request.extend_from_slice(format!("\r\n{value}\r\n").as_bytes());
        for conn in 0..conns {
            self.servers[index].restamps += 1;
            let purpose = (Role::Restamp, Verb::Set, None);
            self.queue_bytes(Server::link_id(index, conn), &request, None, key, purpose);
        }
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
        let unsure = self.barrier.awaits_stamps() || self.recheck.is_some();
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
        let includes = |origin: &Rc<Origin>| origin.includes(server.place, view);
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
        self.ejects.said = self.ejects.known.clone();
        // Finer than seconds: of two proxies that raise one after the other, unseen by each other, the later one wins.
        let unix_ms = self.facts.unix_micros(self.now) / 1000;
        let away = self.servers.iter().filter(|server| !server.is_up());
        let mut without: Vec<u16> = away.map(|server| server.place).collect();
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
                self.restamp(index);
            } else {
                self.servers[index].left_out = self.view;
            }
        }
    }

    /// Whether the present view would let the server `index` pass for one that missed nothing, though it is about to.
    pub(super) fn needs_view_without(&self, index: usize) -> bool {
        let view = self.view;
        view == View::default() || self.servers[index].left_out != view
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
