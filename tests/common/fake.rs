//! A scripted server that speaks just enough of the protocol to misbehave on purpose.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::Port;

/// One request as the fake server read it.
#[allow(dead_code)] // Whole, whatever of it today's scripts look at.
pub struct Request {
    /// The command line without its end.
    pub line: String,
    /// The data block of a storage command, without its end.
    pub data: Vec<u8>,
    /// Which connection it came on, from 0 in the order they were accepted.
    pub conn: usize,
}

impl Request {
    /// The n-th word of the line.
    pub fn word(&self, n: usize) -> &str {
        self.line.split(' ').nth(n).unwrap_or("")
    }

    /// True for what a proxy asks to see whether the server lives.
    pub fn is_probe(&self) -> bool {
        matches!(self.word(0), "version" | "mn" | "stats") || self.is_stamp()
    }

    /// True for what a proxy keeps on the servers to know what they missed.
    pub fn is_stamp(&self) -> bool {
        self.word(1).starts_with("magent:stamp:")
    }
}

/// One thing to do in answer to a request.
pub enum Do {
    /// Write these bytes.
    Send(Vec<u8>),
    /// Write them one by one, each in a packet of its own.
    Dribble(Vec<u8>),
    /// The same with a pause behind each, until this is set; then what is left at once.
    Drip(Vec<u8>, Arc<AtomicBool>),
    /// Let time pass: here slowness is the behaviour under test.
    Wait(Duration),
    /// Close the connection.
    Close,
    /// Read on, but answer nothing more on this connection.
    Mute,
}

impl Do {
    /// Write this text.
    pub fn say(text: &str) -> Do {
        Do::Send(text.as_bytes().to_vec())
    }
}

/// The pause of [`Do::Drip`].
pub const DRIP: Duration = Duration::from_millis(10);

type Script = dyn Fn(&Request) -> Vec<Do> + Send + Sync;

/// The server; it ends with this value.
pub struct Fake {
    port: Port,
    stop: Arc<AtomicBool>,
    accepted: Arc<AtomicUsize>,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Fake {
    /// Serves each request as `script` says.
    pub fn start(script: impl Fn(&Request) -> Vec<Do> + Send + Sync + 'static) -> Fake {
        Fake::on(Port::claim(), script)
    }

    /// The same on a port claimed before.
    pub fn on(port: Port, script: impl Fn(&Request) -> Vec<Do> + Send + Sync + 'static) -> Fake {
        let listener =
            TcpListener::bind(("127.0.0.1", port.number())).expect("a claimed port is free");
        let fake = Fake {
            port,
            stop: Arc::default(),
            accepted: Arc::default(),
            lines: Arc::default(),
        };
        let (stop, accepted) = (Arc::clone(&fake.stop), Arc::clone(&fake.accepted));
        let (lines, script): (_, Arc<Script>) = (Arc::clone(&fake.lines), Arc::new(script));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let conn = accepted.fetch_add(1, Ordering::SeqCst);
                let (stop, lines) = (Arc::clone(&stop), Arc::clone(&lines));
                let script = Arc::clone(&script);
                std::thread::spawn(move || serve(stream, conn, &*script, &stop, &lines));
            }
        });
        fake
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// How many connections were made to it.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    /// The command lines it has read, probes left out.
    pub fn lines(&self) -> Vec<String> {
        let lines = self.lines.lock().expect("no panic while locked");
        lines.clone()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the accepting thread so that it sees the flag.
        let _ = TcpStream::connect(("127.0.0.1", self.port.number()));
    }
}

/// What a healthy server says: every key has the value `value-of-KEY`, every write succeeds.
pub fn healthy(request: &Request) -> Vec<Do> {
    let text = match request.word(0) {
        "get" if request.is_stamp() => "END\r\n".to_string(),
        "version" => "VERSION 1.6.18\r\n".to_string(),
        "mn" => "MN\r\n".to_string(),
        "stats" => "STAT pid 1\r\nSTAT uptime 1\r\nSTAT time 1\r\nEND\r\n".to_string(),
        "get" | "gets" => {
            let cas = if request.word(0) == "gets" { " 7" } else { "" };
            let mut text = String::new();
            for key in request.line.split(' ').skip(1) {
                let value = format!("value-of-{key}");
                text += &format!("VALUE {key} 0 {}{cas}\r\n{value}\r\n", value.len());
            }
            text + "END\r\n"
        }
        "set" | "add" | "replace" | "append" | "prepend" | "cas" => "STORED\r\n".to_string(),
        "delete" => "DELETED\r\n".to_string(),
        "touch" => "TOUCHED\r\n".to_string(),
        "incr" | "decr" => "1\r\n".to_string(),
        "flush_all" | "verbosity" => "OK\r\n".to_string(),
        "ms" | "md" => "HD\r\n".to_string(),
        "mg" => "EN\r\n".to_string(),
        _ => "ERROR\r\n".to_string(),
    };
    vec![Do::Send(text.into_bytes())]
}

fn serve(
    mut stream: TcpStream,
    conn: usize,
    script: &Script,
    stop: &AtomicBool,
    lines: &Mutex<Vec<String>>,
) {
    let _ = stream.set_nodelay(true);
    let _ = stream.set_read_timeout(Some(Duration::from_millis(50)));
    let (mut bytes, mut scratch) = (Vec::new(), [0; 65536]);
    let mut mute = false;
    while !stop.load(Ordering::SeqCst) {
        while let Some(request) = take_request(&mut bytes, conn) {
            if !request.is_probe() {
                let mut lines = lines.lock().expect("no panic while locked");
                lines.push(request.line.clone());
            }
            if mute {
                continue;
            }
            for step in script(&request) {
                let sent = match step {
                    Do::Send(bytes) => stream.write_all(&bytes),
                    Do::Dribble(bytes) => bytes.iter().try_for_each(|&byte| {
                        std::thread::yield_now();
                        stream.write_all(&[byte])
                    }),
                    Do::Drip(bytes, enough) => bytes.iter().try_for_each(|&byte| {
                        if !enough.load(Ordering::SeqCst) {
                            std::thread::sleep(DRIP);
                        }
                        stream.write_all(&[byte])
                    }),
                    Do::Wait(time) => {
                        std::thread::sleep(time);
                        Ok(())
                    }
                    Do::Close => return,
                    Do::Mute => {
                        mute = true;
                        Ok(())
                    }
                };
                if sent.is_err() {
                    return;
                }
            }
        }
        match stream.read(&mut scratch) {
            Ok(0) => return,
            Ok(count) => bytes.extend_from_slice(&scratch[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

/// Cuts the first whole request off the front of `bytes`.
fn take_request(bytes: &mut Vec<u8>, conn: usize) -> Option<Request> {
    let end = bytes.iter().position(|&byte| byte == b'\n')?;
    let line = String::from_utf8_lossy(&bytes[..end])
        .trim_end_matches('\r')
        .to_string();
    let word = |n: usize| line.split(' ').nth(n).unwrap_or("");
    let length: Option<usize> = match word(0) {
        "set" | "add" | "replace" | "append" | "prepend" | "cas" => word(4).parse().ok(),
        "ms" => word(2).parse().ok(),
        _ => None,
    };
    let body = end + 1;
    let whole = body + length.map_or(0, |length| length + 2);
    if bytes.len() < whole {
        return None;
    }
    let data = bytes[body..body + length.unwrap_or(0)].to_vec();
    bytes.drain(..whole);
    Some(Request { line, data, conn })
}
