//! `make bench-fair`: what 50 ordinary clients notice of three others that want everything.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::corpus::Corpus;
use crate::ground::{connect, Ground};
use crate::load::Load;
use crate::peers::{Kind, Peer, Servers};
use crate::report::median;
use crate::rows::Shape;

const CONTENDERS: &[Kind] = &[
    Kind::Magent,
    Kind::Nutcracker,
    Kind::MemcachedProxy,
    Kind::Direct,
];
const SERVERS: usize = 4;
const KEYS: usize = 10_000;
const LARGE: usize = 1_000_000;
/// Requests per second. First as fast as the replies come, as in w1; then at a fixed rate that leaves room on both CPUs, where
/// all that anybody notices is waiting for others.
const RATES: [usize; 2] = [0, 5_000];
const ROUND: Duration = Duration::from_secs(3);
const ROUNDS: usize = 5;

/// Those who want everything. Each runs in a thread of its own until told to stop.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Greedy {
    /// Gets of 10,000 keys, one after the other.
    ManyKeys,
    /// Values of 1 MB, one after the other.
    LargeValues,
    /// Asks and asks and never reads.
    NeverReads,
}

/// All contenders. False: something went wrong, and has been printed.
pub fn run(args: &[String]) -> Result<bool, String> {
    let ground = Ground::new(
        args,
        CONTENDERS,
        &[
            ("rounds", "pairs of measurements (5)", "N"),
            ("greedy", "only these: keys, large, mute", "NAME,NAME"),
            ("rate", "only at so many requests per second of the 50 in all; 0: one after the other on each connection", "N"),
        ],
    )?;
    let rounds = ground.number("rounds", ROUNDS)?;
    let only = ground.text("rate").is_some();
    let rates = match ground.number("rate", RATES[0])? {
        rate if only => vec![rate],
        _ => RATES.to_vec(),
    };
    let chosen = match ground.text("greedy") {
        None => Greedy::ALL.to_vec(),
        Some(list) => list
            .split(',')
            .map(|name| {
                let known = Greedy::ALL.into_iter().find(|greedy| greedy.name() == name);
                known.ok_or(format!("--greedy: there is no {name}"))
            })
            .collect::<Result<_, _>>()?,
    };
    println!("servers here: memcached, one process and one thread each\n");
    println!(
        "50 connections, 90/10 get/set, 100 B; beside them one client with gets of {KEYS} keys, one with values of 1 MB, one"
    );
    println!("that never reads. Medians of {rounds} rounds; latencies in us; x: with them to alone, paired by round.");
    let mut fine = true;
    for rate in rates {
        match rate {
            0 => println!("\none request after the other on each connection"),
            _ => println!("\n{rate} requests per second in all"),
        }
        fine &= compare(&ground, (rounds, rate as u32), &chosen);
    }
    Ok(fine)
}

/// All contenders at one rate. False: something went wrong, and has been printed.
fn compare(ground: &Ground, (rounds, rate): (usize, u32), chosen: &[Greedy]) -> bool {
    println!(
        "{:16} {:>8} {:>8} {:>8} {:>8} {:>6} {:>11} {:>10} {:>9}",
        "", "alone", "", "with", "", "", "", "10k gets", "1 MB"
    );
    println!(
        "{:16} {:>8} {:>8} {:>8} {:>8} {:>6} {:>11} {:>10} {:>9}",
        "peer", "p50", "p99", "p50", "p99", "x p99", "from-to", "per s", "per s"
    );
    let mut fine = true;
    for &kind in &ground.kinds {
        match measure(ground, kind, (rounds, rate), chosen) {
            Ok(line) => println!("{:16} {line}", kind.name()),
            Err(why) => {
                fine = false;
                println!("FAILED {}: {why}", kind.name());
            }
        }
    }
    fine
}

fn measure(
    ground: &Ground,
    kind: Kind,
    (rounds, rate): (usize, u32),
    chosen: &[Greedy],
) -> Result<String, String> {
    let corpus = Arc::new(Corpus::new(KEYS, 100));
    let mut place = ground.place();
    let servers = Servers::start(&mut place, SERVERS, &corpus, true)?;
    let peer = Peer::start(kind, &mut place, &servers, SERVERS)?;
    let shape = Shape {
        conns: 50,
        depth: 1,
        gets_percent: 90,
        keys_per_get: 1,
        keys: KEYS,
        size: 100,
        rate: (rate > 0).then_some(rate),
        binary: false,
    };
    let mut load = Load::connect(&peer.addresses, shape, Arc::clone(&corpus))?;
    load.preload()?;
    store_large(peer.addresses[0])?;
    load.run(ROUND / 2)?;
    let mut figures: [Vec<f64>; 7] = Default::default();
    for _ in 0..rounds {
        let at = |sample: &crate::replies::Sample, quantile: f64| {
            sample.latency.value_at_quantile(quantile) as f64 / 10.0
        };
        let (alone, _) = load.run(ROUND)?;
        let greedy = Company::start(peer.addresses[0], chosen)?;
        load.run(ROUND / 6)?;
        let before = greedy.done();
        let (with, took) = load.run(ROUND)?;
        let after = greedy.done();
        greedy.stop()?;
        let rate = |i: usize| (after[i] - before[i]) as f64 / took.as_secs_f64();
        let round = [
            at(&alone, 0.5),
            at(&alone, 0.99),
            at(&with, 0.5),
            at(&with, 0.99),
            at(&with, 0.99) / at(&alone, 0.99),
            rate(0),
            rate(1),
        ];
        for (all, one) in figures.iter_mut().zip(round) {
            all.push(one);
        }
        // What the greedy ones left in queues is worked off.
        load.run(ROUND / 6)?;
    }
    let of = |i: usize| median(&figures[i]);
    let least = figures[4].iter().copied().fold(f64::INFINITY, f64::min);
    let most = figures[4].iter().copied().fold(0.0, f64::max);
    Ok(format!(
        "{:>8.0} {:>8.0} {:>8.0} {:>8.0} {:>6.2} {:>11} {:>10.1} {:>9.0}",
        of(0),
        of(1),
        of(2),
        of(3),
        of(4),
        format!("{least:.2}-{most:.2}"),
        of(5),
        of(6)
    ))
}

/// The threads of the greedy clients.
struct Company {
    stop: Arc<AtomicBool>,
    done: [Arc<AtomicU64>; 3],
    threads: Vec<JoinHandle<Result<(), String>>>,
}

impl Company {
    fn start(to: SocketAddr, chosen: &[Greedy]) -> Result<Company, String> {
        let mut company = Company {
            stop: Arc::new(AtomicBool::new(false)),
            done: Default::default(),
            threads: Vec::new(),
        };
        for (greedy, done) in Greedy::ALL.into_iter().zip(company.done.clone()) {
            if !chosen.contains(&greedy) {
                continue;
            }
            let narrow = (greedy == Greedy::NeverReads).then_some(4096);
            let mut stream = connect(to, 0, narrow)?;
            stream
                .set_read_timeout(Some(Duration::from_millis(200)))
                .and_then(|()| stream.set_write_timeout(Some(Duration::from_millis(200))))
                .map_err(|e| format!("time limit: {e}"))?;
            let stop = Arc::clone(&company.stop);
            company.threads.push(std::thread::spawn(move || {
                yield_to_others()?;
                greedy.run(&mut stream, &stop, &done)
            }));
        }
        Ok(company)
    }

    fn done(&self) -> [u64; 3] {
        [0, 1, 2].map(|i| self.done[i].load(Ordering::Relaxed))
    }

    fn stop(self) -> Result<(), String> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().map_err(|_| "a greedy client panicked")??;
        }
        Ok(())
    }
}

/// They would have hosts of their own: here they must not take the CPU from those who are measured.
fn yield_to_others() -> Result<(), String> {
    let me = nix::unistd::gettid().to_string();
    let renice = std::process::Command::new("renice")
        .args(["-n", "19", "-p", &me])
        .output()
        .map_err(|e| format!("renice: {e}"))?;
    if renice.status.success() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&renice.stderr).into_owned())
    }
}

impl Greedy {
    const ALL: [Greedy; 3] = [Greedy::ManyKeys, Greedy::LargeValues, Greedy::NeverReads];

    /// As in `--greedy`.
    fn name(self) -> &'static str {
        match self {
            Greedy::ManyKeys => "keys",
            Greedy::LargeValues => "large",
            Greedy::NeverReads => "mute",
        }
    }

    fn request(self) -> Vec<u8> {
        match self {
            Greedy::LargeValues => b"get large\r\n".to_vec(),
            // Small and large ones in turn.
            Greedy::NeverReads => b"get bench:000001\r\nget large\r\n".repeat(20),
            Greedy::ManyKeys => {
                let corpus = Corpus::new(KEYS, 1);
                let mut line = b"get".to_vec();
                for key in 0..KEYS {
                    line.push(b' ');
                    line.extend_from_slice(corpus.key(key));
                }
                line.extend_from_slice(b"\r\n");
                line
            }
        }
    }

    fn run(
        self,
        stream: &mut TcpStream,
        stop: &AtomicBool,
        done: &AtomicU64,
    ) -> Result<(), String> {
        let request = self.request();
        let mut piece = vec![0; 64 * 1024];
        let mut tail = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let mut sent = 0;
            while sent < request.len() && !stop.load(Ordering::Relaxed) {
                match stream.write(&request[sent..]) {
                    Ok(count) => sent += count,
                    Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                    Err(e) => return Err(format!("a greedy client, writing: {e}")),
                }
            }
            tail.clear();
            while self != Greedy::NeverReads && !stop.load(Ordering::Relaxed) {
                match stream.read(&mut piece) {
                    Ok(0) => return Err("a greedy client was thrown out".to_string()),
                    Ok(count) => tail.extend_from_slice(&piece[count.saturating_sub(5)..count]),
                    Err(e) if e.kind() == ErrorKind::WouldBlock => continue,
                    Err(e) => return Err(format!("a greedy client, reading: {e}")),
                }
                let cut = tail.len().saturating_sub(5);
                tail.drain(..cut);
                if tail == b"END\r\n" {
                    done.fetch_add(1, Ordering::Relaxed);
                    break;
                }
            }
        }
        Ok(())
    }
}

fn store_large(to: SocketAddr) -> Result<(), String> {
    let mut stream = connect(to, 0, None)?;
    let request = [
        format!("set large 0 0 {LARGE}\r\n").as_bytes(),
        &vec![b'x'; LARGE],
        b"\r\n",
    ]
    .concat();
    stream
        .write_all(&request)
        .map_err(|e| format!("set large: {e}"))?;
    let mut reply = [0; 8];
    stream
        .read_exact(&mut reply)
        .map_err(|e| format!("set large: {e}"))?;
    if &reply == b"STORED\r\n" {
        Ok(())
    } else {
        Err(format!("set large: {}", reply.escape_ascii()))
    }
}
