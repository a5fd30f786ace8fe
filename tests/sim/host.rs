//! The edge of a proxy with a fake poll: what `magent::net` does with sockets, done with the connections of this world,
//! in the same order.

use std::collections::BTreeMap;

use magent::config::Config;
use magent::proxy::{ClientId, CloseReason, ConnId, LinkId, ProcessFacts, Proxy};
use magent::time::Time;

use super::net::{Conn, End, State};
use super::reloads::nodes_of;
use super::world::{Event, World, EPOCH};

/// What the poll has to tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum News {
    Accept(Conn),
    Connected(Conn),
    Refused(Conn),
    Readable(Conn),
    Writable(Conn),
    Reset(Conn),
}

pub(super) struct Accepted {
    pub(super) conn: Conn,
    pub(super) id: ClientId,
    pub(super) blocked: bool,
    pub(super) finished: bool,
}

pub(super) struct Link {
    pub(super) conn: Conn,
    pub(super) blocked: bool,
}

/// One proxy process, or none.
pub struct Host {
    pub proxy: Option<Proxy>,
    /// The servers that its indices stand for.
    pub(super) servers: Vec<usize>,
    pub(super) clients: BTreeMap<Conn, Accepted>,
    conns: BTreeMap<(u32, u32), Conn>,
    pub(super) links: BTreeMap<(u16, u16), Link>,
    pub(super) news: Vec<News>,
    pub(super) again: Vec<ClientId>,
    pub(super) writable: Vec<ConnId>,
    turn_at: Option<u64>,
    waiting: Vec<Conn>,
    /// Clients wait in the kernel's queue until then at most.
    starting: Option<Time>,
    /// It is stopped (SIGSTOP, or a machine too busy) until then.
    pub frozen_until: u64,
}

fn rusage() -> (u64, u64) {
    (0, 0)
}

impl Host {
    pub fn new(config: &Config, number: usize, now: u64) -> Host {
        let config = &Config {
            proxy_id: format!("proxy{number}"),
            ..config.clone()
        };
        let facts = ProcessFacts {
            pid: 1,
            unix_micros_at_zero: EPOCH as u64 * 1_000_000,
            rusage,
        };
        let mut host = Host::none();
        host.proxy = Some(Proxy::new(config, facts, Time(now)));
        host.servers = nodes_of(config);
        host.starting = Some(Time(now) + config.timeout + config.timeout);
        host.turn_at = Some(now);
        host
    }

    /// A machine without the process.
    pub fn none() -> Host {
        Host {
            proxy: None,
            servers: Vec::new(),
            clients: BTreeMap::new(),
            conns: BTreeMap::new(),
            links: BTreeMap::new(),
            news: Vec::new(),
            again: Vec::new(),
            writable: Vec::new(),
            turn_at: None,
            waiting: Vec::new(),
            starting: None,
            frozen_until: 0,
        }
    }

    /// Whether a configuration is not in force yet, or keys are handed over.
    pub fn is_reloading(&self) -> bool {
        self.proxy.as_ref().is_some_and(Proxy::is_reloading)
    }

    pub(super) fn client_conn(&self, id: ClientId) -> Option<Conn> {
        self.conns.get(&(id.index, id.generation)).copied()
    }
}

pub(super) fn key_of(id: LinkId) -> (u16, u16) {
    (id.server, id.conn)
}

impl World {
    pub fn host_news(&mut self, host: usize, news: News) {
        if self.hosts[host].proxy.is_none() {
            return;
        }
        self.hosts[host].news.push(news);
        let pause = self.rng.below(20);
        self.turn_by(host, self.now + pause);
    }

    /// The loop of a proxy is woken.
    pub(super) fn turn_soon(&mut self, host: usize) {
        self.turn_by(host, self.now);
    }

    fn turn_by(&mut self, host: usize, time: u64) {
        let time = time.max(self.hosts[host].frozen_until);
        if self.hosts[host].turn_at.is_none_or(|at| time < at) {
            self.hosts[host].turn_at = Some(time);
            self.at(time, Event::Turn(host));
        }
    }

    pub fn host_connected(&mut self, conn: Conn) {
        if let End::HostLink(host, _, _) = self.net.end(conn, 0) {
            self.host_news(host, News::Connected(conn));
        }
    }

    pub fn host_refused(&mut self, conn: Conn) {
        if let End::HostLink(host, _, _) = self.net.end(conn, 0) {
            self.host_news(host, News::Refused(conn));
        }
    }

    pub fn connect_at_host(&mut self, host: usize, conn: Conn) {
        if self.hosts[host].proxy.is_some() {
            self.net.open(conn);
            self.host_news(host, News::Accept(conn));
            self.client_connected(conn);
        } else if let End::Client(client) = self.net.end(conn, 0) {
            self.net.forget(conn);
            self.client_lost(client, conn, "refused");
        }
    }

    /// One turn of the loop.
    pub fn turn(&mut self, host: usize) {
        let now = Time(self.now);
        if self.hosts[host].turn_at != Some(self.now) || self.hosts[host].proxy.is_none() {
            return;
        }
        if self.hosts[host].frozen_until > self.now {
            let until = self.hosts[host].frozen_until;
            self.hosts[host].turn_at = None;
            self.turn_by(host, until);
            return;
        }
        self.hosts[host].turn_at = None;
        if self.plan.overlap {
            self.check_warm();
        }
        let news = std::mem::take(&mut self.hosts[host].news);
        for one in news {
            self.take_news(host, one, now);
        }
        let again = std::mem::take(&mut self.hosts[host].again);
        for id in again {
            if let Some(conn) = self.hosts[host].client_conn(id) {
                self.read_accepted(host, conn, now);
            }
        }
        self.proxy(host).tick(now);
        self.settle(host, now);
        self.accept_waiting(host, now);
        let next = self.proxy(host).next_timeout();
        if !self.hosts[host].again.is_empty() || !self.hosts[host].news.is_empty() {
            self.turn_by(host, self.now + 1);
        } else if let Some(next) = next {
            // The poll sleeps whole milliseconds.
            let sleep = next.since(now).0.div_ceil(1000) * 1000;
            self.turn_by(host, self.now + sleep.max(1));
        }
    }

    pub fn proxy(&mut self, host: usize) -> &mut Proxy {
        self.hosts[host]
            .proxy
            .as_mut()
            .expect("this turn's proxy runs")
    }

    fn take_news(&mut self, host: usize, news: News, now: Time) {
        match news {
            News::Accept(conn) => self.hosts[host].waiting.push(conn),
            News::Connected(conn) | News::Refused(conn) => {
                let Some(id) = self.link_of(host, conn) else {
                    return;
                };
                if matches!(news, News::Connected(_)) {
                    self.proxy(host).link_connected(id, now);
                } else {
                    self.hosts[host].links.remove(&key_of(id));
                    self.net.forget(conn);
                    self.proxy(host).link_closed(id, CloseReason::Refused, now);
                }
            }
            News::Readable(conn) => match self.link_of(host, conn) {
                Some(id) => self.read_link(host, id, conn, now),
                None => self.read_accepted(host, conn, now),
            },
            News::Writable(conn) => {
                if let Some(id) = self.link_of(host, conn) {
                    if let Some(link) = self.hosts[host].links.get_mut(&key_of(id)) {
                        link.blocked = false;
                        self.hosts[host].writable.push(ConnId::Link(id));
                    }
                } else if let Some(accepted) = self.hosts[host].clients.get_mut(&conn) {
                    accepted.blocked = false;
                    let id = accepted.id;
                    self.hosts[host].writable.push(ConnId::Client(id));
                }
            }
            News::Reset(conn) => self.broke(host, conn, now),
        }
    }

    /// The other end has reset: bytes that came before may still be read.
    fn broke(&mut self, host: usize, conn: Conn, now: Time) {
        let reads = self.rng.one_in(2);
        if let Some(id) = self.link_of(host, conn) {
            if reads {
                self.read_link(host, id, conn, now);
            }
            if self.hosts[host]
                .links
                .get(&key_of(id))
                .is_some_and(|link| link.conn == conn)
            {
                self.hosts[host].links.remove(&key_of(id));
                self.net.forget(conn);
                self.proxy(host)
                    .link_closed(id, CloseReason::Disconnected, now);
            }
        } else if self.hosts[host].clients.contains_key(&conn) {
            if reads {
                self.read_accepted(host, conn, now);
            }
            if let Some(accepted) = self.drop_accepted(host, conn) {
                self.net.forget(conn);
                self.proxy(host).client_closed(accepted.id, now);
            }
        } else {
            self.hosts[host].waiting.retain(|&other| other != conn);
            self.net.forget(conn);
        }
    }

    /// Whether the servers hold the other ends of all of a proxy's connections.
    pub fn holds_all_links(&self, host: usize) -> bool {
        let mut links = self.hosts[host].links.values();
        links.all(|link| self.net.holds(link.conn, 1))
    }

    /// Whether a server holds the other ends of all of a proxy's connections to it.
    pub fn holds_links_of(&self, host: usize, server: usize) -> bool {
        let links = &self.hosts[host].links;
        let mut its = links
            .iter()
            .filter(|((of, _), _)| self.hosts[host].servers[usize::from(*of)] == server);
        its.all(|(_, link)| self.net.holds(link.conn, 1))
    }

    pub(super) fn link_of(&self, host: usize, conn: Conn) -> Option<LinkId> {
        match self.net.end(conn, 0) {
            End::HostLink(_, server, nth) => {
                let link = self.hosts[host].links.get(&(server, nth))?;
                (link.conn == conn).then_some(LinkId { server, conn: nth })
            }
            _ => None,
        }
    }

    pub(super) fn drop_accepted(&mut self, host: usize, conn: Conn) -> Option<Accepted> {
        let accepted = self.hosts[host].clients.remove(&conn)?;
        self.hosts[host]
            .conns
            .remove(&(accepted.id.index, accepted.id.generation));
        Some(accepted)
    }

    fn accept_waiting(&mut self, host: usize, now: Time) {
        if self.hosts[host].starting.is_some_and(|until| now < until)
            && !self.proxy(host).is_ready()
        {
            return;
        }
        self.hosts[host].starting = None;
        for conn in std::mem::take(&mut self.hosts[host].waiting) {
            if self.net.state(conn) != State::Open {
                continue;
            }
            let Some(id) = self.proxy(host).client_opened(now) else {
                self.reset(conn, 1);
                continue;
            };
            let accepted = Accepted {
                conn,
                id,
                blocked: false,
                finished: false,
            };
            self.hosts[host].clients.insert(conn, accepted);
            self.hosts[host]
                .conns
                .insert((id.index, id.generation), conn);
            self.hosts[host].news.push(News::Readable(conn));
        }
    }

    /// The proxy dies; its kernel resets what it had, or nobody ever hears of it.
    pub fn kill_proxy(&mut self, host: usize, loud: bool) {
        self.log(|| {
            format!(
                "proxy {host} dies, {}",
                if loud { "loud" } else { "silent" }
            )
        });
        self.hosts[host] = Host::none();
        for conn in self.net.alive() {
            for side in [0, 1] {
                let mine = match self.net.end(conn, side) {
                    End::HostClient(owner) => owner == host,
                    End::HostLink(owner, _, _) => owner == host,
                    _ => false,
                };
                if mine && loud {
                    self.reset(conn, side);
                } else if mine && self.net.state(conn) == State::Asked {
                    self.net.forget(conn);
                }
            }
        }
    }

    /// A machine is gone: of what its kernel had not sent yet, nothing goes out any more.
    pub fn net_loses_what(&mut self, host: usize) {
        for conn in self.net.alive() {
            for side in [0, 1] {
                if matches!(self.net.end(conn, side), End::HostClient(owner) | End::HostLink(owner, _, _) if owner == host)
                {
                    self.net.lose_unsent(conn, side, &mut self.rng);
                }
            }
        }
    }

    pub fn start_proxy(&mut self, host: usize) {
        self.log(|| format!("proxy {host} starts"));
        self.hosts[host] = Host::new(&self.list(), host, self.now);
        self.at(self.now, Event::Turn(host));
    }

    pub fn freeze_proxy(&mut self, host: usize, micros: u64) {
        self.log(|| format!("proxy {host} is stopped for {micros} us"));
        self.hosts[host].frozen_until = self.now + micros;
    }
}
