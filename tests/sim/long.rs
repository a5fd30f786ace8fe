//! Long values.

use super::rng::Rng;

/// A reply longer than this may go to its client as it comes (docs/failures.md).
pub const LONG: usize = 64 * 1024;

/// The commonest length.
pub const COMMON: usize = 70_000;

/// How long a long value is: often just below or above what begins to pass, and often as long as another one, so that only
/// the data tells them apart.
pub fn length(rng: &mut Rng) -> usize {
    match rng.below(8) {
        0 => LONG - rng.index(80),
        1 => LONG + rng.index(80),
        2..6 => COMMON,
        6 => rng.pick(&[100_000, 125_000]),
        _ => rng.range(66_000, 200_000) as usize,
    }
}

/// Makes `value`, which names the write that it comes from, so long. Almost no two places of it are the same, and no place of two
/// such values; and ends of lines and of replies are everywhere.
pub fn stretch(mut value: String, length: usize) -> String {
    let seed = value.bytes().fold(1, |sum: u64, byte| {
        sum.wrapping_mul(0x100_0000_01b3) ^ u64::from(byte)
    });
    let mut rng = Rng::new(seed);
    value.reserve(length + 32);
    while value.len() < length {
        let bits = rng.next();
        let letters = [0, 4, 8, 12, 16, 20, 24, 28].map(|shift| b'a' + (bits >> shift & 15) as u8);
        value.extend(letters.map(char::from));
        value.push_str(match bits >> 60 {
            0 => "\r",
            1 => "\r\n",
            2 => "\n",
            3 => "VALUE k0 0 1\r\n",
            _ => "\r\nEND\r\n",
        });
    }
    // What stands at the end is followed by a line end, too.
    let end = ["", "END", "\r\nEND", "\r"][(seed >> 32 & 3) as usize];
    value.truncate(length - end.len());
    value + end
}
