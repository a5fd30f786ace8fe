//! How many descriptors the pools need. Where the system allows fewer, clients have to do with less: a proxy whose clients
//! hold all descriptors could not reach its servers again, nor open its log.

use super::linger::LINGER_MAX;
use super::token;
use crate::config::Config;
use crate::pools::Plan;
use crate::sys::limits;

/// Descriptors besides clients, links and listeners: standard streams, epoll, signals, netlink, the supervisor, log,
/// pid file, marks, and what the C library opens to resolve names.
const SPARE: usize = 62 + token::ADMIN_CONNS;
/// What of those a small process has to do with.
const SPARE_MIN: usize = 16;
/// The same for each pool: its hold on the epoll, netlink.
const EACH: usize = 2;

/// Places for connections to each server: the ones of `-i`, and one that lists keys in the background now and then.
pub(super) fn links_each(config: &Config) -> usize {
    config.server_conns + 1
}

/// How many connections of refused clients may linger in each pool, where `limit` files may be open.
pub(super) fn linger_max(limit: u64) -> usize {
    limit.div_ceil(16).clamp(8, LINGER_MAX as u64) as usize
}

/// Allows this process as many open files as these pools need. Where it cannot be that many, `max_conns` of each is lowered in
/// proportion, to one at least, and the text for the log is returned.
pub fn provide(plans: &mut [Plan]) -> Option<String> {
    let listeners = plans.iter().map(Plan::listeners).sum();
    let mut configs: Vec<&mut Config> = plans.iter_mut().map(|plan| &mut plan.config).collect();
    let needed = needed(&configs, listeners);
    let limit = limits::raise_open_files(needed).err()?;
    let most: usize = configs.iter().map(|config| config.max_conns).sum();
    let fits = fit(&mut configs, listeners, limit);
    Some(format!(
        "-n {most} needs {needed} open files, but only {limit} are allowed (ulimit -n): room for {fits} clients"
    ))
}

fn needed(configs: &[&mut Config], listeners: usize) -> u64 {
    let clients: usize = configs.iter().map(|config| config.max_conns).sum();
    let lingering = configs.len() * LINGER_MAX;
    (clients + lingering + fixed(configs, listeners) + SPARE) as u64
}

fn fixed(configs: &[&mut Config], listeners: usize) -> usize {
    let each = |config: &&mut Config| {
        (config.servers.len() + config.backups.len()) * links_each(config) + EACH
    };
    // A listener has a mark.
    configs.iter().map(each).sum::<usize>() + 2 * listeners
}

/// Lowers `max_conns` until all fits: how many clients that is.
fn fit(configs: &mut [&mut Config], listeners: usize, limit: u64) -> usize {
    let most = configs.iter().map(|config| config.max_conns).sum::<usize>();
    let spare = (limit / 4).clamp(SPARE_MIN as u64, SPARE as u64) as usize;
    let others = fixed(configs, listeners) + spare + configs.len() * linger_max(limit);
    let room = usize::try_from(limit).unwrap_or(usize::MAX);
    let room = room.saturating_sub(others).min(most);
    let mut fits = 0;
    for config in configs {
        let share = config.max_conns as u128 * room as u128 / most.max(1) as u128;
        config.max_conns = (share as usize).max(1);
        fits += config.max_conns;
    }
    fits
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::args::{self, Parsed};

    fn config(line: &str) -> Box<Config> {
        match args::parse(line.split(' ').map(Into::into)) {
            Ok(Parsed::Run(config)) => config,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn descriptors_for_each_connection_that_there_may_be() {
        let needed = |line: &str| needed(&[&mut *config(line)], 3);
        let fixed = 6 + (LINGER_MAX + SPARE + EACH) as u64;
        assert_eq!(needed("-n 100 -s a"), fixed + 100 + 2);
        assert_eq!(needed("-n 100 -s a -s b -b c -i 4"), fixed + 100 + 15);
    }

    #[test]
    fn clients_get_what_the_rest_leaves() {
        for limit in [64, 256, 1024, 20_000] {
            let (mut first, mut second) = (config("-n 51200 -s a"), config("-n 25600 -s a -b b"));
            let fits = fit(&mut [&mut first, &mut second], 2, limit);
            assert_eq!(fits, first.max_conns + second.max_conns);
            assert!(first.max_conns.abs_diff(2 * second.max_conns) <= 2);
            // What is needed with so many clients, at this limit.
            let spare = (limit / 4).clamp(SPARE_MIN as u64, SPARE as u64) as usize;
            let all = fits + 2 * linger_max(limit) + fixed(&[&mut first, &mut second], 2) + spare;
            assert!(all as u64 <= limit, "{all} of {limit}");
            assert!(all as u64 + 2 >= limit, "{all} of {limit}");
        }
        let mut alone = config("-n 100 -s a");
        assert_eq!(fit(&mut [&mut alone], 1, 10), 1, "never none");
        let mut roomy = config("-n 100 -s a");
        assert_eq!(fit(&mut [&mut roomy], 1, 100_000), 100);
    }
}
