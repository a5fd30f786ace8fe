//! Runs as `takeover`, in which the proxies are now and then restarted with another list of servers: the last backup is taken out,
//! and put back later with what it held then. What is away at that moment stays away.

use magent::config::{Config, Copies, ServerSpec};

use super::world::World;

/// What of a drawn configuration is otherwise here: without its last backup there is still one, and it has every key.
pub fn configure(config: &mut Config) {
    while config.backups.len() < 2 {
        let all = config.servers.len() + config.backups.len();
        let first: &ServerSpec = &config.servers[0];
        let next = ServerSpec {
            port: first.port + all as u16,
            ..first.clone()
        };
        config.backups.push(next);
    }
    config.copies = Copies::All;
}

impl World {
    /// The configuration that a proxy is started with now.
    pub fn list(&self) -> Config {
        let mut config = self.in_force.config.clone();
        if self.is_short {
            config.backups.pop();
        }
        config
    }

    /// How many of the servers are in it.
    pub fn listed(&self) -> usize {
        self.in_force.count() - usize::from(self.is_short)
    }

    /// Both proxies end, and one is started with the other list.
    pub fn change_list(&mut self, old: usize, other: usize) {
        self.kill_serving(true);
        if self.hosts[other].proxy.is_some() {
            self.kill_proxy(other, true);
        }
        self.is_short = !self.is_short;
        let short = self.is_short;
        self.log(|| format!("the last backup is in the list: {}", !short));
        let next = self.rng.pick(&[old, other]);
        self.start_proxy(next);
        self.move_address(next);
    }
}
