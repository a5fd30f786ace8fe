//! One client's operation on one key, and what came of it.

use std::rc::Rc;

use super::request::{Bytes, Request};

/// What came of an operation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Seen {
    Pending,
    /// This reply (of a retrieval: this key's block).
    Reply(Bytes),
    /// Done, and nothing said about how.
    Silent,
    /// It may take effect soon, later, or not at all.
    Unknown,
    /// It is over, but how it ended was not said: it has taken effect, or it never will.
    Unheard,
    /// The proxy said that it did nothing.
    Refused,
    /// It never left its client as a whole.
    Never,
}

/// One operation on one key.
#[derive(Clone, Debug)]
pub struct Op {
    pub client: usize,
    pub request: Rc<Request>,
    /// Which of the request's keys it is.
    pub index: usize,
    /// A conditional write with a token: the value that the token was handed out with.
    pub expects: Option<Bytes>,
    /// Microseconds, as all times here.
    pub asked: u64,
    /// When the reply was there; of an unknown outcome: when it can take effect no more.
    pub until: u64,
    /// When its client gave it up; 0: when it was over.
    pub lost_at: u64,
    pub seen: Seen,
}
