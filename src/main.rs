//! The binary: command line in, exit code out.
//!
//! Exit codes: 0 success, also when a magent already holds the place; 1 copies differ (`--verify`); 0, 1, 2 as [`check`] says (`--check`); 64 a wrong command line or file (with `-t` 1); 71 what the system
//! refuses (names, users, files, sockets).

use std::io::{self, Write};
use std::process;

use magent::check;
use magent::config::args::{self, Parsed};
use magent::config::help;
use magent::config::Config;
use magent::lookup;
use magent::pools::{self, doubts, Failure};
use magent::start::{self, Started, Supervisor};
use magent::sys::daemon::{self, Detached, Herald};
use magent::sys::{memory, reason, signal};
use magent::top;
use magent::verify::{self, Outcome};

const DIFFERENT: u8 = 1;
const WRONG: u8 = 1;
const USAGE: u8 = 64;
const SYSTEM: u8 = 71;

fn main() {
    let supervisor = match Supervisor::from_environment() {
        Ok(supervisor) => supervisor,
        Err(error) => process::exit(i32::from(complain(SYSTEM, &error.to_string()))),
    };
    let code = match args::parse(std::env::args_os().skip(1)) {
        Ok(Parsed::Help) => print(&help::help()),
        Ok(Parsed::Version) => print(&format!("{}\n", help::version())),
        Ok(Parsed::Run(config)) if config.verify => match verify::run(&config) {
            Outcome::Same => 0,
            Outcome::Different => DIFFERENT,
            Outcome::Unreadable => SYSTEM,
        },
        Ok(Parsed::Run(config)) => match pools::read(&config) {
            Ok(pools) => launch(&config, pools, supervisor),
            Err(failure) => complain_of(&failure),
        },
        Ok(Parsed::Test(config)) => test(&config),
        Ok(Parsed::Route(config, keys)) => match pools::read(&config) {
            Ok(pools) => print(&lookup::lines(&pools, &keys)),
            Err(failure) => complain_of(&failure),
        },
        Ok(Parsed::Check(config)) => check::run(&config),
        Ok(Parsed::Top(top)) => top::run(&top),
        Ok(Parsed::Watch(config)) => match check::watch(&config, supervisor.notifier) {
            Ok(()) => 0,
            Err(error) => complain(SYSTEM, &error.to_string()),
        },
        Err(error) => complain(USAGE, &error.to_string()),
    };
    process::exit(i32::from(code));
}

/// `-t`: says what is wrong in the file.
fn test(config: &Config) -> u8 {
    match pools::read(config) {
        Ok(pools) => {
            let file = config.file.clone().unwrap_or_default();
            let wrong: Vec<String> = pools.iter().filter_map(doubts::itself_in).collect();
            // With these it would start, so they are no mistakes.
            let doubts: Vec<String> = pools.iter().flat_map(doubts::of_config).collect();
            for line in wrong.iter().chain(&doubts) {
                complain(WRONG, &format!("{}: {line}", file.display()));
            }
            if !wrong.is_empty() {
                return WRONG;
            }
            if !doubts.is_empty() {
                return 0;
            }
            let count = pools.len();
            let pools = if count == 1 { "pool" } else { "pools" };
            print(&format!(
                "magent: {}: {count} {pools}, nothing is wrong\n",
                file.display()
            ))
        }
        Err(failure) => {
            complain_of(&failure);
            WRONG
        }
    }
}

/// Goes to the background first, unless asked not to: what follows then happens in the process that will serve.
fn launch(config: &Config, pools: Vec<Config>, supervisor: Supervisor) -> u8 {
    memory::prepare();
    if let Err(error) = signal::ignore_strangers() {
        return complain(SYSTEM, &format!("signals: {}", reason(&error)));
    }
    if config.foreground {
        return serve(config, pools, supervisor, Herald::default());
    }
    if !supervisor.passed.is_empty() {
        return complain(
            SYSTEM,
            "LISTEN_FDS: sockets are taken over in the foreground only (needs -D)",
        );
    }
    // Whoever waits for word of the process that it started is not to hear of another one: a script of keepalived's
    // has keepalived's environment.
    drop(supervisor);
    match daemon::detach() {
        Ok(Detached::Child(herald)) => serve(config, pools, Supervisor::default(), herald),
        Ok(Detached::Parent(0, _)) => 0,
        Ok(Detached::Parent(code, text)) => complain(code, &text),
        Err(error) => complain(SYSTEM, &format!("to the background: {}", reason(&error))),
    }
}

fn serve(config: &Config, pools: Vec<Config>, supervisor: Supervisor, mut herald: Herald) -> u8 {
    let supervised = supervisor.notifier.is_heard();
    let (code, text) = match start::prepare(config, pools, herald.is_daemon(), supervisor) {
        Ok(Started::Ready(mut running)) => match herald.ready() {
            Ok(()) => match running.run() {
                Ok(()) => return 0,
                Err(error) => {
                    log::error!("{error}");
                    return SYSTEM;
                }
            },
            Err(error) => (SYSTEM, format!("to the background: {}", reason(&error))),
        },
        Ok(Started::Already { text, but }) => {
            // A supervisor that waits for readiness will call this a failure: its log should say why.
            if config.verbose > 0 || supervised || !but.is_empty() {
                complain(0, &text);
            }
            for line in but {
                complain(0, &line);
            }
            (0, String::new())
        }
        Err(error) => (SYSTEM, error.to_string()),
    };
    if !herald.end(code, &text) && code != 0 {
        complain(code, &text);
    }
    code
}

fn print(text: &str) -> u8 {
    // A reader that went away (`magent -h | head`) is no reason to fail.
    let _ = io::stdout().write_all(text.as_bytes());
    0
}

/// Each mistake in a line of its own.
fn complain_of(failure: &Failure) -> u8 {
    let code = match failure {
        Failure::System(_) => SYSTEM,
        Failure::Mistakes(..) => USAGE,
    };
    for line in failure.to_string().lines() {
        complain(code, line);
    }
    code
}

fn complain(code: u8, text: &str) -> u8 {
    let _ = writeln!(io::stderr(), "magent: {text}");
    code
}
