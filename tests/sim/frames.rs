//! Clients that speak the binary protocol. Each frame stands for a request in words, as docs/protocol.md says, and each response
//! is put into the words that it stands for (`responses`): so the model and the search for an order are those of the text
//! protocol, and clients of both kinds are checked together. Written apart from `magent::proto`, whose mistakes it must not
//! share.

use super::generate::Generator;
use super::request::encode;
use super::rng::Rng;

/// The expiry that says to a counter: do not create.
const NO_CREATION: u32 = u32::MAX;

/// What a frame asked, besides what its words say.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    pub opcode: u8,
    pub opaque: u32,
    /// Says nothing of a success, or of a miss.
    pub quiet: bool,
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
        let name = self.key(index);
        // In words that stands in base64 which is no word itself.
        let odd = self.is_odd(index);
        let (word, b64) = if odd {
            (in_base64(&name), " b")
        } else {
            (name.clone(), "")
        };
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
                let text = match odd {
                    true => format!("mg {word} b v f c{q}\r\n"),
                    false => format!("gets {name}\r\n"),
                };
                self.put(draft, text, out, made);
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
                    0x1c => format!("mg {word}{b64} T{ttl} f c\r\n"),
                    _ if odd => format!("mg {word} b T{ttl} v f c{q}\r\n"),
                    _ => format!("gats {ttl} {name}\r\n"),
                };
                self.put(draft, text, out, made);
            }
            9..15 => self.push_storage(index, draft, (&word, &format!("{b64}{q}")), out, made),
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
                let text = format!("ma {word}{b64}{mode} D{delta}{initial}{compare} v c{q}\r\n");
                self.put(draft, text, out, made);
            }
            _ => {
                draft.opcode = of(&mut self.rng, &[0x04], &[0x14]);
                let (cas, compare) = self.compared(index, 6);
                draft.cas = cas;
                self.put(draft, format!("md {word}{b64}{compare}{q}\r\n"), out, made);
            }
        }
    }

    fn push_storage(
        &mut self,
        index: usize,
        draft: Draft<'_>,
        (word, flags): (&str, &str),
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
        let length = value.len();
        let text = format!("ms {word} {length} c{mode}{words}{compare}{flags}\r\n{value}\r\n");
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

fn in_base64(key: &str) -> String {
    String::from_utf8(encode(key.as_bytes())).expect("base64 is text")
}
