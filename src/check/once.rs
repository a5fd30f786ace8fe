//! `--check`: one question, one line, one exit code.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};

use super::answer::{Answer, Finding, QUESTION};
use crate::config::{Check, ServerSpec, Target};
use crate::sys::reason;

/// Asks. Takes no longer than the time limit.
pub fn ask(check: &Check) -> Finding {
    let limit = Duration::from_micros(check.timeout.0);
    let deadline = Instant::now() + limit;
    exchange(&check.target, deadline).unwrap_or_else(|error| match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => {
            Finding::silent(format!("no answer within {} ms", limit.as_millis()))
        }
        _ => Finding::silent(reason(&error)),
    })
}

fn exchange(target: &Target, deadline: Instant) -> io::Result<Finding> {
    match target {
        Target::Unix(path) => {
            let mut stream = connect_unix(path, deadline)?;
            converse(&mut stream, deadline, |stream, limit| {
                stream.set_read_timeout(Some(limit))
            })
        }
        Target::Tcp(spec) => {
            let mut stream = connect_tcp(&resolve(spec, deadline)?, deadline)?;
            converse(&mut stream, deadline, |stream, limit| {
                stream.set_read_timeout(Some(limit))
            })
        }
    }
}

/// The question is short enough to be taken by any connection at once; the answer may come in pieces.
fn converse<S: Read + Write>(
    stream: &mut S,
    deadline: Instant,
    limit: fn(&S, Duration) -> io::Result<()>,
) -> io::Result<Finding> {
    stream.write_all(QUESTION)?;
    let mut answer = Answer::default();
    let mut scratch = [0; 4096];
    loop {
        limit(stream, left(deadline)?)?;
        let count = match stream.read(&mut scratch) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            other => other?,
        };
        if count == 0 {
            return Ok(Finding::silent("it closed the connection"));
        }
        if let Some(finding) = answer.take(&scratch[..count]) {
            return Ok(finding);
        }
    }
}

/// What is left of the time; an error when that is nothing.
fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    match left.is_zero() {
        true => Err(ErrorKind::TimedOut.into()),
        false => Ok(left),
    }
}

/// A unix socket's connect blocks when the queue of the listener is full, and knows no limit but that of sending.
fn connect_unix(path: &Path, deadline: Instant) -> io::Result<UnixStream> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_write_timeout(Some(left(deadline)?))?;
    socket.connect(&SockAddr::unix(path)?)?;
    Ok(UnixStream::from(OwnedFd::from(socket)))
}

fn connect_tcp(addresses: &[SocketAddr], deadline: Instant) -> io::Result<TcpStream> {
    let mut failed = io::Error::from(ErrorKind::AddrNotAvailable);
    for address in addresses {
        match TcpStream::connect_timeout(address, left(deadline)?) {
            Ok(stream) => {
                stream.set_write_timeout(Some(left(deadline)?))?;
                return Ok(stream);
            }
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

/// Looks a name up in a thread of its own, as that takes no time limit; numbers need no looking up.
pub(super) fn resolve(spec: &ServerSpec, deadline: Instant) -> io::Result<Vec<SocketAddr>> {
    if let Ok(ip) = spec.host.parse() {
        return Ok(vec![SocketAddr::new(ip, spec.port)]);
    }
    let (sender, receiver) = mpsc::channel();
    let place = (spec.host.clone(), spec.port);
    thread::Builder::new().spawn(move || {
        let found = place.to_socket_addrs().map(Iterator::collect);
        // Nobody listens any more when time is up.
        let _ = sender.send(found);
    })?;
    match receiver.recv_timeout(left(deadline)?) {
        Ok(found) => found,
        Err(_) => Err(ErrorKind::TimedOut.into()),
    }
}
