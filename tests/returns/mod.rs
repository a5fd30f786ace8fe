//! Servers that die, stop and come back: nothing acknowledged is lost, nothing stale is read. All on real servers.
//!
//! `empty`: they come back without anything; `stopped`: with all that they had; `takeover`: to another proxy than the one
//! that saw them go; `options`: what the options make of it.

mod empty;
mod options;
mod stopped;
mod takeover;
