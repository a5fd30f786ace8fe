//! The world of one run: virtual time, the list of events, and everything that lives in it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::clients::Client;
use super::faults::Faults;
use super::history::History;
use super::host::Host;
use super::net::{Conn, Delivered, End, Net, Side, State};
use super::node::Node;
use super::overlap::Overlap;
use super::profile::{Guarantees, Plan, Profile};
use super::reloads::{self, InForce};
use super::rng::Rng;
use super::sabotage::Sabotage;

/// Seconds since 1970 at the beginning of virtual time.
pub const EPOCH: i64 = 1_800_000_000;

/// What happens at a point in time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Event {
    /// Bytes that `side` wrote arrive.
    Deliver(Conn, Side),
    /// `side` can write again.
    Writable(Conn, Side),
    /// The request for a connection arrives.
    Connect(Conn),
    /// `side` hears that the other end has reset.
    Reset(Conn, Side),
    /// The loop of a proxy wakes.
    Turn(usize),
    /// A server's thread looks at a connection.
    Serve(usize, Conn),
    /// A client does something.
    Act(usize),
    /// A client reads.
    ReadClient(usize, Conn),
    /// A client asks again at once, so many times.
    Hurry(usize, u32),
    /// Something breaks, or is mended.
    Fault,
    /// A server goes in the middle of a long value.
    Strike,
    /// A proxy crashes or starts, or the address moves.
    Handover,
    /// A server is slow for a while.
    Lag,
    /// The configuration changes.
    Reload,
}

/// Counted over a run, to show that what should happen does happen.
#[derive(Clone, Copy, Default, Debug)]
pub struct Tally {
    pub requests: u64,
    pub replies: u64,
    pub events: u64,
    pub resets: u64,
    pub faults: u64,
    /// Crashes and moves of proxies.
    pub moves: u64,
    pub errors: u64,
    pub failovers: u64,
    pub failed_reads: u64,
    pub held: u64,
    pub mirrored: u64,
    pub checked: u64,
    pub unchecked: u64,
    pub lost: u64,
    pub disagreements: u64,
    /// Clients that were cut off in the middle of a long value.
    pub cut_off: u64,
    /// Replies that clients heard half before their connection ended.
    pub halves: u64,
}

pub struct World {
    pub now: u64,
    pub rng: Rng,
    pub plan: Plan,
    pub guarantees: Guarantees,
    pub net: Net,
    pub nodes: Vec<Node>,
    pub hosts: Vec<Host>,
    /// The proxy that clients connect to.
    pub active: usize,
    /// Something is about to happen to the proxies.
    pub armed: bool,
    /// The list of servers is without its last one: see `lists`.
    pub is_short: bool,
    /// What the proxy was last told, see `reloads`.
    pub in_force: InForce,
    /// Clients ask for nothing until then.
    pub idle_until: u64,
    /// The last change of the configuration is carried out then.
    pub changed_until: u64,
    /// From then on it can be reached.
    pub moved_at: u64,
    pub clients: Vec<Client>,
    pub history: History,
    pub faults: Faults,
    pub overlap: Overlap,
    pub sabotage: Sabotage,
    pub tally: Tally,
    /// Requests that clients may still send.
    pub budget: u64,
    /// The first thing that was wrong.
    pub failure: Option<String>,
    /// A digest of everything that happened.
    pub digest: u64,
    pub trace: bool,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    seq: u64,
    end_at: Option<u64>,
    /// Used again for bytes on their way.
    pub scratch: Vec<u8>,
}

impl World {
    pub fn new(seed: u64, profile: Profile, steps: u64, sabotage: Sabotage) -> World {
        let mut rng = Rng::new(seed);
        let guarantees = profile.guarantees();
        let circumstances = profile.circumstances();
        let (profile, frames) = (circumstances.base, circumstances.frames);
        let plan = Plan::draw(circumstances, &mut rng);
        let servers = reloads::count(&reloads::nodes_of(&plan.config));
        let nodes = (0..servers)
            .map(|index| Node::new(index, &plan, &mut rng))
            .collect();
        let proxies = match profile {
            Profile::Takeover => 2,
            Profile::Eject => rng.range(1, 2) as usize,
            _ => 1,
        };
        let mut world = World {
            now: 0,
            net: Net::new(&plan),
            nodes,
            hosts: (0..proxies)
                .map(|host| Host::new(&plan.config, host, 0))
                .collect(),
            active: 0,
            armed: false,
            is_short: false,
            in_force: InForce::new(&plan.config),
            idle_until: 0,
            changed_until: 0,
            moved_at: 0,
            clients: (0..plan.clients)
                .map(|_| Client::new(rng.next(), &plan, frames))
                .collect(),
            history: History::new(&plan, guarantees),
            faults: Faults::new(&plan, steps, &mut rng),
            overlap: Overlap::new(servers),
            sabotage,
            tally: Tally::default(),
            budget: steps,
            failure: None,
            digest: 0,
            trace: false,
            events: BinaryHeap::new(),
            seq: 0,
            end_at: None,
            scratch: Vec::new(),
            rng,
            plan,
            guarantees,
        };
        for host in 0..proxies {
            world.at(0, Event::Turn(host));
        }
        for client in 0..world.clients.len() {
            let pause = world.rng.below(3000);
            world.at(pause, Event::Act(client));
        }
        if profile != Profile::Calm {
            let pause = world.faults.pause(&mut world.rng);
            world.at(pause, Event::Fault);
        }
        if world.plan.lags {
            world.at(200_000, Event::Lag);
        }
        if world.plan.reloads {
            world.at(1_000_000, Event::Reload);
        }
        if proxies > 1 {
            // Servers return there, too: clients go on until all is whole.
            world.faults.settled = false;
            world.at(500_000, Event::Handover);
        }
        world
    }

    /// Runs until the clients are through and all is quiet. The first thing that was wrong, if any.
    pub fn run(&mut self) -> Result<(), String> {
        // Far more than any run needs; one that takes longer spins.
        let limit = 10_000 + 2000 * self.budget;
        while let Some(Reverse((at, _, event))) = self.events.pop() {
            self.now = at;
            self.tally.events += 1;
            self.note(event);
            self.happen(event);
            if self.failure.is_none() && self.tally.events > limit {
                self.fail("the world does not come to rest".into());
            }
            if self.is_at_end() {
                break;
            }
            if let Some(failure) = self.failure.take() {
                return Err(failure);
            }
        }
        match self.failure.take() {
            Some(failure) => Err(failure),
            None => Ok(()),
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Deliver(conn, side) => self.deliver(conn, side),
            Event::Writable(conn, side) => self.writable(conn, side),
            Event::Connect(conn) => self.connect_arrived(conn),
            Event::Reset(conn, side) => self.reset_arrived(conn, side),
            Event::Turn(host) => self.turn(host),
            Event::Serve(server, conn) => self.serve(server, conn),
            Event::Act(client) => self.act(client),
            Event::ReadClient(client, conn) => self.read_client(client, conn),
            Event::Hurry(client, left) => self.hurry(client, left),
            Event::Fault => self.break_something(),
            Event::Strike => self.strike(),
            Event::Handover => self.hand_over(),
            Event::Lag => self.slow_one_down(),
            Event::Reload => self.reload(),
        }
    }

    fn note(&mut self, event: Event) {
        let mixed = self.digest
            ^ self.now
            ^ self.tally.replies.rotate_left(40)
            ^ self.tally.requests.rotate_left(20);
        self.digest = mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23);
        if self.trace {
            println!("{:>12} {event:?}", self.now);
        }
    }

    pub fn log(&self, text: impl FnOnce() -> String) {
        if self.trace {
            println!("{:>12}   {}", self.now, text());
        }
    }

    pub fn fail(&mut self, why: String) {
        if self.failure.is_none() {
            self.failure = Some(format!("at {} us: {why}", self.now));
        }
    }

    pub fn at(&mut self, time: u64, event: Event) {
        self.seq += 1;
        self.events.push(Reverse((time, self.seq, event)));
    }

    pub fn after(&mut self, pause: u64, event: Event) {
        self.at(self.now + pause, event);
    }

    /// One way through the network.
    pub fn delay(&mut self) -> u64 {
        let stalled = self.plan.stalls && self.rng.one_in(2000);
        let most = if stalled {
            self.plan.config.timeout.0
        } else {
            self.plan.delay_max
        };
        self.rng.range(self.plan.delay_min, most)
    }

    pub fn send_off(&mut self, conn: Conn, side: Side) {
        let delay = self.delay() + self.on_link(conn, side);
        self.after(delay, Event::Deliver(conn, side));
    }

    /// The server at an end of the connection, if there is one.
    pub fn server_of(&self, conn: Conn) -> Option<usize> {
        match self.net.end(conn, 1) {
            End::Server(server) => Some(server),
            _ => None,
        }
    }

    fn deliver(&mut self, conn: Conn, side: Side) {
        if self
            .server_of(conn)
            .is_some_and(|server| self.nodes[server].is_unreachable())
        {
            self.net.hold(conn, side);
            return;
        }
        let most = self.piece(conn);
        match self.net.deliver(conn, side, most, &mut self.rng) {
            Delivered::Nothing => return,
            Delivered::News { more: true } => self.send_off(conn, side),
            Delivered::News { more: false } => {}
        }
        self.readable(conn, 1 - side);
    }

    /// Tells the owner of the end that there is something to read.
    pub fn readable(&mut self, conn: Conn, side: Side) {
        if !self.net.holds(conn, side) {
            return;
        }
        match self.net.end(conn, side) {
            End::Client(client) => {
                let pause = self.clients[client].reading_pause(&mut self.rng);
                self.after(pause, Event::ReadClient(client, conn));
            }
            End::HostClient(host) | End::HostLink(host, _, _) => {
                self.host_news(host, super::host::News::Readable(conn))
            }
            End::Server(server) => self.wake_server(server, conn),
        }
    }

    /// The reader took bytes: a writer that waited for room is told.
    pub fn made_room(&mut self, conn: Conn, writer: Side) {
        if self.net.has_room_for(conn, writer) {
            let delay = self.delay();
            self.after(delay, Event::Writable(conn, writer));
        }
    }

    /// The writer found no room.
    pub fn blocked(&mut self, conn: Conn, side: Side) {
        if self.net.wait_for_room(conn, side) {
            let delay = self.delay();
            self.after(delay, Event::Writable(conn, side));
        }
    }

    fn writable(&mut self, conn: Conn, side: Side) {
        if !self.net.holds(conn, side) || !self.net.take_blocked(conn, side) {
            return;
        }
        match self.net.end(conn, side) {
            End::Client(client) => self.flush_client(client),
            End::HostClient(host) | End::HostLink(host, _, _) => {
                self.host_news(host, super::host::News::Writable(conn))
            }
            End::Server(server) => self.wake_server(server, conn),
        }
    }

    fn connect_arrived(&mut self, conn: Conn) {
        if self.net.state(conn) != State::Asked {
            return;
        }
        match self.net.end(conn, 1) {
            End::Server(server) => self.connect_at_server(server, conn),
            End::HostClient(host) => self.connect_at_host(host, conn),
            _ => {}
        }
    }

    /// `side` abandons the connection; the other end hears of it, unless the network is cut.
    pub fn reset(&mut self, conn: Conn, side: Side) {
        if self.net.state(conn) == State::Asked {
            self.net.forget(conn);
            return;
        }
        if !self.net.holds(conn, side) {
            return;
        }
        self.tally.resets += 1;
        self.net.reset(conn, side, &mut self.rng);
        if !self.net.holds(conn, 1 - side) {
            self.net.forget(conn);
            return;
        }
        if self
            .server_of(conn)
            .is_some_and(|server| self.nodes[server].is_unreachable())
        {
            return;
        }
        let delay = self.delay();
        self.after(delay, Event::Reset(conn, 1 - side));
    }

    fn reset_arrived(&mut self, conn: Conn, side: Side) {
        if !self.net.holds(conn, side) {
            return;
        }
        match self.net.end(conn, side) {
            End::Client(client) => self.client_lost(client, conn, "reset"),
            End::HostClient(host) | End::HostLink(host, _, _) => {
                self.host_news(host, super::host::News::Reset(conn))
            }
            End::Server(server) => self.reset_at_server(server, conn),
        }
    }

    /// When the clients are through, what they asked for is given time to settle everywhere.
    fn is_at_end(&mut self) -> bool {
        if self.failure.is_some() || !self.is_done() || !self.faults.is_over() {
            return false;
        }
        let settled = 1_000_000 + 10 * self.plan.config.timeout.0;
        let end = *self.end_at.get_or_insert(self.now + settled);
        self.now >= end && self.check_end(self.now > end + 1_000_000)
    }

    /// Nothing is under way any more.
    fn is_done(&self) -> bool {
        self.budget == 0 && self.clients.iter().all(Client::is_done)
    }
}
