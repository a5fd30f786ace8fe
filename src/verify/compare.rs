//! When the copies of a key are equal.

use std::fmt;

use super::ask::Answer;

/// Servers count seconds each from its own start, and are not asked at the same moment.
const TTL_SLACK: u64 = 2;

/// What is compared of an item.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Item {
    /// Bytes of the value.
    pub size: u64,
    /// MD5 of the value; of a counter without the blanks behind it.
    pub digest: [u8; 16],
    /// Client flags.
    pub flags: u64,
    /// Seconds left; `None`: for ever.
    pub ttl: Option<u64>,
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = self.digest;
        write!(f, "{} bytes md5 {a:02x}{b:02x}{c:02x}{d:02x}.. ", self.size)?;
        match self.ttl {
            Some(seconds) => write!(f, "flags {} ttl {seconds}", self.flags),
            None => write!(f, "flags {} ttl -1", self.flags),
        }
    }
}

/// What the copies of a key are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// All there and equal.
    Equal,
    /// Equal where there is one.
    Absent,
    /// Not equal; the text says in what.
    Different(String),
    /// No longer anywhere.
    Gone,
    /// Fewer than two copies could be read.
    Unchecked,
}

/// Judges the copies of one key, given by the names of their servers.
pub fn judge(copies: &[(String, &Answer)]) -> Verdict {
    if copies.len() < 2 {
        return Verdict::Unchecked;
    }
    let held: Vec<(&str, &Item)> = copies
        .iter()
        .filter_map(|(name, answer)| match answer {
            Answer::Item(item) => Some((name.as_str(), item)),
            Answer::Absent | Answer::Held => None,
        })
        .collect();
    let Some(&(_, first)) = held.first() else {
        return Verdict::Gone;
    };
    let differs = |test: fn(&Item, &Item) -> bool| held.iter().any(|(_, item)| test(item, first));
    let mut wrong = Vec::new();
    if differs(|a, b| a.digest != b.digest) {
        wrong.push("value");
    }
    if differs(|a, b| a.flags != b.flags) {
        wrong.push("flags");
    }
    if !same_ttl(held.iter().map(|(_, item)| item.ttl)) {
        wrong.push("ttl");
    }
    if !wrong.is_empty() {
        let copies: Vec<String> = held
            .iter()
            .map(|(name, item)| format!("{name} {item}"))
            .collect();
        return Verdict::Different(format!("{} ({})", wrong.join(", "), copies.join("; ")));
    }
    if held.len() < copies.len() {
        Verdict::Absent
    } else {
        Verdict::Equal
    }
}

fn same_ttl(ttls: impl Iterator<Item = Option<u64>> + Clone) -> bool {
    let limited = ttls.clone().flatten();
    match (limited.clone().min(), limited.max()) {
        (Some(least), Some(most)) => {
            most - least <= TTL_SLACK && ttls.clone().all(|ttl| ttl.is_some())
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(digest: u8, flags: u64, ttl: Option<u64>) -> Answer {
        Answer::Item(Item {
            size: 3,
            digest: [digest; 16],
            flags,
            ttl,
        })
    }

    fn verdict(answers: &[Answer]) -> Verdict {
        let names = (1..).map(|n| format!("s{n}"));
        judge(&names.zip(answers).collect::<Vec<_>>())
    }

    fn wrong(answers: &[Answer]) -> String {
        match verdict(answers) {
            Verdict::Different(text) => text.split(" (").next().unwrap_or_default().to_owned(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn equal_absent_and_gone() {
        let (a, none) = (item(1, 2, Some(100)), Answer::Absent);
        assert_eq!(verdict(&[a.clone(), a.clone()]), Verdict::Equal);
        assert_eq!(verdict(&[a.clone(), item(1, 2, Some(102))]), Verdict::Equal);
        let forever = item(1, 2, None);
        assert_eq!(verdict(&[forever.clone(), forever]), Verdict::Equal);
        assert_eq!(verdict(&[a.clone(), none.clone()]), Verdict::Absent);
        assert_eq!(
            verdict(&[none.clone(), a.clone(), a.clone()]),
            Verdict::Absent
        );
        assert_eq!(verdict(&[none.clone(), none]), Verdict::Gone);
        assert_eq!(verdict(&[a]), Verdict::Unchecked);
        assert_eq!(verdict(&[]), Verdict::Unchecked);
    }

    #[test]
    fn what_differs_is_said() {
        let a = item(1, 2, Some(100));
        assert_eq!(wrong(&[a.clone(), item(2, 2, Some(100))]), "value");
        assert_eq!(wrong(&[a.clone(), item(1, 3, Some(100))]), "flags");
        assert_eq!(wrong(&[a.clone(), item(1, 2, Some(103))]), "ttl");
        assert_eq!(wrong(&[a.clone(), item(1, 2, None)]), "ttl");
        assert_eq!(
            wrong(&[Answer::Absent, a.clone(), item(2, 3, None)]),
            "value, flags, ttl"
        );
        // Each within two seconds of the one in the middle, but not of each other.
        let three = [a, item(1, 2, Some(98)), item(1, 2, Some(102))];
        assert_eq!(wrong(&three), "ttl");
        assert_eq!(
            verdict(&[item(1, 0, None), item(0xab, 0, Some(7))]),
            Verdict::Different(
                "value, ttl (s1 3 bytes md5 01010101.. flags 0 ttl -1; \
                 s2 3 bytes md5 abababab.. flags 0 ttl 7)"
                    .into()
            )
        );
    }
}
