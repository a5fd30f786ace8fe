//! What one client was promised, and what it read: the check for lost keys and stale values.
//!
//! A key has one writer, which never has two writes at a time, and every value has a number. So after `STORED` for
//! number 7 each read must say 7. After a write whose outcome is not known, number 8, a read may say 7 or 8; but once
//! it said 8, never 7 again. A miss of a key that was acknowledged is a loss: nothing here expires, is deleted or
//! evicted.

use std::collections::BTreeMap;
use std::time::Instant;

/// All keys of one client.
pub struct Book {
    prefix: String,
    pages: BTreeMap<String, Page>,
    /// Anything that must not be, with the moment.
    pub findings: Vec<(Instant, Finding)>,
}

/// What must not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// An acknowledged key is missing.
    Lost(String),
    /// A value that is older than one that was acknowledged or read: key, what was read, what must be.
    Stale(String, u64, u64),
    /// Bytes that were never written there: key, what was read.
    Foreign(String, String),
}

#[derive(Default)]
struct Page {
    /// The last number given to a write.
    last: u64,
    /// The oldest number that may be read; 0: a miss.
    floor: u64,
}

impl Book {
    /// An empty one; its keys begin with `prefix`.
    pub fn new(prefix: &str) -> Book {
        Book {
            prefix: prefix.to_string(),
            pages: BTreeMap::new(),
            findings: Vec::new(),
        }
    }

    /// The key of that number.
    pub fn key(&self, number: u64) -> String {
        format!("{}{number}", self.prefix)
    }

    /// All keys that were ever written.
    pub fn keys(&self) -> Vec<String> {
        self.pages.keys().cloned().collect()
    }

    /// How many keys were acknowledged.
    pub fn acknowledged(&self) -> usize {
        self.pages.values().filter(|page| page.floor > 0).count()
    }

    /// A new value for the key, about to be sent.
    pub fn write(&mut self, key: &str) -> (u64, String) {
        let page = self.pages.entry(key.to_string()).or_default();
        page.last += 1;
        (page.last, value(key, page.last))
    }

    /// That write was acknowledged. Without this its outcome stays unknown.
    pub fn acknowledge(&mut self, key: &str, number: u64) {
        if let Some(page) = self.pages.get_mut(key) {
            page.floor = number;
        }
    }

    /// A read said so: `None` is a miss.
    pub fn read(&mut self, key: &str, found: Option<&str>, now: Instant) {
        let Some(page) = self.pages.get_mut(key) else {
            return;
        };
        let finding = match found {
            None if page.floor == 0 => return,
            None => Finding::Lost(key.to_string()),
            Some(text) => match number(key, text).filter(|number| *number <= page.last) {
                Some(number) if number >= page.floor => {
                    page.floor = number;
                    return;
                }
                Some(number) => Finding::Stale(key.to_string(), number, page.floor),
                None => Finding::Foreign(key.to_string(), text.to_string()),
            },
        };
        self.findings.push((now, finding));
    }
}

/// Long enough to show pieces of two values, if they were ever mixed.
fn value(key: &str, number: u64) -> String {
    let filler = (number * 7 % 90) as usize;
    format!("{key}:{number}:{}", "x".repeat(filler))
}

fn number(key: &str, text: &str) -> Option<u64> {
    let number = text.strip_prefix(key)?.strip_prefix(':')?;
    let (number, _) = number.split_once(':')?;
    let number = number.parse().ok()?;
    (text == value(key, number)).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(book: &mut Book) -> Vec<Finding> {
        let found = std::mem::take(&mut book.findings);
        found.into_iter().map(|(_, finding)| finding).collect()
    }

    #[test]
    fn what_was_acknowledged_must_be_read() {
        let (mut book, now) = (Book::new("k"), Instant::now());
        let key = book.key(1);
        let (first, old) = book.write(&key);
        book.read(&key, None, now);
        book.acknowledge(&key, first);
        assert_eq!(book.acknowledged(), 1);
        book.read(&key, Some(&old), now);
        assert_eq!(found(&mut book), []);
        book.read(&key, None, now);
        assert_eq!(found(&mut book), [Finding::Lost(key.clone())]);
        let (second, _) = book.write(&key);
        book.acknowledge(&key, second);
        book.read(&key, Some(&old), now);
        assert_eq!(found(&mut book), [Finding::Stale(key.clone(), 1, 2)]);
        for text in [
            "",
            "k1:2",
            "k1:9:",
            "k2:2:xxxxxxxxxxxxxx",
            &format!("{old}x"),
        ] {
            book.read(&key, Some(text), now);
            let foreign = Finding::Foreign(key.clone(), text.to_string());
            assert_eq!(found(&mut book), [foreign]);
        }
    }

    #[test]
    fn an_unknown_outcome_is_settled_by_the_first_read_of_it() {
        let (mut book, now) = (Book::new("k"), Instant::now());
        let key = book.key(1);
        let (first, old) = book.write(&key);
        book.acknowledge(&key, first);
        let (_, doubtful) = book.write(&key);
        book.read(&key, Some(&old), now);
        book.read(&key, Some(&doubtful), now);
        assert_eq!(found(&mut book), []);
        book.read(&key, Some(&old), now);
        assert_eq!(found(&mut book), [Finding::Stale(key.clone(), 1, 2)]);
        // An acknowledged write settles what was before it.
        let (_, doubtful) = book.write(&key);
        let (fourth, _) = book.write(&key);
        book.acknowledge(&key, fourth);
        book.read(&key, Some(&doubtful), now);
        assert_eq!(found(&mut book), [Finding::Stale(key, 3, 4)]);
    }
}
