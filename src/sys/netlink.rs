//! The addresses of this host, and word from the kernel when they change: rtnetlink(7). Nothing is polled.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{
    bind, recvfrom, sendto, setsockopt, socket, sockopt, AddressFamily, MsgFlags, NetlinkAddr,
    SockFlag, SockProtocol, SockType,
};
use nix::sys::time::TimeVal;

/// Larger than any message of the kernel: it sends a list of addresses in pieces of at most 32 KiB.
const BUFFER: usize = 64 * 1024;

/// Attempts to read a list that does not change meanwhile.
const DUMP_TRIES: usize = 5;

const HEADER: usize = 16;
const IFADDRMSG: usize = 8;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;

/// An address on one interface, by the interface's index: two may have the same one.
type Entry = (IpAddr, u32);

/// What has become of addresses since the last look.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// On this host now, and not before.
    pub came: Vec<IpAddr>,
    /// Not on this host now, but before, or for a moment since.
    pub left: Vec<IpAddr>,
}

/// All addresses of this host, kept up to date.
pub struct Addresses {
    events: OwnedFd,
    here: HashSet<Entry>,
    buffer: Box<[u8]>,
}

impl Addresses {
    /// Subscribes, then reads what there is: nothing falls between the two.
    pub fn open() -> io::Result<Addresses> {
        let groups = (libc::RTMGRP_IPV4_IFADDR | libc::RTMGRP_IPV6_IFADDR) as u32;
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let mut addresses = Addresses {
            events: open(flags, groups)?,
            here: HashSet::new(),
            buffer: vec![0; BUFFER].into_boxed_slice(),
        };
        addresses.here = dump(&mut addresses.buffer)?;
        Ok(addresses)
    }

    /// Whether the host has that address now.
    pub fn has(&self, ip: IpAddr) -> bool {
        self.here.iter().any(|(here, _)| *here == ip)
    }

    /// Takes all that has come. To be called when the descriptor is readable.
    pub fn take(&mut self) -> Changes {
        let mut tracked = Tracked::default();
        let mut overflow = false;
        loop {
            let received = recvfrom::<NetlinkAddr>(self.events.as_raw_fd(), &mut self.buffer);
            match received {
                Ok((count, from)) if is_kernel(from.as_ref()) => {
                    for event in messages(&self.buffer[..count]) {
                        tracked.apply(&mut self.here, &event);
                    }
                }
                Ok(_) | Err(Errno::EINTR) => {}
                // More changed than the socket could hold: what was lost must be looked up.
                Err(Errno::ENOBUFS) => overflow = true,
                Err(_) => break,
            }
        }
        if overflow {
            match dump(&mut self.buffer) {
                Ok(now) => tracked.replace(&mut self.here, now),
                Err(error) => log::warn!(
                    "addresses of this host: list not read: {}",
                    super::reason(&error)
                ),
            }
        }
        tracked.changes(&self.here)
    }
}

impl AsRawFd for Addresses {
    fn as_raw_fd(&self) -> RawFd {
        self.events.as_raw_fd()
    }
}

/// Anybody may send to a netlink socket; only the kernel has the number 0.
fn is_kernel(from: Option<&NetlinkAddr>) -> bool {
    from.is_none_or(|from| from.pid() == 0)
}

fn open(flags: SockFlag, groups: u32) -> io::Result<OwnedFd> {
    let protocol = SockProtocol::NetlinkRoute;
    let fd = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?;
    bind(fd.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
    Ok(fd)
}

/// Reads all addresses. The kernel has them ready when it is asked, so this waits for nobody.
fn dump(buffer: &mut [u8]) -> io::Result<HashSet<Entry>> {
    let fd = open(SockFlag::SOCK_CLOEXEC, 0)?;
    // Against a kernel that breaks its word.
    setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::new(1, 0))?;
    let mut request = Vec::with_capacity(HEADER + IFADDRMSG);
    request.extend_from_slice(&((HEADER + IFADDRMSG) as u32).to_ne_bytes());
    request.extend_from_slice(&libc::RTM_GETADDR.to_ne_bytes());
    let flags = (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16;
    request.extend_from_slice(&flags.to_ne_bytes());
    request.extend_from_slice(&[0; 8]);
    // The family 0 stands for all of them.
    request.extend_from_slice(&[0; IFADDRMSG]);
    let mut last = io::Error::from(Errno::EAGAIN);
    for _ in 0..DUMP_TRIES {
        let kernel = NetlinkAddr::new(0, 0);
        sendto(fd.as_raw_fd(), &request, &kernel, MsgFlags::empty())?;
        match read_list(&fd, buffer) {
            Err(error) if error.raw_os_error() == Some(libc::EINTR) => last = error,
            other => return other,
        }
    }
    Err(last)
}

/// The answer to one request. An error EINTR: it changed while it was sent.
fn read_list(fd: &OwnedFd, buffer: &mut [u8]) -> io::Result<HashSet<Entry>> {
    let mut list = HashSet::new();
    let mut interrupted = false;
    loop {
        let (count, from) = match recvfrom::<NetlinkAddr>(fd.as_raw_fd(), buffer) {
            Err(Errno::EINTR) => continue,
            other => other?,
        };
        if !is_kernel(from.as_ref()) {
            continue;
        }
        for event in messages(&buffer[..count]) {
            interrupted |= event.interrupted;
            match event.kind {
                Kind::Here(entry) => {
                    list.insert(entry);
                }
                Kind::Done if interrupted => return Err(Errno::EINTR.into()),
                Kind::Done => return Ok(list),
                Kind::Failed(number) => return Err(io::Error::from_raw_os_error(number)),
                Kind::Gone(_) | Kind::Other => {}
            }
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Here(Entry),
    Gone(Entry),
    /// The end of a list.
    Done,
    /// The kernel refused, with that error number.
    Failed(i32),
    Other,
}

#[derive(Debug, PartialEq, Eq)]
struct Event {
    kind: Kind,
    /// The list that this belongs to is not of one moment.
    interrupted: bool,
}

/// The messages in one datagram. What does not fit its own lengths ends it.
fn messages(bytes: &[u8]) -> impl Iterator<Item = Event> + '_ {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = u32_at(rest, 0)? as usize;
        if length < HEADER || length > rest.len() {
            return None;
        }
        let event = message(&rest[..length]);
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(event)
    })
}

fn message(bytes: &[u8]) -> Event {
    let kind = u16_at(bytes, 4).unwrap_or(0);
    let flags = u16_at(bytes, 6).unwrap_or(0);
    let body = &bytes[HEADER..];
    let entry = || entry(body);
    let kind = match kind {
        libc::RTM_NEWADDR => entry().map_or(Kind::Other, Kind::Here),
        libc::RTM_DELADDR => entry().map_or(Kind::Other, Kind::Gone),
        kind if i32::from(kind) == libc::NLMSG_DONE => Kind::Done,
        kind if i32::from(kind) == libc::NLMSG_ERROR => {
            let number = u32_at(body, 0).unwrap_or(0) as i32;
            Kind::Failed(number.saturating_neg())
        }
        _ => Kind::Other,
    };
    Event {
        kind,
        interrupted: i32::from(flags) & libc::NLM_F_DUMP_INTR != 0,
    }
}

/// The address of an `ifaddrmsg` with its attributes. On a line from point to point `IFA_ADDRESS` is the other end's.
fn entry(body: &[u8]) -> Option<Entry> {
    let family = i32::from(*body.first()?);
    let interface = u32_at(body, 4)?;
    let mut rest = body.get(IFADDRMSG..)?;
    let mut found = None;
    while let (Some(length), Some(kind)) = (u16_at(rest, 0), u16_at(rest, 2)) {
        let length = usize::from(length);
        let Some(value) = rest.get(4..length) else {
            break;
        };
        let is_local = kind == IFA_LOCAL;
        if is_local || (kind == IFA_ADDRESS && found.is_none()) {
            found = address(family, value).or(found);
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Some((found?, interface))
}

fn address(family: i32, value: &[u8]) -> Option<IpAddr> {
    match family {
        libc::AF_INET => Some(Ipv4Addr::from(<[u8; 4]>::try_from(value).ok()?).into()),
        libc::AF_INET6 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(value).ok()?).into()),
        _ => None,
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let field = bytes.get(at..at + 2)?;
    Some(u16::from_ne_bytes(field.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let field = bytes.get(at..at + 4)?;
    Some(u32::from_ne_bytes(field.try_into().ok()?))
}

/// Which addresses were touched, and whether each was there before.
#[derive(Default)]
struct Tracked {
    before: HashMap<IpAddr, bool>,
    gone: HashSet<IpAddr>,
}

impl Tracked {
    fn touch(&mut self, here: &HashSet<Entry>, ip: IpAddr) {
        let was_here = || here.iter().any(|(there, _)| *there == ip);
        self.before.entry(ip).or_insert_with(was_here);
    }

    fn apply(&mut self, here: &mut HashSet<Entry>, event: &Event) {
        match event.kind {
            Kind::Here(entry) if !here.contains(&entry) => {
                self.touch(here, entry.0);
                here.insert(entry);
            }
            Kind::Gone(entry) => {
                self.touch(here, entry.0);
                self.gone.insert(entry.0);
                here.remove(&entry);
            }
            _ => {}
        }
    }

    /// All addresses were read anew.
    fn replace(&mut self, here: &mut HashSet<Entry>, now: HashSet<Entry>) {
        for (ip, _) in now.symmetric_difference(here) {
            self.touch(here, *ip);
        }
        self.gone.extend(here.difference(&now).map(|(ip, _)| *ip));
        *here = now;
    }

    fn changes(self, here: &HashSet<Entry>) -> Changes {
        let mut changes = Changes::default();
        for (ip, before) in self.before {
            let now = here.iter().any(|(there, _)| *there == ip);
            if now && !before {
                changes.came.push(ip);
            } else if !now && (before || self.gone.contains(&ip)) {
                changes.left.push(ip);
            }
        }
        changes
    }
}

#[cfg(test)]
#[path = "netlink_tests.rs"]
mod tests;
