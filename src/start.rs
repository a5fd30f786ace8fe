//! The order of a start. It is what keeps a second start harmless and the rights right:
//!
//! 1. where to listen (names of `-l`), and the marks: is a magent running there already?
//! 2. users, servers' names: all that can be wrong without opening anything
//! 3. what may need root: log, limits, pid file, sockets
//! 4. give root up, and only then touch a byte from the network

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use crate::config::{Config, Copies, ServerSpec, PROXY_ID_MAX};
use crate::hash::djb31;
use crate::net::{self, Addresses, Listeners, Parts, Place, Server};
use crate::sys::activation::Passed;
use crate::sys::instance::{self, Marks, Taken};
use crate::sys::log::Logs;
use crate::sys::notify::Notifier;
use crate::sys::pidfile::PidFile;
use crate::sys::user::Identity;
use crate::sys::{self, limits, SystemError};

/// A mark may belong to a magent that was told to end a moment ago.
const SECOND_LOOK: Duration = Duration::from_millis(50);

/// What came of a start.
pub enum Started {
    /// Everything that can fail has succeeded.
    Ready(Box<Running>),
    /// A magent holds that place already; the text says which.
    Already(String),
}

/// What a supervisor gave this process; nothing, where there is none.
#[derive(Default)]
pub struct Supervisor {
    /// What it wants to hear.
    pub notifier: Notifier,
    /// Sockets that it opened.
    pub passed: Passed,
}

impl Supervisor {
    /// Takes it out of the environment; before anything is opened and any thread is started.
    pub fn from_environment() -> Result<Supervisor, SystemError> {
        // In this order: a number that is not open must not become the notifier's.
        let passed = Passed::from_environment()?;
        let notifier = Notifier::from_environment();
        Ok(Supervisor { notifier, passed })
    }
}

/// A proxy that is about to serve.
pub struct Running {
    server: Server,
    /// Removed when the proxy has ended.
    _pidfile: Option<PidFile>,
}

impl Running {
    /// Serves until a signal ends it.
    pub fn run(&mut self) -> Result<(), SystemError> {
        self.server
            .run()
            .map_err(|error| SystemError::io("event loop", &error))
    }
}

/// Does everything that can fail. `daemon`: the process is in the background, its stderr soon gone.
pub fn prepare(
    config: &Config,
    daemon: bool,
    supervisor: Supervisor,
) -> Result<Started, SystemError> {
    let Supervisor {
        notifier,
        mut passed,
    } = supervisor;
    let paths = Paths::of(config)?;
    let places = net::places(config)?;
    let marks = match take_marks(&places, paths.socket.as_deref())? {
        Ok(marks) => marks,
        Err(place) => {
            return Ok(Started::Already(format!(
                "{place}: a magent is already running"
            )))
        }
    };
    let config = &named(config, &paths)?;
    let identity = Identity::resolve(config.user.as_deref(), config.group.as_deref())?;
    let mut addresses = resolve("-s", &config.servers)?;
    addresses.extend(resolve("-b", &config.backups)?);

    let logs = Logs::open(
        paths.log_file.as_deref(),
        daemon,
        config.verbose,
        identity.owner(),
    )?;
    let warned = daemon || paths.log_file.is_some();
    raise_limit(config, places.len(), warned);
    tell_copies(config);
    let pidfile = paths.pidfile.as_deref().map(PidFile::create).transpose()?;
    net::check_passed(&passed, &places, paths.socket.as_deref())?;
    let mut listeners = Listeners::default();
    for place in &places {
        listeners.add_tcp(place, &mut passed, &marks)?;
    }
    if let Some(path) = &paths.socket {
        listeners.add_unix(path, &mut passed, identity.owner())?;
    }

    let admin = config.admin.map(net::admin::open).transpose()?;

    identity.assume()?;
    let parts = Parts {
        listeners,
        admin,
        addresses,
        marks,
        logs,
        notifier,
    };
    let server =
        Server::new(config, parts).map_err(|error| SystemError::io("event loop", &error))?;
    Ok(Started::Ready(Box::new(Running {
        server,
        _pidfile: pidfile,
    })))
}

/// The paths of the command line, made absolute while the working directory is still the user's.
struct Paths {
    socket: Option<PathBuf>,
    pidfile: Option<PathBuf>,
    log_file: Option<PathBuf>,
}

impl Paths {
    fn of(config: &Config) -> Result<Paths, SystemError> {
        let absolute = |option: &str, path: &Option<PathBuf>| {
            let path = path.as_deref().map(std::path::absolute).transpose();
            path.map_err(|error| SystemError::io(option, &error))
        };
        Ok(Paths {
            socket: absolute("-f", &config.socket)?,
            pidfile: absolute("--pidfile", &config.pidfile)?,
            log_file: absolute("--log-file", &config.log_file)?,
        })
    }
}

/// The configuration with a proxy id: the given one, or one made of where the proxy runs and listens.
fn named(config: &Config, paths: &Paths) -> Result<Config, SystemError> {
    let mut config = config.clone();
    if config.proxy_id.is_empty() {
        let host = sys::host_name().map_err(|error| SystemError::io("--proxy-id", &error))?;
        config.proxy_id = default_proxy_id(&host, &config, paths.socket.as_deref());
    }
    Ok(config)
}

/// Host name and first address as given: the same after a restart, and not the same as another proxy's. The addresses
/// alone would not do, as that of `-l` moves between two nodes.
fn default_proxy_id(host: &str, config: &Config, socket: Option<&Path>) -> String {
    let place = match (config.port, socket, config.listen.first()) {
        (0, Some(path), _) => path.to_string_lossy().into_owned(),
        (port, _, None) => format!("*:{port}"),
        (port, _, Some(v6)) if v6.contains(':') => format!("[{v6}]:{port}"),
        (port, _, Some(address)) => format!("{address}:{port}"),
    };
    let whole = format!("{host}/{place}");
    let plain = whole.bytes().all(|byte| byte.is_ascii_graphic());
    if plain && whole.len() <= PROXY_ID_MAX {
        return whole;
    }
    // What has to be changed to fit could become another's; the hash of the whole keeps them apart.
    let hash = format!("~{:08x}", djb31(whole.as_bytes()));
    let kept = whole.chars().take(PROXY_ID_MAX - hash.len());
    let plain = kept.map(|letter| match letter {
        '!'..='~' => letter,
        _ => '_',
    });
    plain.collect::<String>() + &hash
}

/// Takes the marks of all places; `Err` is the place that a running magent holds.
fn take_marks(
    places: &[Place],
    socket: Option<&Path>,
) -> Result<Result<Marks, String>, SystemError> {
    let mut marks = Marks::default();
    for place in places {
        let name = instance::tcp_mark(&place.address);
        if take(&mut marks, &name, &place.asked)? == Taken::Theirs {
            return Ok(Err(place.asked.clone()));
        }
    }
    let Some(path) = socket else {
        return Ok(Ok(marks));
    };
    let asked = format!("-f {}", path.display());
    let name = instance::socket_mark(path).map_err(|error| SystemError::io(&asked, &error))?;
    match take(&mut marks, &name, &asked)? {
        Taken::Ours => Ok(Ok(marks)),
        Taken::Theirs if places.is_empty() => Ok(Err(asked)),
        // The ports are free, so that one is not this one called again: an exit with 0 would hide a mistake.
        Taken::Theirs => Err(SystemError::new(
            asked,
            "already in use by a magent with other options",
        )),
    }
}

fn take(marks: &mut Marks, name: &str, asked: &str) -> Result<Taken, SystemError> {
    let failed = |error: io::Error| SystemError::io(asked, &error);
    let taken = marks.take(name).map_err(failed)?;
    if taken == Taken::Ours {
        return Ok(taken);
    }
    thread::sleep(SECOND_LOOK);
    marks.take(name).map_err(failed)
}

fn resolve(option: &str, specs: &[ServerSpec]) -> Result<Vec<Addresses>, SystemError> {
    specs
        .iter()
        .map(|spec| Addresses::resolve(option, spec))
        .collect()
}

fn raise_limit(config: &Config, listeners: usize, also_on_stderr: bool) {
    let needed = net::descriptors_needed(config, listeners);
    let Err(limit) = limits::raise_open_files(needed) else {
        return;
    };
    let clients = limit.saturating_sub(needed.saturating_sub(config.max_conns as u64));
    let text = format!(
        "-n {} needs {needed} open files, but only {limit} are allowed (ulimit -n): room for {clients} clients",
        config.max_conns
    );
    log::warn!("{text}");
    if also_on_stderr {
        // Nobody need listen; the log has it.
        let _ = writeln!(io::stderr(), "magent: {text}");
    }
}

/// Which way it is with several backups: magent 0.6 wrote each key to one of them.
fn tell_copies(config: &Config) {
    let backups = config.backups.len();
    if backups > 1 {
        match config.copies {
            Copies::AtMost(copies) if copies < backups => {
                log::info!(
                    "each key is copied to {copies} of {backups} backups (--copies {copies})"
                );
            }
            _ => log::info!("each key is copied to all {backups} backups (--copies all)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(host: &str, port: u16, listen: &[&str], socket: Option<&str>) -> String {
        let config = Config {
            port,
            listen: listen.iter().map(ToString::to_string).collect(),
            ..Config::default()
        };
        default_proxy_id(host, &config, socket.map(Path::new))
    }

    #[test]
    fn a_proxy_is_called_by_its_host_and_address() {
        assert_eq!(id("n1", 11211, &[], None), "n1/*:11211");
        assert_eq!(
            id("n1", 12000, &["10.0.0.1", "::1"], Some("/s")),
            "n1/10.0.0.1:12000"
        );
        assert_eq!(id("n1", 12000, &["::1"], None), "n1/[::1]:12000");
        assert_eq!(id("n1", 0, &["::1"], Some("/run/m.sock")), "n1//run/m.sock");
    }

    #[test]
    fn a_name_that_does_not_fit_stays_distinct() {
        let long = "é".repeat(100);
        let names = [
            id(&"h".repeat(64), 1, &[], None),
            id(&"h".repeat(64), 2, &[], None),
            id(&"h".repeat(63), 1, &[], None),
            id("n1", 0, &[], Some(&format!("/run/a b/{long}/1"))),
            id("n1", 0, &[], Some(&format!("/run/a b/{long}/2"))),
            id("a b", 1, &[], None),
            id("a_b", 1, &[], None),
        ];
        for (index, name) in names.iter().enumerate() {
            assert!((1..=PROXY_ID_MAX).contains(&name.len()), "{name}");
            assert!(name.bytes().all(|byte| byte.is_ascii_graphic()), "{name}");
            assert!(!names[..index].contains(name), "{name}");
        }
    }
}
