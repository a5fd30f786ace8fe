//! Child processes: started on their CPU, bound to the bench's life, measured by the kernel's
//! own accounting.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sched::{sched_getaffinity, sched_setaffinity, CpuSet};
use nix::sys::resource::{getrlimit, setrlimit, Resource};
use nix::unistd::Pid;

/// How long a process may take to accept connections.
const START: Duration = Duration::from_secs(5);

/// Which CPU does what. With one CPU nothing is pinned, and figures mean little.
#[derive(Clone, Copy, Debug)]
pub struct Cpus {
    /// The proxies under test, one busy at a time.
    pub proxy: Option<usize>,
    /// The load generator.
    pub load: Option<usize>,
    /// The servers: with the load generator where there are only two CPUs.
    pub servers: Option<usize>,
}

impl Cpus {
    /// Deals the CPUs that we may use, and moves this process to its own.
    pub fn deal() -> Result<Cpus, String> {
        let us = Pid::from_raw(0);
        let allowed = sched_getaffinity(us).map_err(|e| format!("sched_getaffinity: {e}"))?;
        let cpus: Vec<usize> = (0..CpuSet::count())
            .filter(|&cpu| allowed.is_set(cpu).unwrap_or(false))
            .take(3)
            .collect();
        let [proxy, load, ..] = cpus[..] else {
            return Ok(Cpus {
                proxy: None,
                load: None,
                servers: None,
            });
        };
        let mut own = CpuSet::new();
        own.set(load)
            .and_then(|()| sched_setaffinity(us, &own))
            .map_err(|e| format!("sched_setaffinity: {e}"))?;
        Ok(Cpus {
            proxy: Some(proxy),
            load: Some(load),
            servers: Some(cpus.get(2).copied().unwrap_or(load)),
        })
    }
}

/// Thousands of connections need thousands of descriptors, here and in the children.
pub fn raise_descriptor_limit() -> Result<u64, String> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(|e| format!("getrlimit: {e}"))?;
    let wanted = hard.min(1 << 20);
    setrlimit(Resource::RLIMIT_NOFILE, wanted, hard).map_err(|e| format!("setrlimit: {e}"))?;
    Ok(wanted)
}

/// Hands out ports of 127.0.0.1 that are free now, outside the range that connections take theirs from.
pub struct Ports(u16);

impl Ports {
    /// Starts at a place of our own, so that two runs rarely meet.
    pub fn new() -> Ports {
        Ports(15_000 + (std::process::id() % 1_000) as u16 * 12)
    }

    /// The next free one.
    pub fn next(&mut self) -> Result<u16, String> {
        while self.0 < 32_000 {
            self.0 += 1;
            if TcpListener::bind(("127.0.0.1", self.0)).is_ok() {
                return Ok(self.0);
            }
        }
        Err("no free port below 32000 on 127.0.0.1".to_string())
    }
}

/// A running child. It is killed when this is dropped, and by the kernel when the bench dies.
pub struct Child {
    process: std::process::Child,
    name: String,
    log: PathBuf,
    /// The command line, as one would type it.
    pub line: String,
}

impl Child {
    /// Starts `program` on `cpu`; what it prints goes to a file in `dir`.
    pub fn start(
        name: &str,
        cpu: Option<usize>,
        program: &Path,
        args: &[String],
        dir: &Path,
    ) -> Result<Child, String> {
        let log = dir.join(format!("{name}.log"));
        let out = File::create(&log).map_err(|e| format!("{}: {e}", log.display()))?;
        let err = out
            .try_clone()
            .map_err(|e| format!("{}: {e}", log.display()))?;
        // taskset and setpriv become the program itself, so its pid is the child's.
        let mut words = Vec::new();
        if let Some(cpu) = cpu {
            words.extend(["taskset".to_string(), "-c".to_string(), cpu.to_string()]);
        }
        let shown = words.len();
        words.extend(["setpriv", "--pdeathsig", "KILL"].map(String::from));
        words.push(program.display().to_string());
        words.extend_from_slice(args);
        let process = Command::new(&words[0])
            .args(&words[1..])
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .map_err(|e| format!("{}: {e} (util-linux has it)", words[0]))?;
        words.drain(shown..shown + 3);
        Ok(Child {
            process,
            name: name.to_string(),
            log,
            line: words.join(" "),
        })
    }

    /// Waits until the child accepts connections.
    pub fn wait_for(&mut self, address: SocketAddr) -> Result<(), String> {
        let end = Instant::now() + START;
        loop {
            if TcpStream::connect(address).is_ok() {
                return Ok(());
            }
            if let Ok(Some(status)) = self.process.try_wait() {
                return Err(self.complain(&format!("ended at once ({status})")));
            }
            if Instant::now() > end {
                return Err(self.complain(&format!("does not listen on {address}")));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn complain(&self, what: &str) -> String {
        let said = fs::read_to_string(&self.log).unwrap_or_default();
        let last: Vec<&str> = said.lines().rev().take(3).collect();
        let last: Vec<&str> = last.into_iter().rev().collect();
        format!(
            "{} {what}: {}\n  {}",
            self.name,
            self.line,
            last.join("\n  ")
        )
    }

    /// Nanoseconds of CPU that the process has used, all threads together.
    pub fn cpu_ns(&self) -> Result<u64, String> {
        let tasks = format!("/proc/{}/task", self.process.id());
        let mut sum = 0;
        for task in
            fs::read_dir(&tasks).map_err(|e| format!("{} is gone: {tasks}: {e}", self.name))?
        {
            let path = task
                .map_err(|e| format!("{tasks}: {e}"))?
                .path()
                .join("schedstat");
            let text = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
            let first = text.split(' ').next().and_then(|n| n.parse::<u64>().ok());
            sum += first.ok_or_else(|| format!("{}: not understood: {text}", path.display()))?;
        }
        Ok(sum)
    }

    /// Resident memory of the process in bytes.
    pub fn rss(&self) -> Result<u64, String> {
        let path = format!("/proc/{}/status", self.process.id());
        let text =
            fs::read_to_string(&path).map_err(|e| format!("{} is gone: {path}: {e}", self.name))?;
        text.lines()
            .find_map(|line| {
                line.strip_prefix("VmRSS:")?
                    .split_whitespace()
                    .next()?
                    .parse::<u64>()
                    .ok()
            })
            .map(|kib| kib * 1024)
            .ok_or_else(|| format!("{path}: no VmRSS"))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It may have ended by itself; there is nothing to do about it here.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The first place of `program` in PATH or in the directories of system programs.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(program))
        .find(|file| file.is_file())
}

/// The first line that a program prints about itself, on whichever stream.
pub fn first_line(program: &Path, argument: &str) -> String {
    let Ok(out) = Command::new(program)
        .arg(argument)
        .stdin(Stdio::null())
        .output()
    else {
        return "not there".to_string();
    };
    let text = [out.stdout, out.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().find(|line| !line.trim().is_empty());
    line.unwrap_or("says nothing").trim().to_string()
}
