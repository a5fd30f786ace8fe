//! `--top`: what the page shows, at a glance in a terminal. Asks the endpoint of `--admin` once a second.

mod frame;
mod screen;

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use serde_json::Value;

use self::screen::Screen;
use crate::config::AdminAt;
use crate::sys;

/// From one picture to the next.
const EVERY: Duration = Duration::from_millis(1000);

/// An endpoint that says nothing for so long does not answer.
const PATIENCE: Duration = Duration::from_millis(3000);

/// Longer answers are not read, in bytes.
const ANSWER_MAX: u64 = 64 << 20;

/// Shows pictures until `q` or a signal. The exit code: 0, or 2 when not one answer came.
pub fn run(top: &AdminAt) -> u8 {
    sys::name_process("magent-top");
    let screen = Screen::open();
    let mut before: Option<Value> = None;
    let mut answered = false;
    loop {
        let picture = match ask(top) {
            Ok(stats) => {
                let picture = frame::of(
                    &stats,
                    before.as_ref(),
                    &top.to_string(),
                    screen.size(),
                    screen.has_colour(),
                );
                before = Some(stats);
                answered = true;
                picture
            }
            Err(error) if !answered && !screen.is_terminal() => {
                eprintln!("magent: --top {top}: {error}");
                return 2;
            }
            Err(error) => format!("{top}: {error}\n"),
        };
        // Nobody looks any more: the reader of a pipe went away, or the terminal.
        if screen.show(&picture).is_err() || !screen.waits(EVERY) {
            break;
        }
    }
    drop(screen);
    if answered {
        0
    } else {
        2
    }
}

/// Asks for `/stats.json`.
fn ask(top: &AdminAt) -> Result<Value, String> {
    let said = |error: io::Error| sys::reason(&error).to_string();
    let mut failure = "no address".to_owned();
    for address in (top.host.as_str(), top.port)
        .to_socket_addrs()
        .map_err(said)?
    {
        match TcpStream::connect_timeout(&address, PATIENCE).and_then(question) {
            Ok(answer) => return parse(&answer),
            Err(error) => failure = said(error),
        }
    }
    Err(failure)
}

fn question(mut stream: TcpStream) -> io::Result<Vec<u8>> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream
        .write_all(b"GET /stats.json HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(ANSWER_MAX).read_to_end(&mut answer)?;
    Ok(answer)
}

fn parse(answer: &[u8]) -> Result<Value, String> {
    let strange = || "not the endpoint of --admin of a magent".to_owned();
    let body = memchr::memmem::find(answer, b"\r\n\r\n").ok_or_else(strange)? + 4;
    let stats: Value = serde_json::from_slice(&answer[body..]).map_err(|_| strange())?;
    if stats["service"] != "magent" {
        return Err(strange());
    }
    Ok(stats)
}
