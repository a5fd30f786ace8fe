//! The clock of the loop. Nobody can set it, and it goes on while the host is suspended: what was taken in before that must
//! not pass for something that came a moment ago.

use std::time::Duration;

use nix::time::{clock_gettime, ClockId};

use crate::time::Time;

/// Counts from when it was made.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    id: ClockId,
    zero: Duration,
}

impl Clock {
    /// It is 0 now.
    pub fn start() -> Clock {
        // Linux has the first since 2.6.39; a sandbox may still refuse it.
        let id = match clock_gettime(ClockId::CLOCK_BOOTTIME) {
            Ok(_) => ClockId::CLOCK_BOOTTIME,
            Err(_) => ClockId::CLOCK_MONOTONIC,
        };
        let zero = read(id);
        Clock { id, zero }
    }

    /// The time since then.
    pub fn now(&self) -> Time {
        // u64 microseconds last half a million years.
        Time(read(self.id).saturating_sub(self.zero).as_micros() as u64)
    }
}

fn read(id: ClockId) -> Duration {
    // It was read before, so it can be.
    clock_gettime(id).map_or(Duration::ZERO, Duration::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_one_that_counts_suspensions() {
        let clock = Clock::start();
        assert_eq!(clock.id, ClockId::CLOCK_BOOTTIME);
        let before = clock.now();
        std::thread::sleep(Duration::from_millis(5));
        let passed = clock.now().since(before).0;
        assert!((5_000..5_000_000).contains(&passed), "{passed} us");
    }
}
