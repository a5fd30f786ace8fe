//! Runs in which a server's name says little: one process has two names or two roles, or after a while another process, with
//! values of its own from before, is found behind a server's address.

use magent::config::Copies;

use super::memcached::Memcached;
use super::node::Node;
use super::profile::Plan;
use super::rng::Rng;
use super::world::EPOCH;

/// Added to a server's port: its second name.
pub const ALIAS: u16 = 1000;

/// One server is given twice, by the same word or by another.
pub fn give_twice(plan: &mut Plan, rng: &mut Rng) {
    plan.twins_given = true;
    let config = &mut plan.config;
    // Another backup, or what is given twice may be all that there is.
    while config.backups.len() < 2 {
        let mut next = config.servers[0].clone();
        next.port += (config.servers.len() + config.backups.len()) as u16;
        config.backups.push(next);
    }
    config.copies = Copies::All;
    for _ in 0..rng.range(1, 2) {
        let all: Vec<_> = config
            .servers
            .iter()
            .chain(&config.backups)
            .cloned()
            .collect();
        let any = rng.index(all.len());
        let place = rng.pick(&[0, all.len() - 1, any]);
        let mut again = all[place].clone();
        if rng.one_in(2) && again.port < 11211 + ALIAS {
            again.port += ALIAS;
        }
        let place = rng.index(config.backups.len() + 1);
        config.backups.insert(place, again);
    }
}

impl Node {
    /// Instead of starting anew, the address leads to another process, which was there before. The next time it leads back, to
    /// what the first one held then.
    pub fn is_moved(&mut self) {
        let (version, item_max) = (self.version, self.item_max);
        let new = || Memcached::new(version, 5000, EPOCH - 50, item_max);
        let other = self.other.take().unwrap_or_else(new);
        self.other = Some(std::mem::replace(&mut self.process, other));
    }
}
