//! Schedules that have found something once: they stay mended.
//!
//! A seed names its schedule as long as nothing else is drawn before: whoever changes what is drawn looks for others (sweep
//! with the commit that mended the bug undone).

use super::profile::Profile;
use super::sabotage::Sabotage;
use super::sweep::run;

/// Profile, seed, requests, and what was wrong.
const MENDED: [(Profile, u64, u64, &str); 23] = [
    // In the core.
    (
        Profile::Slow,
        532,
        2000,
        "a late decision was asked for again, though its client had its answer",
    ),
    (
        Profile::Slow,
        46,
        2000,
        "half an answer stayed on the account when its server was lost",
    ),
    (Profile::Garbage, 46, 400, "the same"),
    (
        Profile::Takeover,
        64,
        2000,
        "a listing overtook a write that had left its target out",
    ),
    (Profile::Takeover, 2127, 400, "the same"),
    (
        Profile::Takeover,
        862,
        400,
        "servers were flushed that lacked nothing but the stamp of a proxy which had died",
    ),
    (Profile::Takeover, 1905, 400, "the same, with --copies 1"),
    (
        Profile::Takeover,
        1547,
        400,
        "a server that another proxy had let into the view was left out of it unsaid",
    ),
    (
        Profile::Takeover,
        1194,
        400,
        "a server that a new proxy found stopped was used before it had gone through its old commands",
    ),
    (
        Profile::Takeover,
        771_332,
        400,
        "a stopped server without items was taken for one that had started anew",
    ),
    (
        Profile::Return,
        3_000_136,
        400,
        "a server that was lost before a conditional write was decided was not noted",
    ),
    (
        Profile::Pieces,
        136,
        400,
        "the last piece of a value was taken for the END behind it",
    ),
    (Profile::Pieces, 1577, 400, "the same"),
    (
        Profile::FramesTakeover,
        24_113,
        400,
        "a proxy whose address had moved copied a key behind what its successor wrote",
    ),
    (
        Profile::Overlap,
        19,
        400,
        "a key was brought to a server that had started anew before it was asked again",
    ),
    // In the simulator.
    (
        Profile::Takeover,
        1630,
        400,
        "a second server went while a machine was gone",
    ),
    (
        Profile::Takeover,
        4_001_125,
        400,
        "the refusal of what is too large was taken for a deletion",
    ),
    (
        Profile::Return,
        770_898,
        400,
        "a time to live that had lost a second three times was taken for a wrong one",
    ),
    (
        Profile::Eject,
        3_000_258,
        400,
        "clients stopped before all was whole",
    ),
    (
        Profile::Calm,
        5_500_036,
        2000,
        "a version that was shown while nothing was known counted as never shown",
    ),
    (
        Profile::Calm,
        6_500_322,
        2000,
        "the same, without an answer",
    ),
    (
        Profile::Calm,
        6_500_435,
        2000,
        "what its client had given up lingered longer than the check believed",
    ),
    (
        Profile::Calm,
        7_500_096,
        2000,
        "a refusal was believed to tell a version",
    ),
];

#[test]
fn what_was_mended_stays_so() {
    for (profile, seed, steps, what) in MENDED {
        let outcome = run(profile, seed, steps, Sabotage::none()).outcome;
        assert_eq!(outcome, Ok(()), "{profile:?}, seed {seed}: {what}");
    }
}
