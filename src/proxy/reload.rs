//! Flow and room: another configuration, while clients are served.
//!
//! ```text
//!   reload -> new servers are connected to and made safe, as any that returns, while the old ring serves
//!          -> the barrier: what is in flight ends on the old ring, what comes waits
//!          -> servers, ring and settings are exchanged; what waited goes to its places on the new ring
//!          -> with a handover, for a while keys that moved are fetched from where they were; then the same once more
//! ```
//!
//! Servers that stay keep their connections, journals and all that is known of them.

use super::coverage::Coverage;
use super::eject::Ejects;
use super::events::Kind;
use super::ids::ConnId;
use super::op::Held;
use super::route::{Former, Routes};
use super::server::{Role, Server, State};
use super::view::{self, View};
use super::{Proxy, Settings};
use crate::config::{Config, ReadRepair};
use crate::time::{Span, Time};

/// How long servers that are new may take to be made safe, besides twice the timeout: longer than one is suspected that may
/// have been stopped.
const JOIN_MAX: Span = Span::from_millis(3000);

/// Keys that are placed on both rings to tell what moves.
const SAMPLE: usize = 16_384;

/// A configuration that is not in force yet.
#[derive(Debug)]
struct Next {
    config: Box<Config>,
    handover: Span,
    /// Its servers, by their present index.
    servers: Vec<usize>,
    /// New servers are waited for until then at most.
    until: Time,
    at_barrier: bool,
    /// It only ends a handover.
    ends: bool,
}

/// What `stats reload` tells of the last one.
#[derive(Debug, Default)]
struct Told {
    count: u64,
    failed: u64,
    error: String,
    at: Option<Time>,
    added: usize,
    removed: usize,
    /// Hundredths of a percent.
    moved: usize,
}

/// Reloads, and what came of them.
#[derive(Debug, Default)]
pub struct Reload {
    next: Option<Next>,
    told: Told,
    /// When the handover ends, and what is in force.
    handover: Option<(Time, Box<Config>)>,
    /// For the edge: the new index of each server, by the old one.
    moves: Option<Vec<Option<u16>>>,
}

impl Reload {
    /// Whether one is about to be carried out: nothing of the proxy's own may begin now.
    pub fn is_near(&self) -> bool {
        self.next.as_ref().is_some_and(|next| next.at_barrier) || self.moves.is_some()
    }

    /// What was told before the core began anew is told still; what was under way is not.
    pub fn keep_told(&mut self, old: Reload) {
        self.told = old.told;
    }

    /// Whether the edge has to follow; see [`Proxy::take_moves`].
    pub fn has_moved(&self) -> bool {
        self.moves.is_some()
    }
}

impl Proxy {
    /// Takes over `config` as soon as its servers are ready and what is in flight is finished. Returns which of its servers
    /// (primaries, then backups) are new: they stand behind those that there are, in this order, and are connected to.
    ///
    /// For the time `handover` a key that moves is looked for at its old place as well; 0: not at all.
    pub fn reload(&mut self, config: Config, handover: Span, now: Time) -> Vec<usize> {
        self.now = now;
        self.begin_reload(config, handover, false)
    }

    /// `ends`: it only ends a handover.
    fn begin_reload(&mut self, config: Config, handover: Span, ends: bool) -> Vec<usize> {
        let now = self.now;
        let names = view::pool_names(&config);
        let conns = config.server_conns.max(1);
        let mut taken = vec![false; self.servers.len()];
        let (mut servers, mut joining) = (Vec::new(), Vec::new());
        let all = config.servers.iter().map(|spec| (spec, true));
        let all = all.chain(config.backups.iter().map(|spec| (spec, false)));
        for (position, (spec, is_primary)) in all.enumerate() {
            let name = spec.address();
            let present = self.servers.iter().enumerate().position(|(index, server)| {
                !taken[index] && server.name == name && server.conns == conns
            });
            if let Some(present) = present {
                taken[present] = true;
                servers.push(present);
                continue;
            }
            let place = names.binary_search(&name).unwrap_or_default() as u16;
            servers.push(self.servers.len());
            joining.push(position);
            taken.push(true);
            let server = Server::new((name, place), is_primary, conns, config.journal_keys, now);
            self.servers.push(server);
        }
        let until = now + config.timeout + config.timeout + JOIN_MAX;
        if self.reload.is_near() {
            self.barrier.drop_reload();
        }
        self.reload.next = Some(Next {
            config: Box::new(config),
            handover,
            servers,
            until,
            at_barrier: false,
            ends,
        });
        self.advance_reload();
        joining
    }

    /// A reload failed before the core heard of it; `error` says why. Nothing has changed.
    pub fn reload_failed(&mut self, error: &str, now: Time) {
        self.now = now;
        let told = &mut self.reload.told;
        told.failed += 1;
        told.at = Some(now);
        told.error = error.lines().next().unwrap_or_default().to_owned();
        let detail = format!("failed: {}", told.error);
        self.happened(Kind::Reload, "", detail, now);
    }

    /// The servers have new indices: by the old one, the new one, or none. To be asked after the actions, before anything is
    /// written.
    pub fn take_moves(&mut self) -> Option<Vec<Option<u16>>> {
        self.reload.moves.take()
    }

    /// Goes on with a reload when its servers are ready, and ends a handover. Called with each tick.
    pub(super) fn advance_reload(&mut self) {
        let handover_over = self
            .reload
            .handover
            .as_ref()
            .is_some_and(|(until, _)| *until <= self.now);
        if handover_over && self.reload.next.is_none() {
            if let Some((_, config)) = self.reload.handover.take() {
                log::info!("handover over: keys are looked for at their new places only");
                // The servers of the configuration in force are there.
                self.begin_reload(*config, Span(0), true);
            }
            return;
        }
        let active = self.is_active();
        let Some(next) = &self.reload.next else {
            return;
        };
        let ready = |&index: &usize| {
            let server = &self.servers[index];
            match server.state {
                State::Up => true,
                State::Down(_) => server.tried,
                // Only a proxy that serves makes servers safe.
                State::Waiting | State::Entering => !active,
                State::Connecting => server.tried,
            }
        };
        if next.at_barrier || !(next.until <= self.now || next.servers.iter().all(ready)) {
            return;
        }
        self.end_resync();
        self.end_survey();
        if let Some(next) = &mut self.reload.next {
            next.at_barrier = true;
        }
        self.barrier.hold_reload();
        self.pass_barrier();
    }

    /// When [`Proxy::advance_reload`] has to be called, if nothing happens before.
    pub(super) fn reload_timeout(&self) -> Option<Time> {
        let next = self.reload.next.as_ref().filter(|next| !next.at_barrier);
        let handover = self.reload.handover.as_ref().map(|(until, _)| *until);
        next.map(|next| next.until)
            .into_iter()
            .chain(handover)
            .min()
    }

    /// Nothing is under way that knows servers by their index.
    pub(super) fn is_quiet(&self) -> bool {
        let only_looks = |role| matches!(role, Role::Probe | Role::Stamp | Role::Process);
        let mut links = self.servers.iter().flat_map(|server| &server.links);
        self.actions.is_empty()
            && self.txns.is_empty()
            && self.gathers.is_empty()
            && self.repairs.is_empty()
            && !self.order.is_holding()
            && !self.order.is_undecided()
            && self.ejects.due == 0
            && links.all(|link| link.fifo.iter().all(|flight| only_looks(flight.role)))
    }

    /// Exchanges what there is for what was asked for. Nothing is under way.
    pub(super) fn carry_out_reload(&mut self) {
        let Some(next) = self.reload.next.take() else {
            return;
        };
        let config = *next.config;
        let mut routes = Routes::new(&config);
        let moved = self.moved_share(&routes, &next.servers);
        let hands_over = next.handover > Span(0) && moved > 0 && !self.routes.is_random();
        // What does not touch the ring does not end a handover that is under way.
        let kept = match moved == 0 && !next.ends {
            true => self.routes.take_former(),
            false => None,
        };
        let count = self.servers.len();
        let added = next
            .servers
            .iter()
            .filter(|&&index| self.routes.rank_of_none(index))
            .count();
        let mut order = next.servers;
        let named = order.len();
        if hands_over {
            // Whoever held keys alone is asked for them a while longer.
            let former = (0..self.routes.primaries()).filter(|index| !order.contains(index));
            let former: Vec<usize> = former.collect();
            order.extend(former);
        } else if let Some(former) = &kept {
            let servers = former.servers().map(usize::from);
            let former: Vec<usize> = servers.filter(|index| !order.contains(index)).collect();
            order.extend(former);
            order.dedup();
        }
        let removed = (0..self.routes.servers())
            .filter(|index| !order[..named].contains(index))
            .count();
        let mut moves: Vec<Option<u16>> = vec![None; count];
        for (new, &old) in order.iter().enumerate() {
            moves[old] = Some(new as u16);
        }
        let mut old: Vec<Option<Server>> = std::mem::take(&mut self.servers)
            .into_iter()
            .map(Some)
            .collect();
        self.servers = order
            .iter()
            .filter_map(|&index| old[index].take())
            .collect();
        for gone in old.into_iter().flatten() {
            for mut link in gone.links {
                link.reset(&mut self.memory);
            }
        }
        let names = view::pool_names(&config);
        for (index, server) in self.servers.iter_mut().enumerate() {
            server.is_primary = index < config.servers.len();
            server.place = names.binary_search(&server.name).unwrap_or_default() as u16;
            server.journal.set_limit(config.journal_keys);
        }
        let former = std::mem::replace(&mut self.routes, Routes::none());
        if hands_over {
            let places = (0..former.primaries()).map(|index| moves[index].unwrap_or_default());
            let places = places.collect();
            routes.hand_over(Former::new(former, places));
            self.reload.handover = Some((self.now + next.handover, Box::new(config.clone())));
        } else if let Some(mut former) = kept {
            former.rename(&moves);
            routes.hand_over(*former);
            if let Some((_, in_force)) = &mut self.reload.handover {
                **in_force = config.clone();
            }
        } else {
            self.reload.handover = None;
        }
        self.routes = routes;
        self.coverage = Coverage::new(&self.routes);
        self.settings = Settings::of(&config);
        self.memory.set_limit(config.memory_limit);
        self.rename_links(&moves);
        self.reload.moves = Some(moves);
        self.renew_views(&config, moved > 0);
        self.reroute_held();
        self.note_abilities();
        self.plan_resync();
        if next.ends {
            return;
        }
        let told = &mut self.reload.told;
        told.count += 1;
        (told.added, told.removed, told.moved) = (added, removed, moved);
        told.at = Some(self.now);
        told.error.clear();
        let detail = format!(
            "{added} servers added, {removed} removed, {}.{:02} % of the keys move",
            moved / 100,
            moved % 100
        );
        self.happened(Kind::Reload, "", detail, self.now);
    }

    /// How many of 10,000 keys have another primary than now.
    fn moved_share(&self, routes: &Routes, servers: &[usize]) -> usize {
        let mut moved = 0;
        for n in 0..SAMPLE {
            // Numbers in a row would be neighbours on a ring.
            let key = format!(
                "{:016x}",
                (n as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
            );
            let before = usize::from(self.routes.of(key.as_bytes()).primary());
            let after = servers[usize::from(routes.of(key.as_bytes()).primary())];
            moved += usize::from(self.servers[before].name != self.servers[after].name);
        }
        (moved * 10_000).div_ceil(SAMPLE)
    }

    /// Connections that have something to write go by the new indices.
    fn rename_links(&mut self, moves: &[Option<u16>]) {
        self.dirty.retain_mut(|id| match id {
            ConnId::Client(_) => true,
            ConnId::Link(id) => match moves.get(usize::from(id.server)).copied().flatten() {
                Some(server) => {
                    id.server = server;
                    true
                }
                None => false,
            },
        });
    }

    /// Stamps go by which servers a pool has; and after a ring has changed, copies may lack what they are to hold.
    fn renew_views(&mut self, config: &Config, moved: bool) {
        let key = view::stamp_key(config);
        let renamed = key != self.stamp_key;
        self.stamp_key = key;
        self.me = view::owner(&config.proxy_id);
        self.origin = None;
        self.recheck = None;
        self.raise_due = false;
        let known = std::mem::replace(&mut self.ejects, Ejects::new(config.journal_keys));
        if self.routes.ejects() && (moved || renamed || !known.known.is_empty()) {
            // By the old ring keys were at other places: they may be anywhere until they have been looked for.
            for primary in 0..self.routes.primaries() {
                self.ejects
                    .known
                    .note(primary as u16, self.routes.places() - 1);
            }
            self.ejects.record.forget();
        }
        if renamed || !self.has_views() {
            for server in &mut self.servers {
                server.stamp = None;
                server.left_out = View::default();
            }
        }
        if !self.has_views() {
            self.view = View::default();
            self.servers
                .iter_mut()
                .for_each(|server| server.cold = false);
            return;
        }
        if !self.is_active() {
            // As after a start: what holds is on the servers.
            self.view = if renamed { View::default() } else { self.view };
            return;
        }
        let repairs = self.meta && self.settings.read_repair != ReadRepair::Off;
        if self.routes.ranks() > 1 && moved && repairs {
            for server in self.servers.iter_mut().filter(|server| server.is_up()) {
                server.cold = true;
            }
        }
        if self.is_safe() && (renamed || moved) {
            self.raise_view();
        }
    }

    /// What has waited goes to its places on the new ring.
    fn reroute_held(&mut self) {
        let mut held: Vec<Held> = self.barrier.take_held();
        for op in &mut held {
            let route = self.route_of(&op.op());
            op.set_route(route);
        }
        self.barrier.put_held(held);
    }

    /// Lines for `stats reload`.
    pub(super) fn reload_lines(&self) -> Vec<(&'static str, String)> {
        let told = &self.reload.told;
        let state = match (&self.reload.next, &self.reload.handover) {
            (Some(_), _) => "under way",
            (None, Some(_)) => "handing over",
            (None, None) => "none",
        };
        let mut lines = vec![
            ("reload", state.to_owned()),
            ("reloads", told.count.to_string()),
            ("reloads_failed", told.failed.to_string()),
        ];
        if let Some(at) = told.at {
            lines.push((
                "seconds_ago",
                (self.now.since(at).0 / 1_000_000).to_string(),
            ));
        }
        lines.push(("servers_added", told.added.to_string()));
        lines.push(("servers_removed", told.removed.to_string()));
        let moved = format!("{}.{:02}", told.moved / 100, told.moved % 100);
        lines.push(("moved_percent", moved));
        if let Some((until, _)) = &self.reload.handover {
            lines.push((
                "handover_seconds_left",
                (until.since(self.now).0 / 1_000_000).to_string(),
            ));
        }
        lines.push(("handed_over", self.counters.handed_over.to_string()));
        if !told.error.is_empty() {
            lines.push(("error", told.error.clone()));
        }
        lines
    }
}
