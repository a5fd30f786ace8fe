//! One row: all contenders are started, and loaded in turn, A B A B, so that whatever the machine
//! does meanwhile hits all of them. Ratios are taken within a round.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use crate::corpus::Corpus;
use crate::load::{Load, SILENCE};
use crate::options::Options;
use crate::peers::{Kind, Peer, Place, Servers};
use crate::returns;
use crate::rows::{Row, Shape, What};

/// Loaded but not measured, before each round: it wakes the CPUs and fills the caches.
const LEAD_IN: Duration = Duration::from_millis(200);
/// Connections that are open before the idle ones are counted: what a proxy needs once is there then.
const IDLE_FIRST: usize = 100;

/// One measurement of one peer.
#[derive(Clone, Copy, Debug)]
pub struct Round {
    /// CPU of the proxy per request in us; bytes per connection in an idle row. None without a proxy.
    pub cost: Option<f64>,
    /// Requests per second.
    pub ops: f64,
    /// Share of its CPU that the proxy used.
    pub busy: Option<f64>,
    /// p50, p99 and p99.9 in us.
    pub latency: [f64; 3],
    /// Keys not found.
    pub misses: u64,
}

/// All measurements of one peer in a row.
pub struct Series {
    /// Who.
    pub kind: Kind,
    /// Its rounds; after a failure fewer than the others have.
    pub rounds: Vec<Round>,
}

/// What came out of a row.
pub struct Outcome {
    /// The row.
    pub row: Row,
    /// One series for each contender.
    pub series: Vec<Series>,
    /// The command lines used.
    pub lines: Vec<String>,
    /// What does not fit the table's columns.
    pub notes: Vec<String>,
    /// Wrong replies, crashes, hangs: each fails the run.
    pub failures: Vec<String>,
}

/// Measures a row.
pub fn measure(place: &mut Place, row: &Row, options: &Options) -> Outcome {
    let mut outcome = Outcome {
        row: row.clone(),
        series: Vec::new(),
        lines: Vec::new(),
        notes: Vec::new(),
        failures: Vec::new(),
    };
    let kinds: Vec<Kind> = row
        .contenders
        .iter()
        .copied()
        .filter(|&kind| options.peers.contains(&kind) && place.programs.has(kind))
        .collect();
    let result = match &row.what {
        What::Load(shape) => load_row(place, &kinds, shape, options, &mut outcome),
        What::Idle { conns } => idle_row(place, &kinds, *conns, options, &mut outcome),
        What::Resync => returns::resync(place, options, &mut outcome),
        What::Journal => returns::journal(place, options, &mut outcome),
    };
    if let Err(why) = result {
        outcome.failures.push(format!("{}: {why}", row.name));
    }
    outcome
}

struct Entry {
    peer: Peer,
    load: Load,
    alive: bool,
}

fn load_row(
    place: &mut Place,
    kinds: &[Kind],
    shape: &Shape,
    options: &Options,
    outcome: &mut Outcome,
) -> Result<(), String> {
    let corpus = Arc::new(Corpus::new(shape.keys, shape.size));
    let row = outcome.row.clone();
    let mirrors = [
        Kind::MagentMirrored,
        Kind::MagentAckPrimary,
        Kind::MemcachedProxyMirrored,
    ];
    let backups = if mirrors.iter().any(|kind| kinds.contains(kind)) {
        row.servers
    } else {
        0
    };
    let servers = Servers::start(place, row.servers + backups, &corpus, options.real)?;
    outcome
        .lines
        .extend(servers.children.iter().map(|child| child.line.clone()));
    let mut entries = Vec::new();
    for &kind in kinds {
        match enter(kind, place, &servers, row.servers, shape, &corpus) {
            Ok(entry) => {
                outcome
                    .lines
                    .extend(entry.peer.child.iter().map(|child| child.line.clone()));
                outcome.series.push(Series {
                    kind,
                    rounds: Vec::new(),
                });
                entries.push(entry);
            }
            Err(why) => outcome
                .failures
                .push(format!("{}, {}: {why}", row.name, kind.name())),
        }
    }
    for round in 0..=options.rounds {
        for (entry, series) in entries.iter_mut().zip(&mut outcome.series) {
            if !entry.alive {
                continue;
            }
            // Round 0 is for warming up: buffers grow, pages are touched.
            let long = if round == 0 {
                options.round / 2
            } else {
                options.round
            };
            match one_round(entry, long) {
                Ok(measured) if round > 0 => series.rounds.push(measured),
                Ok(_) => {}
                Err(why) => {
                    entry.alive = false;
                    let name = series.kind.name();
                    outcome
                        .failures
                        .push(format!("{}, {name}: {why}", row.name));
                }
            }
        }
        eprint!(".");
    }
    Ok(())
}

fn enter(
    kind: Kind,
    place: &mut Place,
    servers: &Servers,
    primaries: usize,
    shape: &Shape,
    corpus: &Arc<Corpus>,
) -> Result<Entry, String> {
    let peer = Peer::start(kind, place, servers, primaries)?;
    let shape = Shape {
        binary: shape.binary || kind == Kind::MagentBinary,
        ..shape.clone()
    };
    let mut load = Load::connect(&peer.addresses, shape, Arc::clone(corpus))?;
    load.preload()?;
    Ok(Entry {
        peer,
        load,
        alive: true,
    })
}

fn one_round(entry: &mut Entry, long: Duration) -> Result<Round, String> {
    entry.load.run(LEAD_IN)?;
    let before = cpu_ns(&entry.peer)?;
    let (sample, took) = entry.load.run(long)?;
    let used = match (before, cpu_ns(&entry.peer)?) {
        (Some(before), Some(after)) => Some(after.saturating_sub(before) as f64 / 1e3),
        _ => None,
    };
    let at = |quantile| sample.latency.value_at_quantile(quantile) as f64 / 10.0;
    Ok(Round {
        cost: used.map(|us| us / sample.ops.max(1) as f64),
        ops: sample.ops as f64 / took.as_secs_f64(),
        busy: used.map(|us| us / 1e6 / took.as_secs_f64()),
        latency: [at(0.5), at(0.99), at(0.999)],
        misses: sample.misses,
    })
}

fn cpu_ns(peer: &Peer) -> Result<Option<u64>, String> {
    peer.child.as_ref().map(|child| child.cpu_ns()).transpose()
}

/// Each round starts its proxies anew: memory that was given back once need not be asked for again.
fn idle_row(
    place: &mut Place,
    kinds: &[Kind],
    conns: usize,
    options: &Options,
    outcome: &mut Outcome,
) -> Result<(), String> {
    let corpus = Corpus::new(1, 100);
    let row = outcome.row.clone();
    let servers = Servers::start(place, row.servers, &corpus, false)?;
    outcome.series = kinds
        .iter()
        .map(|&kind| Series {
            kind,
            rounds: Vec::new(),
        })
        .collect();
    for round in 0..options.rounds.min(3) {
        for series in &mut outcome.series {
            let measured =
                Peer::start(series.kind, place, &servers, row.servers).and_then(|peer| {
                    if round == 0 {
                        outcome
                            .lines
                            .extend(peer.child.iter().map(|child| child.line.clone()));
                    }
                    bytes_per_connection(&peer, conns, &corpus)
                });
            match measured {
                Ok(bytes) => series.rounds.push(Round {
                    cost: Some(bytes),
                    ops: 0.0,
                    busy: None,
                    latency: [0.0; 3],
                    misses: 0,
                }),
                Err(why) => {
                    let name = series.kind.name();
                    outcome
                        .failures
                        .push(format!("{}, {name}: {why}", row.name));
                }
            }
        }
        eprint!(".");
    }
    Ok(())
}

fn bytes_per_connection(peer: &Peer, conns: usize, corpus: &Corpus) -> Result<f64, String> {
    let child = peer.child.as_ref().ok_or("there is no proxy to measure")?;
    let mut open = Vec::with_capacity(conns + IDLE_FIRST);
    let mut more = |count: usize| -> Result<(), String> {
        for _ in 0..count {
            let next = idle_connection(peer.addresses[0], corpus);
            open.push(next.map_err(|why| format!("{why}, after {} connections", open.len()))?);
        }
        Ok(())
    };
    more(IDLE_FIRST)?;
    let before = child.rss()?;
    more(conns)?;
    Ok(child.rss()?.saturating_sub(before) as f64 / conns as f64)
}

/// Opens a connection and waits for the reply to one get.
fn idle_connection(to: SocketAddr, corpus: &Corpus) -> Result<TcpStream, String> {
    let failed = |e: std::io::Error| match e.kind() {
        ErrorKind::WouldBlock => format!("no reply for {} s from {to}", SILENCE.as_secs()),
        _ => format!("idle connection to {to}: {e}"),
    };
    let mut stream = TcpStream::connect(to).map_err(failed)?;
    stream.set_read_timeout(Some(SILENCE)).map_err(failed)?;
    let key = corpus.key(0);
    stream
        .write_all(&[b"get ", key, b"\r\n"].concat())
        .map_err(failed)?;
    let expected = [
        b"VALUE ",
        key,
        corpus.header_end(),
        corpus.value(0),
        b"\r\nEND\r\n",
    ]
    .concat();
    let mut reply = Vec::new();
    let mut piece = [0; 512];
    // Up to the first difference: a shorter error must not be waited on as if it were half a value.
    while reply.len() < expected.len() {
        let n = stream.read(&mut piece).map_err(failed)?;
        reply.extend_from_slice(&piece[..n]);
        if n == 0 || !expected.starts_with(&reply) {
            return Err(format!(
                "wrong reply: {:?}",
                String::from_utf8_lossy(&reply)
            ));
        }
    }
    Ok(stream)
}
