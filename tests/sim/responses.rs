//! The other half of `frames`: what clients of the binary protocol hear, put into words. Written apart from `magent::proto`,
//! whose mistakes it must not share.

use super::frames::Asked;
use super::reply::Taken;
use super::request::{Request, Verb};

const HEADER: usize = 24;

/// A response at the front of the stream.
struct Response<'a> {
    opcode: u8,
    status: u16,
    opaque: u32,
    cas: u64,
    extras: &'a [u8],
    key: &'a [u8],
    value: &'a [u8],
    length: usize,
}

/// `None`: it is not complete.
fn response(bytes: &[u8]) -> Result<Option<Response<'_>>, &'static str> {
    let Some(head) = bytes.first_chunk::<HEADER>() else {
        return Ok(None);
    };
    let number = |at: usize, count: usize| {
        head[at..at + count]
            .iter()
            .fold(0, |sum: u64, &byte| sum << 8 | u64::from(byte))
    };
    if head[0] != 0x81 || head[5] != 0 {
        return Err("no response");
    }
    let (key, extras, body) = (
        number(2, 2) as usize,
        usize::from(head[4]),
        number(8, 4) as usize,
    );
    if key + extras > body || body > 1 << 21 {
        return Err("lengths that do not add up");
    }
    let Some(all) = bytes.get(HEADER..HEADER + body) else {
        return Ok(None);
    };
    Ok(Some(Response {
        opcode: head[1],
        status: number(6, 2) as u16,
        opaque: number(12, 4) as u32,
        cas: number(16, 8),
        extras: &all[..extras],
        key: &all[extras..extras + key],
        value: &all[extras + key..],
        length: HEADER + body,
    }))
}

/// Reads the reply to `request`, which was asked as `asked`, at the front of `bytes`; in words, if it is there.
pub fn take(asked: Asked, request: &Request, bytes: &[u8]) -> (Taken, Vec<u8>) {
    let mut at = 0;
    let mut text = Vec::new();
    loop {
        let response = match response(&bytes[at..]) {
            Ok(Some(response)) => response,
            Ok(None) => return (Taken::Partial, text),
            Err(why) => return (Taken::Wrong(why), text),
        };
        if asked.quiet && at == 0 && response.opaque != asked.opaque {
            return (Taken::Silent, text);
        }
        if response.opaque != asked.opaque || response.opcode != asked.opcode {
            return (Taken::Wrong("a response to something else"), text);
        }
        at += response.length;
        let more = match words(asked, request, &response, &mut text) {
            Ok(more) => more,
            Err(why) => return (Taken::Wrong(why), text),
        };
        if !more {
            return (Taken::Whole(at), text);
        }
    }
}

/// Appends what the response says in words. True: another one follows.
fn words(
    asked: Asked,
    request: &Request,
    response: &Response<'_>,
    out: &mut Vec<u8>,
) -> Result<bool, &'static str> {
    // A key that is no word is asked for with `mg`, in words.
    let retrieves =
        !matches!(asked.opcode, 0x1c) && (request.verb.is_retrieval() || request.verb == Verb::Mg);
    let wants_key = matches!(asked.opcode, 0x0c | 0x0d | 0x23 | 0x24);
    let may_have_key = (wants_key && response.status <= 1) || request.verb == Verb::Stats;
    if may_have_key == response.key.is_empty() && request.verb != Verb::Stats {
        return Err("a key where none belongs, or none where one does");
    }
    if wants_key && may_have_key && response.key != &request.keys[0][..] {
        return Err("another key");
    }
    if response.status != 0 {
        if response.cas != 0 || !response.extras.is_empty() {
            return Err("an error with a CAS, or with extras");
        }
        failure(request, response, out)?;
        return Ok(false);
    }
    let number = |bytes: &[u8]| {
        bytes
            .iter()
            .fold(0, |sum: u64, &byte| sum << 8 | u64::from(byte))
    };
    let (extras, body) = match request.verb {
        _ if retrieves => (4, None),
        Verb::Mg => (4, Some(0)),
        Verb::Ma => (0, Some(8)),
        Verb::Version | Verb::Stats => (0, None),
        _ => (0, Some(0)),
    };
    if response.extras.len() != extras || body.is_some_and(|body| body != response.value.len()) {
        return Err("a body of the wrong form");
    }
    let has_cas = retrieves || matches!(request.verb, Verb::Mg | Verb::Ms | Verb::Ma);
    if has_cas != (response.cas != 0) {
        return Err("a CAS where none belongs, or none where one does");
    }
    if asked.quiet && !retrieves {
        return Err("a quiet request was told of its success");
    }
    let cas = response.cas;
    let line = match request.verb {
        Verb::Mg if retrieves => {
            let (flags, length) = (number(response.extras), response.value.len());
            out.extend_from_slice(format!("VA {length} f{flags} c{cas}\r\n").as_bytes());
            out.extend_from_slice(response.value);
            String::new()
        }
        _ if retrieves => {
            let name = request.keys[0].escape_ascii();
            let flags = number(response.extras);
            let length = response.value.len();
            out.extend_from_slice(format!("VALUE {name} {flags} {length} {cas}\r\n").as_bytes());
            out.extend_from_slice(response.value);
            "\r\nEND".to_string()
        }
        Verb::Mg => format!("HD f{} c{cas}", number(response.extras)),
        Verb::Ms => format!("HD c{cas}"),
        Verb::Ma => {
            let text = number(response.value).to_string();
            format!("VA {} c{cas}\r\n{text}", text.len())
        }
        Verb::Md => "HD".to_string(),
        Verb::FlushAll => "OK".to_string(),
        Verb::Mn => "MN".to_string(),
        Verb::Version => format!("VERSION {}", response.value.escape_ascii()),
        Verb::Stats if response.key.is_empty() => "END".to_string(),
        Verb::Stats => {
            let (name, value) = (response.key.escape_ascii(), response.value.escape_ascii());
            format!("STAT {name} {value}")
        }
        _ => return Err("a success of what has none"),
    };
    out.extend_from_slice(line.as_bytes());
    out.extend_from_slice(b"\r\n");
    Ok(request.verb == Verb::Stats && !response.key.is_empty())
}

fn failure(
    request: &Request,
    response: &Response<'_>,
    out: &mut Vec<u8>,
) -> Result<(), &'static str> {
    let code: &[u8] = match (response.status, request.verb) {
        (1, verb) if verb.is_retrieval() => b"END",
        (1, Verb::Mg) => b"EN",
        (1, Verb::Ms) if request.mode() == b'R' => b"NS c0",
        (1, Verb::Ms) => b"NF c0",
        (1, Verb::Md | Verb::Ma) => b"NF",
        (2, Verb::Ms) if request.mode() == b'E' => b"NS c0",
        (2, Verb::Ms) => b"EX c0",
        (2, Verb::Md | Verb::Ma) => b"EX",
        (5, Verb::Ms) => b"NS c0",
        (3, _) => b"SERVER_ERROR object too large for cache",
        (4, _) => b"CLIENT_ERROR bad command line format",
        (6, Verb::Ma) => b"CLIENT_ERROR cannot increment or decrement non-numeric value",
        (0x81, _) => b"ERROR",
        (0x82, _) => b"SERVER_ERROR out of memory",
        (0x84, _) => {
            out.extend_from_slice(b"SERVER_ERROR ");
            response.value
        }
        _ => return Err("a status that this request has not"),
    };
    out.extend_from_slice(code);
    out.extend_from_slice(b"\r\n");
    Ok(())
}
