//! The keys of one server, one after the other. Its listing is read as fast as it comes, as commands for the keys that it
//! is about to list wait while it is not read (memcached 1.6.18); so it is held here, in slices if it is large.
//!
//! `lru_crawler metadump hash` walks along the hash table and meets every item. Servers that do not know it (before 1.6)
//! walk along the order of use (`metadump all`), and pass over items that are in use at that moment.

use std::io::{BufReader, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use super::dial::{dial, read_line, unexpected};
use crate::config::ServerSpec;
use crate::hash::Slices;
use crate::sys::reason;

/// A busy host may take its time to start a listing.
const SILENCE: Duration = Duration::from_secs(30);
/// A server makes one listing at a time, and its own cleaning is one, too: how long to wait for the turn.
const BUSY_PATIENCE: Duration = Duration::from_secs(60);
const BUSY_PAUSE: Duration = Duration::from_millis(200);

const BY_USE: &[u8] = b"lru_crawler metadump all\r\n";

/// Keys held at a time, at most; a larger server is listed several times.
const HELD_MAX: usize = 1_000_000;

/// The keys of a server.
pub struct Listing<'a> {
    spec: &'a ServerSpec,
    held: Slices<Vec<u8>>,
    begun: bool,
}

impl Listing<'_> {
    /// All of them, once.
    pub fn of(spec: &ServerSpec) -> Listing<'_> {
        Listing {
            spec,
            held: Slices::new(HELD_MAX),
            begun: false,
        }
    }

    /// The next key; `None` after the last.
    pub fn next(&mut self) -> Result<Option<Vec<u8>>, String> {
        if !std::mem::replace(&mut self.begun, true) {
            self.list()?;
        }
        loop {
            if let Some(key) = self.held.pop() {
                return Ok(Some(key));
            }
            if !self.held.advance() {
                return Ok(None);
            }
            self.list()?;
        }
    }

    /// Takes from one whole listing what is of the present slice.
    fn list(&mut self) -> Result<(), String> {
        let mut reader = dial(self.spec, SILENCE, SILENCE)?;
        let mut line = Vec::new();
        begin(&mut reader, &mut line)?;
        loop {
            match &line[..] {
                b"END" => return Ok(()),
                b"OK" => {}
                other => {
                    let key = parse(other).ok_or_else(|| unexpected(other))?;
                    self.held.offer(&key, || key.clone());
                }
            }
            read_line(&mut reader, &mut line)?;
        }
    }
}

/// Asks for a list, for a while also if the server is busy with another one; reads its first line.
fn begin(reader: &mut BufReader<TcpStream>, line: &mut Vec<u8>) -> Result<(), String> {
    let asked = Instant::now();
    let mut command: &[u8] = b"lru_crawler metadump hash\r\n";
    loop {
        let sent = reader.get_mut().write_all(command);
        sent.map_err(|error| reason(&error))?;
        read_line(reader, line)?;
        // Also while its hash table grows.
        if line.starts_with(b"BUSY") || line.starts_with(b"ERROR locked") {
            if asked.elapsed() >= BUSY_PATIENCE {
                return Err(unexpected(line));
            }
            thread::sleep(BUSY_PAUSE);
            continue;
        }
        let refused = [&b"ERROR"[..], b"CLIENT_ERROR", b"BADCLASS"];
        if command == BY_USE || !refused.iter().any(|word| line.starts_with(word)) {
            return Ok(());
        }
        command = BY_USE;
    }
}

/// The key of a line `key=<URI-encoded> exp=...`.
fn parse(line: &[u8]) -> Option<Vec<u8>> {
    let encoded = line.strip_prefix(b"key=")?;
    let encoded = encoded.split(|&byte| byte == b' ').next()?;
    let mut key = Vec::with_capacity(encoded.len());
    let mut rest = encoded.iter().copied();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let (high, low) = (hex(rest.next()?)?, hex(rest.next()?)?);
            key.push(high << 4 | low);
        } else {
            key.push(byte);
        }
    }
    (!key.is_empty()).then_some(key)
}

fn hex(digit: u8) -> Option<u8> {
    // Below 16, so it fits.
    char::from(digit).to_digit(16).map(|value| value as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_as_they_were_stored() {
        for (line, key) in [
            (
                &b"key=a exp=-1 la=1 cas=2 fetch=no cls=1 size=63"[..],
                &b"a"[..],
            ),
            (b"key=a%3Ab%25 exp=1", b"a:b%"),
            (b"key=%00%ff%FF x", b"\0\xff\xff"),
            (b"key=plain", b"plain"),
        ] {
            assert_eq!(parse(line).as_deref(), Some(key), "{}", line.escape_ascii());
        }
    }

    #[test]
    fn anything_else_is_no_key() {
        for line in [
            &b"ERROR"[..],
            b"",
            b"key=",
            b"key= exp=1",
            b"key=% x",
            b"key=%4 x",
            b"key=%zz",
            b"ke",
        ] {
            assert_eq!(parse(line), None, "{}", line.escape_ascii());
        }
    }
}
