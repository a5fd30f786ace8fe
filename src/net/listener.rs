//! Listening sockets: at TCP addresses (also ones that this host does not have yet) and at the path of a Unix socket.
//! Made at the start, while the process still has all its rights; errors name the options.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use mio::event::Source;
use mio::net::{TcpListener, UnixListener};
use mio::{Interest, Registry, Token};
use socket2::{Domain, SockAddr, Socket, TcpKeepalive, Type};

use super::place::{asked_unix, Place, Spot};
use super::stream::Stream;
use crate::config::Config;
use crate::sys::instance::Marks;
use crate::sys::trusted::{self, Owner};
use crate::sys::{self, SystemError};

/// A vanished client is noticed after about two minutes: one that leaves without a word would count against `-n` for ever.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_PROBES: u32 = 6;

/// The listeners of a pool. The index of one stays the same for as long as the pool lives.
#[derive(Default)]
pub struct Listeners(Vec<(Spot, Option<Listener>)>);

impl Listeners {
    /// The addresses that TCP listeners are bound to.
    pub(super) fn ips(&self) -> impl Iterator<Item = IpAddr> + '_ {
        let listeners = self.0.iter().filter_map(|(_, listener)| listener.as_ref());
        listeners.filter_map(Listener::ip)
    }

    /// One more, with the next index.
    pub(super) fn push(&mut self, spot: Spot, listener: Listener) {
        self.0.push((spot, Some(listener)));
    }

    /// One more than the highest index.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The listener with that index, if it is open.
    pub(super) fn get(&self, index: usize) -> Option<&Listener> {
        self.0.get(index)?.1.as_ref()
    }

    /// All that are open, with their indices.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (usize, &mut Listener)> {
        let all = self.0.iter_mut().enumerate();
        all.filter_map(|(index, (_, listener))| Some((index, listener.as_mut()?)))
    }

    /// All that are open.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Listener> {
        self.0.iter().filter_map(|(_, listener)| listener.as_ref())
    }

    /// Closes all; another process has them as well, and their files.
    pub(super) fn leave(&mut self, registry: &Registry) {
        for (_, listener) in self.iter_mut() {
            // Open there, it would go on waking this process. One that is not registered has nothing to fear.
            let _ = listener.deregister(registry);
            listener.leave_file();
        }
        self.clear();
    }

    /// Where they listen.
    pub fn spots(&self) -> impl Iterator<Item = Spot> + '_ {
        let open = self.0.iter().filter(|(_, listener)| listener.is_some());
        open.map(|(spot, _)| spot.clone())
    }

    /// Whether one listens there.
    pub(super) fn listens_at(&self, spot: &Spot) -> bool {
        self.spots().any(|other| other == *spot)
    }

    /// Whether the one with that index listens at one of these, or is closed.
    pub(super) fn is_one_of(&self, index: usize, spots: &[Spot]) -> bool {
        let one = self.0.get(index).filter(|(_, listener)| listener.is_some());
        one.is_none_or(|(spot, _)| spots.contains(spot))
    }

    /// Takes the one out that listens there.
    pub(super) fn take(&mut self, spot: &Spot) -> Option<Listener> {
        let mut all = self.0.iter_mut().filter(|(other, _)| other == spot);
        all.find_map(|(_, listener)| listener.take())
    }

    /// Closes the one with that index.
    pub(super) fn close(&mut self, index: usize) {
        if let Some((_, listener)) = self.0.get_mut(index) {
            *listener = None;
        }
    }

    /// Closes all.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Those that are open.
    pub(super) fn into_all(self) -> impl Iterator<Item = (Spot, Listener)> {
        let all = self.0.into_iter();
        all.filter_map(|(spot, listener)| Some((spot, listener?)))
    }
}

/// Something that accepts clients.
pub(super) enum Listener {
    Tcp(TcpListener),
    /// The file goes first: a newcomer must not find it without anybody behind.
    Unix {
        /// None when it is a supervisor's.
        file: Option<SocketFile>,
        listener: UnixListener,
    },
}

impl Listener {
    /// Binds and listens. Nobody is accepted before the event loop asks.
    pub fn tcp(place: &Place, marks: &Marks) -> Result<Listener, SystemError> {
        let listener = match open_tcp(place) {
            Err(error) if place.or_v4 && sys::is_no_ipv6(&error) => open_tcp(&Place {
                address: (Ipv4Addr::UNSPECIFIED, place.address.port()).into(),
                ..place.clone()
            }),
            other => other,
        };
        listener
            .map(Listener::Tcp)
            .map_err(|error| match error.kind() {
                io::ErrorKind::AddrInUse if marks.others_on_port(place.address.port()) => {
                    SystemError::new(
                        &place.asked,
                        "address already in use by a magent with other options",
                    )
                }
                io::ErrorKind::AddrInUse => {
                    SystemError::new(&place.asked, "address already in use by another program")
                }
                _ => SystemError::io(&place.asked, &error),
            })
    }

    /// Binds a Unix socket that its owner and group may connect to. A file that nobody listens at any more is replaced.
    pub fn unix(config: &Config, path: &Path, owner: Owner) -> Result<Listener, SystemError> {
        let asked = asked_unix(config, path);
        let failed = |error: &io::Error| SystemError::io(&asked, error);
        let address =
            SockAddr::unix(path).map_err(|_| SystemError::new(&asked, "too long for a socket"))?;
        let bind = || {
            make_way(path, &address).map_err(io::Error::other)?;
            let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
            socket.set_nonblocking(true)?;
            // The mode is right from the first moment: nobody else can connect in between.
            sys::daemon::with_umask(0o777 & !config.socket_mode, || socket.bind(&address))?;
            Ok((socket, SocketFile::at(path)?))
        };
        let ((socket, file), is_ours) =
            trusted::create(path, owner, bind).map_err(|e| failed(&e))?;
        if is_ours {
            // Without the right to give it away the file stays ours, and so do the ids.
            let _ = std::os::unix::fs::lchown(path, owner.0, owner.1);
        }
        socket.listen(config.backlog).map_err(|e| failed(&e))?;
        let listener = UnixListener::from_std(std::os::unix::net::UnixListener::from(
            std::os::fd::OwnedFd::from(socket),
        ));
        Ok(Listener::Unix {
            file: Some(file),
            listener,
        })
    }

    /// The address that it is bound to, of TCP.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Listener::Tcp(listener) => Some(listener.local_addr().ok()?.ip().to_canonical()),
            Listener::Unix { .. } => None,
        }
    }

    /// Another process has it as well, and the file is its own now.
    pub fn leave_file(&mut self) {
        if let Listener::Unix { file, .. } = self {
            // What it would do when dropped is left to the other.
            std::mem::forget(file.take());
        }
    }

    /// The socket.
    pub fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Listener::Tcp(listener) => listener.as_fd(),
            Listener::Unix { listener, .. } => listener.as_fd(),
        }
    }

    /// The next waiting client, non-blocking as the listener is.
    pub fn accept(&self) -> io::Result<Stream> {
        match self {
            Listener::Tcp(listener) => listener.accept().map(|(stream, _)| Stream::Tcp(stream)),
            Listener::Unix { listener, .. } => {
                listener.accept().map(|(stream, _)| Stream::Unix(stream))
            }
        }
    }

    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        match self {
            Listener::Tcp(listener) => listener.register(registry, token, Interest::READABLE),
            Listener::Unix { listener, .. } => {
                listener.register(registry, token, Interest::READABLE)
            }
        }
    }

    /// Takes back [`Listener::register`]: clients wait in the kernel's queue.
    pub fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        match self {
            Listener::Tcp(listener) => listener.deregister(registry),
            Listener::Unix { listener, .. } => listener.deregister(registry),
        }
    }
}

fn open_tcp(place: &Place) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(place.address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    // The standby listens before the address is its own. Where the kernel cannot do that, bind will say so.
    if place.address.is_ipv6() {
        socket.set_only_v6(place.only_v6)?;
        let _ = socket.set_freebind_v6(true);
    } else {
        let _ = socket.set_freebind_v4(true);
    }
    if place.reuseport {
        socket.set_reuse_port(true)?;
    }
    set_options(&socket)?;
    socket.bind(&place.address.into())?;
    socket.listen(place.backlog)?;
    Ok(TcpListener::from_std(socket.into()))
}

/// What a listening socket needs, whoever opened it.
pub(super) fn set_options(socket: &Socket) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    // Accepted sockets inherit these, which saves two system calls for each client.
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(KEEPALIVE_IDLE)
            .with_interval(KEEPALIVE_INTERVAL)
            .with_retries(KEEPALIVE_PROBES),
    )
}

/// Removes what a crashed process left at `path`; refuses anything else that is there.
fn make_way(path: &Path, address: &SockAddr) -> Result<(), String> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(sys::reason(&error)),
        Ok(there) if !there.file_type().is_socket() => {
            return Err("there is a file that is no socket".into())
        }
        Ok(_) => {}
    }
    let refused = Socket::new(Domain::UNIX, Type::STREAM, None)
        .and_then(|probe| {
            probe.set_nonblocking(true)?;
            probe.connect(address)
        })
        .err()
        .is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
    // Whatever else it says (also a full queue, also no permission), somebody listens there.
    if !refused {
        return Err("already in use by another program".into());
    }
    fs::remove_file(path).map_err(|error| sys::reason(&error))
}

/// The file of a Unix socket: removed when dropped, unless somebody else's has taken its place.
pub(super) struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl SocketFile {
    pub(super) fn at(path: &Path) -> io::Result<SocketFile> {
        Ok(SocketFile {
            path: path.to_owned(),
            identity: identity(path)?,
        })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|there| there == self.identity) {
            // In a directory of root's it may stay behind; the next start replaces it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let there = fs::symlink_metadata(path)?;
    Ok((there.dev(), there.ino()))
}

#[cfg(test)]
#[path = "listener_tests.rs"]
mod tests;
