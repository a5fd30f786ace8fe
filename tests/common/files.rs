//! Directories that go away with the test, and processes that a test did not start itself.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;

/// A new directory, removed on drop.
pub struct TempDir(PathBuf);

impl TempDir {
    /// Makes one.
    pub fn new() -> TempDir {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("magent-test-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).expect("a new directory can be made");
        TempDir(path)
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A daemon, known by its pid file; killed on drop if it still runs.
pub struct Daemon {
    /// Its process id, from the pid file.
    pub pid: i32,
}

impl Daemon {
    /// The one that wrote this pid file.
    #[track_caller]
    pub fn of(pidfile: &str) -> Daemon {
        let text = std::fs::read_to_string(pidfile)
            .unwrap_or_else(|error| panic!("{pidfile} after the command returned: {error}"));
        let pid = text
            .trim()
            .parse()
            .unwrap_or_else(|_| panic!("{pidfile} holds {text:?}"));
        Daemon { pid }
    }

    /// Sends a signal.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid), signal).unwrap_or_else(|error| panic!("{signal}: {error}"));
    }

    /// True while it runs; a zombie that nobody has waited for does not.
    pub fn runs(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        let state = stat
            .rsplit(')')
            .next()
            .unwrap_or("")
            .trim_start()
            .chars()
            .next();
        state.is_some_and(|state| state != 'Z' && state != 'X')
    }

    /// The name as `ps` shows it.
    pub fn name(&self) -> String {
        let name = std::fs::read_to_string(format!("/proc/{}/comm", self.pid));
        name.unwrap_or_default().trim().to_string()
    }

    /// Where one of its descriptors leads.
    pub fn descriptor(&self, number: u32) -> PathBuf {
        std::fs::read_link(Path::new(&format!("/proc/{}/fd/{number}", self.pid)))
            .unwrap_or_default()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.runs() {
            let _ = kill(Pid::from_raw(self.pid), Signal::SIGKILL);
        }
    }
}
