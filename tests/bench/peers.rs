//! Those who are measured, each with the command line that starts it, and the servers behind them.

use crate::scraper::Scraper;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use nix::sys::resource::{getrlimit, Resource};

use crate::corpus::Corpus;
use crate::procs::{find, first_line, Child, Cpus, Ports};

/// How long the proxies wait for a server. It costs nothing while servers answer; on a busy machine a
/// process may stand still for half a second, which is no fault of the proxy's.
const TIMEOUT_MS: u32 = 2000;

/// Who takes part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// magent in front of the primaries.
    Magent,
    /// The same, asked in the binary protocol.
    MagentBinary,
    /// magent whose metrics are fetched once a second.
    MagentScraped,
    /// magent with as many backups as primaries, each key on one of them (`--copies 1`).
    MagentMirrored,
    /// The same, and a write is answered when its primary has answered.
    MagentAckPrimary,
    /// twemproxy, from the distribution.
    Nutcracker,
    /// memcached's own proxy, where a memcached was built with it.
    MemcachedProxy,
    /// The same with the other half of the servers as backups: sets go to both, and wait for both.
    MemcachedProxyMirrored,
    /// No proxy: the servers themselves, which shows what the load generator can ask for.
    Direct,
}

impl Kind {
    /// As in `--peers` and in the table.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Magent => "magent",
            Kind::MagentBinary => "magent-binary",
            Kind::MagentScraped => "magent-scraped",
            Kind::MagentMirrored => "magent-mirrored",
            Kind::MagentAckPrimary => "magent-ack-1",
            Kind::Nutcracker => "nutcracker",
            Kind::MemcachedProxy => "memcached-proxy",
            Kind::MemcachedProxyMirrored => "mc-proxy-mirrored",
            Kind::Direct => "direct",
        }
    }

    /// All names that `--peers` takes.
    pub const ALL: [Kind; 9] = [
        Kind::Magent,
        Kind::MagentBinary,
        Kind::MagentScraped,
        Kind::MagentMirrored,
        Kind::MagentAckPrimary,
        Kind::Nutcracker,
        Kind::MemcachedProxy,
        Kind::MemcachedProxyMirrored,
        Kind::Direct,
    ];
}

/// Where the programs are. Those that are not there do not take part.
pub struct Programs {
    magent: PathBuf,
    nutcracker: Option<PathBuf>,
    memcached: Option<PathBuf>,
    memcached_proxy: Option<PathBuf>,
    bench: PathBuf,
}

impl Programs {
    /// Looks for them; `memcached_proxy` is tried for memcached's proxy before the one in PATH.
    pub fn find(magent: PathBuf, memcached_proxy: Option<PathBuf>) -> Result<Programs, String> {
        if let Some(missing) = memcached_proxy
            .iter()
            .chain([&magent])
            .find(|file| !file.is_file())
        {
            return Err(format!("{} is not there", missing.display()));
        }
        let memcached = find("memcached");
        // Without a path of its own: the usual memcached, or the one that `make deps` fetched, if built with the proxy.
        let usual = [memcached.clone(), fetched()].into_iter().flatten();
        let memcached_proxy =
            memcached_proxy.or_else(|| usual.into_iter().find(|file| has_proxy(file)));
        Ok(Programs {
            magent,
            nutcracker: find("nutcracker"),
            memcached,
            memcached_proxy,
            bench: std::env::current_exe().map_err(|e| format!("own path: {e}"))?,
        })
    }

    /// Whether a peer can take part.
    pub fn has(&self, kind: Kind) -> bool {
        match kind {
            Kind::Nutcracker => self.nutcracker.is_some(),
            Kind::MemcachedProxy | Kind::MemcachedProxyMirrored => self.memcached_proxy.is_some(),
            Kind::Magent
            | Kind::MagentBinary
            | Kind::MagentScraped
            | Kind::MagentMirrored
            | Kind::MagentAckPrimary
            | Kind::Direct => true,
        }
    }

    /// One line for each program: its version and where it is.
    pub fn versions(&self) -> Vec<String> {
        let line = |name: &str, path: &Option<PathBuf>, option: &str| match path {
            Some(path) => format!("{name}: {} ({})", first_line(path, option), path.display()),
            None => format!("{name}: not installed"),
        };
        vec![
            line("magent", &Some(self.magent.clone()), "-V"),
            line("nutcracker", &self.nutcracker, "-V"),
            line("memcached", &self.memcached, "-V"),
            line("memcached's proxy", &self.memcached_proxy, "-V"),
        ]
    }
}

/// Where tests/scripts/memcached-of.sh puts the newest release.
fn fetched() -> Option<PathBuf> {
    let home = |name| std::env::var_os(name).map(PathBuf::from);
    let cache = home("MAGENT_CACHE").or_else(|| {
        let caches = home("XDG_CACHE_HOME").or_else(|| Some(home("HOME")?.join(".cache")));
        Some(caches?.join("magent"))
    });
    Some(cache?.join("memcached-sid/memcached")).filter(|file| file.is_file())
}

fn has_proxy(memcached: &Path) -> bool {
    let help = std::process::Command::new(memcached).arg("-h").output();
    help.is_ok_and(|out| String::from_utf8_lossy(&out.stdout).contains("proxy_config"))
}

/// What every start needs.
pub struct Place<'a> {
    /// The programs.
    pub programs: &'a Programs,
    /// Who runs where.
    pub cpus: Cpus,
    /// For configurations and logs.
    pub dir: &'a Path,
    /// Free ports.
    pub ports: Ports,
}

/// Servers that answer, and their ports.
pub struct Servers {
    /// The processes.
    pub children: Vec<Child>,
    ports: Vec<u16>,
}

impl Servers {
    /// `count` servers for this corpus: look-alikes in one process, or real ones.
    pub fn start(
        place: &mut Place,
        count: usize,
        corpus: &Corpus,
        real: bool,
    ) -> Result<Servers, String> {
        let ports = (0..count)
            .map(|_| place.ports.next())
            .collect::<Result<Vec<u16>, String>>()?;
        let mut children = Vec::new();
        if real {
            for (i, &port) in ports.iter().enumerate() {
                children.push(memcached(place, i, port)?);
            }
        } else {
            let mut args = words(&format!("lookalike {} {}", corpus.keys(), corpus.size()));
            args.extend(ports.iter().map(u16::to_string));
            let bench = &place.programs.bench;
            children.push(Child::start(
                "lookalike",
                place.cpus.servers,
                bench,
                &args,
                place.dir,
            )?);
        }
        for (i, &port) in ports.iter().enumerate() {
            let child = i.min(children.len() - 1);
            children[child].wait_for(local(port))?;
        }
        Ok(Servers { children, ports })
    }

    /// Where a server listens.
    pub fn address(&self, index: usize) -> SocketAddr {
        local(self.ports[index])
    }

    /// Kills a real server and starts it again, empty.
    pub fn restart(&mut self, place: &Place, index: usize) -> Result<(), String> {
        let dead = self.children.remove(index);
        drop(dead);
        let child = memcached(place, index, self.ports[index])?;
        self.children.insert(index, child);
        self.children[index].wait_for(local(self.ports[index]))
    }
}

fn memcached(place: &Place, index: usize, port: u16) -> Result<Child, String> {
    let program = place.programs.memcached.as_ref();
    let program = program.ok_or("memcached is not installed")?;
    let args = words(&format!(
        "{}-l 127.0.0.1 -p {port} -U 0 -t 1 -m 1024 -c 8192 -b 1024",
        as_root("-u root ")
    ));
    let name = format!("memcached-{}", index + 1);
    Child::start(&name, place.cpus.servers, program, &args, place.dir)
}

/// A proxy (or none) in front of the servers.
pub struct Peer {
    /// Its process; none for `Direct`.
    pub child: Option<Child>,
    /// Where clients connect to.
    pub addresses: Vec<SocketAddr>,
    /// Who fetches its metrics.
    _scraper: Option<Scraper>,
}

impl Peer {
    /// magent in front of the first server and with the others as backups, with further options.
    pub fn magent(place: &mut Place, servers: &Servers, options: &str) -> Result<Peer, String> {
        let port = place.ports.next()?;
        let (first, rest) = servers.ports.split_at(1);
        let mut args = magent(port, first, rest);
        args.extend(words(options));
        let program = place.programs.magent.clone();
        let mut child = Child::start("magent", place.cpus.proxy, &program, &args, place.dir)?;
        child.wait_for(local(port))?;
        Ok(Peer {
            child: Some(child),
            _scraper: None,
            addresses: vec![local(port)],
        })
    }

    /// Starts it in front of the first half of the servers as primaries, the others as backups, if
    /// it mirrors; else in front of as many as there are primaries in the row.
    pub fn start(
        kind: Kind,
        place: &mut Place,
        servers: &Servers,
        primaries: usize,
    ) -> Result<Peer, String> {
        let (first, second) = servers.ports.split_at(primaries);
        if kind == Kind::Direct {
            return Ok(Peer {
                child: None,
                _scraper: None,
                addresses: first.iter().map(|&port| local(port)).collect(),
            });
        }
        let port = place.ports.next()?;
        let mut scraper = None;
        let (program, args) = match kind {
            Kind::MagentScraped => {
                let mut args = magent(port, first, &[]);
                let admin = place.ports.next()?;
                args.extend(words(&format!("--admin 127.0.0.1:{admin}")));
                scraper = Some(Scraper::start(local(admin)));
                (place.programs.magent.clone(), args)
            }
            Kind::Magent | Kind::MagentBinary => {
                (place.programs.magent.clone(), magent(port, first, &[]))
            }
            Kind::MagentMirrored => (place.programs.magent.clone(), magent(port, first, second)),
            Kind::MagentAckPrimary => {
                let mut args = magent(port, first, second);
                args.extend(words("--ack primary"));
                (place.programs.magent.clone(), args)
            }
            Kind::Nutcracker => nutcracker(place, port, first)?,
            Kind::MemcachedProxy => memcached_proxy(place, port, (first, &[]))?,
            Kind::MemcachedProxyMirrored => memcached_proxy(place, port, (first, second))?,
            Kind::Direct => unreachable!("returned above"),
        };
        let mut child = Child::start(kind.name(), place.cpus.proxy, &program, &args, place.dir)?;
        child.wait_for(local(port))?;
        Ok(Peer {
            child: Some(child),
            _scraper: scraper,
            addresses: vec![local(port)],
        })
    }

    /// magent in front of the first `primaries` of the servers, with the others as backups and `more` options.
    pub fn start_magent(
        place: &mut Place,
        servers: &Servers,
        primaries: usize,
        more: &[&str],
    ) -> Result<Peer, String> {
        let (first, second) = servers.ports.split_at(primaries);
        let port = place.ports.next()?;
        let mut args = magent(port, first, second);
        args.extend(more.iter().map(ToString::to_string));
        let program = place.programs.magent.clone();
        let mut child = Child::start("magent", place.cpus.proxy, &program, &args, place.dir)?;
        child.wait_for(local(port))?;
        Ok(Peer {
            child: Some(child),
            _scraper: None,
            addresses: vec![local(port)],
        })
    }
}

/// As many client connections as the limit of open files has room for; this process has raised it.
fn conns_max() -> u64 {
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft);
    limit.saturating_sub(500).clamp(500, 65_000)
}

fn magent(port: u16, primaries: &[u16], backups: &[u16]) -> Vec<String> {
    let mut args = words(&format!(
        "-D {}-n {} -l 127.0.0.1 -p {port} --timeout {TIMEOUT_MS}",
        as_root("-u root "),
        conns_max()
    ));
    for port in primaries {
        args.extend(words(&format!("-s 127.0.0.1:{port}")));
    }
    for port in backups {
        args.extend(words(&format!("-b 127.0.0.1:{port}")));
    }
    if !backups.is_empty() {
        args.extend(words("--copies 1"));
    }
    args
}

fn nutcracker(
    place: &mut Place,
    port: u16,
    servers: &[u16],
) -> Result<(PathBuf, Vec<String>), String> {
    let program = place
        .programs
        .nutcracker
        .clone()
        .ok_or("nutcracker is not installed")?;
    let mut text = format!(
        "bench:\n  listen: 127.0.0.1:{port}\n  hash: fnv1a_64\n  distribution: modula\n  \
         timeout: {TIMEOUT_MS}\n  backlog: 1024\n  server_connections: 1\n  auto_eject_hosts: false\n  servers:\n"
    );
    for port in servers {
        text.push_str(&format!("   - 127.0.0.1:{port}:1\n"));
    }
    let config = write(place.dir, "nutcracker.yml", &text)?;
    let stats = place.ports.next()?;
    let mut args = words(&format!("-a 127.0.0.1 -s {stats} -c"));
    args.push(config);
    Ok((program, args))
}

/// The least that its proxy does: every key to its server, one worker thread; with backups, sets to one of each, answered when
/// both have answered. Newer ones have functions that are prepared beforehand, older ones take a plain function.
fn memcached_proxy(
    place: &mut Place,
    port: u16,
    (servers, backups): (&[u16], &[u16]),
) -> Result<(PathBuf, Vec<String>), String> {
    let program = place
        .programs
        .memcached_proxy
        .clone()
        .ok_or("no memcached with a proxy")?;
    let pool = |ports: &[u16]| {
        let backend = |port: &u16| format!("    mcp.backend('b{port}', '127.0.0.1', {port}),\n");
        let list: String = ports.iter().map(backend).collect();
        format!("mcp.pool({{\n{list}  }})")
    };
    let mut text = format!(
        "function mcp_config_pools()\n  return {{ first = {}, second = {} }}\nend\n\
         function mcp_config_routes(pools)\n\
         \x20 if mcp.funcgen_new then\n\
         \x20   local fg = mcp.funcgen_new()\n\
         \x20   local handle = fg:new_handle(pools.first)\n\
         \x20   fg:ready({{ f = function(rctx)\n\
         \x20     return function(r) return rctx:enqueue_and_wait(r, handle) end\n\
         \x20   end }})\n\
         \x20   mcp.attach(mcp.CMD_ANY_STORAGE, fg)\n\
         \x20 else\n\
         \x20   mcp.attach(mcp.CMD_ANY_STORAGE, function(r) return pools.first(r) end)\n\
         \x20 end\n",
        pool(servers),
        pool(if backups.is_empty() { servers } else { backups }),
    );
    if !backups.is_empty() {
        text.push_str(
            "  local both = mcp.funcgen_new()\n\
             \x20 local first = both:new_handle(pools.first)\n\
             \x20 local second = both:new_handle(pools.second)\n\
             \x20 both:ready({ f = function(rctx)\n\
             \x20   return function(r)\n\
             \x20     rctx:enqueue(r, { first, second })\n\
             \x20     rctx:wait_cond(2, mcp.WAIT_ANY)\n\
             \x20     return rctx:res_any(first)\n\
             \x20   end\n\
             \x20 end })\n\
             \x20 mcp.attach(mcp.CMD_SET, both)\n",
        );
    }
    text.push_str("end\n");
    let config = write(place.dir, &format!("memcached-proxy-{port}.lua"), &text)?;
    let mut args = words(&format!(
        "{}-l 127.0.0.1 -p {port} -U 0 -t 1 -c {} -b 1024 -o",
        as_root("-u root "),
        conns_max()
    ));
    args.push(format!("proxy_config={config}"));
    Ok((program, args))
}

fn write(dir: &Path, name: &str, text: &str) -> Result<String, String> {
    let path = dir.join(name);
    fs::write(&path, text).map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(path.display().to_string())
}

/// Splits a command line that we wrote ourselves. Paths are not in it: they may have spaces.
fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(String::from).collect()
}

fn as_root(option: &str) -> &str {
    if nix::unistd::geteuid().is_root() {
        option
    } else {
        ""
    }
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}
