//! Connections between clients, proxies and servers: in each direction an ordered queue of bytes on the wire, and what
//! the receiving kernel holds. Everything that a real network does to bytes is done to whole pieces here: they come late,
//! cut anywhere, stop for a while, or are lost with the connection. They never change and never overtake each other.

use std::io;

use super::pieces;
use super::profile::Plan;
use super::rng::Rng;

/// Names a connection; never used again.
pub type Conn = usize;

/// One end: who asked for the connection (0) or who accepted it (1).
pub type Side = usize;

/// Whose end it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    Client(usize),
    /// A proxy's end of a client's connection.
    HostClient(usize),
    /// A proxy's end of a connection to a server: which proxy, server, and connection.
    HostLink(usize, u16, u16),
    Server(usize),
}

/// One direction, named by the side that writes.
#[derive(Default)]
struct Pipe {
    wire: Vec<u8>,
    /// What the receiver's kernel holds.
    inbox: Vec<u8>,
    /// The next delivery is on the list of events.
    moving: bool,
    /// The writer found no room.
    blocked: bool,
    /// The writer has ended; that comes behind the bytes.
    fin: bool,
    /// The reader has been told.
    eof: bool,
}

/// Where a connection stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    Asked,
    Open,
    /// Reset or closed by both.
    Gone,
}

struct Line {
    ends: [End; 2],
    pipes: [Pipe; 2],
    state: State,
    /// The side that does not have it any more.
    left: [bool; 2],
}

/// What happened to bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Delivered {
    Nothing,
    /// The reader has news; more is on the wire or not.
    News {
        more: bool,
    },
}

/// All connections.
pub struct Net {
    lines: Vec<Line>,
    /// What a kernel takes before it says that it is full.
    pub window: usize,
    /// Once in so many writes less is taken than there is room for; 0: never.
    pub short_writes: u64,
    /// Bytes are often cut where one part of what they say ends.
    cuts: bool,
}

impl Net {
    pub fn new(plan: &Plan) -> Net {
        Net {
            lines: Vec::new(),
            window: plan.window,
            short_writes: plan.short_writes,
            cuts: plan.pieces,
        }
    }

    pub fn ask(&mut self, from: End, to: End) -> Conn {
        self.lines.push(Line {
            ends: [from, to],
            pipes: [Pipe::default(), Pipe::default()],
            state: State::Asked,
            left: [false, false],
        });
        self.lines.len() - 1
    }

    /// The owner of an end gives it another name.
    pub fn rename(&mut self, conn: Conn, side: Side, end: End) {
        self.lines[conn].ends[side] = end;
    }

    pub fn open(&mut self, conn: Conn) {
        self.lines[conn].state = State::Open;
    }

    pub fn state(&self, conn: Conn) -> State {
        self.lines[conn].state
    }

    pub fn end(&self, conn: Conn, side: Side) -> End {
        self.lines[conn].ends[side]
    }

    /// Whether `side` still holds its end.
    pub fn holds(&self, conn: Conn, side: Side) -> bool {
        let line = &self.lines[conn];
        line.state == State::Open && !line.left[side]
    }

    /// Writes what there is room for: how much that was. 0: it would block, and `writable` will follow.
    /// The flag says that a delivery has to be put on the list of events.
    pub fn write(&mut self, conn: Conn, side: Side, bytes: &[u8], rng: &mut Rng) -> (usize, bool) {
        let window = self.window;
        let short = self.short_writes > 0 && rng.one_in(self.short_writes);
        let line = &mut self.lines[conn];
        if line.state != State::Open {
            return (bytes.len(), false);
        }
        let pipe = &mut line.pipes[side];
        let room = window.saturating_sub(pipe.wire.len() + pipe.inbox.len());
        let mut count = bytes.len().min(room);
        if short && count > 1 {
            count = rng.range(1, count as u64) as usize;
        }
        if line.left[1 - side] {
            // Nobody reads it any more.
            return (bytes.len(), false);
        }
        pipe.wire.extend_from_slice(&bytes[..count]);
        let starts = count > 0 && !std::mem::replace(&mut pipe.moving, true);
        (count, starts)
    }

    /// The writer waits for room. True: there is some already.
    pub fn wait_for_room(&mut self, conn: Conn, side: Side) -> bool {
        let window = self.window;
        let pipe = &mut self.lines[conn].pipes[side];
        pipe.blocked = true;
        pipe.wire.len() + pipe.inbox.len() < window
    }

    /// The writer is told of room now; false: it does not wait.
    pub fn take_blocked(&mut self, conn: Conn, side: Side) -> bool {
        std::mem::take(&mut self.lines[conn].pipes[side].blocked)
    }

    /// Whether the writer waits for room and there is some.
    pub fn has_room_for(&self, conn: Conn, side: Side) -> bool {
        let pipe = &self.lines[conn].pipes[side];
        pipe.blocked && pipe.wire.len() + pipe.inbox.len() < self.window
    }

    /// Bytes that `side` wrote and that have not arrived.
    pub fn on_wire(&self, conn: Conn, side: Side) -> usize {
        self.lines[conn].pipes[side].wire.len()
    }

    /// Moves bytes that `side` wrote to the other end, at most so many, cut anywhere.
    pub fn deliver(&mut self, conn: Conn, side: Side, most: usize, rng: &mut Rng) -> Delivered {
        let cuts = self.cuts;
        let line = &mut self.lines[conn];
        let pipe = &mut line.pipes[side];
        pipe.moving = false;
        if line.state != State::Open {
            return Delivered::Nothing;
        }
        let mut count = pipe.wire.len().min(most);
        if cuts && count > 1 && rng.one_in(3) {
            count = pieces::cut(&pipe.wire[..count], rng);
        } else if count > 1 && rng.one_in(3) {
            count = rng.range(1, count as u64) as usize;
        }
        if line.left[1 - side] {
            pipe.wire.clear();
        } else if count == pipe.wire.len() && pipe.inbox.is_empty() {
            std::mem::swap(&mut pipe.wire, &mut pipe.inbox);
        } else {
            pipe.inbox.extend(pipe.wire.drain(..count));
        }
        let more = !pipe.wire.is_empty();
        pipe.moving = more;
        if !more && pipe.fin {
            pipe.eof = true;
        }
        Delivered::News { more }
    }

    /// Puts the wire on hold (the network is cut), or finds out whether it has to be set going again.
    pub fn hold(&mut self, conn: Conn, side: Side) {
        self.lines[conn].pipes[side].moving = false;
    }

    /// After a cut: whether something waits on the wire that is not moving.
    pub fn restart(&mut self, conn: Conn, side: Side) -> bool {
        let pipe = &mut self.lines[conn].pipes[side];
        let waits = !pipe.moving && (!pipe.wire.is_empty() || (pipe.fin && !pipe.eof));
        pipe.moving |= waits;
        waits
    }

    /// Takes at most `limit` bytes of what came for `side`; they are appended to `into`.
    pub fn read(&mut self, conn: Conn, side: Side, limit: usize, into: &mut Vec<u8>) -> usize {
        let inbox = &mut self.lines[conn].pipes[1 - side].inbox;
        let count = inbox.len().min(limit);
        into.extend_from_slice(&inbox[..count]);
        if count == inbox.len() {
            inbox.clear();
        } else {
            inbox.drain(..count);
        }
        count
    }

    /// Bytes that came for `side` and are not read.
    pub fn unread(&self, conn: Conn, side: Side) -> usize {
        self.lines[conn].pipes[1 - side].inbox.len()
    }

    /// Whether the other end has said that nothing follows.
    pub fn is_eof(&self, conn: Conn, side: Side) -> bool {
        let pipe = &self.lines[conn].pipes[1 - side];
        pipe.eof && pipe.inbox.is_empty()
    }

    /// `side` sends no more, behind what it wrote. True: a delivery has to be put on the list of events.
    pub fn finish(&mut self, conn: Conn, side: Side) -> bool {
        let pipe = &mut self.lines[conn].pipes[side];
        pipe.fin = true;
        !std::mem::replace(&mut pipe.moving, true)
    }

    /// `side` closes in the ordinary way: what it wrote still arrives, what comes for it is thrown away.
    pub fn close(&mut self, conn: Conn, side: Side) -> bool {
        self.lines[conn].left[side] = true;
        self.lines[conn].pipes[1 - side].inbox.clear();
        self.finish(conn, side)
    }

    /// `side` resets: of what it wrote and is on the wire, a part may have arrived. The other end reads that first, or not.
    pub fn reset(&mut self, conn: Conn, side: Side, rng: &mut Rng) {
        let line = &mut self.lines[conn];
        line.left[side] = true;
        let pipe = &mut line.pipes[side];
        let kept = if rng.one_in(2) {
            0
        } else {
            rng.index(pipe.wire.len() + 1)
        };
        pipe.inbox.extend(pipe.wire.drain(..kept));
        pipe.wire = Vec::new();
        line.pipes[1 - side] = Pipe::default();
    }

    /// The writer's machine is gone: only a part of what it wrote has left.
    pub fn lose_unsent(&mut self, conn: Conn, side: Side, rng: &mut Rng) {
        let wire = &mut self.lines[conn].pipes[side].wire;
        let kept = rng.index(wire.len() + 1);
        wire.truncate(kept);
    }

    /// Both ends are done.
    pub fn forget(&mut self, conn: Conn) {
        let line = &mut self.lines[conn];
        line.state = State::Gone;
        line.pipes = [Pipe::default(), Pipe::default()];
    }

    /// All connections that are asked for or open, oldest first.
    pub fn alive(&self) -> Vec<Conn> {
        let alive = |conn: &Conn| self.lines[*conn].state != State::Gone;
        (0..self.lines.len()).filter(alive).collect()
    }
}

/// A writer as the core wants one.
pub struct Socket<'a> {
    pub net: &'a mut Net,
    pub rng: &'a mut Rng,
    pub conn: Conn,
    pub side: Side,
    /// A delivery has to be put on the list of events.
    pub starts: bool,
    pub broken: bool,
}

impl io::Write for Socket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.broken {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        let (count, starts) = self.net.write(self.conn, self.side, bytes, self.rng);
        self.starts |= starts;
        if count == 0 && !bytes.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
