//! The thread that writes the log. Whoever reads the log may stand still: a pipe whose reader is stopped, syslog, a FIFO, a
//! file on a disk that hangs. The event loop must not wait for any of them, so a line is put into a bounded queue, and is
//! dropped and counted where that is full.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{SigSet, SigmaskHow};

use crate::plain::one_line;

/// How many lines may wait.
const LINES_MAX: usize = 1024;

/// The longest line, in bytes; what is longer is cut.
const LINE_MAX: usize = 8 * 1024;

/// How long the end of the process waits for what is still to be written.
const PATIENCE: Duration = Duration::from_millis(500);

/// Lines that were dropped since the process began.
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// How many lines of the log were dropped since the process began, as nobody took them.
pub fn dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

/// Where the lines go.
pub(super) enum Sink {
    Stderr,
    /// With the path to open again.
    File(PathBuf, File),
    Syslog,
}

enum Message {
    Line(Vec<u8>),
    Syslog(libc::c_int, CString),
    Reopen,
    Flush(SyncSender<()>),
}

/// The near end of the queue.
#[derive(Clone)]
pub(super) struct Queue(SyncSender<Message>);

impl Queue {
    /// Starts the thread. It lives as long as the process.
    pub fn start(sink: Sink) -> io::Result<Queue> {
        let (sender, messages) = mpsc::sync_channel(LINES_MAX);
        // The loop takes the signals. A thread inherits what is blocked.
        let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
        let started = thread::Builder::new()
            .name("magent-log".into())
            .spawn(move || write_all(sink, &messages));
        before.thread_set_mask()?;
        started?;
        Ok(Queue(sender))
    }

    /// One line for syslog.
    pub fn syslog(&self, priority: libc::c_int, text: &str) {
        if let Ok(text) = CString::new(shown(text.as_bytes())) {
            self.put(Message::Syslog(priority, text));
        }
    }

    /// Opens the file again, behind the lines that wait. False: the queue is full, and nothing will be done.
    pub fn reopen(&self) -> bool {
        self.0.try_send(Message::Reopen).is_ok()
    }

    /// Waits until what was said before is written, but not for a reader that stands still.
    pub fn flush(&self) {
        let (done, written) = mpsc::sync_channel(1);
        if self.0.try_send(Message::Flush(done)).is_ok() {
            // Late or never: the process ends all the same.
            let _ = written.recv_timeout(PATIENCE);
        }
    }

    fn put(&self, message: Message) {
        if let Err(TrySendError::Full(_)) = self.0.try_send(message) {
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The logger formats a line and writes it at once.
impl Write for Queue {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut line = shown(bytes.strip_suffix(b"\n").unwrap_or(bytes));
        line.push(b'\n');
        self.put(Message::Line(line));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One line of bounded length, whatever a server's or a client's words in it are.
fn shown(line: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(&line[..line.len().min(LINE_MAX)]);
    one_line(&text).into_owned().into_bytes()
}

fn write_all(mut sink: Sink, messages: &Receiver<Message>) {
    let mut told = 0;
    for message in messages {
        match message {
            Message::Line(line) => sink.write(&line),
            Message::Syslog(priority, text) => {
                // SAFETY: both strings end with NUL and outlive the call, and the format takes exactly one of them.
                unsafe { libc::syslog(priority, c"%s".as_ptr(), text.as_ptr()) };
            }
            Message::Reopen => sink.reopen(),
            // Whoever waited may have gone on.
            Message::Flush(done) => drop(done.try_send(())),
        }
        let dropped = dropped();
        if dropped > told {
            // Into the same queue, behind what waits there.
            log::warn!(
                "{} lines of the log were dropped, as they were not taken in time ({dropped} in all)",
                dropped - told
            );
            told = dropped;
        }
    }
}

impl Sink {
    fn write(&mut self, line: &[u8]) {
        // There is nobody to tell that the log cannot be written.
        let _ = match self {
            Sink::Stderr => io::stderr().write_all(line),
            Sink::File(_, file) => file.write_all(line),
            Sink::Syslog => Ok(()),
        };
    }

    fn reopen(&mut self) {
        let Sink::File(path, file) = self else {
            return;
        };
        match super::append_to(path) {
            Ok(new) => {
                *file = new;
                log::info!("log file opened again");
            }
            Err(error) => {
                log::error!(
                    "--log-file {}: {}",
                    path.display(),
                    crate::sys::reason(&error)
                );
            }
        }
    }
}
