//! Runs with servers that live but are slow: each answer takes a part of the time limit, so that a queue of requests is over it,
//! yet the server is never silent for long enough to be given up. All promises hold, but that a read may fail: then it is a
//! miss, and counted.

use magent::time::Span;

use super::node::Health;
use super::profile::Plan;
use super::rng::Rng;
use super::world::{Event, World};

/// What of drawn circumstances is otherwise here.
pub fn configure(plan: &mut Plan, rng: &mut Rng) {
    plan.lags = true;
    plan.marks = true;
    plan.config.timeout = Span::from_millis(200);
    plan.keys = rng.pick(&[2, 3, 5]);
    plan.clients = rng.range(2, 5) as usize;
    plan.pipeline = rng.pick(&[2, 4, 8]);
    plan.batch_max = rng.pick(&[1, 2, 4]);
    plan.think_max = rng.pick(&[50_000, 200_000]);
    plan.delay_max = plan.delay_max.min(200);
    plan.delay_min = plan.delay_min.min(plan.delay_max / 2);
    plan.window = 256 * 1024;
}

/// How slow a server is.
#[derive(Clone, Copy, Default)]
pub struct Lag {
    /// The longest pause before an answer, in microseconds.
    most: u64,
    until: u64,
}

impl Lag {
    /// How long it thinks about the next command, if it is slow at `now`.
    pub fn pause(&self, now: u64, rng: &mut Rng) -> Option<u64> {
        (now < self.until).then(|| rng.range(self.most / 4, self.most))
    }

    /// Whether it is slow at `now`.
    pub fn is_slow(&self, now: u64) -> bool {
        now < self.until
    }
}

impl World {
    /// A server that runs is slow for a while, if none is.
    pub fn slow_one_down(&mut self) {
        let now = self.now;
        let timeout = self.plan.config.timeout.0;
        let running: Vec<usize> = (0..self.nodes.len())
            .filter(|&n| self.nodes[n].health == Health::Running)
            .collect();
        let none_is = self.nodes.iter().all(|node| !node.lag.is_slow(now));
        if none_is && !running.is_empty() && self.budget > 0 {
            let server = running[self.rng.index(running.len())];
            let most = self.rng.range(timeout / 10, timeout * 7 / 10);
            let until = now + self.rng.range(1, 4 * timeout);
            self.log(|| format!("server {server} is slow until {until}"));
            self.nodes[server].lag = Lag { most, until };
            self.tally.faults += 1;
            self.history.failure(until);
        }
        if self.budget > 0 {
            let pause = self.rng.range(1, 20 * timeout);
            self.after(pause, Event::Lag);
        }
    }
}
