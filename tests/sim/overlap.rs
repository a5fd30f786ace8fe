//! Runs in which faults overlap: any servers are away at the same time, or one after the other without a pause, as long as
//! each key keeps a living warm copy. And a check of its own: when a server turns warm, what a warm copy holds is on it.

use magent::config::Copies;

use super::item::is_expired;
use super::node::Health;
use super::profile::Plan;
use super::request::Bytes;
use super::rng::Rng;
use super::world::World;

/// Between two looks for a server that can go, in microseconds.
const LOOK: u64 = 100_000;

/// What is under way when a server turns warm has arrived after this, and two time limits.
const SETTLED: u64 = 1_000_000;

/// What of drawn circumstances is otherwise here.
pub fn configure(plan: &mut Plan, rng: &mut Rng) {
    plan.overlap = true;
    let config = &mut plan.config;
    let backups = rng.range(2, 3) as usize;
    while config.backups.len() < backups {
        let mut next = config.servers[0].clone();
        next.port += (config.servers.len() + config.backups.len()) as u16;
        config.backups.push(next);
    }
    config.copies = match backups {
        3 if rng.one_in(2) => Copies::AtMost(2),
        _ => Copies::All,
    };
    // All keys in two buckets.
    plan.twins = rng.one_in(2);
    // What one client has under way may change its order when its servers are lost one after the other.
    plan.pipeline = 1;
    plan.batch_max = 1;
    plan.clients = plan.clients.max(3);
}

/// A server that has turned warm lacked a key which another one held.
struct Owed {
    server: usize,
    holder: usize,
    key: Bytes,
    cas: u64,
    since: u64,
}

/// What is known of each server.
#[derive(Default)]
pub struct Overlap {
    /// When it last went, and came back.
    hurt_at: Vec<u64>,
    mended_at: Vec<u64>,
    /// The proxy says that it is up and warm.
    warm: Vec<bool>,
    owed: Vec<Owed>,
}

impl Overlap {
    pub fn new(servers: usize) -> Overlap {
        Overlap {
            hurt_at: vec![0; servers],
            mended_at: vec![0; servers],
            warm: vec![false; servers],
            owed: Vec::new(),
        }
    }

    pub fn hurt(&mut self, server: usize, now: u64) {
        self.hurt_at[server] = now;
    }

    pub fn mended(&mut self, server: usize, now: u64) {
        self.mended_at[server] = now;
    }
}

impl World {
    /// Which servers the proxy uses and takes for warm.
    fn warm_servers(&mut self) -> Vec<bool> {
        let text = self.replication();
        let states = text.lines().filter(|line| line.contains(":state "));
        states.map(|line| line.ends_with(" up")).collect()
    }

    /// Servers that run, and of which the proxy knows that they are warm; what it has not noticed yet is not over.
    fn sure_servers(&mut self) -> Vec<bool> {
        let noticed = 2 * self.plan.config.timeout.0 + 500_000;
        let warm = self.warm_servers();
        let sure = |server: usize| {
            self.nodes[server].health == Health::Running
                && self.now > self.overlap.mended_at[server] + noticed
                && self.holds_links_of(self.active, server)
        };
        (0..warm.len()).map(|s| warm[s] && sure(s)).collect()
    }

    /// Sends away servers at random, several at once, as long as each key keeps a living warm copy.
    pub fn send_away_overlapping(&mut self) {
        let mut sure = self.sure_servers();
        while self.rng.one_in(2) {
            let names: Vec<Bytes> = self.history.names().cloned().collect();
            let can_go = |server: &usize| {
                let kept = |&copy: &usize| copy != *server && sure[copy];
                let is_kept = |key: &Bytes| self.in_force.copies(key).iter().any(kept);
                self.nodes[*server].health == Health::Running && names.iter().all(is_kept)
            };
            let candidates: Vec<usize> = (0..sure.len()).filter(can_go).collect();
            if candidates.is_empty() {
                return;
            }
            let server = candidates[self.rng.index(candidates.len())];
            sure[server] = false;
            self.tally.faults += 1;
            self.faults.prey = Some(server);
            let away = self.rng.pick(&[1, 1000, 100_000, 2_000_000]);
            self.send_away_for(away);
        }
    }

    /// The pause until the next look.
    pub fn overlap_pause(&mut self) -> u64 {
        self.rng.range(1, LOOK)
    }

    /// Notes what servers that have just turned warm lack, and looks whether they lack it still.
    pub fn check_warm(&mut self) {
        let warm = self.warm_servers();
        let (now, settled) = (self.now, SETTLED + 2 * self.plan.config.timeout.0);
        let before = std::mem::replace(&mut self.overlap.warm, warm.clone());
        for server in (0..warm.len()).filter(|&s| warm[s] && !before[s] && now > 0) {
            let names: Vec<Bytes> = self.history.names().cloned().collect();
            for key in names {
                let copies = self.in_force.copies(&key);
                if copies.contains(&server) && self.item_cas(server, &key).is_none() {
                    let holds = |&&c: &&usize| c != server && before[c] && warm[c];
                    for &holder in copies.iter().filter(holds) {
                        if let Some(cas) = self.item_cas(holder, &key) {
                            let (key, since) = (key.clone(), now);
                            let owed = Owed {
                                server,
                                holder,
                                key,
                                cas,
                                since,
                            };
                            self.overlap.owed.push(owed);
                        }
                    }
                }
            }
        }
        let mut owed = std::mem::take(&mut self.overlap.owed);
        owed.retain(|owed| {
            let is_hurt = |s: usize| self.overlap.hurt_at[s] >= owed.since || !warm[s];
            let is_same = self.item_cas(owed.holder, &owed.key) == Some(owed.cas);
            let lacks = self.item_cas(owed.server, &owed.key).is_none();
            !is_hurt(owed.server) && !is_hurt(owed.holder) && is_same && lacks
        });
        if let Some(first) = owed.iter().find(|owed| owed.since + settled <= now) {
            let text = format!(
                "server {} turned warm at {} without the key {}, which server {} holds",
                first.server,
                first.since,
                first.key.escape_ascii(),
                first.holder
            );
            self.fail(text);
        }
        self.overlap.owed = owed;
    }

    /// The version of an item that lives on a server, and will for a while.
    fn item_cas(&self, server: usize, key: &Bytes) -> Option<u64> {
        let node = &self.nodes[server];
        let item = node.process.items.get(key)?;
        let running = node.health == Health::Running;
        (running && !is_expired(item.exp, node.unix(self.now) + 60)).then_some(item.cas)
    }
}
