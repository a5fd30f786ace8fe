//! A command as memcached understands it. Written anew and apart from `magent::proto`: the model must not share the
//! mistakes of the code under test.

use std::rc::Rc;

/// Bytes shared by request, item and history.
pub type Bytes = Rc<[u8]>;

/// The commands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verb {
    Get,
    Gets,
    Gat,
    Gats,
    Set,
    Add,
    Replace,
    Append,
    Prepend,
    Cas,
    Incr,
    Decr,
    Delete,
    Touch,
    Mg,
    Ms,
    Md,
    Ma,
    Mn,
    FlushAll,
    Version,
    Verbosity,
    Stats,
    Metadump,
    /// Refused with this line.
    Bad(&'static [u8]),
}

impl Verb {
    /// Answered by `VALUE` blocks and `END`.
    pub fn is_retrieval(self) -> bool {
        matches!(self, Verb::Get | Verb::Gets | Verb::Gat | Verb::Gats)
    }

    /// One of the keyed meta commands.
    pub fn is_meta(self) -> bool {
        matches!(self, Verb::Mg | Verb::Ms | Verb::Md | Verb::Ma)
    }

    /// Has a data block.
    pub fn is_storage(self) -> bool {
        matches!(
            self,
            Verb::Set
                | Verb::Add
                | Verb::Replace
                | Verb::Append
                | Verb::Prepend
                | Verb::Cas
                | Verb::Ms
        )
    }
}

/// One command with its data.
#[derive(Clone, Debug)]
pub struct Request {
    pub verb: Verb,
    pub keys: Vec<Bytes>,
    pub flags: u32,
    pub exptime: i64,
    pub delta: u64,
    pub cas: u64,
    pub noreply: bool,
    /// Meta commands: the words behind the key (and length), as they came.
    pub words: Vec<Bytes>,
    /// Length of the data block.
    pub data_len: usize,
    pub value: Bytes,
}

impl Request {
    /// The text of the meta flag `letter`, without the letter.
    pub fn flag(&self, letter: u8) -> Option<&[u8]> {
        let word = self.words.iter().find(|word| word[0] == letter)?;
        Some(&word[1..])
    }

    /// The number of the meta flag `letter`.
    pub fn number(&self, letter: u8) -> Option<i64> {
        parse(self.flag(letter)?)
    }

    /// The meta mode, in capitals.
    pub fn mode(&self) -> u8 {
        self.flag(b'M')
            .and_then(<[u8]>::first)
            .map_or(b'S', u8::to_ascii_uppercase)
    }

    /// `noreply` or `q`.
    pub fn is_quiet(&self) -> bool {
        self.noreply || self.flag(b'q').is_some()
    }
}

/// A number in decimal.
pub fn parse<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

const ERROR: &[u8] = b"ERROR\r\n";
const BAD_FORMAT: &[u8] = b"CLIENT_ERROR bad command line format\r\n";
const BAD_FLAG: &[u8] = b"CLIENT_ERROR invalid flag\r\n";

fn blank(verb: Verb) -> Request {
    Request {
        verb,
        keys: Vec::new(),
        flags: 0,
        exptime: 0,
        delta: 0,
        cas: 0,
        noreply: false,
        words: Vec::new(),
        data_len: 0,
        value: Rc::from(&b""[..]),
    }
}

/// Understands a line (without its end). `explicit_cas`: the server knows `E`.
pub fn parse_line(line: &[u8], explicit_cas: bool) -> Request {
    let mut words: Vec<&[u8]> = line
        .split(|&byte| byte == b' ')
        .filter(|w| !w.is_empty())
        .collect();
    let Some(&command) = words.first() else {
        return blank(Verb::Bad(ERROR));
    };
    let verb = match command {
        b"get" => Verb::Get,
        b"gets" => Verb::Gets,
        b"gat" => Verb::Gat,
        b"gats" => Verb::Gats,
        b"set" => Verb::Set,
        b"add" => Verb::Add,
        b"replace" => Verb::Replace,
        b"append" => Verb::Append,
        b"prepend" => Verb::Prepend,
        b"cas" => Verb::Cas,
        b"incr" => Verb::Incr,
        b"decr" => Verb::Decr,
        b"delete" => Verb::Delete,
        b"touch" => Verb::Touch,
        b"mg" => Verb::Mg,
        b"ms" => Verb::Ms,
        b"md" => Verb::Md,
        b"ma" => Verb::Ma,
        b"mn" => Verb::Mn,
        b"flush_all" => Verb::FlushAll,
        b"version" => Verb::Version,
        b"verbosity" => Verb::Verbosity,
        b"stats" => Verb::Stats,
        b"lru_crawler" if words.get(1) == Some(&&b"metadump"[..]) => Verb::Metadump,
        _ => return blank(Verb::Bad(ERROR)),
    };
    let mut request = blank(verb);
    if !verb.is_meta() && !verb.is_retrieval() && words.last() == Some(&&b"noreply"[..]) {
        request.noreply = true;
        words.pop();
    }
    let fine = match verb {
        v if v.is_meta() => return parse_meta(request, &words, explicit_cas),
        v if v.is_storage() => parse_storage(&mut request, &words),
        Verb::Get | Verb::Gets => {
            request.keys = words[1..].iter().map(|&key| Rc::from(key)).collect();
            words.len() > 1
        }
        Verb::Gat | Verb::Gats => {
            request.exptime = words.get(1).and_then(|text| parse(text)).unwrap_or(0);
            request.keys = words.iter().skip(2).map(|&key| Rc::from(key)).collect();
            words.len() > 2
        }
        Verb::Incr | Verb::Decr | Verb::Touch => {
            let number = words.get(2).copied().unwrap_or(b"");
            request.keys = words
                .iter()
                .skip(1)
                .take(1)
                .map(|&key| Rc::from(key))
                .collect();
            if verb == Verb::Touch {
                request.exptime = parse(number).unwrap_or(0);
            } else {
                match parse(number) {
                    Some(delta) => request.delta = delta,
                    None if words.len() == 3 => {
                        return blank(Verb::Bad(
                            b"CLIENT_ERROR invalid numeric delta argument\r\n",
                        ));
                    }
                    None => {}
                }
            }
            words.len() == 3
        }
        Verb::Delete => {
            request.keys = words
                .iter()
                .skip(1)
                .take(1)
                .map(|&key| Rc::from(key))
                .collect();
            words.len() == 2 || (words.len() == 3 && words[2] == b"0")
        }
        Verb::FlushAll => {
            request.exptime = words.get(1).and_then(|text| parse(text)).unwrap_or(0);
            words.len() < 3
        }
        Verb::Stats => {
            request.words = words[1..].iter().map(|&word| Rc::from(word)).collect();
            true
        }
        _ => true,
    };
    if !fine {
        return blank(Verb::Bad(ERROR));
    }
    if request.keys.iter().any(|key| key.len() > 250) {
        request.verb = Verb::Bad(BAD_FORMAT);
    }
    request
}

fn parse_storage(request: &mut Request, words: &[&[u8]]) -> bool {
    let needed = if request.verb == Verb::Cas { 6 } else { 5 };
    if words.len() != needed {
        return false;
    }
    request.keys = vec![Rc::from(words[1])];
    let (Some(flags), Some(exptime), Some(len)) =
        (parse(words[2]), parse(words[3]), parse(words[4]))
    else {
        request.verb = Verb::Bad(BAD_FORMAT);
        return true;
    };
    request.flags = flags;
    request.exptime = exptime;
    request.data_len = len;
    if needed == 6 {
        request.cas = parse(words[5]).unwrap_or(0);
    }
    true
}

fn parse_meta(mut request: Request, words: &[&[u8]], explicit_cas: bool) -> Request {
    let first = if request.verb == Verb::Ms { 3 } else { 2 };
    if words.len() < 2 {
        return blank(Verb::Bad(ERROR));
    }
    if words.len() < first || words[1].len() > 250 {
        return blank(Verb::Bad(BAD_FORMAT));
    }
    request.words = words[first..].iter().map(|&word| Rc::from(word)).collect();
    if request.verb == Verb::Ms {
        match parse(words[2]) {
            Some(len) => request.data_len = len,
            None => return blank(Verb::Bad(BAD_FORMAT)),
        }
    }
    let known: &[u8] = if explicit_cas {
        b"vtfckOqshluTNRFMCIbJDEx"
    } else {
        b"vtfckOqshluTNRFMCIbJD"
    };
    if request.words.iter().any(|word| !known.contains(&word[0])) {
        // memcached swallows the data of a refused `ms`; so does this one, by its length.
        request.verb = match request.verb {
            Verb::Md | Verb::Ma => Verb::Bad(b"CLIENT_ERROR invalid or duplicate flag\r\n"),
            _ => Verb::Bad(BAD_FLAG),
        };
        return request;
    }
    let key = if request.flag(b'b').is_some() {
        decode(words[1])
    } else {
        Some(words[1].to_vec())
    };
    match key {
        Some(key) => request.keys = vec![Rc::from(key)],
        None => request.verb = Verb::Bad(b"CLIENT_ERROR error decoding key\r\n"),
    }
    request
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Base64 with padding.
pub fn encode(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for chunk in bytes.chunks(3) {
        let mut group = [0; 3];
        group[..chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes([0, group[0], group[1], group[2]]);
        for place in 0..4 {
            let digit = BASE64[(bits >> (18 - 6 * place) & 63) as usize];
            out.push(if place <= chunk.len() { digit } else { b'=' });
        }
    }
    out
}

/// The opposite of [`encode`].
pub fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let digits: Vec<u32> = text
        .iter()
        .take_while(|&&byte| byte != b'=')
        .map(|byte| {
            BASE64
                .iter()
                .position(|digit| digit == byte)
                .map(|place| place as u32)
        })
        .collect::<Option<_>>()?;
    if text.is_empty() || text.len() % 4 != 0 {
        return None;
    }
    let mut out = Vec::new();
    for group in digits.chunks(4) {
        let bits = group
            .iter()
            .enumerate()
            .fold(0, |bits, (place, digit)| bits | digit << (18 - 6 * place));
        out.extend_from_slice(&bits.to_be_bytes()[1..group.len()]);
    }
    Some(out)
}

/// A whole request, its data block included, as memcached would understand it.
pub fn understand(bytes: &[u8], explicit_cas: bool) -> Request {
    let newline = memchr::memchr(b'\n', bytes).expect("requests have lines");
    let mut request = parse_line(&bytes[..newline - 1], explicit_cas);
    if bytes.len() > newline + 1 {
        request.value = Rc::from(&bytes[newline + 1..bytes.len() - 2]);
    }
    request
}

/// The beginning of `bytes`, for people.
pub fn text(bytes: &[u8]) -> String {
    let shown = bytes[..bytes.len().min(60)].escape_ascii().to_string();
    match bytes.len() {
        0..=60 => shown,
        length => format!("{shown}... ({length} bytes)"),
    }
}

/// A request for people.
pub fn show(request: &Request) -> String {
    let keys: Vec<String> = request.keys.iter().map(|key| text(key)).collect();
    let words: Vec<String> = request.words.iter().map(|word| text(word)).collect();
    format!(
        "{:?} {} flags {} exptime {} delta {} cas {} [{}] {:?}{}",
        request.verb,
        keys.join(" "),
        request.flags,
        request.exptime,
        request.delta,
        request.cas,
        words.join(" "),
        text(&request.value),
        if request.noreply { " noreply" } else { "" },
    )
}
