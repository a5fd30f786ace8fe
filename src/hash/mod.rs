//! Placement: which server a key belongs to. Pure, and bit for bit magent 0.6's. And a large set of keys in slices.

mod djb;
mod ring;
mod slices;

pub use djb::djb31;
pub use ring::Ring;
pub use slices::Slices;
