//! How a client cuts the stream of replies into one reply per request.

use super::request::{parse, Request, Verb};

/// What stands at the front of the stream.
#[derive(PartialEq, Eq, Debug)]
pub enum Taken {
    /// Not complete yet.
    Partial,
    /// That many bytes are the reply.
    Whole(usize),
    /// The request has none: what stands there, if anything, belongs to a later one.
    Silent,
    /// An error line that belongs to one of the quiet requests in front.
    SomebodysError(usize),
    Wrong(&'static str),
}

fn line_end(bytes: &[u8]) -> Option<usize> {
    let newline = memchr::memchr(b'\n', bytes)?;
    Some(newline + 1)
}

/// Whether this line is one of the three errors.
pub fn is_error(line: &[u8]) -> bool {
    line == b"ERROR\r\n" || line.starts_with(b"CLIENT_ERROR ") || line.starts_with(b"SERVER_ERROR ")
}

/// Reads the reply to `request` at the front of `bytes`.
pub fn take(request: &Request, bytes: &[u8]) -> Taken {
    if request.noreply {
        return Taken::Silent;
    }
    let Some(end) = line_end(bytes) else {
        return if bytes.len() > 4096 {
            Taken::Wrong("a line without end")
        } else {
            Taken::Partial
        };
    };
    let line = &bytes[..end];
    if !line.ends_with(b"\r\n") {
        return Taken::Wrong("a line that ends in a bare line feed");
    }
    if request.verb.is_meta() && request.flag(b'q').is_some() {
        if is_error(line) {
            return Taken::SomebodysError(end);
        }
        let word = request
            .words
            .iter()
            .find(|word| word[0] == b'O')
            .expect("quiet ones carry an opaque");
        let text = &line[..end - 2];
        if !text
            .split(|&byte| byte == b' ')
            .any(|part| part == &word[..])
        {
            return Taken::Silent;
        }
    }
    if is_error(line) {
        return Taken::Whole(end);
    }
    match request.verb {
        verb if verb.is_retrieval() => take_blocks(request, bytes),
        Verb::Stats => take_stats(bytes),
        Verb::Mg | Verb::Ma if line.starts_with(b"VA ") => {
            let length = line[3..end - 2]
                .split(|&byte| byte == b' ')
                .next()
                .and_then(parse::<usize>);
            match length {
                Some(length) => with_data(bytes, end, length),
                None => Taken::Wrong("VA without a length"),
            }
        }
        _ => Taken::Whole(end),
    }
}

fn with_data(bytes: &[u8], start: usize, length: usize) -> Taken {
    let end = start + length + 2;
    if bytes.len() < end {
        Taken::Partial
    } else if &bytes[end - 2..end] != b"\r\n" {
        Taken::Wrong("data without its line end")
    } else {
        Taken::Whole(end)
    }
}

/// A `VALUE` block at the front: its key, and its length in all.
pub fn block(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let end = line_end(bytes)?;
    let line = bytes[..end].strip_suffix(b"\r\n")?;
    let mut words = line.split(|&byte| byte == b' ').skip(1);
    let key = words.next()?;
    let length: usize = words.nth(1).and_then(parse)?;
    Some((key, end + length + 2))
}

fn take_blocks(request: &Request, bytes: &[u8]) -> Taken {
    let mut at = 0;
    let mut next = 0;
    loop {
        let rest = &bytes[at..];
        let Some(end) = line_end(rest) else {
            return Taken::Partial;
        };
        if &rest[..end] == b"END\r\n" {
            return Taken::Whole(at + end);
        }
        if !rest.starts_with(b"VALUE ") {
            return Taken::Wrong("neither VALUE nor END");
        }
        let Some((key, length)) = block(rest) else {
            return Taken::Wrong("a bad VALUE line");
        };
        let Some(skipped) = request.keys[next..]
            .iter()
            .position(|wanted| &wanted[..] == key)
        else {
            return Taken::Wrong("a key that was not asked for here");
        };
        next += skipped + 1;
        if rest.len() < length {
            return Taken::Partial;
        }
        if &rest[length - 2..length] != b"\r\n" {
            return Taken::Wrong("data without its line end");
        }
        at += length;
    }
}

fn take_stats(bytes: &[u8]) -> Taken {
    let mut at = 0;
    while let Some(end) = line_end(&bytes[at..]) {
        let line = &bytes[at..at + end];
        at += end;
        if line == b"END\r\n" {
            return Taken::Whole(at);
        }
        if !line.starts_with(b"STAT ") {
            return Taken::Wrong("neither STAT nor END");
        }
    }
    Taken::Partial
}
