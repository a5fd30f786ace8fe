//! Names of the things on both sides of the core, and what passes over its boundary.

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
    /// Which of the server's connections. Those below `Config::server_conns` carry requests; that number itself is the
    /// one that lists keys in the background, made when it is needed.
    pub conn: u16,
}

impl LinkId {
    /// Follows a server to its new index; `moves` has it by the old one, see `Proxy::take_moves`. False: that server is gone.
    pub fn follow(&mut self, moves: &[Option<u16>]) -> bool {
        match moves.get(usize::from(self.server)).copied().flatten() {
            Some(server) => {
                self.server = server;
                true
            }
            None => false,
        }
    }
}

/// Either end of the proxy.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ConnId {
    /// A client's connection.
    Client(ClientId),
    /// A connection to a server.
    Link(LinkId),
}

impl ConnId {
    /// See [`LinkId::follow`]. A client stays what it is.
    pub fn follow(&mut self, moves: &[Option<u16>]) -> bool {
        match self {
            ConnId::Client(_) => true,
            ConnId::Link(id) => id.follow(moves),
        }
    }
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

/// Why a connection to a server ended, could not be made, or was given up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CloseReason {
    /// The connection was refused.
    Refused,
    /// The server closed or reset it.
    Disconnected,
    /// No route, no address, no descriptor: an error of the network or of this host.
    Unreachable,
    /// Not connected within the time limit.
    ConnectTimeout,
    /// Silent for a whole time limit while an answer was due.
    Silent,
    /// It answered what memcached never would, or what nobody had asked.
    Nonsense,
}

impl CloseReason {
    /// All of them, in the order of their numbers.
    pub const ALL: [CloseReason; 6] = [
        CloseReason::Refused,
        CloseReason::Disconnected,
        CloseReason::Unreachable,
        CloseReason::ConnectTimeout,
        CloseReason::Silent,
        CloseReason::Nonsense,
    ];

    /// The word for logs and statistics.
    pub fn name(self) -> &'static str {
        match self {
            CloseReason::Refused => "refused",
            CloseReason::Disconnected => "disconnected",
            CloseReason::Unreachable => "unreachable",
            CloseReason::ConnectTimeout => "connect_timeout",
            CloseReason::Silent => "timeout",
            CloseReason::Nonsense => "nonsense",
        }
    }
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
    /// Microseconds since 1970 at `Time(0)`.
    pub unix_micros_at_zero: u64,
    /// User and system CPU time so far, in microseconds.
    pub rusage: fn() -> (u64, u64),
}

impl ProcessFacts {
    /// Microseconds since 1970.
    pub(super) fn unix_micros(&self, now: Time) -> u64 {
        self.unix_micros_at_zero + now.0
    }

    /// Seconds since 1970.
    pub(super) fn unix(&self, now: Time) -> u64 {
        self.unix_micros(now) / 1_000_000
    }
}
