//! Rows about servers that go and come back: how fast an empty one is filled, what clients notice of it, and what it
//! costs to remember what a server missed. With real servers, as their own work is part of it.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::corpus::Corpus;
use crate::load::{Load, SILENCE};
use crate::measure::Outcome;
use crate::options::Options;
use crate::peers::{Peer, Place, Servers};
use crate::rows::Shape;

/// How many keys there are.
const KEYS: usize = 1_000_000;
/// Faster than anything goes.
const FULL_RATE: &str = "--resync-rate 10000000";
/// What clients ask for meanwhile; so little that latency tells of hindrance and not of queues.
const CLIENTS: Shape = Shape {
    conns: 20,
    depth: 1,
    gets_percent: 90,
    keys_per_get: 1,
    keys: KEYS,
    size: 10,
    rate: Some(2_000),
    binary: false,
};
/// For all of it to be brought over.
const PATIENCE: Duration = Duration::from_secs(300);

/// A connection that asks for statistics.
struct Asker(BufReader<TcpStream>);

impl Asker {
    fn connect(to: SocketAddr) -> Result<Asker, String> {
        let stream = TcpStream::connect(to).map_err(|e| format!("connect {to}: {e}"))?;
        let limit = stream.set_read_timeout(Some(SILENCE));
        limit.map_err(|e| format!("{to}: {e}"))?;
        Ok(Asker(BufReader::new(stream)))
    }

    /// Sends bytes; each reply is for another call.
    fn send(&mut self, bytes: &[u8]) -> Result<(), String> {
        let sent = self.0.get_mut().write_all(bytes);
        sent.map_err(|e| format!("send: {e}"))
    }

    fn line(&mut self) -> Result<String, String> {
        let mut line = String::new();
        let read = self.0.read_line(&mut line);
        read.map_err(|e| format!("no reply: {e}"))?;
        Ok(line.trim_end().to_string())
    }

    /// The statistics as they come.
    fn stats(&mut self, which: &str) -> Result<Vec<String>, String> {
        self.send(format!("stats {which}").trim_end().as_bytes())?;
        self.send(b"\r\n")?;
        let mut lines = Vec::new();
        loop {
            match self.line()? {
                line if line.starts_with("STAT ") => lines.push(line),
                line if line == "END" => return Ok(lines),
                line => return Err(format!("stats {which}: {line:?}")),
            }
        }
    }

    fn number(&mut self, which: &str, name: &str) -> Result<Option<u64>, String> {
        let head = format!("STAT {name} ");
        let lines = self.stats(which)?;
        let text = lines.iter().find_map(|line| line.strip_prefix(&head));
        Ok(text.and_then(|text| text.parse().ok()))
    }

    /// Waits for it, and keeps the proxy at work with a request for a key now and then.
    fn wait(
        &mut self,
        what: &str,
        mut done: impl FnMut(&mut Asker) -> Result<bool, String>,
    ) -> Result<(), String> {
        let end = Instant::now() + PATIENCE;
        while !done(self)? {
            if Instant::now() > end {
                return Err(format!("not in {} s: {what}", PATIENCE.as_secs()));
            }
            self.send(b"get nothing\r\n")?;
            self.line()?;
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    fn wait_warm(&mut self) -> Result<(), String> {
        self.wait("all servers are warm", |asker| {
            let lines = asker.stats("servers")?;
            let mut states = lines.iter().filter(|line| line.contains(":state "));
            let warm = states.all(|line| line.ends_with(":state up"));
            Ok(warm && asker.stats("resync")? == ["STAT resync none"])
        })
    }

    fn wait_filling(&mut self) -> Result<(), String> {
        self.wait("a server is being filled", |asker| {
            Ok(asker
                .number("resync", "keys_done")?
                .is_some_and(|done| done > 0))
        })
    }
}

/// A server returns empty: at full rate with nobody asking, and at the default rate beside clients.
pub fn resync(place: &mut Place, options: &Options, outcome: &mut Outcome) -> Result<(), String> {
    let corpus = Arc::new(Corpus::new(KEYS, CLIENTS.size));
    let mut servers = Servers::start(place, 2, &corpus, true)?;
    let peer = Peer::magent(place, &servers, FULL_RATE)?;
    outcome
        .lines
        .extend(peer.child.iter().map(|child| child.line.clone()));
    Load::connect(&peer.addresses, CLIENTS, Arc::clone(&corpus))?.preload()?;
    let mut asker = Asker::connect(peer.addresses[0])?;
    asker.wait_warm()?;
    let mut rates = Vec::new();
    for _ in 0..options.rounds.min(5) {
        let before = cpu_ns(&peer)?;
        servers.restart(place, 0)?;
        asker.wait_filling()?;
        let (began, first) = (Instant::now(), asker.number("resync", "keys_done")?);
        asker.wait("the server is filled", |asker| {
            Ok(asker.number("resync", "keys_done")?.is_none())
        })?;
        let count = (KEYS as u64).saturating_sub(first.unwrap_or(0));
        let rate = count as f64 / began.elapsed().as_secs_f64();
        let cpu = (cpu_ns(&peer)? - before) as f64 / 1e3 / KEYS as f64;
        rates.push((rate, cpu));
        asker.wait_warm()?;
        // All of them, and the stamp.
        let there = Asker::connect(servers.address(0))?.number("", "curr_items")?;
        if there.is_none_or(|there| there < KEYS as u64) {
            return Err(format!("{there:?} keys are there"));
        }
        eprint!(".");
    }
    rates.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (rate, cpu) = rates[rates.len() / 2];
    outcome.notes.push(format!(
        "full rate: {rate:.0} keys/s ({:.0} to {:.0} in {} rounds), {cpu:.2} us of CPU per key; goal >100000",
        rates[0].0,
        rates[rates.len() - 1].0,
        rates.len()
    ));
    drop(peer);
    beside_clients(place, options, &mut servers, &corpus, outcome)
}

fn beside_clients(
    place: &mut Place,
    options: &Options,
    servers: &mut Servers,
    corpus: &Arc<Corpus>,
    outcome: &mut Outcome,
) -> Result<(), String> {
    let peer = Peer::magent(place, servers, "")?;
    let mut load = Load::connect(&peer.addresses, CLIENTS, Arc::clone(corpus))?;
    let mut asker = Asker::connect(peer.addresses[0])?;
    asker.wait_warm()?;
    let mut run = |long| -> Result<[f64; 2], String> {
        let (sample, _) = load.run(long)?;
        let at = |quantile| sample.latency.value_at_quantile(quantile) as f64 / 10.0;
        Ok([at(0.5), at(0.99)])
    };
    let (mut quiet, mut busy) = (Vec::new(), Vec::new());
    for _ in 0..options.rounds.min(3) {
        run(options.round / 4)?;
        // As long as one, as short ones by turns.
        for _ in 0..4 {
            quiet.push(run(options.round)?);
        }
        servers.restart(place, 0)?;
        asker.wait_filling()?;
        for _ in 0..4 {
            busy.push(run(options.round)?);
            if asker.number("resync", "keys_done")?.is_none() {
                return Err("it was filled before the clients had asked".to_string());
            }
        }
        // Not waited for: another return while it is being filled begins anew.
        eprint!(".");
    }
    let middle = |rounds: &[[f64; 2]], which: usize| {
        let mut all: Vec<f64> = rounds.iter().map(|round| round[which]).collect();
        all.sort_by(f64::total_cmp);
        (all[all.len() / 2], all[0], all[all.len() - 1])
    };
    for (name, which) in [("p50", 0), ("p99", 1)] {
        let (one, other) = (middle(&quiet, which), middle(&busy, which));
        outcome.notes.push(format!(
            "default rate, {} requests/s beside it: {name} {:.0} us ({:.0} to {:.0}), quiet {:.0} us ({:.0} to {:.0}), x {:.2}{}",
            CLIENTS.rate.unwrap_or(0),
            other.0,
            other.1,
            other.2,
            one.0,
            one.1,
            one.2,
            other.0 / one.0,
            if which == 1 { "; goal <2" } else { "" }
        ));
    }
    Ok(())
}

/// Keys of 30 bytes are written while the backup is away.
pub fn journal(place: &mut Place, options: &Options, outcome: &mut Outcome) -> Result<(), String> {
    let corpus = Corpus::new(1, 10);
    let mut figures = Vec::new();
    for _ in 0..options.rounds.min(3) {
        let mut servers = Servers::start(place, 2, &corpus, true)?;
        let peer = Peer::magent(place, &servers, "")?;
        let child = peer.child.as_ref().ok_or("there is no proxy to measure")?;
        let mut asker = Asker::connect(peer.addresses[0])?;
        asker.wait_warm()?;
        // What it needs once for such a load is there before.
        write(&mut asker)?;
        servers.children.remove(1);
        asker.wait("the backup is down", |asker| {
            let lines = asker.stats("servers")?;
            Ok(lines.iter().any(|line| line.ends_with(":state down")))
        })?;
        let before = child.rss()?;
        write(&mut asker)?;
        let lines = asker.stats("replication")?;
        let noted = lines
            .iter()
            .filter_map(|line| line.split_once(":journal_keys "));
        let noted: u64 = noted.filter_map(|(_, text)| text.parse::<u64>().ok()).sum();
        if noted != KEYS as u64 {
            return Err(format!("{noted} keys were noted, not {KEYS}"));
        }
        figures.push(child.rss()?.saturating_sub(before) as f64 / KEYS as f64);
        eprint!(".");
    }
    figures.sort_by(f64::total_cmp);
    outcome.notes.push(format!(
        "{:.0} bytes per remembered key ({:.0} to {:.0} in {} rounds, resident memory); goal <100",
        figures[figures.len() / 2],
        figures[0],
        figures[figures.len() - 1],
        figures.len()
    ));
    Ok(())
}

/// All keys once, so many at a time.
fn write(asker: &mut Asker) -> Result<(), String> {
    const BATCH: usize = 500;
    for first in (0..KEYS).step_by(BATCH) {
        let mut bytes = Vec::with_capacity(BATCH * 50);
        for n in first..first + BATCH {
            let set = format!("set bench:journal:key:{n:012} 0 0 1\r\nx\r\n");
            bytes.extend_from_slice(set.as_bytes());
        }
        asker.send(&bytes)?;
        for _ in 0..BATCH {
            match asker.line()?.as_str() {
                "STORED" => {}
                line => return Err(format!("set: {line:?}")),
            }
        }
    }
    Ok(())
}

fn cpu_ns(peer: &Peer) -> Result<u64, String> {
    let child = peer.child.as_ref().ok_or("there is no proxy to measure")?;
    child.cpu_ns()
}
