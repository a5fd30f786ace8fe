//! Sockets that systemd opened for us: sd_listen_fds(3).

use std::env;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::fcntl::{fcntl, FcntlArg, FdFlag};

use super::SystemError;

const COUNT: &str = "LISTEN_FDS";
const PID: &str = "LISTEN_PID";
const NAMES: &str = "LISTEN_FDNAMES";

/// The first descriptor that is passed.
const FIRST: RawFd = 3;

/// Most that are taken: more than anybody has addresses for.
const MOST: usize = 1000;

/// The sockets that were passed, for as long as nobody has taken them.
#[derive(Debug, Default)]
pub struct Passed {
    sockets: Vec<OwnedFd>,
    /// Those of a magent whose place this one takes.
    inherited: Vec<OwnedFd>,
}

impl Passed {
    /// Takes them over, and their names out of the environment. To be called once, before anything is opened and any
    /// thread is started. There are none when they were meant for another process.
    pub fn from_environment() -> Result<Passed, SystemError> {
        let count = env::var(COUNT).ok();
        let pid = env::var(PID).ok();
        for name in [COUNT, PID, NAMES] {
            env::remove_var(name);
        }
        let ours = pid.is_some_and(|pid| pid.parse() == Ok(std::process::id()));
        let Some(count) = count.filter(|_| ours) else {
            return Ok(Passed::default());
        };
        let number = count.parse().ok().filter(|&number| number <= MOST);
        let number: usize = number.ok_or_else(|| {
            SystemError::new(format!("{COUNT}={count}"), "not a number of sockets")
        })?;
        let mut sockets = Vec::with_capacity(number);
        for fd in FIRST..FIRST + number as RawFd {
            sockets.push(
                adopt(fd).map_err(|error| {
                    SystemError::io(format!("{COUNT}: descriptor {fd}"), &error)
                })?,
            );
        }
        Ok(Passed {
            sockets,
            inherited: Vec::new(),
        })
    }

    /// Whether none is left.
    pub fn is_empty(&self) -> bool {
        self.sockets.is_empty()
    }

    /// One more, from a magent whose place this one takes.
    pub fn inherit(&mut self, socket: OwnedFd) {
        self.inherited.push(socket);
    }

    /// Takes the first one that fits; and whether it was another magent's.
    pub fn take(&mut self, fits: impl Fn(&OwnedFd) -> bool) -> Option<(OwnedFd, bool)> {
        if let Some(index) = self.sockets.iter().position(&fits) {
            return Some((self.sockets.remove(index), false));
        }
        let index = self.inherited.iter().position(fits)?;
        Some((self.inherited.remove(index), true))
    }

    /// Those of a supervisor's that are left.
    pub fn iter(&self) -> impl Iterator<Item = &OwnedFd> {
        self.sockets.iter()
    }
}

fn adopt(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: the supervisor passed this descriptor to this process and told nobody else of it; nothing was opened
    // before, and the environment that names it is read once.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // Fails when the descriptor is not open after all; then there is nothing to be closed either.
    match fcntl(&socket, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)) {
        Ok(_) => Ok(socket),
        Err(error) => {
            let _ = std::os::fd::IntoRawFd::into_raw_fd(socket);
            Err(error.into())
        }
    }
}

/// The number of a descriptor, for messages.
pub fn number(socket: &OwnedFd) -> RawFd {
    socket.as_raw_fd()
}
