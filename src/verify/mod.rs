//! `--verify`: compares all copies of all keys over the wire, once, and says how many are equal, absent and different.
//!
//! ```text
//!   for each server: list its keys -> a batch of them -> ask all copies, pipelined -> judge
//!                                                        different ones once more, a moment later
//! ```
//!
//! Nothing is remembered of a key after it was judged, so a key has to be met once only: of the servers that hold it,
//! the one of lowest rank counts it. A tool of its own, with blocking sockets; it shares nothing with the proxy but
//! the placement.

mod ask;
mod compare;
mod dial;
mod listing;
mod report;

use std::collections::VecDeque;
use std::io::{self, Write};
use std::thread;
use std::time::Duration;

use self::ask::{Answer, Asker, Want};
use self::compare::{judge, Verdict};
use self::dial::name_of;
use self::listing::Listing;
use self::report::{Pace, Progress, Tally};
use crate::config::{Config, ServerSpec};
use crate::proxy::Routes;

/// Keys that begin so are the proxies' own marks: each server has its own.
const STAMP: &[u8] = b"magent:stamp:";

/// Most keys asked for at once.
const BATCH_KEYS: usize = 500;
/// Most bytes of requests sent before their answers are read. They fit into the buffers of any connection: a server
/// that waits until its answers are taken can still be sent all of them.
const BATCH_BYTES: usize = 16 * 1024;
/// Most different keys that wait for the second look.
const SUSPECTS_MAX: usize = 500;
/// Long enough for a write that was under way to reach all copies.
const SECOND_LOOK: Duration = Duration::from_millis(250);

/// What came of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// No copies differ.
    Same,
    /// Some do.
    Different,
    /// None that could be seen, but a server could not be read.
    Unreadable,
}

/// Compares all copies; the result goes to stdout, progress to stderr.
pub fn run(config: &Config) -> Outcome {
    let mut check = Check::new(config);
    for server in 0..check.askers.len() {
        check.server(server);
    }
    check.look_again();
    check.progress.end();
    let troubles = check.askers.iter().flat_map(Asker::trouble);
    let text = check.tally.text(troubles);
    // A reader that went away is no reason to fail; the exit code tells the rest.
    let _ = io::stdout().write_all(text.as_bytes());
    if check.tally.different > 0 {
        Outcome::Different
    } else if check.askers.iter().any(|asker| asker.trouble().is_some()) {
        Outcome::Unreadable
    } else {
        Outcome::Same
    }
}

struct Check {
    specs: Vec<ServerSpec>,
    /// Per server: the lowest index with the same address. A server given twice is one place, listed once.
    identity: Vec<usize>,
    routes: Routes,
    askers: Vec<Asker>,
    tally: Tally,
    /// Different at the first look.
    suspects: VecDeque<Vec<u8>>,
    pace: Pace,
    progress: Progress,
    batch_keys: usize,
}

impl Check {
    fn new(config: &Config) -> Check {
        let specs: Vec<ServerSpec> = config
            .servers
            .iter()
            .chain(&config.backups)
            .cloned()
            .collect();
        let same = |a: &ServerSpec, b: &ServerSpec| a.host == b.host && a.port == b.port;
        let identity: Vec<usize> = specs
            .iter()
            .enumerate()
            .map(|(own, spec)| {
                specs
                    .iter()
                    .position(|other| same(spec, other))
                    .unwrap_or(own)
            })
            .collect();
        let askers: Vec<Asker> = specs
            .iter()
            .enumerate()
            .map(|(index, spec)| {
                if identity[index] == index {
                    Asker::connect(spec, config.timeout)
                } else {
                    Asker::unused()
                }
            })
            .collect();
        let items = askers.iter().map(Asker::items).sum();
        let rate = config.resync_rate;
        Check {
            specs,
            identity,
            routes: Routes::new(config),
            askers,
            tally: Tally::default(),
            suspects: VecDeque::new(),
            pace: Pace::new(rate),
            progress: Progress::new(items),
            // A slow pace in small steps: whole seconds of nothing would look like a hang, also to the server.
            batch_keys: match rate {
                0 => BATCH_KEYS,
                rate => (rate as usize / 20).clamp(1, BATCH_KEYS),
            },
        }
    }

    /// Lists one server and checks each key that no server before it in the key's order answers for.
    fn server(&mut self, server: usize) {
        if !self.askers[server].is_readable() {
            return;
        }
        if let Err(why) = self.list(server) {
            self.askers[server].listing_failed(format!("listing of keys: {why}"));
        }
    }

    fn list(&mut self, server: usize) -> Result<(), String> {
        let spec = &self.specs[server];
        self.progress.at(name_of(spec));
        let spec = spec.clone();
        let mut listing = Listing::of(&spec);
        let mut batch = Batch::default();
        while let Some(key) = listing.next()? {
            if key.starts_with(STAMP) {
                continue;
            }
            batch.add(key);
            if batch.is_full(self.batch_keys) {
                self.take(server, std::mem::take(&mut batch));
            }
        }
        self.take(server, batch);
        Ok(())
    }

    /// Checks a batch of keys that `server` listed.
    fn take(&mut self, server: usize, batch: Batch) {
        let count = batch.keys.len();
        let keys = self.unclaimed(server, batch.keys);
        for (key, verdict) in self.compare(keys) {
            match verdict {
                Verdict::Different(_) => self.suspects.push_back(key),
                verdict => self.tally.count(&key, verdict),
            }
        }
        if self.suspects.len() >= SUSPECTS_MAX {
            self.look_again();
        }
        self.pace.pay(count);
        self.progress.tell(count, &self.tally);
    }

    /// Compares once more what was different: a write may have been passing.
    fn look_again(&mut self) {
        if self.suspects.is_empty() {
            return;
        }
        thread::sleep(SECOND_LOOK);
        let mut batch = Batch::default();
        while let Some(key) = self.suspects.pop_front() {
            batch.add(key);
            if self.suspects.is_empty() || batch.is_full(self.batch_keys) {
                let keys = std::mem::take(&mut batch).keys;
                let count = keys.len();
                for (key, verdict) in self.compare(keys) {
                    self.tally.count(&key, verdict);
                }
                self.pace.pay(count);
                self.progress.tell(0, &self.tally);
            }
        }
    }

    /// Of the keys that `server` listed those that it is the one to answer for: it holds a copy of them, and no
    /// server of lower rank that is listed itself does.
    fn unclaimed(&mut self, server: usize, keys: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
        let mut questions = Vec::new();
        let mut claimed = vec![false; keys.len()];
        for (index, key) in keys.iter().enumerate() {
            let copies = self.copies(key);
            let Some(rank) = copies.iter().position(|&copy| copy == server) else {
                self.tally.misplaced += 1;
                claimed[index] = true;
                continue;
            };
            if !ask::can_be_named(key) {
                claimed[index] = rank > 0;
                continue;
            }
            let before = copies.iter().take(rank).copied();
            questions.extend(
                before
                    .filter(|&s| self.askers[s].is_listed())
                    .map(|s| (index, s)),
            );
        }
        for (index, _, answer) in self.ask(&keys, &questions, Want::Presence) {
            claimed[index] |= !matches!(answer, Answer::Absent);
        }
        let mut claimed = claimed.into_iter();
        keys.into_iter()
            .filter(|_| claimed.next() == Some(false))
            .collect()
    }

    /// Reads all copies of the keys and judges them.
    fn compare(&mut self, keys: Vec<Vec<u8>>) -> Vec<(Vec<u8>, Verdict)> {
        let mut questions = Vec::new();
        for (index, key) in keys.iter().enumerate() {
            // One that no text command can name is left with no copies, and so not compared.
            if ask::can_be_named(key) {
                let copies = self.copies(key).into_iter();
                questions.extend(
                    copies
                        .filter(|&s| self.askers[s].is_readable())
                        .map(|s| (index, s)),
                );
            }
        }
        let mut found: Vec<Vec<(usize, Answer)>> = keys.iter().map(|_| Vec::new()).collect();
        for (index, server, answer) in self.ask(&keys, &questions, Want::Item) {
            found[index].push((server, answer));
        }
        let specs = &self.specs;
        let verdicts = found.iter().map(|copies| {
            let named = copies
                .iter()
                .map(|(s, answer)| (name_of(&specs[*s]), answer));
            judge(&named.collect::<Vec<_>>())
        });
        let verdicts: Vec<Verdict> = verdicts.collect();
        keys.into_iter().zip(verdicts).collect()
    }

    /// The servers that hold a key, in the order of their ranks, each once.
    fn copies(&self, key: &[u8]) -> Vec<usize> {
        let route = self.routes.of(key);
        let mut copies = Vec::with_capacity(self.routes.ranks());
        for rank in 0..self.routes.ranks() {
            if let Some(server) = self.routes.server(route, rank) {
                let server = self.identity[server];
                if !copies.contains(&server) {
                    copies.push(server);
                }
            }
        }
        copies
    }

    /// Asks all questions (which key, which server) before it reads the first answer: the servers work side by side.
    fn ask(
        &mut self,
        keys: &[Vec<u8>],
        questions: &[(usize, usize)],
        want: Want,
    ) -> Vec<(usize, usize, Answer)> {
        for (server, asker) in self.askers.iter_mut().enumerate() {
            let theirs = questions.iter().filter(|question| question.1 == server);
            asker.send(theirs.map(|&(index, _)| keys[index].as_slice()), want);
        }
        let mut answers = Vec::with_capacity(questions.len());
        for (server, asker) in self.askers.iter_mut().enumerate() {
            for &(index, _) in questions.iter().filter(|question| question.1 == server) {
                match asker.receive() {
                    Some(answer) => answers.push((index, server, answer)),
                    None => break,
                }
            }
        }
        answers
    }
}

/// Keys that are asked for together.
#[derive(Default)]
struct Batch {
    keys: Vec<Vec<u8>>,
    bytes: usize,
}

impl Batch {
    fn add(&mut self, key: Vec<u8>) {
        self.bytes += ask::request_size(&key);
        self.keys.push(key);
    }

    fn is_full(&self, keys_max: usize) -> bool {
        self.keys.len() >= keys_max || self.bytes + ask::REQUEST_MAX > BATCH_BYTES
    }
}
