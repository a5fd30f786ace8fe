//! Figures of the process that Prometheus' own libraries export for every program, under the same names.

/// What the edge can tell of the process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Facts {
    /// Memory in RAM, in bytes.
    pub resident_bytes: u64,
    /// Address space, in bytes.
    pub virtual_bytes: u64,
    /// Open descriptors.
    pub open_fds: u64,
    /// How many there may be.
    pub max_fds: u64,
    /// Lines of the log that were dropped, as they were not taken in time.
    pub log_dropped: u64,
}

/// Looks at the process now.
pub type OutsideFacts = fn() -> Facts;
