//! Room: the lists of servers under which stamps were written, so that they are found when the list is another one.
//!
//! Each list has stamps of its own: two pools that share a server must not take each other's for theirs. But a list is
//! changed, by a reload or a restart, and who missed what is on the servers under the list before. So each server also holds
//! an item that names the lists which were in force there, `<list>.<pool>.<ring>` each:
//!
//! - `list`: hash of the names of the servers; the stamps' key is made of it.
//! - `pool`: hash of the pool's name. Lists of the same name are one pool, whose list has been changed.
//! - `ring`: hash of all that places keys. Under another ring servers may lack what belongs on them.
//!
//! The word `all` behind them says that all keys belong on the server, so that it has lost none by another ring. `leftovers` says that keys have gone elsewhere with another ring: what the server holds of them is not
//! theirs any more. Before it gets keys back, all that it holds is flushed.
//!
//! Until this proxy has written for the first time, what other lists say counts like its own. Ahead of that write the view
//! is raised under its own list.

use super::sabotage::{is, Sabotage};
use super::twins::TWIN_KEYS;
use super::view::{fnv1a, pool_names, stamp_key_of, Stamp};
use crate::config::Config;

/// The item that names the lists.
pub const LISTS_KEY: &[u8] = b"magent:stamp:lists";

/// Most lists that a server names.
const LISTS_MAX: usize = 6;

/// Most other lists whose stamps are asked for.
const OTHERS_MAX: usize = 4;

/// Most lists before a reload under which stamps are still written.
const FORMER_MAX: usize = 2;

/// A list of servers, as an item names it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct List {
    /// Hash of the servers' names.
    pub key: u64,
    /// Hash of the pool's name.
    pub pool: u32,
    /// Hash of what places keys.
    pub ring: u32,
}

impl List {
    /// The list of a configuration.
    pub fn of(config: &Config) -> List {
        let name = config.pool.as_deref().unwrap_or("default");
        let specs = |specs: &[crate::config::ServerSpec]| -> Vec<String> {
            let text = specs
                .iter()
                .map(|spec| format!("{}/{:?}/{}", spec.address(), spec.name, spec.weight));
            text.collect()
        };
        let ring = format!(
            "{:?} {:?} {:?} {:?} {:?} {:?} {}",
            specs(&config.servers),
            specs(&config.backups),
            config.distribution,
            config.hash,
            config.hash_tag,
            config.copies,
            config.eject
        );
        List {
            key: fnv1a(pool_names(config).join(" ").as_bytes()),
            pool: fnv1a(name.as_bytes()) as u32,
            ring: fnv1a(ring.as_bytes()) as u32,
        }
    }

    fn parse(text: &str) -> Option<List> {
        let mut parts = text.split('.');
        let list = List {
            key: u64::from_str_radix(parts.next()?, 16).ok()?,
            pool: u32::from_str_radix(parts.next()?, 16).ok()?,
            ring: u32::from_str_radix(parts.next()?, 16).ok()?,
        };
        parts.next().is_none().then_some(list)
    }

    fn text(&self) -> String {
        format!("{:016x}.{:08x}.{:08x}", self.key, self.pool, self.ring)
    }
}

/// What the item on one server says.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Named {
    lists: Vec<List>,
    /// What it was to hold under the latest of them.
    pub share: Share,
}

/// What a server holds under a ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Share {
    /// All keys belong on it.
    pub all: bool,
    /// It may hold keys that lay on it under another ring, as they were then.
    pub leftovers: bool,
}

/// These words say so among the lists.
const ALL: &str = "all";
const LEFTOVERS: &str = "leftovers";

impl Named {
    /// Reads the item's value; what is no list is passed over.
    fn parse(value: &[u8]) -> Named {
        let text = std::str::from_utf8(value).unwrap_or("");
        let words = || text.split_whitespace();
        Named {
            lists: words().filter_map(List::parse).take(LISTS_MAX).collect(),
            share: Share {
                all: words().any(|word| word == ALL),
                leftovers: words().any(|word| word == LEFTOVERS),
            },
        }
    }

    /// The value that names `list` besides, as the latest.
    fn with(&self, list: List, share: Share) -> (Named, String) {
        let mut lists = vec![list];
        let others = self.lists.iter().filter(|other| other.key != list.key);
        lists.extend(others.take(LISTS_MAX - 1));
        let mut text: Vec<String> = lists.iter().map(List::text).collect();
        let words = [(share.all, ALL), (share.leftovers, LEFTOVERS)];
        text.extend(
            words
                .iter()
                .filter(|(so, _)| *so)
                .map(|(_, word)| (*word).to_owned()),
        );
        (Named { lists, share }, text.join(" "))
    }
}

/// What a server has answered when it was asked for its stamps.
pub struct Said {
    /// The latest of those that count.
    pub stamp: Option<Stamp>,
    /// Which lists it names.
    pub named: Named,
}

/// The lists that this proxy knows.
#[derive(Debug)]
pub struct Lists {
    /// The one in force.
    pub own: List,
    /// Those in force in this process before, the last one first.
    former: Vec<u64>,
    /// Other ones of the same pool that servers name.
    others: Vec<u64>,
    /// Lists of any pool that servers name.
    known: Vec<u64>,
    /// This proxy has written under its list: the others do not count any more.
    pub settled: bool,
}

impl Lists {
    /// For a proxy that has just been started.
    pub fn new(config: &Config) -> Lists {
        Lists {
            own: List::of(config),
            former: Vec::new(),
            others: Vec::new(),
            known: Vec::new(),
            settled: false,
        }
    }

    /// Another configuration is in force. True: with another list.
    pub fn change(&mut self, config: &Config) -> bool {
        let before = std::mem::replace(&mut self.own, List::of(config));
        self.settled &= before == self.own;
        let renamed = before.key != self.own.key;
        if renamed {
            self.former.retain(|&key| key != self.own.key);
            self.former.insert(0, before.key);
            self.former.truncate(FORMER_MAX);
            self.others.retain(|&key| key != self.own.key);
        }
        renamed
    }

    /// Whether another list has been in force before, as far as is known.
    pub fn has_others(&self) -> bool {
        !self.former.is_empty() || !self.others.is_empty()
    }

    /// The keys under which stamps are written.
    pub fn written(&self) -> impl Iterator<Item = u64> + '_ {
        std::iter::once(self.own.key).chain(self.former.iter().copied())
    }

    /// The request for the stamps of a server, which names the lists as well.
    pub fn request(&self) -> Vec<u8> {
        let mut line = b"get".to_vec();
        let others = self.others.iter().copied().filter(|_| !self.settled);
        for key in self.written().chain(others) {
            line.push(b' ');
            line.extend_from_slice(&stamp_key_of(key));
        }
        line.push(b' ');
        line.extend_from_slice(LISTS_KEY);
        line.extend_from_slice(b"\r\n");
        line
    }

    /// Reads the answer. If it names lists that were not known, the next request is longer.
    pub fn read(&mut self, mut text: &[u8], trusted: bool) -> Said {
        let mut said = Said {
            stamp: None,
            named: Named::default(),
        };
        while let Some((key, value, rest)) = next_block(text) {
            text = rest;
            if key == LISTS_KEY {
                // Behind another proxy it may be that one's.
                if trusted {
                    said.named = Named::parse(value);
                }
            } else if let Some(mut stamp) = Stamp::parse(value) {
                stamp.list = self.key_of(key);
                if stamp.list != self.own.key {
                    if is(Sabotage::OtherListsIgnored) {
                        continue;
                    }
                    // Its places are others.
                    stamp.origin = None;
                }
                let best = said.stamp.as_ref();
                if best.is_none_or(|best| best.view < stamp.view) {
                    said.stamp = Some(stamp);
                }
            }
        }
        for list in &said.named.lists {
            if !self.known.contains(&list.key) && self.known.len() < 64 {
                self.known.push(list.key);
            }
            let asked = self.written().any(|key| key == list.key);
            let is_other = list.pool == self.own.pool && !asked;
            if is_other && !self.others.contains(&list.key) && self.others.len() < OTHERS_MAX {
                self.others.push(list.key);
            }
        }
        said
    }

    /// The hash in the key of a stamp that was asked for.
    fn key_of(&self, name: &[u8]) -> u64 {
        let mut all = self.written().chain(self.others.iter().copied());
        all.find(|&key| stamp_key_of(key) == name).unwrap_or(0)
    }

    /// Whether a server names this list, or one that was in force before.
    pub fn is_member(&self, named: &Named) -> bool {
        let others = &self.others;
        let mut lists = named.lists.iter();
        lists.any(|list| others.contains(&list.key) || self.written().any(|key| key == list.key))
    }

    /// Whether a server names this list as it is.
    pub fn is_named(&self, named: &Named) -> bool {
        named.lists.contains(&self.own)
    }

    /// Whether keys were placed otherwise on a server than they are now.
    pub fn ring_differs(&self, named: &Named) -> bool {
        let mut own = named.lists.iter().filter(|list| list.pool == self.own.pool);
        own.next().is_some_and(|list| list.ring != self.own.ring)
    }

    /// What is written to a server that names `named`.
    pub fn announcement(&self, named: &Named, share: Share) -> (Named, String) {
        named.with(self.own, share)
    }

    /// Whether clients must not write this key, and it is never copied.
    pub fn is_reserved(&self, key: &[u8]) -> bool {
        let Some(rest) = key.strip_prefix(b"magent:stamp:") else {
            return false;
        };
        let hash = std::str::from_utf8(rest).ok();
        let hash = hash.and_then(|text| u64::from_str_radix(text, 16).ok());
        let known = |hash| self.known.contains(&hash) || self.written().any(|key| key == hash);
        key == LISTS_KEY
            || key.starts_with(TWIN_KEYS)
            || (rest.len() == 16 && hash.is_some_and(known))
    }
}

/// The first `VALUE` block of an answer: key, value, and what follows.
fn next_block(text: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let newline = memchr::memchr(b'\n', text)?;
    let line = text[..newline].trim_ascii_end();
    let mut words = line.split(|&byte| byte == b' ');
    if words.next()? != b"VALUE" {
        return None;
    }
    let (key, _, length) = (words.next()?, words.next()?, words.next()?);
    let length: usize = std::str::from_utf8(length).ok()?.parse().ok()?;
    let rest = &text[newline + 1..];
    let value = rest.get(..length)?;
    Some((key, value, rest.get(length + 2..)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ServerSpec;

    fn config(ports: &[u16], pool: Option<&str>) -> Config {
        let spec = |&port: &u16| ServerSpec {
            host: "a".into(),
            port,
            weight: 1,
            name: None,
        };
        Config {
            servers: ports.iter().map(spec).collect(),
            pool: pool.map(str::to_owned),
            ..Config::default()
        }
    }

    fn answer(items: &[(Vec<u8>, String)]) -> Vec<u8> {
        let mut text = Vec::new();
        for (key, value) in items {
            text.extend_from_slice(b"VALUE ");
            text.extend_from_slice(key);
            text.extend_from_slice(format!(" 0 {}\r\n{value}\r\n", value.len()).as_bytes());
        }
        text
    }

    #[test]
    fn a_new_list_finds_the_stamps_of_the_one_before() {
        let old = Lists::new(&config(&[1, 2], None));
        let mut new = Lists::new(&config(&[1, 2, 3], None));
        let (_, names) = old.announcement(&Named::default(), Share::default());
        let item = (LISTS_KEY.to_vec(), names);
        let before = new.request().len();
        let said = new.read(&answer(std::slice::from_ref(&item)), true);
        assert!(new.request().len() > before && said.stamp.is_none());
        assert!(new.is_member(&said.named) && !new.is_named(&said.named));
        assert!(new.ring_differs(&said.named));
        let key = stamp_key_of(old.own.key);
        let line = new.request();
        assert!(line.windows(key.len()).any(|part| part == key));
        let stamp = (key, "1 7 000000000000000a w".to_owned());
        let said = new.read(&answer(&[stamp, item]), true);
        let stamp = said.stamp.unwrap();
        assert_eq!((stamp.view.number, stamp.list), (7, old.own.key));
    }

    #[test]
    fn pools_of_other_names_are_others() {
        let one = Lists::new(&config(&[1, 2], Some("one")));
        let mut two = Lists::new(&config(&[2, 3], Some("two")));
        let (named, names) = one.announcement(&Named::default(), Share::default());
        let said = two.read(&answer(&[(LISTS_KEY.to_vec(), names)]), true);
        assert!(!two.has_others() && !two.is_member(&said.named));
        assert_eq!(said.named, named);
        // But nobody writes there either.
        assert!(two.is_reserved(&stamp_key_of(one.own.key)));
        assert!(two.is_reserved(LISTS_KEY));
        assert!(!two.is_reserved(&stamp_key_of(1)) && !two.is_reserved(b"magent:stamp:"));
    }

    #[test]
    fn the_latest_list_stands_first_and_they_are_not_too_many() {
        let mut named = Named::default();
        for port in 1..20 {
            let lists = Lists::new(&config(&[port], None));
            let share = Share {
                all: port % 2 == 0,
                leftovers: port % 3 == 0,
            };
            let (next, text) = lists.announcement(&named, share);
            assert_eq!(Named::parse(text.as_bytes()), next);
            assert!(lists.is_named(&next) && !lists.ring_differs(&next));
            assert_eq!(next.share, share);
            named = next;
        }
        assert_eq!(named.lists.len(), LISTS_MAX);
        assert_eq!(Named::parse(b"x y.z 1.2.3.4 \xff"), Named::default());
    }
}
