//! The core between clients and servers that are written down: one turn of requests is answered by model servers and
//! recorded; measured is the core with the same turn again and again, so that nobody else's work is in the figures.
//!
//! A turn goes as in the event loop: all clients' bytes in, everything written once, one read of each link, everything
//! written once, and so on until nobody owes anything. The time stands still.

use std::io::{self, IoSlice, Write};

use magent::config::args::{self, Parsed};
use magent::proxy::{Action, ClientId, ConnId, LinkId, ProcessFacts, Proxy};
use magent::time::{Span, Time};

use crate::cases::Case;
use crate::memcached::{Memcached, Session};

/// The loop reads at most this much at a time.
const READ: usize = 48 * 1024;
/// So long, and in such steps, servers and core look at each other before anything is asked.
const SETTLING: Span = Span::from_secs(3);
/// Less than it takes until the core counts as unused.
const AWAKE: Span = Span::from_millis(700);
const STEP: Span = Span::from_millis(50);
/// Requests at a time while the servers are filled.
const PRELOAD: usize = 20;
/// Unix time at `Time(0)`.
const EPOCH: u64 = 1_700_000_000;

/// What comes from the servers' side in a turn.
enum Event {
    /// Bytes of a link.
    Received(LinkId, Vec<u8>),
    /// The loop writes.
    Settle,
}

/// One recorded turn.
pub struct Turn {
    inputs: Vec<(ClientId, Vec<u8>)>,
    events: Vec<Event>,
    /// Requests in it.
    pub requests: usize,
    /// Bytes that go to all clients.
    replied: usize,
}

/// Takes everything and counts it.
#[derive(Default)]
struct Sink(usize);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        let count = pieces.iter().map(|piece| piece.len()).sum();
        self.0 += count;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Wire {
    id: LinkId,
    session: Session,
    /// To the server.
    asked: Vec<u8>,
    /// From it, and how much has been read.
    said: Vec<u8>,
    read: usize,
}

/// The core and all around it.
pub struct Rig {
    proxy: Proxy,
    now: Time,
    clients: Vec<ClientId>,
    replies: Vec<Vec<u8>>,
    servers: Vec<Memcached>,
    wires: Vec<Wire>,
    sink: Sink,
}

fn no_rusage() -> (u64, u64) {
    (0, 0)
}

impl Rig {
    /// A core whose servers are up and hold what the case asks for.
    pub fn new(case: &Case) -> Result<Rig, String> {
        let line = format!("{} --proxy-id bench -n 1000", case.setup.options());
        let config = match args::parse(line.split(' ').map(Into::into)) {
            Ok(Parsed::Run(config)) => config,
            _ => return Err(format!("command line not taken: {line}")),
        };
        let facts = ProcessFacts {
            pid: 1,
            unix_micros_at_zero: EPOCH * 1_000_000,
            rusage: no_rusage,
        };
        let now = Time(0);
        let servers = (0..case.setup.servers())
            .map(|i| Memcached::new(case.setup.version(), 100 + i as u32, EPOCH as i64, 1 << 20))
            .collect();
        let mut rig = Rig {
            proxy: Proxy::new(&config, facts, now),
            now,
            clients: Vec::new(),
            replies: Vec::new(),
            servers,
            wires: Vec::new(),
            sink: Sink::default(),
        };
        rig.settle_down(SETTLING)?;
        if !rig.proxy.is_ready() {
            return Err("servers did not come up".to_string());
        }
        rig.preload(case)?;
        Ok(rig)
    }

    /// Lets time pass until whatever core and servers have to say to each other is said.
    fn settle_down(&mut self, long: Span) -> Result<(), String> {
        let until = self.now + long;
        while self.now < until {
            self.now = self.now + STEP;
            self.proxy.tick(self.now);
            self.pass(&mut Vec::new())?;
        }
        Ok(())
    }

    fn open(&mut self) -> Result<(), String> {
        let id = self.proxy.client_opened(self.now);
        self.clients.push(id.ok_or("a client was not let in")?);
        self.replies.push(Vec::new());
        Ok(())
    }

    fn preload(&mut self, case: &Case) -> Result<(), String> {
        for _ in 0..case.clients() {
            self.open()?;
        }
        let first = self.clients[0];
        self.proxy
            .client_received(first, b"get nothing\r\n", self.now);
        self.pass(&mut Vec::new())?;
        // So does the first write: it names the list of servers on them.
        self.settle_down(AWAKE)?;
        self.proxy
            .client_received(first, b"delete nothing\r\n", self.now);
        self.pass(&mut Vec::new())?;
        self.replies[0].clear();
        // The first request in a while makes the core look at its servers: that is no part of a turn.
        self.settle_down(AWAKE)?;
        for requests in case.preload().chunks(PRELOAD) {
            for request in requests {
                self.proxy.client_received(first, request, self.now);
            }
            self.pass(&mut Vec::new())?;
            if self.replies[0] != b"STORED\r\n".repeat(requests.len()) {
                return Err(format!("preload: {}", self.replies[0].escape_ascii()));
            }
            self.replies[0].clear();
        }
        if case.is_binary() {
            // It has spoken text.
            self.proxy.client_closed(first, self.now);
            let id = self.proxy.client_opened(self.now);
            self.clients[0] = id.ok_or("a client was not let in")?;
        }
        Ok(())
    }

    /// Lets the model servers answer one turn of requests, checks the replies and writes all down.
    pub fn record(&mut self, case: &Case) -> Result<Turn, String> {
        let inputs: Vec<(ClientId, Vec<u8>)> = self
            .clients
            .iter()
            .enumerate()
            .map(|(place, &id)| (id, case.request(place)))
            .collect();
        for (id, bytes) in &inputs {
            for piece in bytes.chunks(READ) {
                self.proxy.client_received(*id, piece, self.now);
            }
        }
        let mut events = Vec::new();
        self.pass(&mut events)?;
        let (end, times) = case.expected();
        let mut replied = 0;
        for reply in &mut self.replies {
            let count = memchr::memmem::find_iter(reply, end).count();
            if count != times || reply.len() < case.value_bytes() {
                return Err(format!(
                    "expected {times} times {}: {}",
                    end.escape_ascii(),
                    reply[..reply.len().min(200)].escape_ascii()
                ));
            }
            replied += reply.len();
            reply.clear();
        }
        Ok(Turn {
            requests: inputs.len() * case.depth(),
            inputs,
            events,
            replied,
        })
    }

    /// Once more through the core what was recorded.
    pub fn replay(&mut self, turn: &Turn) {
        for (id, bytes) in &turn.inputs {
            for piece in bytes.chunks(READ) {
                self.proxy.client_received(*id, piece, self.now);
            }
        }
        for event in &turn.events {
            match event {
                Event::Received(id, bytes) => self.proxy.link_received(*id, bytes, self.now),
                Event::Settle => self.settle_replayed(),
            }
        }
    }

    /// Checks that `turns` replays have been answered in full.
    pub fn verify(&mut self, turn: &Turn, turns: usize) -> Result<(), String> {
        if self.sink.0 == turn.replied * turns {
            return Ok(());
        }
        Err(format!(
            "clients were sent {} bytes in {turns} turns, not {}",
            self.sink.0,
            turn.replied * turns
        ))
    }

    fn settle_replayed(&mut self) {
        self.proxy.tick(self.now);
        loop {
            let mut done = true;
            while self.proxy.poll_action().is_some() {
                done = false;
            }
            while let Some(id) = self.proxy.poll_dirty() {
                done = false;
                let mut to_link = Sink::default();
                let sink = match id {
                    ConnId::Client(_) => &mut self.sink,
                    ConnId::Link(_) => &mut to_link,
                };
                // The sink takes everything.
                let _ = self.proxy.write_to(id, sink, self.now);
            }
            if done {
                break;
            }
        }
        std::hint::black_box(self.proxy.next_timeout());
    }

    /// Passes bytes to and fro until nobody has anything to say; what came of the servers is noted in `events`.
    fn pass(&mut self, events: &mut Vec<Event>) -> Result<(), String> {
        loop {
            self.settle()?;
            events.push(Event::Settle);
            let mut quiet = true;
            for wire in &mut self.wires {
                let server = &mut self.servers[usize::from(wire.id.server)];
                server.set_now((EPOCH + self.now.0 / 1_000_000) as i64);
                if !wire.asked.is_empty() {
                    let asked = std::mem::take(&mut wire.asked);
                    while server.serve(&mut wire.session, &asked[..], usize::MAX, &mut wire.said) {}
                }
                let end = wire.said.len().min(wire.read + READ);
                if end == wire.read {
                    continue;
                }
                quiet = false;
                let piece = wire.said[wire.read..end].to_vec();
                wire.read = end;
                if end == wire.said.len() {
                    wire.said.clear();
                    wire.read = 0;
                }
                self.proxy.link_received(wire.id, &piece, self.now);
                events.push(Event::Received(wire.id, piece));
            }
            if quiet {
                return Ok(());
            }
        }
    }

    fn settle(&mut self) -> Result<(), String> {
        self.proxy.tick(self.now);
        loop {
            let mut done = true;
            while let Some(action) = self.proxy.poll_action() {
                done = false;
                match action {
                    Action::Connect(id) => {
                        self.wires.push(Wire {
                            id,
                            session: Session::default(),
                            asked: Vec::new(),
                            said: Vec::new(),
                            read: 0,
                        });
                        self.proxy.link_connected(id, self.now);
                    }
                    Action::CloseLink(id) => self.wires.retain(|wire| wire.id != id),
                    Action::CloseClient(id) => return Err(format!("closed a client: {id:?}")),
                    // All that came has been handed over already.
                    Action::ReadClient(_) => {}
                }
            }
            while let Some(id) = self.proxy.poll_dirty() {
                done = false;
                let to = match id {
                    ConnId::Client(id) => {
                        let place = self.clients.iter().position(|client| *client == id);
                        &mut self.replies[place.ok_or("an unknown client")?]
                    }
                    ConnId::Link(id) => {
                        let wire = self.wires.iter_mut().find(|wire| wire.id == id);
                        &mut wire.ok_or("an unknown link")?.asked
                    }
                };
                self.proxy
                    .write_to(id, to, self.now)
                    .map_err(|e| format!("{id:?}: {e}"))?;
            }
            if done {
                return Ok(());
            }
        }
    }
}
