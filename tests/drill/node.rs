//! One node: memcached, magent, its watcher and keepalived, started and broken piece by piece.

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;

use super::process::{command, family, name, Place, Program};
use super::{guide, Outcome};

/// The address that moves, and the port of the service.
pub const VIP: (Ipv4Addr, u16) = (Ipv4Addr::new(192, 0, 2, 66), 12000);
/// magent's own name for `-s` and `-b`: the same line on both nodes, A's memcached first.
const PRIMARY: &str = "192.0.2.11:11211";
const BACKUP: &str = "192.0.2.12:11211";
/// The lab's scripts, where only root can change them.
const SCRIPTS: &str = "/run/lab/bin";

/// How the pair is made.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The magent to drill.
    pub magent: PathBuf,
    /// Arguments for `keepalived/render`: profile, preempt and the like.
    pub render: Vec<String>,
    /// Whether the kernel tells of the death of processes here.
    pub track_process: bool,
    /// Whether the nodes are set up the old guides' way.
    pub guide: bool,
    /// How much later than usual the drill begins.
    pub later: Duration,
    /// Tells the labs of this machine apart: part of the proxies' process names.
    pub tag: String,
}

/// A node.
pub struct Node {
    /// `a` or `b`; its namespace has the same name.
    pub name: &'static str,
    setup: Setup,
    dir: PathBuf,
    memcached: Option<Program>,
    proxy: Option<Program>,
    watcher: Option<Program>,
    keepalived: Option<Program>,
}

/// Puts the scripts where keepalived trusts them.
pub fn install_scripts(magent: &Path) -> Outcome<()> {
    let failed = |path: &Path, error| format!("{}: {error}", path.display());
    let scripts = Path::new(SCRIPTS);
    fs::create_dir_all(scripts).map_err(|e| failed(scripts, e))?;
    for script in ["check_magent.sh", "notify_magent.sh", "drain_magent.sh"] {
        let from = source("keepalived").join(script);
        fs::copy(&from, scripts.join(script)).map_err(|e| failed(&from, e))?;
    }
    link(magent, &scripts.join("magent-check"))
}

impl Node {
    /// Nothing is started yet.
    pub fn new(name: &'static str, setup: &Setup) -> Outcome<Node> {
        let node = Node {
            name,
            setup: setup.clone(),
            dir: Path::new("/run/lab").join(name),
            memcached: None,
            proxy: None,
            watcher: None,
            keepalived: None,
        };
        fs::create_dir_all(&node.dir).map_err(|e| format!("{}: {e}", node.dir.display()))?;
        if setup.guide {
            guide::write_files(&node.dir, node.is_first())?;
            link(&setup.magent, &node.file("magent"))?;
        } else {
            link(&setup.magent, &node.file(&node.proxy_name()))?;
            link(&setup.magent, &node.file("magent-watch"))?;
            node.render()?;
        }
        Ok(node)
    }

    fn is_first(&self) -> bool {
        self.name == "a"
    }

    /// Where its logs are.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Of all that runs on this machine only this node's proxy has it.
    fn proxy_name(&self) -> String {
        format!("mg{}{}", self.name, self.setup.tag)
    }

    fn address(&self) -> &'static str {
        if self.is_first() {
            "192.0.2.11"
        } else {
            "192.0.2.12"
        }
    }

    fn peer(&self) -> &'static str {
        if self.is_first() {
            "192.0.2.12"
        } else {
            "192.0.2.11"
        }
    }

    /// The node's keepalived.conf, as one makes it by hand.
    fn render(&self) -> Outcome<()> {
        let role = if self.is_first() { "master" } else { "backup" };
        let switch = |on| if on { "on" } else { "off" };
        let file = |name| self.file(name).display().to_string();
        let mut args: Vec<String> = [
            ("--role", role),
            ("--interface", "eth0"),
            ("--own", self.address()),
            ("--peer", self.peer()),
            ("--vip", &VIP.0.to_string()),
            ("--router-id", "61"),
            ("--process", &self.proxy_name()),
            ("--track-process", switch(self.setup.track_process)),
            ("--check", &file("magent.sock")),
            ("--track-file", &file("magent.track")),
            ("--drain-file", &file("magent.drain")),
            ("--scripts", SCRIPTS),
        ]
        .iter()
        .flat_map(|(option, value)| [option.to_string(), value.to_string()])
        .collect();
        args.extend_from_slice(&self.setup.render);
        let render = source("keepalived").join("render");
        let output = command(Place::In(self.name), &render, &args)
            .output()
            .map_err(|e| format!("{}: {e}", render.display()))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(format!("{}: {said}", render.display()));
        }
        let conf = self.file("keepalived.conf");
        fs::write(&conf, output.stdout).map_err(|e| format!("{}: {e}", conf.display()))
    }

    /// Starts everything, in the order of the units, on a node that has lost what it kept in memory (`/run`).
    pub fn boot(&mut self) -> Outcome<()> {
        for name in [
            "keepalived.pid",
            "vrrp.pid",
            "magent.sock",
            "magent.track",
            "magent.drain",
        ] {
            // Not all of them were there.
            let _ = fs::remove_file(self.file(name));
        }
        self.start_memcached()?;
        self.start_services()
    }

    /// Starts everything but memcached.
    pub fn start_services(&mut self) -> Outcome<()> {
        if !self.setup.guide {
            self.start_proxy()?;
            self.start_watcher()?;
        }
        self.start_keepalived()
    }

    /// memcached, empty.
    pub fn start_memcached(&mut self) -> Outcome<()> {
        let args = words(&format!(
            "-u root -l {} -p 11211 -U 0 -m 64",
            self.address()
        ));
        let program = command(Place::In(self.name), Path::new("memcached"), &args);
        self.memcached = Some(Program::start(program, &self.file("memcached.log"))?);
        Ok(())
    }

    /// The proxy, by the line that is the same on both nodes; waits until it serves.
    pub fn start_proxy(&mut self) -> Outcome<()> {
        let socket = self.file("magent.sock");
        let args = words(&format!(
            "-D -v -f {} -u root -n 51200 -l {} -p {} -s {PRIMARY} -b {BACKUP} --proxy-id {}",
            socket.display(),
            VIP.0,
            VIP.1,
            self.name
        ));
        let program = command(Place::In(self.name), &self.file(&self.proxy_name()), &args);
        let mut program = Program::start(program, &self.file("magent.log"))?;
        program.wait_until("magent listens", || UnixStream::connect(&socket).is_ok())?;
        self.proxy = Some(program);
        // As the unit does when the proxy has started.
        self.put_drain(false)
    }

    fn start_watcher(&mut self) -> Outcome<()> {
        let args = words(&format!(
            "--watch {} --track-file {} -D -v",
            self.file("magent.sock").display(),
            self.file("magent.track").display()
        ));
        let program = command(Place::In(self.name), &self.file("magent-watch"), &args);
        self.watcher = Some(Program::start(program, &self.file("watch.log"))?);
        Ok(())
    }

    /// keepalived; the guides' way it starts the proxy.
    pub fn start_keepalived(&mut self) -> Outcome<()> {
        let conf = self.file("keepalived.conf").display().to_string();
        let mut args = words("-n -l -D -P -G -f");
        args.push(conf);
        for (option, file) in [("-p", "keepalived.pid"), ("-r", "vrrp.pid")] {
            args.push(option.to_string());
            args.push(self.file(file).display().to_string());
        }
        let mut program = if self.setup.guide {
            guide::keepalived(self.name, &args)
        } else if self.setup.track_process {
            args.push("-s".to_string());
            args.push(self.name.to_string());
            command(Place::Outside, Path::new("keepalived"), &args)
        } else {
            command(Place::In(self.name), Path::new("keepalived"), &args)
        };
        // Where notify_magent.sh writes.
        program.env("MAGENT_RUN", &self.dir);
        self.keepalived = Some(Program::start(program, &self.file("keepalived.log"))?);
        Ok(())
    }

    fn put_drain(&self, on: bool) -> Outcome<()> {
        let mut args = words(if on { "on" } else { "off" });
        args.push(self.file("magent.drain").display().to_string());
        let script = Path::new(SCRIPTS).join("drain_magent.sh");
        let mut program = command(Place::In(self.name), &script, &args);
        program.env("KEEPALIVED_PIDS", self.file("keepalived.pid"));
        let status = program
            .status()
            .map_err(|e| format!("{}: {e}", script.display()))?;
        if status.success() {
            Ok(())
        } else {
            Err(format!("{}: {status}", script.display()))
        }
    }

    /// `systemctl stop magent`: the address leaves, then the proxy ends.
    pub fn drain(&mut self) -> Outcome<()> {
        self.put_drain(true)?;
        self.stop_proxy()
    }

    /// SIGTERM to the proxy, and waits until it has ended.
    pub fn stop_proxy(&mut self) -> Outcome<()> {
        let mut proxy = self.proxy.take().ok_or("no proxy runs")?;
        proxy.signal(Signal::SIGTERM)?;
        proxy.wait()
    }

    /// SIGKILL to the proxy.
    pub fn kill_proxy(&mut self) -> Outcome<()> {
        if self.setup.guide {
            let pid = self.guide_process("magent")?;
            return kill(pid, Signal::SIGKILL).map_err(|e| format!("SIGKILL: {e}"));
        }
        self.proxy = None;
        Ok(())
    }

    /// SIGSTOP or SIGCONT to the proxy.
    pub fn signal_proxy(&mut self, signal: Signal) -> Outcome<()> {
        self.proxy.as_mut().ok_or("no proxy runs")?.signal(signal)
    }

    /// SIGKILL to memcached.
    pub fn kill_memcached(&mut self) {
        self.memcached = None;
    }

    /// SIGSTOP or SIGCONT to memcached.
    pub fn signal_memcached(&mut self, signal: Signal) -> Outcome<()> {
        let memcached = self.memcached.as_mut();
        memcached.ok_or("no memcached runs")?.signal(signal)
    }

    /// SIGKILL to all processes of keepalived at once.
    pub fn kill_keepalived(&mut self) {
        self.keepalived = None;
    }

    /// SIGTERM to keepalived. The guides' way it leaves the proxy running.
    pub fn stop_keepalived(&mut self) -> Outcome<()> {
        if self.setup.guide {
            let pid = self.guide_process("keepalived")?;
            return kill(pid, Signal::SIGTERM).map_err(|e| format!("SIGTERM: {e}"));
        }
        let mut keepalived = self.keepalived.take().ok_or("no keepalived runs")?;
        keepalived.signal(Signal::SIGTERM)?;
        keepalived.wait()
    }

    /// Stops or continues every process of the node.
    pub fn freeze(&mut self, signal: Signal) -> Outcome<()> {
        let parts = [
            &mut self.keepalived,
            &mut self.watcher,
            &mut self.proxy,
            &mut self.memcached,
        ];
        for part in parts.into_iter().flatten() {
            for pid in family(part.pid()) {
                // A check that has just ended is not there any more.
                let _ = kill(pid, signal);
            }
        }
        Ok(())
    }

    /// SIGKILL to everything.
    pub fn kill_everything(&mut self) {
        // All of it is stopped before the first one is killed, so none sees another's end.
        let _ = self.freeze(Signal::SIGSTOP);
        self.keepalived = None;
        self.watcher = None;
        self.proxy = None;
        self.memcached = None;
    }

    /// The process of that name that runs the guides' way, where keepalived has started it.
    fn guide_process(&self, wanted: &str) -> Outcome<Pid> {
        let keepalived = self.keepalived.as_ref().ok_or("no keepalived runs")?;
        let mut all = family(keepalived.pid()).into_iter();
        all.find(|pid| name(*pid) == wanted)
            .ok_or_else(|| format!("no {wanted} runs on {}", self.name))
    }

    /// True once the proxy answers on its own socket, or the guides' way runs.
    pub fn has_proxy(&mut self) -> bool {
        match (&mut self.proxy, self.setup.guide) {
            (_, true) => self.guide_process("magent").is_ok(),
            (Some(proxy), false) => proxy.runs(),
            (None, false) => false,
        }
    }

    /// Asks the node's own proxy; `None` when it does not answer.
    pub fn ask_proxy(&self, request: &str) -> Option<String> {
        use std::io::{Read, Write};
        let mut stream = UnixStream::connect(self.file("magent.sock")).ok()?;
        let limit = Duration::from_millis(500);
        stream.set_read_timeout(Some(limit)).ok()?;
        stream.write_all(request.as_bytes()).ok()?;
        let mut reply = Vec::new();
        let mut scratch = [0; 4096];
        while !reply.ends_with(b"END\r\n") {
            let count = stream.read(&mut scratch).ok().filter(|count| *count > 0)?;
            reply.extend_from_slice(&scratch[..count]);
        }
        String::from_utf8(reply).ok()
    }

    /// `magent --verify` from this node: its first line.
    pub fn verify(&self) -> Outcome<String> {
        let args = words(&format!("--verify -s {PRIMARY} -b {BACKUP}"));
        let output = command(Place::In(self.name), &self.setup.magent, &args).output();
        let output = output.map_err(|e| format!("--verify: {e}"))?;
        let said = String::from_utf8_lossy(&output.stdout);
        let first = said.lines().next().map(str::to_string);
        first.ok_or_else(|| format!("--verify: {}", String::from_utf8_lossy(&output.stderr)))
    }
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_string).collect()
}

/// A folder of the source tree.
fn source(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)
}

fn link(to: &Path, at: &Path) -> Outcome<()> {
    std::os::unix::fs::symlink(to, at).map_err(|e| format!("{}: {e}", at.display()))
}
