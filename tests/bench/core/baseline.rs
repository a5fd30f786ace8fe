//! The table that is kept beside the code, and how new figures are held against it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::callgrind::Instructions;
use crate::{REQUESTS, REQUESTS_UNDER_CALLGRIND};

/// So many percent more instructions are let pass in the program.
const OWN_PERCENT: f64 = 3.0;
/// And in the C library: what an allocation costs there depends on what was freed where. One copy more of a value is far above
/// it, and an allocation more is counted by itself.
const LIBRARY_PERCENT: f64 = 50.0;
/// So many instructions per request are let pass in any case.
const LEAST: f64 = 5.0;

/// What one case costs.
pub struct Figures {
    pub name: String,
    /// Per request; for the eye only.
    pub ns: u128,
    /// Of all measured requests together.
    pub allocations: u64,
    /// Of all measured requests together; none without valgrind.
    pub instructions: Option<Instructions>,
}

struct Known {
    allocations: u64,
    own: f64,
    library: f64,
}

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bench/core/baseline.txt")
}

/// Its version; `None`: not installed.
pub fn valgrind_version() -> Option<String> {
    first_line(Command::new("valgrind").arg("--version"))
}

fn first_line(command: &mut Command) -> Option<String> {
    let out = command.output().ok().filter(|out| out.status.success())?;
    let text = String::from_utf8_lossy(&out.stdout);
    Some(text.lines().next()?.trim().to_string())
}

/// What the number of instructions depends on besides the code.
fn circumstances() -> String {
    let unknown = || "unknown".to_string();
    let rustc = first_line(Command::new("rustc").arg("--version"));
    let libc = first_line(Command::new("getconf").arg("GNU_LIBC_VERSION"));
    // callgrind shows the program one of a few made-up processors; the library's copying goes by what that one can.
    #[cfg(target_arch = "x86_64")]
    let wide = if std::is_x86_feature_detected!("avx2") {
        " avx2"
    } else {
        ""
    };
    #[cfg(not(target_arch = "x86_64"))]
    let wide = "";
    format!(
        "{}, {}{wide}, {}, {}",
        rustc.unwrap_or_else(unknown),
        std::env::consts::ARCH,
        libc.unwrap_or_else(unknown),
        valgrind_version().unwrap_or_else(unknown)
    )
}

fn per_request(instructions: u64) -> f64 {
    instructions as f64 / REQUESTS_UNDER_CALLGRIND as f64
}

/// Prints the figures.
pub fn show(all: &[Figures]) {
    println!("{}", circumstances());
    println!("Per request: instructions in the program and in the C library, nanoseconds. Allocations: of {REQUESTS} requests.");
    println!(
        "{:28} {:>9} {:>9} {:>11} {:>7}",
        "case", "program", "library", "allocations", "ns"
    );
    for figures in all {
        let (own, library) = match figures.instructions {
            Some(counted) => (
                format!("{:.1}", per_request(counted.own)),
                format!("{:.1}", per_request(counted.library)),
            ),
            None => ("-".to_string(), "-".to_string()),
        };
        println!(
            "{:28} {own:>9} {library:>9} {:>11} {:>7}",
            figures.name, figures.allocations, figures.ns
        );
    }
}

/// Writes the table anew.
pub fn write(all: &[Figures]) -> Result<(), String> {
    show(all);
    let mut text = format!(
        "# What a request costs the core: instructions in the program and in the C library per request, and allocations\n\
         # of {REQUESTS} requests. Written by `make core-bench-baseline`, checked by `make test`.\n\
         made with {}\n",
        circumstances()
    );
    for figures in all {
        let counted = figures
            .instructions
            .ok_or("valgrind is not installed: without it there is no baseline")?;
        text.push_str(&format!(
            "{:28} {:>9.1} {:>9.1} {:>6}\n",
            figures.name,
            per_request(counted.own),
            per_request(counted.library),
            figures.allocations
        ));
    }
    std::fs::write(path(), text).map_err(|e| format!("{}: {e}", path().display()))
}

fn read() -> Result<(String, BTreeMap<String, Known>), String> {
    let text = std::fs::read_to_string(path()).map_err(|e| format!("{}: {e}", path().display()))?;
    let mut made_with = String::new();
    let mut table = BTreeMap::new();
    for (at, line) in text.lines().enumerate() {
        if line.starts_with('#') {
            continue;
        }
        if let Some(rest) = line.strip_prefix("made with ") {
            made_with = rest.to_string();
            continue;
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        let known = match words[..] {
            [setup, ask, size, own, library, allocations] => own
                .parse()
                .ok()
                .zip(library.parse().ok())
                .zip(allocations.parse().ok())
                .map(|((own, library), allocations)| {
                    let name = format!("{setup} {ask} {size}");
                    let known = Known {
                        allocations,
                        own,
                        library,
                    };
                    (name, known)
                }),
            _ => None,
        };
        let (name, known) =
            known.ok_or_else(|| format!("{}:{}: not understood", path().display(), at + 1))?;
        table.insert(name, known);
    }
    Ok((made_with, table))
}

/// Compares with the table; an error when something costs more.
pub fn check(all: &[Figures]) -> Result<(), String> {
    show(all);
    let (made_with, table) = read()?;
    let here = circumstances();
    let comparable = made_with == here && all.iter().all(|f| f.instructions.is_some());
    let mut worse = Vec::new();
    let mut better = Vec::new();
    for figures in all {
        let name = &figures.name;
        let Some(known) = table.get(name) else {
            worse.push(format!("{name}: not in the baseline"));
            continue;
        };
        if figures.allocations > known.allocations {
            worse.push(format!(
                "{name}: {} allocations in {REQUESTS} requests, were {}",
                figures.allocations, known.allocations
            ));
        } else if figures.allocations < known.allocations {
            better.push(name.as_str());
        }
        let Some(counted) = figures.instructions.filter(|_| comparable) else {
            continue;
        };
        let pairs = [
            ("program", per_request(counted.own), known.own, OWN_PERCENT),
            (
                "C library",
                per_request(counted.library),
                known.library,
                LIBRARY_PERCENT,
            ),
        ];
        for (place, now, then, percent) in pairs {
            let room = (then * percent / 100.0).max(LEAST);
            if now > then + room {
                worse.push(format!(
                    "{name}: {now:.1} instructions per request in the {place}, were {then:.1}"
                ));
            } else if now < then - room {
                better.push(name);
            }
        }
    }
    if !comparable {
        println!("******************************************************************************");
        println!("The numbers of instructions were NOT compared: they hold for");
        println!("    {made_with}");
        println!("and this is");
        println!("    {here}");
        println!(
            "Allocations were compared. `make core-bench-baseline` makes a baseline for here."
        );
        println!("******************************************************************************");
    }
    if !better.is_empty() {
        better.dedup();
        println!(
            "Cheaper than the baseline, which may be written anew (make core-bench-baseline): {}",
            better.join(", ")
        );
    }
    if worse.is_empty() {
        return Ok(());
    }
    Err(format!(
        "a request costs more than it did:\n  {}\nIf that is meant: make core-bench-baseline writes {} anew",
        worse.join("\n  "),
        path().display()
    ))
}
