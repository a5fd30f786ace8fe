//! Statistics of several servers, put together under their names.

use std::collections::HashMap;

use crate::proto::token::{next_token, parse_decimal};

/// memcached has some 60 slab classes with some 25 lines each; more names than this are not kept.
const NAMES_MAX: usize = 16 * 1024;

/// How the numbers of several servers become one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rule {
    /// They are added.
    Sum,
    /// A sum would mean nothing: sizes of a class, ages, what goes on or not.
    Highest,
    /// What the weakest has is what can be counted on.
    Lowest,
}

/// Lines `STAT name value`, in the order in which the names came.
#[derive(Debug)]
pub struct Sums {
    lines: Vec<(Vec<u8>, Value)>,
    places: HashMap<Vec<u8>, usize>,
    rule: fn(&[u8]) -> Rule,
}

/// A word that is no number is the first server's.
#[derive(Debug)]
enum Value {
    Number(u64),
    Text(Vec<u8>),
}

impl Sums {
    /// Nothing yet.
    pub fn new(rule: fn(&[u8]) -> Rule) -> Sums {
        Sums {
            lines: Vec::new(),
            places: HashMap::new(),
            rule,
        }
    }

    /// Takes a line `STAT name value` in.
    pub fn add(&mut self, line: &[u8]) {
        let Some(name) = next_token(line, 5) else {
            return;
        };
        let value = &line[(name.end + 1).min(line.len())..];
        let name = name.of(line);
        let number = parse_decimal(value);
        if let Some(&place) = self.places.get(name) {
            if let (Value::Number(so_far), Some(number)) = (&mut self.lines[place].1, number) {
                *so_far = match (self.rule)(name) {
                    Rule::Sum => so_far.wrapping_add(number),
                    Rule::Highest => number.max(*so_far),
                    Rule::Lowest => number.min(*so_far),
                };
            }
        } else if self.lines.len() < NAMES_MAX {
            self.places.insert(name.to_vec(), self.lines.len());
            let value = number.map_or_else(|| Value::Text(value.to_vec()), Value::Number);
            self.lines.push((name.to_vec(), value));
        }
    }

    /// Gives `name` this number where no server said one.
    pub fn set_if_missing(&mut self, name: &str, number: u64) {
        if !self.places.contains_key(name.as_bytes()) {
            self.add(format!("STAT {name} {number}").as_bytes());
        }
    }

    /// The number under `name`.
    pub fn number(&self, name: &str) -> Option<u64> {
        match self.lines[*self.places.get(name.as_bytes())?].1 {
            Value::Number(number) => Some(number),
            Value::Text(_) => None,
        }
    }

    /// Writes the lines whose names are `wanted`.
    pub fn write(&self, out: &mut Vec<u8>, wanted: impl Fn(&[u8]) -> bool) {
        for (name, value) in self.lines.iter().filter(|(name, _)| wanted(name)) {
            out.extend_from_slice(b"STAT ");
            out.extend_from_slice(name);
            out.push(b' ');
            match value {
                Value::Number(number) => out.extend_from_slice(number.to_string().as_bytes()),
                Value::Text(text) => out.extend_from_slice(text),
            }
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// For `stats`, `stats items`, `stats slabs` and `stats sizes`.
pub fn of_counters(name: &[u8]) -> Rule {
    let last = name.rsplit(|&byte| byte == b':').next().unwrap_or(name);
    match last {
        b"accepting_conns" => Rule::Lowest,
        b"chunk_size"
        | b"chunks_per_page"
        | b"evicted_time"
        | b"active_slabs"
        | b"hash_power_level"
        | b"hash_is_expanding"
        | b"lru_crawler_running"
        | b"reserved_fds"
        | b"slab_reassign_running"
        | b"slab_reassign_last_busy_status" => Rule::Highest,
        _ if last.starts_with(b"age") => Rule::Highest,
        _ => Rule::Sum,
    }
}

/// For `stats settings`.
pub fn of_settings(name: &[u8]) -> Rule {
    match name {
        b"maxbytes" => Rule::Sum,
        b"item_size_max" => Rule::Lowest,
        _ => Rule::Highest,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put_together(rule: fn(&[u8]) -> Rule, lines: &[&str]) -> String {
        let mut sums = Sums::new(rule);
        for line in lines {
            sums.add(line.as_bytes());
        }
        let mut out = Vec::new();
        sums.write(&mut out, |_| true);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn numbers_are_added_and_what_is_one_for_all_is_not() {
        let lines = [
            "STAT items:1:number 5",
            "STAT items:1:age 70",
            "STAT sizes_status disabled",
            "STAT 1:chunk_size 96",
            "STAT accepting_conns 1",
            "STAT items:1:number 7",
            "STAT items:1:age 60",
            "STAT 1:chunk_size 96",
            "STAT sizes_status disabled",
            "STAT accepting_conns 0",
            "STAT",
            "STAT empty",
        ];
        assert_eq!(
            put_together(of_counters, &lines),
            "STAT items:1:number 12\r\nSTAT items:1:age 70\r\nSTAT sizes_status disabled\r\n\
             STAT 1:chunk_size 96\r\nSTAT accepting_conns 0\r\nSTAT empty \r\n"
        );
    }

    #[test]
    fn settings_are_one_for_all_but_for_the_memory() {
        let lines = [
            "STAT maxbytes 64",
            "STAT item_size_max 2048",
            "STAT evictions on",
            "STAT maxbytes 32",
            "STAT item_size_max 1024",
            "STAT evictions off",
            "STAT growth_factor 1.25",
        ];
        assert_eq!(
            put_together(of_settings, &lines),
            "STAT maxbytes 96\r\nSTAT item_size_max 1024\r\nSTAT evictions on\r\nSTAT growth_factor 1.25\r\n"
        );
    }

    #[test]
    fn what_nobody_said_has_a_number_all_the_same() {
        let mut sums = Sums::new(of_counters);
        sums.add(b"STAT bytes 5");
        sums.set_if_missing("bytes", 0);
        sums.set_if_missing("evictions", 0);
        sums.add(b"STAT libevent 2.1.12-stable");
        assert_eq!(sums.number("bytes"), Some(5));
        assert_eq!(sums.number("evictions"), Some(0));
        assert_eq!(sums.number("libevent"), None);
        assert_eq!(sums.number("reclaimed"), None);
        let mut out = Vec::new();
        sums.write(&mut out, |name| name != b"bytes");
        let expected = "STAT evictions 0\r\nSTAT libevent 2.1.12-stable\r\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
