//! Counters, named as memcached names them where memcached has them.

use crate::proto::response::Code;
use crate::proto::Verb;

/// Everything that is counted for `stats`.
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs)]
pub struct Counters {
    pub total_connections: u64,
    pub rejected_connections: u64,
    pub bytes_read: u64,
    pub bytes_written: u64,
    /// Keys asked for, as memcached counts.
    pub cmd_get: u64,
    pub cmd_set: u64,
    pub cmd_flush: u64,
    pub cmd_touch: u64,
    pub cmd_meta: u64,
    pub get_hits: u64,
    pub get_misses: u64,
    pub delete_hits: u64,
    pub delete_misses: u64,
    pub incr_hits: u64,
    pub incr_misses: u64,
    pub decr_hits: u64,
    pub decr_misses: u64,
    pub cas_hits: u64,
    pub cas_misses: u64,
    pub cas_badval: u64,
    pub touch_hits: u64,
    pub touch_misses: u64,
    pub store_too_large: u64,
    /// Refused over `--memory-limit`.
    pub store_no_memory: u64,
    /// Keys read from another copy than the first.
    pub failovers: u64,
    /// Clients that were closed as half requests took too much memory.
    pub halves_closed: u64,
    /// Requests whose turn at a full server did not come in time.
    pub refused_full: u64,
    /// Keys that no copy could be asked for; the client saw a miss.
    pub failed_reads: u64,
    /// Clients whose connection was given up in the middle of a long value.
    pub cut_off: u64,
    /// Long values that clients did not read, to be asked for again.
    pub set_aside: u64,
    /// How often all that was under way was forgotten, as the process had stood still.
    pub begun_anew: u64,
    /// Writes that no copy could take, or whose outcome is unknown.
    pub failed_writes: u64,
    /// Writes that reached further copies.
    pub mirrored: u64,
    /// Writes that left out a copy, each copy counted.
    pub degraded_writes: u64,
    /// Writes that went to another primary than the key's own.
    pub ejected_writes: u64,
    /// Deletions of keys where they did not belong any more.
    pub ejected_deletes: u64,
    /// How often a view was raised.
    pub views_raised: u64,
    /// Returning servers that were flushed.
    pub entry_flushes: u64,
    /// Keys deleted on a copy that differed.
    pub heals: u64,
    /// Keys brought from one copy to another.
    pub refills: u64,
    /// Keys not brought over, because a write had passed.
    pub refills_cancelled: u64,
    /// Copies that answered a mirrored write otherwise than the acting primary.
    pub disagreements: u64,
    /// Operations that waited for an undecided one on the same key.
    pub held: u64,
    /// Keys brought over from where they were before a reload.
    pub handed_over: u64,
}

/// What came of requests, by command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum Outcome {
    /// Keys found.
    Hit,
    /// Keys not found, or not there to be changed.
    Miss,
    /// Done.
    Ok,
    /// The condition did not hold.
    NotStored,
    /// The CAS token was another one.
    Exists,
    /// A server's error, or nobody to ask.
    Error,
}

impl Outcome {
    /// All of them, in the order of their numbers.
    pub const ALL: [Outcome; 6] = [
        Outcome::Hit,
        Outcome::Miss,
        Outcome::Ok,
        Outcome::NotStored,
        Outcome::Exists,
        Outcome::Error,
    ];

    /// The word for metrics.
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Hit => "hit",
            Outcome::Miss => "miss",
            Outcome::Ok => "ok",
            Outcome::NotStored => "not_stored",
            Outcome::Exists => "exists",
            Outcome::Error => "error",
        }
    }

    /// What the code of a reply comes to.
    pub fn of(code: Code) -> Outcome {
        match code {
            Code::Value | Code::MetaValue | Code::Number => Outcome::Hit,
            Code::NotFound | Code::MetaMiss | Code::MetaNotFound => Outcome::Miss,
            Code::NotStored | Code::MetaNotStored => Outcome::NotStored,
            Code::Exists | Code::MetaExists => Outcome::Exists,
            code if code.is_error() || code == Code::Nonsense => Outcome::Error,
            _ => Outcome::Ok,
        }
    }
}

/// Requests by command and outcome, and how long servers took for each command.
#[derive(Clone, Debug)]
pub struct Commands {
    counts: [[u64; Outcome::ALL.len()]; Verb::ALL.len()],
    latency: [Latency; Verb::ALL.len()],
}

impl Default for Commands {
    fn default() -> Commands {
        Commands {
            counts: [[0; Outcome::ALL.len()]; Verb::ALL.len()],
            latency: [Latency::default(); Verb::ALL.len()],
        }
    }
}

impl Commands {
    /// Notes `count` requests of keys, or for a write requests.
    pub fn count(&mut self, verb: Verb, outcome: Outcome, count: u64) {
        self.counts[verb as usize][outcome as usize] += count;
    }

    /// Notes the time of one answer.
    pub fn note(&mut self, verb: Verb, micros: u64) {
        self.latency[verb as usize].note(micros);
    }

    /// See [`Commands::count`].
    pub fn counted(&self, verb: Verb, outcome: Outcome) -> u64 {
        self.counts[verb as usize][outcome as usize]
    }

    /// See [`Commands::note`].
    pub fn latency(&self, verb: Verb) -> &Latency {
        &self.latency[verb as usize]
    }
}

/// How long answers took: a histogram by powers of two of microseconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Latency {
    counts: [u64; 32],
    total: u64,
    sum: u64,
}

impl Latency {
    /// Notes one answer that took `micros` microseconds.
    pub fn note(&mut self, micros: u64) {
        let bucket = (64 - micros.saturating_sub(1).leading_zeros()).min(31) as usize;
        self.counts[bucket] += 1;
        self.total += 1;
        self.sum += micros;
    }

    /// How many took at most 2^n microseconds but more than 2^(n-1), for n from 0.
    pub fn buckets(&self) -> &[u64; 32] {
        &self.counts
    }

    /// How many there were.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Microseconds of all together.
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// The time in microseconds that `percent` of the answers stayed below (within a factor of two); 0 without any.
    pub fn percentile(&self, percent: u64) -> u64 {
        let wanted = (self.total * percent).div_ceil(100);
        let mut seen = 0;
        for (bucket, &count) in self.counts.iter().enumerate() {
            seen += count;
            if count > 0 && seen >= wanted {
                return 1 << bucket;
            }
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use super::Latency;

    #[test]
    fn percentiles_are_upper_bounds() {
        let mut latency = Latency::default();
        assert_eq!(latency.percentile(50), 0);
        for _ in 0..99 {
            latency.note(100);
        }
        latency.note(5000);
        assert_eq!(latency.percentile(50), 128);
        assert_eq!(latency.percentile(100), 8192);
    }
}
