//! The mark of a running magent: a listening Unix socket in the abstract namespace for each place it listens at. Marks
//! are taken before the places themselves, so that a second start can tell a magent from another program, even from
//! one that hangs. They live in the network namespace, as TCP ports do, and vanish with the process, however it ends.
//!
//! Anybody on the host may be the first to take such a name. So a name proves nothing: the kernel says which user listens there,
//! and only root and the own user are believed.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::socket::{
    bind, connect, getsockopt, listen, socket, AddressFamily, Backlog, SockFlag, SockType, UnixAddr,
};

/// The longest abstract name: `sun_path` without its leading NUL.
const NAME_MAX: usize = 107;

/// How every mark begins.
const PREFIX: &str = "magent/";

/// How many questions may wait at a mark.
const BACKLOG: i32 = 16;

/// Who holds a mark may have bound it and not listen yet, or be about to end: so often it is looked at, after such pauses.
const LOOKS: usize = 5;
const PAUSE: Duration = Duration::from_millis(10);

/// Marks held by this process, until it ends or drops them.
#[derive(Default)]
pub struct Marks {
    held: Vec<(String, OwnedFd)>,
    /// A user that is believed besides root and the process's own.
    also: Option<u32>,
}

/// What came of an attempt to take a mark.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Taken {
    /// It is ours now.
    Ours,
    /// A running magent has it.
    Theirs,
}

impl Marks {
    /// Believes that user as well: the one that this process will become.
    pub fn trust(&mut self, uid: Option<u32>) {
        self.also = uid;
    }

    /// Takes the mark of that name. An error when somebody holds it who is not believed.
    pub fn take(&mut self, name: &str) -> io::Result<Taken> {
        let address = UnixAddr::new_abstract(name.as_bytes())?;
        for _ in 0..LOOKS {
            let socket = new_socket()?;
            match bind(socket.as_raw_fd(), &address) {
                Ok(()) => {
                    listen(&socket, Backlog::new(BACKLOG)?)?;
                    self.held.push((name.to_owned(), socket));
                    return Ok(Taken::Ours);
                }
                Err(Errno::EADDRINUSE) => {}
                Err(error) => return Err(error.into()),
            }
            match reach(name, self.also) {
                Ok(Some(_)) => return Ok(Taken::Theirs),
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                _ => thread::sleep(PAUSE),
            }
        }
        Err(io::Error::other(
            "its mark is held by a program that does not listen there",
        ))
    }

    /// Takes a mark over from the magent that had it.
    pub fn adopt(&mut self, name: &str, socket: OwnedFd) {
        self.held.push((name.to_owned(), socket));
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &OwnedFd)> {
        self.held
            .iter()
            .map(|(name, socket)| (name.as_str(), socket))
    }

    /// Gives the mark of that name up.
    pub fn release(&mut self, name: &str) {
        self.held.retain(|(held, _)| held != name);
    }

    /// Gives all marks up but these.
    pub fn keep(&mut self, names: &[String]) {
        self.held.retain(|(held, _)| names.contains(held));
    }

    /// Whether this process has it.
    pub fn has(&self, name: &str) -> bool {
        self.held.iter().any(|(held, _)| held == name)
    }

    /// True when a magent other than this process listens on that port at any address: tells "a magent with other
    /// options" from strangers.
    pub fn others_on_port(&self, port: u16) -> bool {
        let ending = format!(":{port}");
        let sockets = fs::read_to_string("/proc/net/unix").unwrap_or_default();
        let mut names = sockets.lines().filter_map(|line| line.split_once(" @"));
        names.any(|(_, name)| {
            let is_mark = name.starts_with(PREFIX) && name.ends_with(&ending);
            is_mark && !self.held.iter().any(|(ours, _)| ours == name)
        })
    }
}

/// A connection to whoever holds the mark of that name; `None`: nobody listens there. An error when it is a user that is not
/// believed: others than root, this process's own and `also`.
pub(super) fn reach(name: &str, also: Option<u32>) -> io::Result<Option<OwnedFd>> {
    let socket = new_socket()?;
    match connect(
        socket.as_raw_fd(),
        &UnixAddr::new_abstract(name.as_bytes())?,
    ) {
        Ok(()) => {}
        Err(Errno::ECONNREFUSED) => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    let uid = getsockopt(&socket, PeerCredentials)?.uid();
    let own = nix::unistd::geteuid().as_raw();
    if uid != 0 && uid != own && also != Some(uid) {
        return Err(io::Error::other(format!(
            "its mark is held by user {uid}, who is not believed"
        )));
    }
    Ok(Some(socket))
}

fn new_socket() -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    Ok(socket(
        AddressFamily::Unix,
        SockType::SeqPacket,
        flags,
        None,
    )?)
}

/// The mark of a TCP listener.
pub fn tcp_mark(address: &SocketAddr) -> String {
    format!("{PREFIX}{address}")
}

/// The mark of a Unix socket: the directory's device and inode stand for its path, so that links to it mean the same
/// place and equal paths in two containers do not.
pub fn socket_mark(path: &Path) -> io::Result<String> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let place = fs::metadata(parent)?;
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    let name = format!("{PREFIX}unix/{:x}:{:x}/{file}", place.dev(), place.ino());
    if name.len() <= NAME_MAX {
        return Ok(name);
    }
    let hash = fnv1a(name.as_bytes());
    Ok(format!("{PREFIX}unix/{hash:016x}"))
}

fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_has_one_owner_and_dies_with_it() {
        let name = format!("magent/test-{}", std::process::id());
        let (mut first, mut second) = (Marks::default(), Marks::default());
        assert_eq!(first.take(&name).unwrap(), Taken::Ours);
        assert_eq!(second.take(&name).unwrap(), Taken::Theirs);
        drop(first);
        assert_eq!(second.take(&name).unwrap(), Taken::Ours);
    }

    #[test]
    fn a_name_that_another_program_holds_is_an_error() {
        let name = format!("magent/test-other-{}", std::process::id());
        let silent = new_socket().unwrap();
        let address = UnixAddr::new_abstract(name.as_bytes()).unwrap();
        bind(silent.as_raw_fd(), &address).unwrap();
        let error = Marks::default().take(&name).unwrap_err();
        assert!(error.to_string().contains("does not listen"), "{error}");
    }

    #[test]
    fn names() {
        let v6: SocketAddr = "[::1]:80".parse().unwrap();
        assert_eq!(tcp_mark(&v6), "magent/[::1]:80");
        let name = socket_mark(Path::new("/tmp/x.sock")).unwrap();
        assert!(
            name.starts_with("magent/unix/") && name.ends_with("/x.sock"),
            "{name}"
        );
        let long = socket_mark(&Path::new("/tmp").join("x".repeat(200))).unwrap();
        assert!(long.len() <= NAME_MAX, "{long}");
        assert!(socket_mark(Path::new("/nonexistent/x")).is_err());
    }

    #[test]
    fn another_magent_on_the_port_is_seen() {
        let (mut ours, mut theirs) = (Marks::default(), Marks::default());
        let port = 1; // A port that no test and hardly anybody listens on.
        let pid = std::process::id();
        ours.take(&format!("magent/127.0.0.1-{pid}:{port}"))
            .unwrap();
        assert!(!ours.others_on_port(port));
        theirs
            .take(&format!("magent/127.0.0.2-{pid}:{port}"))
            .unwrap();
        assert!(ours.others_on_port(port));
    }
}
