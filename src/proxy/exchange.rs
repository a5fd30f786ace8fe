//! Flow: the end of a reload, when nothing is under way: servers, ring and settings are exchanged, and what waited goes to
//! its places on the new ring.

use super::coverage::Coverage;
use super::eject::Ejects;
use super::events::Kind;
use super::general::own_settings;
use super::op::Held;
use super::route::{Former, Routes};
use super::sabotage::{is, Sabotage};
use super::server::Server;
use super::view;
use super::{Proxy, Settings};
use crate::config::{Config, ReadRepair};
use crate::time::Span;

/// Keys that are placed on both rings to tell what moves.
const SAMPLE: usize = 16_384;

/// A key that is placed on both rings. Numbers in a row would be neighbours on one.
fn sample(n: usize) -> String {
    format!(
        "{:016x}",
        (n as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    )
}

impl Proxy {
    /// Exchanges what there is for what was asked for. Nothing is under way.
    pub(super) fn carry_out_reload(&mut self) {
        let Some(next) = self.reload.next.take() else {
            return;
        };
        let config = *next.config;
        let mut routes = Routes::new(&config);
        let moved = self.moved_share(&routes, &next.servers);
        let (gained, lost) = self.shifts(&routes, &next.servers);
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
        for mut gone in old.into_iter().flatten() {
            for link in &mut gone.links {
                link.reset(&mut self.memory);
            }
            // The same server with another number of connections has missed the same.
            let mut all = self.servers.iter_mut();
            if let Some(server) = all.find(|server| server.name == gone.name) {
                server.take_over(gone);
            }
        }
        let names = view::pool_names(&config);
        for (index, server) in self.servers.iter_mut().enumerate() {
            server.is_primary = index < config.servers.len();
            server.place = view::place_among(&names, &server.name);
            server.journal.set_limit(config.journal_keys);
        }
        let former = std::mem::replace(&mut self.routes, Routes::none());
        if hands_over {
            let places = (0..former.primaries()).map(|index| moves[index]).collect();
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
        self.find_twins();
        self.coverage = Coverage::new(&self.routes);
        self.settings = Settings::of(&config);
        self.own_settings = own_settings(&config);
        self.memory.set_limit(config.memory_limit);
        // Connections that have something to write go by the new indices.
        self.crowd.scatter();
        self.dirty_links.retain_mut(|id| id.follow(&moves));
        let moved_to = |old: usize| moves[old].map(usize::from);
        let lost: Vec<usize> = lost.iter().filter_map(|&old| moved_to(old)).collect();
        self.reload.moves = Some(moves);
        self.renew_views(&config, moved > 0, &gained, &lost);
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
            let key = sample(n);
            let before = usize::from(self.routes.of(key.as_bytes()).primary());
            let after = servers[usize::from(routes.of(key.as_bytes()).primary())];
            moved += usize::from(self.servers[before].name != self.servers[after].name);
        }
        (moved * 10_000).div_ceil(SAMPLE)
    }

    /// The servers, by their new index, that hold keys from now on of which they had no copy; and those, by their present
    /// index, that held keys of which they have none from now on.
    fn shifts(&self, routes: &Routes, servers: &[usize]) -> (Vec<usize>, Vec<usize>) {
        let (mut gained, mut lost) = (vec![false; servers.len()], vec![false; self.servers.len()]);
        let name = |index: usize| &self.servers[index].name;
        let (mut held, mut holds) = (Vec::new(), Vec::new());
        for n in 0..SAMPLE {
            let key = sample(n);
            let (before, after) = (self.routes.of(key.as_bytes()), routes.of(key.as_bytes()));
            held.clear();
            held.extend(
                (0..self.routes.ranks()).filter_map(|rank| self.routes.server(before, rank)),
            );
            holds.clear();
            holds.extend((0..routes.ranks()).filter_map(|rank| routes.server(after, rank)));
            for &new in &holds {
                let same = |&old: &usize| name(old) == name(servers[new]);
                gained[new] |= !held.iter().any(same);
            }
            for &old in &held {
                let same = |&new: &usize| name(old) == name(servers[new]);
                lost[old] |= !holds.iter().any(same);
            }
        }
        let all = |flags: Vec<bool>| (0..flags.len()).filter(|&index| flags[index]).collect();
        (all(gained), all(lost))
    }

    /// What is known of who missed what stays, under whatever list it was stamped. After a ring has changed, copies may lack
    /// what they are to hold.
    /// `gained`: the servers that have become copies of keys of others; `lost`: those that are no copies any more of keys
    /// that they hold.
    fn renew_views(&mut self, config: &Config, moved: bool, gained: &[usize], lost: &[usize]) {
        let renamed = self.lists.change(config);
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
        if !self.has_views() {
            self.servers
                .iter_mut()
                .for_each(|server| server.cold = false);
            return;
        }
        let repairs = self.meta && self.settings.read_repair != ReadRepair::Off;
        if self.routes.ranks() > 1 && repairs {
            for (index, server) in self.servers.iter_mut().enumerate() {
                server.cold |= server.is_up() && (moved || gained.contains(&index));
            }
        }
        for &index in gained {
            if self.servers[index].leftovers {
                self.servers[index].distrust();
                let detail = "gets keys back that it held before";
                self.happened_to(index, Kind::ServerStale, detail);
            }
        }
        for &index in lost {
            self.servers[index].leftovers = !is(Sabotage::LeftoversForgotten);
        }
        // Nobody may stamp before the first request: another proxy may serve. Ahead of the first write the view is raised.
        if self.is_safe() && self.is_active() && (renamed || moved) {
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
}
