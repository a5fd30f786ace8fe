//! `--watch`: asks one proxy again and again over one connection, and keeps the track file true.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use mio::net::{TcpStream, UnixStream};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

use super::answer::{Answer, Finding, Verdict, QUESTION};
use super::judge::Judge;
use super::once;
use super::track::TrackFile;
use crate::config::{Target, Watch};
use crate::net::Stream;
use crate::sys::log::Logs;
use crate::sys::notify::Notifier;
use crate::sys::signal::{Signal, Signals};
use crate::sys::{reason, SystemError};
use crate::time::{Span, Time};

const SIGNALS: Token = Token(0);
const PROXY: Token = Token(1);

/// How long a name may take to be looked up, once, at the start.
const RESOLVE: Duration = Duration::from_secs(5);

/// A connection without an answer for so many time limits is made anew: what it led to may be gone without a word. Not
/// sooner, or the queue of a proxy that only hangs would fill.
const RENEW: u64 = 10;

/// Asks until a signal ends it. The file keeps the last number.
pub fn run(watch: &Watch, notifier: Notifier) -> Result<(), SystemError> {
    let loops = |error: io::Error| SystemError::io("event loop", &error);
    let logs = Logs::open(
        watch.log_file.as_deref(),
        false,
        watch.verbose,
        watch.log_format,
        (None, None),
    )?;
    notifier.warn();
    let places = match &watch.target {
        Target::Unix(path) => Places::Unix(path.clone()),
        Target::Tcp(spec) => {
            let found = once::resolve(spec, Instant::now() + RESOLVE);
            let what = format!("--watch {}", watch.target);
            Places::Tcp(found.map_err(|error| SystemError::io(what, &error))?, 0)
        }
    };
    let poll = Poll::new().map_err(loops)?;
    let signals = Signals::new().map_err(loops)?;
    let descriptor = signals.as_raw_fd();
    let mut source = SourceFd(&descriptor);
    let registry = poll.registry();
    registry
        .register(&mut source, SIGNALS, Interest::READABLE)
        .map_err(loops)?;
    let watcher = Watcher {
        name: watch.target.to_string(),
        places,
        poll,
        signals,
        logs,
        line: None,
        next_question: Time(0),
        interval: watch.interval,
        limit: watch.timeout,
        judge: Judge::new(watch.timeout, Time(0)),
        file: TrackFile::at(&watch.track_file),
        path: watch.track_file.clone(),
        unwritten: None,
        write_failed: false,
        notifier,
        is_ready: false,
        started: Instant::now(),
    };
    watcher.run().map_err(loops)
}

/// Where the proxy is; with the index of the address that is tried next.
enum Places {
    Unix(PathBuf),
    Tcp(Vec<SocketAddr>, usize),
}

impl Places {
    fn connect(&self) -> io::Result<Stream> {
        match self {
            Places::Unix(path) => UnixStream::connect(path).map(Stream::Unix),
            Places::Tcp(addresses, index) => match addresses.get(index % addresses.len().max(1)) {
                Some(&address) => TcpStream::connect(address).map(Stream::Tcp),
                None => Err(ErrorKind::AddrNotAvailable.into()),
            },
        }
    }

    fn next(&mut self) {
        if let Places::Tcp(_, index) = self {
            *index = index.wrapping_add(1);
        }
    }
}

/// The connection.
struct Line {
    stream: Stream,
    connected: bool,
    /// The answer that is due.
    answer: Option<Answer>,
    /// When the attempt to connect began, or the last question was asked.
    since: Time,
}

struct Watcher {
    name: String,
    places: Places,
    poll: Poll,
    signals: Signals,
    logs: Logs,
    line: Option<Line>,
    next_question: Time,
    interval: Span,
    limit: Span,
    judge: Judge,
    file: TrackFile,
    path: PathBuf,
    /// What could not be written yet.
    unwritten: Option<u8>,
    write_failed: bool,
    notifier: Notifier,
    is_ready: bool,
    started: Instant,
}

impl Watcher {
    fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(8);
        let mut seen = self.now();
        loop {
            let now = self.now();
            self.step(now);
            self.notifier.kick(now);
            let wake = self.wake();
            let sleep = Duration::from_micros(wake.since(self.now()).0);
            match self.poll.poll(&mut events, Some(sleep)) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                other => other?,
            }
            // It may have been stopped anywhere in the turn, not only in its sleep.
            let now = self.now();
            let awake = now.since(seen).0.saturating_sub(sleep.as_micros() as u64);
            if awake > self.limit.0 / 2 {
                self.judge.begin_anew(now);
            }
            seen = now;
            for event in &events {
                match event.token() {
                    SIGNALS => {
                        if self.ends() {
                            return Ok(());
                        }
                    }
                    _ => self.line_event(now),
                }
            }
            // After the events: what had come by now has been heard.
            let said = self.judge.tick(now);
            self.publish(said);
        }
    }

    fn now(&self) -> Time {
        Time(self.started.elapsed().as_micros() as u64)
    }

    fn ends(&mut self) -> bool {
        while let Some(signal) = self.signals.take() {
            match signal {
                Signal::Reopen => self.logs.reopen(),
                Signal::End => {
                    log::info!("ending: {} stays as it is", self.path.display());
                    self.notifier.say("STOPPING=1");
                    return true;
                }
            }
        }
        false
    }

    /// When there is something to do next, if nothing happens before.
    fn wake(&self) -> Time {
        let due = match &self.line {
            Some(line) if !line.connected || line.answer.is_some() => self.given_up(line),
            _ => self.next_question,
        };
        let others = [
            self.judge.next_tick(),
            self.notifier.next_kick(),
            self.unwritten.map(|_| self.next_question),
        ];
        others.into_iter().flatten().fold(due, Time::min)
    }

    fn given_up(&self, line: &Line) -> Time {
        line.since + Span(self.limit.0 * RENEW)
    }

    /// What is due by the clock.
    fn step(&mut self, now: Time) {
        if let Some(line) = &self.line {
            let waits = !line.connected || line.answer.is_some();
            if waits && now >= self.given_up(line) {
                self.line = None;
                self.places.next();
            }
        }
        if now < self.next_question {
            return;
        }
        self.next_question = now + self.interval;
        if let Some(number) = self.unwritten {
            self.write(number);
        }
        match &self.line {
            None => self.connect(now),
            Some(line) if line.connected && line.answer.is_none() => self.question(now),
            Some(_) => {}
        }
    }

    fn connect(&mut self, now: Time) {
        let opened = self.places.connect().and_then(|mut stream| {
            let interest = Interest::READABLE | Interest::WRITABLE;
            self.poll
                .registry()
                .register(&mut stream, PROXY, interest)?;
            Ok(stream)
        });
        match opened {
            Ok(stream) => {
                self.line = Some(Line {
                    stream,
                    connected: false,
                    answer: None,
                    since: now,
                });
            }
            Err(error) => self.broke(&reason(&error), now),
        }
    }

    fn question(&mut self, now: Time) {
        let Some(line) = &mut self.line else { return };
        // A connection without unanswered questions has room for one: anything less than all of it is an error.
        match line.stream.write(QUESTION) {
            Ok(count) if count == QUESTION.len() => {
                line.answer = Some(Answer::default());
                line.since = now;
                self.judge.asked();
            }
            Ok(_) => self.broke("it takes no question", now),
            Err(error) => self.broke(&reason(&error), now),
        }
    }

    fn line_event(&mut self, now: Time) {
        let Some(line) = &mut self.line else { return };
        if !line.connected {
            match line.stream.is_established() {
                Ok(false) => return,
                Ok(true) => {
                    line.connected = true;
                    self.question(now);
                }
                Err(error) => return self.broke(&reason(&error), now),
            }
        }
        let mut scratch = [0; 4096];
        while let Some(line) = &mut self.line {
            match line.stream.read(&mut scratch) {
                Ok(0) => self.broke("it closed the connection", now),
                Ok(count) => self.hear(&scratch[..count], now),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => self.broke(&reason(&error), now),
            }
        }
    }

    fn hear(&mut self, bytes: &[u8], now: Time) {
        let Some(line) = &mut self.line else { return };
        let Some(answer) = &mut line.answer else {
            return;
        };
        let Some(finding) = answer.take(bytes) else {
            return;
        };
        line.answer = None;
        if finding.verdict == Verdict::Silent {
            // Whatever it is, its next bytes mean nothing.
            self.line = None;
            self.places.next();
        }
        let said = self.judge.hear(finding, now);
        self.publish(said);
    }

    /// There is no connection, or none any more; the next one is tried when the next question is due.
    fn broke(&mut self, why: &str, now: Time) {
        self.line = None;
        self.places.next();
        let said = self.judge.hear(Finding::silent(why), now);
        self.publish(said);
    }

    fn publish(&mut self, said: Option<Finding>) {
        let Some(finding) = said else { return };
        let (name, number) = (&self.name, finding.verdict.code());
        let path = self.path.display();
        match finding.verdict {
            Verdict::Healthy => log::info!("{name}: {finding}; {path}: {number}"),
            _ => log::warn!("{name}: {finding}; {path}: {number}"),
        }
        let status = format!("STATUS={name}: {finding}");
        self.write(number);
        let ready = if self.is_ready { "" } else { "READY=1\n" };
        self.is_ready = true;
        self.notifier.say(&format!("{ready}{status}"));
    }

    /// Writes the number, or keeps it to try again.
    fn write(&mut self, number: u8) {
        let written = self.file.write(number);
        self.unwritten = written.is_err().then_some(number);
        let path = self.path.display();
        match written {
            Ok(()) if self.write_failed => log::info!("{path}: written again"),
            Err(error) if !self.write_failed => log::error!("{path}: {}", reason(&error)),
            _ => {}
        }
        self.write_failed = self.unwritten.is_some();
    }
}
