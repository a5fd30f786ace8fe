//! What `-h` and `-V` print.

use super::options::{Row, GROUPS};
use super::Config;

/// Columns of the narrowest terminal that people use.
const WIDTH: usize = 80;

/// Where the meanings begin. A name that is longer has a line of its own.
const MEANINGS: usize = 27;

const USAGE: &str = "\
Usage: magent [OPTION]... -s HOST[:PORT] [-s ...] [-b HOST[:PORT]]...
       magent [OPTION]... -c FILE [-t]
       magent [-c FILE | -s ... [-b ...]] --route KEY...
       magent --verify -s ... -b ...
       magent --check ADDR [--timeout MS]
       magent --watch ADDR --track-file PATH [--interval MS] [--timeout MS]
       magent --top HOST[:PORT]
";

const END: &str = "
Without -D or -v magent goes to the background once everything has succeeded.

Exit codes:
  0   success; also: a magent holds this address already, and nothing was done
  1   --verify: copies differ; -t: something is wrong;
      --check: degraded, some keys have no live copy
  2   --check: not answering
  64  wrong options
  71  system error
";

/// The line that `-V` prints.
pub fn version() -> String {
    format!("magent {}", env!("CARGO_PKG_VERSION"))
}

/// The text that `-h` prints.
pub fn help() -> String {
    let defaults = Config::default();
    let mut text = format!("{}\n{USAGE}", version());
    for group in GROUPS {
        text.push_str(&format!("\n{}:\n", group.title));
        for row in group.rows {
            describe(&mut text, row, &defaults);
        }
    }
    text.push_str(END);
    text
}

/// An option's lines.
fn describe(text: &mut String, row: &Row, defaults: &Config) {
    let short = match row.short {
        "" => "   ".to_owned(),
        letter => format!("-{letter},"),
    };
    let name = format!("  {short} --{} {}", row.long, row.value);
    let name = name.trim_end();
    let mut words: Vec<&str> = row.meaning.split(' ').collect();
    // Never cut.
    let default = format!("(default: {})", (row.default)(defaults));
    if default != "(default: )" {
        words.push(&default);
    }
    let mut lines = wrapped(&words, WIDTH - MEANINGS).into_iter();
    text.push_str(name);
    let room = MEANINGS.checked_sub(name.chars().count());
    if let (Some(room @ 2..), Some(first)) = (room, lines.as_slice().first()) {
        text.push_str(&" ".repeat(room));
        text.push_str(first);
        lines.next();
    }
    text.push('\n');
    for line in lines {
        text.push_str(&format!("{:MEANINGS$}{line}\n", ""));
    }
}

/// The words in lines of at most so many columns.
fn wrapped(words: &[&str], columns: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in words {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= columns => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push((*word).to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::options::table;

    #[test]
    fn it_fits_a_narrow_terminal() {
        for line in help().lines() {
            assert!(line.chars().count() <= WIDTH, "{line}");
            assert_eq!(line.trim_end(), line);
        }
    }

    #[test]
    fn it_has_every_option_with_meaning_and_default() {
        let text = help();
        let words: Vec<&str> = text.split_whitespace().collect();
        let words = words.join(" ");
        let defaults = Config::default();
        for row in table() {
            let default = match (row.default)(&defaults) {
                none if none.is_empty() => none,
                value => format!(" (default: {value})"),
            };
            let name = format!("--{} {}", row.long, row.value);
            let expected = format!("{} {}{default}", name.trim_end(), row.meaning);
            assert!(words.contains(&expected), "{expected}\n{text}");
        }
        for line in [
            "Servers and keys:",
            "  -p, --port N             TCP port to listen on; 0: no TCP, only -f",
            "  -n, --max-conns N        most client connections at once (default: 4096)",
            "  -s, --server HOST[:PORT][:WEIGHT]",
            "      --timeout MS",
        ] {
            assert!(text.lines().any(|l| l.starts_with(line)), "{line}\n{text}");
        }
    }

    #[test]
    fn no_option_stands_twice() {
        for (at, row) in table().enumerate() {
            let twice = table().skip(at + 1).any(|other| {
                other.long == row.long || (!row.short.is_empty() && other.short == row.short)
            });
            assert!(!twice, "--{}", row.long);
        }
    }
}
