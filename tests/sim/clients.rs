//! Clients: they pipeline what the generator makes, in pieces, read slowly or not, leave in the middle, and note every
//! reply in the history.

use std::collections::VecDeque;
use std::rc::Rc;

use super::generate::Generator;
use super::history::{OpId, Seen};
use super::net::{Conn, End, State};
use super::profile::Plan;
use super::reply::{self, Taken};
use super::request::{parse_line, Request, Verb};
use super::rng::Rng;
use super::world::{Event, World};

/// A request whose reply is due.
struct Sent {
    request: Rc<Request>,
    ops: Vec<OpId>,
    /// Where it ends in the stream.
    end: u64,
    at: u64,
}

pub struct Client {
    generator: Generator,
    conn: Option<Conn>,
    connected: bool,
    /// Asks for no more on this connection.
    finished: bool,
    slow: bool,
    out: Vec<u8>,
    /// How much of the stream has left.
    left: u64,
    input: Vec<u8>,
    sent: VecDeque<Sent>,
    over: bool,
}

impl Client {
    pub fn new(seed: u64, plan: &Plan) -> Client {
        Client {
            generator: Generator::new(seed, plan),
            conn: None,
            connected: false,
            finished: false,
            slow: seed % 5 == 0,
            out: Vec::new(),
            left: 0,
            input: Vec::new(),
            sent: VecDeque::new(),
            over: false,
        }
    }

    pub fn is_done(&self) -> bool {
        self.over && self.sent.is_empty()
    }

    pub fn reading_pause(&self, rng: &mut Rng) -> u64 {
        if self.slow {
            rng.below(3000)
        } else {
            rng.below(5)
        }
    }
}

impl World {
    /// A client's next batch, or the next try to connect.
    pub fn act(&mut self, client: usize) {
        self.check_patience(client);
        let me = &mut self.clients[client];
        if self.budget == 0 && me.sent.is_empty() {
            me.over = true;
            return;
        }
        if self.budget == 0
            && me.sent.back().is_some_and(|sent| sent.request.noreply)
            && me.connected
            && !me.finished
        {
            self.ask_for_a_sign(client);
        } else if me.conn.is_none() && self.budget > 0 {
            self.connect_client(client);
        } else if me.connected && !me.finished && self.budget > 0 && me.sent.len() < 200 {
            self.send_batch(client);
        }
        let pause = match self.rng.below(200) {
            // A pause in which times to live run out.
            0 if self.plan.short_times => 2_000_000,
            _ => self.rng.range(10, self.plan.think_max),
        };
        self.after(pause, Event::Act(client));
    }

    fn check_patience(&mut self, client: usize) {
        let timeout = self.plan.config.timeout.0;
        let ranks = 1 + self.plan.config.backups.len() as u64;
        let limit = 6 * timeout * ranks + 2000 * self.plan.delay_max + 2_000_000;
        if let Some(sent) = self.clients[client].sent.front() {
            if self.now > sent.at + limit && self.clients[client].out.is_empty() {
                let request = format!("{:?} {:?}", sent.request.verb, sent.request.keys);
                self.fail(format!(
                    "client {client}: {request} of {} us is not answered",
                    sent.at
                ));
            }
        }
    }

    fn connect_client(&mut self, client: usize) {
        let host = self.active;
        let conn = self.net.ask(End::Client(client), End::HostClient(host));
        let me = &mut self.clients[client];
        me.conn = Some(conn);
        me.connected = false;
        me.finished = false;
        me.out.clear();
        me.input.clear();
        me.left = 0;
        let delay = self.delay();
        self.after(delay, Event::Connect(conn));
    }

    pub fn client_connected(&mut self, conn: Conn) {
        if let End::Client(client) = self.net.end(conn, 0) {
            if self.clients[client].conn == Some(conn) {
                self.clients[client].connected = true;
            }
        }
    }

    fn send_batch(&mut self, client: usize) {
        let count = self.rng.range(1, self.plan.batch_max);
        let me = &mut self.clients[client];
        let mut ends = Vec::new();
        let mut from = me.out.len();
        for _ in 0..count {
            me.generator.push(&mut me.out, &mut ends);
        }
        for end in ends {
            let me = &mut self.clients[client];
            let request = Rc::new(understand(
                &me.out[from..end],
                self.plan.version >= [1, 6, 27],
            ));
            from = end;
            let end = me.left + end as u64;
            self.log(|| format!("client {client} asks {}", show(&request)));
            let ops = self.history.invoke(client, &request, self.now);
            self.clients[client].sent.push_back(Sent {
                request,
                ops,
                end,
                at: self.now,
            });
            self.tally.requests += 1;
            self.budget = self.budget.saturating_sub(1);
        }
        self.flush_client(client);
        if self.plan.client_faults > 0 && self.rng.one_in(self.plan.client_faults) {
            if self.rng.one_in(2) {
                self.leave(client);
            } else if self.clients[client].out.is_empty() {
                self.half_close(client);
            }
        }
    }

    /// Nothing tells when the last request is done if it is a quiet one; so something with a reply goes behind it.
    fn ask_for_a_sign(&mut self, client: usize) {
        let me = &mut self.clients[client];
        me.out.extend_from_slice(b"mn\r\n");
        let request = Rc::new(understand(b"mn\r\n", false));
        let end = me.left + me.out.len() as u64;
        me.sent.push_back(Sent {
            request,
            ops: Vec::new(),
            end,
            at: self.now,
        });
        self.flush_client(client);
    }

    /// Disconnects in the middle of whatever is going on.
    fn leave(&mut self, client: usize) {
        if let Some(conn) = self.clients[client].conn {
            self.reset(conn, 0);
            self.client_lost(client, conn, "left");
        }
    }

    /// The address it is connected to has moved to another proxy: it reconnects.
    pub fn move_client(&mut self, client: usize) {
        self.leave(client);
    }

    fn half_close(&mut self, client: usize) {
        if let Some(conn) = self.clients[client].conn {
            self.log(|| format!("client {client} sends no more"));
            self.clients[client].finished = true;
            if self.net.finish(conn, 0) {
                self.send_off(conn, 0);
            }
        }
    }

    /// Writes what waits.
    pub fn flush_client(&mut self, client: usize) {
        let Some(conn) = self.clients[client].conn else {
            return;
        };
        if self.clients[client].out.is_empty() || self.net.state(conn) != State::Open {
            return;
        }
        let me = &mut self.clients[client];
        let limit = if self.rng.one_in(5) {
            self.rng.range(1, 60) as usize
        } else {
            me.out.len()
        };
        let piece = limit.min(me.out.len());
        let (count, starts) = self.net.write(conn, 0, &me.out[..piece], &mut self.rng);
        me.out.drain(..count);
        me.left += count as u64;
        let rest = !me.out.is_empty();
        if starts {
            self.send_off(conn, 0);
        }
        if rest {
            self.blocked(conn, 0);
        }
    }

    /// The connection is gone; what was asked has an unknown outcome, unless it never left.
    pub fn client_lost(&mut self, client: usize, conn: Conn, why: &str) {
        if self.clients[client].conn != Some(conn) {
            return;
        }
        self.log(|| format!("client {client}: connection {why}"));
        self.clients[client].conn = None;
        self.clients[client].connected = false;
        let left = self.clients[client].left;
        for sent in std::mem::take(&mut self.clients[client].sent) {
            let seen = if sent.end <= left {
                Seen::Unknown
            } else {
                Seen::Never
            };
            self.note_all(&sent, seen);
        }
        self.clients[client].out.clear();
        if self.net.state(conn) != State::Gone && !self.net.holds(conn, 1) {
            self.net.forget(conn);
        }
    }

    fn note_all(&mut self, sent: &Sent, seen: Seen) {
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
        if finished {
            // All was answered before; what is silent is done.
            self.skip_silent(client);
        }
        if !self.clients[client].input.is_empty() {
            self.fail(format!("client {client}: half a reply, then the end"));
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
            Seen::Unknown
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
                    rest.escape_ascii()
                ));
                break;
            };
            match reply::take(&sent.request, rest) {
                Taken::Partial => break,
                Taken::Wrong(why) => {
                    let request = show(&sent.request);
                    self.fail(format!(
                        "client {client}: {why}, to {request}: {}",
                        rest.escape_ascii()
                    ));
                }
                Taken::Silent => {
                    let sent = self.clients[client].sent.pop_front().expect("there is one");
                    // A quiet meta command that says nothing had the nominal outcome; `noreply` may hide anything.
                    let meta = sent.request.verb.is_meta();
                    let seen = if meta {
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
            self.note_reply(op, Seen::Unknown);
        }
    }

    fn take_reply(&mut self, client: usize, sent: &Sent, reply: &[u8]) {
        self.tally.replies += 1;
        self.log(|| format!("client {client} hears {}", reply.escape_ascii()));
        self.digest ^= reply
            .iter()
            .fold(0, |sum: u64, &byte| sum.wrapping_mul(31) + u64::from(byte));
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
            Seen::Reply(Rc::from(reply))
        } else if reply == b"SERVER_ERROR no server for this key is up\r\n" {
            Seen::Refused
        } else {
            Seen::Unknown
        };
        self.note_all(sent, seen);
        if request.verb == Verb::Mg && !sent.ops.is_empty() {
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
            let seen = if block.is_empty() && (0..blocks.len()).any(twin) {
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
            super::linear::token(request, reply),
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

/// A request as memcached would understand it.
fn understand(bytes: &[u8], explicit_cas: bool) -> Request {
    let newline = memchr::memchr(b'\n', bytes).expect("requests have lines");
    let mut request = parse_line(&bytes[..newline - 1], explicit_cas);
    if bytes.len() > newline + 1 {
        request.value = Rc::from(&bytes[newline + 1..bytes.len() - 2]);
    }
    request
}

/// A request for people.
pub fn show(request: &Request) -> String {
    let text = |bytes: &[u8]| bytes[..bytes.len().min(60)].escape_ascii().to_string();
    let keys: Vec<String> = request.keys.iter().map(|key| text(key)).collect();
    let words: Vec<String> = request.words.iter().map(|word| text(word)).collect();
    format!(
        "{:?} {} flags {} exptime {} delta {} cas {} [{}] {:?}{}",
        request.verb,
        keys.join(" "),
        request.flags,
        request.exptime,
        request.delta,
        request.cas,
        words.join(" "),
        text(&request.value),
        if request.noreply { " noreply" } else { "" },
    )
}
