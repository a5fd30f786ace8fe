//! Room and flow: clients whose next request waits until its server has room for it.
//!
//! What is under way to a server is bounded by what its link carries (`window`). A request that finds no room is not taken
//! from its client yet: so nothing overtakes anything, no bytes are kept for it but those that came, and one whose client goes
//! meanwhile is never asked. Who may go next is who will have been given least with it (fair queueing, counted in bytes), as far as its last reply
//! tells: a small request goes before the second large one of another client. One that has waited for a whole time limit
//! is answered without the server, and nothing was done.

use std::collections::{BTreeMap, HashMap};

use super::ids::{Action, ClientId};
use super::op::{Class, Data, Op};
use super::route::Route;
use super::sabotage::{is, Sabotage};
use super::Proxy;
use crate::proto::request::Request;
use crate::proto::token::next_token;
use crate::time::Time;

/// What a request takes at least of its client's share.
const SHARE_LEAST: u64 = 64;

/// So many clients may have been given something before those are forgotten that do not matter.
const SERVED_MAX: usize = 1024;

/// Where a client stands whose requests have to wait.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Turn {
    /// Its requests are looked at as they come.
    #[default]
    None,
    /// It waits.
    Waiting,
    /// It may go now.
    Given,
    /// It has waited too long.
    Over,
    /// Memory is short: it may have one request under way, once it has taken all that it is owed.
    Sparing,
    /// It has had its share of this turn of the loop: the others come first.
    Behind,
}

/// Place in a queue: what its client will have been given with this, and then who came first.
type Place = (u64, u64);

#[derive(Clone, Copy, Debug)]
struct Waiting {
    client: ClientId,
    since: Time,
}

/// Those who wait for one server.
#[derive(Debug, Default)]
struct Queue {
    places: BTreeMap<Place, Waiting>,
    /// Nobody has waited too long before that.
    due: Option<Time>,
}

/// All that wait.
#[derive(Debug, Default)]
pub struct Crowd {
    /// A server had no room lately: requests have to be looked at.
    pub is_on: bool,
    /// What clients have been given that were served last: whoever comes anew begins there.
    clock: u64,
    /// What each has been given, by client.
    served: HashMap<ClientId, u64>,
    /// How many of these were left when it was last tidied up.
    served_kept: usize,
    came: u64,
    count: usize,
    /// By server.
    queues: Vec<Queue>,
    /// Who has its turn now, and since when it had waited.
    turn: Option<(ClientId, Time)>,
    /// The request that is being taken gets no server that has no room.
    pub refusing: bool,
}

impl Crowd {
    fn queue(&mut self, server: usize) -> &mut Queue {
        if self.queues.len() <= server {
            self.queues.resize_with(server + 1, Queue::default);
        }
        &mut self.queues[server]
    }

    /// Whether somebody waits for this server.
    fn is_queued(&self, server: usize) -> bool {
        let queue = self.queues.get(server);
        queue.is_some_and(|queue| !queue.places.is_empty())
    }

    fn serve(&mut self, id: ClientId, until: u64) {
        if self.served.len() >= SERVED_MAX.max(self.served_kept * 2) {
            // Whoever is not ahead of the others begins where one does that comes anew.
            let clock = self.clock;
            self.served.retain(|_, until| *until > clock);
            self.served_kept = self.served.len();
        }
        self.served.insert(id, until);
    }

    fn put(&mut self, server: usize, tag: u64, waiting: Waiting, due: Time) {
        self.came += 1;
        self.count += 1;
        let place = (tag, self.came);
        let queue = self.queue(server);
        queue.due = Some(queue.due.map_or(due, |before| before.min(due)));
        queue.places.insert(place, waiting);
    }

    /// The one that is next at this server.
    fn pop(&mut self, server: usize) -> Option<Waiting> {
        let queue = self.queues.get_mut(server)?;
        let (_, waiting) = queue.places.pop_first()?;
        if queue.places.is_empty() {
            queue.due = None;
        }
        self.count -= 1;
        Some(waiting)
    }

    /// How many clients wait.
    pub fn count(&self) -> usize {
        self.count
    }

    /// When the first of them may have waited too long.
    pub fn due(&self) -> Option<Time> {
        self.queues.iter().filter_map(|queue| queue.due).min()
    }

    /// Servers are going to have other numbers: everybody is looked at anew.
    pub fn scatter(&mut self) {
        let queues = std::mem::take(&mut self.queues);
        let all = queues.into_iter().flat_map(|queue| queue.places);
        // Whatever server is the first: it is asked for each of them once more which one is meant.
        let places: BTreeMap<Place, Waiting> = all.collect();
        let due = places.values().map(|waiting| waiting.since).min();
        self.queues = vec![Queue { places, due }];
    }
}

impl Proxy {
    /// Whether the request has to wait for its turn. `size`: bytes of its block.
    pub(super) fn holds_back(&mut self, id: ClientId, request: &Request<'_>, size: usize) -> bool {
        self.crowd.is_on && {
            let mut op = Op::new(id, 0, request, Data::None);
            op.route = self.route_of(&op);
            self.must_queue(&op, size)
        }
    }

    /// The same, where it is known that requests have to be looked at.
    pub(super) fn must_queue(&mut self, op: &Op<'_>, size: usize) -> bool {
        self.crowd.refusing = false;
        if is(Sabotage::QueueIsLate) {
            return false;
        }
        let id = op.client;
        let Some(turn) = self.client(id).map(|client| client.turn) else {
            return false;
        };
        match turn {
            Turn::Waiting => return true,
            Turn::Over => {
                self.crowd.refusing = true;
                self.set_turn(id, Turn::None);
                return false;
            }
            Turn::None | Turn::Given | Turn::Behind | Turn::Sparing => {}
        }
        let full = self.full_for(op, turn == Turn::Given);
        let clock = self.crowd.clock;
        let served = self.crowd.served.get(&id).copied();
        let typical = self.typical as u64;
        let begins = served.unwrap_or(0).max(clock);
        let Some(client) = self.client_mut(id) else {
            return false;
        };
        let reply = match client.last {
            // Nothing is known of one that comes anew: it goes behind those who want little.
            0 => typical / 2,
            last => u64::from(last),
        };
        let share = reply.max(size as u64).max(SHARE_LEAST);
        let ends = begins + share;
        if let Some(server) = full {
            client.turn = Turn::Waiting;
            let since = match self.crowd.turn {
                Some((holder, since)) if holder == id => since,
                _ => self.now,
            };
            let due = self.limit(since);
            let waiting = Waiting { client: id, since };
            self.crowd.put(server, ends, waiting, due);
            return true;
        }
        client.turn = Turn::None;
        self.crowd.serve(id, ends);
        self.crowd.clock = begins;
        false
    }

    /// A server of those that `op` goes to that has no room. `given`: it does not matter who waits there.
    fn full_for(&self, op: &Op<'_>, given: bool) -> Option<usize> {
        let writes = op.class() != Class::Read || op.verb.is_gat();
        if op.key_count == 1 {
            return self.full_on(op.route, writes, given);
        }
        let mut at = op.key.start;
        while let Some(token) = next_token(&op.line[..op.keys_end], at) {
            let full = self.full_on(self.routes.of(token.of(op.line)), writes, given);
            if full.is_some() {
                return full;
            }
            at = token.end;
        }
        None
    }

    fn full_on(&self, route: Route, writes: bool, given: bool) -> Option<usize> {
        let is_full = |server: &usize| {
            let has_no_room = self.servers[*server].window.is_full();
            has_no_room || (!given && self.crowd.is_queued(*server))
        };
        if writes {
            let copies = (0..self.routes.ranks())
                .filter_map(|rank| self.routes.server(route, rank))
                .filter(|&server| self.servers[server].is_up());
            return copies.into_iter().find(is_full);
        }
        let acting = self.acting(route, 0).map(|(_, server)| server);
        acting.filter(is_full)
    }

    /// The copy to read from: the acting one, or for a request that has waited too long the first that has room.
    pub(super) fn acting_with_room(&self, route: Route) -> Option<(usize, usize)> {
        let mut acting = self.acting(route, 0);
        if self.crowd.refusing {
            while let Some((rank, server)) = acting {
                if !self.servers[server].window.is_full() {
                    break;
                }
                acting = self
                    .acting(route, rank + 1)
                    .filter(|&(next, _)| next > rank);
            }
        }
        acting
    }

    fn set_turn(&mut self, id: ClientId, turn: Turn) {
        if let Some(client) = self.client_mut(id) {
            client.turn = turn;
        }
    }

    /// Lets those go on for whom there is room now, or whose server is lost.
    pub(super) fn let_go_on(&mut self) {
        for server in 0..self.crowd.queues.len() {
            // Each of them may be put at the end once more.
            let mut most = self.crowd.count;
            while most > 0 && self.crowd.is_queued(server) {
                let there = self.servers.get(server);
                if there.is_some_and(|there| there.is_up() && there.window.is_full()) {
                    break;
                }
                most -= 1;
                if let Some(waiting) = self.crowd.pop(server) {
                    self.go_on(waiting, Turn::Given);
                }
            }
        }
    }

    fn go_on(&mut self, waiting: Waiting, turn: Turn) {
        let id = waiting.client;
        let Some(client) = self.client_mut(id) else {
            return;
        };
        client.turn = turn;
        if client.closing {
            return;
        }
        client.stalled = false;
        let last = client.last;
        self.crowd.turn = Some((id, waiting.since));
        self.take_in_partial(id);
        self.crowd.turn = None;
        self.crowd.refusing = false;
        let Some(client) = self.client_mut(id) else {
            return;
        };
        if matches!(client.turn, Turn::Given | Turn::Over) {
            client.turn = Turn::None;
        }
        if turn == Turn::Over {
            // A refusal tells nothing of what it asks for.
            client.last = last;
        }
        if client.stalled {
            return;
        }
        if client.finished {
            self.close_when_settled(id);
        } else {
            self.actions.push_back(Action::ReadClient(id));
        }
    }

    /// Puts a client behind the others that have something to do: it goes on in the next turn of the loop.
    pub(super) fn put_behind(&mut self, id: ClientId) {
        if let Some(client) = self.client_mut(id) {
            client.stalled = true;
            client.turn = Turn::Behind;
            self.behind.push(id);
        }
    }

    /// A new turn: those who had their share of the one before go on.
    pub(super) fn take_up_behind(&mut self) {
        let mut behind = std::mem::take(&mut self.behind);
        for id in behind.drain(..) {
            self.set_turn(id, Turn::None);
            self.resumable.push(id);
        }
        // Its room is kept.
        self.behind = behind;
    }

    /// Answers those who have waited for a whole time limit.
    pub(super) fn look_at_crowd(&mut self) {
        if !self.crowd.is_on {
            return;
        }
        let mut over = Vec::new();
        for server in 0..self.crowd.queues.len() {
            if self.crowd.queues[server]
                .due
                .is_none_or(|due| due > self.now)
            {
                continue;
            }
            let places = std::mem::take(&mut self.crowd.queues[server].places);
            let (late, rest): (BTreeMap<_, _>, BTreeMap<_, _>) = places
                .into_iter()
                .partition(|(_, waiting)| self.limit(waiting.since) <= self.now);
            let oldest = rest.values().map(|waiting| waiting.since).min();
            let due = oldest.map(|since| self.limit(since));
            self.crowd.count -= late.len();
            self.crowd.queues[server] = Queue { places: rest, due };
            over.extend(late.into_values());
        }
        for waiting in over {
            self.counters.refused_full += 1;
            self.go_on(waiting, Turn::Over);
        }
        if self.crowd.count == 0 && !self.servers.iter().any(|server| server.window.is_full()) {
            self.crowd = Crowd::default();
        }
    }
}
