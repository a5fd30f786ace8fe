//! One client: every command, several in a packet, quiet ones among them, and now and then it goes away without
//! waiting for the answers.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::check::generate::{key, Generator};
use super::check::profile::{Plan, Profile};
use super::check::reply::{self, Taken};
use super::check::request::{understand, Request, Verb};
use super::check::rng::Rng;
use super::check::world::EPOCH;
use super::check::{Event, Heard};
use crate::common::{reset, Client, PATIENCE};

/// Requests in one packet, at most.
const BATCH_MAX: u64 = 4;
/// Once in so many batches the client goes away.
const LEAVES: u64 = 150;
/// Longest pause between two batches, in microseconds.
const PAUSE_MAX: u64 = 8000;

/// What all clients ask and hear, in the order in which it happens.
pub struct Log {
    begin: Instant,
    /// Moments in time: as the generator names them, and as the servers' clocks have them.
    moments: [(String, String); 2],
    events: Mutex<Vec<(u64, Event)>>,
    /// The clients are to end.
    pub stop: AtomicBool,
    pub requests: AtomicU64,
    /// Answers that say that something was not done, or may not have been done.
    pub errors: AtomicU64,
}

impl Log {
    pub fn new() -> Log {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.expect("it is after 1970").as_secs();
        let moment = |later: u64| {
            let [ours, theirs] = [EPOCH as u64, now - AHEAD].map(|from| (from + later).to_string());
            (ours, theirs)
        };
        Log {
            begin: Instant::now(),
            moments: [moment(5000), moment(40 * 24 * 3600)],
            events: Mutex::default(),
            stop: AtomicBool::new(false),
            requests: AtomicU64::new(0),
            errors: AtomicU64::new(0),
        }
    }

    /// Microseconds on the check's clock.
    pub fn now(&self) -> u64 {
        AHEAD * 1_000_000 + self.begin.elapsed().as_micros() as u64
    }

    /// The time under the lock is the order.
    fn note(&self, events: impl IntoIterator<Item = Event>) {
        let mut all = self.events.lock().expect("no panic while locked");
        let now = self.now();
        all.extend(events.into_iter().map(|event| (now, event)));
    }

    /// The proxy's own errors, that is: the servers have room.
    fn count_error(&self, line: &[u8]) {
        if line.starts_with(b"SERVER_ERROR") {
            self.errors.fetch_add(1, Ordering::Relaxed);
            eprintln!("heard: {}", line.escape_ascii());
        }
    }

    /// What has happened since the last call.
    pub fn drain(&self) -> Vec<(u64, Event)> {
        std::mem::take(&mut *self.events.lock().expect("no panic while locked"))
    }
}

/// The check's clock is so many seconds after its epoch at the start.
const AHEAD: u64 = 100;

/// What the clients may do.
pub fn plan(keys: usize) -> Plan {
    Plan {
        keys,
        times: true,
        // Copies do not expire in the same moment.
        short_times: false,
        deadly_gats: false,
        twins: false,
        vivify: true,
        // `incr` takes the mark away when somebody else looks at the item at that moment.
        marks: false,
        pieces: false,
        profile: Profile,
        flushes: 1500,
    }
}

struct Sent {
    number: u64,
    request: Request,
    /// A quiet one that may be the one that failed.
    excused: bool,
}

pub struct Worker<'a> {
    client: usize,
    port: u16,
    connection: Client,
    generator: Generator,
    rng: Rng,
    keys: Vec<String>,
    log: &'a Log,
    number: u64,
}

impl Worker<'_> {
    pub fn new(client: usize, port: u16, seed: u64, keys: usize, log: &Log) -> Worker<'_> {
        let mut rng = Rng::new(seed.wrapping_mul(31).wrapping_add(client as u64));
        Worker {
            client,
            port,
            connection: Client::connect(port),
            // The high bits name the writer in each value.
            generator: Generator::new((client as u64) << 44 | rng.next() >> 20, &plan(keys)),
            rng,
            keys: (0..keys).map(|n| key(n, false, false)).collect(),
            log,
            number: 0,
        }
    }

    /// Asks, and waits for the answers. The error says what no server would have answered.
    pub fn batch(&mut self) -> Result<(), String> {
        let (mut bytes, mut ends) = (Vec::new(), Vec::new());
        for _ in 0..self.rng.range(1, BATCH_MAX) {
            self.generator.push(&mut bytes, &mut ends);
        }
        let mut sent = VecDeque::new();
        let mut asks = Vec::new();
        let mut wire = Vec::new();
        let mut from = 0;
        for end in ends {
            let piece = certain(&bytes[from..end]);
            from = end;
            self.number += 1;
            sent.push_back(Sent {
                number: self.number,
                request: understand(&piece, false),
                excused: false,
            });
            wire.extend_from_slice(&piece);
            asks.push(Event::Asks(self.client, self.number, piece));
        }
        // Nothing tells when a quiet one is done.
        wire.extend_from_slice(b"mn\r\n");
        sent.push_back(Sent {
            number: 0,
            request: understand(b"mn\r\n", false),
            excused: false,
        });
        self.log
            .requests
            .fetch_add(asks.len() as u64, Ordering::Relaxed);
        self.log.note(asks);
        self.send(&wire)?;
        if self.rng.one_in(LEAVES) {
            return self.leave(sent);
        }
        self.hear(sent)?;
        std::thread::sleep(Duration::from_micros(self.rng.below(PAUSE_MAX)));
        Ok(())
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), String> {
        let mut wire = bytes.to_vec();
        for (ours, theirs) in &self.log.moments {
            // Of the same length, as long as there are ten digits.
            for at in memchr::memmem::find_iter(bytes, ours.as_bytes()) {
                wire[at..at + ours.len()].copy_from_slice(theirs.as_bytes());
            }
        }
        let sent = self.connection.try_send(&wire);
        sent.map_err(|error| format!("client {}: send: {error}", self.client))
    }

    /// Goes away; what it asked may be done or not.
    fn leave(&mut self, sent: VecDeque<Sent>) -> Result<(), String> {
        if self.rng.one_in(2) {
            // Time for the proxy to have sent it on.
            std::thread::sleep(Duration::from_micros(self.rng.below(2000)));
        }
        let fresh = Client::try_connect(self.port);
        let fresh = fresh.map_err(|error| format!("the proxy is gone: {error}"))?;
        reset(std::mem::replace(&mut self.connection, fresh));
        let unknown = |sent: &Sent| Event::Hears(self.client, sent.number, None, Heard::Unknown);
        self.log.note(sent.iter().map(unknown));
        Ok(())
    }

    fn hear(&mut self, mut sent: VecDeque<Sent>) -> Result<(), String> {
        let wait = self.connection.stream().set_read_timeout(Some(PATIENCE));
        wait.map_err(|error| error.to_string())?;
        let (mut input, mut piece) = (Vec::new(), vec![0; 65536]);
        let mut at = 0;
        while let Some(front) = sent.front() {
            let rest = &input[at..];
            let taken = match rest {
                // What is silent is done when something behind it is answered.
                [] => Taken::Partial,
                _ => reply::take(&front.request, rest),
            };
            match taken {
                Taken::Partial => match self.connection.stream().read(&mut piece) {
                    Ok(count @ 1..) => input.extend_from_slice(&piece[..count]),
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    other => {
                        return Err(format!(
                            "client {}: no answer ({other:?}) to {:?}, after {}",
                            self.client,
                            front.request,
                            input.escape_ascii()
                        ))
                    }
                },
                Taken::Wrong(why) => {
                    return Err(format!(
                        "{why}, to {:?}: {}",
                        front.request,
                        rest.escape_ascii()
                    ));
                }
                Taken::Silent => {
                    let sent = sent.pop_front().expect("it is in front");
                    // A quiet meta command that says nothing had the nominal outcome.
                    let heard = match sent.request.verb {
                        _ if sent.excused => Heard::Either,
                        verb if verb.is_meta() => Heard::Reply(Vec::new()),
                        Verb::Cas => Heard::Either,
                        _ => Heard::Silent,
                    };
                    self.log
                        .note([Event::Hears(self.client, sent.number, None, heard)]);
                }
                Taken::SomebodysError(length) => {
                    self.log.count_error(&rest[..length]);
                    at += length;
                    // One of the quiet ones in front, nobody knows which.
                    let quiet = sent.iter_mut().take_while(|sent| sent.request.is_quiet());
                    quiet.for_each(|sent| sent.excused = true);
                }
                Taken::Whole(length) => {
                    let reply = rest[..length].to_vec();
                    at += length;
                    let sent = sent.pop_front().expect("it is in front");
                    self.take(&sent, reply)?;
                }
            }
        }
        if at < input.len() {
            return Err(format!(
                "an answer to nothing: {}",
                input[at..].escape_ascii()
            ));
        }
        Ok(())
    }

    fn take(&mut self, sent: &Sent, reply: Vec<u8>) -> Result<(), String> {
        let request = &sent.request;
        let client = self.client;
        if sent.excused {
            let event = Event::Hears(client, sent.number, None, Heard::Either);
            self.log.note([event]);
            return Ok(());
        }
        if request.verb.is_retrieval() && !reply::is_error(&reply) {
            let mut events = Vec::with_capacity(request.keys.len());
            let blocks = blocks(request, &reply);
            for (index, block) in blocks.iter().enumerate() {
                // A key that was asked for twice and found once: nobody can tell which of them missed.
                let twin = |other: usize| {
                    !blocks[other].is_empty() && request.keys[other] == request.keys[index]
                };
                let heard = if block.is_empty() && (0..blocks.len()).any(twin) {
                    Heard::Never
                } else {
                    Heard::Reply(block.to_vec())
                };
                self.remember_token(request, index, block);
                events.push(Event::Hears(client, sent.number, Some(index), heard));
            }
            self.log.note(events);
            return Ok(());
        }
        if request.verb == Verb::Mg {
            self.remember_token(request, 0, &reply);
        }
        let own = request.keys.is_empty() && request.verb != Verb::FlushAll;
        if own {
            let fits = match request.verb {
                Verb::Mn => reply == b"MN\r\n",
                Verb::Version => reply.starts_with(b"VERSION "),
                Verb::Verbosity => reply == b"OK\r\n",
                Verb::Bad(line) => reply == line,
                _ => true,
            };
            return fits
                .then_some(())
                .ok_or(format!("{request:?}: {}", reply.escape_ascii()));
        }
        let heard = if !reply.starts_with(b"SERVER_ERROR") {
            Heard::Reply(reply)
        } else {
            self.log.count_error(&reply);
            match &reply[..] {
                b"SERVER_ERROR no server for this key is up\r\n" => Heard::Refused,
                _ => Heard::Unknown,
            }
        };
        self.log
            .note([Event::Hears(client, sent.number, None, heard)]);
        Ok(())
    }

    fn remember_token(&mut self, request: &Request, index: usize, reply: &[u8]) {
        let token = super::check::token(request, reply);
        let name = request.keys.get(index).map(|key| &key[..]);
        let place = self
            .keys
            .iter()
            .position(|key| Some(key.as_bytes()) == name);
        if let (Some(token), Some(place)) = (token, place) {
            self.generator.tokens[place] = token;
        }
    }
}

/// The request without what memcached does in two ways. Where somebody else looks at an item at that moment, it makes a new
/// one for a number instead of changing it: without the blanks behind a number that got shorter, without the time to
/// live that `ma` was to set, and without the marks "stale" and "stored by a key in base64". So no number gets shorter,
/// also not by losing a zero in front.
fn certain(request: &[u8]) -> Vec<u8> {
    let verb = &request[..request.iter().position(|&byte| byte == b' ').unwrap_or(0)];
    let parsed = understand(request, false);
    if !parsed.verb.is_storage() && ![&b"decr"[..], b"ma", b"md"].contains(&verb) {
        return request.to_vec();
    }
    let newline = memchr::memchr(b'\n', request).expect("requests have lines");
    let (line, rest) = request.split_at(newline - 1);
    let text = String::from_utf8_lossy(line);
    let mut words: Vec<&str> = text.split(' ').collect();
    let key = String::from_utf8_lossy(&parsed.keys[0]);
    if verb == b"decr" {
        words[2] = "0";
    } else if parsed.verb.is_meta() {
        let (drops, fixed) = if verb == b"ms" { ("b", 3) } else { ("bTI", 2) };
        words[1] = &key;
        let mut at = 0;
        words.retain(|word| {
            at += 1;
            at <= fixed || !word.starts_with(|first| drops.contains(first))
        });
        if words.contains(&"MD") {
            words.retain(|word| !word.starts_with('D'));
            words.push("D0");
        }
        if words.contains(&"N0") && !words.contains(&"J7") {
            words.push("J7");
        }
    }
    let rest = if rest == b"\r\n0\r\n" {
        b"\r\n1\r\n"
    } else {
        rest
    };
    [words.join(" ").as_bytes(), rest].concat()
}

/// The block of each key that was asked for; empty: a miss.
fn blocks<'a>(request: &Request, reply: &'a [u8]) -> Vec<&'a [u8]> {
    let mut at = 0;
    let mut blocks = Vec::with_capacity(request.keys.len());
    for key in &request.keys {
        let rest = &reply[at..];
        let is_value = rest.starts_with(b"VALUE ");
        let hit = is_value.then(|| reply::block(rest)).flatten();
        let length = hit
            .filter(|(name, _)| *name == &key[..])
            .map_or(0, |(_, length)| length);
        blocks.push(&rest[..length]);
        at += length;
    }
    blocks
}
