//! All tests with real processes, in one program: it is built once, and the tests wait side by side.
//!
//! `cargo test --test all reload::` runs those of `tests/reload.rs`. A new file has to be named here. The simulator, which
//! computes instead of waiting, is a program of its own.

mod admin;
mod aside;
mod binary;
mod chaos;
mod check;
mod clients;
mod common;
mod config_file;
mod documents;
mod drill;
mod drills;
mod eject;
mod examples;
mod exchange;
mod explicit_cas;
mod failures;
mod front_door;
mod full_link;
mod fuzz_exchange;
mod guide;
mod ha;
mod identity;
mod large;
mod late;
mod limits;
mod lists;
mod mirror;
mod mutants;
mod old_servers;
mod options;
mod packaging;
mod page;
mod placement;
mod process;
mod relapses;
mod reload;
mod render;
mod returns;
mod robust;
mod servers;
mod shipped_scripts;
mod stats;
mod supervisor;
mod takeover;
mod twemproxy;
mod twemproxy_placement;
mod verify;
mod views;
mod vip;
