//! What says which options there are: `--help`, the man page, the list in docs, the completion of bash.

use crate::common;

use std::process::Command;

use common::process::{here, run};
use common::source::{read, repository};

/// An option, as one of them shows it.
#[derive(PartialEq, Eq, Debug)]
struct Shown {
    /// As written, dashes included.
    names: Vec<String>,
    /// How its value is called; empty: it has none.
    value: String,
    /// Empty: there is none.
    default: String,
}

/// The options of `--help`. An option goes on in lines that begin with more blanks.
fn options() -> Vec<Shown> {
    let (_, help) = run(Command::new(env!("CARGO_BIN_EXE_magent")).arg("--help"));
    let mut rows: Vec<String> = Vec::new();
    for line in help.lines().take_while(|line| *line != "Exit codes:") {
        if line.starts_with("  -") || line.starts_with("      --") {
            rows.push(line.trim().to_string());
        } else if let (Some(row), true) = (rows.last_mut(), line.starts_with("        ")) {
            row.push(' ');
            row.push_str(line.trim());
        }
    }
    let shown = |row: &String| {
        let mut words = row.split_whitespace().peekable();
        let mut names = Vec::new();
        while let Some(name) = words.next_if(|word| word.starts_with('-')) {
            names.push(name.trim_end_matches(',').to_string());
        }
        let is_value =
            |word: &&str| word.contains('|') || !word.contains(|c: char| c.is_lowercase());
        let default = row.rsplit_once("(default: ").map(|(_, text)| text);
        Shown {
            names,
            value: words.next_if(is_value).unwrap_or_default().to_string(),
            default: default
                .unwrap_or_default()
                .trim_end_matches(')')
                .to_string(),
        }
    };
    let options: Vec<_> = rows.iter().map(shown).collect();
    assert!(options.len() > 40, "{help}");
    options
}

fn names(options: &[Shown]) -> Vec<&[String]> {
    options.iter().map(|option| &option.names[..]).collect()
}

#[test]
fn the_man_page_has_every_option() {
    let page = read("docs/magent.8");
    let items: Vec<&str> = page.split("\n.It Fl ").skip(1).collect();
    let in_page = items.iter().map(|item| {
        let head = item.lines().next().unwrap_or_default();
        let words = head.split_whitespace();
        let words = words.take_while(|word| *word != "Ar" && *word != "Cm");
        let words = words.filter(|word| *word != ",");
        words.map(|word| format!("-{word}")).collect::<Vec<_>>()
    });
    let given = options();
    assert_eq!(in_page.collect::<Vec<_>>(), names(&given));
    for (option, item) in given.iter().zip(&items) {
        let default = format!("Default: {}", option.default);
        let told = item
            .lines()
            .any(|line| line == format!("{default}.") || line.starts_with(&format!("{default} ")));
        assert!(
            told || option.default.is_empty(),
            "{option:?} not in\n{item}"
        );
    }
    if here("man") {
        let (code, text) = run(Command::new("man")
            .args(["--warnings", "-l", "docs/magent.8"])
            .env("LC_ALL", "C")
            .env("MANWIDTH", "100"));
        assert!(
            code == 0 && text.contains("SEE ALSO") && !text.contains("warning"),
            "{text}"
        );
    }
}

/// Groups and options in the order of `--help`, values and defaults as there.
#[test]
fn the_list_in_docs_has_every_option() {
    let page = read("docs/options.md");
    let rows = page.lines().filter(|line| line.starts_with("| `-"));
    let in_docs: Vec<Shown> = rows
        .map(|row| {
            // A value may have a bar in it.
            let row = row.replace("\\|", "\u{1}");
            let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
            assert_eq!(cells.len(), 3, "{row}");
            let spans: Vec<&str> = cells[0].split('`').skip(1).step_by(2).collect();
            let (long, value) = spans
                .last()
                .and_then(|span| span.split_once(' '))
                .unwrap_or((spans[spans.len() - 1], ""));
            let mut names: Vec<String> = spans.iter().map(ToString::to_string).collect();
            names.pop();
            names.push(long.to_string());
            Shown {
                names,
                value: value.replace('\u{1}', "|"),
                default: cells[2].to_string(),
            }
        })
        .collect();
    let given = options();
    assert_eq!(names(&in_docs), names(&given));
    for (told, option) in in_docs.iter().zip(&given) {
        // The keys of --route are no value: they stand behind all options.
        if option.names != ["--route"] {
            assert_eq!(told.value, option.value, "{told:?}");
        }
        if !option.default.is_empty() {
            assert_eq!(told.default, option.default, "{told:?}");
        }
    }
    let (_, help) = run(Command::new(env!("CARGO_BIN_EXE_magent")).arg("--help"));
    let titles = |text: &str, is: fn(&str) -> Option<&str>| -> Vec<String> {
        text.lines()
            .filter_map(is)
            .map(ToString::to_string)
            .collect()
    };
    let groups = titles(&help, |line| {
        let title = line.strip_suffix(':')?;
        (!title.starts_with([' ', '-']) && title != "Exit codes").then_some(title)
    });
    assert_eq!(groups.len(), 6, "{groups:?}");
    let sections = titles(&page, |line| line.strip_prefix("### "));
    assert_eq!(sections, groups);
    let in_man = titles(&read("docs/magent.8"), |line| Some(line));
    for title in &groups {
        assert!(in_man.contains(&format!(".Ss {title}")), "{title}");
    }
}

/// What bash offers for the last of these words.
fn completed(words: &[&str]) -> Vec<String> {
    let script = "
        source \"$0\"
        COMP_WORDS=(\"$@\") COMP_CWORD=$(($# - 1))
        compopt() { :; }
        _magent
        printf '%s\\n' \"${COMPREPLY[@]}\"";
    let (code, text) = run(Command::new("bash")
        .args(["-c", script])
        .arg(repository("systemd/packaging/magent.bash"))
        .args(words)
        .current_dir(repository("")));
    assert_eq!(code, 0, "{words:?}: {text}");
    let lines = text.lines().filter(|line| !line.is_empty());
    lines.map(ToString::to_string).collect()
}

#[test]
fn bash_completes_every_option_and_its_choices() {
    let given = options();
    let all: Vec<String> = given
        .iter()
        .flat_map(|option| option.names.clone())
        .collect();
    assert_eq!(
        completed(&["magent", ""]),
        all,
        "in the order of --help, each once"
    );
    for option in &given {
        let short_and_long = option.names.iter();
        for name in short_and_long {
            assert!(completed(&["magent", name]).contains(name), "{name}");
            let after = completed(&["magent", name, ""]);
            if option.value.is_empty() {
                assert_eq!(after, all, "{name} has no value");
                continue;
            }
            assert_ne!(after, all, "{name} has a value");
            let fits = |choice: &&str| !choice.contains(|c: char| c.is_uppercase());
            let choices: Vec<&str> = option.value.split('|').filter(fits).collect();
            if !choices.is_empty() {
                assert_eq!(after, choices, "{name}");
                let first = &choices[0][..1];
                assert!(
                    completed(&["magent", name, "=", first]).contains(&choices[0].to_string()),
                    "{name}=: bash cuts the word there"
                );
                assert_eq!(completed(&["magent", name, "="]), choices, "{name}=");
            }
            if ["PATH", "FILE"].contains(&option.value.as_str()) {
                let files = completed(&["magent", name, "Cargo.t"]);
                assert_eq!(files, ["Cargo.toml"], "{name}");
            }
        }
    }
    assert_eq!(
        completed(&["magent", "-s", "a", "--read-r"]),
        ["--read-repair"]
    );
}
