//! What somebody may have meant who wrote an option that there is not.

use super::options::table;

/// The long name nearest to `name`, if one is near: its only completion, or the one with the fewest wrong letters.
pub(super) fn nearest(name: &str) -> Option<&'static str> {
    let name = name.to_lowercase().replace('_', "-");
    if name.len() >= 3 {
        let mut completions = table().filter(|row| row.long.starts_with(&name));
        if let (Some(row), None) = (completions.next(), completions.next()) {
            return Some(row.long);
        }
    }
    let letters = name.chars().count();
    // No more than one letter in three: else everything short is near to everything short.
    let distances = table().map(|row| (distance(&name, row.long), row.long));
    let (wrong, long) = distances.min_by_key(|(wrong, _)| *wrong)?;
    (wrong * 3 <= letters && wrong <= 3).then_some(long)
}

/// The long name that somebody wrote behind a single dash, where it is read as letters.
pub(super) fn with_one_dash(args: &[String]) -> Option<&'static str> {
    let options = args.iter().take_while(|arg| *arg != "--");
    let mut names = options.filter_map(|arg| {
        let name = arg.strip_prefix('-')?;
        Some(name.split_once('=').map_or(name, |(name, _)| name))
    });
    names.find_map(|name| table().map(|row| row.long).find(|long| *long == name))
}

/// How many letters are wrong, missing, too many, or exchanged with their neighbour.
fn distance(one: &str, other: &str) -> usize {
    let one: Vec<char> = one.chars().collect();
    let other: Vec<char> = other.chars().collect();
    // Rows of the usual table: what `one` up to here is away from each beginning of `other`.
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=other.len()).collect();
    for (i, letter) in one.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, wanted) in other.iter().enumerate() {
            let changed = last[j] + usize::from(letter != wanted);
            let mut best = changed.min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && one[i - 1] == *wanted && other[j - 1] == *letter {
                best = best.min(before[j - 1] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_that_are_wrong() {
        for (one, other, expected) in [
            ("", "", 0),
            ("", "abc", 3),
            ("timeout", "timeout", 0),
            ("timeuot", "timeout", 1),
            ("tmeout", "timeout", 1),
            ("timeoutt", "timeout", 1),
            ("timexut", "timeout", 1),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(distance(one, other), expected, "{one} {other}");
            assert_eq!(distance(other, one), expected, "{other} {one}");
        }
    }

    #[test]
    fn what_is_near_and_what_is_not() {
        for (name, expected) in [
            ("timeuot", Some("timeout")),
            ("time", Some("timeout")),
            ("time-out", Some("timeout")),
            ("servers", Some("server")),
            ("Listen", Some("listen")),
            ("max_item_size", Some("max-item-size")),
            ("maxconns", Some("max-conns")),
            ("logfile", Some("log-file")),
            ("readrepair", Some("read-repair")),
            ("pid-fil", Some("pidfile")),
            ("nonsense", None),
            ("log", None),
            ("x", None),
            ("", None),
            ("tls-cert", None),
        ] {
            assert_eq!(nearest(name), expected, "{name}");
        }
    }

    #[test]
    fn a_single_dash() {
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(with_one_dash(&words("-s a -timeout 5")), Some("timeout"));
        assert_eq!(with_one_dash(&words("-s a -copies=1")), Some("copies"));
        assert_eq!(with_one_dash(&words("--timeout 5 -- -copies")), None);
        assert_eq!(with_one_dash(&words("-p 1 -vvv")), None);
    }
}
