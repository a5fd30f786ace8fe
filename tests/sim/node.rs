//! A server machine: its process (or none), its network, and its end of connections.

use std::collections::BTreeMap;

use super::lags::Lag;
use super::memcached::{Memcached, Session};
use super::narrow;
use super::net::Conn;
use super::pieces;
use super::profile::Plan;
use super::rng::Rng;
use super::world::{Event, World, EPOCH};

/// How a machine is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Health {
    Running,
    /// SIGSTOP: the kernel takes connections and bytes, nobody answers.
    Stopped,
    /// The network is cut; the process goes on.
    Cut,
    /// The process is gone: connections are refused.
    Crashed,
    /// The machine is gone: silence.
    Vanished,
}

/// The server's end of a connection.
#[derive(Default)]
struct Served {
    session: Session,
    out: Vec<u8>,
    /// A thread is about to look at it.
    scheduled: bool,
    /// Complete commands may be left in the session.
    more: bool,
    /// It has been waited for, and was not complete.
    begun: bool,
    /// The other end has reset: what has come is carried out, then it is closed.
    doomed: bool,
}

pub struct Node {
    pub health: Health,
    pub process: Memcached,
    /// How much longer than usual it thinks.
    pub slowness: u64,
    /// It is slow for a while, command by command.
    pub lag: Lag,
    /// The link to it, where that is narrow.
    pub link: narrow::Link,
    /// It was away or lost its items at least once in this run.
    pub was_hurt: bool,
    served: BTreeMap<Conn, Served>,
    /// Its clock is that many microseconds ahead, so that servers' seconds begin at different times.
    phase: u64,
    pub(super) version: [u32; 3],
    pub(super) item_max: usize,
    starts: u32,
    /// A process that its address may lead to.
    pub(super) other: Option<Memcached>,
}

impl Node {
    pub fn new(index: usize, plan: &Plan, rng: &mut Rng) -> Node {
        let phase = rng.below(1_000_000);
        Node {
            health: Health::Running,
            process: Memcached::new(plan.version, 100 * index as u32, EPOCH - 100, plan.item_max),
            slowness: 1,
            lag: Lag::default(),
            link: narrow::Link::default(),
            was_hurt: false,
            served: BTreeMap::new(),
            phase,
            version: plan.version,
            item_max: plan.item_max,
            starts: 0,
            other: None,
        }
    }

    pub fn is_unreachable(&self) -> bool {
        matches!(self.health, Health::Cut | Health::Vanished)
    }

    /// It has more to send than there is room for.
    pub fn is_sending(&self) -> bool {
        self.served.values().any(|served| !served.out.is_empty())
    }

    pub fn unix(&self, now: u64) -> i64 {
        EPOCH + ((now + self.phase) / 1_000_000) as i64
    }
}

impl World {
    /// Some thread of the server is going to look at the connection.
    pub fn wake_server(&mut self, server: usize, conn: Conn) {
        let node = &mut self.nodes[server];
        if matches!(
            node.health,
            Health::Stopped | Health::Crashed | Health::Vanished
        ) {
            return;
        }
        let served = node.served.entry(conn).or_default();
        if !std::mem::replace(&mut served.scheduled, true) {
            // Half a command costs it nothing.
            let lag = (!served.begun).then(|| node.lag.pause(self.now, &mut self.rng));
            let pause = lag
                .flatten()
                .unwrap_or_else(|| 1 + self.rng.below(self.plan.service_max * node.slowness));
            self.after(pause, Event::Serve(server, conn));
        }
    }

    pub fn serve(&mut self, server: usize, conn: Conn) {
        let now = self.now;
        let node = &mut self.nodes[server];
        let Some(served) = node.served.get_mut(&conn) else {
            return;
        };
        served.scheduled = false;
        if matches!(
            node.health,
            Health::Stopped | Health::Crashed | Health::Vanished
        ) {
            return;
        }
        if served.out.is_empty() {
            node.process.set_now(node.unix(now));
            let served = node
                .served
                .get_mut(&conn)
                .expect("it was there a moment ago");
            let mut bytes = std::mem::take(&mut self.scratch);
            bytes.clear();
            let limit = if self.rng.one_in(4) {
                self.rng.range(1, 200) as usize
            } else {
                16 * 1024
            };
            self.net.read(conn, 1, limit, &mut bytes);
            if self.trace && !bytes.is_empty() {
                let text = bytes[..bytes.len().min(160)].escape_ascii();
                println!("{:>12}   server {server} reads on {conn}: {text}", self.now);
            }
            let slow = node.lag.is_slow(now);
            let commands = if slow || self.rng.one_in(4) { 1 } else { 40 };
            let lie = self.sabotage.at_server(server, &self.plan);
            node.process.lie = lie;
            let backup = server >= self.plan.config.servers.len();
            node.process.is_full =
                backup && self.plan.out_of_memory > 0 && self.rng.one_in(self.plan.out_of_memory);
            served.more =
                node.process
                    .serve(&mut served.session, &bytes, commands, &mut served.out);
            served.begun = slow && served.out.is_empty();
            self.scratch = bytes;
            self.made_room(conn, 0);
        }
        self.reply(server, conn);
        let node = &mut self.nodes[server];
        let Some(served) = node.served.get_mut(&conn) else {
            return;
        };
        let again = served.more || self.net.unread(conn, 1) > 0;
        if served.doomed {
            served.out.clear();
        }
        if served.doomed && !again {
            node.served.remove(&conn);
            self.net.forget(conn);
        } else if again && served.out.is_empty() {
            self.wake_server(server, conn);
        } else if self.net.is_eof(conn, 1) && served.out.is_empty() {
            node.served.remove(&conn);
            if self.net.close(conn, 1) {
                self.send_off(conn, 1);
            }
        }
    }

    fn reply(&mut self, server: usize, conn: Conn) {
        let Some(served) = self.nodes[server].served.get_mut(&conn) else {
            return;
        };
        if served.out.is_empty() || served.doomed {
            return;
        }
        if served.out.len() >= pieces::MIDDLE {
            self.sends_long(server);
        }
        let Some(served) = self.nodes[server].served.get_mut(&conn) else {
            return;
        };
        let (count, starts) = self.net.write(conn, 1, &served.out, &mut self.rng);
        served.out.drain(..count);
        let blocked = !served.out.is_empty();
        if starts {
            self.send_off(conn, 1);
        }
        if blocked {
            self.blocked(conn, 1);
        }
    }

    pub fn connect_at_server(&mut self, server: usize, conn: Conn) {
        match self.nodes[server].health {
            // The kernel asks again and again; when the network is mended, `mend` lets it through.
            Health::Cut | Health::Vanished => {}
            Health::Crashed => self.host_refused(conn),
            Health::Running | Health::Stopped => {
                self.net.open(conn);
                self.nodes[server].served.entry(conn).or_default();
                self.host_connected(conn);
            }
        }
    }

    pub fn reset_at_server(&mut self, server: usize, conn: Conn) {
        let runs_late = self.nodes[server].health == Health::Stopped || self.rng.one_in(2);
        if let Some(served) = self.nodes[server].served.get_mut(&conn) {
            if runs_late {
                served.doomed = true;
                self.wake_server(server, conn);
                return;
            }
            self.nodes[server].served.remove(&conn);
        }
        self.net.forget(conn);
    }

    /// The process dies. `loud`: its kernel says so; otherwise the whole machine is gone.
    pub fn crash(&mut self, server: usize, loud: bool) {
        self.log(|| {
            format!(
                "server {server} crashes, {}",
                if loud { "loud" } else { "silent" }
            )
        });
        self.history.failure(self.now);
        let node = &mut self.nodes[server];
        node.was_hurt = true;
        node.health = if loud {
            Health::Crashed
        } else {
            Health::Vanished
        };
        let served = std::mem::take(&mut node.served);
        for (conn, _) in served {
            if loud {
                self.reset(conn, 1);
            }
        }
    }

    /// A new, empty process.
    pub fn restart(&mut self, server: usize) {
        self.log(|| format!("server {server} restarts, empty"));
        let now = self.now;
        // Connections of the old machine that nobody has told of its end.
        for conn in self.net.alive() {
            if self.server_of(conn) == Some(server) && self.net.holds(conn, 1) {
                self.nodes[server].health = Health::Running;
                self.reset(conn, 1);
            }
        }
        self.history.forget_tokens();
        let node = &mut self.nodes[server];
        node.health = Health::Running;
        if self.plan.moving && self.rng.one_in(2) {
            node.is_moved();
            self.log(|| format!("server {server}: its address leads to another process"));
            return self.set_going(server);
        }
        node.starts += 1;
        node.process = Memcached::new(node.version, node.starts, node.unix(now), node.item_max);
        self.set_going(server);
    }

    pub fn stop(&mut self, server: usize, health: Health) {
        self.log(|| format!("server {server}: {health:?}"));
        self.history.failure(self.now);
        self.nodes[server].health = health;
        self.nodes[server].was_hurt = true;
    }

    /// Continues after a stop or a cut: what was held goes on, each connection for itself.
    pub fn resume(&mut self, server: usize) {
        self.log(|| format!("server {server} goes on"));
        self.nodes[server].health = Health::Running;
        self.set_going(server);
    }

    fn set_going(&mut self, server: usize) {
        for conn in self.net.alive() {
            if self.server_of(conn) != Some(server) {
                continue;
            }
            if self.net.state(conn) == super::net::State::Asked {
                let delay = self.delay();
                self.after(delay, Event::Connect(conn));
                continue;
            }
            for side in [0, 1] {
                if !self.net.restart(conn, side) {
                    continue;
                }
                if self.net.holds(conn, side) {
                    self.send_off(conn, side);
                } else {
                    // Its kernel tries again less and less often.
                    let pause = self.rng.below(5_000_000);
                    self.after(pause, Event::Deliver(conn, side));
                }
            }
            let Some(served) = self.nodes[server].served.get_mut(&conn) else {
                continue;
            };
            if served.doomed && !std::mem::replace(&mut served.scheduled, true) {
                // Its thread is the last to run again.
                let pause = self.rng.below(100_000);
                self.after(pause, Event::Serve(server, conn));
            } else {
                self.wake_server(server, conn);
            }
        }
    }

    /// The server says something that it was not asked, between two replies.
    pub fn babble(&mut self, server: usize, bytes: &[u8]) {
        let conns: Vec<Conn> = self.nodes[server].served.keys().copied().collect();
        if conns.is_empty() {
            return;
        }
        let conn = conns[self.rng.index(conns.len())];
        self.log(|| format!("server {server} says {}", bytes.escape_ascii()));
        if let Some(served) = self.nodes[server].served.get_mut(&conn) {
            served.out.extend_from_slice(bytes);
        }
        self.reply(server, conn);
    }
}
