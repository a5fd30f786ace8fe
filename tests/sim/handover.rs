//! Two proxies: the address moves from one to the other, they crash, and start anew.
//!
//! A move takes longer than any request of the old proxy may take: two proxies that serve at the same moment do not
//! order their writes between each other (docs/replication.md, split brain).

use super::world::{Event, World};

impl World {
    pub fn hand_over(&mut self) {
        let (old, other) = (self.active, 1 - self.active);
        let idle = self.now >= self.moved_at;
        if self.budget > 0 && idle && self.plan.hurry && !self.armed {
            // It happens while clients ask.
            self.armed = true;
            self.hurry_all(2);
            let pause = self.rng.below(8 * self.plan.delay_max);
            return self.after(pause, Event::Handover);
        }
        self.armed = false;
        if self.budget > 0 && idle {
            self.tally.moves += 1;
            if self.plan.lists && self.rng.one_in(3) {
                self.change_list(old, other);
                return self.move_later();
            }
            match self.rng.below(5) {
                // The address moves, by hand.
                0 => {
                    self.revive(other);
                    self.move_address(other);
                }
                // The serving proxy dies, and the other takes over; sooner or later it is started again.
                1 => {
                    self.revive(other);
                    let loud = self.rng.one_in(2);
                    self.kill_serving(loud);
                    self.move_address(other);
                    if self.rng.one_in(2) {
                        self.start_proxy(old);
                    }
                }
                // It dies and is started at once, at the same place.
                2 => {
                    self.kill_serving(true);
                    self.start_proxy(old);
                    self.move_address(old);
                }
                // The other one.
                3 => {
                    if self.hosts[other].proxy.is_some() {
                        let loud = self.rng.one_in(2);
                        self.kill_proxy(other, loud);
                    } else {
                        self.start_proxy(other);
                    }
                }
                // A whole machine is gone, with the proxy that serves and a server.
                _ => {
                    self.revive(other);
                    if self.is_whole() && self.lose_machine() {
                        self.move_address(other);
                    }
                }
            }
        }
        self.move_later();
    }

    fn move_later(&mut self) {
        if self.budget > 0 {
            let pause = self.rng.range(1, 4_000_000);
            self.after(pause, Event::Handover);
        }
    }

    fn revive(&mut self, host: usize) {
        if self.hosts[host].proxy.is_none() {
            self.start_proxy(host);
        }
    }

    /// The serving proxy dies. What was under way in it may be done at some copies and not at others.
    pub(super) fn kill_serving(&mut self, loud: bool) {
        self.history.tear(self.now);
        let host = self.active;
        self.kill_proxy(host, loud);
    }

    /// The clients are sent to `host`, after a while.
    pub(super) fn move_address(&mut self, host: usize) {
        let ranks = 1 + self.plan.config.backups.len() as u64;
        let gap = 2 * ranks * self.plan.config.timeout.0 + 100 * self.plan.delay_max;
        self.moved_at = self.now + gap + self.rng.below(2_000_000);
        self.active = host;
        self.log(|| format!("the address moves to proxy {host}"));
        self.history.failure(self.moved_at);
        for client in 0..self.clients.len() {
            self.move_client(client);
        }
    }

    /// The machine of the serving proxy is gone without a word, with one of the servers.
    fn lose_machine(&mut self) -> bool {
        let Some(server) = self.take_away_silently() else {
            return false;
        };
        self.log(|| format!("the machine of server {server} and the serving proxy is gone"));
        let host = self.active;
        self.history.tear(self.now);
        self.net_loses_what(host);
        self.kill_proxy(host, false);
        true
    }
}
