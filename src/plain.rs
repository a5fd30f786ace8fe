//! What others said, for a terminal or a log: a server's words, a client's key, a file's text.

use std::borrow::Cow;

/// Letters as they are, control characters as escapes (`\u{1b}`): whatever was said, it stays one line and commands no
/// terminal.
pub fn one_line(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let mut line = String::with_capacity(text.len() + 8);
    for letter in text.chars() {
        match letter.is_control() {
            true => line.extend(letter.escape_default()),
            false => line.push(letter),
        }
    }
    Cow::Owned(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_commands_a_terminal() {
        assert!(matches!(one_line("a b\u{e4}\u{4e2d}"), Cow::Borrowed(_)));
        assert_eq!(
            one_line("\x1b[2J\r\n\u{9b}31m\x07"),
            "\\u{1b}[2J\\r\\n\\u{9b}31m\\u{7}"
        );
    }
}
