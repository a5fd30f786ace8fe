//! Runs with links to the servers that carry few bytes a second: a value, and more so a queue of them, takes a good part of the
//! time limit. Nobody fails, and bytes move all the time, so no server is to blame for anything: all promises of a calm run hold.

use magent::time::Span;

use super::net::{Conn, Side};
use super::profile::Plan;
use super::rng::Rng;
use super::world::World;

/// So many bytes go at a time.
const PIECE: usize = 2048;

/// What of drawn circumstances is otherwise here.
pub fn configure(plan: &mut Plan, rng: &mut Rng) {
    let millis = rng.pick(&[200, 500]);
    plan.config.timeout = Span::from_millis(millis);
    // The longest value takes a fifth of the time limit, and a list of them may take all of it.
    plan.rate = 1_200_000 * 1000 / millis;
    plan.clients = 1;
    plan.pipeline = rng.pick(&[4, 8]);
    plan.batch_max = rng.pick(&[1, 4, 8]);
    plan.think_max = 3000;
    plan.client_faults = 0;
    plan.short_times = false;
    plan.window = 256 * 1024;
}

/// When each server's link is free again, from it and to it.
#[derive(Clone, Copy, Default)]
pub struct Link {
    free: [u64; 2],
}

impl World {
    /// How many bytes arrive at a time at most.
    pub fn piece(&self, conn: Conn) -> usize {
        match self.server_of(conn) {
            Some(_) if self.plan.rate > 0 => PIECE,
            _ => usize::MAX,
        }
    }

    /// How long the next piece of what `side` wrote waits for the link, and then takes.
    pub fn on_link(&mut self, conn: Conn, side: Side) -> u64 {
        let (Some(server), true) = (self.server_of(conn), self.plan.rate > 0) else {
            return 0;
        };
        let size = self.net.on_wire(conn, side).min(PIECE) as u64;
        let free = &mut self.nodes[server].link.free[side];
        *free = self.now.max(*free) + size * 1_000_000 / self.plan.rate;
        *free - self.now
    }
}
