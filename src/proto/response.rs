//! What a server answered: the first word of a line, and the head of a value block.

use super::token::{leading_decimal, leading_long_decimal, next_token, parse_decimal, Token};
use super::Verb;

/// What the first word of a reply line says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum Code {
    Stored,
    NotStored,
    Exists,
    NotFound,
    Deleted,
    Touched,
    Ok,
    /// The new value of `incr` and `decr`.
    Number,
    /// A `VALUE` block begins.
    Value,
    End,
    Version,
    /// A line of statistics, or of `stats cachedump`.
    Stat,
    /// `HD`: done, or hit without the value.
    MetaDone,
    /// `VA`: a value follows.
    MetaValue,
    /// `EN`: miss.
    MetaMiss,
    /// `NS`: not stored.
    MetaNotStored,
    /// `EX`: the CAS differs.
    MetaExists,
    /// `NF`: no such key.
    MetaNotFound,
    /// `MN`: answer to `mn`.
    MetaNoop,
    /// `ME`: answer to `me`.
    MetaDebug,
    /// `ERROR`: the server does not know the command.
    Error,
    ClientError,
    ServerError,
    /// Nothing that memcached says.
    Nonsense,
}

impl Code {
    /// One of the three error lines.
    pub fn is_error(self) -> bool {
        matches!(self, Code::Error | Code::ClientError | Code::ServerError)
    }
}

/// Reads the first word of `line` (without its end).
pub fn code(line: &[u8]) -> Code {
    let word = match line.iter().position(|&byte| byte == b' ') {
        Some(end) => &line[..end],
        None => line,
    };
    match word {
        b"STORED" => Code::Stored,
        b"END" => Code::End,
        b"VALUE" => Code::Value,
        b"HD" => Code::MetaDone,
        b"VA" => Code::MetaValue,
        b"EN" => Code::MetaMiss,
        b"NS" => Code::MetaNotStored,
        b"EX" => Code::MetaExists,
        b"NF" => Code::MetaNotFound,
        b"MN" => Code::MetaNoop,
        b"ME" => Code::MetaDebug,
        b"NOT_STORED" => Code::NotStored,
        b"EXISTS" => Code::Exists,
        b"NOT_FOUND" => Code::NotFound,
        b"DELETED" => Code::Deleted,
        b"TOUCHED" => Code::Touched,
        b"OK" => Code::Ok,
        b"VERSION" => Code::Version,
        b"STAT" | b"ITEM" => Code::Stat,
        b"ERROR" => Code::Error,
        b"CLIENT_ERROR" => Code::ClientError,
        b"SERVER_ERROR" => Code::ServerError,
        _ if parse_decimal(word).is_some() => Code::Number,
        _ => Code::Nonsense,
    }
}

/// Whether a server may answer `verb` so. What does not fit means that request and reply have lost each other, and
/// the connection must be given up before one client reads what belongs to another.
pub fn fits(verb: Verb, code: Code) -> bool {
    use Code::*;
    if code.is_error() {
        return true;
    }
    match verb {
        Verb::Get | Verb::Gets | Verb::Gat | Verb::Gats => matches!(code, Value | End),
        Verb::Set | Verb::Add | Verb::Replace | Verb::Append | Verb::Prepend => {
            matches!(code, Stored | NotStored)
        }
        Verb::Cas => matches!(code, Stored | Exists | NotFound | NotStored),
        Verb::Incr | Verb::Decr => matches!(code, Number | NotFound),
        Verb::Delete => matches!(code, Deleted | NotFound),
        Verb::Touch => matches!(code, Touched | NotFound),
        Verb::MetaGet => matches!(code, MetaDone | MetaValue | MetaMiss),
        Verb::MetaSet | Verb::MetaDelete => {
            matches!(code, MetaDone | MetaNotStored | MetaExists | MetaNotFound)
        }
        Verb::MetaArithmetic => matches!(
            code,
            MetaDone | MetaValue | MetaNotStored | MetaExists | MetaNotFound
        ),
        Verb::MetaDebug => matches!(code, MetaDebug | MetaMiss),
        Verb::MetaNoop => code == MetaNoop,
        Verb::FlushAll | Verb::Verbosity => code == Ok,
        Verb::Version => code == Version,
        Verb::Stats => matches!(code, Stat | End),
        Verb::Quit => false,
    }
}

/// Whether the reply to a conditional write says that it took effect.
pub fn took_effect(code: Code) -> bool {
    matches!(
        code,
        Code::Stored | Code::Number | Code::Touched | Code::MetaDone | Code::MetaValue
    )
}

/// The head of a `VALUE key flags length [cas]` block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ValueHead {
    /// The key's place in the line.
    pub key: Token,
    /// The client's flags.
    pub flags: u32,
    /// Length of the data without its line end.
    pub data_len: usize,
    /// The CAS, and its place in the line.
    pub cas: Option<(u64, Token)>,
}

/// Reads a `VALUE` line (without its end). `None`: it is none.
pub fn value_head(line: &[u8]) -> Option<ValueHead> {
    let key_len = memchr::memchr(b' ', line.strip_prefix(b"VALUE ")?)?;
    let end = 6 + key_len;
    // Flags and length, a few digits each, a space between them, and perhaps a CAS.
    let (flags, length_at) = leading_decimal(line, end + 1)?;
    if line.get(length_at) != Some(&b' ') {
        return None;
    }
    let (data_len, behind) = leading_decimal(line, length_at + 1)?;
    let cas = match line.get(behind) {
        None => None,
        Some(b' ') => {
            let start = behind + 1;
            leading_long_decimal(line, start).map(|(cas, end)| (cas, Token { start, end }))
        }
        Some(_) => return None,
    };
    Some(ValueHead {
        key: Token { start: 6, end },
        flags: flags as u32,
        data_len: usize::try_from(data_len).ok()?,
        cas,
    })
}

/// The length in a `VA <length> ...` line (without its end).
pub fn meta_value_len(line: &[u8]) -> Option<usize> {
    let length = next_token(line, line.strip_prefix(b"VA ").map(|_| 3)?)?;
    usize::try_from(parse_decimal(length.of(line))?).ok()
}

/// The version numbers in `VERSION 1.6.18`, whatever follows them; missing parts are 0.
pub fn version(line: &[u8]) -> Option<[u32; 3]> {
    let text = line.strip_prefix(b"VERSION ")?;
    let mut numbers = [0u32; 3];
    let mut found = false;
    let mut parts = text.split(|&byte| byte == b'.');
    for number in &mut numbers {
        let Some(part) = parts.next() else { break };
        let digits = part.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let Some(value) = parse_decimal(&part[..digits]) else {
            break;
        };
        *number = u32::try_from(value).ok()?;
        found = true;
        if digits < part.len() {
            break;
        }
    }
    found.then_some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_words() {
        assert_eq!(code(b"STORED"), Code::Stored);
        assert_eq!(code(b"HD O1 c5"), Code::MetaDone);
        assert_eq!(code(b"42"), Code::Number);
        assert_eq!(code(b"SERVER_ERROR out of memory"), Code::ServerError);
        assert_eq!(code(b""), Code::Nonsense);
        assert_eq!(code(b"STOREDX"), Code::Nonsense);
    }

    #[test]
    fn replies_must_fit_their_request() {
        assert!(fits(Verb::Set, Code::Stored));
        assert!(fits(Verb::Set, Code::ServerError));
        assert!(!fits(Verb::Set, Code::Deleted));
        assert!(!fits(Verb::Get, Code::Stored));
    }

    #[test]
    fn value_heads() {
        let line = b"VALUE key 5 100 77";
        let head = value_head(line).unwrap();
        assert_eq!((head.key.of(line), head.data_len), (&b"key"[..], 100));
        let cas = head.cas.map(|(cas, place)| (cas, place.of(line)));
        assert_eq!((head.flags, cas), (5, Some((77, &b"77"[..]))));
        assert_eq!(value_head(b"VALUE key 5 100").unwrap().cas, None);
        assert_eq!(value_head(b"VALUE key 5"), None);
        assert_eq!(value_head(b"VALUE key 5 -1"), None);
        assert_eq!(meta_value_len(b"VA 12 t0"), Some(12));
        assert_eq!(meta_value_len(b"VA x"), None);
    }

    #[test]
    fn versions() {
        assert_eq!(version(b"VERSION 1.6.18"), Some([1, 6, 18]));
        assert_eq!(version(b"VERSION 1.4.0-rc1"), Some([1, 4, 0]));
        assert_eq!(version(b"VERSION 1.6.18-magent-1.0.0"), Some([1, 6, 18]));
        assert_eq!(version(b"VERSION memcached"), None);
    }
}
