//! Which servers hold a key: the primary by its hash, then the backups in order of preference.

use super::placing::{placing_part, ring, Draw};
use crate::config::{Config, Copies, Distribution, ServerSpec};
use crate::hash::{djb31, Ring};

/// Where one key lives. Small, as it is passed along with every key.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Route {
    /// magent's hash of the key, 31 bits.
    pub hash: u32,
    /// Indices of servers, of which there are at most 1000, twice as many during a handover. From the top: the primary's,
    /// 11 bits; among the backups of the first one, 10 bits, the others follow in cyclic order; during a handover one
    /// more than that of the server that held it before, if that is another one, else 0: 11 bits.
    places: u32,
}

const FORMER_BITS: u32 = 11;
const BACKUP_BITS: u32 = 10;

impl Route {
    fn new(hash: u32, primary: u16, first_backup: u16) -> Route {
        let above = u32::from(primary) << BACKUP_BITS | u32::from(first_backup);
        Route {
            hash,
            places: above << FORMER_BITS,
        }
    }

    /// The same, with the place where the key was before.
    fn was_at(self, former: u16) -> Route {
        Route {
            places: self.places | (u32::from(former) + 1),
            ..self
        }
    }

    /// Where the key was before the ring changed, while keys are handed over.
    pub fn former(self) -> Option<usize> {
        let former = self.places & ((1 << FORMER_BITS) - 1);
        (former as usize).checked_sub(1)
    }

    /// The index of the primary.
    pub fn primary(self) -> u16 {
        (self.places >> (FORMER_BITS + BACKUP_BITS)) as u16
    }

    fn first_backup(self) -> u16 {
        (self.places >> FORMER_BITS) as u16 & ((1 << BACKUP_BITS) - 1)
    }
}

/// Most places of a key with `--eject`, its primary included. Only when as many servers are away can there be keys that are
/// refused though others are up.
const PLACES_MAX: usize = 16;

/// Draws for one place; if all of them hit servers that have a better one, it is the next server that has none.
const DRAWS_MAX: usize = 32;

/// The placement of all keys; fixed at start.
#[derive(Debug)]
pub struct Routes {
    primaries: Ring,
    backups: Option<Ring>,
    primary_count: usize,
    backup_count: usize,
    /// How many backups hold each key.
    copies: usize,
    /// Per server: the one that it is used by. A server given twice holds one copy, not two.
    identity: Vec<u16>,
    /// Some are used by others.
    has_twins: bool,
    /// With `--eject`: the primaries, each once per weight.
    slots: Vec<u16>,
    /// How many places a key has, in whatever way.
    places: usize,
    /// What of a key places it.
    tag: Option<[u8; 2]>,
    /// Any server for each request.
    draw: Option<Draw>,
    /// Of those servers that are up.
    draws_live: bool,
    /// While keys are handed over: where they were.
    former: Option<Box<Former>>,
}

/// The ring before, and what the servers of its primaries are called now.
#[derive(Debug)]
pub struct Former {
    routes: Routes,
    servers: Vec<Option<u16>>,
}

impl Former {
    /// `servers`: by the index of a primary in `routes`, the present index of its server, if there is one.
    pub fn new(mut routes: Routes, servers: Vec<Option<u16>>) -> Former {
        routes.former = None;
        Former { routes, servers }
    }

    /// The present indices of its servers, with repetitions.
    pub fn servers(&self) -> impl Iterator<Item = u16> + '_ {
        let mut servers: Vec<u16> = self.servers.iter().copied().flatten().collect();
        servers.sort_unstable();
        servers.dedup();
        servers.into_iter()
    }

    /// Servers have other indices, by the old one, or none.
    pub fn rename(&mut self, moves: &[Option<u16>]) {
        for server in &mut self.servers {
            *server = server.and_then(|old| moves[usize::from(old)]);
        }
    }
}

impl Routes {
    /// The placement that `config` asks for.
    pub fn new(config: &Config) -> Routes {
        let copies = match config.copies {
            Copies::All => config.backups.len(),
            Copies::AtMost(limit) => limit.min(config.backups.len()),
        };
        let all: Vec<&ServerSpec> = config.servers.iter().chain(&config.backups).collect();
        let same = |a: &ServerSpec, b: &ServerSpec| a.host == b.host && a.port == b.port;
        let identity = all
            .iter()
            .map(|spec| all.iter().position(|other| same(spec, other)).unwrap_or(0) as u16)
            .collect();
        let identity: Vec<u16> = identity;
        let has_twins = is_any_other(&identity);
        let mut slots = Vec::new();
        let mut places = 1 + copies;
        let random = config.distribution == Distribution::Random;
        if config.eject && config.backups.is_empty() && !random {
            for (index, spec) in config.servers.iter().enumerate() {
                slots.extend((0..spec.weight).map(|_| index as u16));
            }
            let others = |(index, &same): &(usize, &u16)| *index == usize::from(same);
            places = identity.iter().enumerate().filter(others).count();
            places = places.min(PLACES_MAX);
        }
        Routes {
            primaries: ring(config, &config.servers),
            backups: (copies > 0).then(|| ring(config, &config.backups)),
            primary_count: config.servers.len(),
            backup_count: config.backups.len(),
            copies,
            identity,
            has_twins,
            slots,
            places,
            tag: config.hash_tag,
            draw: random.then(|| Draw::new(config.servers.len())),
            draws_live: random && config.eject,
            former: None,
        }
    }

    /// Where `key` lives.
    pub fn of(&self, key: &[u8]) -> Route {
        let hash = djb31(key);
        if self.tag.is_some() || self.former.is_some() || self.draw.is_some() {
            return self.of_special(key, hash);
        }
        let first_backup = match &self.backups {
            Some(ring) => ring.pick_hashed(hash, key) as u16,
            None => 0,
        };
        let primary = self.primaries.pick_hashed(hash, key) as u16;
        Route::new(hash, primary, first_backup)
    }

    /// The same where more than the ring decides.
    #[cold]
    fn of_special(&self, key: &[u8], hash: u32) -> Route {
        let mut route = match self.tag {
            Some(tag) => {
                let part = placing_part(key, tag);
                self.placed(hash, djb31(part), part)
            }
            None => self.placed(hash, hash, key),
        };
        if let Some(former) = &self.former {
            let before = former.servers[usize::from(former.routes.of(key).primary())];
            let same = |server: u16| self.one(usize::from(server));
            let before = before.filter(|&before| same(before) != same(route.primary()));
            if let Some(before) = before.map(|before| same(before) as u16) {
                route = route.was_at(before);
            }
        }
        route
    }

    /// The route of a key with this hash, whose place is that of `part`, with the hash `djb`.
    fn placed(&self, hash: u32, djb: u32, part: &[u8]) -> Route {
        let first_backup = match &self.backups {
            Some(ring) => ring.pick_hashed(djb, part) as u16,
            None => 0,
        };
        let primary = match &self.draw {
            Some(draw) => draw.draw(),
            None => self.primaries.pick_hashed(djb, part) as u16,
        };
        Route::new(hash, primary, first_backup)
    }

    /// No server and no key.
    pub(super) fn none() -> Routes {
        Routes::new(&Config::default())
    }

    /// From now on it is known where keys were before.
    pub fn hand_over(&mut self, former: Former) {
        self.former = Some(Box::new(former));
    }

    /// Ends it, and hands out what is known.
    pub(super) fn take_former(&mut self) -> Option<Box<Former>> {
        self.former.take()
    }

    /// Whether any server will do for a request.
    pub fn is_random(&self) -> bool {
        self.draw.is_some()
    }

    /// How many primaries there are, and how many servers in all.
    pub fn primaries(&self) -> usize {
        self.primary_count
    }

    /// See [`Routes::primaries`].
    pub fn servers(&self) -> usize {
        self.primary_count + self.backup_count
    }

    /// Whether a server, by its index, has no part in this ring.
    pub fn rank_of_none(&self, server: usize) -> bool {
        server >= self.servers()
    }

    /// These servers are up now: where any server will do for a request, it is one of them.
    pub fn note_up(&mut self, up: impl Iterator<Item = usize>) {
        if let Some(draw) = self.draw.as_mut().filter(|_| self.draws_live) {
            draw.limit(up.map(|server| server as u16));
        }
    }

    /// Whether which servers are up makes a difference to where requests go; see [`Routes::note_up`].
    pub fn wants_up(&self) -> bool {
        self.draws_live
    }

    /// The hash of a key that chooses its primary, for those who ask where it goes.
    pub fn placing_hash(&self, key: &[u8]) -> u32 {
        let part = self.tag.map_or(key, |tag| placing_part(key, tag));
        self.primaries.hash().of(part)
    }

    /// How many ranks a key has: its primary and its backups.
    pub fn ranks(&self) -> usize {
        1 + self.copies
    }

    /// Every combination of a primary and a first backup that some key has, by primary. Where the first backup makes no
    /// difference, as all of them hold every key, there is one for each primary.
    pub fn all(&self) -> Vec<Route> {
        let backups = match &self.backups {
            Some(backups) if self.copies < self.backup_count => backups,
            _ => &Ring::modula(&[1]),
        };
        let meetings = self.primaries.meetings(backups).into_iter();
        let route = |(primary, first_backup)| Route::new(0, primary, first_backup);
        meetings.map(route).collect()
    }

    /// Whether any server that holds a copy is live; `live` has an entry for each server.
    pub fn is_live(&self, route: Route, live: &[bool]) -> bool {
        let is_live = |server: usize| live.get(server).copied().unwrap_or(false);
        if self.ejects() {
            let away = (0..self.primary_count)
                .filter(|&server| usize::from(self.identity[server]) == server && !is_live(server));
            // With fewer servers away than it has places, a key is at one of them.
            return is_live(self.one(usize::from(route.primary()))) || away.count() < self.places;
        }
        let mut ranks = (0..self.ranks()).filter_map(|rank| self.server(route, rank));
        ranks.any(is_live)
    }

    /// Whether a key without copies has places at other primaries.
    pub fn ejects(&self) -> bool {
        !self.slots.is_empty()
    }

    /// How many ranks a key has, be it for copies, or with `--eject` for places where it may be instead.
    pub fn places(&self) -> usize {
        self.places
    }

    /// Whether `server` is the primary of a key, under whatever name it was given.
    pub fn is_primary(&self, server: usize, route: Route) -> bool {
        self.identity[server] == self.identity[usize::from(route.primary())]
    }

    /// The server of rank `rank` (0: the primary), up to [`Routes::places`]. `None`: it would be the primary once more.
    pub fn server(&self, route: Route, rank: usize) -> Option<usize> {
        if rank == 0 {
            return Some(self.one(usize::from(route.primary())));
        }
        if self.ejects() {
            return self.place(route, rank).map(|server| self.one(server));
        }
        let backup = self.backup(route, rank);
        if self.has_twins {
            let mut better = (1..rank).map(|rank| self.backup(route, rank));
            let is_primary = backup == self.one(usize::from(route.primary()));
            return (!is_primary && !better.any(|other| other == backup)).then_some(backup);
        }
        Some(backup)
    }

    fn backup(&self, route: Route, rank: usize) -> usize {
        let backup = (usize::from(route.first_backup()) + rank - 1) % self.backup_count;
        self.one(self.primary_count + backup)
    }

    /// The server that this one is used by. During a handover there are more than the ring has.
    fn one(&self, server: usize) -> usize {
        match self.has_twins {
            true => self
                .identity
                .get(server)
                .map_or(server, |&one| usize::from(one)),
            false => server,
        }
    }

    /// The server that this one is used by: itself, but for one that is given twice.
    pub fn identity(&self, server: usize) -> usize {
        self.one(server)
    }

    /// `server` is `one`, by another name.
    /// One that comes with a reload has no part in this ring yet.
    pub fn join(&mut self, server: usize, one: usize) {
        if server < self.identity.len() && one < self.identity.len() {
            self.identity[server] = one as u16;
            self.has_twins = true;
        }
    }

    /// It is not, as far as is known.
    pub fn part(&mut self, server: usize) {
        if let Some(one) = self.identity.get_mut(server) {
            *one = server as u16;
        }
        self.has_twins = is_any_other(&self.identity);
    }
}

/// Whether some server is used by another.
fn is_any_other(identity: &[u16]) -> bool {
    (0..).zip(identity).any(|(server, &one)| server != one)
}

impl Routes {
    /// The primary at the place `rank`, 1 or more, of a key: each place is drawn, by hash and weight, from the servers that
    /// have no better one. So the keys of a dead server spread over all others, and those of no other server move.
    fn place(&self, route: Route, rank: usize) -> Option<usize> {
        if rank >= self.places {
            return None;
        }
        let mut taken = [0; PLACES_MAX];
        taken[0] = self.identity[usize::from(route.primary())];
        let mut server = route.primary();
        for place in 1..=rank {
            let is_free = |server: u16| {
                let same = self.identity[usize::from(server)];
                !taken[..place].contains(&same)
            };
            let draw = |n: usize| mix(route.hash, place * DRAWS_MAX + n) % self.slots.len() as u64;
            let drawn = (0..DRAWS_MAX).map(|n| self.slots[draw(n) as usize]);
            let next = || {
                let from = draw(0) as usize;
                let behind = self.slots[from..].iter().chain(&self.slots[..from]);
                behind.copied().find(|&server| is_free(server))
            };
            server = drawn
                .into_iter()
                .find(|&server| is_free(server))
                .or_else(next)?;
            taken[place] = self.identity[usize::from(server)];
        }
        Some(usize::from(server))
    }
}

/// A number made of a key's hash and a count: all of its bits depend on all of theirs (the finalizer of MurmurHash3).
fn mix(hash: u32, count: usize) -> u64 {
    let mut mixed = (u64::from(hash) << 32) ^ count as u64;
    for factor in [0xff51_afd7_ed55_8ccd, 0xc4ce_b9fe_1a85_ec53] {
        mixed ^= mixed >> 33;
        mixed = mixed.wrapping_mul(factor);
    }
    mixed ^ (mixed >> 33)
}

#[cfg(test)]
#[path = "route_tests.rs"]
mod tests;
