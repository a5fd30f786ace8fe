//! Room: views and stamps: how any proxy, also one just started, sees which servers missed writes.
//!
//! A view is a span of time in which the same servers took part in every write. Before the first write that leaves a
//! server out, the proxy raises the view, and stamps the servers that take part, ahead of that write in the same stream.
//! A server that comes back with another stamp than theirs has missed something.
//!
//! A stamp is an item `magent:stamp:<pool>` with the value `1 <number> <owner> <c|w>`: view number, proxy that raised it
//! (64 bits, hexadecimal), cold or warm.

use crate::config::Config;

/// A view: its number, and the proxy that raised it. The higher one is the later one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct View {
    /// Grows with each raise, over all proxies.
    pub number: u64,
    /// Hash of the proxy's id; decides between two proxies that raised at the same time.
    pub owner: u64,
}

/// What a server says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stamp {
    /// The last view it took part in.
    pub view: View,
    /// It may lack what its peers hold.
    pub cold: bool,
}

impl Stamp {
    /// Reads a stamp's value. `None`: it is none.
    pub fn parse(value: &[u8]) -> Option<Stamp> {
        let text = std::str::from_utf8(value).ok()?;
        let mut words = text.trim_end().split(' ');
        if words.next()? != "1" {
            return None;
        }
        let number = words.next()?.parse().ok()?;
        let owner = u64::from_str_radix(words.next()?, 16).ok()?;
        let cold = words.next()? == "c";
        Some(Stamp {
            view: View { number, owner },
            cold,
        })
    }

    /// The value of the stamp's item.
    pub fn value(&self) -> String {
        let state = if self.cold { 'c' } else { 'w' };
        format!("1 {} {:016x} {state}", self.view.number, self.view.owner)
    }
}

/// FNV-1a, 64 bits.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// The hash that stands for a proxy in stamps; never 0.
pub fn owner(proxy_id: &str) -> u64 {
    fnv1a(proxy_id.as_bytes()).max(1)
}

/// The key of this pool's stamps. Pools with the same servers, in whatever roles, share it; a pool of proxies in front
/// of this one has another.
pub fn stamp_key(config: &Config) -> Vec<u8> {
    let all = config.servers.iter().chain(&config.backups);
    let mut names: Vec<String> = all
        .map(|spec| format!("{}:{}", spec.host, spec.port))
        .collect();
    names.sort();
    names.dedup();
    format!("magent:stamp:{:016x}", fnv1a(names.join(" ").as_bytes())).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ServerSpec;

    #[test]
    fn stamps_go_round() {
        let stamp = Stamp {
            view: View {
                number: 1_700_000_000,
                owner: owner("host/1.2.3.4:12000"),
            },
            cold: true,
        };
        assert_eq!(Stamp::parse(stamp.value().as_bytes()), Some(stamp));
        assert_eq!(Stamp::parse(b"2 1 0 w"), None);
        assert_eq!(Stamp::parse(b"hello"), None);
        assert_eq!(Stamp::parse(&[0xff, 0xfe]), None);
    }

    #[test]
    fn the_pool_is_its_servers_whatever_their_roles() {
        let spec = |port| ServerSpec {
            host: "a".into(),
            port,
            weight: 1,
        };
        let config = |servers: &[u16], backups: &[u16]| Config {
            servers: servers.iter().map(|&port| spec(port)).collect(),
            backups: backups.iter().map(|&port| spec(port)).collect(),
            ..Config::default()
        };
        let one = stamp_key(&config(&[1], &[2]));
        assert_eq!(one, stamp_key(&config(&[2], &[1])));
        assert_ne!(one, stamp_key(&config(&[1], &[3])));
    }
}
