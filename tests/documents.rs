//! The documents name what is there: files, sections of each other, and the parts of the core.

use crate::common;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use common::files::TempDir;
use common::process::run;
use common::source::{read, repository};

/// Paths in documents begin at one of these.
const BASES: [&str; 4] = ["", "docs/", "src/", "keepalived/"];

/// All documents, wherever they lie.
fn documents() -> Vec<String> {
    let mut documents = Vec::new();
    for folder in ["", "docs/", "docs/examples/", "keepalived/guide/"] {
        let entries = std::fs::read_dir(repository(folder)).expect("a folder");
        let names = entries.map(|entry| entry.expect("an entry").file_name());
        let names = names.map(|name| name.into_string().expect("UTF-8"));
        let names = names.filter(|name| name.ends_with(".md"));
        documents.extend(names.map(|name| format!("{folder}{name}")));
    }
    assert!(documents.len() > 20, "{documents:?}");
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

/// The links of a document below `root` that lead nowhere, and how many links there are. None leads out of `root`.
fn dead_links(root: &Path, document: &str) -> (Vec<String>, usize) {
    let text = |path: &Path| {
        let text = std::fs::read_to_string(path);
        prose(&text.unwrap_or_else(|error| panic!("{}: {error}", path.display())))
    };
    let document = root.join(document);
    let (mut dead, mut count) = (Vec::new(), 0);
    for link in links(&text(&document)).filter(|link| !link.contains("://")) {
        let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
        let folder = document.parent().expect("a folder");
        let target = match file {
            "" => document.clone(),
            file => folder.join(file),
        };
        count += 1;
        let is_inside = target
            .canonicalize()
            .is_ok_and(|target| target.starts_with(root.canonicalize().expect("there")));
        if !is_inside || (!anchor.is_empty() && !anchors(&text(&target)).contains(anchor)) {
            dead.push(link.to_owned());
        }
    }
    (dead, count)
}

#[test]
fn every_link_leads_somewhere() {
    let mut links = 0;
    for document in documents() {
        let (dead, count) = dead_links(&repository(""), &document);
        assert!(dead.is_empty(), "{document}: {dead:?}");
        links += count;
    }
    assert!(links > 50, "only {links} are links");
}

/// What is shipped leads to what is shipped.
#[test]
fn no_link_of_an_installed_document_is_dead() {
    let root = TempDir::new();
    let (code, text) = run(Command::new(repository("systemd/packaging/install.sh"))
        .args(["install", env!("CARGO_BIN_EXE_magent")])
        .env("DESTDIR", root.path(""))
        .env("PREFIX", "/usr")
        .env("SYSCONFDIR", "/etc"));
    assert_eq!(code, 0, "{text}");
    let documents = root.path("usr/share/doc/magent");
    let (_, found) =
        run(Command::new("find").args([&documents, "-name", "*.md", "-printf", "%P\n"]));
    assert!(found.lines().count() > 20, "{found}");
    for document in found.lines() {
        let (dead, _) = dead_links(Path::new(&documents), document);
        assert!(dead.is_empty(), "{document}: {dead:?}");
    }
}

/// What people search for is what is said.
#[test]
fn the_texts_in_troubleshooting_are_magents() {
    let page = read("docs/troubleshooting.md");
    let (ours, _) = page
        .split_once("\n## Texts of other programs\n")
        .expect("there");
    let sources = run(Command::new("grep")
        .args(["-rh", "--include=*.rs", ""])
        .arg(repository("src")));
    let mut count = 0;
    for table in ours.split("\n| text |").skip(1) {
        let rows = table.lines().skip(2);
        for row in rows.take_while(|row| row.starts_with('|')) {
            let first = row.split('|').nth(1).unwrap_or_default();
            for text in code(first) {
                count += 1;
                assert!(sources.1.contains(text), "`{text}`");
            }
        }
    }
    assert!(count > 20, "only {count} are texts");
}

#[test]
fn the_first_page_is_short() {
    for page in ["README.md", "README.zh-CN.md"] {
        let lines = read(page).lines().count();
        assert!(lines <= 150, "{page}: {lines}");
    }
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
