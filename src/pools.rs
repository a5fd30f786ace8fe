//! From what was asked for to pools that can be opened: reads the file of `-c`, makes paths absolute, gives each pool a
//! name to sign with, and resolves the names of hosts. Opens nothing.

pub mod doubts;

use std::fmt;
use std::path::{Path, PathBuf};

use crate::config::file::{self, Mistake};
use crate::config::{Config, ServerSpec, PROXY_ID_MAX};
use crate::hash::djb31;
use crate::net::{self, Addresses, Place};
use crate::sys::{self, SystemError};

/// Larger files are not read: a thousand pools of a thousand servers fit.
const FILE_MAX: u64 = 64 << 20;

/// Why there are no pools.
#[derive(Debug)]
pub enum Failure {
    /// The file could not be read, or a name not be resolved.
    System(SystemError),
    /// The file says something wrong.
    Mistakes(PathBuf, Vec<Mistake>),
}

impl From<SystemError> for Failure {
    fn from(error: SystemError) -> Failure {
        Failure::System(error)
    }
}

impl fmt::Display for Failure {
    /// One line for each mistake: `FILE:LINE:COLUMN: 'text': what is wrong`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, mistakes) = match self {
            Failure::System(error) => return error.fmt(f),
            Failure::Mistakes(path, mistakes) => (path, mistakes),
        };
        for (index, mistake) in mistakes.iter().enumerate() {
            let end = if index > 0 { "\n" } else { "" };
            write!(f, "{end}{}:{mistake}", path.display())?;
        }
        Ok(())
    }
}

/// The pools that `process` asks for: those of its file, or itself.
pub fn read(process: &Config) -> Result<Vec<Config>, Failure> {
    let Some(path) = &process.file else {
        return Ok(vec![process.clone()]);
    };
    let what = format!("-c {}", path.display());
    let bytes = sys::read_plain(path, FILE_MAX).map_err(|error| SystemError::io(what, &error))?;
    file::parse(&bytes, process).map_err(|mistakes| Failure::Mistakes(path.clone(), mistakes))
}

/// A pool that only has to be opened.
pub struct Plan {
    /// What it is; the paths in it are absolute, its proxy id is set.
    pub config: Config,
    /// Where it listens by TCP.
    pub places: Vec<Place>,
    /// Where its servers are: primaries, then backups.
    pub addresses: Vec<Addresses>,
}

impl Plan {
    /// At how many places it listens.
    pub fn listeners(&self) -> usize {
        self.places.len() + usize::from(self.config.socket.is_some())
    }
}

/// What these pools need to be opened. Waits for names to be resolved.
pub fn plan(pools: Vec<Config>) -> Result<Vec<Plan>, SystemError> {
    pools.into_iter().map(plan_one).collect()
}

fn plan_one(mut config: Config) -> Result<Plan, SystemError> {
    let asked = config
        .socket
        .as_ref()
        .map(|path| net::asked_unix(&config, path));
    if let Some((path, asked)) = config.socket.take().zip(asked) {
        let absolute = std::path::absolute(&path);
        config.socket = Some(absolute.map_err(|error| SystemError::io(asked, &error))?);
    }
    name(&mut config)?;
    let places = net::places(&config)?;
    let (servers, backups) = match &config.pool {
        Some(pool) => (
            format!("pool '{pool}': servers:"),
            format!("pool '{pool}': backups:"),
        ),
        None => ("-s".to_owned(), "-b".to_owned()),
    };
    let mut addresses = resolve(&servers, &config.servers)?;
    addresses.extend(resolve(&backups, &config.backups)?);
    let plan = Plan {
        config,
        places,
        addresses,
    };
    // Each request would come back to it, until it has no descriptors left.
    match doubts::is_itself(&plan) {
        Some(wrong) => Err(SystemError::said(wrong)),
        None => Ok(plan),
    }
}

fn resolve(option: &str, specs: &[ServerSpec]) -> Result<Vec<Addresses>, SystemError> {
    specs
        .iter()
        .map(|spec| Addresses::resolve(option, spec))
        .collect()
}

/// Sets the pool's proxy id: the given one, or one made of where the proxy runs and listens.
fn name(config: &mut Config) -> Result<(), SystemError> {
    if config.proxy_id.is_empty() {
        let host = sys::host_name().map_err(|error| SystemError::io("--proxy-id", &error))?;
        config.proxy_id = default_proxy_id(&host, config, config.socket.as_deref());
    }
    Ok(())
}

/// Host name and first address as given: the same after a restart, and not the same as another proxy's. The addresses
/// alone would not do, as that of `-l` moves between two nodes.
fn default_proxy_id(host: &str, config: &Config, socket: Option<&Path>) -> String {
    let first = config.listen_at.first();
    let at = |host: &str, port: u16| match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    };
    let place = match (config.port, socket, config.listen.first(), first) {
        (_, _, _, Some((host, port))) => at(host, *port),
        (0, Some(path), _, _) => path.to_string_lossy().into_owned(),
        (port, _, None, _) => format!("*:{port}"),
        (port, _, Some(address), _) => at(address, port),
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
