//! Runs with `--eject`: servers go and return, their keys go to the others and come back. A key may be missed at any time,
//! and be there again, but what is read is never older than what was written or read last.
//!
//! Two kinds of runs. In one a single proxy lives through everything: any servers are away at the same time, but one. In
//! the other there are two, which take over from each other at any time; what they know of each other they know from the
//! servers, so one server at a time is away, and none goes before the others are in use.

use magent::config::{Config, Copies, Distribution};

use super::node::Health;
use super::rng::Rng;
use super::world::World;

/// The longest pause between two faults, in microseconds.
const PAUSE_MAX: u64 = 1_500_000;

/// What of a drawn configuration is otherwise here.
pub fn configure(config: &mut Config, rng: &mut Rng) {
    let mut all = std::mem::take(&mut config.backups);
    config.servers.append(&mut all);
    while config.servers.len() < 2 || (config.servers.len() < 4 && rng.one_in(2)) {
        let mut next = config.servers[0].clone();
        next.port += config.servers.len() as u16;
        config.servers.push(next);
    }
    config.copies = Copies::All;
    config.eject = true;
    if rng.one_in(4) {
        config.distribution = Distribution::MagentKetama;
    }
    config.journal_keys = rng.pick(&[0, 3, 1_000_000]) as usize;
}

impl World {
    pub fn eject_something(&mut self) {
        if self.hosts.len() == 2 {
            return self.send_away_when_whole();
        }
        if self.budget == 0 {
            return;
        }
        let away = self.nodes.iter().filter(|n| n.health != Health::Running);
        if away.count() + 1 < self.nodes.len() {
            self.tally.faults += 1;
            self.send_away();
        }
        let pause = self.rng.range(1, PAUSE_MAX);
        self.next_fault(pause);
    }
}
