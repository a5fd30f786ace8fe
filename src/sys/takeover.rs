//! Sockets handed from a running magent to the one that takes its place (`--takeover`).
//!
//! ```text
//!   new: a pair of sockets, one end of it to the mark of a place --> old: who made the pair? root, or my own user?
//!   old: each mark, listener and the pid file, a descriptor with its name each, then "end"
//!   new: starts with them; when it serves clients: "go"          --> old: accepts nobody any more, and ends
//! ```
//!
//! A pair that closes before "go" is a newcomer that failed: the old one serves on as if nothing had been.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::cmsg_space;
use nix::sys::socket::sockopt::{PeerCredentials, ReceiveTimeout};
use nix::sys::socket::{
    getsockopt, recvmsg, sendmsg, setsockopt, socketpair, AddressFamily, ControlMessage,
    ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr,
};
use nix::sys::time::{TimeVal, TimeValLike};

/// What a newcomer says to a mark.
const ASK: &[u8] = b"magent takeover 1";
const END: &[u8] = b"end";
const GO: &[u8] = b"go";

/// How long the old one may take to hand everything over.
const PATIENCE_SECONDS: i64 = 5;

/// Longest name of a descriptor.
const NAME_MAX: usize = 4096;

/// One end of the pair.
pub struct Pair(OwnedFd);

/// Something that is handed over, by its name: `mark NAME`, `listener`, `pidfile PATH`.
pub type Handed = (String, OwnedFd);

/// Asks whoever holds the mark of that name for what it has. `None`: nobody does any more.
pub fn ask(mark: &str) -> io::Result<Option<(Pair, Vec<Handed>)>> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
    let patience = TimeVal::seconds(PATIENCE_SECONDS);
    setsockopt(&ours, ReceiveTimeout, &patience)?;
    let address = UnixAddr::new_abstract(mark.as_bytes())?;
    let sender = std::os::unix::net::UnixDatagram::unbound()?;
    let rights = [theirs.as_raw_fd()];
    let sent = sendmsg(
        sender.as_raw_fd(),
        &[IoSlice::new(ASK)],
        &[ControlMessage::ScmRights(&rights)],
        MsgFlags::empty(),
        Some(&address),
    );
    match sent {
        Err(nix::errno::Errno::ECONNREFUSED) => return Ok(None),
        other => other.map_err(io::Error::from)?,
    };
    drop(theirs);
    let mut handed = Vec::new();
    loop {
        match receive(ours.as_fd())? {
            (name, None) if name == END => return Ok(Some((Pair(ours), handed))),
            (name, Some(fd)) => handed.push((String::from_utf8_lossy(&name).into_owned(), fd)),
            (name, None) if name.is_empty() => return Err(io::ErrorKind::UnexpectedEof.into()),
            _ => return Err(io::ErrorKind::InvalidData.into()),
        }
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

    /// Whether the newcomer has said "go". An error: it is gone.
    pub fn has_gone(&self) -> io::Result<bool> {
        let mut bytes = [0; 16];
        let flags = MsgFlags::MSG_DONTWAIT;
        match nix::sys::socket::recv(self.0.as_raw_fd(), &mut bytes, flags) {
            Ok(count) if &bytes[..count] == GO => Ok(true),
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

/// Takes what has been said to a mark. `None`: nothing more is waiting. What is no question, or not of root's or of
/// this process's own user, is thrown away.
pub fn take_question(mark: BorrowedFd<'_>) -> Option<Option<Pair>> {
    let (name, fd) = receive(mark).ok()?;
    let Some(pair) = fd.filter(|_| name == ASK) else {
        return Some(None);
    };
    let own = nix::unistd::geteuid().as_raw();
    let asked_by = getsockopt(&pair, PeerCredentials).map(|peer| peer.uid());
    let allowed = asked_by.is_ok_and(|uid| uid == 0 || uid == own);
    Some(allowed.then_some(Pair(pair)))
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
        mark.set_nonblocking(false).unwrap();
        let stranger = std::os::unix::net::UnixDatagram::unbound().unwrap();
        let address = UnixAddr::new_abstract(name.as_bytes()).unwrap();
        let words = [IoSlice::new(ASK)];
        sendmsg(
            stranger.as_raw_fd(),
            &words,
            &[],
            MsgFlags::empty(),
            Some(&address),
        )
        .unwrap();
        let asked = std::iter::repeat_with(|| take_question(mark.as_fd()).unwrap());
        let pair = asked.take(2).flatten().next().unwrap();
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
