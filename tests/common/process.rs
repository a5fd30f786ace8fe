//! Processes and ports of their own, and real memcached servers.

use std::fs;
use std::io::Read;
use std::net::SocketAddr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;
use socket2::{Domain, Socket, Type};

use super::client::Client;
use super::{show, skipped, wait_for, PATIENCE};

/// A port of 127.0.0.1 that is ours as long as this lives, whether something listens on it or not.
///
/// It lies below the range the kernel takes for outgoing connections, so that nobody can sit on it while a server is
/// down; an abstract socket named after it keeps other test processes away.
pub struct Port {
    number: u16,
    _claim: UnixListener,
}

impl Port {
    /// Claims a free one.
    pub fn claim() -> Port {
        const FIRST: u32 = 13_000;
        const COUNT: u32 = 19_000;
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let start = std::process::id().wrapping_mul(397);
        for _ in 0..COUNT {
            let step = NEXT.fetch_add(1, Ordering::Relaxed);
            let number = (FIRST + start.wrapping_add(step) % COUNT) as u16;
            let name = format!("magent-test-port-{number}");
            let address = UnixAddr::from_abstract_name(name).expect("a short name is valid");
            let Ok(claim) = UnixListener::bind_addr(&address) else {
                continue;
            };
            if is_free(number) {
                return Port {
                    number,
                    _claim: claim,
                };
            }
        }
        panic!("no free port");
    }

    /// The number.
    pub fn number(&self) -> u16 {
        self.number
    }
}

/// True when nobody listens there. Bound and never listening: a child that another thread forks at this moment holds a
/// copy for an instant, which must not be in the way of the server that is to come.
fn is_free(port: u16) -> bool {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let bind = || -> std::io::Result<()> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())
    };
    bind().is_ok()
}

/// A command that is killed when the thread that starts it ends, however that happens.
pub fn mortal(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", program]);
    command
}

/// Whether there is such a program here.
pub fn here(program: &str) -> bool {
    let found = Command::new("sh")
        .args(["-c", "command -v \"$0\"", program])
        .output();
    found.is_ok_and(|output| output.status.success())
}

/// Runs a command to its end: the exit code, and all that it said.
#[track_caller]
pub fn run(command: &mut Command) -> (i32, String) {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    let code = output.status.code();
    (
        code.unwrap_or_else(|| panic!("{command:?}: {}: {text}", output.status)),
        text,
    )
}

/// A running child with what it writes to stderr.
pub struct Process {
    child: Child,
    stderr: Arc<Mutex<Vec<u8>>>,
}

impl Process {
    /// Starts the command, with stdin and stdout closed to it.
    pub fn start(command: &mut Command) -> Process {
        Process::start_with(command.stdin(Stdio::null()))
    }

    /// The same, with stdin as the command has it.
    pub fn start_with(command: &mut Command) -> Process {
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let mut pipe = child.stderr.take().expect("stderr is piped");
        let stderr = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&stderr);
        std::thread::spawn(move || {
            let mut scratch = [0; 4096];
            while let Ok(count @ 1..) = pipe.read(&mut scratch) {
                sink.lock()
                    .expect("no panic while locked")
                    .extend_from_slice(&scratch[..count]);
            }
        });
        Process { child, stderr }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has written to stderr so far.
    pub fn stderr(&self) -> String {
        let bytes = self.stderr.lock().expect("no panic while locked");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// True once all that it wrote is read: the reading thread has ended and let its share go.
    pub fn stderr_is_whole(&self) -> bool {
        Arc::strong_count(&self.stderr) == 1
    }

    /// Sends a signal; the process must be there.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id() as i32);
        kill(pid, signal).unwrap_or_else(|error| panic!("{signal}: {error}"));
    }

    /// SIGSTOP, and waits until it is stopped.
    #[track_caller]
    pub fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
        // The signal is only sent; frozen it is when the kernel says so.
        wait_for("the process is stopped", PATIENCE, || {
            let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap_or_default();
            stat.rsplit(')')
                .next()
                .unwrap_or("")
                .trim_start()
                .starts_with('T')
        });
    }

    /// SIGCONT.
    #[track_caller]
    pub fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("our own child can be awaited")
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait(&mut self, deadline: Duration) -> ExitStatus {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            assert!(
                begin.elapsed() < deadline,
                "still running after {deadline:?}; stderr:\n{}",
                self.stderr()
            );
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// kill -9, and waits until it is gone.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Resident memory in bytes.
    pub fn resident(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|rest| {
                rest.trim()
                    .trim_end_matches(" kB")
                    .trim()
                    .parse::<u64>()
                    .ok()
            })
            .expect("a running process has VmRSS")
            * 1024
    }

    /// CPU time used so far, user and system.
    pub fn cpu(&self) -> Duration {
        // Both in hundredths of a second.
        Duration::from_millis((self.stat_field(14) + self.stat_field(15)) * 10)
    }

    /// Pages that it had to wait for, but not for a disk.
    pub fn page_faults(&self) -> u64 {
        self.stat_field(10)
    }

    /// A number of /proc/PID/stat, counted as in proc(5).
    fn stat_field(&self, number: usize) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap_or_default();
        let rest = stat.rsplit(')').next().unwrap_or_default();
        // Two are in front of the bracket.
        rest.split_whitespace()
            .nth(number - 3)
            .and_then(|text| text.parse().ok())
            .expect("a running process has figures")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        let said = self.stderr();
        if std::thread::panicking() && !said.is_empty() {
            eprintln!("--- stderr of process {} ---\n{said}---", self.pid());
        }
    }
}

/// A real memcached server on its own port, which it keeps over restarts.
pub struct Memcached {
    program: String,
    port: Port,
    extra: Vec<String>,
    process: Option<Process>,
}

impl Memcached {
    /// Starts one and waits until it answers.
    pub fn start() -> Memcached {
        Memcached::with(&[])
    }

    /// Starts one with further options.
    pub fn with(extra: &[&str]) -> Memcached {
        // The whole suite can be run against another release's servers.
        let program = std::env::var("MAGENT_TEST_MEMCACHED").unwrap_or("memcached".into());
        Memcached::run(program, extra)
    }

    /// Starts that of another Debian release, which `tests/scripts/memcached-of.sh` has fetched. `None`, and a loud word,
    /// where it could not.
    pub fn of_release(release: &str, extra: &[&str]) -> Option<Memcached> {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scripts/memcached-of.sh");
        let output = std::process::Command::new(script).arg(release).output();
        let output = output.expect("the script runs");
        if !output.status.success() {
            let why = String::from_utf8_lossy(&output.stderr);
            skipped(&format!("no memcached of {release} here: {why}"));
            return None;
        }
        let program = String::from_utf8_lossy(&output.stdout).trim().to_string();
        Some(Memcached::run(program, extra))
    }

    fn run(program: String, extra: &[&str]) -> Memcached {
        let mut server = Memcached {
            program,
            port: Port::claim(),
            extra: extra.iter().map(ToString::to_string).collect(),
            process: None,
        };
        server.restart();
        server
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port.number
    }

    /// Whether it takes a CAS unique from outside (1.6.27 and later).
    pub fn takes_versions(&self) -> bool {
        self.client().ask("md no-such-key E1") == "NF"
    }

    /// A new connection to it.
    #[track_caller]
    pub fn client(&self) -> Client {
        Client::connect(self.port())
    }

    /// kill -9.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// SIGSTOP: its sockets stay, it answers no more.
    #[track_caller]
    pub fn freeze(&self) {
        self.running().freeze();
    }

    /// SIGCONT.
    #[track_caller]
    pub fn thaw(&self) {
        self.running().signal(Signal::SIGCONT);
    }

    /// Starts it (again, empty) on its port.
    #[track_caller]
    pub fn restart(&mut self) {
        self.process = None;
        let port = self.port().to_string();
        let mut command = mortal(&self.program);
        command.args(["-l", "127.0.0.1", "-p", &port, "-U", "0", "-m", "64"]);
        if nix::unistd::Uid::effective().is_root() {
            command.args(["-u", "root"]);
        }
        let mut process = Process::start(command.args(&self.extra));
        wait_answering(self.port(), &mut process, "memcached");
        self.process = Some(process);
    }

    fn running(&self) -> &Process {
        self.process.as_ref().expect("the server is running")
    }
}

/// Waits until `version` is answered on the port.
#[track_caller]
pub fn wait_answering(port: u16, process: &mut Process, name: &str) {
    let mut last = String::new();
    wait_for(&format!("{name} answers on port {port}"), PATIENCE, || {
        if let Some(status) = process.ended() {
            panic!(
                "{name} ended at start: {status}; stderr:\n{}",
                process.stderr()
            );
        }
        let Ok(client) = Client::try_connect(port) else {
            return false;
        };
        let mut client = client.patience(Duration::from_secs(2));
        if client.try_send(b"version\r\n").is_err() {
            return false;
        }
        match client.until_or_end(b"\r\n") {
            Ok(line) if line.starts_with(b"VERSION ") => true,
            Ok(line) | Err((_, line)) => {
                last = show(&line);
                false
            }
        }
    });
}
