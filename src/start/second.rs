//! A second start: a magent has the place already. What it does otherwise than this one was told to is said, as nobody
//! would look for it while the start succeeds.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::net;
use crate::pools::Plan;
use crate::sys::instance::{self, Marks, Taken};

/// How long the running magent may take to say what it has.
const PATIENCE: Duration = Duration::from_millis(2000);

/// More than the servers of any pool take.
const ANSWER_MAX: usize = 4 << 20;

/// Whether nobody could connect to the magents that have these places: all of them are paths, and no file is there.
pub(super) fn is_out_of_reach(plans: &[Plan]) -> bool {
    plans.iter().all(|plan| {
        let path = plan.config.socket.as_deref();
        plan.places.is_empty() && path.is_some_and(is_gone)
    })
}

/// What the running one does not do as asked, a line each.
pub(super) fn differences(plans: &[Plan]) -> Vec<String> {
    let mut said = Vec::new();
    for plan in plans {
        let mut asked = None;
        for place in plan.places.iter().filter(|place| !place.reuseport) {
            match is_held(&instance::tcp_mark(&place.address)) {
                true => asked = asked.or_else(|| servers_at(place.address)),
                false => said.push(format!(
                    "{}: the magent that runs does not listen there",
                    place.asked
                )),
            }
        }
        if let Some(path) = &plan.config.socket {
            let at = net::asked_unix(&plan.config, path);
            match instance::socket_mark(path) {
                Ok(mark) if !is_held(&mark) => {
                    said.push(format!("{at}: the magent that runs does not listen there"));
                }
                _ if is_gone(path) => said.push(format!(
                    "{at}: the file is gone, nobody can connect there (--takeover makes it again)"
                )),
                _ => asked = asked.or_else(|| servers_of(UnixStream::connect(path).ok()?)),
            }
        }
        let wanted = (
            plan.config
                .servers
                .iter()
                .map(|server| server.address())
                .collect(),
            plan.config
                .backups
                .iter()
                .map(|server| server.address())
                .collect(),
        );
        if let Some(has) = asked.filter(|has| *has != wanted) {
            said.push(others(plan, &has));
        }
    }
    said
}

/// Names of primaries and backups.
type Servers = (Vec<String>, Vec<String>);

fn others(plan: &Plan, (servers, backups): &Servers) -> String {
    let pool = plan.config.pool.as_deref();
    let pool = pool.map_or_else(String::new, |pool| format!("pool '{pool}': "));
    let backups = match backups.is_empty() {
        true => String::new(),
        false => format!(", backups {}", backups.join(" ")),
    };
    let servers = servers.join(" ");
    format!("{pool}the magent that runs has other servers: {servers}{backups}")
}

fn is_gone(path: &Path) -> bool {
    let there = std::fs::symlink_metadata(path);
    there.is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
}

/// Whether a running magent has that mark. What cannot be told is taken for yes: then nothing is said.
fn is_held(mark: &str) -> bool {
    !matches!(Marks::default().take(mark), Ok(Taken::Ours))
}

fn servers_at(address: SocketAddr) -> Option<Servers> {
    let loopback: [IpAddr; 2] = [Ipv6Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()];
    let ips = match address.ip().is_unspecified() {
        true => &loopback[usize::from(address.is_ipv4())..],
        false => &[address.ip()],
    };
    ips.iter().find_map(|&ip| {
        let address = SocketAddr::new(ip, address.port());
        servers_of(TcpStream::connect_timeout(&address, PATIENCE).ok()?)
    })
}

/// A stream whose reads end after a while.
trait Patient: Read + Write {
    fn set_patience(&self, patience: Duration) -> std::io::Result<()>;
}

impl Patient for TcpStream {
    fn set_patience(&self, patience: Duration) -> std::io::Result<()> {
        self.set_read_timeout(Some(patience))
    }
}

impl Patient for UnixStream {
    fn set_patience(&self, patience: Duration) -> std::io::Result<()> {
        self.set_read_timeout(Some(patience))
    }
}

/// Asks a magent for its servers; `None` when it does not say.
fn servers_of(mut stream: impl Patient) -> Option<Servers> {
    let until = Instant::now() + PATIENCE;
    stream.write_all(b"stats servers\r\n").ok()?;
    let mut text = Vec::new();
    let mut bytes = [0; 4096];
    while !text.ends_with(b"END\r\n") {
        let left = until.checked_duration_since(Instant::now())?;
        stream
            .set_patience(left.max(Duration::from_millis(1)))
            .ok()?;
        let count = stream.read(&mut bytes).ok().filter(|&count| count > 0)?;
        text.extend_from_slice(&bytes[..count]);
        if text.len() > ANSWER_MAX {
            return None;
        }
    }
    Some(read(&String::from_utf8_lossy(&text)))
}

fn read(text: &str) -> Servers {
    let mut servers = Servers::default();
    for line in text.lines().filter_map(|line| line.strip_prefix("STAT ")) {
        if let Some(name) = line.strip_suffix(":role primary") {
            servers.0.push(name.to_owned());
        } else if let Some(name) = line.strip_suffix(":role backup") {
            servers.1.push(name.to_owned());
        }
    }
    servers
}
