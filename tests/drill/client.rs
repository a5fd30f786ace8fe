//! A client as applications have it: one kept connection, short limits, a new connection after an error. It writes and
//! reads in turn, every 10 ms, and keeps the time between two successes.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::book::Book;
use super::network::inside;
use super::Outcome;

/// From one operation to the next.
pub const PACE: Duration = Duration::from_millis(10);
/// How long an answer may take: longer than magent's own `--timeout`, as it must be.
pub const ANSWER: Duration = Duration::from_millis(300);
/// How long a connection may take.
pub const CONNECT: Duration = Duration::from_millis(100);
/// Keys that are written before anything is measured.
const PRELOAD: u64 = 400;
/// Keys that are written over and over.
const HOT: u64 = 40;

/// What was seen since the window was opened.
#[derive(Clone)]
pub struct Window {
    /// When it was opened.
    pub since: Instant,
    last_success: Instant,
    /// The longest time between two successes.
    pub outage: Duration,
    /// When that began.
    pub outage_at: Instant,
    /// Operations that were given up.
    pub failed: u32,
    /// Kept connections found closed or reset; the operation was then done on a new one.
    pub reconnects: u32,
    /// Operations that succeeded.
    pub succeeded: u32,
    /// The first failures, in words.
    pub notes: Vec<(Instant, String)>,
}

impl Window {
    fn open(now: Instant, last_success: Instant) -> Window {
        Window {
            since: now,
            last_success,
            outage: Duration::ZERO,
            outage_at: now,
            failed: 0,
            reconnects: 0,
            succeeded: 0,
            notes: Vec::new(),
        }
    }

    fn success(&mut self, now: Instant) {
        self.gap(now);
        self.last_success = now;
        self.succeeded += 1;
    }

    fn gap(&mut self, now: Instant) {
        let gap = now - self.last_success;
        if gap > self.outage {
            (self.outage, self.outage_at) = (gap, self.last_success);
        }
    }
}

/// A client at work, on a thread of its own.
pub struct Client {
    window: Arc<Mutex<Window>>,
    stop: Arc<AtomicBool>,
    ready: Arc<AtomicBool>,
    thread: Option<JoinHandle<Book>>,
}

impl Client {
    /// Starts one in the clients' namespace; its keys begin with `prefix`. With different turns to begin
    /// with, some write while others read.
    pub fn start(prefix: &str, turn: u64, server: (Ipv4Addr, u16)) -> Outcome<Client> {
        let now = Instant::now();
        let window = Arc::new(Mutex::new(Window::open(now, now)));
        let stop = Arc::new(AtomicBool::new(false));
        let ready = Arc::new(AtomicBool::new(false));
        let mut worker = Worker {
            line: Line::new(server),
            book: Book::new(prefix),
            window: window.clone(),
            stop: stop.clone(),
            ready: ready.clone(),
            turn,
            fresh: 0,
            doubtful: None,
        };
        let thread = inside("c", move || {
            worker.work();
            worker.book
        })?;
        Ok(Client {
            window,
            stop,
            ready,
            thread: Some(thread),
        })
    }

    /// True once the keys to begin with are written.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    /// What is counted, is counted from now on.
    pub fn open_window(&self) {
        let mut window = self.window.lock().expect("no panic while locked");
        *window = Window::open(Instant::now(), window.last_success);
    }

    /// What was counted until now.
    pub fn window(&self) -> Window {
        let mut window = self.window.lock().expect("no panic while locked").clone();
        window.gap(Instant::now());
        window
    }

    /// When it last had a success.
    pub fn last_success(&self) -> Instant {
        self.window
            .lock()
            .expect("no panic while locked")
            .last_success
    }

    /// Stops it.
    pub fn finish(mut self) -> Outcome<Book> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().ok_or("finished twice")?;
        thread.join().map_err(|_| "the client panicked".to_string())
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

struct Worker {
    line: Line,
    book: Book,
    window: Arc<Mutex<Window>>,
    stop: Arc<AtomicBool>,
    ready: Arc<AtomicBool>,
    turn: u64,
    /// Keys made so far.
    fresh: u64,
    /// The hot key whose write failed last: a proxy or server that goes on may carry it out yet, after later ones.
    doubtful: Option<u64>,
}

impl Worker {
    fn work(&mut self) {
        // The service may be starting still.
        while self.ask("version\r\n").is_err() && !self.stop.load(Ordering::Relaxed) {
            std::thread::sleep(PACE);
        }
        while self.fresh < PRELOAD && !self.stop.load(Ordering::Relaxed) {
            self.fresh += 1;
            self.write(self.fresh);
        }
        self.ready.store(true, Ordering::Relaxed);
        let mut next = Instant::now();
        while !self.stop.load(Ordering::Relaxed) {
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
            self.operate();
            // Kept up with where it can be; what a long wait has missed is not made up for.
            next = (next + PACE).max(Instant::now());
        }
    }

    /// In turn: a hot key is written, any key is read; each fourth write makes a new key. The first reads are of what
    /// was just written.
    fn operate(&mut self) {
        self.turn += 1;
        let turn = self.turn;
        // Any spread will do.
        let any = turn.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 33;
        match turn % 8 {
            1 | 3 | 5 => self.write(turn / 2 % HOT + 1),
            7 => {
                self.fresh += 1;
                self.write(self.fresh);
            }
            2 | 6 => self.read((turn - 1) / 2 % HOT + 1),
            4 => self.read(self.doubtful.unwrap_or(any % HOT + 1)),
            _ => self.read(any % self.fresh + 1),
        }
    }

    fn write(&mut self, number: u64) {
        let key = self.book.key(number);
        let (version, value) = self.book.write(&key);
        let request = format!("set {key} 0 0 {}\r\n{value}\r\n", value.len());
        let why = match self.ask(&request) {
            Ok(reply) if reply == "STORED\r\n" => {
                self.book.acknowledge(&key, version);
                return self.success();
            }
            Ok(reply) => reply.trim().to_string(),
            Err(why) => why,
        };
        if number <= HOT {
            self.doubtful = Some(number);
        }
        self.failure(&format!("set {key}: {why}"));
    }

    fn read(&mut self, number: u64) {
        let key = self.book.key(number);
        match self.ask(&format!("get {key}\r\n")) {
            Ok(reply) => match value_of(&reply) {
                Ok(value) => {
                    self.book.read(&key, value, Instant::now());
                    self.success();
                }
                Err(()) => self.failure(&format!("get {key}: {}", reply.trim())),
            },
            Err(why) => self.failure(&format!("get {key}: {why}")),
        }
    }

    fn ask(&mut self, request: &str) -> Result<String, String> {
        let (reply, reconnected) = self.line.ask(request);
        if reconnected {
            self.window
                .lock()
                .expect("no panic while locked")
                .reconnects += 1;
        }
        reply
    }

    fn success(&self) {
        let mut window = self.window.lock().expect("no panic while locked");
        window.success(Instant::now());
    }

    fn failure(&self, why: &str) {
        let mut window = self.window.lock().expect("no panic while locked");
        window.failed += 1;
        if window.notes.len() < 20 {
            window.notes.push((Instant::now(), why.to_string()));
        }
    }
}

/// The value in a reply to `get` of one key; `Ok(None)` is a miss.
pub fn value_of(reply: &str) -> Result<Option<&str>, ()> {
    if reply == "END\r\n" {
        return Ok(None);
    }
    let body = reply.strip_suffix("\r\nEND\r\n").ok_or(())?;
    let (line, value) = body.split_once("\r\n").ok_or(())?;
    if line.starts_with("VALUE ") {
        Ok(Some(value))
    } else {
        Err(())
    }
}

/// One connection, made when it is needed.
pub struct Line {
    server: SocketAddr,
    stream: Option<TcpStream>,
}

enum Trouble {
    /// The connection was closed or reset before an answer.
    Closed(String),
    Other(String),
}

impl Line {
    /// To that server.
    pub fn new((ip, port): (Ipv4Addr, u16)) -> Line {
        Line {
            server: SocketAddr::from((ip, port)),
            stream: None,
        }
    }

    /// Sends a request and reads its answer of one line, or up to `END`. A kept connection that turns out to be closed
    /// is made anew, and the request sent once more: it is one that may be repeated. True when that was so.
    pub fn ask(&mut self, request: &str) -> (Result<String, String>, bool) {
        let kept = self.stream.is_some();
        match self.attempt(request) {
            Ok(reply) => (Ok(reply), false),
            Err(trouble) => {
                self.stream = None;
                match trouble {
                    Trouble::Closed(_) if kept => {
                        let again = self.attempt(request);
                        if again.is_err() {
                            self.stream = None;
                        }
                        let again = again.map_err(|trouble| match trouble {
                            Trouble::Closed(why) | Trouble::Other(why) => format!("again: {why}"),
                        });
                        (again, true)
                    }
                    Trouble::Closed(why) | Trouble::Other(why) => (Err(why), false),
                }
            }
        }
    }

    fn attempt(&mut self, request: &str) -> Result<String, Trouble> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            None => {
                let stream = connect(self.server).map_err(Trouble::Other)?;
                self.stream.insert(stream)
            }
        };
        let end = Instant::now() + ANSWER;
        stream.write_all(request.as_bytes()).map_err(trouble)?;
        let mut reply = Vec::new();
        let mut scratch = [0; 4096];
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(trouble(ErrorKind::TimedOut.into()));
            }
            stream.set_read_timeout(Some(left)).map_err(trouble)?;
            match stream.read(&mut scratch) {
                Ok(0) => return Err(Trouble::Closed("closed".to_string())),
                Ok(count) => reply.extend_from_slice(&scratch[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(trouble(error)),
            }
            if is_whole(&reply) {
                return String::from_utf8(reply)
                    .map_err(|_| Trouble::Other("not text".to_string()));
            }
        }
    }
}

fn connect(server: SocketAddr) -> Result<TcpStream, String> {
    let stream = TcpStream::connect_timeout(&server, CONNECT);
    let stream = stream.map_err(|e| format!("connect: {e}"))?;
    stream
        .set_nodelay(true)
        .map_err(|e| format!("connect: {e}"))?;
    Ok(stream)
}

fn trouble(error: std::io::Error) -> Trouble {
    match error.kind() {
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted => {
            Trouble::Closed(error.to_string())
        }
        ErrorKind::WouldBlock | ErrorKind::TimedOut => {
            Trouble::Other(format!("no answer within {} ms", ANSWER.as_millis()))
        }
        _ => Trouble::Other(error.to_string()),
    }
}

fn is_whole(reply: &[u8]) -> bool {
    if reply.starts_with(b"VALUE ") {
        reply.ends_with(b"\r\nEND\r\n")
    } else {
        reply.ends_with(b"\r\n")
    }
}
