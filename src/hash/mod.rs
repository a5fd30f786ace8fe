//! Placement: which server a key belongs to. Pure, and bit for bit magent 0.6's or twemproxy's. And a large set of keys in slices.

mod djb;
mod keyhash;
mod modern;
mod ring;
mod slices;
mod twemproxy;

pub use djb::djb31;
pub use keyhash::{KeyHash, KEY_HASHES};
pub use ring::Ring;
pub use slices::Slices;
