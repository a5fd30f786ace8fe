//! The bench's own command line.

use std::path::PathBuf;
use std::time::Duration;

use getopts::Options as Getopts;

use crate::peers::Kind;
use crate::rows;

/// What to measure, and how long.
pub struct Options {
    /// Names of rows; empty: all.
    pub rows: Vec<String>,
    /// Measurements of each peer in each row.
    pub rounds: usize,
    /// Length of one.
    pub round: Duration,
    /// Who takes part.
    pub peers: Vec<Kind>,
    /// memcached behind the proxies instead of look-alikes.
    pub real: bool,
    /// The binary to measure.
    pub magent: PathBuf,
    /// A memcached that was built with its proxy.
    pub memcached_proxy: Option<PathBuf>,
}

/// Reads the command line. `Ok(None)`: only help was asked for, and has been printed.
pub fn parse(args: &[String]) -> Result<Option<Options>, String> {
    let mut known = Getopts::new();
    known.optflag("h", "help", "print this");
    known.optflag("", "bench", "(cargo bench passes it; it means nothing)");
    known.optflag("", "quick", "w1, w2 and idle, 4 rounds of 1.5 s");
    known.optflag(
        "",
        "real",
        "real memcached behind the proxies, not look-alikes",
    );
    known.optopt("", "rows", "only these rows (see below)", "ROW,ROW");
    known.optopt("", "rounds", "measurements per peer and row (5)", "N");
    known.optopt("", "seconds", "length of one (2)", "S");
    known.optopt("", "peers", "only these peers (see below)", "PEER,PEER");
    known.optopt("", "magent", "the binary to measure", "PATH");
    known.optopt(
        "",
        "memcached-proxy",
        "a memcached built with --enable-proxy",
        "PATH",
    );
    let found = known.parse(args).map_err(|e| e.to_string())?;
    if found.opt_present("help") {
        println!(
            "{}",
            known.usage("Usage: cargo bench --bench load -- [OPTIONS]")
        );
        println!("Rows:");
        for row in rows::all() {
            println!("    {:5} {}", row.name, row.title);
        }
        println!("Peers: {}", Kind::ALL.map(Kind::name).join(", "));
        return Ok(None);
    }
    if let Some(word) = found.free.first() {
        return Err(format!("not understood: {word}"));
    }
    let quick = found.opt_present("quick");
    let rows = match found.opt_str("rows") {
        Some(list) => list.split(',').map(String::from).collect(),
        None if quick => rows::QUICK.iter().map(ToString::to_string).collect(),
        None => Vec::new(),
    };
    if let Some(name) = rows
        .iter()
        .find(|name| rows::all().iter().all(|row| row.name != **name))
    {
        return Err(format!("--rows: there is no row {name}; see --help"));
    }
    let rounds = number(&found, "rounds", if quick { 4.0 } else { 5.0 }, 1.0, 1000.0)?;
    let seconds = number(
        &found,
        "seconds",
        if quick { 1.5 } else { 2.0 },
        0.1,
        3600.0,
    )?;
    Ok(Some(Options {
        rows,
        rounds: rounds as usize,
        round: Duration::from_secs_f64(seconds),
        peers: peers(found.opt_str("peers"))?,
        real: found.opt_present("real"),
        magent: found.opt_str("magent").map_or_else(
            || PathBuf::from(env!("CARGO_BIN_EXE_magent")),
            PathBuf::from,
        ),
        memcached_proxy: found.opt_str("memcached-proxy").map(PathBuf::from),
    }))
}

fn number(
    found: &getopts::Matches,
    name: &str,
    default: f64,
    least: f64,
    most: f64,
) -> Result<f64, String> {
    let Some(text) = found.opt_str(name) else {
        return Ok(default);
    };
    match text.parse::<f64>() {
        Ok(number) if (least..=most).contains(&number) => Ok(number),
        _ => Err(format!(
            "--{name}: a number from {least} to {most}, not {text}"
        )),
    }
}

fn peers(list: Option<String>) -> Result<Vec<Kind>, String> {
    let Some(list) = list else {
        return Ok(Kind::ALL.to_vec());
    };
    let mut peers = Vec::new();
    for name in list.split(',') {
        let kind = Kind::ALL.into_iter().find(|kind| kind.name() == name);
        peers.push(kind.ok_or_else(|| format!("--peers: there is no peer {name}; see --help"))?);
    }
    // The mirrored rows compare magent with itself: who wants magent wants both.
    if peers.contains(&Kind::Magent) {
        peers.extend([
            Kind::MagentBinary,
            Kind::MagentScraped,
            Kind::MagentMirrored,
            Kind::MagentAckPrimary,
        ]);
    }
    Ok(peers)
}
