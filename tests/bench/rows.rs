//! The rows of the table: which load, in front of how many servers, who takes part, and what is asked of us.

use crate::peers::Kind;

/// One load.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Client connections.
    pub conns: usize,
    /// Requests in flight on each.
    pub depth: usize,
    /// Of 100 requests, how many are gets.
    pub gets_percent: usize,
    /// Keys in each get.
    pub keys_per_get: usize,
    /// How many keys there are.
    pub keys: usize,
    /// Bytes of each value.
    pub size: usize,
    /// Requests per second in all; `None`: as fast as replies come.
    pub rate: Option<u32>,
    /// In frames of the binary protocol, gets of one key; so it is for [`Kind::MagentBinary`] in any case.
    pub binary: bool,
}

/// What a row measures.
#[derive(Clone, Debug)]
pub enum What {
    /// A load on each of the contenders in turn.
    Load(Shape),
    /// A server that returns empty is filled.
    Resync,
    /// What a server missed is remembered.
    Journal,
    /// Memory per idle connection.
    Idle {
        /// How many connections.
        conns: usize,
    },
}

/// One row of the table.
#[derive(Clone, Debug)]
pub struct Row {
    /// As in `--rows`.
    pub name: &'static str,
    /// In words.
    pub title: &'static str,
    /// What is measured.
    pub what: What,
    /// Primaries behind each proxy.
    pub servers: usize,
    /// Who is measured.
    pub contenders: &'static [Kind],
    /// Whom the ratios are to.
    pub reference: Kind,
    /// The ratio of CPU per request (of bytes per connection) to reach, at most.
    pub cpu_goal: Option<f64>,
    /// The ratio of requests per second to reach, at least.
    pub ops_goal: Option<f64>,
}

const USUAL: Shape = Shape {
    conns: 50,
    depth: 1,
    gets_percent: 90,
    keys_per_get: 1,
    keys: 10_000,
    size: 100,
    rate: None,
    binary: false,
};
const PROXIES: &[Kind] = &[Kind::Magent, Kind::Nutcracker, Kind::MemcachedProxy];
const PROXIES_AND_NONE: &[Kind] = &[
    Kind::Magent,
    Kind::Nutcracker,
    Kind::MemcachedProxy,
    Kind::Direct,
];
const MIRRORED: &[Kind] = &[Kind::MagentMirrored, Kind::MagentAckPrimary, Kind::Magent];
/// Of the proxies here only magent speaks the binary protocol: it is held against itself.
const BINARY: &[Kind] = &[Kind::MagentBinary, Kind::Magent];
const MIRRORED_BY_ALL: &[Kind] = &[
    Kind::MagentMirrored,
    Kind::MagentAckPrimary,
    Kind::Magent,
    Kind::MemcachedProxyMirrored,
];
const SCRAPED: &[Kind] = &[Kind::MagentScraped, Kind::Magent];
const READ: &[Kind] = &[Kind::MagentMirrored, Kind::Magent];

/// All rows, in the order of the table.
pub fn all() -> Vec<Row> {
    let row = |name, title, shape, cpu_goal| Row {
        name,
        title,
        what: What::Load(shape),
        servers: 4,
        contenders: PROXIES,
        reference: Kind::Nutcracker,
        cpu_goal,
        ops_goal: None,
    };
    vec![
        Row {
            contenders: PROXIES_AND_NONE,
            ops_goal: Some(1.15),
            ..row(
                "w1",
                "50 connections, depth 1, 90/10 get/set, 100 B",
                USUAL,
                Some(0.86),
            )
        },
        Row {
            contenders: PROXIES_AND_NONE,
            ops_goal: Some(2.2),
            ..row(
                "w2",
                "the same, depth 32",
                Shape { depth: 32, ..USUAL },
                Some(0.40),
            )
        },
        Row {
            contenders: BINARY,
            reference: Kind::Magent,
            ..row(
                "b1",
                "as w1, in the binary protocol (x: in the text protocol)",
                USUAL,
                Some(1.00),
            )
        },
        Row {
            contenders: BINARY,
            reference: Kind::Magent,
            ..row(
                "b2",
                "as w2, in the binary protocol (x: in the text protocol)",
                Shape { depth: 32, ..USUAL },
                Some(1.00),
            )
        },
        row(
            "w4",
            "20 connections, get of 50 keys over 4 servers",
            Shape {
                conns: 20,
                gets_percent: 100,
                keys_per_get: 50,
                ..USUAL
            },
            Some(0.75),
        ),
        row(
            "w5",
            "as w1, 10 kB values",
            Shape {
                size: 10_000,
                ..USUAL
            },
            Some(0.83),
        ),
        row(
            "w6",
            "as w1, 1 MB values, 16 connections",
            Shape {
                conns: 16,
                keys: 64,
                size: 1_000_000,
                ..USUAL
            },
            Some(0.90),
        ),
        row(
            "w7",
            "as w1, 1000 active connections",
            Shape {
                conns: 1000,
                ..USUAL
            },
            Some(0.62),
        ),
        Row {
            servers: 2,
            contenders: MIRRORED,
            reference: Kind::Magent,
            ..row(
                "w8",
                "sets on 2 primaries and 2 backups, depth 1 (x: unmirrored)",
                Shape {
                    gets_percent: 0,
                    ..USUAL
                },
                Some(1.25),
            )
        },
        Row {
            servers: 2,
            contenders: MIRRORED_BY_ALL,
            reference: Kind::MemcachedProxyMirrored,
            ..row(
                "w8p",
                "2 primaries and 2 backups, depth 32, 50/50 (x: memcached's proxy, mirroring)",
                Shape {
                    depth: 32,
                    gets_percent: 50,
                    ..USUAL
                },
                Some(0.60),
            )
        },
        Row {
            contenders: SCRAPED,
            reference: Kind::Magent,
            ..row(
                "w1s",
                "as w1, metrics fetched each second (x: not fetched)",
                USUAL,
                Some(1.01),
            )
        },
        Row {
            servers: 2,
            contenders: READ,
            reference: Kind::Magent,
            ..row(
                "w8r",
                "gets on 2 primaries and 2 backups, depth 1 (x: without backups)",
                Shape {
                    gets_percent: 100,
                    ..USUAL
                },
                None,
            )
        },
        Row {
            what: What::Resync,
            contenders: READ,
            ..row(
                "resync",
                "1,000,000 keys of 12 B and values of 10 B are brought to an empty primary",
                USUAL,
                None,
            )
        },
        Row {
            what: What::Journal,
            contenders: READ,
            ..row(
                "journal",
                "1,000,000 keys of 30 B are written while the backup is away",
                USUAL,
                None,
            )
        },
        row(
            "rate",
            "as w1, but at a fixed 15,000/s",
            Shape {
                rate: Some(15_000),
                ..USUAL
            },
            None,
        ),
        Row {
            what: What::Idle { conns: 5_000 },
            ..row("idle", "5000 connections after one get each", USUAL, None)
        },
    ]
}

/// The rows of `make bench-quick`.
pub const QUICK: &[&str] = &["w1", "w2", "idle"];
