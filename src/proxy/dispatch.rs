//! Flow: a request meets the order on its key, and goes to the servers, or waits.

use super::ids::{ClientId, LinkId};
use super::op::{Class, Data, Op};
use super::order::bucket;
use super::route::Route;
use super::server::{InFlight, Link, Role};
use super::txn::TxnId;
use super::Proxy;
use crate::buf::Body;
use crate::proto::meta;
use crate::proto::request::Request;
use crate::proto::token::{next_token, Token};
use crate::proto::Verb;
use std::rc::Rc;

impl Proxy {
    /// Where the key of `op` lives. A key given in base64 lives where the plain one does.
    pub(super) fn route_of(&self, op: &Op<'_>) -> Route {
        let key = op.key.of(op.line);
        if op.meta.has(b'b') {
            if let Some(plain) = meta::decode_base64(key) {
                return self.routes.of(&plain);
            }
        }
        self.routes.of(key)
    }

    /// Sends `op` on its way, or puts it behind what it must not pass.
    pub(super) fn dispatch(&mut self, op: &Op<'_>) {
        if self.note_request() {
            self.take_charge();
        }
        // A list of keys that has to wait for one of them would have to wait in the queues of all: the barrier serves.
        let waits = self.barrier.is_raised() || (op.key_count > 1 && self.must_wait(op));
        if waits {
            self.counters.held += 1;
            let mut held = op.to_held(&mut self.memory);
            held.since = self.now;
            self.barrier.hold(held);
        } else {
            self.proceed(op);
        }
    }

    /// The same for one that is past the barrier, and, if it has several keys, need not wait for any.
    pub(super) fn proceed(&mut self, op: &Op<'_>) {
        if op.key_count == 1 && self.must_wait(op) {
            self.counters.held += 1;
            let mut held = op.to_held(&mut self.memory);
            held.since = self.now;
            self.order.hold(bucket(op.route.hash), held);
        } else {
            self.start(op);
        }
    }

    fn start(&mut self, op: &Op<'_>) {
        if !self.wants_version(op) {
            return self.start_as_it_is(op);
        }
        let mut line = std::mem::take(&mut self.versioned);
        line.clear();
        let versioned = self.with_version(op, &mut line);
        self.start_as_it_is(&versioned);
        self.versioned = line;
    }

    fn start_as_it_is(&mut self, op: &Op<'_>) {
        match op.class() {
            Class::Read if op.verb.is_retrieval() => self.retrieve(op),
            Class::Read => self.read_one(op),
            Class::Unconditional => self.write_all(op),
            Class::Conditional => self.write_deciding(op),
        }
    }

    /// Whether an operation on one of its keys is in the way of `op`.
    pub(super) fn must_wait(&self, op: &Op<'_>) -> bool {
        if !self.order.is_undecided() && !self.order.is_holding() {
            return false;
        }
        let to_all = op.class() == Class::Unconditional || op.verb.is_gat();
        if op.key_count == 1 {
            let bucket = bucket(op.route.hash);
            return self.order.is_queued(bucket) || self.is_blocked(op.route, to_all);
        }
        let mut at = op.key.start;
        while let Some(token) = next_token(&op.line[..op.keys_end], at) {
            let route = self.routes.of(token.of(op.line));
            if self.order.is_queued(bucket(route.hash)) || self.is_blocked(route, to_all) {
                return true;
            }
            at = token.end;
        }
        false
    }

    fn is_blocked(&self, route: Route, to_all: bool) -> bool {
        let settled = to_all || self.is_suspect(route);
        self.order.is_blocked(bucket(route.hash), settled)
    }

    /// Whether the acting primary of a key may lack it, or may change without a server's death.
    pub(super) fn is_suspect(&self, route: Route) -> bool {
        if !self.meta {
            let copies =
                (0..self.routes.ranks()).filter_map(|rank| self.routes.server(route, rank));
            return copies.into_iter().any(|server| self.servers[server].cold);
        }
        let acting = self.acting(route, 0);
        acting.is_some_and(|(_, server)| self.may_lack(server, route))
    }

    /// Begins an exclusive operation if `acting`, the key's server, may lack it: what comes later must not overtake a repair.
    pub(super) fn claim(&mut self, route: Route, acting: usize) -> bool {
        let suspect = if self.meta {
            self.may_lack(acting, route)
        } else {
            self.is_suspect(route)
        };
        if suspect {
            self.order.begin_exclusive(bucket(route.hash));
        }
        suspect
    }

    /// An exclusive operation is finished.
    pub(super) fn unclaim(&mut self, route: Route) {
        let bucket = bucket(route.hash);
        self.order.end_exclusive(bucket);
        self.release(bucket);
    }

    /// A transaction may be over.
    pub(super) fn close_txn(&mut self, id: TxnId) {
        if let Some(txn) = self.txns.close_if_done(id) {
            if txn.exclusive {
                self.unclaim(txn.route);
            }
        }
    }

    /// A conditional write on this bucket is decided: what waited for it may go.
    pub(super) fn decided(&mut self, bucket: usize) {
        if self.routes.ranks() > 1 {
            self.order.decided(bucket);
            self.unpark(bucket);
            self.release(bucket);
        }
    }

    /// Lets go what need not wait any more, from the front of the bucket's queue.
    fn release(&mut self, bucket: usize) {
        if !self.order.is_queued(bucket) {
            return;
        }
        let mut queue = self.order.take_queue(bucket);
        while let Some(front) = queue.pop_front() {
            let op = front.op();
            let to_all = op.class() == Class::Unconditional || op.verb.is_gat();
            if self.is_blocked(op.route, to_all) {
                queue.push_front(front);
                break;
            }
            self.note_long_wait(&op, front.since, "another request on the key");
            self.start(&op);
            front.release(&mut self.memory);
        }
        self.order.put_back(bucket, queue);
    }

    /// The first copy from rank `from` on that is up: its rank and server.
    pub(super) fn acting(&self, route: Route, from: usize) -> Option<(usize, usize)> {
        if self.routes.ejects() {
            return self.acting_place(route, from);
        }
        let up = |rank| {
            let server = self.routes.server(route, rank)?;
            self.servers[server].is_up().then_some((rank, server))
        };
        let mut ranks = from..self.routes.ranks();
        if self.meta {
            return ranks.find_map(up);
        }
        // What a cold server of the old kind lacks cannot be brought over first, so it does not act while another can.
        let warm =
            ranks.find_map(|rank| up(rank).filter(|&(_, server)| !self.servers[server].cold));
        let lost = from == 0 || up(from - 1).is_none();
        warm.or_else(|| (0..self.routes.ranks()).find_map(up).filter(|_| lost))
    }

    /// The connection to `server` that carries this key.
    pub(super) fn link_for(&self, server: usize, route: Route) -> LinkId {
        LinkId {
            server: server as u16,
            conn: self.servers[server].conn_of(route.hash) as u16,
        }
    }

    /// Queues a single-key request as the client sent it.
    pub(super) fn queue_op(&mut self, link_id: LinkId, op: &Op<'_>, role: Role, txn: TxnId) {
        let link = self.link_mut(link_id);
        let start = link.log.end();
        // An empty strip stands at 0: the whole line is behind it.
        link.log.write(&op.line[..op.strip.start]);
        link.log.write(&op.line[op.strip.end..]);
        link.log.write(b"\r\n");
        let body = write_data(link, op.data);
        self.put_in_flight(link_id, start, role, op.verb, Some(txn), op.key, body);
    }

    /// Queues a request whose bytes are at hand.
    pub(super) fn queue_bytes(
        &mut self,
        link_id: LinkId,
        bytes: &[u8],
        body: Option<&Body>,
        key: Token,
        (role, verb, txn): (Role, Verb, Option<TxnId>),
    ) {
        let link = self.link_mut(link_id);
        let start = link.log.end();
        link.log.write(bytes);
        if let Some(body) = body {
            link.log.write_body(body);
        }
        self.put_in_flight(link_id, start, role, verb, txn, key, body.map(Rc::clone));
    }

    #[allow(clippy::too_many_arguments)]
    pub(super) fn put_in_flight(
        &mut self,
        link_id: LinkId,
        start: u64,
        role: Role,
        verb: Verb,
        txn: Option<TxnId>,
        key: Token,
        body: Option<Body>,
    ) {
        let block = body.as_ref().map_or(0, |body| body.len());
        let mut cost = block as u32;
        if let Some(id) = txn {
            let txn = self.txns.at(id);
            txn.outstanding += 1;
            txn.waiting += 1;
            if role == Role::Read {
                if let Some(client) = self.clients.get(txn.client.index as usize) {
                    cost = client.expects(txn.keys);
                }
            }
        }
        let server = &mut self.servers[usize::from(link_id.server)];
        server.requests += 1;
        let link = &mut server.links[usize::from(link_id.conn)];
        cost = cost.saturating_add((link.log.end() - start) as u32);
        server.window.enter(cost);
        self.crowd.is_on |= server.window.is_full();
        link.send(
            InFlight {
                role,
                verb,
                txn,
                key_at: key.start as u16,
                key_len: (key.end - key.start) as u8,
                start,
                end: start,
                queued: self.now,
                sent: self.now,
                cost,
                body,
            },
            &mut self.memory,
        );
        if !link.dirty {
            link.dirty = true;
            self.dirty_links.push(link_id);
        }
    }

    /// Removes the key of a request that the proxy refused, on all copies, without telling anybody.
    pub(super) fn delete_unasked(&mut self, request: &Request<'_>) {
        let mut line = Vec::with_capacity(300);
        let verb = if request.meta.has(b'b') {
            line.extend_from_slice(b"md ");
            Verb::MetaDelete
        } else {
            line.extend_from_slice(b"delete ");
            Verb::Delete
        };
        let start = line.len();
        line.extend_from_slice(request.key.of(request.line));
        let key = Token {
            start,
            end: line.len(),
        };
        if verb == Verb::MetaDelete {
            line.extend_from_slice(b" b");
        }
        let nobody = ClientId {
            index: u32::MAX,
            generation: 0,
        };
        let delete = Request {
            verb,
            line: &line,
            key,
            strip: Token::default(),
            data_len: 0,
            ..*request
        };
        let mut op = Op::new(nobody, 0, &delete, Data::None);
        op.route = self.route_of(&op);
        self.dispatch(&op);
    }
}

fn write_data(link: &mut Link, data: Data<'_>) -> Option<Body> {
    match data {
        Data::None => None,
        Data::Inline(bytes) => {
            link.log.write(bytes);
            None
        }
        Data::Bare(bytes) => {
            link.log.write(bytes);
            link.log.write(b"\r\n");
            None
        }
        Data::Shared(body) => {
            link.log.write_body(body);
            Some(Rc::clone(body))
        }
    }
}
