//! Clients: they pipeline what the generator makes, in pieces, read slowly or not, leave in the middle, and note every
//! reply in the history.

use std::collections::VecDeque;
use std::rc::Rc;

use super::frames::{Asked, Made};
use super::generate::Generator;
use super::history::OpId;
use super::net::{Conn, End, State};
use super::op::Seen;
use super::profile::Plan;
use super::request::{show, understand, Request};
use super::rng::Rng;
use super::world::{Event, World};

/// A request whose reply is due.
pub(super) struct Sent {
    pub(super) request: Rc<Request>,
    /// It was asked in a frame.
    pub(super) frame: Option<Asked>,
    pub(super) ops: Vec<OpId>,
    /// Where it ends in the stream.
    pub(super) end: u64,
    pub(super) at: u64,
    /// How many reads had failed then.
    pub(super) failed: u64,
}

pub struct Client {
    pub(super) generator: Generator,
    pub(super) conn: Option<Conn>,
    connected: bool,
    /// Asks for no more on this connection.
    pub(super) finished: bool,
    slow: bool,
    /// Speaks the binary protocol.
    binary: bool,
    out: Vec<u8>,
    /// How much of the stream has left.
    left: u64,
    pub(super) input: Vec<u8>,
    pub(super) sent: VecDeque<Sent>,
    over: bool,
    /// Does not read until then.
    pub(super) rests_until: u64,
}

impl Client {
    /// `frames`: it may speak the binary protocol.
    pub fn new(seed: u64, plan: &Plan, frames: bool) -> Client {
        Client {
            generator: Generator::new(seed, plan),
            conn: None,
            connected: false,
            finished: false,
            slow: seed % 5 == 0,
            binary: frames && seed >> 20 & 1 == 1,
            out: Vec::new(),
            left: 0,
            input: Vec::new(),
            sent: VecDeque::new(),
            over: false,
            rests_until: 0,
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
        if self.budget == 0 && me.sent.is_empty() && self.faults.settled {
            me.over = true;
            return;
        }
        let waits = self.budget == 0 || me.sent.len() >= self.plan.pipeline;
        if self.now < self.idle_until {
            if me.sent.back().is_some_and(|sent| sent.request.noreply)
                && me.connected
                && !me.finished
            {
                self.ask_for_a_sign(client);
            }
            let pause = self.rng.range(10, self.plan.think_max);
            return self.at(self.idle_until + pause, Event::Act(client));
        }
        if waits
            && me.sent.back().is_some_and(|sent| sent.request.noreply)
            && me.connected
            && !me.finished
        {
            self.ask_for_a_sign(client);
        } else if me.conn.is_none() && self.budget > 0 {
            if self.now >= self.moved_at {
                self.connect_client(client);
            }
        } else if me.connected
            && !me.finished
            && self.budget > 0
            && me.sent.len() < self.plan.pipeline
        {
            self.send_batch(client);
        }
        let pause = match self.rng.below(200) {
            // A pause in which times to live run out.
            0 if self.plan.short_times => 2_000_000,
            _ => self.rng.range(10, self.plan.think_max),
        };
        self.after(pause, Event::Act(client));
    }

    /// All clients ask and ask for a moment.
    pub fn hurry_all(&mut self, times: u32) {
        for client in 0..self.clients.len() {
            let pause = self.rng.below(2 * self.plan.delay_max);
            self.after(pause, Event::Hurry(client, times));
        }
    }

    /// Each client asks once more soon.
    pub fn hurry_later(&mut self) {
        for client in 0..self.clients.len() {
            let pause = self.rng.below(self.plan.config.timeout.0);
            self.after(pause, Event::Hurry(client, 1));
        }
    }

    pub fn hurry(&mut self, client: usize, left: u32) {
        let me = &self.clients[client];
        let may = me.connected && !me.finished && self.budget > 0;
        if may && me.sent.len() < self.plan.pipeline {
            let flushes = self.plan.flushes > 0 && left == 6 && self.rng.one_in(3);
            self.clients[client].generator.flush_next |= flushes;
            self.send_batch(client);
        }
        if left > 1 {
            let pause = self.rng.range(10, 2 * self.plan.delay_max + 10);
            self.after(pause, Event::Hurry(client, left - 1));
        }
    }

    /// Reads that have failed, of which the proxy says so.
    fn failed_reads(&self) -> u64 {
        let proxy = self.hosts[self.active].proxy.as_ref();
        proxy.map_or(0, |proxy| proxy.failed_reads())
    }

    /// Whether a miss in reply to `sent` may be such a one.
    pub(super) fn may_have_failed(&self, sent: &Sent) -> bool {
        self.plan.lags && self.failed_reads() > sent.failed
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
        let explicit_cas = self.plan.version >= [1, 6, 27];
        let mut asked = Vec::new();
        if me.binary {
            let mut made = Vec::new();
            for _ in 0..count {
                me.generator.push_frames(&mut me.out, &mut made);
            }
            let understood = |one: Made| {
                let request = understand(&one.text, explicit_cas);
                (one.end, request, Some(one.asked))
            };
            asked.extend(made.into_iter().map(understood));
        } else {
            let mut ends = Vec::new();
            let mut from = me.out.len();
            for _ in 0..count {
                me.generator.push(&mut me.out, &mut ends);
            }
            for end in ends {
                let request = understand(&me.out[from..end], explicit_cas);
                asked.push((end, request, None));
                from = end;
            }
        }
        let failed = self.failed_reads();
        for (end, request, frame) in asked {
            let request = Rc::new(request);
            let end = self.clients[client].left + end as u64;
            self.log(|| format!("client {client} asks {}", show(&request)));
            let ops = self.history.invoke(client, &request, self.now);
            self.clients[client].sent.push_back(Sent {
                request,
                frame,
                ops,
                end,
                at: self.now,
                failed,
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

    /// Nothing tells when its last request is done if it is a quiet one; so something with a reply goes behind it.
    fn ask_for_a_sign(&mut self, client: usize) {
        let me = &mut self.clients[client];
        me.out.extend_from_slice(b"mn\r\n");
        let request = Rc::new(understand(b"mn\r\n", false));
        let end = me.left + me.out.len() as u64;
        me.sent.push_back(Sent {
            request,
            frame: None,
            ops: Vec::new(),
            end,
            at: self.now,
            failed: 0,
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
            // What is too large is refused, and its item removed, before its data has come.
            let large = sent.request.value.len() + 400 > self.plan.config.max_item_size;
            let seen = if sent.end <= left || large {
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
}
