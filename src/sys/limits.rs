//! How many files the process may have open, and how much CPU time it has used.

use nix::errno::Errno;
use nix::sys::resource::{getrlimit, getrusage, rlim_t, setrlimit, Resource, UsageWho};
use nix::sys::time::TimeVal;

/// Raises the limit of open files to `needed`; the hard limit too, where that is permitted.
///
/// What could not be had is returned as the limit that holds now.
pub fn raise_open_files(needed: u64) -> Result<(), u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(|_| 0u64)?;
    let needed: rlim_t = needed;
    if soft >= needed {
        return Ok(());
    }
    let set = |soft, hard| -> Result<(), Errno> { setrlimit(Resource::RLIMIT_NOFILE, soft, hard) };
    if set(needed, hard.max(needed)).is_ok() {
        return Ok(());
    }
    // Not even root may go above fs.nr_open; and without root the hard limit is the end.
    let best = system_limit().filter(|&most| most > hard && set(most, most).is_ok());
    match best {
        Some(most) => Err(most),
        None if set(hard, hard).is_ok() => Err(hard),
        None => Err(soft),
    }
}

/// How many files this process may have open.
pub fn open_files() -> u64 {
    getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft)
}

fn system_limit() -> Option<rlim_t> {
    let text = std::fs::read_to_string("/proc/sys/fs/nr_open").ok()?;
    text.trim().parse().ok()
}

/// User and system CPU time of this process so far, in microseconds.
pub fn cpu_time() -> (u64, u64) {
    let micros = |time: TimeVal| {
        let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
        seconds * 1_000_000 + u64::try_from(time.tv_usec()).unwrap_or(0)
    };
    match getrusage(UsageWho::RUSAGE_SELF) {
        Ok(usage) => (micros(usage.user_time()), micros(usage.system_time())),
        Err(_) => (0, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_fits_is_left_alone() {
        let before = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        assert_eq!(raise_open_files(1), Ok(()));
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), before);
    }
}
