//! The documents name what is there: files, sections of each other, and the parts of the core.

use crate::common;

use std::collections::BTreeSet;
use std::path::Path;

use common::source::{read, repository};

/// Paths in documents begin at one of these.
const BASES: [&str; 4] = ["", "docs/", "src/", "keepalived/"];

/// README.md, and all of docs.
fn documents() -> Vec<String> {
    let entries = std::fs::read_dir(repository("docs")).expect("docs");
    let names = entries.map(|entry| entry.expect("an entry").file_name());
    let names = names.map(|name| name.into_string().expect("UTF-8"));
    let mut documents: Vec<String> = names
        .filter(|name| name.ends_with(".md"))
        .map(|name| format!("docs/{name}"))
        .collect();
    documents.push("README.md".into());
    assert!(documents.len() > 8, "{documents:?}");
    documents
}

/// The text without what stands between lines of three backticks.
fn prose(text: &str) -> String {
    let mut fenced = false;
    let mut prose = String::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            prose += line;
            prose.push('\n');
        }
    }
    prose
}

/// What stands between single backticks.
fn code(text: &str) -> impl Iterator<Item = &str> {
    let lines = text.lines();
    lines.flat_map(|line| line.split('`').skip(1).step_by(2))
}

/// Where links lead.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let targets = text.split("](").skip(1);
    targets.filter_map(|rest| rest.split([')', ' ']).next())
}

/// What headings are called in links: small letters, digits, and `-` for blanks.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let anchor = |heading: &str| {
        let title = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = title.chars().filter_map(|letter| match letter {
            ' ' => Some('-'),
            '-' | '_' => Some(letter),
            _ => letter.is_alphanumeric().then_some(letter),
        });
        kept.collect()
    };
    headings.map(anchor).collect()
}

/// Whether a word is a path of the source tree, by where it begins. What is built is not there before it is built.
fn is_path(word: &str) -> bool {
    let (first, rest) = word.split_once('/').unwrap_or_default();
    let is_name = |letter: char| letter.is_ascii_alphanumeric() || "._-/".contains(letter);
    let begins = |base: &&str| repository(&format!("{base}{first}")).is_dir();
    first != "target"
        && !first.is_empty()
        && !rest.is_empty()
        && word.chars().all(is_name)
        && BASES.iter().any(begins)
}

/// Whether there is such a file or folder; the ending of Rust's files may be left out.
fn is_there(path: &str) -> bool {
    let there = |path: String| repository(&path).exists();
    BASES
        .iter()
        .any(|base| there(format!("{base}{path}")) || there(format!("{base}{path}.rs")))
}

#[test]
fn every_path_leads_somewhere() {
    let mut count = 0;
    for document in documents() {
        let text = read(&document);
        for word in code(&prose(&text)).flat_map(|code| code.split(' ')) {
            if is_path(word) {
                count += 1;
                assert!(is_there(word), "{document}: `{word}`");
            }
        }
    }
    assert!(count > 50, "only {count} are paths");
}

#[test]
fn every_link_leads_somewhere() {
    let mut count = 0;
    for document in documents() {
        let text = prose(&read(&document));
        for link in links(&text).filter(|link| !link.contains("://")) {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let folder = Path::new(&document).parent().expect("a folder");
            let target = match file {
                "" => document.clone(),
                file => folder.join(file).display().to_string(),
            };
            count += 1;
            assert!(repository(&target).exists(), "{document}: {link}");
            if !anchor.is_empty() {
                let anchors = anchors(&prose(&read(&target)));
                assert!(anchors.contains(anchor), "{document}: {link}");
            }
        }
    }
    assert!(count > 50, "only {count} are links");
}

#[test]
fn the_rooms_and_flows_of_the_core_are_its_files() {
    let text = read("docs/architecture.md");
    let (_, section) = text.split_once("\n## Rooms and flows\n").expect("there");
    let (section, _) = section.split_once("\n## ").expect("one more");
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    let names = rows.flat_map(|row| code(row.split('|').nth(1).unwrap_or_default()));
    let names: Vec<&str> = names.collect();
    assert!(names.len() > 20, "{names:?}");
    for name in names {
        let file = format!("src/proxy/{name}.rs");
        assert!(repository(&file).exists(), "{file}");
    }
}

#[test]
fn every_file_of_tests_is_part_of_the_program() {
    let program = read("tests/all.rs");
    let entries = std::fs::read_dir(repository("tests")).expect("tests");
    for entry in entries {
        let name = entry.expect("an entry").file_name();
        let name = name.into_string().expect("UTF-8");
        let Some(name) = name.strip_suffix(".rs").filter(|&name| name != "all") else {
            continue;
        };
        let declared = program.lines().any(|line| line == format!("mod {name};"));
        assert!(declared, "tests/{name}.rs is not named in tests/all.rs");
    }
}
