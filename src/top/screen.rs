//! The terminal, if it is one: cleared for each picture, keys read at once, and left as it was found.

use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::sys::termios::{self, LocalFlags, SetArg, SpecialCharacterIndices, Termios};

use crate::sys::terminal;

/// What is assumed where nobody says it.
const SIZE: (usize, usize) = (100, 40);

/// Where pictures are shown.
pub struct Screen {
    is_terminal: bool,
    /// How it was before.
    keys: Option<Termios>,
}

impl Screen {
    /// Takes the terminal over; where there is none pictures are plain text, one below the other.
    pub fn open() -> Screen {
        let is_terminal = io::stdout().is_terminal()
            && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        let keys = (is_terminal && io::stdin().is_terminal())
            .then(keys_at_once)
            .flatten();
        if is_terminal {
            // The alternate screen, without a cursor. What cannot be written is found out with the first picture.
            let _ = io::stdout().write_all(b"\x1b[?1049h\x1b[?25l");
        }
        Screen { is_terminal, keys }
    }

    /// Whether it is one.
    pub fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    /// Whether colours may be used (<https://no-color.org>).
    pub fn has_colour(&self) -> bool {
        self.is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
    }

    /// Columns and lines.
    pub fn size(&self) -> (usize, usize) {
        if !self.is_terminal {
            return (SIZE.0, usize::MAX);
        }
        terminal::size().unwrap_or(SIZE)
    }

    /// Shows a picture in place of the one before.
    pub fn show(&self, picture: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if self.is_terminal {
            // Home; each line and what is below the last one are cleared as they are written.
            let text = picture.replace('\n', "\x1b[K\r\n");
            write!(out, "\x1b[H{text}\x1b[J")?;
        } else {
            writeln!(out, "{picture}")?;
        }
        out.flush()
    }

    /// Waits. False: somebody has pressed `q`.
    pub fn waits(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        let stdin = io::stdin();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            if self.keys.is_none() {
                std::thread::sleep(left);
                continue;
            }
            let mut fds = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            if !poll(&mut fds, timeout).is_ok_and(|ready| ready > 0) {
                continue;
            }
            let mut key = [0];
            match nix::unistd::read(stdin.as_fd(), &mut key) {
                // Ctrl-C and Ctrl-D come as bytes.
                Ok(1) if matches!(key[0], b'q' | b'Q' | 3 | 4) => return false,
                Ok(1) => {}
                _ => return false,
            }
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if self.is_terminal {
            let _ = io::stdout().write_all(b"\x1b[?25h\x1b[?1049l");
            let _ = io::stdout().flush();
        }
        if let Some(before) = &self.keys {
            let _ = termios::tcsetattr(io::stdin(), SetArg::TCSADRAIN, before);
        }
    }
}

/// Keys are read when they are pressed, and are not shown. Signals come as keys, so that the screen is put in order.
fn keys_at_once() -> Option<Termios> {
    let before = termios::tcgetattr(io::stdin()).ok()?;
    let mut raw = before.clone();
    raw.local_flags
        .remove(LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG);
    raw.control_chars[SpecialCharacterIndices::VMIN as usize] = 1;
    raw.control_chars[SpecialCharacterIndices::VTIME as usize] = 0;
    termios::tcsetattr(io::stdin(), SetArg::TCSADRAIN, &raw).ok()?;
    Some(before)
}
