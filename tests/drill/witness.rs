//! Who holds the address, seen from within each node, and for how long both did.

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::network::inside;
use super::Outcome;

/// How often each node is looked at; so exact is what is said of the time.
const EVERY: Duration = Duration::from_millis(2);

/// Looks whether one node has the address.
pub struct Witness {
    here: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    history: Arc<Mutex<Vec<(Instant, bool)>>>,
}

impl Witness {
    /// Begins to look at `host`.
    pub fn start(host: &str, address: Ipv4Addr) -> Outcome<Witness> {
        let here = Arc::new(AtomicBool::new(false));
        let stop = Arc::new(AtomicBool::new(false));
        let history = Arc::new(Mutex::new(Vec::new()));
        let (flag, end, list) = (here.clone(), stop.clone(), history.clone());
        let thread = inside(host, move || {
            while !end.load(Ordering::Relaxed) {
                // Only an address of this host can be bound to.
                let has = UdpSocket::bind((address, 0)).is_ok();
                if flag.swap(has, Ordering::Relaxed) != has {
                    let mut list = list.lock().expect("no panic while locked");
                    list.push((Instant::now(), has));
                }
                std::thread::sleep(EVERY);
            }
        })?;
        Ok(Witness {
            here,
            stop,
            thread: Some(thread),
            history,
        })
    }

    /// Whether it has the address now.
    pub fn is_here(&self) -> bool {
        self.here.load(Ordering::Relaxed)
    }

    /// Stops looking: what the node had until now is over. The times between which it had the address.
    pub fn finish(mut self) -> Vec<(Instant, Instant)> {
        self.end();
        let history = self.history.lock().expect("no panic while locked");
        let mut spans = Vec::new();
        let mut since = None;
        for &(when, has) in history.iter() {
            match (since, has) {
                (None, true) => since = Some(when),
                (Some(begin), false) => {
                    spans.push((begin, when));
                    since = None;
                }
                _ => {}
            }
        }
        spans.extend(since.map(|begin| (begin, Instant::now())));
        spans
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Its panic has been printed where it happened.
            let _ = thread.join();
        }
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.end();
    }
}

/// How long both had it, from `since` on.
pub fn both(a: &[(Instant, Instant)], b: &[(Instant, Instant)], since: Instant) -> Duration {
    let pairs = a.iter().flat_map(|a| b.iter().map(move |b| (a, b)));
    pairs
        .map(|(a, b)| {
            let begin = a.0.max(b.0).max(since);
            a.1.min(b.1).saturating_duration_since(begin)
        })
        .sum()
}
