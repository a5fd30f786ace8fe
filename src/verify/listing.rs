//! The keys of one server, one after the other, as it lists them. The server sends no faster than it is read, so the
//! whole list is never held anywhere.
//!
//! `lru_crawler metadump hash` walks along the hash table and meets every item. Servers that do not know it (before 1.6)
//! walk along the order of use (`metadump all`), and pass over items that are in use at that moment.

use std::io::{BufReader, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use super::dial::{dial, read_line, unexpected};
use crate::config::ServerSpec;
use crate::sys::reason;

/// A busy host may take its time to start a listing.
const SILENCE: Duration = Duration::from_secs(30);
/// A server makes one listing at a time, and its own cleaning is one, too: how long to wait for the turn.
const BUSY_PATIENCE: Duration = Duration::from_secs(60);
const BUSY_PAUSE: Duration = Duration::from_millis(200);

const BY_USE: &[u8] = b"lru_crawler metadump all\r\n";

/// A listing under way.
pub struct Listing {
    reader: BufReader<TcpStream>,
    line: Vec<u8>,
    /// `line` was read at the beginning and not yet given out.
    pending: bool,
}

impl Listing {
    /// Asks for the list, for a while also of a server that is busy with another one.
    pub fn begin(spec: &ServerSpec) -> Result<Listing, String> {
        let reader = dial(spec, SILENCE, SILENCE)?;
        let mut listing = Listing {
            reader,
            line: Vec::new(),
            pending: true,
        };
        let asked = Instant::now();
        let mut command: &[u8] = b"lru_crawler metadump hash\r\n";
        loop {
            let sent = listing.reader.get_mut().write_all(command);
            sent.map_err(|error| reason(&error))?;
            read_line(&mut listing.reader, &mut listing.line)?;
            let line = &listing.line[..];
            let refused = [&b"ERROR"[..], b"CLIENT_ERROR", b"BADCLASS"];
            if command != BY_USE && refused.iter().any(|word| line.starts_with(word)) {
                command = BY_USE;
                continue;
            }
            if !line.starts_with(b"BUSY") {
                break;
            }
            if asked.elapsed() >= BUSY_PATIENCE {
                return Err(unexpected(&listing.line));
            }
            thread::sleep(BUSY_PAUSE);
        }
        if listing.line == b"OK" {
            listing.pending = false;
        }
        Ok(listing)
    }

    /// The next key; `None` after the last.
    pub fn next(&mut self) -> Result<Option<Vec<u8>>, String> {
        if !std::mem::take(&mut self.pending) {
            read_line(&mut self.reader, &mut self.line)?;
        }
        if self.line == b"END" {
            return Ok(None);
        }
        match parse(&self.line) {
            Some(key) => Ok(Some(key)),
            None => Err(unexpected(&self.line)),
        }
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
