//! What the kernel knows of this process.

use std::fs;

use crate::admin::Facts;

/// Looks into `/proc/self`; what cannot be read is 0.
pub fn of_this_process() -> Facts {
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let mut pages = statm.split(' ').map(|word| word.parse().unwrap_or(0));
    let page = page_size();
    let (all, resident): (u64, u64) = (pages.next().unwrap_or(0), pages.next().unwrap_or(0));
    Facts {
        resident_bytes: resident * page,
        virtual_bytes: all * page,
        // The folder's own descriptor is one of them.
        open_fds: fs::read_dir("/proc/self/fd")
            .map_or(0, |entries| entries.count().saturating_sub(1) as u64),
        max_fds: super::limits::open_files(),
        log_dropped: super::log::dropped(),
    }
}

fn page_size() -> u64 {
    // SAFETY: sysconf only reads a number.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(size).unwrap_or(4096)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_memory_and_descriptors() {
        let facts = of_this_process();
        assert!(facts.resident_bytes > 1 << 20, "{facts:?}");
        assert!(facts.virtual_bytes > facts.resident_bytes, "{facts:?}");
        assert!(
            facts.open_fds >= 3 && facts.open_fds <= facts.max_fds,
            "{facts:?}"
        );
    }
}
