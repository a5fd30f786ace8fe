//! What an operator asked for, parsed once into types that cannot be wrong.
//! The one place with defaults and limits; the outside world (names, users, files) is not touched here.

pub mod addr;
pub mod args;
mod asking;
pub mod file;
mod friends;
pub mod help;
mod nearest;
mod options;
mod values;

use std::path::PathBuf;

use crate::hash::KeyHash;
use crate::time::Span;

pub use asking::{AdminAt, Check, Target, Watch};

/// A memcached server, as `HOST[:PORT][:WEIGHT]` on the command line or `HOST:PORT:WEIGHT [NAME]` in a file.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ServerSpec {
    /// Host name, IPv4 address, IPv6 address without brackets, or the absolute path of a Unix socket.
    pub host: String,
    /// TCP port, 1 to 65535; 11211 when not given. 0 with a Unix socket.
    pub port: u16,
    /// How many shares of the keys it gets, 1 to 1000 (in a file a million); 1 when not given.
    pub weight: u32,
    /// The name that places its keys instead of its address, if the distribution goes by names.
    pub name: Option<String>,
}

impl ServerSpec {
    /// Where it is: `host:port`, or the path of its Unix socket.
    pub fn address(&self) -> String {
        match self.is_unix() {
            true => self.host.clone(),
            false => format!("{}:{}", self.host, self.port),
        }
    }

    /// Whether it is reached by a Unix socket.
    pub fn is_unix(&self) -> bool {
        self.host.starts_with('/')
    }

    /// What twemproxy calls it: its name, or where it is, without memcached's own port.
    pub fn twemproxy_name(&self) -> String {
        match &self.name {
            Some(name) => name.clone(),
            None if self.is_unix() => format!("{}:", self.host),
            None if self.port == addr::PORT_DEFAULT => self.host.clone(),
            None => self.address(),
        }
    }
}

/// The longest name of a server.
pub const SERVER_NAME_MAX: usize = 255;

/// How keys are spread over servers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Distribution {
    /// The hash modulo the servers in the order given: magent 0.6's (the default).
    #[default]
    Magent,
    /// magent's own ketama (`-k`).
    MagentKetama,
    /// twemproxy's ketama.
    Ketama,
    /// twemproxy's modula.
    Modula,
    /// Any server for each request.
    Random,
    /// Jump consistent hash over the servers in the order given.
    Jump,
    /// Weighted rendezvous by the servers' names.
    Rendezvous,
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

/// How lines of the log look.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogFormat {
    /// For people; events end in `name=value` words (the default).
    Text,
    /// One JSON object each.
    Json,
}

/// The effective configuration of one pool, and of the process as far as it is told on the command line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// The pool's name in its file; `None`: it is the command line's.
    pub pool: Option<String>,
    /// `-c`: the file that the pools are in.
    pub file: Option<PathBuf>,
    /// `-u`: user name or numeric id to become.
    pub user: Option<String>,
    /// `-g`: group name or numeric id to become.
    pub group: Option<String>,
    /// `-p`: TCP port; 0 means no TCP listener.
    pub port: u16,
    /// `-l`: addresses or names to listen on; empty means all.
    pub listen: Vec<String>,
    /// `listen` of a file: hosts with their ports to listen on, besides `port` and `listen`.
    pub listen_at: Vec<(String, u16)>,
    /// `-f`: path of a Unix stream socket to listen on as well.
    pub socket: Option<PathBuf>,
    /// Mode of its file.
    pub socket_mode: u32,
    /// Most connections that wait to be accepted.
    pub backlog: i32,
    /// Other processes may listen at the same addresses.
    pub reuseport: bool,
    /// `-s`: primaries in placement order, at least one.
    pub servers: Vec<ServerSpec>,
    /// `-b`: backups in placement order.
    pub backups: Vec<ServerSpec>,
    /// `-n`: most client connections at once.
    pub max_conns: usize,
    /// `-i`: connections to each server, 1 to 64.
    pub server_conns: usize,
    /// `-k`, or `distribution` of a file.
    pub distribution: Distribution,
    /// The hash of keys; the distributions that are magent's own have theirs and do not look at it.
    pub hash: KeyHash,
    /// Only what stands between these two bytes of a key places it, if they are there.
    pub hash_tag: Option<[u8; 2]>,
    /// `-D`, or implied by `-v` without `-d`: stay in the foreground.
    pub foreground: bool,
    /// `-d`: go to the background whatever else is said.
    pub daemon: bool,
    /// `-t`: only test the file.
    pub test: bool,
    /// `-v`: how often it was given; 1 logs state changes, 2 requests, 3 everything.
    pub verbose: u8,
    /// `--timeout`: to connect to a server, and for each of its answers.
    pub timeout: Span,
    /// Longest pause between two attempts to reach a server that is away.
    pub retry_max: Span,
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
    pub admin: Option<AdminAt>,
    /// `--admin-name`: names that it may be asked by, besides addresses, `localhost` and the name of this host.
    pub admin_names: Vec<String>,
    /// `--top`: show in the terminal how this endpoint of `--admin` is, instead of serving.
    pub top: Option<AdminAt>,
    /// `--pidfile`.
    pub pidfile: Option<PathBuf>,
    /// `--slow-ms`: requests that take so long are logged; `None`: none are.
    pub slow: Option<Span>,
    /// `--log-keys`: with their keys, not the hashes of these.
    pub log_keys: bool,
    /// `--log-format`.
    pub log_format: LogFormat,
    /// `--log-file`; without it a daemon logs to syslog.
    pub log_file: Option<PathBuf>,
    /// `--max-item-size`: largest item in bytes, counted as memcached counts (`-I`): header, key and value.
    pub max_item_size: usize,
    /// `--memory-limit`: bytes that buffered requests and replies may take in total.
    pub memory_limit: usize,
    /// `--idle-timeout`: close clients that were silent that long; `None`: never.
    pub idle_timeout: Option<Span>,
    /// `--takeover`: take the place of the magent that listens there.
    pub takeover: bool,
    /// `--handover`: how long keys that move with a reload are looked for at their old places; 0: not at all.
    pub handover: Span,
    /// `--drain-ms`: how long SIGTERM lets requests in flight finish.
    pub drain: Span,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            pool: None,
            file: None,
            user: None,
            group: None,
            port: 11211,
            listen: Vec::new(),
            listen_at: Vec::new(),
            socket: None,
            socket_mode: file::MODE_DEFAULT,
            backlog: 1024,
            reuseport: false,
            servers: Vec::new(),
            backups: Vec::new(),
            max_conns: 4096,
            server_conns: 1,
            distribution: Distribution::Magent,
            hash: KeyHash::Djb31,
            hash_tag: None,
            foreground: false,
            daemon: false,
            test: false,
            verbose: 0,
            timeout: Span::from_millis(200),
            retry_max: Span::from_millis(1000),
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
            admin_names: Vec::new(),
            top: None,
            slow: None,
            log_keys: false,
            log_format: LogFormat::Text,
            pidfile: None,
            log_file: None,
            max_item_size: 1024 * 1024,
            memory_limit: 1 << 30,
            idle_timeout: None,
            takeover: false,
            handover: Span(0),
            drain: Span::from_millis(1000),
        }
    }
}
