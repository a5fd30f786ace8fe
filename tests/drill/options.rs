//! The command line of `make drill`.

use std::path::PathBuf;

use getopts::Options as Getopts;

use crate::drill::scenes::{self, Kind, Scene};

/// What to run.
pub struct Options {
    /// The binary to drill.
    pub magent: PathBuf,
    /// Runs of each drill.
    pub runs: usize,
    /// `fast` or `classic`.
    pub profile: &'static str,
    /// Which drills.
    pub scenes: Vec<Scene>,
    /// Further arguments for `keepalived/render`.
    pub render: Vec<String>,
    /// What each run has to say is printed.
    pub verbose: bool,
}

/// Reads the command line. `Ok(None)`: only help was asked for, and has been printed.
pub fn parse(args: &[String]) -> Result<Option<Options>, String> {
    let mut known = Getopts::new();
    known.optflag("h", "help", "print this");
    known.optflag("", "bench", "(cargo bench passes it; it means nothing)");
    known.optflag("v", "verbose", "print what each run has to say");
    known.optopt("", "magent", "the binary to drill", "PATH");
    known.optopt("", "runs", "runs of each drill (5)", "N");
    known.optopt("", "profile", "fast or classic (fast)", "NAME");
    known.optopt("", "drills", "only these (see below)", "NAME,NAME");
    known.optmulti(
        "",
        "render",
        "a further argument for keepalived/render; repeatable",
        "ARG",
    );
    let found = known.parse(args).map_err(|e| e.to_string())?;
    if found.opt_present("help") {
        println!(
            "{}",
            known.usage("Usage: make drill RUNS=N PROFILE=NAME DRILLS=NAME,NAME")
        );
        println!("Drills:");
        for scene in scenes::ALL {
            println!("    {:20} {}", scene.name, scene.title);
        }
        return Ok(None);
    }
    if let Some(word) = found.free.first() {
        return Err(format!("not understood: {word}"));
    }
    let runs = found.opt_str("runs").unwrap_or("5".to_string());
    let runs = match runs.parse::<usize>() {
        Ok(runs @ 1..=1000) => runs,
        _ => return Err(format!("--runs: a number from 1 to 1000, not {runs}")),
    };
    let profile = match found.opt_str("profile").as_deref() {
        None | Some("fast") => "fast",
        Some("classic") => "classic",
        Some(other) => return Err(format!("--profile: fast or classic, not {other}")),
    };
    let scenes = match found.opt_str("drills") {
        None => scenes::ALL
            .iter()
            // The guides' files have timers of their own: they are run once, with the profile that is the default.
            .filter(|scene| profile == "fast" || scene.kind != Kind::Guide)
            .copied()
            .collect(),
        Some(list) => list
            .split(',')
            .map(|name| {
                let scene = scenes::named(name).copied();
                scene.ok_or_else(|| format!("--drills: there is no drill {name}; see --help"))
            })
            .collect::<Result<_, _>>()?,
    };
    let magent = found.opt_str("magent");
    let magent = magent.map_or_else(
        || PathBuf::from(env!("CARGO_BIN_EXE_magent")),
        PathBuf::from,
    );
    Ok(Some(Options {
        magent,
        runs,
        profile,
        scenes,
        render: found.opt_strs("render"),
        verbose: found.opt_present("verbose"),
    }))
}

impl Options {
    /// Where the logs of a run go that has lost something.
    pub fn keep(&self, scene: &Scene, run: usize) -> Option<PathBuf> {
        let base = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("drill");
        Some(base.join(format!("{}-{}-{}", scene.name, self.profile, run + 1)))
    }
}
