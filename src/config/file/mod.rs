//! `-c`: pools in a file, in twemproxy's schema with magent's own keys. Text in, pools out, or all that is wrong with it.

mod keys;
mod mistake;
mod place;
mod pools;
mod yaml;

use super::Config;

pub use mistake::{nearest, Mistake, Position};
pub use place::{parse_backup, parse_listen, parse_server, Listen, MODE_DEFAULT};
pub use pools::POOLS_MAX;

/// The pools of a file with these bytes. `base` is what they are where the file says nothing.
///
/// The error is everything that is wrong, in the order of the file.
pub fn parse(bytes: &[u8], base: &Config) -> Result<Vec<Config>, Vec<Mistake>> {
    let mut mistakes = mistake::Mistakes::default();
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let before = &bytes[..error.valid_up_to()];
            let at = end_of(&String::from_utf8_lossy(before));
            let byte = format!("\\x{:02x}", bytes[error.valid_up_to()]);
            return Err(vec![Mistake::new(at, &byte, "not UTF-8")]);
        }
    };
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let root = yaml::read(text, &mut mistakes);
    let pools = match (&root, mistakes.is_empty()) {
        // What is missing may stand behind the error.
        (None, false) => Vec::new(),
        _ => pools::pools(root.as_ref(), base, &mut mistakes),
    };
    match mistakes.is_empty() {
        true => Ok(pools),
        false => Err(mistakes.sorted()),
    }
}

/// The place behind `text`. Lines end with LF, CR, or both, as in YAML.
fn end_of(text: &str) -> Position {
    let mut at = Position { line: 1, column: 1 };
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        let ends = letter == '\n' || (letter == '\r' && letters.peek() != Some(&'\n'));
        if ends {
            at.line += 1;
            at.column = 1;
        } else {
            at.column += 1;
        }
    }
    at
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
