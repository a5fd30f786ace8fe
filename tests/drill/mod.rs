//! The lab: two nodes that share an address, and clients, on one machine.
//!
//! Nodes and clients are network namespaces on a bridge that is in one too. Real keepalived with the files that
//! `keepalived/render` makes, real magent, its watcher and memcached run on both nodes. All of it hangs on one thread:
//! its mount namespace holds the network namespaces, and its end ends every process. Nothing of the host is touched.
//!
//! - [`connector`]: whether the kernel tells of dead processes. [`network`]: namespaces, cables; [`process`]: programs in them; [`witness`]: who holds the address.
//! - [`node`]: one node, how its parts are started, stopped and broken; [`guide`]: the same the guides' way.
//! - [`lab`]: all of it together; [`scenes`]: the drills.
//! - [`client`]: who writes and reads all the time; [`book`]: what it was promised, and what it read.
//!
//! # What differs from two real hosts
//!
//! One kernel runs both nodes, so nothing here sees a slow network, and a busy machine is busy for both nodes at once.
//! The kernel tells of the death of processes (`track_process`) only to who listens in the first network namespace.
//! So keepalived is started there and moves to its node's namespace by itself (`-s`). It hears of both nodes'
//! processes, therefore the proxies have different names: links named after node and lab to the one binary.
//! Where even that is refused (a container), keepalived runs without `track_process`, as it would there.

// `make drill` and tests/ha.rs each compile this and use their own part of it.
#![allow(dead_code)]

pub mod book;
pub mod client;
pub mod connector;
pub mod guide;
pub mod lab;
pub mod network;
pub mod node;
pub mod process;
pub mod scenes;
pub mod witness;

use std::time::{Duration, Instant};

/// What is missing, or went wrong with the lab itself, in words.
pub type Outcome<T> = Result<T, String>;

/// How long anything in the lab may take before the run is given up. Never a measure of speed.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `condition` holds.
pub fn wait_for(what: &str, mut condition: impl FnMut() -> bool) -> Outcome<()> {
    let begin = Instant::now();
    while !condition() {
        if begin.elapsed() > PATIENCE {
            return Err(format!("waited {PATIENCE:?} in vain until {what}"));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}
