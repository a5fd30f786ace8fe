//! Look-alikes of memcached for the bench: one process that answers on several ports and is
//! much cheaper than memcached, so that the proxy is the busiest process of a run. It stores
//! nothing. Values are a function of their keys, so a get is answered from the function and a
//! set is compared with it: a proxy that spoils a set is caught as surely as with a real server.
//!
//! It knows get, set, version and mn. What a proxy needs beyond that: `--real`.

use std::io::{ErrorKind, Read};
use std::net::SocketAddr;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use slab::Slab;

use crate::corpus::Corpus;
use crate::outbox::Outbox;

const SCRATCH: usize = 48 * 1024;
/// A get of some thousand keys.
const LINE_MAX: usize = 1 << 20;
/// Tokens from here on are listeners.
const LISTENERS: usize = 1 << 32;

enum State {
    Line,
    Body { key: usize, at: usize },
    AfterBody { seen: usize },
}

struct Client {
    stream: TcpStream,
    out: Outbox,
    state: State,
    partial: Vec<u8>,
    /// What is said when the value that is coming is complete.
    stored: &'static [u8],
}

/// Answers on all of `ports` until it is killed.
pub fn serve(ports: &[u16], corpus: &Corpus) -> Result<(), String> {
    let mut poll = Poll::new().map_err(|e| format!("epoll: {e}"))?;
    let mut listeners = Vec::new();
    for (i, &port) in ports.iter().enumerate() {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let mut listener =
            TcpListener::bind(address).map_err(|e| format!("bind {address}: {e}"))?;
        poll.registry()
            .register(&mut listener, Token(LISTENERS + i), Interest::READABLE)
            .map_err(|e| format!("epoll: {e}"))?;
        listeners.push(listener);
    }
    let mut clients: Slab<Client> = Slab::new();
    let mut scratch = vec![0; SCRATCH];
    let mut events = Events::with_capacity(1024);
    loop {
        match poll.poll(&mut events, None) {
            Ok(()) => {}
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            Err(e) => return Err(format!("epoll: {e}")),
        }
        for event in &events {
            let Token(at) = event.token();
            if at >= LISTENERS {
                accept(&listeners[at - LISTENERS], &mut clients, &poll)?;
                continue;
            }
            let client = &mut clients[at];
            if !client.serve(
                corpus,
                &mut scratch,
                event.is_readable(),
                event.is_read_closed(),
            ) {
                clients.remove(at);
            }
        }
    }
}

fn accept(listener: &TcpListener, clients: &mut Slab<Client>, poll: &Poll) -> Result<(), String> {
    loop {
        let mut stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(e) => return Err(format!("accept: {e}")),
        };
        stream
            .set_nodelay(true)
            .map_err(|e| format!("TCP_NODELAY: {e}"))?;
        let entry = clients.vacant_entry();
        let both = Interest::READABLE | Interest::WRITABLE;
        poll.registry()
            .register(&mut stream, Token(entry.key()), both)
            .map_err(|e| format!("epoll: {e}"))?;
        entry.insert(Client {
            stream,
            out: Outbox::default(),
            state: State::Line,
            partial: Vec::new(),
            stored: b"",
        });
    }
}

impl Client {
    /// One event's work. False: the connection is over.
    fn serve(&mut self, corpus: &Corpus, scratch: &mut [u8], readable: bool, closed: bool) -> bool {
        let mut open = true;
        while readable && open {
            match self.stream.read(scratch) {
                Ok(0) => open = false,
                Ok(n) => {
                    self.feed(&scratch[..n], corpus);
                    if n < scratch.len() && !closed {
                        break;
                    }
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => open = false,
            }
        }
        open && self.out.flush(&mut self.stream, corpus).is_ok()
    }

    fn feed(&mut self, mut bytes: &[u8], corpus: &Corpus) {
        while !bytes.is_empty() {
            bytes = match self.state {
                State::Body { key, at } => self.body(bytes, corpus, key, at),
                State::AfterBody { seen } => self.after_body(bytes, seen),
                State::Line => self.line(bytes, corpus),
            };
        }
    }

    fn body<'a>(&mut self, bytes: &'a [u8], corpus: &Corpus, key: usize, at: usize) -> &'a [u8] {
        let value = &corpus.value(key)[at..];
        let n = value.len().min(bytes.len());
        if bytes[..n] != value[..n] {
            self.refuse("the value is not the one of this key");
        }
        self.state = if n == value.len() {
            State::AfterBody { seen: 0 }
        } else {
            State::Body { key, at: at + n }
        };
        &bytes[n..]
    }

    fn after_body<'a>(&mut self, bytes: &'a [u8], seen: usize) -> &'a [u8] {
        let rest = &b"\r\n"[seen..];
        let n = rest.len().min(bytes.len());
        if bytes[..n] != rest[..n] {
            self.refuse("the value has the wrong length");
        }
        if n == rest.len() {
            self.out.small().extend_from_slice(self.stored);
            self.state = State::Line;
        } else {
            self.state = State::AfterBody { seen: seen + n };
        }
        &bytes[n..]
    }

    fn line<'a>(&mut self, bytes: &'a [u8], corpus: &Corpus) -> &'a [u8] {
        let Some(end) = memchr::memchr(b'\n', bytes) else {
            self.partial.extend_from_slice(bytes);
            if self.partial.len() > LINE_MAX {
                self.refuse("line too long");
                self.partial.clear();
            }
            return &[];
        };
        if self.partial.is_empty() {
            self.command(&bytes[..end], corpus);
        } else {
            let mut line = std::mem::take(&mut self.partial);
            line.extend_from_slice(&bytes[..end]);
            self.command(&line, corpus);
            line.clear();
            self.partial = line;
        }
        &bytes[end + 1..]
    }

    fn command(&mut self, line: &[u8], corpus: &Corpus) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if let Some(names) = line.strip_prefix(b"get ") {
            self.get(names, corpus, b"");
        } else if let Some(names) = line.strip_prefix(b"gets ") {
            self.get(names, corpus, b" 1");
        } else if let Some(rest) = line.strip_prefix(b"ms ") {
            self.meta_set(rest, corpus);
        } else if let Some(rest) = line.strip_prefix(b"set ") {
            self.set(rest, corpus);
        } else {
            let reply: &[u8] = match line {
                b"version" => b"VERSION 1.6.18\r\n",
                b"mn" => b"MN\r\n",
                _ => b"ERROR\r\n",
            };
            self.out.small().extend_from_slice(reply);
        }
    }

    /// `cas`: what stands behind the length.
    fn get(&mut self, names: &[u8], corpus: &Corpus, cas: &[u8]) {
        for name in names.split(|&b| b == b' ') {
            let Some(key) = corpus.index(name) else {
                continue;
            };
            let out = self.out.small();
            out.extend_from_slice(b"VALUE ");
            out.extend_from_slice(name);
            let end = corpus.header_end();
            out.extend_from_slice(&end[..end.len() - 2]);
            out.extend_from_slice(cas);
            out.extend_from_slice(b"\r\n");
            self.out.value(corpus, key);
            self.out.small().extend_from_slice(b"\r\n");
        }
        self.out.small().extend_from_slice(b"END\r\n");
    }

    fn set(&mut self, rest: &[u8], corpus: &Corpus) {
        let (name, end) = rest
            .split_at_checked(crate::corpus::KEY_LEN)
            .unwrap_or((rest, b""));
        // " 0" and then what also ends a VALUE line, without its end of line.
        let known = corpus.header_end();
        let as_expected = end.strip_prefix(b" 0") == Some(&known[..known.len() - 2]);
        match corpus.index(name) {
            Some(key) if as_expected => self.begin_value(key, b"STORED\r\n"),
            _ => self.refuse("a set that is none of the bench's"),
        }
    }

    /// `<key> <length> c`: what the proxy makes of a set in the binary protocol.
    fn meta_set(&mut self, rest: &[u8], corpus: &Corpus) {
        let (name, end) = rest
            .split_at_checked(crate::corpus::KEY_LEN)
            .unwrap_or((rest, b""));
        let known = format!(" {} c", corpus.size());
        match corpus.index(name) {
            Some(key) if end == known.as_bytes() => self.begin_value(key, b"HD c1\r\n"),
            _ => self.refuse("an ms that is none of the bench's"),
        }
    }

    fn begin_value(&mut self, key: usize, stored: &'static [u8]) {
        self.state = State::Body { key, at: 0 };
        self.stored = stored;
    }

    fn refuse(&mut self, why: &str) {
        let line = format!("CLIENT_ERROR look-alike: {why}\r\n");
        self.out.small().extend_from_slice(line.as_bytes());
    }
}
