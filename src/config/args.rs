//! The command line: argv in, [`Parsed`] or [`UsageError`] out. Touches nothing outside: names, users,
//! addresses and files are looked at later, by those who use them.

use std::ffi::OsString;
use std::fmt;

use getopts::{Fail, HasArg, Matches, Occur, Options, ParsingStyle};

use super::asking::{asking, Asking};
use super::friends;
use super::nearest::{nearest, with_one_dash};
use super::options::{table, Row};
use super::{AdminAt, Check, Config, Rejoin, Watch};
use crate::plain::one_line;

/// Keys per second that `--verify` compares unless `--resync-rate` says otherwise: it only reads.
const VERIFY_RATE: u32 = 50_000;

/// What is said to a command line without anything.
const BARE: &str =
    "which servers? Type: magent -s HOST[:PORT] -b HOST[:PORT] (-h lists all options)";

/// What the command line asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Parsed {
    /// `-h`: print [`help`](super::help::help).
    Help,
    /// `-V`: print [`version`](super::help::version).
    Version,
    /// Run a proxy, or with `--verify` compare the copies.
    Run(Box<Config>),
    /// `-t`: say what is wrong in the file.
    Test(Box<Config>),
    /// `--route`: say where these keys go.
    Route(Box<Config>, Vec<String>),
    /// `--check`: ask a proxy once.
    Check(Check),
    /// `--watch`: ask a proxy for ever.
    Watch(Watch),
    /// `--top`: show how a proxy is.
    Top(AdminAt),
}

/// A wrong command line: one line that names the option as it was written, and what is wrong with it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UsageError(String);

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}

/// Parses the arguments after the program's name. An option given twice counts as given last,
/// unless it is repeatable.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Parsed, UsageError> {
    let args = args
        .into_iter()
        .map(|arg| match arg.into_string() {
            Ok(arg) => Ok(arg),
            Err(raw) => Err(UsageError(format!(
                "{}: not UTF-8",
                one_line(&raw.to_string_lossy())
            ))),
        })
        .collect::<Result<Vec<_>, _>>()?;
    if args.is_empty() {
        return Err(UsageError(BARE.into()));
    }
    let args = friends::translate(args);
    let matches = options().parse(&args).map_err(|fail| usage(&fail, &args))?;
    if matches.opt_present("help") {
        return Ok(Parsed::Help);
    }
    if matches.opt_present("version") {
        return Ok(Parsed::Version);
    }
    let hint = with_one_dash(&args).map(|long| format!("; did you mean --{long}?"));
    let hint = hint.unwrap_or_default();
    let routes = matches.opt_present("route");
    if let Some(word) = matches.free.first().filter(|_| !routes) {
        let word = shown(word);
        return Err(UsageError(format!(
            "{word}: not an option, and nothing else is taken{hint}"
        )));
    }
    let mut config = Config::default();
    let all = in_order(&matches, &args);
    if all.iter().any(|given| given.row.long == "config") {
        with_file(&all)?;
    }
    for given in &all {
        (given.row.set)(&mut config, &given.value).map_err(|wrong| {
            let value = shown(&given.value);
            UsageError(format!("{} {value}: {wrong}{hint}", given.written))
        })?;
    }
    if config.verify && !all.iter().any(|given| given.row.long == "resync-rate") {
        config.resync_rate = VERIFY_RATE;
    }
    match asking(&config, &all).map_err(UsageError)? {
        Some(Asking::Check(check)) => return Ok(Parsed::Check(check)),
        Some(Asking::Watch(watch)) => return Ok(Parsed::Watch(watch)),
        Some(Asking::Top(top)) => return Ok(Parsed::Top(top)),
        // Whether what they say fits together is looked at for each pool.
        None if config.file.is_some() => {}
        None if config.test => {
            let wrong = "-t: which file? (needs -c FILE)";
            return Err(UsageError(wrong.into()));
        }
        None => check_together(&config, &all)?,
    }
    if config.daemon {
        if all.iter().any(|given| given.row.long == "foreground") {
            return Err(UsageError("-d: not with -D".into()));
        }
        config.foreground = false;
    }
    if routes {
        if matches.free.is_empty() {
            return Err(UsageError(
                "--route: which keys? (they stand behind all options)".into(),
            ));
        }
        return Ok(Parsed::Route(Box::new(config), matches.free.clone()));
    }
    if config.test {
        return Ok(Parsed::Test(Box::new(config)));
    }
    Ok(Parsed::Run(Box::new(config)))
}

/// What belongs into the file when there is one.
fn with_file(all: &[Given]) -> Result<(), UsageError> {
    const IN_FILE: [&str; 8] = [
        "server", "backup", "port", "listen", "socket", "ketama", "eject", "verify",
    ];
    if let Some(stray) = all.iter().find(|given| IN_FILE.contains(&given.row.long)) {
        let hint = friends::hint(&stray.written).unwrap_or("the pools are in the file");
        return Err(UsageError(format!(
            "{}: not with -c ({hint})",
            stray.written
        )));
    }
    Ok(())
}

/// What only the options together can get wrong.
fn check_together(config: &Config, all: &[Given]) -> Result<(), UsageError> {
    let wrong = if config.servers.is_empty() {
        "-s: at least one server is needed (-s HOST[:PORT][:WEIGHT]; -h lists all options)"
            .to_owned()
    } else if config.verify && config.backups.is_empty() {
        "--verify: there are no copies to compare (needs -b)".to_owned()
    } else if config.port == 0 && config.socket.is_none() && !config.verify {
        format!(
            "{}: nothing would listen (needs -f PATH)",
            as_written(all, "port")
        )
    } else if config.memory_limit < 2 * config.max_item_size {
        // One item has to fit as a request and as a reply, or a single client could never be served.
        let (limit, item) = (
            as_written(all, "memory-limit"),
            as_written(all, "max-item-size"),
        );
        format!("{limit}: too small for {item} (at least twice as much)")
    } else if let Some(wrong) = config.eject.then(|| wrong_eject(config, all)).flatten() {
        wrong
    } else {
        return Ok(());
    };
    Err(UsageError(wrong))
}

/// What `--eject` does not go with.
fn wrong_eject(config: &Config, all: &[Given]) -> Option<String> {
    if !config.backups.is_empty() {
        Some("--eject: not with -b (the keys of a dead primary are on its backups)".to_owned())
    } else if config.servers.len() < 2 {
        Some("--eject: there is no other server for the keys (needs two -s)".to_owned())
    } else if config.rejoin == Rejoin::AsIs {
        let rejoin = as_written(all, "rejoin");
        Some(format!(
            "--eject: not with {rejoin} (old values would be served)"
        ))
    } else {
        None
    }
}

/// The last of an option's appearances, with its value; one that was not given, with its default.
fn as_written(all: &[Given], long: &str) -> String {
    if let Some(given) = all.iter().rev().find(|given| given.row.long == long) {
        return format!("{} {}", given.written, given.value);
    }
    let row = table().find(|row| row.long == long);
    let default = row.map(|row| (row.default)(&Config::default()));
    format!("--{long} {}", default.unwrap_or_default())
}

fn options() -> Options {
    let mut options = Options::new();
    options.parsing_style(ParsingStyle::FloatingFrees);
    for row in table() {
        let has_value = if row.value.is_empty() {
            HasArg::No
        } else {
            HasArg::Yes
        };
        options.opt(
            row.short,
            row.long,
            row.meaning,
            row.value,
            has_value,
            Occur::Multi,
        );
    }
    options
}

/// One option as it stands on the command line.
pub(super) struct Given {
    position: usize,
    /// Which one.
    pub row: &'static Row,
    /// Its name, as written.
    pub written: String,
    value: String,
}

/// The given options in the order of the command line, so that the first wrong one is the one complained of.
fn in_order(matches: &Matches, args: &[String]) -> Vec<Given> {
    let long_at = long_spellings(args);
    let mut all = Vec::new();
    for row in table() {
        let given: Vec<(usize, String)> = if row.value.is_empty() {
            let positions = matches.opt_positions(row.long);
            positions.into_iter().map(|p| (p, String::new())).collect()
        } else {
            matches.opt_strs_pos(row.long)
        };
        all.extend(given.into_iter().map(|(position, value)| {
            let long = long_at.get(position).copied().flatten();
            Given {
                position,
                row,
                written: long.map_or_else(|| format!("-{}", row.short), str::to_owned),
                value,
            }
        }));
    }
    all.sort_by_key(|given| given.position);
    all
}

/// For each position as getopts counts them (a separate value has none of its own): the long name as written,
/// or `None` for short options and words.
fn long_spellings(args: &[String]) -> Vec<Option<&str>> {
    let mut spellings = Vec::new();
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        let value_follows;
        if arg == "--" {
            break;
        } else if arg.starts_with("--") {
            let written = arg.split_once('=').map_or(arg.as_str(), |(name, _)| name);
            spellings.push(Some(written));
            value_follows = written == arg && takes_value(&written[2..]);
        } else {
            spellings.push(None);
            let cluster = arg.strip_prefix('-').unwrap_or_default();
            let first = cluster
                .char_indices()
                .find(|(_, letter)| takes_value(&letter.to_string()));
            value_follows =
                first.is_some_and(|(at, letter)| at + letter.len_utf8() == cluster.len());
        }
        if value_follows {
            rest.next();
        }
    }
    spellings
}

fn takes_value(name: &str) -> bool {
    table().any(|row| !row.value.is_empty() && (row.short == name || row.long == name))
}

fn usage(fail: &Fail, args: &[String]) -> UsageError {
    let (name, wrong) = match fail {
        Fail::UnrecognizedOption(name) => (name, "unknown option"),
        Fail::ArgumentMissing(name) => (name, "a value is missing"),
        Fail::UnexpectedArgument(name) => (name, "takes no value"),
        Fail::OptionMissing(name) => (name, "is needed"),
        Fail::OptionDuplicated(name) => (name, "given more than once"),
    };
    let dashes = if name.chars().count() == 1 { "-" } else { "--" };
    let written = format!("{dashes}{}", one_line(name));
    let Fail::UnrecognizedOption(_) = fail else {
        return UsageError(format!("{written}: {wrong}"));
    };
    if let Some(hint) = friends::hint(&written) {
        return UsageError(format!("{written}: {hint}"));
    }
    let meant = with_one_dash(args).or_else(|| nearest(name));
    let hint = match meant {
        Some(long) => format!("did you mean --{long}?"),
        None => "-h lists them".to_owned(),
    };
    UsageError(format!("{written}: {wrong} ({hint})"))
}

/// A word of the command line in a message; an empty one must not vanish.
fn shown(text: &str) -> String {
    match text {
        "" => "''".to_owned(),
        text => one_line(text).into_owned(),
    }
}

#[cfg(test)]
#[path = "args_tests.rs"]
mod tests;
