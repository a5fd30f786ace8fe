//! The order of a start. It is what keeps a second start harmless and the rights right:
//!
//! 1. where to listen (names of `-l`), and the marks: is a magent running there already?
//! 2. users, servers' names: all that can be wrong without opening anything
//! 3. what may need root: log, limits, pid file, sockets
//! 4. give root up, and only then touch a byte from the network

mod second;

use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use crate::config::{Config, Copies};
use crate::net::{self, Parts, Place, Server};
use crate::pools::{self, doubts, Plan};
use crate::sys::activation::Passed;
use crate::sys::instance::{self, Marks, Taken};
use crate::sys::log::Logs;
use crate::sys::notify::Notifier;
use crate::sys::pidfile::PidFile;
use crate::sys::takeover::{self, Handed, Pair};
use crate::sys::user::Identity;
use crate::sys::SystemError;

/// A mark may belong to a magent that was told to end a moment ago.
const SECOND_LOOK: Duration = Duration::from_millis(50);

/// What came of a start.
pub enum Started {
    /// Everything that can fail has succeeded.
    Ready(Box<Running>),
    /// A magent holds that place already.
    Already {
        /// Which place.
        text: String,
        /// What that magent does otherwise than this one was told to.
        but: Vec<String>,
    },
}

impl Started {
    fn already(place: &str, plans: &[Plan]) -> Started {
        Started::Already {
            text: format!("{place}: a magent is already running"),
            but: second::differences(plans),
        }
    }
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
}

impl Running {
    /// Serves until a signal ends it.
    pub fn run(&mut self) -> Result<(), SystemError> {
        self.server
            .run()
            .map_err(|error| SystemError::io("event loop", &error))
    }
}

/// Does everything that can fail. `pools`: what [`crate::pools::read`] found. `daemon`: the process is in the background, its
/// stderr soon gone.
pub fn prepare(
    process: &Config,
    pools: Vec<Config>,
    daemon: bool,
    supervisor: Supervisor,
) -> Result<Started, SystemError> {
    let Supervisor {
        notifier,
        mut passed,
    } = supervisor;
    let paths = Paths::of(process)?;
    let mut plans = pools::plan(pools)?;
    // A running magent comes first: nothing else of a second start matters.
    let identity = Identity::resolve(process.user.as_deref(), process.group.as_deref());
    let believed = identity
        .as_ref()
        .ok()
        .and_then(|identity| identity.owner().0);
    let mut heritage = Heritage::default();
    if process.takeover {
        heritage = Heritage::ask(&plans)?;
    }
    let mut marks = match take_marks(&plans, std::mem::take(&mut heritage.marks), believed)? {
        Ok(marks) => marks,
        Err(place) if second::is_out_of_reach(&plans) => {
            // Nobody can come to it any more, and without this one nobody would be served.
            tell(&format!(
                "{place}: the file is gone, this magent takes the place of the one that runs"
            ));
            heritage = Heritage::ask(&plans)?;
            match take_marks(&plans, std::mem::take(&mut heritage.marks), believed)? {
                Ok(marks) => marks,
                Err(place) => return Ok(Started::already(&place, &plans)),
            }
        }
        Err(place) => return Ok(Started::already(&place, &plans)),
    };
    let identity = identity?;
    let logs = Logs::open(
        paths.log_file.as_deref(),
        daemon,
        process.verbose,
        process.log_format,
        identity.owner(),
    )?;
    let warned = daemon || paths.log_file.is_some();
    raise_limit(&mut plans, warned);
    for plan in &plans {
        tell_copies(&plan.config);
        doubts::of_plan(plan)
            .iter()
            .for_each(|text| warn(text, warned));
    }
    let pidfile = match (paths.pidfile.as_deref(), heritage.pidfile) {
        (Some(path), Some(inherited)) if inherited.path() == path => Some(inherited),
        (path, _) => path
            .map(|path| PidFile::create(path, identity.owner()))
            .transpose()?,
    };
    check_passed(&passed, &plans)?;
    heritage
        .listeners
        .into_iter()
        .for_each(|listener| passed.inherit(listener));
    let mut pools = Vec::with_capacity(plans.len());
    for plan in plans {
        pools.push(net::open(plan, &mut passed, &marks, identity.owner())?);
    }

    marks.keep(&marks_of(&pools));
    let admin = process.admin.as_ref();
    let admin = admin.map(|at| net::admin::open(at, heritage.admin));
    let admin = admin.transpose()?;

    identity.assume()?;
    let parts = Parts {
        pools,
        admin,
        marks,
        logs,
        notifier,
        process: Config {
            file: paths.file,
            ..process.clone()
        },
        pidfile,
        predecessor: heritage.pair,
    };
    let server = Server::new(parts).map_err(|error| SystemError::io("event loop", &error))?;
    Ok(Started::Ready(Box::new(Running { server })))
}

/// The marks of all places; one that was handed over may have had more.
fn marks_of(pools: &[net::PoolParts]) -> Vec<String> {
    let spots = pools.iter().flat_map(|pool| pool.listeners.spots());
    spots.filter_map(|spot| net::mark_of(&spot).ok()).collect()
}

/// What a magent whose place is taken has handed over.
#[derive(Default)]
struct Heritage {
    pair: Option<Pair>,
    marks: Marks,
    listeners: Vec<OwnedFd>,
    admin: Option<OwnedFd>,
    pidfile: Option<PidFile>,
}

impl Heritage {
    /// Asks the magent that listens where these pools are to listen, if there is one.
    fn ask(plans: &[Plan]) -> Result<Heritage, SystemError> {
        let places = plans.iter().flat_map(|plan| &plan.places);
        let mut names: Vec<String> = places
            .map(|place| instance::tcp_mark(&place.address))
            .collect();
        let sockets = plans
            .iter()
            .filter_map(|plan| plan.config.socket.as_deref());
        names.extend(sockets.filter_map(|path| instance::socket_mark(path).ok()));
        let failed = |error| SystemError::io("--takeover", &error);
        for name in names {
            let asked = takeover::ask(&name).map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => SystemError::new(
                    "--takeover",
                    "the magent there hands nothing over (it runs as another user, or is about to end)",
                ),
                io::ErrorKind::WouldBlock => SystemError::new(
                    "--takeover",
                    "the magent there does not answer (it has perhaps just begun, and waits for its servers)",
                ),
                _ => failed(error),
            });
            if let Some((pair, handed)) = asked? {
                return Heritage::of(pair, handed).map_err(failed);
            }
        }
        Ok(Heritage::default())
    }

    fn of(pair: Pair, handed: Vec<Handed>) -> io::Result<Heritage> {
        let mut heritage = Heritage {
            pair: Some(pair),
            ..Heritage::default()
        };
        for (name, fd) in handed {
            if let Some(mark) = name.strip_prefix("mark ") {
                heritage.marks.adopt(mark, fd);
            } else if let Some(path) = name.strip_prefix("pidfile ") {
                heritage.pidfile = Some(PidFile::inherit(Path::new(path), fd)?);
            } else if name == "admin" {
                heritage.admin = Some(fd);
            } else {
                heritage.listeners.push(fd);
            }
        }
        Ok(heritage)
    }
}

fn check_passed(passed: &Passed, plans: &[Plan]) -> Result<(), SystemError> {
    let places = plans.iter().flat_map(|plan| plan.places.iter().cloned());
    let sockets = plans
        .iter()
        .filter_map(|plan| plan.config.socket.as_deref());
    let (places, sockets): (Vec<Place>, Vec<&Path>) = (places.collect(), sockets.collect());
    net::check_passed(passed, &places, &sockets)
}

/// The paths of the command line, made absolute while the working directory is still the user's.
struct Paths {
    file: Option<PathBuf>,
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
            file: absolute("-c", &config.file)?,
            pidfile: absolute("--pidfile", &config.pidfile)?,
            log_file: absolute("--log-file", &config.log_file)?,
        })
    }
}

/// Takes the marks of all places; `Err` is the place that a running magent holds. Where several processes may listen
/// (`reuseport`) there is no mark. `believed`: the user that this process will become; a magent of that user's is one.
fn take_marks(
    plans: &[Plan],
    mut marks: Marks,
    believed: Option<u32>,
) -> Result<Result<Marks, String>, SystemError> {
    marks.trust(believed);
    let places = plans.iter().flat_map(|plan| &plan.places);
    let mut any = false;
    for place in places.filter(|place| !place.reuseport) {
        let name = instance::tcp_mark(&place.address);
        if take(&mut marks, &name, &place.asked)? == Taken::Theirs {
            return Ok(Err(place.asked.clone()));
        }
        any = true;
    }
    for plan in plans {
        let Some(path) = &plan.config.socket else {
            continue;
        };
        let asked = net::asked_unix(&plan.config, path);
        let name = instance::socket_mark(path).map_err(|error| SystemError::io(&asked, &error))?;
        if take(&mut marks, &name, &asked)? == Taken::Theirs {
            if !any {
                return Ok(Err(asked));
            }
            // The ports are free, so that one is not this one called again: an exit with 0 would hide a mistake.
            return Err(SystemError::new(
                asked,
                "already in use by a magent with other options",
            ));
        }
    }
    Ok(Ok(marks))
}

fn take(marks: &mut Marks, name: &str, asked: &str) -> Result<Taken, SystemError> {
    if marks.has(name) {
        return Ok(Taken::Ours);
    }
    let failed = |error: io::Error| SystemError::io(asked, &error);
    let taken = marks.take(name).map_err(failed)?;
    if taken == Taken::Ours {
        return Ok(taken);
    }
    thread::sleep(SECOND_LOOK);
    marks.take(name).map_err(failed)
}

fn raise_limit(plans: &mut [Plan], also_on_stderr: bool) {
    let Some(text) = net::provide_descriptors(plans) else {
        return;
    };
    warn(&text, also_on_stderr);
}

fn warn(text: &str, also_on_stderr: bool) {
    log::warn!("{text}");
    if also_on_stderr {
        tell(text);
    }
}

/// Nobody need listen.
fn tell(text: &str) {
    let _ = writeln!(io::stderr(), "magent: {text}");
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
