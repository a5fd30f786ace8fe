//! What an operator asked for, parsed once into types that cannot be wrong.
//! The one place with defaults and limits; the outside world (names, users, files) is not touched here.

pub mod addr;
pub mod args;
mod asking;
mod options;
mod values;

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::time::Span;

pub use asking::{Check, Target, Watch};

/// A memcached server as named on the command line: `HOST[:PORT][:WEIGHT]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServerSpec {
    /// Host name, IPv4 address, or IPv6 address without brackets.
    pub host: String,
    /// TCP port, 1 to 65535; 11211 when not given.
    pub port: u16,
    /// How many shares of the keys it gets, 1 to 1000; 1 when not given. Always 1 for backups.
    pub weight: u32,
}

/// How many backups hold a copy of each key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Copies {
    /// Every backup (the default).
    All,
    /// At most this many, the hashed one first; 1 is magent 0.6's placement.
    AtMost(usize),
}

/// The longest [`Config::proxy_id`].
pub const PROXY_ID_MAX: usize = 64;

/// When a write is answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ack {
    /// When every copy that is up has answered (the default).
    All,
    /// When the acting primary has answered; the others follow.
    Primary,
}

/// What happens to a server that returns, before it serves again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rejoin {
    /// What it may hold stale is deleted, or all of it flushed (the default).
    Safe,
    /// Nothing: magent 0.6's way.
    AsIs,
}

/// When a key that a server misses is asked for at its other copies, and put back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReadRepair {
    /// While the server has not yet got back what its peers hold (the default).
    Auto,
    /// On every miss.
    Always,
    /// Never.
    Off,
}

/// The effective configuration of one proxy process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// `-u`: user name or numeric id to become.
    pub user: Option<String>,
    /// `-g`: group name or numeric id to become.
    pub group: Option<String>,
    /// `-p`: TCP port; 0 means no TCP listener.
    pub port: u16,
    /// `-l`: addresses or names to listen on; empty means all.
    pub listen: Vec<String>,
    /// `-f`: path of a Unix stream socket to listen on as well.
    pub socket: Option<PathBuf>,
    /// `-s`: primaries in placement order, at least one.
    pub servers: Vec<ServerSpec>,
    /// `-b`: backups in placement order.
    pub backups: Vec<ServerSpec>,
    /// `-n`: most client connections at once.
    pub max_conns: usize,
    /// `-i`: connections to each server, 1 to 64.
    pub server_conns: usize,
    /// `-k`: ketama placement instead of modula.
    pub ketama: bool,
    /// `-D`, or implied by `-v`: stay in the foreground.
    pub foreground: bool,
    /// `-v`: how often it was given; 1 logs state changes, 2 requests, 3 everything.
    pub verbose: u8,
    /// `--timeout`: to connect to a server, and for each of its answers.
    pub timeout: Span,
    /// `--copies`.
    pub copies: Copies,
    /// `--ack`.
    pub ack: Ack,
    /// `--journal-keys`: most keys remembered for each server that is away; 0: no journal, a server that missed
    /// writes is always flushed.
    pub journal_keys: usize,
    /// `--eject`: without backups, the keys of a primary that is away go to the others meanwhile.
    pub eject: bool,
    /// `--rejoin`.
    pub rejoin: Rejoin,
    /// `--read-repair`.
    pub read_repair: ReadRepair,
    /// `--resync-rate`: keys per second of the background copy; 0: none. With `--verify` keys per second that are
    /// compared; 0: no limit.
    pub resync_rate: u32,
    /// `--proxy-id`: 1 to [`PROXY_ID_MAX`] printable ASCII characters without blanks. Empty as parsed when it was not
    /// given; the start fills it in before the core sees it.
    pub proxy_id: String,
    /// `--verify`: compare all copies once instead of serving.
    pub verify: bool,
    /// `--check`: ask this proxy once how it is instead of serving.
    pub check: Option<Target>,
    /// `--watch`: ask this proxy for ever instead of serving.
    pub watch: Option<Target>,
    /// `--track-file`: where `--watch` writes.
    pub track_file: Option<PathBuf>,
    /// `--interval`: between two questions of `--watch`.
    pub interval: Span,
    /// `--admin`: where metrics and the page are served; `None`: nowhere.
    pub admin: Option<SocketAddr>,
    /// `--pidfile`.
    pub pidfile: Option<PathBuf>,
    /// `--log-file`; without it a daemon logs to syslog.
    pub log_file: Option<PathBuf>,
    /// `--max-item-size`: largest item in bytes, counted as memcached counts (`-I`): header, key and value.
    pub max_item_size: usize,
    /// `--memory-limit`: bytes that buffered requests and replies may take in total.
    pub memory_limit: usize,
    /// `--idle-timeout`: close clients that were silent that long; `None`: never.
    pub idle_timeout: Option<Span>,
    /// `--drain-ms`: how long SIGTERM lets requests in flight finish.
    pub drain: Span,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            user: None,
            group: None,
            port: 11211,
            listen: Vec::new(),
            socket: None,
            servers: Vec::new(),
            backups: Vec::new(),
            max_conns: 4096,
            server_conns: 1,
            ketama: false,
            foreground: false,
            verbose: 0,
            timeout: Span::from_millis(200),
            copies: Copies::All,
            ack: Ack::All,
            journal_keys: 1_000_000,
            eject: false,
            rejoin: Rejoin::Safe,
            read_repair: ReadRepair::Auto,
            resync_rate: 20_000,
            proxy_id: String::new(),
            verify: false,
            check: None,
            watch: None,
            track_file: None,
            interval: Span::from_millis(50),
            admin: None,
            pidfile: None,
            log_file: None,
            max_item_size: 1024 * 1024,
            memory_limit: 1 << 30,
            idle_timeout: None,
            drain: Span::from_millis(1000),
        }
    }
}
