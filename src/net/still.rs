//! When this process was stopped, or its host was. What it had taken in before, or finds waiting, clients have given up
//! since and may have written anew by way of another proxy, which has or had the address. Carried out now it would undo
//! that.

use super::link::Link;
use super::pool::{Door, Pool};
use super::presence::{forget, may_move};
use crate::proxy::events::Kind;
use crate::proxy::ClientId;
use crate::sys::limits;
use crate::time::{Span, Time};

/// After standing still for so long, the address may have been elsewhere meanwhile. A second, less what cannot be told: one
/// sleep, and the age of the CPU time.
const STOOD_STILL: Span = Span::from_millis(900);

/// The same where somebody asks for this proxy's health many times a second, so that the address moves sooner.
const STOOD_STILL_WATCHED: Span = Span::from_millis(250);

/// Longest sleep while somebody does, at the start, or while anything is under way: of a stop during a longer one it could not be told
/// how long it was.
const SLEEP_MAX: Span = Span::from_millis(50);

/// How old the CPU time may be that tells work from standing still.
const CPU_TIME_EVERY: Span = Span::from_millis(50);

/// What tells standing still from a long turn.
#[derive(Default)]
pub(super) struct Stillness {
    /// CPU time of this process, in microseconds, and when it was asked for.
    cpu: u64,
    asked: Time,
    /// What was before is dealt with.
    judged: Time,
}

impl Stillness {
    /// To be called each turn.
    pub fn begin_turn(&mut self, now: Time) {
        if now.since(self.asked) > CPU_TIME_EVERY {
            self.cpu = cpu_time();
            self.asked = now;
        }
    }

    /// For how long at least this process did not run since `since`, if that is longer than `limit`. It may have slept for
    /// `slept` by its own will.
    fn longer_than(&self, limit: Span, since: Time, slept: Span, now: Time) -> Option<Span> {
        let since = since.max(self.judged);
        let still = now.since(since).0.saturating_sub(slept.0);
        if still <= limit.0 {
            return None;
        }
        // A turn with much to do takes its time, too, but of the CPU.
        let still = still.saturating_sub(cpu_time().saturating_sub(self.cpu));
        (still > limit.0).then_some(Span(still))
    }
}

impl Pool {
    /// After a poll of at most `slept`, begun in the turn of `since`: what came meanwhile may be too old to be read.
    pub(super) fn wake(&mut self, since: Time, slept: Span, now: Time) {
        let limit = self.still_limit(since);
        let Some(still) = self.stillness.longer_than(limit, since, slept, now) else {
            return;
        };
        self.stillness.judged = now;
        self.touched = true;
        if self.proxy.has_unsettled() && self.has_movable_clients() {
            self.begin_anew(still, now);
        } else {
            self.close_unread(still, now);
        }
    }

    /// When the next turn is due, if for other reasons it is at `due`.
    pub(super) fn sleep_in_pieces(&self, due: Option<Time>, now: Time) -> Option<Time> {
        let most = now + SLEEP_MAX;
        if due.is_some_and(|due| due <= most) {
            return due;
        }
        // Clients at the door wait, too, for servers that have not answered yet.
        let opening = matches!(self.door, Door::Opening(_));
        let short = opening || self.proxy.is_watched(now) || self.proxy.has_unsettled();
        if short {
            Some(most)
        } else {
            due
        }
    }

    fn now(&self) -> Time {
        self.clock.now()
    }

    /// To be asked right before a server is written to, in the turn of `since`: true when that must not be. Then the core
    /// is a new one.
    pub(super) fn is_too_late(&mut self, since: Time) -> bool {
        let now = self.now();
        let limit = self.still_limit(since);
        if now.since(since) <= limit {
            return false;
        }
        let still = self.stillness.longer_than(limit, since, Span(0), now);
        let Some(still) = still.filter(|_| self.has_movable_clients()) else {
            return false;
        };
        self.stillness.judged = now;
        self.begin_anew(still, now);
        true
    }

    fn still_limit(&self, since: Time) -> Span {
        if self.proxy.is_watched(since) {
            STOOD_STILL_WATCHED
        } else {
            STOOD_STILL
        }
    }

    fn has_movable_clients(&self) -> bool {
        let mut clients = self.clients.iter().flatten();
        clients.any(|client| may_move(&client.stream))
    }

    /// What is under way cannot be called back one by one: a write that is repeated, a repair, a copy. So all of it is
    /// dropped, and the proxy begins as if it had been started now, which is safe at any time.
    fn begin_anew(&mut self, still: Span, now: Time) {
        let mut closed = 0;
        for client in self.clients.drain(..).flatten() {
            forget(&client.stream);
            closed += 1;
        }
        self.links.take_all().for_each(Link::reset);
        self.arrange_servers();
        self.again.clear();
        self.writable.clear();
        self.proxy.begin_anew(&self.config, now);
        if self.door == Door::Open {
            // Servers are connected to first, as at the start.
            for (_, listener) in self.listeners.iter_mut() {
                // Should it fail, clients come in early and are refused.
                let _ = listener.deregister(&self.registry);
            }
            self.door = Door::opening(&self.config, now);
        }
        closed += self.close_at_the_door(now);
        let detail = format!(
            "stood still for {} ms with requests under way: {closed} clients closed, all begun anew",
            still.0 / 1000
        );
        self.proxy.happened(Kind::StoodStill, "", detail, now);
    }

    /// Clients whose address may have moved are not read. Who comes by the loopback network or a Unix socket cannot have
    /// gone elsewhere.
    fn close_unread(&mut self, still: Span, now: Time) {
        let mut closed = 0;
        for index in 0..self.clients.len() {
            let Some(client) = &self.clients[index] else {
                continue;
            };
            if !may_move(&client.stream) {
                continue;
            }
            forget(&client.stream);
            let id = ClientId {
                index: index as u32,
                generation: client.generation(),
            };
            self.client_broke(id, now);
            closed += 1;
        }
        closed += self.close_at_the_door(now);
        let detail = format!(
            "stood still for {} ms: {closed} clients closed unread",
            still.0 / 1000
        );
        self.proxy.happened(Kind::StoodStill, "", detail, now);
    }

    /// The same for those who have not been accepted yet. Where the servers have not answered yet, the others wait on.
    fn close_at_the_door(&mut self, now: Time) -> usize {
        let mut closed = 0;
        // An error is an empty queue, or is met again when the listener is next asked.
        for index in 0..self.listeners.len() {
            while let Some(Ok(stream)) = self.listeners.get(index).map(|listener| listener.accept())
            {
                if may_move(&stream) {
                    forget(&stream);
                    closed += 1;
                } else if self.door == Door::Open {
                    self.welcome(stream, now);
                } else {
                    self.early.push(stream);
                }
            }
        }
        closed
    }
}

fn cpu_time() -> u64 {
    let (user, system) = limits::cpu_time();
    user + system
}
