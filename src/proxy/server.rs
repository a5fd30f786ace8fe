//! The room of servers: state, connections, and what is in flight on each.

use std::collections::VecDeque;

use super::cas::Tag;
use super::ids::{CloseReason, LinkId};
use super::journal::Journal;
use super::lists::Named;
use super::sabotage::{is, Sabotage};
use super::stats::Latency;
use super::txn::TxnId;
use super::view::{Stamp, View};
use super::window::Window;
use crate::buf::{Body, Memory, RequestLog};
use crate::proto::Verb;
use crate::time::{Span, Time};

/// Pause before the first attempt to reach a server that was lost; each failure doubles it up to
/// [`crate::config::Config::retry_max`].
pub const RETRY_FIRST: Span = Span::from_millis(20);

/// An idle connection is asked for a sign of life after this.
pub const PROBE_AFTER: Span = Span::from_millis(250);

/// A connection on which so many bytes have moved within a time limit is not slow, it is full.
const MOVES_MIN: usize = 4096;

/// The first memcached release whose `flush_all` may pass over an item; not there: 1.6.18, seen: 1.6.38 and 1.6.45.
const FLUSH_WALKS_SINCE: [u32; 3] = [1, 6, 19];

/// A server that is up is asked for its stamp this often, however busy it is.
pub const STAMP_EVERY: Span = Span::from_millis(1000);

/// What the proxy knows of a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// An attempt to reach it is under way.
    Connecting,
    /// All its connections answer, but it may not be used yet: it may have missed writes.
    Waiting,
    /// It is being made safe.
    Entering,
    /// In use.
    Up,
    /// It is not used; the next attempt is made at this time.
    Down(Time),
    /// It is another one by a second name, and used by that one's.
    Twin,
}

/// Why a request is in flight: what its answer is going to mean.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// A read, asked of the copy that acts for the key.
    Read,
    /// A conditional write: this server decides.
    Decide,
    /// An unconditional write, sent to the copy of this rank.
    Copy(u8),
    /// The outcome of a conditional write, for a copy that had no say.
    Mirror,
    /// An outcome that is put right by another copy's item, or that item.
    Exact,
    /// A right to refill that another copy has given away.
    Echo,
    /// A copy that answered otherwise than the acting primary forgets the key.
    Heal,
    /// A key is read from one copy to be brought to another.
    Fetch(u32),
    /// A key is brought to a copy that lacks it.
    Refill,
    /// The same by the background copy, which waits for the answer.
    Bring(u32),
    /// What a returning server missed is taken from it.
    Entry,
    /// A key is deleted where it does not belong any more, as it is written where it belongs.
    Behind,
    /// The same for a key of the record of ejected ones.
    Tidy,
    /// The server's stamp is read.
    Stamp,
    /// The server is stamped.
    Restamp,
    /// A mark is set, by which the server of this index may see that it is the same one.
    Mark(u16),
    /// That mark is looked for.
    Seen,
    /// The server's process is asked for.
    Process,
    /// Statistics that a client asked for.
    Inquire(u32),
    /// The server lists its keys.
    Listing,
    /// `flush_all`, to be said so many times more.
    Flush(u8),
    /// Stands behind a stamp: with its answer the stamp is there.
    Fence,
    /// A sign of life.
    Probe,
    /// The request has moved on; the answer is thrown away.
    Abandoned,
}

/// One request in flight.
#[derive(Debug)]
pub struct InFlight {
    /// What the answer means.
    pub role: Role,
    /// The command as this server got it.
    pub verb: Verb,
    /// Whose it is; nobody's for probes.
    pub txn: Option<TxnId>,
    /// The key's offset in the request, and its length.
    pub key_at: u16,
    /// See `key_at`.
    pub key_len: u8,
    /// Its place in the log.
    pub start: u64,
    /// Where it ends in the log.
    pub end: u64,
    /// When it was queued.
    pub queued: Time,
    /// When it had left, as far as is known; when it was queued until then.
    pub sent: Time,
    /// Bytes asked and expected: what it takes of the window.
    pub cost: u32,
    /// A large data block that belongs to it.
    pub body: Option<Body>,
}

impl InFlight {
    /// Whether a server that did not do it lacks what another one may have.
    pub fn may_be_missed(&self) -> bool {
        match self.role {
            Role::Copy(_) | Role::Decide | Role::Mirror | Role::Exact | Role::Echo => true,
            Role::Heal | Role::Entry | Role::Flush(_) | Role::Behind => true,
            Role::Read => self.verb.is_gat(),
            _ => false,
        }
    }
}

/// Room for so many requests is kept when none is in flight.
const ROOM_KEPT: usize = 64;

/// No retrieval is being written to a link.
pub const NO_PART: u16 = u16::MAX;

/// Where a connection stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LinkState {
    /// There is none.
    Closed,
    /// Being made.
    Connecting,
    /// Made, but nothing has been answered on it yet.
    Unproven,
    /// In use.
    Ready,
}

/// A value that is coming in pieces.
#[derive(Clone, Copy, Debug)]
pub struct Block {
    /// Bytes still to come, line end included.
    pub left: usize,
    /// Nothing follows it in this answer.
    pub ends_reply: bool,
}

/// One connection to a server: an ordered stream.
#[derive(Debug)]
pub struct Link {
    /// Where it stands.
    pub state: LinkState,
    /// Requests, from queued to answered.
    pub log: RequestLog,
    /// What is in flight, oldest first.
    pub fifo: VecDeque<InFlight>,
    /// How many at the front are over their time limit.
    pub expired: usize,
    /// When the server last sent something.
    pub last_received: Time,
    /// When bytes of the oldest request last left.
    pub last_progress: Time,
    /// When bytes moved in such numbers that it is full rather than slow, and how many have since.
    pub moving: Time,
    /// See `moving`.
    pub moved: usize,
    /// The kernel took less than there was.
    pub is_blocked: bool,
    /// Bytes of an answer that is not complete.
    pub partial: Vec<u8>,
    /// The value that is coming.
    pub block: Option<Block>,
    /// Where in the oldest request the next key is looked for; 0: at its first key.
    pub cursor: usize,
    /// `VALUE` blocks in the answer that is coming.
    pub hits: u16,
    /// The answer to the last `mg` gave the right to refill (`W`).
    pub won: bool,
    /// While requests of a retrieval are written: the part whose request is being written to it.
    pub part: u16,
    /// Stands on the list of connections to write.
    pub dirty: bool,
}

impl Link {
    fn new() -> Link {
        Link {
            state: LinkState::Closed,
            log: RequestLog::default(),
            fifo: VecDeque::new(),
            expired: 0,
            last_received: Time(0),
            last_progress: Time(0),
            moving: Time(0),
            moved: 0,
            is_blocked: false,
            partial: Vec::new(),
            block: None,
            cursor: 0,
            hits: 0,
            won: false,
            part: NO_PART,
            dirty: false,
        }
    }

    /// Ends the request that begins at `start` and puts it in flight.
    pub fn send(&mut self, flight: InFlight, memory: &mut Memory) {
        self.log.close_request(flight.start, memory);
        self.fifo.push_back(InFlight {
            end: self.log.end(),
            ..flight
        });
    }

    /// Takes the oldest request out of flight. Its bytes must not be needed any more after [`RequestLog::release`].
    pub fn pop(&mut self) -> Option<InFlight> {
        let flight = self.fifo.pop_front()?;
        self.expired = self.expired.saturating_sub(1);
        self.cursor = 0;
        self.hits = 0;
        Some(flight)
    }

    /// Gives room back that nothing needs now.
    pub fn rest(&mut self) {
        self.log.rest();
        if self.fifo.is_empty() && self.fifo.capacity() > ROOM_KEPT {
            self.fifo = VecDeque::new();
        }
    }

    /// Since when the server owes a sign of life, if an answer is due.
    pub fn silent_since(&self) -> Option<Time> {
        let head = self.fifo.front()?;
        Some(head.sent.max(self.last_received).max(self.last_progress))
    }

    /// Bytes left for the server at `now`. Only those of the oldest request are a sign of life: a stopped server's kernel
    /// goes on taking new ones for a while.
    pub fn note_progress(&mut self, was_sent: bool, written: usize, now: Time) {
        if !was_sent {
            self.last_progress = now;
            self.note_moved(written, now);
        }
    }

    /// The server sent so many bytes, or took them of the oldest request.
    #[inline]
    pub fn note_moved(&mut self, bytes: usize, now: Time) {
        self.moved += bytes;
        if self.moved >= MOVES_MIN {
            self.moved = 0;
            self.moving = now;
        }
    }

    /// Since when the time limit of `flight` counts: since it left, and since bytes of whatever moved in numbers.
    pub fn waits_since(&self, flight: &InFlight) -> Time {
        if is(Sabotage::QueueIsLate) {
            return flight.queued;
        }
        flight.sent.max(self.moving)
    }

    /// How many requests the kernel did not take when it was last written to.
    pub fn left_behind(&self) -> usize {
        if !self.is_blocked {
            return 0;
        }
        let behind = self.fifo.iter().rev();
        behind
            .take_while(|flight| !self.log.is_sent(flight.end))
            .count()
    }

    /// Of the last `behind` requests some may have left now.
    pub fn note_sent(&mut self, behind: usize, now: Time) {
        for flight in self.fifo.iter_mut().rev().take(behind) {
            if self.log.is_sent(flight.end) {
                flight.sent = now;
            }
        }
    }

    /// Whether the oldest request has left completely.
    pub fn head_is_sent(&self) -> bool {
        self.fifo
            .front()
            .is_none_or(|head| self.log.is_sent(head.end))
    }

    /// Empties it; what was in flight, and the log that holds its bytes, are handed out.
    pub fn reset(&mut self, memory: &mut Memory) -> (VecDeque<InFlight>, RequestLog) {
        memory.give(self.partial.len());
        let old = std::mem::replace(self, Link::new());
        for flight in &old.fifo {
            memory.give((flight.end - flight.start) as usize);
        }
        self.dirty = old.dirty;
        (old.fifo, old.log)
    }
}

/// A memcached server.
#[derive(Debug)]
pub struct Server {
    /// `host:port`, as given.
    pub name: String,
    /// Its place among the sorted names of the pool's servers; none when it is only left from the list before.
    pub place: Option<u16>,
    /// How many of `links` carry requests; the one behind them lists keys now and then.
    pub conns: usize,
    /// Given by `-s` (else by `-b`).
    pub is_primary: bool,
    /// What is known of it.
    pub state: State,
    /// Since when.
    pub since: Time,
    /// Its connections.
    pub links: Vec<Link>,
    /// Pause before the next attempt.
    pub retry: Span,
    /// It has answered a client's request since it is up.
    pub proven: bool,
    /// How often in a row it was lost before it had, though it was asked.
    pub relapsed: u32,
    /// The same since the start.
    pub relapses: u64,
    /// When the last attempt to reach it began.
    pub attempted: Time,
    /// When it was last called for a takeover.
    pub called: Option<Time>,
    /// It has answered or failed at least once.
    pub tried: bool,
    /// What it said to `version`, numbers only.
    pub version: Option<[u32; 3]>,
    /// It is a proxy like this one.
    pub is_magent: bool,
    /// What is under way, and how much may be.
    pub window: Window,
    /// What names it in CAS tokens.
    pub tag: Tag,
    /// The last stamp seen on it, or written to it.
    pub stamp: Option<Stamp>,
    /// The lists of servers that it names.
    pub named: Named,
    /// It came with a reload: nothing is known of what it holds.
    pub joined: bool,
    /// It was stamped while another set of connections to it, now gone, had missed something.
    pub owes: bool,
    /// The name that it is used by, where that had to be found out.
    pub twin_of: Option<String>,
    /// What is to be seen by this name if it is another server; empty: nothing is looked for.
    pub mark: String,
    /// What it has been compared with, since it was connected to.
    pub compared: Vec<usize>,
    /// Keys that it held have gone elsewhere, with another ring, and it may hold what they were then. Should they come back to
    /// it, that is old.
    pub leftovers: bool,
    /// The view that was raised without it, since it was last used.
    pub left_out: View,
    /// When the stamp was last asked for, of the answers that came.
    pub stamp_asked: Time,
    /// Stamps on their way to it: what it says of its stamp meanwhile is old.
    pub restamps: u16,
    /// When its process started (seconds since 1970) and its process id.
    pub process: Option<(u64, u64)>,
    /// The process that was last in use.
    pub known_process: Option<(u64, u64)>,
    /// Items it held when it was connected to.
    pub items: Option<u64>,
    /// It may lack what its peers hold.
    pub cold: bool,
    /// Keys whose writes it missed, or may have carried out unheard.
    pub journal: Journal,
    /// It was lost with writes in flight, which a process that was only stopped may still carry out when it goes on.
    pub doubtful: bool,
    /// It was lost for its silence alone, with nothing in flight that changes it, while this proxy served: what its kernel
    /// holds changes nothing either.
    pub only_late: bool,
    /// The view when it was lost.
    pub lost_in: View,
    /// This proxy served then.
    pub lost_serving: bool,
    /// When it has had the time for that; and that it has.
    pub settled_at: Option<Time>,
    /// See `settled_at`.
    pub settled: bool,
    /// Answers due before it is safe.
    pub entry_due: usize,
    /// What came of an answer that the proxy itself reads.
    pub answer: Vec<u8>,
    /// Requests sent to it.
    pub requests: u64,
    /// Bytes written to it and read from it, probes included.
    pub bytes_sent: u64,
    /// See `bytes_sent`.
    pub bytes_received: u64,
    /// How often it was lost or not reached, by [`CloseReason`].
    pub failures: [u64; CloseReason::ALL.len()],
    /// Requests that were not answered in time.
    pub timeouts: u64,
    /// From queueing a request to its answer.
    pub latency: Latency,
}

impl Server {
    /// A server that has not been tried: name and place.
    pub fn new(
        (name, place): (String, Option<u16>),
        is_primary: bool,
        conns: usize,
        journal_keys: usize,
        now: Time,
    ) -> Server {
        Server {
            name,
            place,
            conns,
            is_primary,
            state: State::Down(now),
            since: now,
            links: (0..=conns).map(|_| Link::new()).collect(),
            retry: RETRY_FIRST,
            proven: false,
            relapsed: 0,
            relapses: 0,
            attempted: now,
            called: None,
            tried: false,
            version: None,
            is_magent: false,
            window: Window::new(),
            tag: Tag::none(),
            stamp: None,
            named: Named::default(),
            joined: false,
            owes: false,
            twin_of: None,
            mark: String::new(),
            compared: Vec::new(),
            leftovers: false,
            left_out: View::default(),
            stamp_asked: now,
            restamps: 0,
            process: None,
            known_process: None,
            items: None,
            cold: false,
            journal: Journal::new(journal_keys),
            doubtful: false,
            only_late: false,
            lost_in: View::default(),
            lost_serving: false,
            settled_at: None,
            settled: false,
            entry_due: 0,
            answer: Vec::new(),
            requests: 0,
            bytes_sent: 0,
            bytes_received: 0,
            failures: [0; CloseReason::ALL.len()],
            timeouts: 0,
            latency: Latency::default(),
        }
    }

    /// It takes the place of `old`, which is the same server with other connections.
    pub fn take_over(&mut self, old: Server) {
        self.known_process = old.known_process;
        self.doubtful |= old.doubtful;
        self.left_out = old.left_out;
        self.lost_in = old.lost_in;
        self.lost_serving = old.lost_serving;
        self.cold |= old.cold;
        self.leftovers |= old.leftovers;
        self.called = old.called;
        if old.is_up() && old.journal.is_empty() {
            return;
        }
        self.owes = !old.journal.is_empty();
        self.journal = old.journal;
        if self.is_up() {
            // Not before what it missed has been deleted there.
            self.state = State::Waiting;
        }
    }

    /// It is not used before all that it holds is gone.
    pub fn distrust(&mut self) {
        self.owes = true;
        self.journal.forget();
        if self.is_up() {
            self.state = State::Waiting;
        }
    }

    /// Whether it is looked at whether it is another one by a second name.
    pub fn is_being_proven(&self) -> bool {
        self.state == State::Connecting && !self.mark.is_empty()
    }

    /// Whether it is used, or another one for it.
    pub fn is_up_or_twin(&self) -> bool {
        self.is_up() || self.state == State::Twin
    }

    /// Whether it is used.
    pub fn is_up(&self) -> bool {
        self.state == State::Up
    }

    /// The connection that carries a key with this hash: always the same one.
    pub fn conn_of(&self, hash: u32) -> usize {
        // The low bits choose the server; the high ones are left.
        (hash >> 16) as usize % self.conns
    }

    /// The view it last took part in.
    pub fn view(&self) -> View {
        self.stamp.as_ref().map(|s| s.view).unwrap_or_default()
    }

    /// It has answered a client's request.
    pub fn prove(&mut self) {
        self.proven = true;
        self.relapsed = 0;
        self.retry = RETRY_FIRST;
    }

    /// It is lost. One that was used and answers signs of life only pays each client that asks it a time limit, each time that it is let
    /// in: so it stays out for longer each time, until it has answered a client. True: it is such a one.
    pub fn relapses(&mut self) -> bool {
        if !self.is_up() || self.proven {
            return false;
        }
        let mut flights = self.links.iter().flat_map(|link| &link.fifo);
        if !flights.any(|flight| flight.txn.is_some()) {
            self.retry = RETRY_FIRST;
            return false;
        }
        self.relapsed += 1;
        self.relapses += 1;
        true
    }

    /// Whether its connections answer.
    pub fn is_connected(&self) -> bool {
        matches!(self.state, State::Waiting | State::Entering | State::Up)
    }

    /// Requests in flight on all connections.
    pub fn in_flight(&self) -> usize {
        self.links[..self.conns]
            .iter()
            .map(|link| link.fifo.len())
            .sum()
    }

    /// How often a `flush_all` that is answered is said again.
    ///
    /// Since it has explicit CAS, memcached removes what was stored within the last second by walking over it, and passes
    /// over an item that another of its threads has locked just then, as one that lists keys or orders them by age
    /// does. Of 95,000 items set, flushed and read while another connection listed the keys, memcached 1.6.38 kept 610;
    /// 2 when it was told twice, none when told three times.
    pub fn flush_repeats(&self) -> u8 {
        match self.version {
            Some(version) if version < FLUSH_WALKS_SINCE => 0,
            _ => 2,
        }
    }

    /// The name of its connection `conn`.
    pub fn link_id(index: usize, conn: usize) -> LinkId {
        LinkId {
            server: index as u16,
            conn: conn as u16,
        }
    }
}
