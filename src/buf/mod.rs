//! Bytes in transit: what waits to be sent to clients ([`SendQueue`]) and to servers ([`RequestLog`]), and the account of
//! how much memory all of it takes ([`Memory`]).

mod log;
mod memory;
mod queue;

pub use log::RequestLog;
pub use memory::{Block, Memory, CHUNK};
pub use queue::SendQueue;

use std::rc::Rc;

/// A data block with its line end, shared by all servers it goes to.
pub type Body = Rc<Block>;

/// Data blocks of at least this many bytes are shared, smaller ones are copied into each stream.
pub const SHARE_MIN: usize = 8 * 1024;

/// Most pieces handed to the kernel in one call.
pub const IOV_MAX: usize = 64;
