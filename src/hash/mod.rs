//! Placement: which server a key belongs to. Pure, and bit for bit magent 0.6's.

mod djb;
mod ring;

pub use djb::djb31;
pub use ring::Ring;
