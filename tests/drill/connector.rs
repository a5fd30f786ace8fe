//! Whether the kernel tells of the death of processes here: what keepalived's `track_process` stands on.

use std::io::Read;
use std::time::Duration;

use nix::sys::socket::{bind, NetlinkAddr};
use socket2::{Domain, Protocol, Socket, Type};

use std::os::fd::AsRawFd;

/// The connector's protocol and group of netlink (linux/netlink.h, linux/connector.h).
const NETLINK_CONNECTOR: i32 = 11;
const CN_IDX_PROC: u32 = 1;
const CN_VAL_PROC: u32 = 1;
/// To begin to listen (linux/cn_proc.h).
const PROC_CN_MCAST_LISTEN: u32 = 1;
const NLMSG_DONE: u16 = 3;

/// Asks the kernel as keepalived does, and waits for its word: what comes in answer has the error number 0.
pub fn works() -> bool {
    listen().is_ok_and(|error| error == 0)
}

fn listen() -> std::io::Result<u32> {
    let netlink = Domain::from(nix::libc::AF_NETLINK);
    let protocol = Protocol::from(NETLINK_CONNECTOR);
    let mut socket = Socket::new(netlink, Type::DGRAM, Some(protocol))?;
    socket.set_read_timeout(Some(Duration::from_millis(500)))?;
    // Process id 0: the kernel chooses the socket's number.
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, CN_IDX_PROC))?;
    // nlmsghdr, cn_msg, and the operation; all in the machine's byte order.
    let mut message = Vec::new();
    for word in [40u32, u32::from(NLMSG_DONE), 0, 0] {
        message.extend_from_slice(&word.to_ne_bytes());
    }
    for word in [CN_IDX_PROC, CN_VAL_PROC, 0, 0] {
        message.extend_from_slice(&word.to_ne_bytes());
    }
    message.extend_from_slice(&4u16.to_ne_bytes());
    message.extend_from_slice(&0u16.to_ne_bytes());
    message.extend_from_slice(&PROC_CN_MCAST_LISTEN.to_ne_bytes());
    socket.send(&message)?;
    let mut answer = [0; 256];
    loop {
        let count = socket.read(&mut answer)?;
        // Behind both heads: the kind of event, CPU, time (8 bytes), data. Kind 0 is the answer, its data the error.
        let word = |at: usize| {
            answer[..count]
                .get(at..at + 4)
                .map(|b| [b[0], b[1], b[2], b[3]])
        };
        if let (Some([0, 0, 0, 0]), Some(error)) = (word(36), word(52)) {
            return Ok(u32::from_ne_bytes(error));
        }
    }
}
