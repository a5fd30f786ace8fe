//! Runs with values that come in several pieces: long ones among short ones, bytes that are cut where one part of a request
//! or reply ends and the next begins, clients that rest in the middle of a reply, keys that are no words, and servers that go
//! while they send a long value.

use std::rc::Rc;

use magent::time::Span;

use super::clients::Sent;
use super::item::Item;
use super::long::LONG;
use super::node::Health;
use super::profile::{Plan, Profile};
use super::request::{parse, text, Verb};
use super::rng::Rng;
use super::world::{Event, World};

/// A server that has so much to send is in the middle of a long value.
pub const MIDDLE: usize = 16 * 1024;

/// The longest rest of a client that stops to read, in microseconds.
const REST_MAX: u64 = 300_000;

/// What of drawn circumstances is otherwise here.
pub fn configure(plan: &mut Plan, rng: &mut Rng) {
    plan.pieces = true;
    plan.keys = rng.pick(&[3, 5, 5, 8]);
    plan.pipeline = plan.pipeline.min(2 * plan.keys);
    // A long value is longer than what is on its way at a time, so that servers go in the middle of it.
    plan.window = rng.pick(&[8, 16, 32]) * 1024;
    plan.delay_max = plan.delay_max.min(200);
    plan.delay_min = plan.delay_min.min(plan.delay_max / 2);
    let millis = match plan.profile {
        Profile::Slow => rng.pick(&[50, 200]),
        _ => rng.pick(&[300, 500]),
    };
    plan.config.timeout = Span::from_millis(millis);
    plan.config.max_item_size = rng.pick(&[128, 1024, 1024]) * 1024;
}

/// How many of the bytes on a wire arrive first: up to about where one thing ends and the next begins.
pub fn cut(wire: &[u8], rng: &mut Rng) -> usize {
    let last = wire.len() - 1;
    match rng.below(4) {
        // In the first line.
        0 => 1 + rng.index(last.min(48)),
        // In the line end behind the data, or in the `END` behind that.
        1 => last - rng.index(last.min(10)),
        _ => {
            let from = rng.index(last);
            let newline = memchr::memchr(b'\n', &wire[from..]).map_or(last, |at| from + at);
            (newline + rng.index(3)).saturating_sub(1).clamp(1, last)
        }
    }
}

/// How long a client that has just read something rests.
pub fn rest(plan: &Plan, rng: &mut Rng) -> u64 {
    if plan.pieces && rng.one_in(40) {
        rng.below(REST_MAX)
    } else {
        0
    }
}

/// Whether its reply may be, or hold, a long value that goes out as it comes. Of several keys some may be asked for singly.
fn may_pass(sent: &Sent) -> bool {
    let verb = sent.request.verb;
    sent.frame.is_none() && (verb.is_retrieval() || verb == Verb::Mg)
}

/// Whether `bytes`, the first part of a reply, end in the middle of a long value, or of the line behind it.
fn ends_in_long(mut bytes: &[u8]) -> bool {
    let mut long = false;
    loop {
        let Some(newline) = memchr::memchr(b'\n', bytes) else {
            // The `END` behind one belongs to it.
            return long && b"END\r\n".starts_with(bytes);
        };
        let mut words = bytes[..newline]
            .trim_ascii_end()
            .split(|&byte| byte == b' ');
        let length = match words.next() {
            Some(b"VALUE") => words.nth(2),
            Some(b"VA") => words.next(),
            _ => None,
        };
        let Some(length) = length.and_then(parse::<usize>) else {
            return false;
        };
        let whole = newline + 1 + length + 2;
        long = whole >= LONG;
        match bytes.get(whole..) {
            Some(rest) => bytes = rest,
            None => return long,
        }
    }
}

impl World {
    /// A server sends a long value, to whoever has asked.
    pub(super) fn sends_long(&mut self, server: usize) {
        if self.faults.lurks && self.rng.one_in(40) {
            self.goes_soon(server);
        }
    }

    /// A client is in the middle of a reply. If that is a long value which its server is still sending, the server may go.
    pub(super) fn hears_long(&mut self, client: usize, heard: &[u8]) {
        if !self.faults.lurks {
            return;
        }
        let front = self.clients[client].sent.front();
        let Some(sent) = front.filter(|sent| may_pass(sent) && ends_in_long(heard)) else {
            return;
        };
        let key = Rc::clone(&sent.request.keys[0]);
        let copies = self.in_force.copies(&key);
        if let Some(server) = copies
            .into_iter()
            .find(|&copy| self.nodes[copy].is_sending())
        {
            self.goes_soon(server);
            if self.rng.one_in(2) {
                self.write_over(&key);
            }
        }
    }

    /// Some client puts another long value in place of one that is on its way, before anybody notices that its server is gone.
    fn write_over(&mut self, key: &[u8]) {
        let writer = self.rng.index(self.clients.len());
        self.clients[writer].generator.write_next = self.history.key(key);
        let pause = self.rng.below(self.plan.config.timeout.0 / 2);
        self.after(pause, Event::Hurry(writer, 1));
    }

    fn goes_soon(&mut self, server: usize) {
        self.faults.lurks = false;
        self.faults.prey = Some(server);
        let pause = self.rng.below(self.plan.delay_max);
        self.after(pause, Event::Strike);
    }

    /// The proxy has closed the connection of a client that has heard a part of a reply. That is allowed only when a server went
    /// in the middle of a long value, and no other copy could go on.
    pub(super) fn half_a_reply(&mut self, client: usize) {
        self.tally.halves += 1;
        if let Err(why) = self.excuse_half(client) {
            let heard = text(&self.clients[client].input);
            self.fail(format!("client {client}: {why}: {heard}"));
        }
    }

    fn excuse_half(&mut self, client: usize) -> Result<(), &'static str> {
        if self.report(self.active).counters.cut_off < self.tally.halves {
            return Err("half a reply, then the end");
        }
        let me = &self.clients[client];
        let Some(first) = me.sent.front() else {
            return Err("half a reply to nothing, then the end");
        };
        // What was written of the replies in front may be lost with the rest.
        let later = me.sent.iter().skip(1).any(may_pass);
        let long = may_pass(first) && ends_in_long(&me.input);
        if !long && !later {
            return Err("half of a reply that should be complete, then the end");
        }
        if !self.guarantees.history {
            return Ok(());
        }
        if !self.history.has_failed_since(first.at) {
            return Err("half a reply, then the end, and no server has failed");
        }
        if long && !later && self.could_go_on(first, &me.input) {
            return Err("half a long value, then the end, though all other copies are the same");
        }
        Ok(())
    }

    /// Whether all servers of the key that are up hold the value that has been heard half, and no write can have passed.
    fn could_go_on(&self, sent: &Sent, heard: &[u8]) -> bool {
        let request = &sent.request;
        let plain = request.verb == Verb::Get && request.keys.len() == 1 && !self.plan.times;
        if !plain || !self.history.is_undisturbed(sent.ops[0]) {
            return false;
        }
        let newline = memchr::memchr(b'\n', heard).unwrap_or(0);
        let data = &heard[newline + 1..];
        let key = &request.keys[0];
        let copies = self.in_force.copies(key);
        let mut running = copies
            .iter()
            .map(|&copy| &self.nodes[copy])
            .filter(|node| node.health == Health::Running)
            .map(|node| node.process.items.get(key))
            .peekable();
        let same = |item: Option<&Item>| item.is_some_and(|item| item.value.starts_with(data));
        running.peek().is_some() && running.all(same)
    }
}
