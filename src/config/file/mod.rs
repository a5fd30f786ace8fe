//! `-c`: pools in a file, in twemproxy's schema with magent's own keys.

mod place;

pub use place::{parse_backup, parse_listen, parse_server, Listen};
