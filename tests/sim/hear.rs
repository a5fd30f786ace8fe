//! The other half of `clients`: what they hear, reply by reply, and note in the history.

use std::rc::Rc;

use super::clients::Sent;
use super::history::OpId;
use super::mix;
use super::net::Conn;
use super::op::Seen;
use super::pieces;
use super::reply::{self, Taken};
use super::request::{show, text, Request, Verb};
use super::responses;
use super::world::{Event, World};

impl World {
    pub(super) fn note_all(&mut self, sent: &Sent, seen: Seen) {
        for &op in &sent.ops {
            self.note_reply(op, seen.clone());
        }
    }

    fn note_reply(&mut self, op: OpId, seen: Seen) {
        if let Err(why) = self.history.complete(op, seen, self.now) {
            self.fail(why);
        }
    }

    pub fn read_client(&mut self, client: usize, conn: Conn) {
        if self.clients[client].conn != Some(conn) {
            return;
        }
        let rests_until = self.clients[client].rests_until;
        if rests_until > self.now {
            return self.at(rests_until, Event::ReadClient(client, conn));
        }
        let limit = if self.rng.one_in(4) {
            self.rng.range(1, 100) as usize
        } else {
            64 * 1024
        };
        let count = self
            .net
            .read(conn, 0, limit, &mut self.clients[client].input);
        if count > 0 {
            self.made_room(conn, 1);
            self.take_replies(client);
            let rest = pieces::rest(&self.plan, &mut self.rng);
            self.clients[client].rests_until = self.now + rest;
            if self.net.unread(conn, 0) > 0 || self.net.is_eof(conn, 0) {
                let pause = self.clients[client].reading_pause(&mut self.rng);
                self.after(pause, Event::ReadClient(client, conn));
            }
        } else if self.net.is_eof(conn, 0) {
            self.end_of_replies(client, conn);
        }
    }

    /// The proxy has closed the connection.
    fn end_of_replies(&mut self, client: usize, conn: Conn) {
        let finished = self.clients[client].finished;
        if finished && self.clients[client].input.is_empty() {
            // All was answered before; what is silent is done.
            self.skip_silent(client);
        }
        if !self.clients[client].input.is_empty() {
            self.half_a_reply(client);
        }
        if !self.clients[client].sent.is_empty() && !self.guarantees.errors {
            self.fail(format!(
                "client {client}: the proxy closed with replies due (half-closed: {finished})"
            ));
        }
        self.net.close(conn, 0);
        self.net.forget(conn);
        self.client_lost(client, conn, "closed by the proxy");
    }

    fn skip_silent(&mut self, client: usize) {
        while let Some(sent) = self.clients[client].sent.front() {
            if !sent.request.is_quiet() {
                return;
            }
            let sent = self.clients[client].sent.pop_front().expect("there is one");
            self.note_all(&sent, self.silence());
        }
    }

    /// What silence after a quiet request says.
    fn silence(&self) -> Seen {
        if self.guarantees.errors {
            Seen::Unheard
        } else {
            Seen::Silent
        }
    }

    fn take_replies(&mut self, client: usize) {
        let mut input = std::mem::take(&mut self.clients[client].input);
        let mut at = 0;
        while at < input.len() && self.failure.is_none() {
            let rest = &input[at..];
            let Some(sent) = self.clients[client].sent.front() else {
                self.fail(format!(
                    "client {client}: a reply to nothing: {}",
                    text(rest)
                ));
                break;
            };
            let (taken, words) = match sent.frame {
                Some(asked) => responses::take(asked, &sent.request, rest),
                None => (reply::take(&sent.request, rest), Vec::new()),
            };
            match taken {
                Taken::Partial => {
                    self.hears_long(client, rest);
                    break;
                }
                Taken::Wrong(why) => {
                    let request = show(&sent.request);
                    self.fail(format!(
                        "client {client}: {why}, to {request}: {}",
                        text(rest)
                    ));
                }
                Taken::Silent => {
                    let sent = self.clients[client].sent.pop_front().expect("there is one");
                    // A quiet meta command that says nothing had the nominal outcome; `noreply` may hide anything.
                    // So has a quiet frame.
                    let meta = sent.request.verb.is_meta() || sent.frame.is_some();
                    let failed = sent.request.verb == Verb::Mg && self.may_have_failed(&sent);
                    let seen = if failed {
                        Seen::Never
                    } else if meta {
                        Seen::Reply(Rc::from(&b""[..]))
                    } else {
                        self.silence()
                    };
                    self.note_all(&sent, seen);
                }
                Taken::SomebodysError(length) => {
                    at += length;
                    self.excuse_quiet(client);
                }
                Taken::Whole(length) => {
                    let reply = &rest[..length];
                    at += length;
                    let reply = if words.is_empty() { reply } else { &words };
                    let sent = self.clients[client].sent.pop_front().expect("there is one");
                    self.take_reply(client, &sent, reply);
                }
            }
        }
        input.drain(..at);
        self.clients[client].input = input;
    }

    /// One of the quiet requests in front failed, nobody knows which: none of them says anything any more.
    fn excuse_quiet(&mut self, client: usize) {
        self.tally.replies += 1;
        let quiet: Vec<OpId> = self.clients[client]
            .sent
            .iter_mut()
            .take_while(|sent| sent.request.verb.is_meta() && sent.request.flag(b'q').is_some())
            .flat_map(|sent| std::mem::take(&mut sent.ops))
            .collect();
        for op in quiet {
            self.note_reply(op, Seen::Unheard);
        }
    }

    fn take_reply(&mut self, client: usize, sent: &Sent, reply: &[u8]) {
        self.tally.replies += 1;
        self.log(|| format!("client {client} hears {}", text(reply)));
        self.digest ^= mix::of(reply);
        let request = &sent.request;
        if request.verb.is_retrieval() && !reply::is_error(reply) {
            return self.take_values(client, sent, reply);
        }
        let ours = reply.starts_with(b"SERVER_ERROR")
            && !reply.starts_with(b"SERVER_ERROR object too large");
        if ours {
            self.tally.errors += 1;
            if !self.guarantees.errors {
                self.fail(format!(
                    "client {client}: {} hears {}",
                    show(request),
                    reply.escape_ascii()
                ));
            }
        }
        let seen = if !ours {
            let missed = request.verb == Verb::Mg && reply.starts_with(b"EN");
            if missed && self.may_have_failed(sent) {
                Seen::Never
            } else {
                Seen::Reply(Rc::from(reply))
            }
        } else if reply == b"SERVER_ERROR no server for this key is up\r\n" {
            Seen::Refused
        } else {
            Seen::Unknown
        };
        self.note_all(sent, seen);
        let tells = request.verb == Verb::Mg || sent.frame.is_some();
        if tells && !request.keys.is_empty() && !sent.ops.is_empty() {
            self.remember_token(client, request, 0, reply);
        }
        if request.keys.is_empty() {
            self.check_local(client, request, reply);
        }
    }

    fn take_values(&mut self, client: usize, sent: &Sent, reply: &[u8]) {
        let request = &sent.request;
        let mut blocks: Vec<&[u8]> = Vec::with_capacity(request.keys.len());
        let mut at = 0;
        for key in &request.keys {
            let rest = &reply[at..];
            let hit = rest
                .starts_with(b"VALUE ")
                .then(|| reply::block(rest))
                .flatten();
            let length = hit
                .filter(|(name, _)| *name == &key[..])
                .map_or(0, |(_, length)| length);
            blocks.push(&rest[..length]);
            at += length;
        }
        for (index, block) in blocks.iter().enumerate() {
            let key = &request.keys[index];
            // A key that was asked for more than once and found once: nobody can tell which of them missed.
            let twin = |other: usize| !blocks[other].is_empty() && request.keys[other] == *key;
            // The same found twice says no more than once.
            let again = |other: usize| request.keys[other] == *key && blocks[other] == *block;
            let failed = block.is_empty() && self.may_have_failed(sent);
            let twin = block.is_empty() && (0..blocks.len()).any(twin);
            let touches = matches!(request.verb, Verb::Gat | Verb::Gats);
            let seen = if failed && touches {
                Seen::Unknown
            } else if failed || twin || (0..index).any(again) {
                Seen::Never
            } else {
                Seen::Reply(Rc::from(*block))
            };
            self.note_reply(sent.ops[index], seen);
            if !block.is_empty() {
                self.remember_token(client, request, index, block);
            }
        }
    }

    fn remember_token(&mut self, client: usize, request: &Request, index: usize, reply: &[u8]) {
        if let (Some(token), Some(key)) = (
            super::explain::token(request, reply),
            self.history.key(&request.keys[index]),
        ) {
            self.clients[client].generator.tokens[key] = token;
        }
    }

    fn check_local(&mut self, client: usize, request: &Request, reply: &[u8]) {
        let fits = match request.verb {
            Verb::Mn => reply == b"MN\r\n",
            Verb::Version => reply.starts_with(b"VERSION "),
            Verb::Verbosity => reply == b"OK\r\n",
            Verb::Stats => reply.ends_with(b"END\r\n"),
            Verb::Bad(line) => reply == line,
            _ => true,
        };
        if !fits {
            self.fail(format!(
                "client {client}: {:?} hears {}",
                request.verb,
                reply.escape_ascii()
            ));
        }
    }
}
