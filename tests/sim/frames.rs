//! Clients that speak the binary protocol. Each frame stands for a request in words, as docs/protocol.md says, and each response
//! is put into the words that it stands for: so the model and the search for an order are those of the text protocol, and
//! clients of both kinds are checked together. Written apart from `magent::proto`, whose mistakes it must not share.

use super::generate::{key, Generator};
use super::reply::Taken;
use super::request::{Request, Verb};
use super::rng::Rng;

const HEADER: usize = 24;
/// The expiry that says to a counter: do not create.
const NO_CREATION: u32 = u32::MAX;

/// What a frame asked, besides what its words say.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    opcode: u8,
    opaque: u32,
    /// Says nothing of a success, or of a miss.
    quiet: bool,
}

/// A frame that was made.
pub struct Made {
    /// Where it ends.
    pub end: usize,
    /// The request that it stands for, in words.
    pub text: Vec<u8>,
    pub asked: Asked,
}

/// What is put into a frame.
struct Draft<'a> {
    opcode: u8,
    quiet: bool,
    cas: u64,
    extras: &'a [u8],
    key: &'a str,
    value: &'a str,
}

fn plain(opcode: u8) -> Draft<'static> {
    Draft {
        opcode,
        quiet: false,
        cas: 0,
        extras: b"",
        key: "",
        value: "",
    }
}

impl Generator {
    /// Appends a frame, or a run of quiet ones with a noop behind them.
    pub fn push_frames(&mut self, out: &mut Vec<u8>, made: &mut Vec<Made>) {
        let index = self.rng.index(self.keys);
        let flushes = std::mem::take(&mut self.flush_next);
        if flushes || (self.flushes > 0 && self.rng.one_in(self.flushes)) {
            let extras: &[u8] = if self.rng.one_in(2) { b"" } else { &[0; 4] };
            let draft = Draft {
                extras,
                ..plain(0x08)
            };
            return self.put(draft, "flush_all\r\n".into(), out, made);
        }
        match self.rng.below(20) {
            0..14 => self.push_frame(index, false, out, made),
            14..18 => {
                let most = self.rng.pick(&[2, 5, 5, 20]);
                for _ in 0..self.rng.range(1, most) {
                    let index = self.rng.index(self.keys);
                    self.push_frame(index, true, out, made);
                }
                self.put(plain(0x0a), "mn\r\n".into(), out, made);
            }
            _ => {
                let (opcode, line) = self.rng.pick(&[
                    (0x0a, "mn\r\n"),
                    (0x0b, "version\r\n"),
                    (0x10, "stats\r\n"),
                    (0x30, "nonsense\r\n"),
                ]);
                self.put(plain(opcode), line.into(), out, made);
            }
        }
    }

    fn put(&mut self, draft: Draft<'_>, text: String, out: &mut Vec<u8>, made: &mut Vec<Made>) {
        self.count += 1;
        let opaque = (self.name << 24) as u32 ^ self.count as u32;
        let body = draft.extras.len() + draft.key.len() + draft.value.len();
        out.extend_from_slice(&[0x80, draft.opcode]);
        out.extend_from_slice(&(draft.key.len() as u16).to_be_bytes());
        out.extend_from_slice(&[draft.extras.len() as u8, 0, 0, 0]);
        out.extend_from_slice(&(body as u32).to_be_bytes());
        out.extend_from_slice(&opaque.to_be_bytes());
        out.extend_from_slice(&draft.cas.to_be_bytes());
        out.extend_from_slice(draft.extras);
        out.extend_from_slice(draft.key.as_bytes());
        out.extend_from_slice(draft.value.as_bytes());
        made.push(Made {
            end: out.len(),
            text: text.into_bytes(),
            asked: Asked {
                opcode: draft.opcode,
                opaque,
                quiet: draft.quiet,
            },
        });
    }

    /// A time to live, as a frame and as words have it. There are none that have passed: they would be far in the future.
    fn ttl(&mut self) -> (u32, i64) {
        match self.exptime() {
            -1 => (u32::MAX, 0),
            ttl => (ttl as u32, ttl),
        }
    }

    /// Once in `times` a version to be compared with, else 0; and the word for it.
    fn compared(&mut self, index: usize, times: u64) -> (u64, String) {
        if !self.rng.one_in(times) {
            return (0, String::new());
        }
        let token = self.token(index);
        (token, format!(" C{token}"))
    }

    fn push_frame(&mut self, index: usize, quiet: bool, out: &mut Vec<u8>, made: &mut Vec<Made>) {
        let name = key(index);
        let of =
            |rng: &mut Rng, loud: &[u8], silent: &[u8]| rng.pick(if quiet { silent } else { loud });
        let q = if quiet { " q" } else { "" };
        let mut draft = Draft {
            quiet,
            key: &name,
            ..plain(0)
        };
        match self.rng.below(20) {
            0..6 => {
                draft.opcode = of(&mut self.rng, &[0x00, 0x0c], &[0x09, 0x0d]);
                self.put(draft, format!("gets {name}\r\n"), out, made);
            }
            6..9 => {
                let (mut frame, mut ttl) = self.ttl();
                draft.opcode = of(&mut self.rng, &[0x1c, 0x1d, 0x23], &[0x1e, 0x24]);
                if draft.opcode != 0x1c && ttl == 2_592_001 && !self.deadly_gats {
                    (frame, ttl) = (0, 0);
                }
                let extras = frame.to_be_bytes();
                draft.extras = &extras;
                let text = match draft.opcode {
                    0x1c => format!("mg {name} T{ttl} f c\r\n"),
                    _ => format!("gats {ttl} {name}\r\n"),
                };
                self.put(draft, text, out, made);
            }
            9..15 => self.push_storage(index, draft, q, out, made),
            15..18 => {
                draft.opcode = of(&mut self.rng, &[0x05, 0x06], &[0x15, 0x16]);
                let creates = self.vivify && self.rng.one_in(3);
                let delta = self.rng.below(50);
                let mut extras = [delta.to_be_bytes(), 7u64.to_be_bytes()].concat();
                let ttl = if creates { 0 } else { NO_CREATION };
                extras.extend_from_slice(&ttl.to_be_bytes());
                draft.extras = &extras;
                let mode = if draft.opcode & 0x0f == 5 { "" } else { " MD" };
                let initial = if creates { " J7 N0" } else { "" };
                let (cas, compare) = self.compared(index, 8);
                draft.cas = cas;
                let text = format!("ma {name}{mode} D{delta}{initial}{compare} v c{q}\r\n");
                self.put(draft, text, out, made);
            }
            _ => {
                draft.opcode = of(&mut self.rng, &[0x04], &[0x14]);
                let (cas, compare) = self.compared(index, 6);
                draft.cas = cas;
                self.put(draft, format!("md {name}{compare}{q}\r\n"), out, made);
            }
        }
    }

    fn push_storage(
        &mut self,
        index: usize,
        draft: Draft<'_>,
        q: &str,
        out: &mut Vec<u8>,
        made: &mut Vec<Made>,
    ) {
        let kinds: [(u8, u8, &str); 7] = [
            (0x01, 0x11, ""),
            (0x01, 0x11, ""),
            (0x01, 0x11, ""),
            (0x02, 0x12, " ME"),
            (0x03, 0x13, " MR"),
            (0x0e, 0x19, " MA"),
            (0x0f, 0x1a, " MP"),
        ];
        let (loud, silent, mode) = self.rng.pick(&kinds);
        let opcode = if draft.quiet { silent } else { loud };
        let (cas, compare) = match mode {
            // With a CAS it would be no add, and no replace.
            " ME" | " MR" => (0, String::new()),
            _ => self.compared(index, 4),
        };
        let mut value = self.value();
        if loud != 0x01 {
            // Only a set that is too large removes what is there; in words all of them do.
            value.truncate(3000);
        }
        let mut extras = Vec::new();
        let mut words = String::new();
        if matches!(loud, 0x01..=0x03) {
            let flags = self.flags();
            let (frame, ttl) = self.ttl();
            extras.extend_from_slice(&(flags as u32).to_be_bytes());
            extras.extend_from_slice(&frame.to_be_bytes());
            words = format!(" F{flags} T{ttl}");
        }
        let (name, length) = (draft.key, value.len());
        let text = format!("ms {name} {length} c{mode}{words}{compare}{q}\r\n{value}\r\n");
        let draft = Draft {
            opcode,
            cas,
            extras: &extras,
            value: &value,
            ..draft
        };
        self.put(draft, text, out, made);
    }
}

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
    let retrieves = request.verb.is_retrieval();
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
