//! The core: a plain struct that turns bytes and time into bytes and intentions.
//!
//! The edge (`net`, or the simulator) calls the inputs (`client_*`, `link_*`, `tick`), then drains
//! [`Proxy::poll_action`] and [`Proxy::poll_dirty`], and sleeps until [`Proxy::next_timeout`].
//! The core opens no socket and reads no clock.
//!
//! Rooms own state (`client`, `long`, `server`, `txn`, `route`, `coverage`, `order`, `gathers`, `view`, `journal`, `eject`, `survey`, `census`, `sums`, `stats`); flows are `impl Proxy` in their own
//! files and own nothing: `clients` (who comes and goes), `intake`, `blocks` and `keys` (bytes of clients), `aside` (what they do not read), `dispatch` (who may go), `read`, `gather`, `write`, `mirror`, `exact`, `heal`, `flush`,
//! `answers` and `values` (bytes of servers), `health` and `loss` (up, down, time limits), `greet`, `enter`, `stamps`, `repair`, `refill`, `resync` (what
//! returning servers missed), `reload` and `exchange` (another configuration), `local` and `general` (what the proxy answers itself).

mod anew;
mod answers;
mod aside;
mod blocks;
mod cas;
mod census;
mod classic;
mod client;
mod clients;
mod coverage;
mod crowd;
mod dialect;
mod dispatch;
mod eject;
mod enter;
pub mod events;
mod exact;
mod exchange;
mod flush;
mod forget;
mod frames;
mod gather;
mod gathers;
mod general;
mod greet;
mod halves;
mod handover;
mod heal;
mod health;
mod ids;
mod inquiry;
mod intake;
mod item;
mod journal;
mod keys;
mod leftovers;
mod lists;
mod local;
mod long;
mod loss;
mod mirror;
mod op;
mod order;
mod passing;
mod placing;
mod proof;
mod read;
mod refill;
mod reload;
mod repair;
pub mod report;
mod resync;
mod route;
pub mod sabotage;
mod server;
mod slots;
mod slow;
mod stamps;
pub mod stats;
mod sums;
mod survey;
mod tail;
mod touches;
mod twins;
mod txn;
mod values;
mod version;
mod view;
mod window;
mod write;

pub use ids::{Action, ClientId, CloseReason, ConnId, LinkId, ProcessFacts, WriteState};
pub use route::{Route, Routes};

use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::rc::Rc;

use slab::Slab;

use crate::buf::Memory;
use crate::config::{Ack, Config, ReadRepair, Rejoin};
use crate::time::{Span, Time};

use aside::Stuck;
use census::{Census, Page};
use client::Client;
use coverage::{Address, Coverage};
use crowd::Crowd;
use eject::Ejects;
use events::Events;
use flush::Barrier;
use gathers::Gathers;
use inquiry::Inquiry;
use lists::Lists;
use order::Order;
use reload::Reload;
use repair::Repair;
use resync::Resync;
use server::{LinkState, Server};
use slow::Slow;
use stats::{Commands, Counters};
use txn::Txns;
use version::Versions;
use view::{Origin, View};

/// The limits and times the core needs of the configuration.
#[derive(Clone, Copy, Debug)]
struct Settings {
    timeout: Span,
    max_conns: usize,
    max_item_size: usize,
    idle_timeout: Option<Span>,
    ack: Ack,
    rejoin: Rejoin,
    read_repair: ReadRepair,
    resync_rate: u32,
    retry_max: Span,
}

impl Settings {
    fn of(config: &Config) -> Settings {
        Settings {
            timeout: config.timeout,
            max_conns: config.max_conns,
            max_item_size: config.max_item_size,
            idle_timeout: config.idle_timeout,
            ack: config.ack,
            rejoin: config.rejoin,
            read_repair: config.read_repair,
            resync_rate: config.resync_rate,
            retry_max: config.retry_max,
        }
    }
}

/// The proxy core for one pool of servers.
pub struct Proxy {
    /// Its name; `default` for the one of the command line.
    pool: String,
    settings: Settings,
    facts: ProcessFacts,
    now: Time,
    memory: Memory,
    /// With so many bytes on that account half requests are looked at.
    halves_at: usize,
    clients: Slab<Client>,
    next_generation: u32,
    servers: Vec<Server>,
    routes: Routes,
    coverage: Coverage,
    /// Addresses of `-l`, as the edge sees them.
    addresses: Vec<Address>,
    txns: Txns,
    gathers: Gathers,
    order: Order,
    barrier: Barrier,
    /// When a `flush_all` with a delay takes effect.
    flush_due: Option<Time>,
    repairs: Slab<Repair>,
    /// Those that wait until nothing is undecided on their bucket.
    parked: Vec<u32>,
    inquiries: Slab<Inquiry>,
    census: [Census; Page::ALL.len()],
    /// What `stats settings` says of this proxy.
    own_settings: Vec<(&'static str, String)>,
    resync: Resync,
    /// The present view, this proxy's name in views, and the lists under which stamps are written.
    view: View,
    /// How that view came to be, if known.
    origin: Option<Rc<Origin>>,
    me: u64,
    lists: Lists,
    /// A later view has been seen: since then all servers are asked whether they took part.
    recheck: Option<Time>,
    /// The view is to be raised once that is over.
    raise_due: bool,
    ejects: Ejects,
    reload: Reload,
    /// When a client last asked for a key.
    last_request: Option<Time>,
    actions: VecDeque<Action>,
    dirty_clients: Vec<ClientId>,
    dirty_links: Vec<LinkId>,
    resumable: Vec<ClientId>,
    crowd: Crowd,
    /// Clients that go on in the next turn, and what the one that is being read has had of this.
    behind: Vec<ClientId>,
    work: u32,
    /// Memory is short; see [`crowd::Turn::Sparing`].
    sparing: bool,
    /// The form of `stats` that was rendered last in this turn, and what came of it.
    rendered: (Vec<u8>, Vec<u8>),
    stuck: Stuck,
    counters: Counters,
    commands: Box<Commands>,
    events: Events,
    slow: Slow,
    /// All servers that are up know explicit CAS (`E`); and know the meta commands at all.
    explicit_cas: bool,
    versions: Versions,
    meta: bool,
    draining: bool,
    /// When somebody last asked for this proxy's health.
    health_asked: Option<Time>,
    next_idle_check: Time,
    /// When `tick` was last called, and when the proxy itself was last found to have been stopped for a while: no
    /// server is blamed for that time.
    last_tick: Time,
    resumed: Time,
    started: Time,
    /// What size values had lately, in bytes: what a new client is expected to ask for.
    typical: usize,
    /// Reused for bytes that go from one server's log to another's.
    scratch: Vec<u8>,
    /// Reused for what is mirrored of a conditional write, while `scratch` may hold the answer to it.
    outcome: Vec<u8>,
    /// Reused for requests that are given a version.
    versioned: Vec<u8>,
    /// Reused for requests that came as frames.
    framed: Vec<u8>,
}

impl Proxy {
    /// A core for the servers of `config`; it begins to connect with the first `tick`.
    pub fn new(config: &Config, facts: ProcessFacts, now: Time) -> Proxy {
        let routes = Routes::new(config);
        let primaries = config.servers.iter().map(|spec| (spec, true));
        let backups = config.backups.iter().map(|spec| (spec, false));
        let names = view::pool_names(config);
        let servers = primaries
            .chain(backups)
            .map(|(spec, is_primary)| {
                let name = spec.address();
                let place = view::place_among(&names, &name);
                Server::new(
                    (name, place),
                    is_primary,
                    config.server_conns.max(1),
                    config.journal_keys,
                    now,
                )
            })
            .collect();
        let mut proxy = Proxy {
            pool: config.pool.clone().unwrap_or_else(|| "default".into()),
            settings: Settings::of(config),
            facts,
            now,
            memory: Memory::new(config.memory_limit),
            halves_at: 0,
            clients: Slab::new(),
            next_generation: 0,
            servers,
            coverage: Coverage::new(&routes),
            routes,
            addresses: Vec::new(),
            txns: Txns::default(),
            gathers: Gathers::default(),
            order: Order::new(),
            barrier: Barrier::default(),
            flush_due: None,
            repairs: Slab::new(),
            parked: Vec::new(),
            inquiries: Slab::new(),
            census: Page::ALL.map(Census::new),
            own_settings: general::own_settings(config),
            resync: Resync::default(),
            view: View::default(),
            origin: None,
            me: view::owner(&config.proxy_id),
            lists: Lists::new(config),
            recheck: None,
            raise_due: false,
            ejects: Ejects::new(config.journal_keys),
            reload: Reload::default(),
            last_request: None,
            actions: VecDeque::new(),
            dirty_clients: Vec::new(),
            dirty_links: Vec::new(),
            resumable: Vec::new(),
            crowd: Crowd::default(),
            behind: Vec::new(),
            work: 0,
            sparing: false,
            rendered: Default::default(),
            stuck: Stuck::default(),
            counters: Counters::default(),
            commands: Box::default(),
            events: Events::new(config.pool.clone()),
            slow: Slow::new(config.slow, config.log_keys),
            explicit_cas: false,
            versions: Versions::new(view::owner(&config.proxy_id)),
            meta: true,
            draining: false,
            health_asked: None,
            next_idle_check: now,
            last_tick: now,
            resumed: now,
            started: now,
            typical: 0,
            scratch: Vec::new(),
            outcome: Vec::new(),
            versioned: Vec::new(),
            framed: Vec::new(),
        };
        proxy.mark_twins();
        proxy
    }

    /// The next thing to do. Drain after each batch of inputs.
    pub fn poll_action(&mut self) -> Option<Action> {
        if self.barrier.is_raised() {
            self.pass_barrier();
        }
        self.resume_clients();
        if self.reload.has_moved() {
            // The edge has to know the servers by their new indices first.
            return None;
        }
        self.actions.pop_front()
    }

    /// The next connection that has bytes to write. Drain after the actions, calling `write_to` for each once.
    /// Clients come first.
    pub fn poll_dirty(&mut self) -> Option<ConnId> {
        self.poll_dirty_client().or_else(|| self.poll_dirty_link())
    }

    /// The next client that has bytes to write.
    pub fn poll_dirty_client(&mut self) -> Option<ConnId> {
        while let Some(id) = self.dirty_clients.pop() {
            if let Some(client) = self.client_mut(id) {
                client.dirty = false;
                return Some(ConnId::Client(id));
            }
        }
        None
    }

    /// The next server connection that has.
    pub fn poll_dirty_link(&mut self) -> Option<ConnId> {
        while let Some(link_id) = self.dirty_links.pop() {
            let link = self.link_mut(link_id);
            link.dirty = false;
            if matches!(link.state, LinkState::Unproven | LinkState::Ready) {
                return Some(ConnId::Link(link_id));
            }
        }
        None
    }

    /// How many bytes wait to be written to servers.
    pub fn unsent(&self) -> usize {
        let links = self.dirty_links.iter();
        links
            .map(|id| {
                let server = &self.servers[usize::from(id.server)];
                server.links[usize::from(id.conn)].log.unsent()
            })
            .sum()
    }

    /// Writes what waits for `id` until it is drained or the writer would block.
    /// An error means that the connection is lost: report it by `client_closed` or `link_closed`.
    pub fn write_to<W: io::Write>(
        &mut self,
        id: ConnId,
        writer: &mut W,
        now: Time,
    ) -> io::Result<WriteState> {
        self.now = now;
        let drained = match id {
            ConnId::Client(id) => self.write_client(id, writer)?,
            ConnId::Link(id) => {
                let server = &mut self.servers[usize::from(id.server)];
                let link = &mut server.links[usize::from(id.conn)];
                let was_sent = link.head_is_sent();
                let before = link.log.unsent();
                let behind = link.left_behind();
                let drained = link.log.write_to(writer)?;
                let written = before - link.log.unsent();
                if written > 0 {
                    link.note_progress(was_sent, written, now);
                    link.note_sent(behind, now);
                    server.bytes_sent += written as u64;
                }
                link.is_blocked = !drained;
                drained
            }
        };
        Ok(if drained {
            WriteState::Drained
        } else {
            WriteState::Blocked
        })
    }

    /// True when much memory has been freed that may go back to the system, as a burst is over or the clients' table has moved.
    pub fn has_calmed(&mut self) -> bool {
        self.memory.has_calmed()
    }

    /// True once every server has answered or failed at least once: time to accept clients.
    pub fn is_ready(&self) -> bool {
        self.servers.iter().all(|server| server.tried)
    }

    /// Begin to end: clients are closed as soon as what they asked for is answered.
    pub fn begin_drain(&mut self, now: Time) {
        self.now = now;
        self.draining = true;
        let ids: Vec<ClientId> = self.client_ids().collect();
        for id in ids {
            self.client_finished(id, now);
        }
    }

    /// An address of `-l` is on this host, or is not: for `stats`.
    pub fn note_address(&mut self, ip: IpAddr, is_here: bool, now: Time) {
        self.now = now;
        let news = coverage::note(&mut self.addresses, ip, is_here, now);
        if news && !ip.is_loopback() {
            let (kind, place) = if is_here {
                (events::Kind::AddressHere, "here")
            } else {
                (events::Kind::AddressGone, "not here")
            };
            self.happened(kind, &ip.to_string(), place, now);
        }
    }

    /// How many servers there are, and how many of them answer.
    pub fn server_counts(&self) -> (usize, usize) {
        let all = self
            .servers
            .iter()
            .filter(|server| server.state != server::State::Twin);
        let live = all.clone().filter(|server| server.is_connected());
        (all.count(), live.count())
    }

    /// Whether a key may be at several servers, or elsewhere than at its own.
    pub fn keeps_copies(&self) -> bool {
        self.has_views()
    }

    /// True once no client is left.
    pub fn is_drained(&self) -> bool {
        self.clients.is_empty()
    }

    fn link_mut(&mut self, id: LinkId) -> &mut server::Link {
        &mut self.servers[usize::from(id.server)].links[usize::from(id.conn)]
    }
}
