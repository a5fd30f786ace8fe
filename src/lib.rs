//! magent: a highly available proxy between applications and their memcached servers.
//!
//! The tree, from the inside out:
//! - [`time`], [`buf`], [`hash`], [`proto`], [`plain`]: pure building blocks (time, bytes in transit, placement, protocol, others' words).
//! - [`proxy`]: the core. Bytes and time in, bytes and intentions out; no socket, no clock.
//! - [`config`]: the command line, parsed into types that cannot be wrong.
//! - [`net`]: the edge: the mio event loop, listeners, signals, names.
//! - [`pools`]: what a file or a command line asks for becomes pools that can be opened.
//! - [`start`]: the order of a start, from options to a loop that serves.
//! - [`verify`]: the other thing magent does: a one-shot comparison of all copies.
//! - [`lookup`]: where a key goes.
//! - [`check`]: two more: it asks a running magent how it is, once or for ever.
//! - [`sys`]: users, limits, daemon, and the only place with `unsafe`.

pub mod admin;
pub mod buf;
pub mod check;
pub mod config;
pub mod hash;
pub mod lookup;
pub mod net;
pub mod plain;
pub mod pools;
pub mod proto;
pub mod proxy;
pub mod start;
pub mod sys;
pub mod time;
pub mod top;
pub mod verify;
