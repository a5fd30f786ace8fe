//! What breaks and is mended, and when. Everything is mended once the clients are through (but for what never returns),
//! so that the end shows whether the world comes to rest.

use std::collections::BTreeMap;

use super::item::Item;
use super::node::Health;
use super::profile::{Plan, Profile};
use super::request::{parse, Bytes};
use super::rng::Rng;
use super::world::{Event, World};

/// Within this time a server that can be reached again is up and warm: a second until it is tried, one of grace, two
/// listings with a second between them, the other of two proxies taking over, and pauses of clients.
const PATIENCE: u64 = 30_000_000;

pub struct Faults {
    profile: Profile,
    /// How many more there may be.
    left: u64,
    pause_max: u64,
    timeout: u64,
    mended_at: u64,
    /// The next server goes while it sends a long value.
    pub(super) lurks: bool,
    /// That one.
    pub(super) prey: Option<usize>,
    /// The next server goes, while clients are in a hurry.
    goes: bool,
    /// Clients may stop asking.
    pub settled: bool,
    /// When all servers were last seen to be up and warm.
    whole_at: u64,
    /// What has to be mended, and when.
    mends: Vec<(u64, usize)>,
}

impl Faults {
    pub fn new(plan: &Plan, steps: u64, rng: &mut Rng) -> Faults {
        let servers = (plan.config.servers.len() + plan.config.backups.len()) as u64;
        let left = match plan.profile {
            Profile::Calm | Profile::Full => 0,
            Profile::Failover => rng.range(1, servers),
            _ => 1 + steps / 100,
        };
        // About as long as the clients are going to be busy.
        let span =
            steps / (plan.clients as u64 * plan.batch_max.div_ceil(2)) * (plan.think_max / 2 + 10);
        Faults {
            profile: plan.profile,
            left,
            pause_max: (2 * span / (left + 1)).max(2000),
            settled: !plan.profile.returns(),
            mended_at: 0,
            lurks: false,
            prey: None,
            goes: false,
            whole_at: 0,
            timeout: plan.config.timeout.0,
            mends: Vec::new(),
        }
    }

    pub fn pause(&self, rng: &mut Rng) -> u64 {
        rng.range(1, self.pause_max)
    }

    pub fn is_over(&self) -> bool {
        self.mends.is_empty() && self.settled
    }
}

impl World {
    pub fn break_something(&mut self) {
        let now = self.now;
        let over = self.budget == 0;
        let due: Vec<usize> = self
            .faults
            .mends
            .iter()
            .filter(|&&(at, _)| at <= now || over)
            .map(|&(_, what)| what)
            .collect();
        self.faults.mends.retain(|&(at, _)| at > now && !over);
        for what in due {
            self.mend(what);
            self.faults.mended_at = now;
        }
        if self.faults.profile == Profile::Eject {
            return self.eject_something();
        }
        if self.faults.profile.returns() {
            return self.send_away_when_whole();
        }
        if self.plan.pieces && self.faults.prey.is_none() && !self.faults.lurks && !over {
            self.faults.lurks = true;
        } else if self.faults.left > 0 && !over {
            self.faults.left -= 1;
            self.tally.faults += 1;
            match self.faults.profile {
                Profile::Failover => self.lose_server(),
                Profile::Slow => self.hurt_server(),
                Profile::Garbage => self.make_babble(),
                _ => {}
            }
        }
        if (over || self.faults.left == 0) && self.faults.mends.is_empty() {
            return;
        }
        let pause = self.faults.pause(&mut self.rng);
        self.next_fault(pause);
    }

    pub(super) fn next_fault(&mut self, pause: u64) {
        let now = self.now;
        let next = self.faults.mends.iter().map(|&(at, _)| at).min();
        let at = next
            .map_or(now + pause, |mend| mend.min(now + pause))
            .max(now + 1);
        self.at(at, Event::Fault);
    }

    /// One server at a time is away; the next one goes when all are whole again. Clients go on until then: a proxy that is
    /// asked for nothing only looks.
    pub(super) fn send_away_when_whole(&mut self) {
        const LOOK: u64 = 100_000;
        const LAST: u64 = 10;
        if std::mem::take(&mut self.faults.goes) && self.faults.mends.is_empty() {
            self.send_away();
            // Others ask before it is noticed.
            self.hurry_later();
            return self.next_fault(LOOK);
        }
        let whole = self.faults.mends.is_empty() && self.is_whole();
        if whole {
            self.faults.whole_at = self.now;
        } else if self.faults.mends.is_empty()
            && self.now
                > self
                    .faults
                    .whole_at
                    .max(self.moved_at)
                    .max(self.faults.mended_at)
                    .max(self.idle_until.max(self.changed_until))
                    + PATIENCE
        {
            let state = self.replication();
            return self.fail(format!("the servers do not become whole:\n{state}"));
        }
        if self.budget == 0 && whole {
            self.faults.settled = true;
            self.faults.lurks = false;
            return;
        }
        if self.budget < LAST && !whole {
            self.budget = LAST;
        }
        // One that waits for a long value need not wait for ever.
        let lurks = self.faults.lurks && !self.rng.one_in(200);
        if self.plan.overlap {
            if self.budget > LAST {
                self.send_away_overlapping();
            }
            let pause = self.overlap_pause();
            return self.next_fault(pause);
        }
        if whole && self.budget > LAST && !lurks && self.rng.one_in(4) {
            self.faults.left = self.faults.left.saturating_sub(1);
            self.tally.faults += 1;
            if self.plan.hurry {
                self.hurry_all(2);
                let pause = self.rng.below(8 * self.plan.delay_max);
                self.after(pause, Event::Fault);
                self.faults.goes = true;
                return;
            }
            if self.plan.pieces && !self.faults.lurks && !self.rng.one_in(10) {
                self.faults.lurks = true;
            } else {
                self.send_away();
            }
        }
        let pause = self.rng.range(1, LOOK);
        self.next_fault(pause);
    }

    /// Whether the serving proxy uses all servers, and none is cold.
    pub fn is_whole(&mut self) -> bool {
        let servers = self.listed();
        // What it has not noticed yet is not over either: a silent connection is found by a probe, after a time limit.
        let noticed = self.faults.mended_at + 2 * self.faults.timeout + 500_000;
        self.faults.mends.is_empty()
            && self.now > noticed
            && self.holds_all_links(self.active)
            && (self.faults.profile != Profile::Takeover || self.stamps_agree())
            && self.uses_all(servers)
    }

    /// Whether the proxy says so of all its servers. While keys are handed over it has more than are listed.
    fn uses_all(&mut self, servers: usize) -> bool {
        let text = self.replication();
        let up = text.matches(":state up\r").count();
        let all = text.matches(":state ").count() - text.matches(":state twin").count();
        up >= servers && up == all && !self.hosts[self.active].is_reloading()
    }

    /// Whether no server missed what another proxy wrote before the address moved, as far as their stamps say. The serving
    /// proxy has perhaps not looked yet.
    fn stamps_agree(&self) -> bool {
        let stamp = |items: &BTreeMap<Bytes, Item>| {
            // Under whatever list of servers; the item that names the lists is none.
            let stamps = items
                .iter()
                .filter(|(key, _)| key.starts_with(b"magent:stamp:") && !key.ends_with(b"lists"));
            let view = |value: &[u8]| {
                value
                    .split(|&byte| byte == b' ')
                    .nth(1)
                    .and_then(parse::<u64>)
            };
            stamps.filter_map(|(_, item)| view(&item.value)).max()
        };
        let listed = self.nodes[..self.listed()].iter();
        let mut stamps = listed.map(|node| stamp(&node.process.items));
        let first = stamps.next();
        stamps.all(|other| Some(other) == first)
    }

    /// A server that can go: the one that is meant to, or any.
    fn running(&mut self) -> Option<usize> {
        if let Some(prey) = self.faults.prey.take() {
            return (self.nodes[prey].health == Health::Running).then_some(prey);
        }
        let running: Vec<usize> = (0..self.nodes.len())
            .filter(|&n| self.nodes[n].health == Health::Running)
            .collect();
        (!running.is_empty()).then(|| running[self.rng.index(running.len())])
    }

    /// A server dies or is cut off for good.
    fn lose_server(&mut self) {
        let Some(server) = self.running() else { return };
        match self.rng.below(3) {
            0 => self.stop(server, Health::Cut),
            kind => self.crash(server, kind == 1),
        }
        let names: Vec<_> = self.history.names().cloned().collect();
        for (key, name) in names.iter().enumerate() {
            if self
                .in_force
                .copies(name)
                .iter()
                .all(|&copy| self.nodes[copy].was_hurt)
            {
                self.history.unserved(key, self.now);
            }
        }
    }

    /// The server that sends a long value goes, if nothing else has broken.
    pub fn strike(&mut self) {
        let quiet = self.budget == 0 || self.faults.settled == self.faults.profile.returns();
        if self.faults.prey.is_none() || quiet || !self.faults.mends.is_empty() {
            self.faults.prey = None;
            return;
        }
        if self.faults.profile.returns() {
            self.send_away();
            self.hurry_later();
        } else if self.faults.left > 0 {
            self.faults.left -= 1;
            self.tally.faults += 1;
            self.hurt_server();
            let pause = self.faults.pause(&mut self.rng);
            self.next_fault(pause);
        }
    }

    /// A server is away for a while, or slow.
    fn hurt_server(&mut self) {
        let away = self.rng.range(1, 4 * self.faults.timeout);
        if self.rng.one_in(8) {
            let host = self.active;
            return self.freeze_proxy(host, away / 2);
        }
        let Some(server) = self.running() else { return };
        match self.rng.below(5) {
            0 => self.stop(server, Health::Cut),
            1 | 2 => self.stop(server, Health::Stopped),
            3 => {
                let loud = self.rng.one_in(2);
                self.crash(server, loud);
            }
            _ => {
                self.nodes[server].slowness = self
                    .rng
                    .range(2, self.faults.timeout / self.plan.service_max);
            }
        }
        self.faults.mends.push((self.now + away, server));
    }

    /// A server goes for a while, and nothing else breaks until it has been back for long.
    pub(super) fn send_away(&mut self) {
        self.faults.lurks = false;
        let away = match self.plan.moving && self.rng.one_in(2) {
            // Before anybody has written anything else.
            true => 1,
            false => self.rng.range(1, 2_000_000),
        };
        self.send_away_for(away);
    }

    /// The same for so long.
    pub(super) fn send_away_for(&mut self, away: u64) {
        let Some(server) = self.running() else { return };
        self.overlap.hurt(server, self.now);
        match self.rng.below(4) {
            0 => self.stop(server, Health::Cut),
            1 => self.stop(server, Health::Stopped),
            kind => self.crash(server, kind == 2),
        }
        self.faults.mends.push((self.now + away, server));
    }

    fn mend(&mut self, server: usize) {
        if self.nodes[server].health != Health::Running {
            self.history.returned();
        }
        self.overlap.mended(server, self.now);
        self.nodes[server].slowness = 1;
        match self.nodes[server].health {
            Health::Running => {}
            Health::Stopped | Health::Cut => self.resume(server),
            Health::Crashed | Health::Vanished => self.restart(server),
        }
    }

    fn make_babble(&mut self) {
        let server = self.rng.index(self.nodes.len());
        // What fits no request: a reply that fits could not be told from a true one by anybody.
        let lines: [&[u8]; 6] = [
            b"\r\n",
            b"HTTP/1.1 400 Bad Request\r\n",
            b"\x00\xff\n\n\n",
            b"VALUE nobodys-key 0 5\r\nalien\r\nEND\r\n",
            b"VALUE k0 0\r\n",
            b"STOREDSTORED\r\n",
        ];
        let line = self.rng.pick(&lines);
        self.babble(server, line);
    }

    /// A server's machine is gone without a word, for a while.
    pub fn take_away_silently(&mut self) -> Option<usize> {
        let server = self.running()?;
        self.crash(server, false);
        let away = self.rng.range(1, 2_000_000);
        self.faults.mends.push((self.now + away, server));
        Some(server)
    }
}
