//! The proxy under test, as a process.

use std::process::{ExitStatus, Stdio};

use nix::sys::signal::Signal;

use super::client::Client;
use super::process::{mortal, wait_answering, Port, Process};
use super::{wait_for, PATIENCE, TIMEOUT};

/// The proxy under test.
pub struct Magent {
    port: Port,
    process: Process,
    /// A test that ends the process itself takes the guard off.
    may_end: bool,
}

impl Magent {
    /// In the foreground in front of these ports.
    pub fn front(primaries: &[u16], backups: &[u16]) -> MagentCommand {
        let mut arguments = Vec::new();
        for (option, ports) in [("-s", primaries), ("-b", backups)] {
            for port in ports {
                arguments.extend([option.to_string(), format!("127.0.0.1:{port}")]);
            }
        }
        MagentCommand {
            arguments,
            wrapper: Vec::new(),
            everywhere: false,
        }
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// A new connection to it.
    #[track_caller]
    pub fn client(&self) -> Client {
        Client::connect(self.port())
    }

    /// The process, for signals and measures.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Ends it by a signal and tells how it ended.
    #[track_caller]
    pub fn end(mut self, signal: Signal) -> ExitStatus {
        self.may_end = true;
        self.process.signal(signal);
        self.process.wait(PATIENCE)
    }

    /// SIGTERM is on its way: the process may end from here on.
    pub fn begin_end(&mut self) {
        self.may_end = true;
        self.process.signal(Signal::SIGTERM);
    }

    /// Waits for the end after `begin_end`.
    #[track_caller]
    pub fn wait_end(&mut self) -> ExitStatus {
        self.process.wait(PATIENCE)
    }

    /// Still the same process, and it answers a new client.
    #[track_caller]
    pub fn assert_alive(&mut self) {
        if let Some(status) = self.process.ended() {
            panic!(
                "the proxy ended: {status}; stderr:\n{}",
                self.process.stderr()
            );
        }
        let version = self.client().ask("version");
        assert!(
            version.starts_with("VERSION "),
            "version answered {version}"
        );
    }
}

impl Drop for Magent {
    fn drop(&mut self) {
        let ended = if self.may_end {
            None
        } else {
            self.process.ended()
        };
        if let Some(status) = ended.filter(|_| !std::thread::panicking()) {
            panic!(
                "the proxy died: {status}; stderr:\n{}",
                self.process.stderr()
            );
        }
    }
}

/// What to start the proxy with.
pub struct MagentCommand {
    arguments: Vec<String>,
    wrapper: Vec<String>,
    everywhere: bool,
}

impl MagentCommand {
    /// Further options.
    pub fn args(mut self, more: &[&str]) -> MagentCommand {
        self.arguments.extend(more.iter().map(ToString::to_string));
        self
    }

    /// Run by another program, as `prlimit --nofile=64`.
    pub fn under(mut self, wrapper: &[&str]) -> MagentCommand {
        self.wrapper = wrapper.iter().map(ToString::to_string).collect();
        self
    }

    /// At all addresses of the host.
    pub fn everywhere(mut self) -> MagentCommand {
        self.everywhere = true;
        self
    }

    /// Starts it on a port of its own and waits until it answers.
    #[track_caller]
    pub fn start(self) -> Magent {
        let port = Port::claim();
        let number = port.number().to_string();
        let mut command = match self.wrapper.split_first() {
            Some((program, rest)) => {
                let mut command = mortal(program);
                command.args(rest).arg(magent_binary());
                command
            }
            None => mortal(&magent_binary()),
        };
        if !self.everywhere {
            command.args(["-l", "127.0.0.1"]);
        }
        command.args(["-v", "-p", &number]).args(&self.arguments);
        if !self.arguments.iter().any(|word| word == "--timeout") {
            command.args(["--timeout", &TIMEOUT.as_millis().to_string()]);
        }
        let mut process = Process::start(&mut command);
        wait_answering(port.number(), &mut process, "magent");
        Magent {
            port,
            process,
            may_end: false,
        }
    }
}

/// The binary under test: ours, or the one that `MAGENT_BIN` names (an installed one, say).
pub fn magent_binary() -> String {
    std::env::var("MAGENT_BIN").unwrap_or_else(|_| env!("CARGO_BIN_EXE_magent").to_string())
}

/// Runs the proxy with exactly these arguments until it ends: exit code and stderr.
#[track_caller]
pub fn run_magent(arguments: &[&str]) -> (i32, String) {
    let mut process = Process::start(mortal(&magent_binary()).args(arguments));
    let status = process.wait(PATIENCE);
    let code = status
        .code()
        .unwrap_or_else(|| panic!("magent {arguments:?} was ended by a signal: {status}"));
    wait_for("stderr is read", PATIENCE, || process.stderr_is_whole());
    (code, process.stderr())
}

/// Runs the proxy with exactly these arguments until it ends: exit code, stdout and stderr.
#[track_caller]
pub fn run_magent_output(arguments: &[String]) -> (i32, String, String) {
    let mut command = mortal(&magent_binary());
    let output = command.args(arguments).stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let code = output.status.code();
    let code = code.unwrap_or_else(|| panic!("magent {arguments:?}: {}", output.status));
    (code, text(output.stdout), text(output.stderr))
}
