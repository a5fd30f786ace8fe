//! Listening sockets that a supervisor opened: each takes the place of the one that magent would have opened for the same
//! address. One that no option asks for is an error, as clients would wait at it in vain.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::Path;

use mio::net::{TcpListener, UnixListener};
use socket2::{Domain, SockRef, Socket, Type};

use super::listener::{self, Listener};
use super::place::{asked_unix, Place};
use crate::config::Config;
use crate::sys::activation::{self, Passed};
use crate::sys::SystemError;

/// The socket that was passed for a TCP address, if there is one.
pub(super) fn tcp(passed: &mut Passed, place: &Place) -> Result<Option<Listener>, SystemError> {
    let Some((fd, _)) = passed.take(|fd| address(fd).is_some_and(|there| place.is_at(there)))
    else {
        return Ok(None);
    };
    let failed = |error: &io::Error| SystemError::io(&place.asked, error);
    let socket = Socket::from(fd);
    let is_ipv6 = address_of(&socket).is_some_and(|address| address.is_ipv6());
    if is_ipv6 && socket.only_v6().map_err(|e| failed(&e))? != place.only_v6 {
        let why = match place.only_v6 {
            true => "the socket passed for it takes IPv4 as well (needs BindIPv6Only=ipv6-only)",
            false => "the socket passed for it takes IPv6 only (needs BindIPv6Only=both)",
        };
        return Err(SystemError::new(&place.asked, why));
    }
    listener::set_options(&socket).map_err(|e| failed(&e))?;
    Ok(Some(Listener::Tcp(TcpListener::from_std(socket.into()))))
}

/// The socket that was passed for a path, if there is one. Its file is the supervisor's.
pub(super) fn unix(
    passed: &mut Passed,
    config: &Config,
    path: &Path,
) -> Result<Option<Listener>, SystemError> {
    let fits = |fd: &OwnedFd| {
        let address = listening(fd).and_then(|socket| socket.local_addr().ok());
        address.is_some_and(|address| address.as_pathname() == Some(path))
    };
    let Some((fd, inherited)) = passed.take(fits) else {
        return Ok(None);
    };
    if inherited && !path.exists() {
        // Nobody could come to it; a new one is made.
        return Ok(None);
    }
    let listener = StdUnixListener::from(fd);
    let failed = |error| SystemError::io(asked_unix(config, path), &error);
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(Some(Listener::Unix {
        // A supervisor keeps its own.
        file: match inherited {
            true => Some(listener::SocketFile::at(path).map_err(failed)?),
            false => None,
        },
        listener: UnixListener::from_std(listener),
    }))
}

/// An error when a socket was passed for an address that is none of these. To be asked before any is opened: one of ours
/// at the same port would only be told that it is in use.
pub(super) fn all_are_asked_for(
    passed: &Passed,
    places: &[Place],
    paths: &[&Path],
) -> Result<(), SystemError> {
    for fd in passed.iter() {
        let what = format!("LISTEN_FDS: descriptor {}", activation::number(fd));
        let Some(socket) = listening(fd) else {
            return Err(SystemError::new(what, "not a listening stream socket"));
        };
        let local = socket
            .local_addr()
            .map_err(|e| SystemError::io(&what, &e))?;
        let shown = match (local.as_socket(), local.as_pathname()) {
            (Some(address), _) if places.iter().any(|place| place.address == address) => continue,
            (_, Some(there)) if paths.contains(&there) => continue,
            (Some(address), _) => address.to_string(),
            (_, Some(there)) => there.display().to_string(),
            _ => "its address".into(),
        };
        let why = format!("{shown} is asked for by none of -l, -p and -f, nor by the file of -c");
        return Err(SystemError::new(what, why));
    }
    Ok(())
}

fn listening(fd: &OwnedFd) -> Option<SockRef<'_>> {
    let socket = SockRef::from(fd);
    let fits = socket.r#type().ok()? == Type::STREAM && socket.is_listener().ok()?;
    fits.then_some(socket)
}

fn address_of(socket: &Socket) -> Option<std::net::SocketAddr> {
    socket.local_addr().ok()?.as_socket()
}

fn address(fd: &OwnedFd) -> Option<std::net::SocketAddr> {
    let socket = listening(fd)?;
    let domain = socket.domain().ok()?;
    if domain != Domain::IPV4 && domain != Domain::IPV6 {
        return None;
    }
    socket.local_addr().ok()?.as_socket()
}
