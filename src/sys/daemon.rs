//! Going to the background. The process forks before it opens anything, and the child does all that can fail with
//! the terminal still at hand; the parent waits for its word and passes it on. So the command line returns 0 only
//! when the proxy really listens, and an error has its text and its exit code.
//!
//! ```text
//!   magent ... (shell)          fork          child: setsid, fork, exit
//!     parent: reads the pipe <---------------  grandchild: prepare; ready() or fail()
//!     prints the text, exits with the code
//! ```

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};

use nix::fcntl::OFlag;
use nix::sys::stat::{umask, Mode};
use nix::sys::wait::waitpid;
use nix::unistd::{self, ForkResult};

/// The two sides after [`detach`].
pub enum Detached {
    /// The process that the shell started: print the text, if any, and exit with the code.
    Parent(u8, String),
    /// The process in the background.
    Child(Herald),
}

/// Tells the waiting parent how the start went. In the foreground there is nobody to tell.
#[derive(Default)]
pub struct Herald {
    pipe: Option<File>,
}

impl Herald {
    /// Whether this process is to run in the background.
    pub fn is_daemon(&self) -> bool {
        self.pipe.is_some()
    }

    /// Everything that can fail has succeeded: lets go of the terminal and of the working directory, and lets the
    /// parent exit with 0.
    pub fn ready(&mut self) -> io::Result<()> {
        let Some(pipe) = &mut self.pipe else {
            return Ok(());
        };
        let null = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/null")?;
        unistd::chdir("/")?;
        unistd::dup2_stdin(&null)?;
        unistd::dup2_stdout(&null)?;
        unistd::dup2_stderr(&null)?;
        // Nobody may be left to hear it (a supervisor that lost patience); the proxy runs all the same.
        let _ = pipe.write_all(&[0]);
        self.pipe = None;
        Ok(())
    }

    /// The start ended: the parent prints `text` and exits with `code`. False when there is no parent waiting.
    pub fn end(&mut self, code: u8, text: &str) -> bool {
        let Some(mut pipe) = self.pipe.take() else {
            return false;
        };
        let mut message = vec![code];
        message.extend_from_slice(text.as_bytes());
        pipe.write_all(&message).is_ok()
    }
}

/// Forks twice: the grandchild has a session of its own (a supervisor that signals the group of its script does not
/// reach it) and can never get a terminal again.
pub fn detach() -> io::Result<Detached> {
    let (reader, writer) = unistd::pipe2(OFlag::O_CLOEXEC)?;
    // SAFETY: no thread has been started yet, so the child finds no lock held by a thread that it does not have.
    match unsafe { unistd::fork() }? {
        ForkResult::Parent { child } => {
            drop(writer);
            let (code, text) = listen(File::from(reader));
            // The middle process has nothing to say; waiting only keeps it from being a zombie.
            let _ = waitpid(child, None);
            Ok(Detached::Parent(code, text))
        }
        ForkResult::Child => {
            drop(reader);
            let mut herald = Herald {
                pipe: Some(File::from(writer)),
            };
            if let Err(error) = second_fork() {
                herald.end(71, &format!("to the background: {}", error.desc()));
                exit_now(71);
            }
            umask(Mode::from_bits_truncate(0o022));
            Ok(Detached::Child(herald))
        }
    }
}

fn second_fork() -> nix::Result<()> {
    unistd::setsid()?;
    // SAFETY: as above, this process has one thread.
    match unsafe { unistd::fork() }? {
        ForkResult::Parent { .. } => exit_now(0),
        ForkResult::Child => Ok(()),
    }
}

/// Ends the middle process without running anything that belongs to the others (buffers, exit handlers).
fn exit_now(code: i32) -> ! {
    // SAFETY: _exit takes any number and does not return.
    unsafe { libc::_exit(code) }
}

/// Runs `make` with that umask. For files that must have their mode from the first moment.
pub fn with_umask<T>(mask: u32, make: impl FnOnce() -> T) -> T {
    let before = umask(Mode::from_bits_truncate(mask));
    let made = make();
    umask(before);
    made
}

/// What the child says until it closes the pipe. A child that dies without a word has failed.
fn listen(mut reader: File) -> (u8, String) {
    let mut message = Vec::new();
    let heard = reader.read_to_end(&mut message);
    match (heard, message.split_first()) {
        (Ok(_), Some((&code, text))) => (code, String::from_utf8_lossy(text).into_owned()),
        (Ok(_), None) => (
            71,
            "the process in the background ended while it started".into(),
        ),
        (Err(error), _) => (71, super::reason(&error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pipe() -> (File, Herald) {
        let (reader, writer) = unistd::pipe2(OFlag::O_CLOEXEC).unwrap();
        let pipe = Some(File::from(writer));
        (File::from(reader), Herald { pipe })
    }

    #[test]
    fn the_parent_hears_code_and_text() {
        let (reader, mut herald) = pipe();
        assert!(herald.is_daemon());
        assert!(herald.end(71, "-u x: no such user"));
        assert!(!herald.end(71, "said already"));
        assert_eq!(listen(reader), (71, "-u x: no such user".into()));
    }

    #[test]
    fn silence_is_a_failure() {
        let (reader, herald) = pipe();
        drop(herald);
        assert_eq!(listen(reader).0, 71);
    }

    #[test]
    fn in_the_foreground_nobody_waits() {
        let mut herald = Herald::default();
        assert!(!herald.is_daemon());
        assert!(herald.ready().is_ok());
        assert!(!herald.end(71, "x"));
    }
}
