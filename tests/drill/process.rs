//! Programs in the lab: each in its host's namespace, with a log, killed with the lab.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Instant;

use nix::sys::signal::{kill, Signal};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use super::{Outcome, PATIENCE};

/// Where a program is to run.
#[derive(Clone, Copy)]
pub enum Place<'a> {
    /// In a host's network namespace.
    In(&'a str),
    /// Where the lab itself was started.
    Outside,
}

/// Before the program's name on a command line: real-time priority, where that may be had. What else a machine has to do
/// would show in the figures, and a proxy that gets no CPU for a second is a failure that no drill asked for.
fn real_time() -> &'static [&'static str] {
    static WORDS: OnceLock<bool> = OnceLock::new();
    const CHRT: [&str; 3] = ["chrt", "--rr", "1"];
    let may = *WORDS.get_or_init(|| {
        let try_it = Command::new(CHRT[0]).args(&CHRT[1..]).arg("true").output();
        try_it.is_ok_and(|output| output.status.success())
    });
    if may {
        &CHRT
    } else {
        &[]
    }
}

/// Whether the lab runs with real-time priority.
pub fn is_real_time() -> bool {
    !real_time().is_empty()
}

/// Gives it to the thread that calls this.
pub fn hurry() {
    if is_real_time() {
        let thread = nix::unistd::gettid().to_string();
        // Without it the figures are noisier, and nothing else.
        let _ = Command::new("chrt")
            .args(["--rr", "--pid", "1", &thread])
            .status();
    }
}

/// A command that dies with the lab's thread. The program replaces the helpers, so its process id is the child's.
pub fn command(place: Place, program: &Path, args: &[String]) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]);
    command.args(real_time());
    if let Place::In(host) = place {
        command.args(["nsenter", &format!("--net=/run/netns/{host}"), "--"]);
    }
    // keepalived and ip are not in every user's PATH.
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/local/sbin:/usr/sbin:/sbin"));
    command.arg(program).args(args).stdin(Stdio::null());
    command
}

/// A running program.
pub struct Program {
    child: Child,
    log: PathBuf,
    /// Stopped by SIGSTOP.
    frozen: bool,
}

impl Program {
    /// Starts `command`; what it says is added to the file `log`.
    pub fn start(mut command: Command, log: &Path) -> Outcome<Program> {
        let open = || {
            File::options()
                .create(true)
                .append(true)
                .open(log)
                .map_err(|e| format!("{}: {e}", log.display()))
        };
        command.stdout(open()?).stderr(open()?);
        let child = command.spawn().map_err(|e| format!("{command:?}: {e}"))?;
        Ok(Program {
            child,
            log: log.to_owned(),
            frozen: false,
        })
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    /// True while it has not ended.
    pub fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits until `condition` holds; an end before that is an error with its last words.
    pub fn wait_until(&mut self, what: &str, mut condition: impl FnMut() -> bool) -> Outcome<()> {
        let begin = Instant::now();
        while !condition() {
            if !self.runs() || begin.elapsed() > PATIENCE {
                let log = fs::read_to_string(&self.log).unwrap_or_default();
                let last: Vec<&str> = log.lines().rev().take(4).collect();
                let last: Vec<&str> = last.into_iter().rev().collect();
                let log = self.log.display();
                return Err(format!("{what}: in vain; {log}:\n{}", last.join("\n")));
            }
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        Ok(())
    }

    /// Sends it a signal.
    pub fn signal(&mut self, signal: Signal) -> Outcome<()> {
        match signal {
            Signal::SIGSTOP => self.frozen = true,
            Signal::SIGCONT => self.frozen = false,
            _ => {}
        }
        kill(self.pid(), signal).map_err(|e| format!("{signal}: {e}"))
    }

    /// Waits until it has ended by itself.
    pub fn wait(&mut self) -> Outcome<()> {
        self.wait_end("a program ends")
    }

    fn wait_end(&mut self, what: &str) -> Outcome<()> {
        super::wait_for(what, || !self.runs())
    }

    /// SIGKILL to it and everything that it has started, at one moment: all are stopped first, or a child that hears
    /// of its parent's death would still tidy up.
    pub fn kill_all(&mut self) {
        let all = family(self.pid());
        for signal in [Signal::SIGSTOP, Signal::SIGKILL] {
            for &pid in &all {
                // One that has just ended is what was wanted.
                let _ = kill(pid, signal);
            }
        }
        let _ = self.child.wait();
        for &pid in &all {
            // Its children are ours now (see `adopt_orphans`), and whoever looks for one must not find its remains.
            let _ = waitpid(pid, None);
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill_all();
    }
}

/// What programs of the lab leave behind becomes a child of this process, not of the machine's first.
pub fn adopt_orphans() -> Outcome<()> {
    nix::sys::prctl::set_child_subreaper(true).map_err(|e| format!("prctl: {e}"))
}

/// A process and all its descendants, itself first.
pub fn family(pid: Pid) -> Vec<Pid> {
    let mut found = vec![pid];
    let mut next = 0;
    while next < found.len() {
        let path = format!("/proc/{0}/task/{0}/children", found[next]);
        let children = fs::read_to_string(path).unwrap_or_default();
        let children = children
            .split_whitespace()
            .filter_map(|word| word.parse().ok());
        found.extend(children.map(Pid::from_raw));
        next += 1;
    }
    found
}

/// The name of a process.
pub fn name(pid: Pid) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    name.trim().to_string()
}
