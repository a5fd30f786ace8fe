//! Where a command line ends, as memcached sees it.

use super::LINE_MAX;

/// Where a line ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LineEnd {
    /// `line` is `buffer[..end]`, the next line begins at `next`.
    At {
        /// Length of the line without its end.
        end: usize,
        /// Offset of what follows the line end.
        next: usize,
    },
    /// The end has not come yet.
    Missing,
    /// So long without an end that memcached would close the connection.
    TooLong,
}

/// Finds the end of the line at the start of `buffer`; the first `searched` bytes are known to hold none.
pub fn find_line(buffer: &[u8], searched: usize) -> LineEnd {
    match memchr::memchr(b'\n', &buffer[searched..]) {
        Some(offset) => {
            let newline = searched + offset;
            let end = if newline > 1 && buffer[newline - 1] == b'\r' {
                newline - 1
            } else {
                newline
            };
            LineEnd::At {
                end,
                next: newline + 1,
            }
        }
        None if buffer.len() > LINE_MAX && !begins_long_get(buffer) => LineEnd::TooLong,
        None => LineEnd::Missing,
    }
}

/// Only `get` and `gets` may be longer than [`LINE_MAX`].
fn begins_long_get(buffer: &[u8]) -> bool {
    let blanks = buffer.iter().take_while(|&&byte| byte == b' ').count();
    let rest = &buffer[blanks..];
    blanks <= 100 && (rest.starts_with(b"get ") || rest.starts_with(b"gets "))
}
