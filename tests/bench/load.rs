//! The load generator: one thread, one epoll, many connections. It keeps `depth` requests in
//! flight on each (closed loop), or sends at a fixed rate whatever the replies do; then a
//! latency counts from the moment the request was due, so a stall is charged to every request
//! that it held up and not only to the one that met it.

use std::io::{ErrorKind, Read};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use crate::corpus::{Corpus, Random};
use crate::outbox::Outbox;
use crate::replies::{Asked, Replies, Sample};
use crate::rows::Shape;

/// Bytes per read. Measured best between 32 and 48 KiB with values of 1 MB.
const SCRATCH: usize = 48 * 1024;
/// A proxy that answers nothing for so long has failed.
pub const SILENCE: Duration = Duration::from_secs(5);
/// Requests in flight per connection while the keys are stored before a row.
const PRELOAD_DEPTH: usize = 16;
const TIMER: Token = Token(usize::MAX);

struct Conn {
    stream: TcpStream,
    out: Outbox,
    replies: Replies,
    binary: bool,
}

/// The connections to one proxy (or to the servers themselves).
pub struct Load {
    poll: Poll,
    conns: Vec<Conn>,
    /// How many different addresses the connections go to, one after the other.
    targets: usize,
    shape: Shape,
    corpus: Arc<Corpus>,
    random: Random,
    scratch: Vec<u8>,
    epoch: Instant,
}

impl Load {
    /// Opens the connections of `shape`, spread over `to`.
    pub fn connect(to: &[SocketAddr], shape: Shape, corpus: Arc<Corpus>) -> Result<Load, String> {
        let poll = Poll::new().map_err(|e| format!("epoll: {e}"))?;
        let mut conns = Vec::with_capacity(shape.conns);
        for i in 0..shape.conns {
            let address = to[i % to.len()];
            // Blocking, so that a refusal is seen here and a full backlog only takes time.
            let stream = std::net::TcpStream::connect(address)
                .map_err(|e| format!("connect {address}: {e}"))?;
            stream
                .set_nodelay(true)
                .and_then(|()| stream.set_nonblocking(true))
                .map_err(|e| format!("connection to {address}: {e}"))?;
            let mut stream = TcpStream::from_std(stream);
            poll.registry()
                .register(
                    &mut stream,
                    Token(i),
                    Interest::READABLE | Interest::WRITABLE,
                )
                .map_err(|e| format!("epoll: {e}"))?;
            conns.push(Conn {
                stream,
                out: Outbox::default(),
                replies: Replies::new(shape.keys_per_get, shape.binary),
                binary: shape.binary,
            });
        }
        Ok(Load {
            poll,
            conns,
            targets: to.len().min(shape.conns),
            shape,
            corpus,
            random: Random::new(7),
            scratch: vec![0; SCRATCH],
            epoch: Instant::now(),
        })
    }

    /// Stores every key: once through a proxy, once on each server where there is none.
    pub fn preload(&mut self) -> Result<(), String> {
        let mut sample = Sample::new();
        for target in 0..self.targets {
            for first in (0..self.corpus.keys()).step_by(PRELOAD_DEPTH) {
                let last = (first + PRELOAD_DEPTH).min(self.corpus.keys());
                for key in first..last {
                    self.conns[target].set(&self.corpus, key, 0);
                }
                self.conns[target].flush(&self.corpus)?;
                self.drain(&mut sample, |_, _| Ok(()))?;
            }
        }
        Ok(())
    }

    /// Loads the proxy for so long, waits for what is still in flight, and says what was measured.
    pub fn run(&mut self, long: Duration) -> Result<(Sample, Duration), String> {
        let mut sample = Sample::new();
        let began = Instant::now();
        match self.shape.rate {
            None => self.closed_loop(began + long, &mut sample)?,
            Some(rate) => self.fixed_rate(began + long, rate, &mut sample)?,
        }
        Ok((sample, began.elapsed()))
    }

    fn closed_loop(&mut self, end: Instant, sample: &mut Sample) -> Result<(), String> {
        let now_ns = self.epoch.elapsed().as_nanos() as u64;
        for i in 0..self.conns.len() {
            for _ in 0..self.shape.depth {
                self.conns[i].ask(&self.shape, &self.corpus, &mut self.random, now_ns);
            }
            self.conns[i].flush(&self.corpus)?;
        }
        let end_ns = (end - self.epoch).as_nanos() as u64;
        let (shape, corpus) = (self.shape.clone(), Arc::clone(&self.corpus));
        let mut random = Random::new(self.random.next());
        self.drain(sample, |conn, now_ns| {
            if now_ns >= end_ns {
                return Ok(());
            }
            while conn.replies.outstanding() < shape.depth {
                conn.ask(&shape, &corpus, &mut random, now_ns);
            }
            conn.flush(&corpus)
        })
    }

    /// Reads until nothing is in flight; `after` may ask for more on each connection that was answered.
    fn drain(
        &mut self,
        sample: &mut Sample,
        mut after: impl FnMut(&mut Conn, u64) -> Result<(), String>,
    ) -> Result<(), String> {
        let mut events = Events::with_capacity(1024);
        let mut busy = self
            .conns
            .iter()
            .filter(|c| c.replies.outstanding() > 0)
            .count();
        while busy > 0 {
            self.wait(&mut events, Some(SILENCE))?;
            if events.is_empty() {
                return Err(format!("no reply for {} s", SILENCE.as_secs()));
            }
            for event in &events {
                let conn = &mut self.conns[event.token().0];
                if event.is_writable() {
                    conn.flush(&self.corpus)?;
                }
                if event.is_readable() && conn.replies.outstanding() > 0 {
                    let closed = event.is_read_closed();
                    let now_ns =
                        conn.read(&self.corpus, &mut self.scratch, self.epoch, closed, sample)?;
                    after(conn, now_ns)?;
                    busy -= usize::from(conn.replies.outstanding() == 0);
                }
            }
        }
        Ok(())
    }

    fn fixed_rate(&mut self, end: Instant, rate: u32, sample: &mut Sample) -> Result<(), String> {
        let interval = Duration::from_secs(1) / rate;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK)
            .and_then(|timer| {
                let every = Expiration::Interval(TimeSpec::from_duration(interval));
                timer.set(every, TimerSetTimeFlags::empty())?;
                Ok(timer)
            })
            .map_err(|e| format!("timerfd: {e}"))?;
        let fd = timer.as_fd().as_raw_fd();
        self.poll
            .registry()
            .register(&mut SourceFd(&fd), TIMER, Interest::READABLE)
            .map_err(|e| format!("epoll: {e}"))?;
        let mut events = Events::with_capacity(1024);
        let mut due = Instant::now();
        let mut turn = 0;
        while due < end {
            self.wait(&mut events, Some(SILENCE))?;
            for event in &events {
                if event.token() == TIMER {
                    // The kernel winds it up again only when it is read; that it may be gone
                    // off once more by then is no matter.
                    let _ = timer.wait();
                    continue;
                }
                let conn = &mut self.conns[event.token().0];
                if event.is_writable() {
                    conn.flush(&self.corpus)?;
                }
                if event.is_readable() {
                    let closed = event.is_read_closed();
                    conn.read(&self.corpus, &mut self.scratch, self.epoch, closed, sample)?;
                }
            }
            let now = Instant::now();
            while due <= now && due < end {
                let due_ns = (due - self.epoch).as_nanos() as u64;
                let conn = &mut self.conns[turn];
                conn.ask(&self.shape, &self.corpus, &mut self.random, due_ns);
                conn.flush(&self.corpus)?;
                turn = (turn + 1) % self.shape.conns;
                due += interval;
            }
        }
        self.poll
            .registry()
            .deregister(&mut SourceFd(&fd))
            .map_err(|e| format!("epoll: {e}"))?;
        self.drain(sample, |_, _| Ok(()))
    }

    fn wait(&mut self, events: &mut Events, most: Option<Duration>) -> Result<(), String> {
        loop {
            match self.poll.poll(events, most) {
                Ok(()) => return Ok(()),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(format!("epoll: {e}")),
            }
        }
    }
}

impl Conn {
    fn ask(&mut self, shape: &Shape, corpus: &Corpus, random: &mut Random, due_ns: u64) {
        let key = random.below(corpus.keys());
        if random.below(100) >= shape.gets_percent {
            return self.set(corpus, key, due_ns);
        }
        if self.binary {
            frame(self.out.small(), 0, corpus.key(key), 0, 0);
            return self.replies.expect(Asked::Get(key), due_ns);
        }
        let out = self.out.small();
        out.extend_from_slice(b"get");
        for i in 0..shape.keys_per_get {
            out.push(b' ');
            out.extend_from_slice(corpus.key((key + i) % corpus.keys()));
        }
        out.extend_from_slice(b"\r\n");
        self.replies.expect(Asked::Get(key), due_ns);
    }

    fn set(&mut self, corpus: &Corpus, key: usize, due_ns: u64) {
        if self.binary {
            frame(self.out.small(), 1, corpus.key(key), 8, corpus.size());
            self.out.value(corpus, key);
            return self.replies.expect(Asked::Set, due_ns);
        }
        let out = self.out.small();
        out.extend_from_slice(b"set ");
        out.extend_from_slice(corpus.key(key));
        out.extend_from_slice(b" 0");
        out.extend_from_slice(corpus.header_end());
        self.out.value(corpus, key);
        self.out.small().extend_from_slice(b"\r\n");
        self.replies.expect(Asked::Set, due_ns);
    }

    fn flush(&mut self, corpus: &Corpus) -> Result<(), String> {
        if self.out.is_empty() {
            return Ok(());
        }
        self.out
            .flush(&mut self.stream, corpus)
            .map_err(|e| format!("write: {e}"))
    }

    /// Reads all that is there; the answer is the time of the last read. A read that does not
    /// fill the buffer has emptied the socket: what comes later is a new event (unless the other
    /// side has closed).
    fn read(
        &mut self,
        corpus: &Corpus,
        scratch: &mut [u8],
        epoch: Instant,
        closed: bool,
        sample: &mut Sample,
    ) -> Result<u64, String> {
        let mut now_ns = epoch.elapsed().as_nanos() as u64;
        loop {
            match self.stream.read(scratch) {
                Ok(0) => return Err("the connection was closed".to_string()),
                Ok(n) => {
                    now_ns = epoch.elapsed().as_nanos() as u64;
                    self.replies.feed(&scratch[..n], corpus, now_ns, sample)?;
                    if n < scratch.len() && !closed {
                        return Ok(now_ns);
                    }
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(now_ns),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(format!("read: {e}")),
            }
        }
    }
}

/// A frame up to the end of its key; the extras are zeros.
fn frame(out: &mut Vec<u8>, opcode: u8, key: &[u8], extras: usize, value: usize) {
    let body = extras + key.len() + value;
    out.extend_from_slice(&[0x80, opcode, 0, key.len() as u8, extras as u8, 0, 0, 0]);
    out.extend_from_slice(&(body as u32).to_be_bytes());
    out.extend_from_slice(&[0; 12]);
    out.extend_from_slice(&[0; 8][..extras]);
    out.extend_from_slice(key);
}
