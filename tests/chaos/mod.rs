//! Random commands from several clients while real servers are killed, restarted, stopped and continued one at a time:
//! every answer is checked with the simulator's history check, so nothing that was acknowledged may be missing, and
//! nothing old may be read. `MAGENT_CHAOS_SEED`, `MAGENT_CHAOS_SECONDS`.
//!
//! `worker` is a client, `check` judges; `proof` shows that the check finds what it looks for.

mod check;
mod proof;
mod worker;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::common::rng::Rng;
use crate::common::{wait_for, Client, Magent, Memcached, PATIENCE};
use check::History;
use worker::{Log, Worker};

const CLIENTS: usize = 4;
const KEYS: usize = 40;

/// Longer than a server that nobody has touched stands still on a busy machine.
const TIMEOUT: [&str; 2] = ["--timeout", "1000"];

/// A server that was killed must have been noticed, and one that was stopped has had this time to answer.
const NOTICED: Duration = Duration::from_millis(100);

fn from_env(name: &str, default: u64) -> u64 {
    let text = std::env::var(name).ok();
    text.map_or(default, |text| text.parse().expect("a number"))
}

/// What a run did.
#[derive(Default, Debug)]
struct Tally {
    faults: u64,
    /// Faults during which another server was lost too: a busy machine's doing.
    blind: u64,
    requests: u64,
    errors: u64,
    checked: u64,
    unchecked: u64,
    unknown: u64,
    compared: u64,
}

/// Servers of a run, the first ones primaries.
struct Layout {
    primaries: usize,
    backups: usize,
}

/// Stops the clients, also when something fails in the main thread: the scope would wait for them for ever.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Whether all servers serve and are filled, and how often each was lost.
fn look(client: &mut Client) -> (bool, BTreeMap<u16, u64>) {
    let reply = client.ask("stats servers");
    let mut lost = BTreeMap::new();
    let mut all_up = true;
    for line in reply.lines() {
        let Some((name, value)) = line
            .strip_prefix("STAT 127.0.0.1:")
            .and_then(|line| line.split_once(' '))
        else {
            continue;
        };
        let Some((port, name)) = name.split_once(':') else {
            continue;
        };
        let port: u16 = port.parse().expect("a port");
        if name == "state" {
            all_up &= value == "up";
        }
        if name.starts_with("lost_") {
            *lost.entry(port).or_default() += value.parse::<u64>().expect("a number");
        }
    }
    (
        all_up && client.ask("stats resync") == "STAT resync none\r\nEND",
        lost,
    )
}

/// One fault, until all servers serve and are filled again. True: another server was lost meanwhile. `told`: for people.
fn fault(
    servers: &mut [Memcached],
    random: &mut Rng,
    client: &mut Client,
    log: &Log,
    told: &mut Vec<String>,
) -> bool {
    let stop = &log.stop;
    let (_, before) = look(client);
    let chosen = random.below(servers.len());
    let server = &mut servers[chosen];
    let port = server.port();
    // A fault lasts, or is over at once: its length is part of the schedule, nothing is waited for.
    let away = Duration::from_millis([0, 30, 300, 1500, 2500][random.below(5)]);
    let killed = random.one_in(2);
    let what = if killed { "killed" } else { "stopped" };
    told.push(format!("{}: {port} is {what} for {away:?}", log.now()));
    if killed {
        server.kill();
        std::thread::sleep(away);
        server.restart();
    } else {
        server.freeze();
        std::thread::sleep(away);
        server.thaw();
    }
    let over = Instant::now();
    told.push(format!("{}: over", log.now()));
    let mut after = BTreeMap::new();
    wait_for("all servers are up and warm", PATIENCE, || {
        let (whole, lost) = look(client);
        let noticed = !killed || lost[&port] > before[&port];
        after = lost;
        (whole && noticed && over.elapsed() > NOTICED) || stop.load(Ordering::SeqCst)
    });
    after
        .iter()
        .any(|(other, lost)| *other != port && *lost > before[other])
}

/// Clients and faults for so long. The error says what was impossible.
fn run(layout: &Layout, options: &[&str], seed: u64, long: Duration) -> Result<Tally, String> {
    let count = layout.primaries + layout.backups;
    let mut servers: Vec<Memcached> = (0..count).map(|_| Memcached::start()).collect();
    let ports: Vec<u16> = servers.iter().map(Memcached::port).collect();
    let (primaries, backups) = ports.split_at(layout.primaries);
    let proxy = Magent::front(primaries, backups)
        .args(&TIMEOUT)
        .args(options)
        .start();
    let port = proxy.port();
    let log = Log::new();
    let mut told = Vec::new();
    let mut history = History::new(KEYS);
    let mut tally = Tally::default();
    let result = std::thread::scope(|scope| {
        let (log, stop) = (&log, &log.stop);
        let workers: Vec<_> = (0..CLIENTS)
            .map(|name| {
                scope.spawn(move || {
                    // If one is wrong the others need not go on.
                    let _end = StopOnDrop(stop);
                    let mut worker = Worker::new(name, port, seed, KEYS, log);
                    while !stop.load(Ordering::SeqCst) {
                        worker.batch()?;
                    }
                    Ok::<(), String>(())
                })
            })
            .collect();
        let end = StopOnDrop(stop);
        let mut client = Client::connect(port);
        let mut random = Rng(seed);
        let begin = Instant::now();
        // On a busy machine as long again, until enough has been done.
        let enough = || log.requests.load(Ordering::Relaxed) > 100 * long.as_secs();
        let lasts = || begin.elapsed() < long || (!enough() && begin.elapsed() < 5 * long);
        while lasts() && !stop.load(Ordering::SeqCst) {
            let blind = fault(&mut servers, &mut random, &mut client, log, &mut told);
            tally.faults += 1;
            tally.blind += u64::from(blind);
            history.take(log.drain(), blind)?;
        }
        drop(end);
        for worker in workers {
            worker.join().map_err(|_| "a client failed".to_string())??;
        }
        history.take(log.drain(), false)
    });
    result.map_err(|why| {
        let faults = told.join("\n  ");
        let said = proxy.process().stderr();
        let lines: Vec<&str> = said.lines().collect();
        let last = lines[lines.len().saturating_sub(50)..].join("\n  ");
        format!("{why}\n  faults:\n  {faults}\n  the proxy, at last:\n  {last}")
    })?;
    tally.requests = log.requests.load(Ordering::Relaxed);
    tally.errors = log.errors.load(Ordering::Relaxed);
    tally.checked = history.checked;
    tally.unchecked = history.unchecked;
    tally.unknown = history.unknown;
    tally.compared = history.compared;
    Ok(tally)
}

#[track_caller]
fn nothing_is_lost(layout: &Layout, name: &str) {
    let now = std::time::UNIX_EPOCH.elapsed().expect("after 1970");
    let seed = from_env("MAGENT_CHAOS_SEED", now.as_nanos() as u64);
    let seconds = from_env("MAGENT_CHAOS_SECONDS", 60);
    eprintln!("{name}: MAGENT_CHAOS_SEED={seed} MAGENT_CHAOS_SECONDS={seconds}");
    let tally = run(layout, &[], seed, Duration::from_secs(seconds));
    let tally = tally.unwrap_or_else(|why| panic!("{name}, seed {seed}: {why}"));
    eprintln!("{name}: {tally:?}");
    // It is no proof if little was done, or little of it was looked at.
    assert!(tally.requests > 100 * seconds, "{tally:?}");
    assert!(tally.faults >= seconds / 15, "{tally:?}");
    assert!(tally.unknown > 0 && tally.compared > 0, "{tally:?}");
    assert!(tally.checked > 4 * tally.unchecked, "{tally:?}");
}

#[test]
fn nothing_is_lost_or_stale_with_two_primaries_and_a_backup() {
    nothing_is_lost(
        &Layout {
            primaries: 2,
            backups: 1,
        },
        "2 + 1",
    );
}

#[test]
fn nothing_is_lost_or_stale_with_a_primary_and_two_backups() {
    nothing_is_lost(
        &Layout {
            primaries: 1,
            backups: 2,
        },
        "1 + 2",
    );
}
