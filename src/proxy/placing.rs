//! Which ring a configuration asks for, and which part of a key it looks at.

use std::cell::Cell;

use crate::config::{Config, Distribution, ServerSpec};
use crate::hash::Ring;

/// The ring over `servers` that `config` asks for.
pub(super) fn ring(config: &Config, servers: &[ServerSpec]) -> Ring {
    let named = |name: fn(&ServerSpec) -> String| -> Vec<(String, u32)> {
        let named = servers.iter().map(|spec| (name(spec), spec.weight));
        named.collect()
    };
    let weights: Vec<u32> = servers.iter().map(|spec| spec.weight).collect();
    match config.distribution {
        // Where any server will do, one of each index is all there is to know.
        Distribution::Random => Ring::modula(&vec![1; servers.len()]),
        Distribution::Magent => Ring::modula(&weights),
        Distribution::MagentKetama => Ring::ketama(&named(ServerSpec::address)),
        Distribution::Ketama => {
            Ring::twemproxy_ketama(&named(ServerSpec::twemproxy_name), config.hash)
        }
        Distribution::Modula => {
            Ring::twemproxy_modula(&named(ServerSpec::twemproxy_name), config.hash)
        }
        Distribution::Jump => Ring::jump(&weights, config.hash),
        Distribution::Rendezvous => {
            Ring::rendezvous(&named(ServerSpec::twemproxy_name), config.hash)
        }
    }
}

/// What of `key` places it: with a tag what stands between its first byte and the next second one, if anything does.
pub(super) fn placing_part(key: &[u8], tag: [u8; 2]) -> &[u8] {
    let Some(open) = memchr::memchr(tag[0], key) else {
        return key;
    };
    let inner = &key[open + 1..];
    match memchr::memchr(tag[1], inner) {
        Some(end) if end > 0 => &inner[..end],
        _ => key,
    }
}

/// Draws a server for each request.
#[derive(Debug)]
pub(super) struct Draw {
    state: Cell<u64>,
    /// Servers that may be drawn.
    servers: Vec<u16>,
    /// How many there are in all.
    count: u16,
}

impl Draw {
    pub fn new(count: usize) -> Draw {
        Draw {
            state: Cell::new(0x9e37_79b9_7f4a_7c15),
            servers: (0..count as u16).collect(),
            count: count as u16,
        }
    }

    /// Only these may be drawn from now on; with none, all.
    pub fn limit(&mut self, servers: impl Iterator<Item = u16>) {
        self.servers.clear();
        self.servers.extend(servers);
        if self.servers.is_empty() {
            self.servers.extend(0..self.count);
        }
    }

    pub fn draw(&self) -> u16 {
        // xorshift64*, good enough to spread load; nobody gains anything by guessing it.
        let mut state = self.state.get();
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        self.state.set(state);
        let bits = state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        self.servers[bits as usize % self.servers.len()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_part_between_the_tag() {
        for (key, part) in [
            ("user:{1000}:name", "1000"),
            ("{{x}}", "{x"),
            ("{}k", "{}k"),
            ("k{x", "k{x"),
            ("}x{y", "}x{y"),
            ("}a{b}c}", "b"),
            ("", ""),
        ] {
            assert_eq!(placing_part(key.as_bytes(), *b"{}"), part.as_bytes());
        }
        assert_eq!(placing_part(b"a$tag$b", *b"$$"), b"tag");
    }

    #[test]
    fn any_server_is_drawn_and_none_that_is_away() {
        let mut draw = Draw::new(3);
        let mut seen = [0; 3];
        for _ in 0..3000 {
            seen[usize::from(draw.draw())] += 1;
        }
        assert!(seen.iter().all(|&n| (900..1100).contains(&n)), "{seen:?}");
        draw.limit([0, 2].into_iter());
        assert!((0..100).all(|_| draw.draw() != 1));
        draw.limit([].into_iter());
        assert!((0..100).any(|_| draw.draw() == 1));
    }
}
