//! The wires: namespaces joined by a bridge, and what can happen to the cables.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use nix::mount::{mount, MsFlags};
use nix::sched::{setns, unshare, CloneFlags};

use super::process::hurry;
use super::Outcome;

/// Where `ip netns` keeps its namespaces, and the lab its files: in memory, and seen by the lab alone.
pub const RUN: &str = "/run";
/// The namespace of the bridge.
const SWITCH: &str = "sw";
/// Hosts with their last byte in 192.0.2.0/24, and in their MAC address, which they keep when they are made anew.
const HOSTS: [(&str, u8); 3] = [("a", 11), ("b", 12), ("c", 13)];

/// Why there can be no lab here. `Ok` when there can.
pub fn rights() -> Outcome<()> {
    let try_it = Command::new("unshare")
        .args(["-n", "-m", "true"])
        .stdin(Stdio::null())
        .output();
    match try_it {
        Ok(output) if output.status.success() => {}
        Ok(output) => return Err(said(&output.stderr)),
        Err(error) => return Err(format!("unshare: {error}")),
    }
    for program in [
        "ip",
        "bridge",
        "nsenter",
        "setpriv",
        "keepalived",
        "memcached",
    ] {
        let found = Command::new("sh")
            .args([
                "-c",
                "PATH=$PATH:/usr/sbin:/sbin command -v \"$0\"",
                program,
            ])
            .stdout(Stdio::null())
            .status();
        if !found.is_ok_and(|status| status.success()) {
            return Err(format!("{program} is not installed"));
        }
    }
    Ok(())
}

/// A network of its own. The namespaces go with the mount namespace of the thread that made it.
pub struct Network(());

impl Network {
    /// Gives this thread a mount namespace of its own, and makes switch and hosts.
    pub fn new() -> Outcome<Network> {
        let failed = |what: &str, error: nix::Error| format!("{what}: {error}");
        unshare(CloneFlags::CLONE_NEWNS).map_err(|e| failed("unshare", e))?;
        let none: Option<&str> = None;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
            .map_err(|e| failed("mount --make-rprivate /", e))?;
        mount(
            Some("tmpfs"),
            RUN,
            Some("tmpfs"),
            MsFlags::empty(),
            Some("mode=755"),
        )
        .map_err(|e| failed("mount -t tmpfs /run", e))?;
        let netns = format!("{RUN}/netns");
        fs::create_dir(&netns).map_err(|e| format!("{netns}: {e}"))?;
        ip(&format!("netns add {SWITCH}"))?;
        ip(&format!("-n {SWITCH} link add br0 type bridge"))?;
        ip(&format!("-n {SWITCH} link set br0 up"))?;
        let network = Network(());
        for (host, _) in HOSTS {
            network.attach(host)?;
        }
        Ok(network)
    }

    /// Makes a host's namespace and plugs its cable in.
    pub fn attach(&self, host: &str) -> Outcome<()> {
        let number = HOSTS.iter().find(|(name, _)| *name == host);
        let (_, number) = number.ok_or_else(|| format!("there is no host {host}"))?;
        ip(&format!("netns add {host}"))?;
        ip(&format!("-n {host} link set lo up"))?;
        ip(&format!(
            "-n {SWITCH} link add p-{host} type veth peer name eth0 netns {host} address 02:00:c0:00:02:{number:02x}"
        ))?;
        ip(&format!("-n {SWITCH} link set p-{host} master br0 up"))?;
        ip(&format!("-n {host} link set eth0 up"))?;
        ip(&format!("-n {host} addr add 192.0.2.{number}/24 dev eth0"))
    }

    /// Removes a host with all its sockets, as a loss of power does. Its processes must have been killed.
    pub fn remove(&self, host: &str) -> Outcome<()> {
        ip(&format!("-n {SWITCH} link del p-{host}"))?;
        ip(&format!("netns del {host}"))
    }

    /// Pulls a host's cable: both ends see it.
    pub fn unplug(&self, host: &str) -> Outcome<()> {
        ip(&format!("-n {SWITCH} link set p-{host} down"))
    }

    /// Plugs it in again.
    pub fn plug(&self, host: &str) -> Outcome<()> {
        ip(&format!("-n {SWITCH} link set p-{host} up"))
    }

    /// Cuts the nodes apart, or joins them again. The clients reach both all the while, and no link goes down.
    pub fn part(&self, apart: bool) -> Outcome<()> {
        let word = if apart { "on" } else { "off" };
        for host in ["a", "b"] {
            run(
                "bridge",
                &format!("-n {SWITCH} link set dev p-{host} isolated {word}"),
            )?;
        }
        Ok(())
    }
}

/// Runs `work` on a new thread that lives in the host's namespace.
pub fn inside<T: Send + 'static>(
    host: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Outcome<std::thread::JoinHandle<T>> {
    let path = PathBuf::from(format!("{RUN}/netns/{host}"));
    let file = File::open(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let entered = std::sync::Arc::new(std::sync::Barrier::new(2));
    let there = entered.clone();
    let thread = std::thread::Builder::new().name(format!("drill-{host}"));
    let thread = thread.spawn(move || {
        let result = setns(file, CloneFlags::CLONE_NEWNET);
        there.wait();
        result.expect("root enters its own namespaces");
        hurry();
        work()
    });
    let thread = thread.map_err(|e| format!("thread: {e}"))?;
    entered.wait();
    Ok(thread)
}

fn ip(words: &str) -> Outcome<()> {
    run("ip", words)
}

/// Runs a command that says nothing when all is well.
fn run(program: &str, words: &str) -> Outcome<()> {
    let output = Command::new(program)
        .args(words.split(' '))
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("{program}: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{program} {words}: {}", said(&output.stderr)))
}

fn said(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_string()
}
