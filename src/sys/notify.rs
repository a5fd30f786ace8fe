//! What systemd wants to hear of a service in the foreground: that it is ready, what it is doing, that it is alive, that
//! it ends. One datagram for each, as sd_notify(3) describes them.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use crate::time::{Span, Time};

const SOCKET: &str = "NOTIFY_SOCKET";
const WATCHDOG_USEC: &str = "WATCHDOG_USEC";
const WATCHDOG_PID: &str = "WATCHDOG_PID";

/// Most often that the watchdog is kicked, whatever it asks for.
const KICK_MIN: Span = Span::from_millis(10);

/// The way to the supervisor; leads nowhere when there is none.
#[derive(Default)]
pub struct Notifier {
    socket: Option<UnixDatagram>,
    /// How often the watchdog is kicked: twice in the time that it gives.
    every: Option<Span>,
    next: Time,
    /// Why nobody can be told, though somebody asked for it.
    trouble: Option<String>,
}

impl Notifier {
    /// Reads what the supervisor left in the environment and takes it out of there: no child is to speak for us. To
    /// be called before any thread is started.
    pub fn from_environment() -> Notifier {
        let socket = env::var_os(SOCKET);
        let usec = env::var(WATCHDOG_USEC).ok();
        let pid = env::var(WATCHDOG_PID).ok();
        for name in [SOCKET, WATCHDOG_USEC, WATCHDOG_PID] {
            env::remove_var(name);
        }
        let Some(socket) = socket.filter(|name| !name.is_empty()) else {
            return Notifier::default();
        };
        match connect(&socket) {
            Ok(socket) => Notifier {
                socket: Some(socket),
                every: interval(usec.as_deref(), pid.as_deref(), std::process::id()),
                next: Time(0),
                trouble: None,
            },
            Err(error) => {
                let name = socket.to_string_lossy();
                Notifier {
                    trouble: Some(format!("{SOCKET} {name}: {}", super::reason(&error))),
                    ..Notifier::default()
                }
            }
        }
    }

    /// Whether anybody listens.
    pub fn is_heard(&self) -> bool {
        self.socket.is_some()
    }

    /// Logs why nobody can be told; for one that serves, as any other has nothing to tell.
    pub fn warn(&self) {
        if let Some(trouble) = &self.trouble {
            log::warn!("{trouble}");
        }
    }

    /// Says it; lines of `NAME=value`. What cannot be said is lost: nothing here may wait.
    pub fn say(&self, text: &str) {
        if let Some(socket) = &self.socket {
            let _ = socket.send(text.as_bytes());
        }
    }

    /// Tells the watchdog that the caller's loop turns, when that is due.
    pub fn kick(&mut self, now: Time) {
        if let Some(every) = self.every {
            if now >= self.next {
                self.next = now + every;
                self.say("WATCHDOG=1");
            }
        }
    }

    /// When [`Notifier::kick`] is due.
    pub fn next_kick(&self) -> Option<Time> {
        self.every.map(|_| self.next)
    }
}

/// How often to kick. Given for another process it is not for this one.
fn interval(usec: Option<&str>, pid: Option<&str>, own: u32) -> Option<Span> {
    if pid.is_some_and(|pid| pid.parse() != Ok(own)) {
        return None;
    }
    let usec: u64 = usec?.parse().ok().filter(|&usec| usec > 0)?;
    Some(Span(usec / 2).max(KICK_MIN))
}

fn connect(name: &OsStr) -> io::Result<UnixDatagram> {
    let address = match name.as_bytes() {
        [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest)?,
        [b'/', ..] => SocketAddr::from_pathname(name)?,
        _ => {
            return Err(io::Error::other(
                "neither a path nor an abstract name (@...)",
            ))
        }
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watchdog_is_kicked_twice_in_its_time() {
        assert_eq!(interval(Some("3000000"), None, 7), Some(Span(1_500_000)));
        assert_eq!(
            interval(Some("3000000"), Some("7"), 7),
            Some(Span(1_500_000))
        );
        assert_eq!(interval(Some("3000000"), Some("8"), 7), None);
        assert_eq!(interval(Some("1"), None, 7), Some(KICK_MIN));
        for wrong in [Some("0"), Some("x"), Some("-1"), None] {
            assert_eq!(interval(wrong, None, 7), None);
        }
    }

    #[test]
    fn what_is_said_arrives_at_a_path_and_at_an_abstract_name() {
        let pid = std::process::id();
        let path = std::env::temp_dir().join(format!("magent-notify-{pid}"));
        let name = format!("magent-notify-{pid}");
        let abstract_address = SocketAddr::from_abstract_name(&name).unwrap();
        let places = [
            (
                UnixDatagram::bind(&path).unwrap(),
                path.clone().into_os_string(),
            ),
            (
                UnixDatagram::bind_addr(&abstract_address).unwrap(),
                format!("@{name}").into(),
            ),
        ];
        for (receiver, place) in places {
            let mut notifier = Notifier {
                socket: Some(connect(&place).unwrap()),
                every: Some(Span(100)),
                next: Time(0),
                trouble: None,
            };
            notifier.say("READY=1");
            notifier.kick(Time(0));
            notifier.kick(Time(99));
            notifier.kick(Time(100));
            let mut heard = Vec::new();
            let mut buffer = [0; 64];
            receiver.set_nonblocking(true).unwrap();
            while let Ok(count) = receiver.recv(&mut buffer) {
                heard.push(String::from_utf8_lossy(&buffer[..count]).into_owned());
            }
            assert_eq!(heard, ["READY=1", "WATCHDOG=1", "WATCHDOG=1"]);
            assert_eq!(notifier.next_kick(), Some(Time(200)));
        }
        std::fs::remove_file(path).unwrap();
        assert!(connect(OsStr::new("vsock:2:1")).is_err());
        assert!(connect(OsStr::new("/nonexistent/x")).is_err());
    }
}
