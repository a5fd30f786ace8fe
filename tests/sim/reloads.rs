//! Runs as `Return`, in which the proxy's configuration is changed while it serves: servers are taken out of the list and put
//! back with what they held then, their order and weights change, so that keys move, with a handover or without; also while a
//! server is away, and after a time in which nobody has asked for anything. No value may be lost or come back by any of it.

use std::collections::BTreeSet;

use magent::config::{Config, Copies};
use magent::proxy::{LinkId, Routes};
use magent::time::{Span, Time};

use super::host::{key_of, Link};
use super::identity::ALIAS;
use super::net::End;
use super::node::Health;
use super::profile::Plan;
use super::request::Bytes;
use super::rng::Rng;
use super::world::{Event, World};

/// Longest time from one change to the next, in microseconds.
const PAUSE_MAX: u64 = 6_000_000;
/// Nobody asks for so long now and then; a proxy that nobody asks counts as unused after a second.
const IDLE_MAX: u64 = 4_000_000;
/// Longest handover.
const HANDOVER_MAX: u64 = 4_000_000;

/// What of drawn circumstances is otherwise here: there are servers that can go.
pub fn configure(plan: &mut Plan, rng: &mut Rng) {
    plan.reloads = true;
    let config = &mut plan.config;
    let primaries = rng.range(2, 3) as usize;
    let backups = rng.range(1, 2) as usize;
    let first = config.servers[0].clone();
    let spec = |index: usize| {
        let mut spec = first.clone();
        spec.port += index as u16;
        spec
    };
    config.servers = (0..primaries).map(spec).collect();
    config.backups = (primaries..primaries + backups).map(spec).collect();
}

/// What is in force at the proxy, in the world's terms.
pub struct InForce {
    pub config: Config,
    routes: Routes,
    /// The servers of the routes, by their place in the list.
    nodes: Vec<usize>,
}

impl InForce {
    pub fn new(config: &Config) -> InForce {
        InForce {
            config: config.clone(),
            routes: Routes::new(config),
            nodes: nodes_of(config),
        }
    }

    /// The servers that hold a key, the primary first.
    pub fn copies(&self, key: &[u8]) -> Vec<usize> {
        let route = self.routes.of(key);
        let mut copies: Vec<usize> = Vec::new();
        for rank in 0..self.routes.ranks() {
            let server = self.routes.server(route, rank);
            let node = server.map(|server| self.nodes[server]);
            copies.extend(node.filter(|node| !copies.contains(node)));
        }
        copies
    }

    /// How many servers there are, each once.
    pub fn count(&self) -> usize {
        count(&self.nodes)
    }
}

/// How many there are, each counted once.
pub fn count(nodes: &[usize]) -> usize {
    let all: BTreeSet<usize> = nodes.iter().copied().collect();
    all.len()
}

/// The servers of this world that a configuration names, primaries first.
pub fn nodes_of(config: &Config) -> Vec<usize> {
    let specs = config.servers.iter().chain(&config.backups);
    specs
        .map(|spec| usize::from((spec.port - 11211) % ALIAS))
        .collect()
}

impl World {
    /// The proxy gets another configuration, if that leaves each key a copy that can be relied on.
    pub fn reload(&mut self) {
        if self.budget > 0 {
            let pause = self.rng.range(1, PAUSE_MAX);
            self.after(pause, Event::Reload);
        }
        if self.budget == 0 {
            return;
        }
        if self.rng.one_in(4) && self.now >= self.idle_until {
            self.idle_until = self.now + self.rng.range(1, IDLE_MAX);
            self.log(|| "nobody asks for a while".into());
            if self.rng.one_in(2) {
                return;
            }
        }
        let next = self.changed();
        if !self.is_kept_by(&next) {
            return;
        }
        let handover = match self.rng.one_in(2) {
            true => Span(self.rng.range(1, HANDOVER_MAX)),
            false => Span(0),
        };
        self.tally.moves += 1;
        let nodes = nodes_of(&next);
        self.log(|| format!("reload: {nodes:?}, handover {} us", handover.0));
        // It has time to become whole again from then on.
        self.changed_until = self.now + handover.0;
        self.in_force = InForce::new(&next);
        let (host, now) = (self.active, Time(self.now));
        let mut config = next;
        config.proxy_id = format!("proxy{host}");
        let joining = self.proxy(host).reload(config, handover, now);
        for place in joining {
            self.hosts[host].servers.push(nodes[place]);
        }
        self.turn_soon(host);
    }

    /// The configuration in force with something changed.
    fn changed(&mut self) -> Config {
        let all = self.plan.config.clone();
        let mut config = self.in_force.config.clone();
        match self.rng.below(6) {
            0 => config.timeout = Span(config.timeout.0 + 1000),
            1 => config.servers.rotate_left(1),
            2 if config.servers.len() > 1 => {
                let out = self.rng.index(config.servers.len());
                config.servers.remove(out);
            }
            2 => config.servers = all.servers,
            3 if config.backups.len() > 1 => {
                let out = self.rng.index(config.backups.len());
                config.backups.remove(out);
            }
            3 => config.backups = all.backups,
            4 => {
                let place = self.rng.index(config.servers.len());
                config.servers[place].weight = 3 - config.servers[place].weight;
            }
            _ => {
                config.servers = all.servers;
                config.copies = match config.copies {
                    Copies::All => Copies::AtMost(1),
                    _ => Copies::All,
                };
            }
        }
        config
    }

    /// Whether each key keeps a warm copy that lives: its copies are taken from one list to the other by nothing else.
    fn is_kept_by(&mut self, next: &Config) -> bool {
        if self.is_whole() {
            // Of those that hold a key now one stays, or the handover would have to bring it all.
            let next = InForce::new(next);
            let names: Vec<Bytes> = self.history.names().cloned().collect();
            return names.iter().all(|key| {
                let before = self.in_force.copies(key);
                let mut after = next.copies(key).into_iter();
                after.any(|copy| before.contains(&copy))
            });
        }
        let same = nodes_of(next) == nodes_of(&self.in_force.config);
        let is_up = |&node: &usize| self.nodes[node].health == Health::Running;
        same && next.copies == self.in_force.config.copies
            && next.servers == self.in_force.config.servers
            && nodes_of(next).iter().any(is_up)
    }

    /// Gives the links of a proxy the indices that it has given its servers.
    pub(super) fn follow_reload(&mut self, host: usize) {
        let Some(moves) = self.proxy(host).take_moves() else {
            return;
        };
        let before = std::mem::take(&mut self.hosts[host].servers);
        let mut servers = vec![None; before.len()];
        for (old, node) in before.into_iter().enumerate() {
            if let Some(new) = moves[old] {
                servers[usize::from(new)] = Some(node);
            }
        }
        self.hosts[host].servers = servers.into_iter().flatten().collect();
        let links = std::mem::take(&mut self.hosts[host].links);
        for ((server, conn), link) in links {
            let mut id = LinkId { server, conn };
            if id.follow(&moves) {
                let end = End::HostLink(host, id.server, id.conn);
                self.net.rename(link.conn, 0, end);
                self.hosts[host].links.insert(key_of(id), link);
            } else {
                self.hang_up(&link);
            }
        }
        self.hosts[host].writable.retain_mut(|id| id.follow(&moves));
    }

    fn hang_up(&mut self, link: &Link) {
        if self.net.close(link.conn, 0) {
            self.send_off(link.conn, 0);
        }
    }
}
