//! `--check` and `--watch`: the command lines of a magent that serves nobody and asks one that does.

use std::fmt;
use std::path::PathBuf;

use super::addr;
use super::args::Given;
use super::options::SOCKET_PATH_MAX;
use super::{Config, LogFormat, ServerSpec};
use crate::time::Span;

/// How long the proxy may go without a good answer unless `--timeout` says otherwise.
const TIMEOUT: Span = Span::from_millis(300);

/// Where the proxy that is asked listens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    /// Host and port; the weight means nothing.
    Tcp(ServerSpec),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Tcp(spec) if spec.host.contains(':') => {
                write!(f, "[{}]:{}", spec.host, spec.port)
            }
            Target::Tcp(spec) => write!(f, "{}:{}", spec.host, spec.port),
            Target::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// `--check`: ask once.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Check {
    /// Who is asked.
    pub target: Target,
    /// `--timeout`: for name, connection and answer together.
    pub timeout: Span,
}

/// `--watch`: ask for ever, and write what came of it to a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Watch {
    /// Who is asked.
    pub target: Target,
    /// `--track-file`.
    pub track_file: PathBuf,
    /// `--interval`: from one question to the next.
    pub interval: Span,
    /// `--timeout`: without a good answer for so long the proxy counts as unhealthy.
    pub timeout: Span,
    /// `--log-file`.
    pub log_file: Option<PathBuf>,
    /// `-v`, counted.
    pub verbose: u8,
    /// `--log-format`.
    pub log_format: LogFormat,
}

/// Where `--admin` is, or is to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AdminAt {
    /// Host name or IP address, without brackets.
    pub host: String,
    /// TCP port; 12001 when not given.
    pub port: u16,
}

/// The port of `--admin` in the files that come with magent.
const ADMIN_PORT: u16 = 12001;

impl fmt::Display for AdminAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Takes `HOST[:PORT]`.
pub(super) fn parse_admin(text: &str) -> Result<AdminAt, String> {
    let spec = addr::parse_at(text, ADMIN_PORT)?;
    Ok(AdminAt {
        host: spec.host,
        port: spec.port,
    })
}

/// What the command line asks of another magent, if it does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Asking {
    Check(Check),
    Watch(Watch),
    Top(AdminAt),
}

/// Takes `HOST[:PORT]` or the path of a Unix socket, which has a slash in it.
pub(super) fn parse_target(text: &str) -> Result<Target, String> {
    if !text.contains('/') {
        return addr::parse_target(text).map(Target::Tcp);
    }
    if text.len() > SOCKET_PATH_MAX || text.contains('\0') {
        return Err(format!(
            "not the path of a socket (at most {SOCKET_PATH_MAX} bytes)"
        ));
    }
    Ok(Target::Unix(PathBuf::from(text)))
}

/// What the options together ask of another magent; the error is about options that do not go together.
pub(super) fn asking(config: &Config, all: &[Given]) -> Result<Option<Asking>, String> {
    let given = |long: &str| all.iter().find(|given| given.row.long == long);
    let (mode, allowed): (_, &[&str]) = if config.check.is_some() {
        ("--check", &["check", "timeout"])
    } else if config.watch.is_some() {
        let allowed = &[
            "watch",
            "track-file",
            "interval",
            "timeout",
            "foreground",
            "verbose",
            "log-file",
            "log-format",
        ];
        ("--watch", allowed)
    } else if config.top.is_some() {
        ("--top", &["top"])
    } else {
        let stray = given("track-file").or(given("interval"));
        return match stray {
            Some(stray) => Err(format!("{}: only with --watch", stray.written)),
            None => Ok(None),
        };
    };
    if let Some(stray) = all.iter().find(|given| !allowed.contains(&given.row.long)) {
        return Err(format!("{}: not used with {mode}", stray.written));
    }
    let timeout = match given("timeout") {
        Some(_) => config.timeout,
        None => TIMEOUT,
    };
    if let Some(top) = config.top.clone() {
        return Ok(Some(Asking::Top(top)));
    }
    if let Some(target) = config.check.clone() {
        return Ok(Some(Asking::Check(Check { target, timeout })));
    }
    let Some((target, track_file)) = config.watch.clone().zip(config.track_file.clone()) else {
        return Err("--watch: where to write is missing (needs --track-file PATH)".into());
    };
    if config.interval >= timeout {
        return Err(format!(
            "--interval {}: not below --timeout ({} ms)",
            config.interval.0 / 1000,
            timeout.0 / 1000
        ));
    }
    Ok(Some(Asking::Watch(Watch {
        target,
        track_file,
        interval: config.interval,
        timeout,
        log_file: config.log_file.clone(),
        verbose: config.verbose,
        log_format: config.log_format,
    })))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::args::{parse, Parsed};

    fn parsed(line: &str) -> Result<Parsed, String> {
        let words = line.split_whitespace().map(Into::into);
        parse(words).map_err(|error| error.to_string())
    }

    fn tcp(host: &str, port: u16) -> Target {
        Target::Tcp(ServerSpec {
            host: host.into(),
            port,
            weight: 1,
            name: None,
        })
    }

    #[test]
    fn a_check_in_every_form() {
        for (line, target, shown, timeout) in [
            ("--check a:12000", tcp("a", 12000), "a:12000", 300),
            (
                "--check=127.0.0.1",
                tcp("127.0.0.1", 11211),
                "127.0.0.1:11211",
                300,
            ),
            ("--check [::1]:5 --timeout 20", tcp("::1", 5), "[::1]:5", 20),
            (
                "--timeout 1000 --check /run/m.sock",
                Target::Unix("/run/m.sock".into()),
                "/run/m.sock",
                1000,
            ),
            ("--check ./s", Target::Unix("./s".into()), "./s", 300),
        ] {
            assert_eq!(target.to_string(), shown);
            let timeout = Span::from_millis(timeout);
            assert_eq!(
                parsed(line),
                Ok(Parsed::Check(Check { target, timeout })),
                "{line}"
            );
        }
    }

    #[test]
    fn a_watch_with_and_without_its_defaults() {
        let mut watch = Watch {
            target: tcp("a", 12000),
            track_file: "/run/t".into(),
            interval: Span::from_millis(50),
            timeout: Span::from_millis(300),
            log_file: None,
            verbose: 0,
            log_format: LogFormat::Text,
        };
        let line = "--watch a:12000 --track-file /run/t";
        assert_eq!(parsed(line), Ok(Parsed::Watch(watch.clone())));
        watch.interval = Span::from_millis(20);
        watch.timeout = Span::from_millis(100);
        watch.verbose = 1;
        watch.log_file = Some("l".into());
        let more = "--interval 20 --timeout 100 -D -v --log-file l";
        assert_eq!(parsed(&format!("{line} {more}")), Ok(Parsed::Watch(watch)));
    }

    #[test]
    fn what_does_not_go_together() {
        let long = format!("/{}", "x".repeat(SOCKET_PATH_MAX));
        for (line, message) in [
            ("--check a -s b", "-s: not used with --check"),
            ("-p 1 --check a", "-p: not used with --check"),
            ("--check a --watch b", "--watch: not used with --check"),
            (
                "--check a --track-file t",
                "--track-file: not used with --check",
            ),
            (
                "--watch a --track-file t --verify",
                "--verify: not used with --watch",
            ),
            (
                "--watch a",
                "--watch: where to write is missing (needs --track-file PATH)",
            ),
            ("-s a --track-file t", "--track-file: only with --watch"),
            ("-s a --interval 5", "--interval: only with --watch"),
            (
                "--watch a --track-file t --interval 300",
                "--interval 300: not below --timeout (300 ms)",
            ),
            ("--check a:0", "--check a:0: '0' is not a port (1 to 65535)"),
            (
                "--check a:1:1",
                "--check a:1:1: a proxy takes no weight (HOST[:PORT])",
            ),
            ("--watch=", "--watch '': the host is missing"),
            ("--interval 0", "--interval 0: not a number from 1 to 60000"),
            (
                &format!("--check {long}"),
                &format!("--check {long}: not the path of a socket (at most 107 bytes)"),
            ),
        ] {
            assert_eq!(parsed(line), Err(message.to_owned()), "{line}");
        }
    }
}
