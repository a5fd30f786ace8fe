//! The other half of `host`: bytes and intentions between a proxy and its connections.

use magent::proxy::{Action, ClientId, CloseReason, ConnId, LinkId, WriteState};
use magent::time::Time;

use super::host::{key_of, Link};
use super::net::{Conn, End, Side, Socket};
use super::world::{Event, World};

impl World {
    /// How much the kernel gives to one read: anything.
    fn read_size(&mut self) -> usize {
        if self.rng.one_in(4) {
            self.rng.range(1, 120) as usize
        } else {
            64 * 1024
        }
    }

    pub(super) fn read_accepted(&mut self, host: usize, conn: Conn, now: Time) {
        let mut bytes = std::mem::take(&mut self.scratch);
        while let Some(accepted) = self.hosts[host].clients.get(&conn) {
            let (id, finished) = (accepted.id, accepted.finished);
            if finished || !self.proxy(host).wants_read(id) {
                break;
            }
            bytes.clear();
            let limit = self.read_size();
            if self.net.read(conn, 1, limit, &mut bytes) == 0 {
                if self.net.is_eof(conn, 1) {
                    if let Some(accepted) = self.hosts[host].clients.get_mut(&conn) {
                        accepted.finished = true;
                    }
                    self.proxy(host).client_finished(id, now);
                }
                break;
            }
            self.proxy(host).client_received(id, &bytes, now);
            self.made_room(conn, 0);
        }
        self.scratch = bytes;
    }

    pub(super) fn read_link(&mut self, host: usize, id: LinkId, conn: Conn, now: Time) {
        let mut bytes = std::mem::take(&mut self.scratch);
        loop {
            bytes.clear();
            let limit = self.read_size();
            if self.net.read(conn, 0, limit, &mut bytes) == 0 {
                break;
            }
            self.sabotage.on_reply(&mut bytes);
            let count = bytes.len();
            self.proxy(host)
                .link_received_in(id, &mut bytes, count, now);
            self.made_room(conn, 1);
        }
        self.scratch = bytes;
        if self.net.is_eof(conn, 0) {
            self.hosts[host].links.remove(&key_of(id));
            if self.net.close(conn, 0) {
                self.send_off(conn, 0);
            }
            self.proxy(host)
                .link_closed(id, CloseReason::Disconnected, now);
        }
    }

    pub(super) fn settle(&mut self, host: usize, now: Time) {
        loop {
            let acted = self.act_all(host);
            let wrote = self.write_all(host, now);
            if !acted && !wrote {
                return;
            }
        }
    }

    fn act_all(&mut self, host: usize) -> bool {
        let mut acted = false;
        while let Some(action) = self.proxy(host).poll_action() {
            acted = true;
            match action {
                Action::Connect(id) => self.connect_link(host, id),
                Action::CloseLink(id) => {
                    if let Some(link) = self.hosts[host].links.remove(&key_of(id)) {
                        if self.sabotage.resets() {
                            self.reset(link.conn, 0);
                        } else if self.net.close(link.conn, 0) {
                            self.send_off(link.conn, 0);
                        }
                    }
                }
                Action::CloseClient(id) => self.close_accepted(host, id),
                Action::ReadClient(id) => self.hosts[host].again.push(id),
            }
        }
        self.follow_reload(host);
        acted
    }

    fn connect_link(&mut self, host: usize, id: LinkId) {
        if self.plan.hurry && usize::from(id.conn) == self.plan.config.server_conns {
            // A listing begins: the server that lacks keys is about to get them.
            self.hurry_all(12);
        }
        let from = End::HostLink(host, id.server, id.conn);
        let server = self.hosts[host].servers[usize::from(id.server)];
        let conn = self.net.ask(from, End::Server(server));
        self.hosts[host].links.insert(
            key_of(id),
            Link {
                conn,
                blocked: false,
            },
        );
        let delay = self.delay();
        self.after(delay, Event::Connect(conn));
    }

    fn close_accepted(&mut self, host: usize, id: ClientId) {
        let Some(conn) = self.hosts[host].client_conn(id) else {
            return;
        };
        self.drop_accepted(host, conn);
        if self.net.close(conn, 1) {
            self.send_off(conn, 1);
        }
    }

    fn write_all(&mut self, host: usize, now: Time) -> bool {
        let mut wrote = false;
        for id in std::mem::take(&mut self.hosts[host].writable) {
            wrote = true;
            self.write_one(host, id, now);
        }
        while let Some(id) = self.proxy(host).poll_dirty() {
            wrote = true;
            self.write_one(host, id, now);
        }
        wrote
    }

    fn write_one(&mut self, host: usize, id: ConnId, now: Time) {
        let Some((conn, side)) = self.unblocked(host, id) else {
            return;
        };
        let mut socket = Socket {
            net: &mut self.net,
            rng: &mut self.rng,
            conn,
            side,
            starts: false,
            broken: false,
        };
        let proxy = self.hosts[host]
            .proxy
            .as_mut()
            .expect("this turn's proxy runs");
        let result = proxy.write_to(id, &mut socket, now);
        if socket.starts {
            self.send_off(conn, side);
        }
        let blocked = matches!(result, Ok(WriteState::Blocked));
        match id {
            ConnId::Client(_) => {
                if let Some(accepted) = self.hosts[host].clients.get_mut(&conn) {
                    accepted.blocked = blocked;
                }
            }
            ConnId::Link(link_id) => {
                if let Some(link) = self.hosts[host].links.get_mut(&key_of(link_id)) {
                    link.blocked = blocked;
                }
            }
        }
        if blocked {
            self.blocked(conn, side);
        }
    }

    /// The connection of `id`, unless it waits for room.
    fn unblocked(&self, host: usize, id: ConnId) -> Option<(Conn, Side)> {
        let host = &self.hosts[host];
        match id {
            ConnId::Client(id) => {
                let accepted = host.clients.get(&host.client_conn(id)?)?;
                (!accepted.blocked).then_some((accepted.conn, 1))
            }
            ConnId::Link(id) => {
                let link = host.links.get(&key_of(id))?;
                (!link.blocked).then_some((link.conn, 0))
            }
        }
    }
}
