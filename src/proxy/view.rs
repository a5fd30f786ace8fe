//! Room: views and stamps: how any proxy, also one just started, sees which servers missed writes.
//!
//! A view is a span of time in which the same servers took part in every write. Before the first write that leaves a
//! server out, the proxy raises the view, and stamps the servers that take part, ahead of that write in the same stream.
//! A server that comes back with another stamp than theirs has missed something.
//!
//! A stamp is an item `magent:stamp:<pool>` with the value `1 <number> <owner> <c|w>`: view number, proxy that raised it
//! (64 bits, hexadecimal), cold or warm. With `--eject` ` e<primary>:<place>,...` may follow: where keys may lie, by index of
//! their primary. ` f<second>` says when a `flush_all` with a delay takes effect. Then ` p<number>.<owner>.<place>,...`: the view before, and which servers the view leaves out, by their
//! place among the sorted names.

use std::rc::Rc;

use crate::config::Config;

/// A view: its number, and the proxy that raised it. The higher one is the later one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct View {
    /// Grows with each raise, over all proxies.
    pub number: u64,
    /// Hash of the proxy's id; decides between two proxies that raised at the same time.
    pub owner: u64,
}

impl View {
    fn parse(number: &str, owner: &str) -> Option<View> {
        Some(View {
            number: number.parse().ok()?,
            owner: u64::from_str_radix(owner, 16).ok()?,
        })
    }
}

/// Which keys may lie elsewhere than at their primary: per primary, the highest place. In one view it is the same on all
/// servers.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Ejected {
    /// Ascending by primary; places are 1 and more.
    places: Vec<(u16, u8)>,
}

impl Ejected {
    /// True when each key is at its primary.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The highest place at which keys of `primary` may lie; 0: only there.
    pub fn place(&self, primary: u16) -> usize {
        let found = self.places.binary_search_by_key(&primary, |entry| entry.0);
        found.map_or(0, |at| usize::from(self.places[at].1))
    }

    /// Keys of `primary` may lie at `place`, 1 or more. True: none lay elsewhere so far.
    pub fn note(&mut self, primary: u16, place: usize) -> bool {
        let place = u8::try_from(place).unwrap_or(u8::MAX);
        match self.places.binary_search_by_key(&primary, |entry| entry.0) {
            Ok(at) => {
                self.places[at].1 = self.places[at].1.max(place);
                false
            }
            Err(at) => {
                self.places.insert(at, (primary, place));
                true
            }
        }
    }

    /// Keys of any of so many primaries may lie at any place up to `place`.
    pub fn everywhere(primaries: usize, place: usize) -> Ejected {
        let mut ejected = Ejected::default();
        for primary in 0..primaries {
            ejected.note(primary as u16, place);
        }
        ejected
    }

    /// Takes over what `other` says, too.
    pub fn merge(&mut self, other: &Ejected) {
        for &(primary, place) in &other.places {
            self.note(primary, usize::from(place));
        }
    }

    /// Reads `<primary>:<place>,...`.
    fn parse(text: &str) -> Option<Ejected> {
        let mut ejected = Ejected::default();
        for entry in text.split(',') {
            let (primary, place) = entry.split_once(':')?;
            ejected.note(primary.parse().ok()?, place.parse().ok()?);
        }
        Some(ejected)
    }

    fn text(&self) -> String {
        let entries = self.places.iter();
        let entries: Vec<String> = entries.map(|(p, place)| format!("{p}:{place}")).collect();
        entries.join(",")
    }
}

/// How a view came to be. It tells a server that it left out from one that took part, and whose stamp was lost with the
/// proxy that had just raised it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Origin {
    /// The view before.
    pub before: View,
    /// The servers that it leaves out, ascending, by their place in [`pool_names`].
    pub without: Vec<u16>,
}

impl Origin {
    /// Whether a server at `place` that has `view` took part all the same.
    pub fn includes(&self, place: u16, view: View) -> bool {
        view == self.before && self.without.binary_search(&place).is_err()
    }

    /// Reads `<number>.<owner>.<place>,...`.
    fn parse(text: &str) -> Option<Origin> {
        let mut parts = text.split('.');
        let before = View::parse(parts.next()?, parts.next()?)?;
        let places = parts.next()?.split(',').filter(|place| !place.is_empty());
        let mut without: Vec<u16> = places
            .map(|place| place.parse().ok())
            .collect::<Option<_>>()?;
        without.sort_unstable();
        Some(Origin { before, without })
    }

    fn text(&self) -> String {
        let View { number, owner } = self.before;
        let places: Vec<String> = self.without.iter().map(u16::to_string).collect();
        format!("{number}.{owner:016x}.{}", places.join(","))
    }
}

/// What a server says of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stamp {
    /// The last view it took part in.
    pub view: View,
    /// Of that view, if known.
    pub origin: Option<Rc<Origin>>,
    /// It may lack what its peers hold.
    pub cold: bool,
    /// Which keys may lie elsewhere than at their primary, in that view.
    pub ejected: Ejected,
    /// When a `flush_all` with a delay takes effect, in seconds since 1970.
    pub flush: Option<u64>,
    /// Under which list of servers it was written: see [`super::lists`]. Not part of the value.
    pub list: u64,
}

impl Stamp {
    /// Reads a stamp's value. `None`: it is none.
    pub fn parse(value: &[u8]) -> Option<Stamp> {
        let text = std::str::from_utf8(value).ok()?;
        let mut words = text.trim_end().split(' ');
        if words.next()? != "1" {
            return None;
        }
        let mut stamp = Stamp {
            view: View::parse(words.next()?, words.next()?)?,
            origin: None,
            cold: words.next()? == "c",
            ejected: Ejected::default(),
            flush: None,
            list: 0,
        };
        for word in words {
            if let Some(text) = word.strip_prefix('e') {
                stamp.ejected = Ejected::parse(text)?;
            } else if let Some(text) = word.strip_prefix('p') {
                stamp.origin = Some(Rc::new(Origin::parse(text)?));
            } else if let Some(text) = word.strip_prefix('f') {
                stamp.flush = Some(text.parse().ok()?);
            }
        }
        Some(stamp)
    }

    /// The value of the stamp's item.
    pub fn value(&self) -> String {
        let state = if self.cold { 'c' } else { 'w' };
        let mut value = format!("1 {} {:016x} {state}", self.view.number, self.view.owner);
        if !self.ejected.is_empty() {
            value.push_str(" e");
            value.push_str(&self.ejected.text());
        }
        if let Some(moment) = self.flush {
            value.push_str(&format!(" f{moment}"));
        }
        if let Some(origin) = &self.origin {
            value.push_str(" p");
            value.push_str(&origin.text());
        }
        value
    }
}

/// FNV-1a, 64 bits.
pub(super) fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// The hash that stands for a proxy in stamps; never 0.
pub fn owner(proxy_id: &str) -> u64 {
    fnv1a(proxy_id.as_bytes()).max(1)
}

/// The key of the stamps under a list of servers. Pools with the same servers, in whatever roles, share it; a pool of proxies
/// in front of this one has another.
pub fn stamp_key_of(list: u64) -> Vec<u8> {
    format!("magent:stamp:{list:016x}").into_bytes()
}

/// The names of all servers, sorted: the same list for all proxies of a pool.
pub fn pool_names(config: &Config) -> Vec<String> {
    let all = config.servers.iter().chain(&config.backups);
    let mut names: Vec<String> = all.map(|spec| spec.address()).collect();
    names.sort();
    names.dedup();
    names
}

/// The place of a server among [`pool_names`].
pub fn place_among(names: &[String], name: &String) -> Option<u16> {
    let found = names.binary_search(name).ok();
    found.map(|place| place as u16)
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
            origin: None,
            cold: true,
            ejected: Ejected::default(),
            flush: Some(1_800_000_000),
            list: 0,
        };
        assert_eq!(Stamp::parse(stamp.value().as_bytes()), Some(stamp.clone()));
        let mut ejected = Ejected::default();
        for (primary, place) in [(7, 2), (3, 1), (7, 1), (3, 15)] {
            ejected.note(primary, place);
        }
        let stamp = Stamp { ejected, ..stamp };
        assert!(
            stamp.value().ends_with(" c e3:15,7:2 f1800000000"),
            "{}",
            stamp.value()
        );
        assert_eq!(Stamp::parse(stamp.value().as_bytes()), Some(stamp.clone()));
        let before = View {
            number: 7,
            owner: 0xab,
        };
        for without in [vec![], vec![3], vec![0, 12]] {
            let origin = Some(Rc::new(Origin { before, without }));
            let stamp = Stamp {
                origin,
                ..stamp.clone()
            };
            assert_eq!(Stamp::parse(stamp.value().as_bytes()), Some(stamp));
        }
        let stamp = Stamp::parse(b"1 5 0 w p7.ab.2,1").unwrap();
        assert_eq!(
            stamp.value(),
            "1 5 0000000000000000 w p7.00000000000000ab.1,2"
        );
        assert_eq!(Stamp::parse(b"1 5 0 w e3"), None);
        assert_eq!(Stamp::parse(b"1 5 0 w p3"), None);
        assert_eq!(Stamp::parse(b"1 5 0 w p3.a.x"), None);
        assert_eq!(Stamp::parse(b"2 1 0 w"), None);
        assert_eq!(Stamp::parse(b"hello"), None);
        assert_eq!(Stamp::parse(&[0xff, 0xfe]), None);
    }

    #[test]
    fn a_view_tells_whom_it_left_out() {
        let view = |number| View { number, owner: 1 };
        let origin = Origin {
            before: view(5),
            without: vec![1, 4],
        };
        let included = |place, number| origin.includes(place, view(number));
        assert!(included(0, 5) && included(2, 5));
        assert!(!included(1, 5) && !included(4, 5));
        assert!(!included(0, 4) && !included(0, 6));
    }

    #[test]
    fn places_only_grow() {
        let mut ejected = Ejected::default();
        assert!(ejected.is_empty());
        assert!(ejected.note(3, 2));
        assert!(!ejected.note(3, 1));
        assert_eq!([ejected.place(3), ejected.place(4)], [2, 0]);
        let mut other = Ejected::default();
        other.note(3, 5);
        other.note(1, 1);
        ejected.merge(&other);
        assert_eq!([1, 2, 3].map(|primary| ejected.place(primary)), [1, 0, 5]);
    }

    #[test]
    fn the_pool_is_its_servers_whatever_their_roles() {
        let spec = |port| ServerSpec {
            host: "a".into(),
            port,
            weight: 1,
            name: None,
        };
        let config = |servers: &[u16], backups: &[u16]| Config {
            servers: servers.iter().map(|&port| spec(port)).collect(),
            backups: backups.iter().map(|&port| spec(port)).collect(),
            ..Config::default()
        };
        let key = |config: &Config| crate::proxy::lists::List::of(config).key;
        let one = key(&config(&[1], &[2]));
        assert_eq!(one, key(&config(&[2], &[1])));
        assert_ne!(one, key(&config(&[1], &[3])));
    }
}
