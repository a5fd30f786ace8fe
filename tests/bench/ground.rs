//! What the measurements beside the table have in common: their options, programs, CPUs, ports, and waiting for a figure to
//! stand still.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use getopts::Options as Getopts;
use socket2::{Domain, Socket, Type};

use crate::peers::{Kind, Place, Programs};
use crate::procs::{raise_descriptor_limit, Child, Cpus, Ports};

/// Connections from one address to one port: fewer than the kernel has ports for.
const FROM_ONE_ADDRESS: usize = 20_000;

/// Options of a measurement, and where it takes place.
pub struct Ground {
    programs: Programs,
    cpus: Cpus,
    dir: PathBuf,
    /// Who takes part.
    pub kinds: Vec<Kind>,
    /// Descriptors that this process, and each that it starts, may have.
    pub descriptors: usize,
    found: getopts::Matches,
}

impl Ground {
    /// Reads the options that all of them take, and those in `more` (name, text, hint).
    pub fn new(
        args: &[String],
        kinds: &[Kind],
        more: &[(&str, &str, &str)],
    ) -> Result<Ground, String> {
        let mut known = Getopts::new();
        known.optflag("", "bench", "(cargo bench passes it; it means nothing)");
        known.optopt("", "magent", "the binary to measure", "PATH");
        known.optopt("", "memcached-proxy", "a memcached with its proxy", "PATH");
        known.optopt("", "peers", "only these", "PEER,PEER");
        for (name, text, hint) in more {
            known.optopt("", name, text, hint);
        }
        let found = known
            .parse(args)
            .map_err(|e| format!("{e}\n{}", known.usage("Options")))?;
        let magent = found
            .opt_str("magent")
            .unwrap_or_else(|| env!("CARGO_BIN_EXE_magent").to_string());
        let programs = Programs::find(
            PathBuf::from(magent),
            found.opt_str("memcached-proxy").map(PathBuf::from),
        )?;
        let only = found.opt_str("peers");
        let wanted = |kind: &Kind| match &only {
            Some(list) => list.split(',').any(|name| name == kind.name()),
            None => true,
        };
        let kinds = kinds
            .iter()
            .copied()
            .filter(|kind| wanted(kind) && programs.has(*kind))
            .collect();
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench");
        std::fs::create_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        let descriptors = raise_descriptor_limit()? as usize;
        let ground = Ground {
            programs,
            cpus: Cpus::deal()?,
            dir,
            kinds,
            descriptors,
            found,
        };
        print!("{}", ground.about());
        Ok(ground)
    }

    /// The machine, the versions and the conditions.
    pub fn about(&self) -> String {
        crate::report::conditions_text(&self.programs, self.cpus, false)
    }

    /// A place to start processes at.
    pub fn place(&self) -> Place<'_> {
        Place {
            programs: &self.programs,
            cpus: self.cpus,
            dir: &self.dir,
            ports: Ports::new(),
        }
    }

    /// The number that option `name` gives.
    pub fn number(&self, name: &str, default: usize) -> Result<usize, String> {
        match self.found.opt_str(name) {
            Some(text) => text.parse().map_err(|e| format!("--{name} {text}: {e}")),
            None => Ok(default),
        }
    }

    /// The text that option `name` gives.
    pub fn text(&self, name: &str) -> Option<String> {
        self.found.opt_str(name)
    }
}

/// Resident bytes, once they have not changed for half a second; at the latest after ten.
pub fn settled_rss(child: &Child) -> Result<u64, String> {
    let end = Instant::now() + Duration::from_secs(10);
    let mut last = child.rss()?;
    let mut same = 0;
    while same < 5 && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(100));
        let now = child.rss()?;
        same = if now == last { same + 1 } else { 0 };
        last = now;
    }
    Ok(last)
}

/// The connection with number `index` of many, from an address of its own for each some thousand. `receive`: the size of its
/// receive buffer.
pub fn connect(to: SocketAddr, index: usize, receive: Option<usize>) -> Result<TcpStream, String> {
    let from = Ipv4Addr::new(127, 0, 0, 1 + (index / FROM_ONE_ADDRESS) as u8);
    let attempt = || -> std::io::Result<TcpStream> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        if let Some(size) = receive {
            socket.set_recv_buffer_size(size)?;
        }
        if index >= FROM_ONE_ADDRESS {
            socket.bind(&SocketAddr::from((from, 0)).into())?;
        }
        socket.connect(&to.into())?;
        socket.set_tcp_nodelay(true)?;
        Ok(socket.into())
    };
    attempt().map_err(|e| format!("connection {index} from {from} to {to}: {e}"))
}
