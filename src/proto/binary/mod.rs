//! memcached's binary protocol: frames over byte slices, pure as the rest of `proto`.
//!
//! A frame becomes a request in the words of the text protocol ([`request`]), and the reply to that becomes a frame again
//! ([`reply`]). Nothing behind this module knows which protocol a client speaks, and servers never see a frame.
//!
//! ```text
//!   byte   0      1       2..3     4        5     6..7      8..11    12..15   16..23
//!          magic  opcode  key      extras   type  status    body     opaque   CAS
//!                         length   length         (vbucket) length
//!   then extras, key, value: the body. All numbers in network order.
//! ```
//!
//! What is said when is taken from memcached 1.6.18.

pub mod reply;
pub mod request;

/// The first byte of a request, and so of a connection that speaks this protocol.
pub const REQUEST: u8 = 0x80;

/// The first byte of a response.
pub const RESPONSE: u8 = 0x81;

/// Length of what stands before the body.
pub const HEADER: usize = 24;

/// The expiry of `increment` and `decrement` that says: do not create.
const NO_CREATION: u32 = u32::MAX;

/// What an opcode asks for; whether it is quiet and whether it wants the key back is in [`Asked`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum Kind {
    Get,
    Set,
    Add,
    Replace,
    Append,
    Prepend,
    Delete,
    Increment,
    Decrement,
    Touch,
    GetAndTouch,
    Flush,
    Noop,
    Version,
    Stat,
    Quit,
    /// SASL, which this does not have.
    Sasl,
    /// No such command.
    Unknown,
}

impl Kind {
    /// What `opcode` asks for.
    fn of(opcode: u8) -> Kind {
        match opcode {
            0x00 | 0x09 | 0x0c | 0x0d => Kind::Get,
            0x01 | 0x11 => Kind::Set,
            0x02 | 0x12 => Kind::Add,
            0x03 | 0x13 => Kind::Replace,
            0x04 | 0x14 => Kind::Delete,
            0x05 | 0x15 => Kind::Increment,
            0x06 | 0x16 => Kind::Decrement,
            0x07 | 0x17 => Kind::Quit,
            0x08 | 0x18 => Kind::Flush,
            0x0a => Kind::Noop,
            0x0b => Kind::Version,
            0x0e | 0x19 => Kind::Append,
            0x0f | 0x1a => Kind::Prepend,
            0x10 => Kind::Stat,
            0x1c => Kind::Touch,
            0x1d | 0x1e | 0x23 | 0x24 => Kind::GetAndTouch,
            0x20..=0x22 => Kind::Sasl,
            // 0x1b, verbosity, too: memcached has never learnt it.
            _ => Kind::Unknown,
        }
    }

    /// A value follows the key.
    pub fn stores(self) -> bool {
        matches!(
            self,
            Kind::Set | Kind::Add | Kind::Replace | Kind::Append | Kind::Prepend
        )
    }
}

/// What must be known of a request when its reply is written.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Asked {
    /// Given back as it came.
    pub opaque: u32,
    /// Given back as it came, and decides on form and silence of the reply.
    pub opcode: u8,
    /// The key, where the reply needs it and cannot have it from a server's words.
    pub key: Option<Box<[u8]>>,
}

impl Asked {
    /// What it asked for.
    pub fn kind(&self) -> Kind {
        Kind::of(self.opcode)
    }

    /// Says nothing of a success (of a miss, for retrievals).
    pub fn is_quiet(&self) -> bool {
        matches!(self.opcode, 0x09 | 0x0d | 0x11..=0x1a | 0x1e | 0x24)
    }

    /// The reply to a retrieval has the key in it.
    pub fn wants_key(&self) -> bool {
        matches!(self.opcode, 0x0c | 0x0d | 0x23 | 0x24)
    }
}

/// The status of a response.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u16)]
#[allow(missing_docs)]
pub enum Status {
    Success = 0x00,
    NotFound = 0x01,
    Exists = 0x02,
    TooLarge = 0x03,
    InvalidArguments = 0x04,
    NotStored = 0x05,
    NonNumeric = 0x06,
    UnknownCommand = 0x81,
    OutOfMemory = 0x82,
    /// The proxy's own errors; the body says which.
    InternalError = 0x84,
}

impl Status {
    /// What memcached says with it.
    fn text(self) -> &'static [u8] {
        match self {
            Status::Success | Status::InternalError => b"",
            Status::NotFound => b"Not found",
            Status::Exists => b"Data exists for key.",
            Status::TooLarge => b"Too large.",
            Status::InvalidArguments => b"Invalid arguments",
            Status::NotStored => b"Not stored.",
            Status::NonNumeric => b"Non-numeric server-side value for incr or decr",
            Status::UnknownCommand => b"Unknown command",
            Status::OutOfMemory => b"Out of memory",
        }
    }
}

#[cfg(test)]
mod tests;
