//! The list of small bugs for `make mutants` belongs to the sources as they are.

mod list;

use std::collections::BTreeSet;
use std::path::Path;

#[test]
fn each_line_stands_in_its_file_once() {
    let mutants = list::read(include_str!("mutants.txt")).expect("the list can be read");
    let wrong = list::plant(&mutants, Path::new(env!("CARGO_MANIFEST_DIR")), false);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let lines: BTreeSet<_> = mutants.iter().map(|m| (&m.file, m.line())).collect();
    assert_eq!(lines.len(), mutants.len(), "one bug a line");
    assert!(mutants.len() >= 60, "{}", mutants.len());
    let told: BTreeSet<_> = mutants.iter().map(|m| &m.breaks).collect();
    assert_eq!(told.len(), mutants.len(), "two break the same");
}
