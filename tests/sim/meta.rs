//! The other half of `item`: the meta commands, and numbers, which have a meta form too.

use std::rc::Rc;

use super::item::{push, Env, Item};
use super::request::{encode, parse, Request, Verb};

/// The flags of a meta reply that every command knows.
pub(super) fn meta_tail(request: &Request, base64: bool, cas: u64, out: &mut Vec<u8>) {
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

pub(super) fn meta_get(
    item: &mut Option<Item>,
    request: &Request,
    env: &mut Env,
    out: &mut Vec<u8>,
) {
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

pub(super) fn meta_delete(
    item: &mut Option<Item>,
    request: &Request,
    env: &mut Env,
    out: &mut Vec<u8>,
) {
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
pub(super) fn arithmetic(
    item: &mut Option<Item>,
    request: &Request,
    env: &mut Env,
    out: &mut Vec<u8>,
) {
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
        let before = out.len();
        meta_number(item, request, env, out);
        if request.flag(b'q').is_some() {
            out.truncate(before);
        }
    } else {
        push(out, format_args!("{number}\r\n"));
    }
}

fn meta_number(item: &mut Option<Item>, request: &Request, env: &Env, out: &mut Vec<u8>) {
    let item = item.as_mut().expect("it was just written");
    let number = Rc::clone(&item.value);
    let number = number.trim_ascii();
    let with_value = request.flag(b'v').is_some();
    if with_value {
        push(out, format_args!("VA {}", number.len()));
    } else {
        out.extend_from_slice(b"HD");
    }
    for word in &request.words {
        match word[0] {
            b'T' => item.exp = env.moment(request.number(b'T').unwrap_or(0)),
            b't' if item.exp == 0 => out.extend_from_slice(b" t-1"),
            b't' => push(out, format_args!(" t{}", item.exp - env.now)),
            b'c' => push(out, format_args!(" c{}", item.cas)),
            b'k' => push_key(request, request.flag(b'b').is_some(), out),
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
