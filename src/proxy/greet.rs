//! Flow: a server is connected to, and says what must be known of it before it is used.

use super::cas::Tag;
use super::enter::IDLE_AFTER;
use super::ids::{CloseReason, LinkId};
use super::server::{LinkState, Role, State};
use super::Proxy;
use crate::proto::token::{parse_decimal, Token};
use crate::proto::Verb;
use crate::time::{Span, Time};

/// At a takeover a server that cannot be reached is waited for at most so often.
const CALL_EVERY: Span = Span::from_millis(10_000);

impl Proxy {
    /// This proxy takes over. Servers that it could not reach are tried at once: when a network was cut, another proxy
    /// may have served with them alone until now. Requests wait for the outcome, at most a time limit.
    ///
    /// Not one that was lost a moment ago: it is not back already. And not each time, or with a dead server a client that asks every
    /// few seconds would always wait.
    pub(super) fn call_missing(&mut self) {
        for index in 0..self.servers.len() {
            let server = &self.servers[index];
            let is_missing = matches!(server.state, State::Down(_) | State::Connecting);
            let called = server
                .called
                .is_some_and(|time| self.now.since(time) < CALL_EVERY);
            if !is_missing || called || self.now.since(server.since) < IDLE_AFTER {
                continue;
            }
            if server.state == State::Connecting {
                // It may wait for an answer that was lost while the network was cut.
                self.server_lost(index, CloseReason::ConnectTimeout);
            }
            self.servers[index].called = Some(self.now);
            self.connect(index);
        }
    }

    /// Whether a server that was called at that moment has neither answered nor failed.
    pub(super) fn is_calling(&self, since: Time) -> bool {
        self.servers.iter().any(|server| {
            server.state == State::Connecting
                && server.called == Some(since)
                && server.attempted == since
        })
    }

    /// A connection is made: what must be known of the server before it is used is asked for.
    pub(super) fn greet(&mut self, id: LinkId) {
        self.probe(id);
        if id.conn == 0 {
            self.ask_process(id);
            self.ask_stamp(usize::from(id.server));
        }
    }

    /// Asks which process the server is, and how much it holds.
    pub(super) fn ask_process(&mut self, id: LinkId) {
        let purpose = (Role::Process, Verb::Stats, None);
        self.queue_bytes(id, b"stats\r\n", None, Token::default(), purpose);
    }

    /// A line of the answer to `stats`.
    pub(super) fn note_process(&mut self, server: usize, line: &[u8]) {
        let mut words = line.split(|&byte| byte == b' ').skip(1);
        let (Some(name), Some(value)) = (words.next(), words.next()) else {
            return;
        };
        let server = &mut self.servers[server];
        // What a proxy counts is of its servers.
        server.is_magent |= name.starts_with(b"magent_");
        let Some(number) = parse_decimal(value).filter(|_| !server.is_magent) else {
            return;
        };
        let (start, pid) = server.process.unwrap_or_default();
        match name {
            b"pid" => server.process = Some((0, number)),
            // The start of the process is what does not change: the time less the uptime.
            b"uptime" => server.process = Some((number, pid)),
            b"time" => server.process = Some((number.wrapping_sub(start), pid)),
            b"curr_items" => server.items = Some(number),
            _ => {}
        }
    }

    /// One more connection answers; with all of them the server can be considered.
    pub(super) fn link_ready(&mut self, index: usize) {
        let server = &mut self.servers[index];
        let conns = server.conns;
        let ready = |link: &super::server::Link| link.state == LinkState::Ready;
        let all_ready = server.links[..conns].iter().all(ready);
        if server.state == State::Connecting && server.mark.is_empty() && all_ready {
            if self.looks_like_another(index) {
                return;
            }
            let server = &mut self.servers[index];
            server.state = State::Waiting;
            server.tried = true;
            if server.is_magent {
                // Its process says nothing about what its servers hold, and its tokens name them already.
                server.process = None;
                server.items = None;
                server.tag = Tag::none();
            } else {
                let (start, pid) = server.process.unwrap_or_default();
                server.tag = Tag::new(index, start.wrapping_add(pid));
            }
            self.note_abilities();
            self.consider();
        }
    }
}
