//! The core: a plain struct that turns bytes and time into bytes and intentions.
//!
//! The edge (`net`, or the simulator) calls the inputs (`client_*`, `link_*`, `tick`), then drains
//! [`Proxy::poll_action`] and [`Proxy::poll_dirty`], and sleeps until [`Proxy::next_timeout`].
//! The core opens no socket and reads no clock.

use std::io;

use crate::config::Config;
use crate::time::Time;

/// A client connection. Indices are reused, a generation tells the old owner from the new.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ClientId {
    /// Small and dense: good as a table index, below `Config::max_conns`.
    pub index: u32,
    /// Grows with each reuse of the index.
    pub generation: u32,
}

/// One of the connections to one server.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct LinkId {
    /// The server: primaries in `-s` order, then backups in `-b` order.
    pub server: u16,
    /// Which of the server's connections, below `Config::server_conns`.
    pub conn: u16,
}

/// Either end of the proxy.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ConnId {
    /// A client's connection.
    Client(ClientId),
    /// A connection to a server.
    Link(LinkId),
}

/// What the core wants the edge to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Begin to connect; answered by `link_connected` or `link_closed`.
    Connect(LinkId),
    /// Abandon the connection with a reset (`SO_LINGER` 0); no `link_closed` is expected.
    CloseLink(LinkId),
    /// Close the client's connection in the ordinary way; no `client_closed` is expected.
    CloseClient(ClientId),
    /// A client that was held back may be read again.
    ReadClient(ClientId),
}

/// Why a connection to a server ended, or could not be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CloseReason {
    /// The connection was refused.
    Refused,
    /// The server closed or reset it.
    Disconnected,
    /// No route, no address, no descriptor: an error of the network or of this host.
    Unreachable,
}

/// Whether a connection took everything that was waiting.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WriteState {
    /// Nothing is left to write.
    Drained,
    /// The kernel takes no more now: call again when the socket is writable.
    Blocked,
}

/// What the edge knows of the process, for `stats`.
#[derive(Clone, Copy, Debug)]
pub struct ProcessFacts {
    /// Process id.
    pub pid: u32,
    /// Seconds since 1970 at `Time(0)`.
    pub unix_at_zero: u64,
    /// User and system CPU time so far, in microseconds.
    pub rusage: fn() -> (u64, u64),
}

/// The proxy core for one pool of servers.
pub struct Proxy {}

#[allow(unused_variables, missing_docs)]
impl Proxy {
    pub fn new(config: &Config, facts: ProcessFacts, now: Time) -> Proxy {
        Proxy {}
    }

    /// A client connected. `None`: over `-n`; say so to it and close.
    pub fn client_opened(&mut self, now: Time) -> Option<ClientId> {
        None
    }

    /// Bytes from a client. After this returns, `wants_read` tells whether to go on reading it.
    pub fn client_received(&mut self, id: ClientId, bytes: &[u8], now: Time) {}

    /// False while the client is held back (too much unsent or in flight): do not read it until `Action::ReadClient`.
    pub fn wants_read(&self, id: ClientId) -> bool {
        true
    }

    /// The client will send no more (end of file). What it asked for is still answered; `CloseClient` follows.
    pub fn client_finished(&mut self, id: ClientId, now: Time) {}

    /// The client's connection broke. The id is dead after this.
    pub fn client_closed(&mut self, id: ClientId, now: Time) {}

    pub fn link_connected(&mut self, id: LinkId, now: Time) {}
    pub fn link_closed(&mut self, id: LinkId, why: CloseReason, now: Time) {}
    pub fn link_received(&mut self, id: LinkId, bytes: &[u8], now: Time) {}

    /// Deadlines, probes, retries. Call when `next_timeout` has come, and at least once before sleeping.
    pub fn tick(&mut self, now: Time) {}

    /// The next thing to do. Drain after each batch of inputs.
    pub fn poll_action(&mut self) -> Option<Action> {
        None
    }

    /// The next connection that has bytes to write. Drain after the actions, calling `write_to` for each once.
    pub fn poll_dirty(&mut self) -> Option<ConnId> {
        None
    }

    /// Writes what waits for `id` until it is drained or the writer would block.
    pub fn write_to<W: io::Write>(
        &mut self,
        id: ConnId,
        writer: &mut W,
        now: Time,
    ) -> io::Result<WriteState> {
        Ok(WriteState::Drained)
    }

    /// When `tick` must be called next.
    pub fn next_timeout(&self) -> Option<Time> {
        None
    }

    /// True once every server has answered or failed at least once: time to accept clients.
    pub fn is_ready(&self) -> bool {
        true
    }

    /// Begin to end: clients are closed as soon as what they asked for is answered.
    pub fn begin_drain(&mut self, now: Time) {}

    /// True once no client is left.
    pub fn is_drained(&self) -> bool {
        true
    }
}
