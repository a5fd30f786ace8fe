//! Tokens and numbers as memcached reads them.
//!
//! Numbers follow C's `strtol` family as memcached wraps it: leading white space and signs pass, the digits may be
//! followed by white space, 32-bit targets keep the low bits. Odd, but clients see the difference.

/// A token: its place in the line.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Token {
    /// Offset of the first byte.
    pub start: usize,
    /// Offset behind the last byte.
    pub end: usize,
}

impl Token {
    /// The token's bytes in `line`.
    pub fn of<'a>(&self, line: &'a [u8]) -> &'a [u8] {
        &line[self.start..self.end]
    }
}

/// The next token of `line` at or after `from`; tokens are separated by spaces only.
pub fn next_token(line: &[u8], from: usize) -> Option<Token> {
    let mut start = from;
    while start < line.len() && line[start] == b' ' {
        start += 1;
    }
    if start >= line.len() {
        return None;
    }
    let end = match memchr::memchr(b' ', &line[start..]) {
        Some(length) => start + length,
        None => line.len(),
    };
    Some(Token { start, end })
}

/// memcached looks at no more tokens than this in one line (keys of a `get` excepted).
pub const TOKENS_MAX: usize = 23;

/// Up to [`TOKENS_MAX`] tokens of a line.
#[derive(Default)]
pub struct Tokens {
    list: [Token; TOKENS_MAX],
    count: usize,
}

impl Tokens {
    /// Splits `line`; what comes after the last token that fits is ignored, as memcached does.
    pub fn split(line: &[u8]) -> Tokens {
        let mut tokens = Tokens::default();
        let mut at = 0;
        while tokens.count < TOKENS_MAX {
            let Some(token) = next_token(line, at) else {
                break;
            };
            at = token.end;
            tokens.list[tokens.count] = token;
            tokens.count += 1;
        }
        tokens
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// True for a blank line.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The token at `index`; an empty one beyond the end.
    pub fn get(&self, index: usize) -> Token {
        if index < self.count {
            self.list[index]
        } else {
            Token::default()
        }
    }

    /// All of them, in order.
    pub fn as_slice(&self) -> &[Token] {
        &self.list[..self.count]
    }
}

/// C's `isspace` in the C locale.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | 0x0b | 0x0c | b'\r')
}

/// Sign and magnitude of a number as `strtoull` scans it. `None` when there are no digits, on overflow, or when
/// something other than white space follows the digits.
fn scan(text: &[u8]) -> Option<(bool, u64)> {
    let mut at = 0;
    while at < text.len() && is_space(text[at]) {
        at += 1;
    }
    let mut negative = false;
    if at < text.len() && (text[at] == b'-' || text[at] == b'+') {
        negative = text[at] == b'-';
        at += 1;
    }
    let first = at;
    let mut value: u64 = 0;
    while at < text.len() && text[at].is_ascii_digit() {
        value = value
            .checked_mul(10)?
            .checked_add(u64::from(text[at] - b'0'))?;
        at += 1;
    }
    if at == first || (at < text.len() && !is_space(text[at])) {
        return None;
    }
    Some((negative, value))
}

/// An unsigned 64-bit number (`safe_strtoull`): a minus sign passes only where the wrapped value looks positive.
pub fn parse_u64(text: &[u8]) -> Option<u64> {
    let (negative, value) = scan(text)?;
    let value = if negative {
        value.wrapping_neg()
    } else {
        value
    };
    if (value as i64) < 0 && text.contains(&b'-') {
        return None;
    }
    Some(value)
}

/// An unsigned 32-bit number (`safe_strtoul`): read as 64 bits, the low 32 are kept.
pub fn parse_u32(text: &[u8]) -> Option<u32> {
    parse_u64(text).map(|value| value as u32)
}

/// A signed 32-bit number (`safe_strtol`): read as 64 bits, the low 32 are kept.
pub fn parse_i32(text: &[u8]) -> Option<i32> {
    let (negative, value) = scan(text)?;
    let value = i128::from(value) * if negative { -1 } else { 1 };
    i64::try_from(value).ok().map(|value| value as i32)
}

/// The number that eight digits make; `None`: one of them is none.
fn eight_digits(text: [u8; 8]) -> Option<u64> {
    const ONES: u64 = u64::MAX / 255;
    let text = u64::from_le_bytes(text);
    // A digit's upper half is 3, also after 6 has been added to it: below ':'.
    let upper = text & (text.wrapping_add(ONES * 6)) & (ONES * 0xf0);
    let none_above = (text | text.wrapping_add(ONES * 6)) & (ONES * 0xf0);
    if upper != ONES * 0x30 || none_above != ONES * 0x30 {
        return None;
    }
    // Neighbours are joined: to two digits, to four, to eight.
    let ones = text & (ONES * 0x0f);
    let twos = (ones.wrapping_mul(10 << 8 | 1) >> 8) & 0x00ff_00ff_00ff_00ff;
    let fours = (twos.wrapping_mul(100 << 16 | 1) >> 16) & 0x0000_ffff_0000_ffff;
    Some(fours.wrapping_mul(10_000 << 32 | 1) >> 32)
}

/// The plain decimal at `at`, and where it ends; for one that is likely to be short.
pub fn leading_decimal(line: &[u8], at: usize) -> Option<(u64, usize)> {
    go_on(line, at, 0, at)
}

/// The same for one that may well be long.
pub fn leading_long_decimal(line: &[u8], at: usize) -> Option<(u64, usize)> {
    let mut value: u64 = 0;
    let mut end = at;
    while let Some(eight) = line.get(end..).and_then(<[u8]>::first_chunk) {
        let Some(digits) = eight_digits(*eight) else {
            break;
        };
        value = value.checked_mul(100_000_000)?.checked_add(digits)?;
        end += 8;
    }
    go_on(line, at, value, end)
}

/// The digits from `end` on, behind those from `at` that make `value`.
fn go_on(line: &[u8], at: usize, value: u64, end: usize) -> Option<(u64, usize)> {
    let (mut value, mut end) = (value, end);
    while let Some(digit) = line.get(end).filter(|byte| byte.is_ascii_digit()) {
        value = value
            .checked_mul(10)?
            .checked_add(u64::from(digit - b'0'))?;
        end += 1;
    }
    (end > at).then_some((value, end))
}

/// A plain decimal as a server writes it: digits only.
pub fn parse_decimal(text: &[u8]) -> Option<u64> {
    if text.len() > 20 {
        return None;
    }
    let (value, end) = leading_long_decimal(text, 0)?;
    (end == text.len()).then_some(value)
}

/// The numbers from 0 to 99, two digits each.
const PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[0; 2]; 100];
    let mut n = 0;
    while n < 100 {
        pairs[n] = [b'0' + n as u8 / 10, b'0' + n as u8 % 10];
        n += 1;
    }
    pairs
};

/// A number in decimal.
#[derive(Clone, Copy, Debug)]
pub struct Decimal {
    digits: [u8; 20],
    start: usize,
}

impl Decimal {
    /// `value` in decimal.
    pub fn new(value: u64) -> Decimal {
        let mut digits = [0; 20];
        let mut start = digits.len();
        let mut rest = value;
        while rest >= 10 {
            start -= 2;
            digits[start..start + 2].copy_from_slice(&PAIRS[(rest % 100) as usize]);
            rest /= 100;
        }
        // One digit is left, or nothing, but for 0.
        if rest > 0 || value == 0 {
            start -= 1;
            digits[start] = b'0' + rest as u8;
        }
        Decimal { digits, start }
    }

    /// Its digits.
    pub fn as_bytes(&self) -> &[u8] {
        &self.digits[self.start..]
    }
}

/// Appends `value` in decimal.
pub fn push_decimal(out: &mut Vec<u8>, value: u64) {
    if value < 10 {
        out.push(b'0' + value as u8);
    } else {
        out.extend_from_slice(Decimal::new(value).as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_split_at_spaces_only() {
        let line = b"  get a\tb  c ";
        let tokens = Tokens::split(line);
        let texts: Vec<&[u8]> = tokens.as_slice().iter().map(|t| t.of(line)).collect();
        assert_eq!(texts, [&b"get"[..], b"a\tb", b"c"]);
        assert!(Tokens::split(b"   ").is_empty());
    }

    #[test]
    fn numbers_follow_strtol() {
        assert_eq!(parse_u32(b"4294967296"), Some(0));
        assert_eq!(parse_u32(b"+7"), Some(7));
        assert_eq!(parse_u32(b"7\t"), Some(7));
        assert_eq!(parse_u32(b"7x"), None);
        assert_eq!(parse_u32(b""), None);
        assert_eq!(parse_u64(b"-1"), None);
        assert_eq!(parse_u64(b"18446744073709551615"), Some(u64::MAX));
        assert_eq!(parse_u64(b"18446744073709551616"), None);
        assert_eq!(parse_i32(b"-1"), Some(-1));
        assert_eq!(parse_i32(b"-"), None);
        assert_eq!(parse_i32(b"4294967297"), Some(1));
        assert_eq!(parse_i32(b"9223372036854775808"), None);
    }

    #[test]
    fn decimals_are_digits_only() {
        assert_eq!(parse_decimal(b"0"), Some(0));
        assert_eq!(parse_decimal(b"+1"), None);
        assert_eq!(parse_decimal(b"18446744073709551616"), None);
        for text in ["123456789", "1844674407370955161", "18446744073709551615"] {
            assert_eq!(parse_decimal(text.as_bytes()), text.parse().ok());
            let line = [text.as_bytes(), b" 8"].concat();
            let whole = text.parse().ok().map(|value| (value, text.len()));
            assert_eq!(leading_decimal(&line, 0), whole);
            assert_eq!(leading_long_decimal(&line, 0), whole);
        }
        for wrong in 0..=255u8 {
            for at in 0..8 {
                let mut text = *b"12345678";
                text[at] = wrong;
                assert_eq!(
                    parse_decimal(&text).is_some(),
                    wrong.is_ascii_digit(),
                    "{wrong}"
                );
            }
        }
        let mut out = Vec::new();
        push_decimal(&mut out, 10_240);
        assert_eq!(out, b"10240");
        for value in (0..1200).chain([u64::MAX, u64::MAX / 10, 10u64.pow(19)]) {
            out.clear();
            push_decimal(&mut out, value);
            assert_eq!(out, value.to_string().into_bytes());
        }
    }
}
