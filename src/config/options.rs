//! The table of options: one row says how an option is written, what it means, what its default is
//! and how its value is checked. Parser and `-h` text are made from the same rows.
//!
//! The rows are in files by what they are about, as `-h` and the man page group them.

mod asking;
mod clients;
mod copies;
mod process;
mod servers;
mod telling;

use super::{Ack, Config, LogFormat, ReadRepair, Rejoin};

/// Most servers, primaries and backups together.
pub const SERVERS_MAX: usize = 1000;

/// Most client connections that can be asked for: what Linux allows as open files, and more.
pub const CONNS_MAX: u64 = 10_000_000;

/// The longest path of a Unix socket: what `sockaddr_un` holds besides its final NUL.
pub const SOCKET_PATH_MAX: usize = 107;

/// Most keys that a journal may hold: at some 100 bytes each, more memory than a host has.
pub(super) const JOURNAL_KEYS_MAX: u64 = 1_000_000_000;

/// The highest rate of the background copy: more than any server gives.
pub(super) const RESYNC_RATE_MAX: u64 = 100_000_000;

pub(super) const ACKS: &[(&str, Ack)] = &[("all", Ack::All), ("primary", Ack::Primary)];

pub(super) const REJOINS: &[(&str, Rejoin)] = &[("safe", Rejoin::Safe), ("as-is", Rejoin::AsIs)];

const LOG_FORMATS: &[(&str, LogFormat)] = &[("text", LogFormat::Text), ("json", LogFormat::Json)];

pub(super) const READ_REPAIRS: &[(&str, ReadRepair)] = &[
    ("auto", ReadRepair::Auto),
    ("always", ReadRepair::Always),
    ("off", ReadRepair::Off),
];

/// One option.
pub(super) struct Row {
    /// The letter, or empty.
    pub short: &'static str,
    /// The long name without its dashes.
    pub long: &'static str,
    /// How the value is called; empty for an option without value.
    pub value: &'static str,
    /// What it means.
    pub meaning: &'static str,
    /// Its default as `-h` prints it; empty: there is none.
    pub default: fn(&Config) -> String,
    /// Checks the value and takes it; the error says what is wrong and what is allowed.
    pub set: fn(&mut Config, &str) -> Result<(), String>,
}

/// Options that are about the same.
pub(super) struct Group {
    /// What they are about: a heading of `-h`.
    pub title: &'static str,
    /// The options.
    pub rows: &'static [Row],
}

/// All options, as `-h` groups them.
pub(super) const GROUPS: &[Group] = &[
    Group {
        title: "Servers and keys",
        rows: servers::ROWS,
    },
    Group {
        title: "Clients",
        rows: clients::ROWS,
    },
    Group {
        title: "Copies",
        rows: copies::ROWS,
    },
    Group {
        title: "Process",
        rows: process::ROWS,
    },
    Group {
        title: "Log and figures",
        rows: telling::ROWS,
    },
    Group {
        title: "Instead of serving",
        rows: asking::ROWS,
    },
];

/// Every option, in the order of `-h`.
pub(super) fn table() -> impl Iterator<Item = &'static Row> {
    GROUPS.iter().flat_map(|group| group.rows)
}
