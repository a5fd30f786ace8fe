//! What the core tells of itself at one moment, for metrics and the page.

use std::net::IpAddr;

use super::events::Events;
use super::local::state_name;
use super::server::Server;
use super::stats::{Commands, Counters, Latency};
use super::{CloseReason, Proxy};
use crate::time::Time;

/// One server.
#[derive(Debug)]
pub struct ServerReport<'a> {
    /// `host:port`, as given.
    pub name: &'a str,
    /// `primary` or `backup`.
    pub role: &'static str,
    /// One of [`STATES`].
    pub state: &'static str,
    /// Seconds since it went up or down.
    pub seconds_in_state: f64,
    /// What it said to `version`.
    pub version: Option<[u32; 3]>,
    /// Links that belong to it.
    pub connections: usize,
    /// Requests whose answer is due.
    pub in_flight: usize,
    /// Requests sent to it, probes not counted.
    pub requests: u64,
    /// Bytes written to it.
    pub bytes_sent: u64,
    /// Bytes read from it.
    pub bytes_received: u64,
    /// Requests not answered in time.
    pub timeouts: u64,
    /// How often it was lost before it had answered a client.
    pub relapses: u64,
    /// How often it was lost or not reached.
    pub lost: [(CloseReason, u64); CloseReason::ALL.len()],
    /// From queueing a request to its answer.
    pub latency: &'a Latency,
    /// Keys remembered while it is away.
    pub journal_keys: usize,
    /// Whether these are all.
    pub journal_complete: bool,
    /// The view it last took part in.
    pub view: u64,
    /// The place of its ejected keys; 0: they are at home.
    pub ejected_place: usize,
}

impl ServerReport<'_> {
    /// Given by `-s`.
    pub fn is_primary(&self) -> bool {
        self.role == "primary"
    }
}

/// The states that a server can be in.
pub const STATES: [&str; 6] = ["connecting", "down", "waiting", "entering", "cold", "up"];

/// How far the background copy has come.
#[derive(Debug)]
pub struct ResyncReport<'a> {
    /// The server that is being filled.
    pub server: &'a str,
    /// Keys dealt with.
    pub done: u64,
    /// Keys listed so far.
    pub listed: u64,
    /// Since it began.
    pub seconds: u64,
    /// Keys per second so far.
    pub rate: u64,
    /// For the listed keys, at that rate.
    pub seconds_left: u64,
}

/// One pool.
#[derive(Debug)]
pub struct Report<'a> {
    /// The pool's name; `default` for the one of the command line.
    pub pool: &'a str,
    /// Seconds since 1970.
    pub unix_seconds: f64,
    /// The start of the process, in seconds since 1970.
    pub started: f64,
    /// User and system CPU seconds of the process.
    pub cpu_seconds: f64,
    /// Client connections now, and at most.
    pub connections: (usize, usize),
    /// Bytes buffered now, and at most.
    pub memory: (usize, usize),
    /// Everything that is counted.
    pub counters: &'a Counters,
    /// By command.
    pub commands: &'a Commands,
    /// All servers, primaries first.
    pub servers: Vec<ServerReport<'a>>,
    /// Primaries of which some keys have no live copy.
    pub lacking: Vec<&'a str>,
    /// All servers have been tried once.
    pub is_ready: bool,
    /// No new clients.
    pub is_draining: bool,
    /// It is asked for keys.
    pub is_active: bool,
    /// The highest view known.
    pub view: u64,
    /// Keys that lie at another primary than their own.
    pub ejected_keys: usize,
    /// The background copy, if one is under way.
    pub resync: Option<ResyncReport<'a>>,
    /// Addresses of `-l`: whether this host has it, and seconds since then.
    pub addresses: Vec<(IpAddr, bool, f64)>,
    /// The last events.
    pub events: &'a Events,
    /// Microseconds since 1970 at time 0.
    unix_micros_at_zero: u64,
}

impl Report<'_> {
    /// A time in seconds since 1970.
    pub fn unix_time_of(&self, time: Time) -> f64 {
        micros_to_seconds(self.unix_micros_at_zero + time.0)
    }
}

impl Proxy {
    /// Keys that were misses for clients as no copy could be asked in time.
    pub fn failed_reads(&self) -> u64 {
        self.counters.failed_reads
    }

    /// What there is to tell at `now`.
    pub fn report(&mut self, now: Time) -> Report<'_> {
        self.now = self.now.max(now);
        let now = self.now;
        let live = self.servers.iter().map(Server::is_connected);
        let lacking = self.coverage.lacking(&self.routes, live).to_vec();
        let this = &*self;
        let seconds_since = |since: Time| micros_to_seconds(now.since(since).0);
        let (user, system) = (this.facts.rusage)();
        let servers = this.servers.iter().enumerate();
        Report {
            pool: &this.pool,
            unix_seconds: micros_to_seconds(this.facts.unix_micros(now)),
            started: micros_to_seconds(this.facts.unix_micros(this.started)),
            cpu_seconds: micros_to_seconds(user + system),
            connections: (this.clients.len(), this.settings.max_conns),
            memory: (this.memory.used(), this.memory.limit()),
            counters: &this.counters,
            commands: &this.commands,
            servers: servers
                .map(|(index, server)| ServerReport {
                    name: &server.name,
                    role: if server.is_primary {
                        "primary"
                    } else {
                        "backup"
                    },
                    state: state_name(server),
                    seconds_in_state: seconds_since(server.since),
                    version: server.version,
                    connections: server.conns,
                    in_flight: server.in_flight(),
                    requests: server.requests,
                    bytes_sent: server.bytes_sent,
                    bytes_received: server.bytes_received,
                    timeouts: server.timeouts,
                    relapses: server.relapses,
                    lost: CloseReason::ALL.map(|reason| (reason, server.failures[reason as usize])),
                    latency: &server.latency,
                    journal_keys: server.journal.len(),
                    journal_complete: server.journal.is_complete(),
                    view: server.view().number,
                    ejected_place: this.ejects.known.place(index as u16),
                })
                .collect(),
            lacking: lacking
                .iter()
                .map(|&primary| this.servers[usize::from(primary)].name.as_str())
                .collect(),
            is_ready: this.is_ready(),
            is_draining: this.draining,
            is_active: this.is_active(),
            view: this.view.number,
            ejected_keys: this.ejects.record.len(),
            resync: this.resync_report(),
            addresses: this
                .addresses
                .iter()
                .map(|address| (address.ip, address.is_here, seconds_since(address.since)))
                .collect(),
            events: &this.events,
            unix_micros_at_zero: this.facts.unix_micros_at_zero,
        }
    }

    /// How far the background copy has come; `None`: there is none.
    pub(super) fn resync_report(&self) -> Option<ResyncReport<'_>> {
        let resync = &self.resync;
        let target = resync.target?;
        let seconds = self.now.since(resync.began).0 / 1_000_000;
        let rate = resync.done / seconds.max(1);
        Some(ResyncReport {
            server: &self.servers[target].name,
            done: resync.done,
            listed: resync.total,
            seconds,
            rate,
            seconds_left: resync.total.saturating_sub(resync.done) / rate.max(1),
        })
    }
}

fn micros_to_seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}
