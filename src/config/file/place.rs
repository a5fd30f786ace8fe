//! How twemproxy's file writes servers and where to listen: `HOST:PORT:WEIGHT [NAME]`, `/PATH:WEIGHT [NAME]`, `HOST:PORT`,
//! `/PATH [MODE]`. Read from the right, so that IPv6 needs no brackets (but may have them).

use crate::config::addr::{self, number};
use crate::config::options::SOCKET_PATH_MAX;
use crate::config::{ServerSpec, SERVER_NAME_MAX};

/// The largest weight of a server in a file.
pub const WEIGHT_MAX: u32 = 1_000_000;

/// Mode of a Unix socket's file where none is given.
pub const MODE_DEFAULT: u32 = 0o660;

/// Where a pool listens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Listen {
    /// Host and port.
    Tcp(String, u16),
    /// The path of a Unix socket, and the mode of its file.
    Unix(String, u32),
}

/// Parses `HOST:PORT:WEIGHT [NAME]` or `/PATH:WEIGHT [NAME]`. The error says what is wrong and what is allowed.
pub fn parse_server(text: &str) -> Result<ServerSpec, String> {
    const FORM: &str = "HOST:PORT:WEIGHT [NAME] or /PATH:WEIGHT [NAME]";
    let (place, name) = named(text, FORM)?;
    let missing = || format!("no weight (a server is {FORM})");
    let (place, weight) = place.rsplit_once(':').ok_or_else(missing)?;
    let weight = number(weight)
        .and_then(|n| u32::try_from(n).ok())
        .filter(|n| (1..=WEIGHT_MAX).contains(n))
        .ok_or_else(|| format!("'{weight}' is not a weight (1 to {WEIGHT_MAX})"))?;
    if !place.starts_with('/') && !place.contains(':') {
        return Err(missing());
    }
    let spec = parse_place(place)?;
    Ok(ServerSpec {
        weight,
        name,
        ..spec
    })
}

/// Parses `HOST:PORT [NAME]` or `/PATH [NAME]`, also with a weight of 1 behind it, as a copied line has it.
pub fn parse_backup(text: &str) -> Result<ServerSpec, String> {
    const FORM: &str = "HOST:PORT [NAME] or /PATH [NAME]";
    let (place, name) = named(text, FORM)?;
    let place = match place.strip_suffix(":1") {
        // The first is a path, or has its port still.
        Some(rest) if rest.starts_with('/') || parse_place(rest).is_ok() => rest,
        _ => place,
    };
    let spec = match place.starts_with('/') || place.contains(':') {
        true => parse_place(place)?,
        false => return Err(format!("no port (a backup is {FORM})")),
    };
    Ok(ServerSpec {
        weight: 1,
        name,
        ..spec
    })
}

/// Parses `HOST:PORT` or `/PATH [MODE]`.
pub fn parse_listen(text: &str) -> Result<Listen, String> {
    if text.starts_with('/') {
        let (path, mode) = match text.rsplit_once(' ') {
            Some((path, mode)) => (path.trim_end(), Some(mode)),
            None => (text, None),
        };
        check_path(path)?;
        let mode = match mode {
            None => MODE_DEFAULT,
            Some(mode) => u32::from_str_radix(mode, 8)
                .ok()
                .filter(|&bits| bits <= 0o777 && mode.bytes().all(|byte| byte.is_ascii_digit()))
                .ok_or_else(|| format!("'{mode}' is not a file mode (0 to 0777)"))?,
        };
        return Ok(Listen::Unix(path.to_owned(), mode));
    }
    let place = parse_place(text)?;
    Ok(Listen::Tcp(place.host, place.port))
}

/// Cuts the name off.
fn named<'a>(text: &'a str, form: &str) -> Result<(&'a str, Option<String>), String> {
    let mut words = text.split_ascii_whitespace();
    let place = words.next().ok_or_else(|| format!("empty ({form})"))?;
    let name = words.next();
    if let Some(extra) = words.next() {
        return Err(format!("'{extra}' behind the name: a name is one word"));
    }
    if name.is_some_and(|name| name.len() > SERVER_NAME_MAX) {
        return Err(format!(
            "the name is too long (at most {SERVER_NAME_MAX} bytes)"
        ));
    }
    Ok((place, name.map(str::to_owned)))
}

/// Parses `HOST:PORT` or `/PATH`.
fn parse_place(place: &str) -> Result<ServerSpec, String> {
    if place.starts_with('/') {
        check_path(place)?;
        return Ok(ServerSpec {
            host: place.to_owned(),
            ..ServerSpec::default()
        });
    }
    let form = "an address is HOST:PORT or /PATH";
    let (host, port) = place.rsplit_once(':').ok_or(format!("no port ({form})"))?;
    // Its own check of hosts, and of brackets.
    let host = addr::parse_listen(host).map_err(|wrong| match wrong.contains("-p") {
        true => format!("'{host}' is not an address or host name"),
        false => wrong,
    })?;
    let port = number(port)
        .and_then(|n| u16::try_from(n).ok())
        .filter(|&n| n > 0)
        .ok_or_else(|| format!("'{port}' is not a port (1 to 65535)"))?;
    Ok(ServerSpec {
        host,
        port,
        ..ServerSpec::default()
    })
}

fn check_path(path: &str) -> Result<(), String> {
    if path.len() > SOCKET_PATH_MAX || path.contains('\0') {
        return Err(format!(
            "not the path of a socket (at most {SOCKET_PATH_MAX} bytes)"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(host: &str, port: u16, weight: u32, name: Option<&str>) -> Result<ServerSpec, String> {
        Ok(ServerSpec {
            host: host.into(),
            port,
            weight,
            name: name.map(str::to_owned),
        })
    }

    #[test]
    fn servers_in_every_form() {
        for (text, host, port, weight, name) in [
            ("127.0.0.1:11211:1", "127.0.0.1", 11211, 1, None),
            ("a:1:100000 beta", "a", 1, 100_000, Some("beta")),
            ("::1:21215:1", "::1", 21215, 1, None),
            ("[2001:db8::1]:5:2   n", "2001:db8::1", 5, 2, Some("n")),
            ("/srv/mc1.sock:3", "/srv/mc1.sock", 0, 3, None),
            ("/srv/a:b.sock:1 x", "/srv/a:b.sock", 0, 1, Some("x")),
        ] {
            assert_eq!(parse_server(text), spec(host, port, weight, name), "{text}");
        }
        for (text, wrong) in [
            ("", "empty (HOST:PORT:WEIGHT [NAME] or /PATH:WEIGHT [NAME])"),
            (
                "a",
                "no weight (a server is HOST:PORT:WEIGHT [NAME] or /PATH:WEIGHT [NAME])",
            ),
            (
                "a:11211",
                "no weight (a server is HOST:PORT:WEIGHT [NAME] or /PATH:WEIGHT [NAME])",
            ),
            ("a:1:0", "'0' is not a weight (1 to 1000000)"),
            ("a:1:x", "'x' is not a weight (1 to 1000000)"),
            ("a:0:1", "'0' is not a port (1 to 65535)"),
            ("a:65536:1", "'65536' is not a port (1 to 65535)"),
            (
                "a b:1:1",
                "no weight (a server is HOST:PORT:WEIGHT [NAME] or /PATH:WEIGHT [NAME])",
            ),
            ("a:1:1 b c", "'c' behind the name: a name is one word"),
            ("a,b:1:1", "'a,b' is not an address or host name"),
        ] {
            assert_eq!(parse_server(text), Err(wrong.into()), "{text}");
        }
    }

    #[test]
    fn backups_with_and_without_the_weight_of_a_copied_line() {
        for (text, host, port, name) in [
            ("b:1", "b", 1, None),
            ("b:11212 x", "b", 11212, Some("x")),
            ("b:11212:1 x", "b", 11212, Some("x")),
            ("/srv/b.sock:1", "/srv/b.sock", 0, None),
            ("/srv/b.sock", "/srv/b.sock", 0, None),
            ("[::1]:1", "::1", 1, None),
        ] {
            assert_eq!(parse_backup(text), spec(host, port, 1, name), "{text}");
        }
        assert!(parse_backup("b").is_err());
        assert!(parse_backup("b:1:2").is_err());
    }

    #[test]
    fn listeners() {
        for (text, listen) in [
            ("0.0.0.0:22122", Listen::Tcp("0.0.0.0".into(), 22122)),
            ("::1:22122", Listen::Tcp("::1".into(), 22122)),
            ("/tmp/a b 0666", Listen::Unix("/tmp/a b".into(), 0o666)),
            ("/tmp/a", Listen::Unix("/tmp/a".into(), MODE_DEFAULT)),
        ] {
            assert_eq!(parse_listen(text), Ok(listen), "{text}");
        }
        for (text, wrong) in [
            ("0.0.0.0", "no port (an address is HOST:PORT or /PATH)"),
            ("0.0.0.0:0", "'0' is not a port (1 to 65535)"),
            ("/tmp/a 0888", "'0888' is not a file mode (0 to 0777)"),
            ("/tmp/a 1777", "'1777' is not a file mode (0 to 0777)"),
        ] {
            assert_eq!(parse_listen(text), Err(wrong.into()), "{text}");
        }
    }
}
