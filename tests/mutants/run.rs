//! `make mutants`: which small bugs in the core does the simulator find?
//!
//! All bugs of `mutants.txt` are planted in a copy of the sources at once, each behind its number, so one build is enough. Then
//! the simulator runs with one after the other, the same schedules for each, some of each profile in turn. Not so many seconds:
//! what is found must not hang on how busy the machine is. A bug is found when a run fails, crashes, or does not end.
//!
//! usage: [--seeds COUNT] [--only NUMBER,...]; the exit code is 1 when the list is not that of the sources, when a run fails
//! without a bug, when fewer than nine in ten are found, and when one survives of which the list does not say why.

#[path = "list.rs"]
mod list;

use std::path::{Path, PathBuf};
use std::process::{exit, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use list::Mutant;

/// Profiles of the simulator, those first that find most.
const PROFILES: [&str; 15] = [
    "return",
    "takeover",
    "cold",
    "eject",
    "full",
    "pieces",
    "slow",
    "failover",
    "frames-return",
    "frames-takeover",
    "calm",
    "garbage",
    "pieces-slow",
    "frames-calm",
    "frames-slow",
];

/// So many schedules of a profile at a time.
const SLICE: u64 = 25;

/// They take less than a second. When they have not ended after this, they never will.
const HANGS_AFTER: Duration = Duration::from_secs(120);

/// A bug may fill the memory; this is in KiB.
const MEMORY_MAX: u64 = 4 << 20;

/// What tells the planted one. Behind the crate's own lines.
const SWITCH: &str = r#"
/// Whether the bug `number` is planted.
pub(crate) fn mutant(number: u32) -> bool {
    static PLANTED: std::sync::OnceLock<u32> = std::sync::OnceLock::new();
    let planted = || std::env::var("MAGENT_MUTANT").ok()?.parse().ok();
    *PLANTED.get_or_init(|| planted().unwrap_or(0)) == number
}
"#;

fn fail(why: &str) -> ! {
    eprintln!("mutants: {why}");
    exit(1);
}

/// Copies a file, or a directory with all that is in it.
fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    if from.is_dir() {
        std::fs::create_dir_all(to)?;
        for entry in std::fs::read_dir(from)? {
            let name = entry?.file_name();
            copy(&from.join(&name), &to.join(&name))?;
        }
    } else {
        std::fs::copy(from, to)?;
    }
    Ok(())
}

/// Builds the simulator with all bugs; its path.
fn build(mutants: &[Mutant]) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(root.join("target"), PathBuf::from);
    let tree = target.join("mutants");
    let _ = std::fs::remove_dir_all(tree.join("src"));
    let _ = std::fs::remove_dir_all(tree.join("tests"));
    if let Err(error) = std::fs::create_dir_all(&tree) {
        fail(&format!("{}: {error}", tree.display()));
    }
    for name in ["Cargo.toml", "Cargo.lock", "src", "tests"] {
        if let Err(error) = copy(&root.join(name), &tree.join(name)) {
            fail(&format!("{name}: {error}"));
        }
    }
    let wrong = list::plant(mutants, &tree, true);
    if !wrong.is_empty() {
        fail(&format!(
            "not the lines of the sources:\n{}",
            wrong.join("\n")
        ));
    }
    let lib = tree.join("src/lib.rs");
    let text = std::fs::read_to_string(&lib).unwrap_or_default() + SWITCH;
    if let Err(error) = std::fs::write(&lib, text) {
        fail(&format!("{}: {error}", lib.display()));
    }
    // Optimized, as many runs are needed, but with all assertions.
    let cargo = std::env::var_os("CARGO").unwrap_or("cargo".into());
    let output = Command::new(cargo)
        .current_dir(&tree)
        .args([
            "test",
            "--locked",
            "--test",
            "sim",
            "--no-run",
            "--message-format=json",
        ])
        .args([
            "--config",
            "profile.dev.opt-level=2",
            "--config",
            "profile.dev.debug=false",
        ])
        .args(["--config", "profile.test.opt-level=2"])
        .env("CARGO_TARGET_DIR", tree.join("target"))
        .env("RUSTFLAGS", "-Awarnings")
        .stderr(Stdio::inherit())
        .output();
    let output = output.unwrap_or_else(|error| fail(&format!("cargo: {error}")));
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stdout);
        let messages = text.lines().filter_map(|line| {
            let message: serde_json::Value = serde_json::from_str(line).ok()?;
            Some(message["message"]["rendered"].as_str()?.to_string())
        });
        fail(&format!(
            "it does not build:\n{}",
            messages.collect::<String>()
        ));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let built = text.lines().find_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let named = message["target"]["name"] == "sim";
        Some(PathBuf::from(
            message["executable"].as_str().filter(|_| named)?,
        ))
    });
    built.unwrap_or_else(|| fail("cargo names no program"))
}

/// What the schedules of a profile from `seed` on end with, with a bug planted. `None`: nothing was found.
fn slice(program: &Path, number: usize, profile: &str, seed: u64) -> Option<String> {
    let mut command = Command::new("sh");
    command
        .arg("-c")
        .arg(format!("ulimit -v {MEMORY_MAX}; exec \"$0\" \"$@\""))
        .arg(program)
        .args(["sweep::", "--nocapture", "--test-threads=1"])
        .args([
            "--skip",
            "a_seed_is",
            "--skip",
            "what_should",
            "--skip",
            "planted_bugs",
        ])
        .env("MAGENT_MUTANT", number.to_string())
        .env("MAGENT_SIM_PROFILE", profile)
        .env("MAGENT_SIM_SEED", seed.to_string())
        .env("MAGENT_SIM_SEEDS", SLICE.to_string())
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command
        .spawn()
        .unwrap_or_else(|error| fail(&format!("sh: {error}")));
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let said = std::thread::spawn(move || stdout.map(std::io::read_to_string));
    let complained = std::thread::spawn(move || stderr.map(std::io::read_to_string));
    let begin = Instant::now();
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break Some(status),
            Ok(None) if begin.elapsed() > HANGS_AFTER => {
                let _ = child.kill();
                let _ = child.wait();
                break None;
            }
            _ => std::thread::sleep(Duration::from_millis(10)),
        }
    };
    let text = |reader: std::thread::JoinHandle<Option<std::io::Result<String>>>| {
        let read = reader.join().ok().flatten();
        read.and_then(Result::ok).unwrap_or_default()
    };
    let (said, complained) = (text(said), text(complained));
    match status {
        None => Some("does not end".into()),
        Some(status) if status.success() => {
            if !said.contains("requests per second") {
                fail(&format!("the simulator knows no profile {profile}: {said}"));
            }
            None
        }
        Some(status) => {
            let mut lines = complained
                .lines()
                .skip_while(|line| !line.contains("panicked at"));
            let first = match lines.next() {
                Some(at) if at.contains("sweep.rs") => lines.next().unwrap_or(at).to_string(),
                Some(at) => format!("{} {}", at.trim(), lines.next().unwrap_or_default()),
                None => format!("{status}"),
            };
            let first = first.trim_start_matches(&format!("profile {profile}, ")[..]);
            Some(first.chars().take(110).collect())
        }
    }
}

/// Runs the simulator with one bug; which profile found it, and how.
fn hunt(program: &Path, number: usize, seeds: u64) -> Option<(&'static str, String)> {
    let firsts = (0..seeds).step_by(SLICE as usize);
    let mut slices = firsts.flat_map(|seed| PROFILES.map(|profile| (profile, seed)));
    slices.find_map(|(profile, seed)| Some((profile, slice(program, number, profile, seed)?)))
}

fn main() {
    let mut seeds = 300;
    let mut only = None;
    let mut words = std::env::args().skip(1).filter(|word| word != "--bench");
    while let Some(word) = words.next() {
        let value = words.next().unwrap_or_default();
        match word.as_str() {
            "--seeds" => seeds = value.parse().unwrap_or(seeds),
            "--only" => only = Some(value.split(',').filter_map(|n| n.parse().ok()).collect()),
            _ => fail("usage: [--seeds COUNT] [--only NUMBER,...]"),
        }
    }
    let mutants = list::read(include_str!("mutants.txt")).unwrap_or_else(|why| fail(&why));
    let numbers: Vec<usize> = only.unwrap_or_else(|| (1..=mutants.len()).collect());
    let program = build(&mutants);
    for profile in PROFILES {
        if let Some(how) = slice(&program, 0, profile, 0) {
            fail(&format!("{profile} fails without a bug: {how}"));
        }
    }
    let next = AtomicUsize::new(0);
    let survivors = Mutex::new(Vec::new());
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                while let Some(&number) = numbers.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let mutant = &mutants[number - 1];
                    let name = format!("{number:3} {:12} {}", mutant.file, mutant.breaks);
                    match hunt(&program, number, seeds) {
                        Some((profile, how)) => {
                            println!("found     {name}: {profile}, {how}");
                        }
                        None => {
                            println!("SURVIVED  {name}");
                            survivors.lock().expect("nobody panics").push(number);
                        }
                    }
                }
            });
        }
    });
    let mut survivors = survivors.into_inner().expect("nobody panics");
    survivors.sort_unstable();
    let found = numbers.len() - survivors.len();
    println!(
        "\n{found} of {} found, {:.1} %",
        numbers.len(),
        100.0 * found as f64 / numbers.len() as f64
    );
    let mut unexplained = 0;
    for mutant in survivors.iter().map(|&number| &mutants[number - 1]) {
        let why = mutant.survives.as_deref().unwrap_or("NOT EXPLAINED");
        unexplained += usize::from(mutant.survives.is_none());
        println!("  {}: {}: {why}", mutant.file, mutant.breaks);
    }
    if unexplained > 0 || found * 10 < numbers.len() * 9 {
        exit(1);
    }
}
