//! What only the operating system can do: users, limits, going to the background, the pid file, the mark of a
//! running magent, signals and logs. The one place with `unsafe`, libc and nix; knows nothing of the proxy.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

pub mod activation;
pub mod clock;
pub mod daemon;
pub mod facts;
pub mod instance;
pub mod limits;
pub mod log;
pub mod memory;
pub mod netlink;
pub mod notify;
pub mod pidfile;
pub mod signal;
pub mod takeover;
pub mod terminal;
pub mod trusted;
pub mod user;

/// Why magent cannot run here: one line that begins with the option it is about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SystemError(String);

impl SystemError {
    /// An error about `what` (an option with its value), with the reason.
    pub fn new(what: impl fmt::Display, why: impl fmt::Display) -> SystemError {
        SystemError(format!("{what}: {why}"))
    }

    /// An error in words that name the option already.
    pub fn said(text: String) -> SystemError {
        SystemError(text)
    }

    /// An error about `what`, with the reason that the system gave.
    pub fn io(what: impl fmt::Display, error: &io::Error) -> SystemError {
        SystemError::new(what, reason(error))
    }
}

impl fmt::Display for SystemError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for SystemError {}

/// The system's words for an error, without Rust's ` (os error 2)` behind them.
pub fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    match text.rfind(" (os error ") {
        Some(end) if error.raw_os_error().is_some() => text[..end].to_owned(),
        _ => text,
    }
}

/// The bytes of a plain file of at most `most` bytes. Anything else is an error: a FIFO or a device may never end, and opening
/// one may already wait for ever.
pub fn read_plain(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut options = OpenOptions::new();
    let file = options
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)?;
    let there = file.metadata()?;
    if there.is_dir() {
        return Err(io::Error::from_raw_os_error(libc::EISDIR));
    }
    if !there.is_file() {
        return Err(io::Error::other("not a plain file"));
    }
    let mut bytes = Vec::new();
    // It may grow while it is read.
    if there.len() <= most {
        file.take(most + 1).read_to_end(&mut bytes)?;
    }
    if there.len().max(bytes.len() as u64) > most {
        return Err(io::Error::other(format!("larger than {most} bytes")));
    }
    Ok(bytes)
}

/// Gives this process another name, as `ps` and keepalived's `track_process` see it; 15 bytes count.
pub fn name_process(name: &str) {
    if let Ok(name) = CString::new(name) {
        // It is a courtesy to those who look; without it everything works.
        let _ = nix::sys::prctl::set_name(&name);
    }
}

/// The name of this host; bytes that are no text are replaced.
pub fn host_name() -> io::Result<String> {
    let name = nix::unistd::gethostname().map_err(io::Error::from)?;
    Ok(name.to_string_lossy().into_owned())
}

/// Tells what is wrong where a link was not followed.
pub fn no_link(error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(libc::ELOOP) => io::Error::other("is a symbolic link (name the file itself)"),
        _ => error,
    }
}

/// This host has no IPv6: bind of its wildcard failed for that reason.
pub fn is_no_ipv6(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL | libc::EPROTONOSUPPORT)
    )
}

/// Descriptors or kernel memory ran out: trying again at once would fail again.
pub fn is_exhausted(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_files_of_a_bounded_size_are_read() {
        let refused = |path: &str| read_plain(Path::new(path), 4096).map_err(|e| reason(&e));
        assert_eq!(refused("/dev/zero"), Err("not a plain file".into()));
        assert_eq!(refused("/dev"), Err("Is a directory".into()));
        assert_eq!(
            refused("/nonexistent"),
            Err("No such file or directory".into())
        );
        let path = std::env::temp_dir().join(format!("magent-plain-{}", std::process::id()));
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let fifo = read_plain(&path, 4096);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(fifo.unwrap_err().to_string(), "not a plain file");
        std::fs::write(&path, [b'x'; 4096]).unwrap();
        let fits = read_plain(&path, 4096);
        let large = read_plain(&path, 4095);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(fits.unwrap().len(), 4096);
        assert_eq!(large.unwrap_err().to_string(), "larger than 4095 bytes");
    }

    #[test]
    fn errors_are_one_plain_line() {
        let missing = io::Error::from_raw_os_error(libc::ENOENT);
        assert_eq!(
            SystemError::io("--pidfile /x/y", &missing).to_string(),
            "--pidfile /x/y: No such file or directory"
        );
        assert_eq!(reason(&io::Error::other("plain")), "plain");
    }
}
