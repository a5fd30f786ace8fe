//! Blocking connections to servers, and the lines they answer.

use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use crate::config::ServerSpec;
use crate::sys::reason;

/// The longest line that a server sends: a listed key of 250 bytes, encoded, with all that stands behind it.
const LINE_MAX: u64 = 8 * 1024;

/// A server as messages call it.
pub fn name_of(spec: &ServerSpec) -> String {
    spec.address()
}

/// Connects to the first of the server's addresses that answers. `silence`: how long it may then be silent.
pub fn dial(
    spec: &ServerSpec,
    patience: Duration,
    silence: Duration,
) -> Result<BufReader<TcpStream>, String> {
    let addresses = (spec.host.as_str(), spec.port).to_socket_addrs();
    let mut why = "no address".to_owned();
    for address in addresses.map_err(|error| reason(&error))? {
        let opened = TcpStream::connect_timeout(&address, patience).and_then(|stream| {
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(silence))?;
            stream.set_write_timeout(Some(silence))?;
            Ok(stream)
        });
        match opened {
            Ok(stream) => return Ok(BufReader::with_capacity(64 * 1024, stream)),
            Err(error) => why = reason(&error),
        }
    }
    Err(why)
}

/// The next line, without its end, whichever of the two ends it has.
pub fn read_line(reader: &mut BufReader<TcpStream>, line: &mut Vec<u8>) -> Result<(), String> {
    line.clear();
    let read = reader.by_ref().take(LINE_MAX).read_until(b'\n', line);
    read.map_err(|error| match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => "no answer".to_owned(),
        _ => reason(&error),
    })?;
    if line.pop() != Some(b'\n') {
        return Err("the connection ended within an answer".into());
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    Ok(())
}

/// What a server said in place of an answer, cut to a sensible length.
pub fn unexpected(line: &[u8]) -> String {
    let shown = &line[..line.len().min(80)];
    format!("it answered '{}'", shown.escape_ascii())
}
