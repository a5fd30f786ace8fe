//! Sockets handed from a running magent to the one that takes its place (`--takeover`).
//!
//! ```text
//!   new: connects to the mark of a place: who listens there? root, or my own user? --> old: who connects? the same
//!   old: each mark, listener and the pid file, a descriptor with its name each, then "end"
//!   new: starts with them; when it serves clients: "go"          --> old: accepts nobody any more, and ends
//! ```
//!
//! Both ask the kernel, of this very connection: what somebody hands in could be anybody's.
//! A pair that closes before "go" is a newcomer that failed: the old one serves on as if nothing had been.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::cmsg_space;
use nix::fcntl::{fcntl, FcntlArg, OFlag};
use nix::sys::socket::sockopt::{PeerCredentials, ReceiveTimeout};
use nix::sys::socket::{
    accept4, getsockopt, recvmsg, sendmsg, setsockopt, ControlMessage, ControlMessageOwned,
    MsgFlags, SockFlag,
};
use nix::sys::time::{TimeVal, TimeValLike};

use super::instance::reach;

/// What a newcomer says to a mark.
const ASK: &[u8] = b"magent takeover 1";
const END: &[u8] = b"end";
const GO: &[u8] = b"go";

/// How long the old one may take to hand everything over; it may just have begun, and wait for its servers.
const PATIENCE_SECONDS: i64 = 15;

/// Longest name of a descriptor.
const NAME_MAX: usize = 4096;

/// One end of the pair.
pub struct Pair(OwnedFd);

/// Something that is handed over, by its name: `mark NAME`, `listener`, `pidfile PATH`.
pub type Handed = (String, OwnedFd);

/// Asks whoever holds the mark of that name for what it has. `None`: nobody does any more. An error when it is neither root's nor
/// this user's.
pub fn ask(mark: &str) -> io::Result<Option<(Pair, Vec<Handed>)>> {
    let Some(ours) = reach(mark, None)? else {
        return Ok(None);
    };
    // The answers are waited for.
    fcntl(&ours, FcntlArg::F_SETFL(OFlag::empty()))?;
    let patience = TimeVal::seconds(PATIENCE_SECONDS);
    setsockopt(&ours, ReceiveTimeout, &patience)?;
    let ours = Pair(ours);
    // Whoever is not let in is sent away, before or after it has asked.
    ours.send(ASK, &[]).map_err(sent_away)?;
    let ours = ours.0;
    let mut handed = Vec::new();
    loop {
        match receive(ours.as_fd()).map_err(sent_away)? {
            (name, None) if name == END => return Ok(Some((Pair(ours), handed))),
            (name, Some(fd)) => handed.push((String::from_utf8_lossy(&name).into_owned(), fd)),
            (name, None) if name.is_empty() => return Err(io::ErrorKind::UnexpectedEof.into()),
            _ => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

fn sent_away(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
            io::ErrorKind::UnexpectedEof.into()
        }
        _ => error,
    }
}

impl Pair {
    /// The newcomer serves: the old one may go.
    pub fn go(self) {
        // If it is gone already it needs no telling.
        let _ = nix::unistd::write(&self.0, GO);
    }

    /// Hands over one thing.
    pub fn hand(&self, name: &str, fd: BorrowedFd<'_>) -> io::Result<()> {
        let rights = [fd.as_raw_fd()];
        self.send(name.as_bytes(), &[ControlMessage::ScmRights(&rights)])
    }

    /// That was all.
    pub fn end(&self) -> io::Result<()> {
        self.send(END, &[])
    }

    fn send(&self, bytes: &[u8], control: &[ControlMessage<'_>]) -> io::Result<()> {
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        let slices = [IoSlice::new(bytes)];
        sendmsg::<()>(self.0.as_raw_fd(), &slices, control, flags, None)?;
        Ok(())
    }

    /// Whether the newcomer has asked for what there is. An error: it says something else, or is gone.
    pub fn has_asked(&self) -> io::Result<bool> {
        self.has_said(ASK)
    }

    /// Whether the newcomer has said "go". An error: it is gone.
    pub fn has_gone(&self) -> io::Result<bool> {
        self.has_said(GO)
    }

    fn has_said(&self, words: &[u8]) -> io::Result<bool> {
        let mut bytes = [0; 32];
        let flags = MsgFlags::MSG_DONTWAIT;
        match nix::sys::socket::recv(self.0.as_raw_fd(), &mut bytes, flags) {
            Ok(count) if &bytes[..count] == words => Ok(true),
            Ok(_) => Err(io::ErrorKind::UnexpectedEof.into()),
            Err(nix::errno::Errno::EAGAIN) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsRawFd for Pair {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Takes the next connection to a mark. `None`: nobody waits any more. Others than root and this process's own user are sent
/// away.
pub fn accept(mark: BorrowedFd<'_>) -> Option<Option<Pair>> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = accept4(mark.as_raw_fd(), flags).ok()?;
    // SAFETY: the kernel has just made this descriptor for this process; nobody else knows of it.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    let own = nix::unistd::geteuid().as_raw();
    let uid = getsockopt(&socket, PeerCredentials).map(|peer| peer.uid());
    let allowed = uid.is_ok_and(|uid| uid == 0 || uid == own);
    Some(allowed.then_some(Pair(socket)))
}

fn receive(socket: BorrowedFd<'_>) -> io::Result<(Vec<u8>, Option<OwnedFd>)> {
    let mut bytes = vec![0; NAME_MAX];
    let mut space = cmsg_space!([RawFd; 4]);
    let mut slices = [IoSliceMut::new(&mut bytes)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut slices, Some(&mut space), flags)?;
    let count = message.bytes;
    let mut all = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = control {
            // SAFETY: the kernel has just made these descriptors for this process; nobody else knows of them.
            all.extend(
                fds.into_iter()
                    .map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }),
            );
        }
    }
    bytes.truncate(count);
    // One is sent at a time; more are a stranger's, and are closed.
    Ok((bytes, all.into_iter().next()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::instance::{Marks, Taken};
    use std::thread;

    #[test]
    fn descriptors_go_over_and_strangers_words_do_not_matter() {
        let name = format!("magent/takeover-test-{}", std::process::id());
        let mut marks = Marks::default();
        assert_eq!(marks.take(&name).unwrap(), Taken::Ours);
        let asked = name.clone();
        let newcomer = thread::spawn(move || ask(&asked).unwrap().unwrap());
        let mark = marks.iter().next().unwrap().1;
        // One that says something else, and one that says nothing.
        let stranger = Pair(reach(&name, None).unwrap().unwrap());
        stranger.send(b"what is this", &[]).unwrap();
        let silent = reach(&name, None).unwrap().unwrap();
        let mut pairs = Vec::new();
        let pair = loop {
            pairs.extend(std::iter::from_fn(|| accept(mark.as_fd())).flatten());
            let asks = |pair: &Pair| pair.has_asked().unwrap_or(false);
            if let Some(place) = pairs.iter().position(asks) {
                break pairs.swap_remove(place);
            }
            thread::yield_now();
        };
        drop((stranger, silent));
        let (one, other) = std::os::unix::net::UnixStream::pair().unwrap();
        pair.hand("listener", one.as_fd()).unwrap();
        pair.end().unwrap();
        let (theirs, handed) = newcomer.join().unwrap();
        assert_eq!(handed.len(), 1);
        assert_eq!(handed[0].0, "listener");
        let copy = std::os::unix::net::UnixStream::from(handed.into_iter().next().unwrap().1);
        drop(one);
        std::io::Write::write_all(&mut &copy, b"x").unwrap();
        let mut byte = [0];
        std::io::Read::read_exact(&mut &other, &mut byte).unwrap();
        assert!(!pair.has_gone().unwrap());
        theirs.go();
        assert!(pair.has_gone().unwrap());
        assert!(ask("magent/nobody-has-this").unwrap().is_none());
    }
}
