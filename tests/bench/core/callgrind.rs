//! Instructions, counted by callgrind: the program runs itself under it and reads what it wrote down.
//!
//! Apart from each other: what the program executes, and what the C library does, which in these cases is nearly all
//! copying (`memcpy`; about one instruction per 32 bytes where the processor has wide registers).

use std::collections::HashMap;
use std::path::Path;
use std::process::{Command, Stdio};

/// The argument that makes this program the one that is counted.
pub const CHILD: &str = "--under-callgrind";

/// Instructions of all requests of a case.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Instructions {
    /// In the program itself.
    pub own: u64,
    /// In the C library.
    pub library: u64,
}

/// Counts all cases. `None`: valgrind is not installed.
pub fn run() -> Result<Option<Vec<Instructions>>, String> {
    if super::baseline::valgrind_version().is_none() {
        return Ok(None);
    }
    let dir =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("core-bench-{}", std::process::id()));
    std::fs::create_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    let counted = run_in(&dir);
    // Only there to keep the target directory small.
    let _ = std::fs::remove_dir_all(&dir);
    counted.map(Some)
}

fn run_in(dir: &Path) -> Result<Vec<Instructions>, String> {
    let me = std::env::current_exe().map_err(|e| format!("own path: {e}"))?;
    let out = dir.join("out");
    let ran = Command::new("valgrind")
        .args(["--tool=callgrind", "--collect-atstart=no"])
        .args([
            "--toggle-collect=*core_measured*",
            "--dump-after=*core_case_done*",
        ])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(me)
        .arg(CHILD)
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("valgrind: {e}"))?;
    if !ran.status.success() {
        let said = String::from_utf8_lossy(&ran.stderr);
        let last: Vec<&str> = said.lines().rev().take(5).collect();
        return Err(format!("valgrind: {}: {}", ran.status, last.join(" | ")));
    }
    let mut all = Vec::new();
    // The last file is what came after the last case: nothing.
    while let Ok(text) = std::fs::read_to_string(dir.join(format!("out.{}", all.len() + 1))) {
        if !text.contains("desc: Trigger: --dump-after") {
            break;
        }
        let counted = parse(&text);
        if counted.own == 0 {
            return Err(format!("case {}: nothing was counted", all.len() + 1));
        }
        all.push(counted);
    }
    Ok(all)
}

/// Adds up what each object spent itself. Lines behind `calls=` are what was spent below, and counted there.
fn parse(text: &str) -> Instructions {
    let mut names: HashMap<&str, &str> = HashMap::new();
    let mut counted = Instructions::default();
    let mut in_library = false;
    let mut skip = false;
    for line in text.lines() {
        if let Some(object) = line
            .strip_prefix("ob=")
            .or_else(|| line.strip_prefix("cob="))
        {
            let (id, name) = object.split_once(' ').unwrap_or((object, ""));
            if !name.is_empty() {
                names.insert(id, name);
            }
            if line.starts_with("ob=") {
                in_library = names.get(id).is_some_and(|name| name.contains("/libc.so"));
            }
        } else if line.starts_with("calls=") {
            skip = true;
        } else if line.starts_with(|c: char| c.is_ascii_digit() || "+-*".contains(c)) {
            let spent = line.split(' ').nth(1).and_then(|n| n.parse::<u64>().ok());
            match (skip, in_library) {
                (true, _) => {}
                (false, true) => counted.library += spent.unwrap_or(0),
                (false, false) => counted.own += spent.unwrap_or(0),
            }
            skip = false;
        }
    }
    counted
}
