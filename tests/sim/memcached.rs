//! A model memcached: one process with its items. Connections feed it bytes and take its replies; each is served on its
//! own, so commands of an old connection may run after those of a new one, as with several worker threads.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::item::{self, Env, Item};
use super::request::{parse_line, Bytes, Request, Verb};

/// What one connection has sent and not been answered yet.
#[derive(Default)]
pub struct Session {
    input: Vec<u8>,
    at: usize,
    /// A storage command whose data is not complete.
    pending: Option<Request>,
}

/// What a server may do wrong in a planted bug.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lie {
    /// Writes are answered and forgotten.
    Forget,
    /// A value that is there is not replaced.
    KeepFirst,
    /// Items without end get one.
    Timed,
    /// `append` and `incr` are carried out twice.
    Twice,
    /// A read finds what was there before the last write.
    Stale,
    /// A read finds another key's value.
    WrongKey,
    AddOverwrites,
    OldVersion,
}

/// One process.
pub struct Memcached {
    pub version: [u32; 3],
    pub env: Env,
    pub items: BTreeMap<Bytes, Item>,
    /// A `flush_all` with a delay: what was used up to then is gone from then on.
    flush_at: Option<i64>,
    pid: u32,
    /// It has no memory for a new item now.
    pub is_full: bool,
    /// What it does wrong now.
    pub lie: Option<Lie>,
    /// What the last write replaced.
    before: Option<(Bytes, Option<Item>)>,
    /// Commands carried out.
    pub commands: u64,
}

impl Memcached {
    /// A fresh process, started at the unix time `now`.
    pub fn new(version: [u32; 3], pid: u32, now: i64, item_max: usize) -> Memcached {
        Memcached {
            version,
            env: Env {
                now,
                started: now,
                cas: 0,
                item_max,
            },
            items: BTreeMap::new(),
            flush_at: None,
            pid,
            is_full: false,
            lie: None,
            before: None,
            commands: 0,
        }
    }

    /// Its clock.
    pub fn set_now(&mut self, now: i64) {
        self.env.now = now;
        if let Some(at) = self.flush_at.filter(|&at| at <= now) {
            self.items.retain(|_, item| item.used > at);
        }
    }

    /// Takes bytes of a connection and carries out at most `limit` commands. True: complete commands may be left.
    pub fn serve(
        &mut self,
        session: &mut Session,
        bytes: &[u8],
        limit: usize,
        out: &mut Vec<u8>,
    ) -> bool {
        session.input.extend_from_slice(bytes);
        for _ in 0..limit {
            if !self.step(session, out) {
                session.input.drain(..session.at);
                session.at = 0;
                return false;
            }
        }
        true
    }

    /// Carries out the next command, if it is complete.
    fn step(&mut self, session: &mut Session, out: &mut Vec<u8>) -> bool {
        if session.pending.is_none() {
            let rest = &session.input[session.at..];
            let Some(newline) = memchr::memchr(b'\n', rest) else {
                return false;
            };
            let line = rest[..newline]
                .strip_suffix(b"\r")
                .unwrap_or(&rest[..newline]);
            let request = parse_line(line, self.version >= [1, 6, 27]);
            session.at += newline + 1;
            let swallows = request.verb.is_storage()
                || (matches!(request.verb, Verb::Bad(_)) && request.data_len > 0);
            if !swallows {
                self.run(&request, out);
                return true;
            }
            session.pending = Some(request);
        }
        let Some(request) = &mut session.pending else {
            return false;
        };
        let need = request.data_len + 2;
        let rest = &session.input[session.at..];
        if rest.len() < need {
            return false;
        }
        if &rest[need - 2..need] == b"\r\n" {
            request.value = Rc::from(&rest[..need - 2]);
        } else {
            request.verb = Verb::Bad(b"CLIENT_ERROR bad data chunk\r\n");
        }
        session.at += need;
        if let Some(request) = session.pending.take() {
            self.run(&request, out);
        }
        true
    }

    fn run(&mut self, request: &Request, out: &mut Vec<u8>) {
        self.commands += 1;
        let before = out.len();
        match request.verb {
            Verb::Bad(line) => out.extend_from_slice(line),
            Verb::Mn => out.extend_from_slice(b"MN\r\n"),
            Verb::Version => {
                let [a, b, c] = self.version;
                out.extend_from_slice(format!("VERSION {a}.{b}.{c}\r\n").as_bytes());
            }
            Verb::Verbosity => out.extend_from_slice(b"OK\r\n"),
            Verb::Stats => self.stats(request, out),
            Verb::Metadump => self.metadump(out),
            Verb::FlushAll => self.flush_all(request.exptime, out),
            verb => {
                for index in 0..request.keys.len() {
                    self.on_item(request, index, out);
                }
                if verb.is_retrieval() {
                    out.extend_from_slice(b"END\r\n");
                }
            }
        }
        if request.noreply {
            out.truncate(before);
        }
    }

    fn on_item(&mut self, request: &Request, index: usize, out: &mut Vec<u8>) {
        if let Some(lie) = self.lie {
            return self.on_item_wrongly(lie, request, index, out);
        }
        let key = &request.keys[index];
        if self.is_full && request.verb.is_storage() {
            out.extend_from_slice(b"SERVER_ERROR out of memory storing object\r\n");
            // As when it is too large: no old value stays where a new one was wanted.
            if matches!(request.verb, Verb::Set | Verb::Ms) {
                self.items.remove(key);
            }
            return;
        }
        if let Some(place) = self.items.get_mut(key) {
            // Lent out as an option; the entry itself goes only when the command took the item away.
            let mut item = Some(place.clone());
            item::apply(&mut item, request, index, &mut self.env, out);
            match item {
                Some(item) => *place = item,
                None => {
                    self.items.remove(key);
                }
            }
        } else {
            let mut item = None;
            item::apply(&mut item, request, index, &mut self.env, out);
            if let Some(item) = item {
                self.items.insert(Rc::clone(key), item);
            }
        }
    }

    /// The same with a planted bug. Kept apart so that the honest way is easy to read.
    fn on_item_wrongly(&mut self, lie: Lie, request: &Request, index: usize, out: &mut Vec<u8>) {
        let key = &request.keys[index];
        let old = self.items.get(key).cloned();
        let mut item = old.clone();
        let mut request = request.clone();
        match (lie, request.verb) {
            (Lie::Stale, Verb::Get | Verb::Gets) => {
                if let Some((_, before)) = self.before.as_ref().filter(|(name, _)| name == key) {
                    item = before.clone();
                }
            }
            (Lie::WrongKey, Verb::Get | Verb::Gets) => {
                item = self.items.values().next().cloned();
            }
            (Lie::AddOverwrites, Verb::Add) => request.verb = Verb::Set,
            (Lie::OldVersion, Verb::Cas) => request.cas = old.as_ref().map_or(0, |old| old.cas),
            _ => {}
        }
        item::apply(&mut item, &request, index, &mut self.env, out);
        let writes = !request.verb.is_retrieval() && request.verb != Verb::Mg;
        match lie {
            Lie::Forget if writes => item = old.clone(),
            Lie::KeepFirst if writes && old.is_some() && item.is_some() => item = old.clone(),
            Lie::Timed if writes && old.is_none() => {
                if let Some(item) = item.as_mut().filter(|item| item.exp == 0) {
                    item.exp = self.env.now + 1000;
                }
            }
            Lie::Twice
                if matches!(
                    request.verb,
                    Verb::Append | Verb::Prepend | Verb::Incr | Verb::Ma
                ) =>
            {
                item::apply(&mut item, &request, index, &mut self.env, &mut Vec::new());
            }
            Lie::Stale | Lie::WrongKey if !writes => item = old.clone(),
            _ => {}
        }
        if writes {
            self.before = Some((Rc::clone(key), old));
        }
        match item {
            Some(item) => self.items.insert(Rc::clone(key), item),
            None => self.items.remove(key),
        };
    }

    fn flush_all(&mut self, delay: i64, out: &mut Vec<u8>) {
        if delay > 0 {
            // What is written before that second is over goes too.
            self.flush_at = Some(self.env.now + delay - 1);
            self.set_now(self.env.now);
        } else {
            self.flush_at = None;
            self.items.clear();
            // Older items are told by their version, so it takes one.
            self.env.cas += 1;
        }
        out.extend_from_slice(b"OK\r\n");
    }

    fn stats(&self, request: &Request, out: &mut Vec<u8>) {
        if request.words.is_empty() {
            let (pid, uptime, time) = (self.pid, self.env.now - self.env.started, self.env.now);
            let items = self.items.len();
            let text = format!(
                "STAT pid {pid}\r\nSTAT uptime {uptime}\r\nSTAT time {time}\r\nSTAT curr_items {items}\r\n"
            );
            out.extend_from_slice(text.as_bytes());
        }
        out.extend_from_slice(b"END\r\n");
    }

    /// `lru_crawler metadump`: lines end in a bare line feed, keys are URI-encoded, live items only.
    fn metadump(&self, out: &mut Vec<u8>) {
        for (key, item) in &self.items {
            if item::is_expired(item.exp, self.env.now) {
                continue;
            }
            out.extend_from_slice(b"key=");
            for &byte in key.iter() {
                if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                    out.push(byte);
                } else {
                    out.extend_from_slice(format!("%{byte:02X}").as_bytes());
                }
            }
            let exp = if item.exp == 0 { -1 } else { item.exp };
            let fetch = if item.fetched { "yes" } else { "no" };
            let size = 57 + key.len() + item.value.len() + 2;
            let text = format!(
                " exp={exp} la={} cas={} fetch={fetch} cls=1 size={size}\n",
                item.used, item.cas
            );
            out.extend_from_slice(text.as_bytes());
        }
        out.extend_from_slice(b"END\r\n");
    }
}
