//! `HOST[:PORT][:WEIGHT]`: how servers and listen addresses are written on the command line.
//! Pure text work: whether a name exists is found out when it is resolved.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::ServerSpec;

/// The port of a server that names none: memcached's own.
pub const PORT_DEFAULT: u16 = 11211;

/// The largest weight of a server.
pub const WEIGHT_MAX: u32 = 1000;

/// The longest host name that DNS knows.
const HOST_MAX: usize = 253;

/// Parses `HOST[:PORT][:WEIGHT]`, where HOST is a name, an IPv4 address, `[IPv6]`, or a bare IPv6
/// address (which then has neither port nor weight).
///
/// The error says what is wrong and what is allowed, without the text itself.
pub fn parse_server(text: &str) -> Result<ServerSpec, String> {
    parse(text, None, "HOST[:PORT][:WEIGHT]")
}

/// Parses `HOST[:PORT]`, as [`parse_server`] does, for a server that has no share of the keys.
pub fn parse_backup(text: &str) -> Result<ServerSpec, String> {
    parse(text, Some("a backup"), "HOST[:PORT]")
}

/// Parses `HOST[:PORT]`, as [`parse_server`] does, for a proxy that is asked.
pub fn parse_target(text: &str) -> Result<ServerSpec, String> {
    parse(text, Some("a proxy"), "HOST[:PORT]")
}

/// The same with another port for one that gives none.
pub(super) fn parse_at(text: &str, port: u16) -> Result<ServerSpec, String> {
    let (_, rest) = split_host(text, "HOST[:PORT]")?;
    let spec = parse_target(text)?;
    Ok(match rest {
        Some(_) => spec,
        None => ServerSpec { port, ..spec },
    })
}

/// Parses an address or name without port; brackets around IPv6 are taken off.
pub fn parse_listen(text: &str) -> Result<String, String> {
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
    let host = match bare {
        Some(inner) if is_ipv6(inner) => inner,
        Some(_) => return Err("not an IPv6 address between the brackets".into()),
        None => text,
    };
    if !is_ipv6(host) && host.contains(':') {
        return Err("not an address or name (the port is given with -p)".into());
    }
    check_host(host)?;
    Ok(host.to_owned())
}

/// `weightless`: what it is that takes no weight.
fn parse(text: &str, weightless: Option<&str>, form: &str) -> Result<ServerSpec, String> {
    let (host, rest) = split_host(text, form)?;
    check_host(host)?;
    let mut fields = rest.into_iter().flat_map(|r| r.split(':'));
    let port = match fields.next() {
        None => PORT_DEFAULT,
        Some(field) => number(field)
            .and_then(|n| u16::try_from(n).ok())
            .filter(|&n| n > 0)
            .ok_or_else(|| format!("'{field}' is not a port (1 to 65535)"))?,
    };
    let weight = fields.next();
    if let Some((what, _)) = weightless.zip(weight) {
        return Err(format!("{what} takes no weight ({form})"));
    }
    let weight = match weight {
        None => 1,
        Some(field) => number(field)
            .and_then(|n| u32::try_from(n).ok())
            .filter(|n| (1..=WEIGHT_MAX).contains(n))
            .ok_or_else(|| format!("'{field}' is not a weight (1 to {WEIGHT_MAX})"))?,
    };
    if fields.next().is_some() {
        return Err(format!("not a server ({form}, IPv6 in brackets)"));
    }
    Ok(ServerSpec {
        host: host.to_owned(),
        port,
        weight,
        name: None,
    })
}

/// Cuts the host off; what follows it, without its colon, is `None` when there is nothing.
fn split_host<'a>(text: &'a str, form: &str) -> Result<(&'a str, Option<&'a str>), String> {
    if let Some(inner) = text.strip_prefix('[') {
        let (host, rest) = inner
            .split_once(']')
            .filter(|(host, _)| is_ipv6(host))
            .ok_or("not an IPv6 address between the brackets")?;
        return match rest.strip_prefix(':') {
            Some(rest) => Ok((host, Some(rest))),
            None if rest.is_empty() => Ok((host, None)),
            None => Err(format!("not a server ({form})")),
        };
    }
    if let Some(hint) = unbracketed(text) {
        return Err(hint);
    }
    if is_ipv6(text) {
        return Ok((text, None));
    }
    Ok(match text.split_once(':') {
        Some((host, rest)) => (host, Some(rest)),
        None => (text, None),
    })
}

/// What to write instead of an IPv6 address that a port or weight follows without brackets. `::1:8080` may be an address as
/// well, but hardly is meant as one.
fn unbracketed(text: &str) -> Option<String> {
    let is_port = |rest: &str| rest.len() >= 4 && rest.bytes().all(|b| b.is_ascii_digit());
    let mut ends = text.rmatch_indices(':').map(|(at, _)| at).take(2);
    let at = ends.find(|&at| is_ipv6(&text[..at]))?;
    let (address, rest) = (&text[..at], &text[at + 1..]);
    if !is_ipv6(text) {
        return Some(format!("IPv6 stands in brackets ([{address}]:{rest})"));
    }
    is_port(rest).then(|| {
        format!("IPv6 stands in brackets ([{address}]:{rest}, or [{text}] if there is no port)")
    })
}

/// Refuses what can be neither an address nor a name, so that a typing error does not become a DNS question.
fn check_host(host: &str) -> Result<(), String> {
    if host.is_empty() {
        return Err("the host is missing".into());
    }
    if is_ipv6(host) {
        return Ok(());
    }
    if host.bytes().all(|b| b.is_ascii_digit() || b == b'.') && host.parse::<Ipv4Addr>().is_err() {
        return Err(format!("'{host}' is not an IPv4 address"));
    }
    let named = host
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
    if !named || host.len() > HOST_MAX || host.starts_with(['-', '.']) || host.contains("..") {
        return Err(format!("'{host}' is not an address or host name"));
    }
    Ok(())
}

/// An IPv6 address, with or without a zone (`fe80::1%eth0`).
fn is_ipv6(text: &str) -> bool {
    let (address, zone) = match text.split_once('%') {
        Some((address, zone)) => (address, Some(zone)),
        None => (text, None),
    };
    address.parse::<Ipv6Addr>().is_ok()
        && zone.is_none_or(|z| {
            !z.is_empty()
                && z.bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        })
}

/// Digits only: Rust's own parser would take a sign as well.
pub(super) fn number(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(host: &str, port: u16, weight: u32) -> Result<ServerSpec, String> {
        Ok(ServerSpec {
            host: host.into(),
            port,
            weight,
            name: None,
        })
    }

    #[test]
    fn servers_in_every_form() {
        for (text, host, port, weight) in [
            ("a", "a", 11211, 1),
            ("a:1", "a", 1, 1),
            ("a:65535:1000", "a", 65535, 1000),
            ("10.0.0.1", "10.0.0.1", 11211, 1),
            ("10.0.0.1:11212:3", "10.0.0.1", 11212, 3),
            ("cache-1.example_x.org:80", "cache-1.example_x.org", 80, 1),
            ("example.org.", "example.org.", 11211, 1),
            ("::1", "::1", 11211, 1),
            ("2001:db8::7:1", "2001:db8::7:1", 11211, 1),
            ("[::1]", "::1", 11211, 1),
            ("[::1]:5", "::1", 5, 1),
            ("[2001:db8::1]:5:2", "2001:db8::1", 5, 2),
            ("fe80::1%eth0", "fe80::1%eth0", 11211, 1),
            ("[fe80::1%eth0.5]:7", "fe80::1%eth0.5", 7, 1),
            ("2001:db8::1:2", "2001:db8::1:2", 11211, 1),
            ("2001:db8::8080", "2001:db8::8080", 11211, 1),
        ] {
            assert_eq!(parse_server(text), spec(host, port, weight), "{text}");
        }
    }

    #[test]
    fn wrong_servers_say_what_is_wrong() {
        for (text, error) in [
            ("", "the host is missing"),
            (":11211", "the host is missing"),
            ("a:", "'' is not a port (1 to 65535)"),
            ("a:0", "'0' is not a port (1 to 65535)"),
            ("a:65536", "'65536' is not a port (1 to 65535)"),
            ("a:+1", "'+1' is not a port (1 to 65535)"),
            ("a:x", "'x' is not a port (1 to 65535)"),
            ("x::2", "'' is not a port (1 to 65535)"),
            ("a:1:0", "'0' is not a weight (1 to 1000)"),
            ("a:1:1001", "'1001' is not a weight (1 to 1000)"),
            (
                "a:1:2:3",
                "not a server (HOST[:PORT][:WEIGHT], IPv6 in brackets)",
            ),
            ("::1:11211", "IPv6 stands in brackets ([::1]:11211)"),
            ("::1:11211:2", "IPv6 stands in brackets ([::1]:11211:2)"),
            ("fe80::1%eth0:80", "IPv6 stands in brackets ([fe80::1%eth0]:80)"),
            (
                "2001:db8::1:8080",
                "IPv6 stands in brackets ([2001:db8::1]:8080, or [2001:db8::1:8080] if there is no port)",
            ),
            ("1:2:3:4:5:6:7:8:80", "IPv6 stands in brackets ([1:2:3:4:5:6:7:8]:80)"),
            ("[::1",  "not an IPv6 address between the brackets"),
            ("[a]:1", "not an IPv6 address between the brackets"),
            ("[::1]1", "not a server (HOST[:PORT][:WEIGHT])"),
            ("10.0.0.256", "'10.0.0.256' is not an IPv4 address"),
            ("10.0.1", "'10.0.1' is not an IPv4 address"),
            ("a,b", "'a,b' is not an address or host name"),
            ("a b", "'a b' is not an address or host name"),
            ("-a", "'-a' is not an address or host name"),
            ("a..b", "'a..b' is not an address or host name"),
            ("/run/x", "'/run/x' is not an address or host name"),
            ("a\n", "'a\n' is not an address or host name"),
        ] {
            assert_eq!(parse_server(text), Err(error.into()), "{text}");
        }
    }

    #[test]
    fn a_backup_has_no_weight() {
        assert_eq!(parse_backup("b:5"), spec("b", 5, 1));
        assert_eq!(
            parse_backup("b:5:2"),
            Err("a backup takes no weight (HOST[:PORT])".into())
        );
    }

    #[test]
    fn listen_addresses() {
        for (text, host) in [
            ("10.0.0.1", "10.0.0.1"),
            ("[::]", "::"),
            ("::1", "::1"),
            ("localhost", "localhost"),
        ] {
            assert_eq!(parse_listen(text), Ok(host.into()), "{text}");
        }
        for (text, error) in [
            ("", "the host is missing"),
            (
                "10.0.0.1:80",
                "not an address or name (the port is given with -p)",
            ),
            (
                "[::1]:80",
                "not an address or name (the port is given with -p)",
            ),
            ("[x]", "not an IPv6 address between the brackets"),
            ("1.2.3.4.5", "'1.2.3.4.5' is not an IPv4 address"),
        ] {
            assert_eq!(parse_listen(text), Err(error.into()), "{text}");
        }
    }
}
