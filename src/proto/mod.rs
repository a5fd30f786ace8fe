//! memcached's protocols over byte slices: pure, no state, no copies. The core speaks text; binary is turned into it.
//!
//! What a line means is taken from memcached 1.6 (`protocol.txt`, and the server's own behaviour where the text is
//! silent): a request that memcached would refuse is refused here with the same words.

pub mod binary;
pub mod line;
pub mod meta;
pub mod replies;
pub mod request;
pub mod response;
pub mod token;

/// Longest key in bytes.
pub const KEY_MAX: usize = 250;

/// memcached closes a connection that sent this many bytes without a line end, unless they begin a `get`.
pub const LINE_MAX: usize = 2048;

/// What a client asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum Verb {
    Get,
    Gets,
    Gat,
    Gats,
    Set,
    Add,
    Replace,
    Append,
    Prepend,
    Cas,
    Incr,
    Decr,
    Delete,
    Touch,
    MetaGet,
    MetaSet,
    MetaDelete,
    MetaArithmetic,
    MetaDebug,
    MetaNoop,
    FlushAll,
    Version,
    Verbosity,
    Quit,
    Stats,
}

impl Verb {
    /// All of them, in the order of their numbers.
    pub const ALL: [Verb; 25] = [
        Verb::Get,
        Verb::Gets,
        Verb::Gat,
        Verb::Gats,
        Verb::Set,
        Verb::Add,
        Verb::Replace,
        Verb::Append,
        Verb::Prepend,
        Verb::Cas,
        Verb::Incr,
        Verb::Decr,
        Verb::Delete,
        Verb::Touch,
        Verb::MetaGet,
        Verb::MetaSet,
        Verb::MetaDelete,
        Verb::MetaArithmetic,
        Verb::MetaDebug,
        Verb::MetaNoop,
        Verb::FlushAll,
        Verb::Version,
        Verb::Verbosity,
        Verb::Quit,
        Verb::Stats,
    ];

    /// The command word.
    pub fn name(self) -> &'static str {
        match self {
            Verb::Get => "get",
            Verb::Gets => "gets",
            Verb::Gat => "gat",
            Verb::Gats => "gats",
            Verb::Set => "set",
            Verb::Add => "add",
            Verb::Replace => "replace",
            Verb::Append => "append",
            Verb::Prepend => "prepend",
            Verb::Cas => "cas",
            Verb::Incr => "incr",
            Verb::Decr => "decr",
            Verb::Delete => "delete",
            Verb::Touch => "touch",
            Verb::MetaGet => "mg",
            Verb::MetaSet => "ms",
            Verb::MetaDelete => "md",
            Verb::MetaArithmetic => "ma",
            Verb::MetaDebug => "me",
            Verb::MetaNoop => "mn",
            Verb::FlushAll => "flush_all",
            Verb::Version => "version",
            Verb::Verbosity => "verbosity",
            Verb::Quit => "quit",
            Verb::Stats => "stats",
        }
    }

    /// `get`, `gets`, `gat`, `gats`: any number of keys, answered by `VALUE` blocks and `END`.
    pub fn is_retrieval(self) -> bool {
        matches!(self, Verb::Get | Verb::Gets | Verb::Gat | Verb::Gats)
    }

    /// `gat`, `gats`: a read that also sets the time to live.
    pub fn is_gat(self) -> bool {
        matches!(self, Verb::Gat | Verb::Gats)
    }

    /// The meta commands that go to a server.
    pub fn is_meta(self) -> bool {
        matches!(
            self,
            Verb::MetaGet
                | Verb::MetaSet
                | Verb::MetaDelete
                | Verb::MetaArithmetic
                | Verb::MetaDebug
        )
    }
}
