//! What is wrong in a file, and where.

use std::fmt;

use crate::plain::one_line;

/// A place in a file; both from 1, columns in characters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

/// The beginning of a file.
pub const BEGINNING: Position = Position { line: 1, column: 1 };

/// One mistake.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Mistake {
    /// Where it begins.
    pub at: Position,
    /// The offending text, cut to a sensible length; empty where there is none.
    pub text: String,
    /// What is wrong with it, and what is allowed.
    pub wrong: String,
}

/// More of a text is not shown.
const SHOWN_MAX: usize = 80;

impl Mistake {
    /// A mistake at `at`, in `text`.
    pub fn new(at: Position, text: &str, wrong: impl fmt::Display) -> Mistake {
        let start: String = text.chars().take(SHOWN_MAX).collect();
        let mut shown = one_line(&start).into_owned();
        if text.chars().nth(SHOWN_MAX).is_some() {
            shown.push_str("...");
        }
        Mistake {
            at,
            text: shown,
            // It may quote a text, too.
            wrong: one_line(&wrong.to_string()).into_owned(),
        }
    }
}

impl fmt::Display for Mistake {
    /// `LINE:COLUMN: 'text': what is wrong`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.at.line, self.at.column)?;
        if !self.text.is_empty() {
            write!(f, "'{}': ", self.text)?;
        }
        f.write_str(&self.wrong)
    }
}

/// Most mistakes that are told of one file.
const MISTAKES_MAX: usize = 200;

/// All of a file.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Mistakes {
    all: Vec<Mistake>,
}

impl Mistakes {
    /// One more.
    pub fn add(&mut self, mistake: Mistake) {
        if self.all.len() < MISTAKES_MAX {
            self.all.push(mistake);
        }
    }

    /// In the order of the file.
    pub fn sorted(mut self) -> Vec<Mistake> {
        self.all.sort();
        self.all.dedup();
        self.all
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }
}

/// The word of `known` that is most like `word`, if any is at all.
pub fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |word: &str| word.to_ascii_lowercase().replace(['-', ' '], "_");
    let word = plain(word);
    let far = |other: &str| distance(&word, &plain(other));
    let best = known.map(|other| (far(other), other)).min()?;
    let length = word.chars().count().max(best.1.len());
    (best.0 * 5 <= length * 2).then_some(best.1)
}

/// How many letters must be put in, taken out, changed or exchanged with their neighbour.
fn distance(one: &str, other: &str) -> usize {
    let one: Vec<char> = one.chars().take(64).collect();
    let other: Vec<char> = other.chars().take(64).collect();
    let mut rows = vec![(0..=other.len()).collect::<Vec<usize>>()];
    for (i, letter) in one.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, against) in other.iter().enumerate() {
            let changed = rows[i][j] + usize::from(letter != against);
            let mut best = changed.min(rows[i][j + 1] + 1).min(row[j] + 1);
            let exchanged = i > 0 && j > 0 && *letter == other[j - 1] && one[i - 1] == *against;
            if exchanged {
                best = best.min(rows[i - 1][j - 1] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[one.len()][other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word() {
        let known = [
            "hash",
            "hash_tag",
            "fnv1a_64",
            "fnv1_64",
            "auto_eject_hosts",
            "servers",
        ];
        for (word, found) in [
            ("fnvla_64", Some("fnv1a_64")),
            ("FNV1A_64", Some("fnv1a_64")),
            ("auto-eject-hosts", Some("auto_eject_hosts")),
            ("auto_eject_host", Some("auto_eject_hosts")),
            ("server", Some("servers")),
            ("ahsh", Some("hash")),
            ("completely", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, known.into_iter()), found, "{word}");
        }
    }

    #[test]
    fn a_mistake_is_one_line() {
        let at = Position { line: 3, column: 5 };
        let mistake = Mistake::new(at, "a\nb", "wrong");
        assert_eq!(mistake.to_string(), "3:5: 'a\\nb': wrong");
        assert_eq!(Mistake::new(at, "", "wrong").to_string(), "3:5: wrong");
    }
}
