//! A blocking client that gives up at a deadline and says what it had read by then.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use super::{show, PATIENCE};

/// See [`Client::narrow`].
const NARROW: usize = 4 * 1024;

/// One connection to a memcached or to the proxy.
pub struct Client {
    stream: TcpStream,
    /// Read from the socket and not yet handed out.
    pending: Vec<u8>,
    patience: Duration,
}

impl Client {
    /// Connects to a port of this host.
    #[track_caller]
    pub fn connect(port: u16) -> Client {
        Client::try_connect(port).unwrap_or_else(|error| panic!("connect to port {port}: {error}"))
    }

    /// Connects, or tells why not.
    pub fn try_connect(port: u16) -> io::Result<Client> {
        let stream =
            TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], port)), PATIENCE)?;
        stream.set_nodelay(true)?;
        Ok(Client {
            stream,
            pending: Vec::new(),
            patience: PATIENCE,
        })
    }

    /// Connects with a receive buffer of a few kilobytes: what it does not read, the other side has to keep.
    #[track_caller]
    pub fn narrow(port: u16) -> Client {
        let connect = || -> io::Result<TcpStream> {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            socket.set_recv_buffer_size(NARROW)?;
            socket.connect(&SocketAddr::from(([127, 0, 0, 1], port)).into())?;
            socket.set_tcp_nodelay(true)?;
            Ok(socket.into())
        };
        Client {
            stream: connect().unwrap_or_else(|error| panic!("connect to port {port}: {error}")),
            pending: Vec::new(),
            patience: PATIENCE,
        }
    }

    /// The same client with another limit for each wait.
    pub fn patience(mut self, patience: Duration) -> Client {
        self.patience = patience;
        self
    }

    /// The socket itself, for what this type does not offer.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Sends all bytes.
    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        self.try_send(bytes)
            .unwrap_or_else(|error| panic!("send {}: {error}", show(bytes)));
    }

    /// Sends all bytes, or tells that the other side has gone.
    pub fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.set_write_timeout(Some(self.patience))?;
        self.stream.write_all(bytes)
    }

    /// Says that nothing more will be sent.
    pub fn finish(&mut self) {
        // The other side may have closed already, which is for the reading side to find out.
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Reads more into `pending`; false at the end of the stream. A reset counts as an end.
    fn fill(&mut self, until: Instant) -> io::Result<bool> {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        let mut scratch = [0; 65536];
        match self.stream.read(&mut scratch) {
            Ok(0) => Ok(false),
            Ok(count) => {
                self.pending.extend_from_slice(&scratch[..count]);
                Ok(true)
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(true),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(false),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Err(ErrorKind::TimedOut.into()),
            Err(error) => Err(error),
        }
    }

    /// Reads until `end` finds the length of what was awaited in the bytes so far; the rest stays for later.
    /// `Err` holds what had come when the stream ended or the deadline passed.
    fn read_to(
        &mut self,
        mut end: impl FnMut(&[u8]) -> Option<usize>,
    ) -> Result<Vec<u8>, (&'static str, Vec<u8>)> {
        let until = Instant::now() + self.patience;
        loop {
            if let Some(length) = end(&self.pending) {
                let rest = self.pending.split_off(length);
                return Ok(std::mem::replace(&mut self.pending, rest));
            }
            match self.fill(until) {
                Ok(true) => {}
                Ok(false) => return Err(("closed", std::mem::take(&mut self.pending))),
                Err(_) => return Err(("silent", std::mem::take(&mut self.pending))),
            }
        }
    }

    #[track_caller]
    fn expect(&mut self, what: &str, end: impl FnMut(&[u8]) -> Option<usize>) -> Vec<u8> {
        match self.read_to(end) {
            Ok(bytes) => bytes,
            Err((how, sofar)) => panic!(
                "awaited {what}, but the connection was {how} after: {}",
                show(&sofar)
            ),
        }
    }

    /// One line with its end.
    #[track_caller]
    pub fn line(&mut self) -> Vec<u8> {
        self.expect("a line", |bytes| line_end(bytes, 0))
    }

    /// Exactly so many bytes.
    #[track_caller]
    pub fn exactly(&mut self, count: usize) -> Vec<u8> {
        self.expect("a number of bytes", |bytes| {
            (bytes.len() >= count).then_some(count)
        })
    }

    /// Everything up to and with the first occurrence of `mark`.
    #[track_caller]
    pub fn until(&mut self, mark: &[u8]) -> Vec<u8> {
        let what = format!("{:?}", show(mark));
        self.until_or_end(mark).unwrap_or_else(|(how, sofar)| {
            panic!(
                "awaited {what}, but the connection was {how} after: {}",
                show(&sofar)
            )
        })
    }

    /// As `until`; `Err` with everything that came when the stream ended ("closed") or fell silent before.
    pub fn until_or_end(&mut self, mark: &[u8]) -> Result<Vec<u8>, (&'static str, Vec<u8>)> {
        let mut seen = 0;
        self.read_to(|bytes| {
            let from = seen;
            seen = bytes.len().saturating_sub(mark.len());
            find(&bytes[from..], mark).map(|at| from + at + mark.len())
        })
    }

    /// Everything until the other side closes.
    #[track_caller]
    pub fn read_to_end(&mut self) -> Vec<u8> {
        match self.read_to(|_| None) {
            Err(("closed", bytes)) => bytes,
            Err((_, bytes)) => panic!("not closed; had read: {}", show(&bytes)),
            Ok(_) => unreachable!("there is no end to find"),
        }
    }

    /// What comes until nothing comes for `quiet`. Only for replies that must not come: it costs that time.
    pub fn until_quiet(&mut self, quiet: Duration) -> Vec<u8> {
        let patience = std::mem::replace(&mut self.patience, quiet);
        let mut all = Vec::new();
        while let Ok(bytes) = self.read_to(|bytes| (!bytes.is_empty()).then_some(bytes.len())) {
            all.extend(bytes);
        }
        self.patience = patience;
        all
    }

    /// One whole reply: a line, with its values and its end where it has them.
    #[track_caller]
    pub fn reply(&mut self) -> Vec<u8> {
        self.expect("a reply", reply_end)
    }

    /// Sends any number of commands and returns all their replies, however large both are: a last command with an
    /// answer of its own marks the end.
    #[track_caller]
    pub fn converse(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut writer = self.stream.try_clone().expect("a socket can be cloned");
        let mark = b"NF Oend-of-conversation\r\n";
        let replies = std::thread::scope(|scope| {
            scope.spawn(move || {
                // If the other side goes away, the reader sees it.
                let _ = writer.write_all(bytes);
                let _ = writer.write_all(b"md no-such-key Oend-of-conversation\r\n");
            });
            self.until_or_end(mark)
        });
        match replies {
            Ok(mut bytes) => {
                bytes.truncate(bytes.len() - mark.len());
                bytes
            }
            Err((how, sofar)) => panic!("{how} before the end, after: {}", show(&sofar)),
        }
    }

    /// Sends a command (and data, separated by CRLF) and reads its one reply; both without the last CRLF.
    #[track_caller]
    pub fn ask(&mut self, command: &str) -> String {
        self.send(format!("{command}\r\n"));
        let reply = self.reply();
        let text = String::from_utf8_lossy(&reply);
        text.strip_suffix("\r\n").unwrap_or(&text).to_string()
    }

    /// `get` of one key: its value, or `None` for a miss.
    #[track_caller]
    pub fn get(&mut self, key: &str) -> Option<String> {
        let reply = self.ask(&format!("get {key}"));
        if reply == "END" {
            return None;
        }
        let mut lines = reply.split("\r\n");
        let head = lines.next().unwrap_or_default();
        assert!(
            head.starts_with(&format!("VALUE {key} ")),
            "get {key} answered: {reply}"
        );
        let value = lines.next().unwrap_or_default().to_string();
        assert_eq!(lines.next(), Some("END"), "get {key} answered: {reply}");
        Some(value)
    }

    /// `set` that must succeed.
    #[track_caller]
    pub fn set(&mut self, key: &str, value: &str) {
        let reply = self.ask(&format!("set {key} 0 0 {}\r\n{value}", value.len()));
        assert_eq!(reply, "STORED", "set {key}");
    }

    /// The value of one `STAT` line, from `stats`.
    #[track_caller]
    pub fn stat(&mut self, name: &str) -> String {
        let reply = self.ask("stats");
        let head = format!("STAT {name} ");
        reply
            .lines()
            .find_map(|line| line.strip_prefix(&head))
            .unwrap_or_else(|| panic!("no {name} in: {reply}"))
            .to_string()
    }
}

/// Where `needle` begins in `hay`.
pub fn find(hay: &[u8], needle: &[u8]) -> Option<usize> {
    hay.windows(needle.len()).position(|part| part == needle)
}

fn line_end(bytes: &[u8], from: usize) -> Option<usize> {
    let rest = bytes.get(from..)?;
    Some(from + rest.iter().position(|&byte| byte == b'\n')? + 1)
}

/// The length of the first reply in `bytes`, if it is all there.
fn reply_end(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let end = line_end(bytes, at)?;
        let line = &bytes[at..end];
        let word = |n: usize| {
            line.split(|&byte| byte == b' ' || byte == b'\r')
                .nth(n)
                .and_then(|word| std::str::from_utf8(word).ok())
                .unwrap_or("")
        };
        at = match word(0) {
            "VALUE" => end + word(3).parse::<usize>().ok()? + 2,
            "VA" => {
                let whole = end + word(1).parse::<usize>().ok()? + 2;
                return (bytes.len() >= whole).then_some(whole);
            }
            "STAT" | "ITEM" | "matrix" => end,
            _ => return Some(end),
        };
        if at > bytes.len() {
            return None;
        }
    }
}
