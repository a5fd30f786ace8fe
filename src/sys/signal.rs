//! Signals as events: blocked, and read from a descriptor that the event loop watches. No handler ever runs.

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use nix::sys::signal::{signal, SigHandler, SigSet, Signal as Number};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// What daemons are sent by mistake, or in the hope that they log more: nothing follows from them. Without this a SIGTTOU of
/// a terminal would stop the proxy, and a script that means another program would kill it.
const IGNORED: [Number; 5] = [
    // A vanished client is an error of `write`.
    Number::SIGPIPE,
    Number::SIGTTIN,
    Number::SIGTTOU,
    Number::SIGUSR1,
    Number::SIGUSR2,
];

/// Ignores the signals that mean nothing here, for good. Ctrl-Z in a terminal keeps its meaning.
pub fn ignore_strangers() -> io::Result<()> {
    for number in IGNORED {
        // SAFETY: SIG_IGN is no handler; nothing can run.
        unsafe { signal(number, SigHandler::SigIgn) }?;
    }
    Ok(())
}

/// What a signal asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Signal {
    /// SIGTERM, SIGINT: end.
    End,
    /// SIGHUP: open the log again, and read the file of the pools again.
    Reopen,
}

/// The descriptor that signals arrive at.
pub struct Signals {
    fd: SignalFd,
}

impl Signals {
    /// Blocks the signals that magent knows, and ignores those that mean nothing to it. Called before any thread is
    /// started, so that all threads inherit it.
    pub fn new() -> io::Result<Signals> {
        ignore_strangers()?;
        let mut mask = SigSet::empty();
        mask.add(Number::SIGTERM);
        mask.add(Number::SIGINT);
        mask.add(Number::SIGHUP);
        mask.thread_block()?;
        let fd = SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        Ok(Signals { fd })
    }

    /// The next signal that has arrived.
    pub fn take(&mut self) -> Option<Signal> {
        let info = self.fd.read_signal().ok().flatten()?;
        let hup = i32::try_from(info.ssi_signo).is_ok_and(|n| n == Number::SIGHUP as i32);
        Some(if hup { Signal::Reopen } else { Signal::End })
    }
}

impl AsRawFd for Signals {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}
