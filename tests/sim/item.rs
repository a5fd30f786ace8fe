//! What one command does to one item, and what memcached says to it. Used twice: the model server keeps its items with
//! it, and the history check asks it which replies were possible. `real.rs` compares it with a real memcached.

use std::rc::Rc;

use super::request::{encode, parse, Bytes, Request, Verb};

/// memcached takes times to live beyond this for points in time.
const MONTH: i64 = 60 * 60 * 24 * 30;

/// What a server holds for a key.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
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

impl Item {
    /// It is read. memcached notes the time only now and then.
    fn bump(&mut self, now: i64) {
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
    fn next_cas(&mut self) -> u64 {
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

fn push(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
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

/// The flags of a meta reply that every command knows.
fn meta_tail(request: &Request, base64: bool, cas: u64, out: &mut Vec<u8>) {
    for word in &request.words {
        match word[0] {
            b'k' => push_key(request, base64, out),
            b'O' => {
                out.push(b' ');
                out.extend_from_slice(word);
            }
            b'c' if request.verb == Verb::Ms => push(out, format_args!(" c{cas}")),
            _ => {}
        }
    }
    out.extend_from_slice(b"\r\n");
}

fn push_key(request: &Request, base64: bool, out: &mut Vec<u8>) {
    out.extend_from_slice(b" k");
    if base64 {
        out.extend_from_slice(&encode(&request.keys[0]));
        out.extend_from_slice(b" b");
    } else {
        out.extend_from_slice(&request.keys[0]);
    }
}

fn meta_get(item: &mut Option<Item>, request: &Request, env: &mut Env, out: &mut Vec<u8>) {
    let created = item.is_none() && request.flag(b'N').is_some();
    if created {
        *item = Some(Item {
            value: Rc::from(&b""[..]),
            flags: 0,
            // Until the flag has its turn.
            exp: 0,
            cas: env.next_cas(),
            stale: false,
            token_sent: false,
            fetched: false,
            // Not even when the key came so.
            base64: false,
            used: env.now,
        });
    }
    let Some(item) = item else {
        if request.flag(b'q').is_none() {
            out.extend_from_slice(b"EN");
            meta_tail(request, request.flag(b'b').is_some(), 0, out);
        }
        return;
    };
    let with_value = request.flag(b'v').is_some();
    if with_value {
        push(out, format_args!("VA {}", item.value.len()));
    } else {
        out.extend_from_slice(b"HD");
    }
    let mut won = created;
    let now = env.now;
    for word in &request.words {
        match word[0] {
            b'T' => item.exp = env.moment(request.number(b'T').unwrap_or(0)),
            b'N' if created => item.exp = env.moment(request.number(b'N').unwrap_or(0)),
            b'R' if !item.token_sent && !created && item.exp != 0 => {
                won |= item.exp < env.moment(request.number(b'R').unwrap_or(0));
            }
            b's' => push(out, format_args!(" s{}", item.value.len())),
            b't' if item.exp == 0 => out.extend_from_slice(b" t-1"),
            b't' => push(out, format_args!(" t{}", item.exp - now)),
            b'c' => push(out, format_args!(" c{}", item.cas)),
            b'f' => push(out, format_args!(" f{}", item.flags)),
            b'l' => push(out, format_args!(" l{}", now - item.used)),
            b'h' => push(out, format_args!(" h{}", u8::from(item.fetched))),
            b'k' => push_key(request, item.base64, out),
            b'O' => {
                out.push(b' ');
                out.extend_from_slice(word);
            }
            _ => {}
        }
    }
    let tail: &[u8] = match (item.stale, item.token_sent) {
        (true, true) => b" Z X",
        (false, true) => b" Z",
        (true, false) => b" X W",
        (false, false) if won => b" W",
        (false, false) => b"",
    };
    item.token_sent |= won || item.stale;
    out.extend_from_slice(tail);
    out.extend_from_slice(b"\r\n");
    if with_value {
        out.extend_from_slice(&item.value);
        out.extend_from_slice(b"\r\n");
    }
    if request.flag(b'u').is_none() {
        item.bump(now);
    }
}

fn meta_delete(item: &mut Option<Item>, request: &Request, env: &mut Env, out: &mut Vec<u8>) {
    let base64 = request.flag(b'b').is_some();
    let compare: Option<u64> = request.flag(b'C').and_then(parse);
    let code: &[u8] = match item {
        None => b"NF",
        Some(old) if compare.is_some_and(|cas| cas != old.cas) => b"EX",
        Some(old) if request.flag(b'I').is_some() => {
            if let Some(exptime) = request.number(b'T') {
                old.exp = env.moment(exptime);
            }
            old.stale = true;
            old.token_sent = false;
            old.cas = request
                .flag(b'E')
                .and_then(parse)
                .unwrap_or_else(|| env.next_cas());
            b"HD"
        }
        Some(_) => {
            *item = None;
            b"HD"
        }
    };
    if !(code == b"HD" && request.flag(b'q').is_some()) {
        out.extend_from_slice(code);
        meta_tail(request, base64, 0, out);
    }
}

/// `incr`, `decr`, `ma`.
fn arithmetic(item: &mut Option<Item>, request: &Request, env: &mut Env, out: &mut Vec<u8>) {
    let meta = request.verb == Verb::Ma;
    let down = request.verb == Verb::Decr || (meta && matches!(request.mode(), b'D' | b'-'));
    let delta = if meta {
        request.flag(b'D').and_then(parse).unwrap_or(1)
    } else {
        request.delta
    };
    let Some(old) = item else {
        return match request.number(b'N') {
            Some(exptime) if meta => {
                let initial: u64 = request.flag(b'J').and_then(parse).unwrap_or(0);
                *item = Some(Item {
                    value: initial.to_string().into_bytes().into(),
                    flags: 0,
                    exp: env.moment(exptime),
                    cas: env.next_cas(),
                    stale: false,
                    token_sent: false,
                    fetched: false,
                    base64: false,
                    used: env.now,
                });
                // Quiet or not: memcached tells when it made the item.
                meta_number(item, request, env, out);
            }
            _ if !meta => out.extend_from_slice(b"NOT_FOUND\r\n"),
            _ => {
                out.extend_from_slice(b"NF");
                meta_tail(request, request.flag(b'b').is_some(), 0, out);
            }
        };
    };
    let compare: Option<u64> = request.flag(b'C').and_then(parse);
    if compare.is_some_and(|cas| cas != old.cas) {
        out.extend_from_slice(b"EX");
        return meta_tail(request, old.base64, 0, out);
    }
    let digits = old.value.trim_ascii();
    let number: Option<u64> = if old.value.len() > 20 || digits.starts_with(b"+") {
        None
    } else {
        parse(digits)
    };
    let Some(number) = number else {
        let line = b"CLIENT_ERROR cannot increment or decrement non-numeric value\r\n";
        return out.extend_from_slice(line);
    };
    let number = if down {
        number.saturating_sub(delta)
    } else {
        number.wrapping_add(delta)
    };
    let mut text = number.to_string().into_bytes();
    // It is written in place when it fits: a shorter number is followed by spaces. Else it is a new item.
    old.base64 &= text.len() <= old.value.len();
    while text.len() < old.value.len() {
        text.push(b' ');
    }
    old.value = text.into();
    old.cas = request
        .flag(b'E')
        .and_then(parse)
        .unwrap_or_else(|| env.next_cas());
    if meta {
        if let Some(exptime) = request.number(b'T') {
            old.exp = env.moment(exptime);
        }
        if request.flag(b'q').is_none() {
            meta_number(item, request, env, out);
        }
    } else {
        push(out, format_args!("{number}\r\n"));
    }
}

fn meta_number(item: &Option<Item>, request: &Request, env: &Env, out: &mut Vec<u8>) {
    let item = item.as_ref().expect("it was just written");
    let number = item.value.trim_ascii();
    let with_value = request.flag(b'v').is_some();
    if with_value {
        push(out, format_args!("VA {}", number.len()));
    } else {
        out.extend_from_slice(b"HD");
    }
    for word in &request.words {
        match word[0] {
            b't' if item.exp == 0 => out.extend_from_slice(b" t-1"),
            b't' => push(out, format_args!(" t{}", item.exp - env.now)),
            b'c' => push(out, format_args!(" c{}", item.cas)),
            b'k' => push_key(request, item.base64, out),
            b'O' => {
                out.push(b' ');
                out.extend_from_slice(word);
            }
            _ => {}
        }
    }
    out.extend_from_slice(b"\r\n");
    if with_value {
        out.extend_from_slice(number);
        out.extend_from_slice(b"\r\n");
    }
}
