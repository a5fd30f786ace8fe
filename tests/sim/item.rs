//! What one command does to one item, and what memcached says to it. Used twice: the model server keeps its items with
//! it, and the history check asks it which replies were possible. `real.rs` compares it with a real memcached.

use std::fmt;
use std::rc::Rc;

use super::meta::{arithmetic, meta_delete, meta_get, meta_tail};
use super::request::{parse, Bytes, Request, Verb};

/// memcached takes times to live beyond this for points in time.
const MONTH: i64 = 60 * 60 * 24 * 30;

/// What a server holds for a key.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Item {
    pub value: Bytes,
    pub flags: u32,
    /// Seconds since 1970; 0: never.
    pub exp: i64,
    /// The version. 0 (in the history check): not known.
    pub cas: u64,
    pub stale: bool,
    /// Somebody was told to refill it.
    pub token_sent: bool,
    pub fetched: bool,
    /// The key came in base64, and goes out so.
    pub base64: bool,
    /// When it was written, or (about) last read.
    pub used: i64,
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.value[..self.value.len().min(60)].escape_ascii();
        write!(
            f,
            "\"{value}\" flags {} exp {} cas {}",
            self.flags, self.exp, self.cas
        )?;
        let marks = [
            (self.stale, " stale"),
            (self.token_sent, " refill given"),
            (self.base64, " base64"),
        ];
        marks
            .iter()
            .filter(|(is, _)| *is)
            .try_for_each(|(_, mark)| f.write_str(mark))
    }
}

impl Item {
    /// It is read. memcached notes the time only now and then.
    pub(super) fn bump(&mut self, now: i64) {
        self.fetched = true;
        if self.used + 60 <= now {
            self.used = now;
        }
    }
}

/// What a command needs to know of its server.
#[derive(Clone, Debug)]
pub struct Env {
    /// Seconds since 1970.
    pub now: i64,
    /// When the process started.
    pub started: i64,
    /// The last version given out.
    pub cas: u64,
    /// Largest item, counted as memcached counts.
    pub item_max: usize,
}

impl Env {
    pub(super) fn next_cas(&mut self) -> u64 {
        self.cas += 1;
        self.cas
    }

    /// The point in time that `exptime` means; 0: never.
    pub fn moment(&self, exptime: i64) -> i64 {
        match exptime {
            0 => 0,
            ..0 => 1,
            e if e > MONTH && e <= self.started => 1,
            e if e > MONTH => e,
            e => self.now + e,
        }
    }
}

/// Whether an item with this time to live is gone.
pub fn is_expired(exp: i64, now: i64) -> bool {
    exp != 0 && exp <= now
}

/// Does what `request` says to the item of its key `index`, and writes the reply (of a retrieval: the block of this key)
/// as if it were not quiet, unless it is a quiet meta command: those are silent where memcached is silent.
pub fn apply(
    item: &mut Option<Item>,
    request: &Request,
    index: usize,
    env: &mut Env,
    out: &mut Vec<u8>,
) {
    if item
        .as_ref()
        .is_some_and(|item| is_expired(item.exp, env.now))
    {
        *item = None;
    }
    match request.verb {
        verb if verb.is_retrieval() => retrieve(item, request, index, env, out),
        Verb::Mg => meta_get(item, request, env, out),
        Verb::Md => meta_delete(item, request, env, out),
        Verb::Ma => arithmetic(item, request, env, out),
        Verb::Incr | Verb::Decr => arithmetic(item, request, env, out),
        verb if verb.is_storage() => store(item, request, env, out),
        Verb::Delete => {
            let line: &[u8] = if item.take().is_some() {
                b"DELETED\r\n"
            } else {
                b"NOT_FOUND\r\n"
            };
            out.extend_from_slice(line);
        }
        Verb::Touch => match item {
            Some(item) => {
                item.exp = env.moment(request.exptime);
                item.fetched = true;
                out.extend_from_slice(b"TOUCHED\r\n");
            }
            None => out.extend_from_slice(b"NOT_FOUND\r\n"),
        },
        Verb::FlushAll => {
            *item = None;
            out.extend_from_slice(b"OK\r\n");
        }
        _ => {}
    }
}

pub(super) fn push(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    use std::io::Write;
    out.write_fmt(text)
        .expect("writing to a vector cannot fail");
}

fn retrieve(
    item: &mut Option<Item>,
    request: &Request,
    index: usize,
    env: &Env,
    out: &mut Vec<u8>,
) {
    let Some(item) = item else { return };
    if matches!(request.verb, Verb::Gat | Verb::Gats) {
        item.exp = env.moment(request.exptime);
    }
    item.bump(env.now);
    out.extend_from_slice(b"VALUE ");
    out.extend_from_slice(&request.keys[index]);
    push(out, format_args!(" {} {}", item.flags, item.value.len()));
    if matches!(request.verb, Verb::Gets | Verb::Gats) {
        push(out, format_args!(" {}", item.cas));
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(&item.value);
    out.extend_from_slice(b"\r\n");
}

/// What an item takes besides key and value: header, CAS, and a NUL after the key.
const OVERHEAD: usize = 57;

fn store(item: &mut Option<Item>, request: &Request, env: &mut Env, out: &mut Vec<u8>) {
    let meta = request.verb == Verb::Ms;
    let flags = if meta {
        request.flag(b'F').and_then(parse).unwrap_or(0)
    } else {
        request.flags
    };
    let exptime = if meta {
        request.number(b'T').unwrap_or(0)
    } else {
        request.exptime
    };
    let size =
        OVERHEAD + request.keys[0].len() + request.value.len() + 2 + if flags != 0 { 4 } else { 0 };
    if size > env.item_max {
        out.extend_from_slice(b"SERVER_ERROR object too large for cache\r\n");
        // So that no old value stays where a new one was wanted.
        if matches!(request.verb, Verb::Set | Verb::Ms) {
            *item = None;
        }
        return;
    }
    let mode = match request.verb {
        Verb::Set => b'S',
        Verb::Add => b'E',
        Verb::Replace => b'R',
        Verb::Append => b'A',
        Verb::Prepend => b'P',
        Verb::Cas => b'C',
        _ => request.mode(),
    };
    let compare = if meta {
        request.flag(b'C').and_then(parse)
    } else {
        (mode == b'C').then_some(request.cas)
    };
    let mut fresh = Item {
        value: Rc::clone(&request.value),
        flags,
        exp: env.moment(exptime),
        cas: 0,
        stale: false,
        token_sent: false,
        fetched: false,
        base64: meta && request.flag(b'b').is_some(),
        used: env.now,
    };
    let verdict = judge(item, request, mode, compare, &mut fresh);
    if verdict == Verdict::Stored {
        let explicit = if meta {
            request.flag(b'E').and_then(parse).filter(|&cas| cas != 0)
        } else {
            None
        };
        fresh.cas = explicit.unwrap_or_else(|| env.next_cas());
    }
    let (classic, code): (&[u8], &[u8]) = match verdict {
        Verdict::Stored => (b"STORED\r\n", b"HD"),
        Verdict::NotStored => (b"NOT_STORED\r\n", b"NS"),
        Verdict::Exists => (b"EXISTS\r\n", b"EX"),
        Verdict::NotFound => (b"NOT_FOUND\r\n", b"NF"),
    };
    if !meta {
        out.extend_from_slice(classic);
    } else if !(code == b"HD" && request.flag(b'q').is_some()) {
        out.extend_from_slice(code);
        let cas = if verdict == Verdict::Stored {
            fresh.cas
        } else {
            0
        };
        meta_tail(request, request.flag(b'b').is_some(), cas, out);
    }
    if verdict == Verdict::Stored {
        *item = Some(fresh);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Stored,
    NotStored,
    Exists,
    NotFound,
}

fn judge(
    item: &Option<Item>,
    request: &Request,
    mode: u8,
    compare: Option<u64>,
    fresh: &mut Item,
) -> Verdict {
    let Some(old) = item else {
        return match (mode, compare) {
            (b'S' | b'C' | b'R', Some(_)) => Verdict::NotFound,
            (b'R' | b'A' | b'P', _) => Verdict::NotStored,
            _ => Verdict::Stored,
        };
    };
    if mode == b'E' {
        return Verdict::NotStored;
    }
    match compare {
        Some(cas) if cas == old.cas => {}
        // A lower version may be put in as stale; it keeps the time to live.
        Some(cas) if cas < old.cas && cas != 0 && request.flag(b'I').is_some() => {
            fresh.exp = old.exp;
            fresh.stale = true;
            fresh.token_sent = old.token_sent;
        }
        Some(_) => return Verdict::Exists,
        None => {}
    }
    if matches!(mode, b'A' | b'P') {
        let (first, second) = if mode == b'A' {
            (&old.value, &fresh.value)
        } else {
            (&fresh.value, &old.value)
        };
        fresh.value = first.iter().chain(second.iter()).copied().collect();
        fresh.flags = old.flags;
        fresh.exp = old.exp;
        fresh.base64 = false;
    }
    Verdict::Stored
}
