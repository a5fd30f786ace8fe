//! `--check` and `--watch`: a magent that serves nobody and asks one that does how it is, for keepalived and for people.
//!
//! ```text
//!   stats health, version --> the proxy answers from what it knows --> 0 healthy, 1 degraded, 2 not answering
//! ```
//!
//! Neither starts, stops or changes anything. A process of that kind has a name of its own, as `track_process` of
//! keepalived counts processes called `magent`, and a watcher must not stand in for the proxy that it watches.

mod answer;
mod judge;
mod once;
mod track;
mod watch;

use std::io::{self, Write};

use crate::config::{Check, Watch};
use crate::sys::notify::Notifier;
use crate::sys::{self, SystemError};

/// `--check`: asks once, says in one line how the proxy is, and returns the exit code.
pub fn run(check: &Check) -> u8 {
    sys::name_process("magent-check");
    let finding = once::ask(check);
    // A reader that went away is no reason to fail; the exit code tells it too.
    let _ = writeln!(io::stdout(), "{}: {finding}", check.target);
    finding.verdict.code()
}

/// `--watch`: asks until a signal ends it.
pub fn watch(watch: &Watch, notifier: Notifier) -> Result<(), SystemError> {
    sys::name_process("magent-watch");
    watch::run(watch, notifier)
}
