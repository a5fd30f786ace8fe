//! Every fixed line that the proxy itself sends to clients, in one place.
//! The first group is memcached's own wording; the second is said by the proxy only.

macro_rules! lines {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        $($(#[$doc])* pub const $name: &[u8] = concat!($text, "\r\n").as_bytes();)*
    };
}

lines! {
    /// Unknown command, wrong number of words.
    ERROR = "ERROR";
    /// A word that is no number, a key that is too long.
    BAD_FORMAT = "CLIENT_ERROR bad command line format";
    /// The data block does not end where it should.
    BAD_DATA_CHUNK = "CLIENT_ERROR bad data chunk";
    /// `delete` with a time.
    BAD_DELETE = "CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]";
    /// `incr` by something that is no number.
    BAD_DELTA = "CLIENT_ERROR invalid numeric delta argument";
    /// Meta flag `J` without a number.
    BAD_INITIAL = "CLIENT_ERROR invalid numeric initial value";
    /// Meta flag `D` without a number.
    BAD_META_DELTA = "CLIENT_ERROR invalid numeric delta value";
    /// `touch`, `gat`, `flush_all` with a bad time.
    BAD_EXPTIME = "CLIENT_ERROR invalid exptime argument";
    /// A meta flag given twice.
    DUPLICATE_FLAG = "CLIENT_ERROR duplicate flag";
    /// A meta flag that does not exist.
    INVALID_FLAG = "CLIENT_ERROR invalid flag";
    /// `md` and `ma` say this for any bad flag.
    INVALID_OR_DUPLICATE_FLAG = "CLIENT_ERROR invalid or duplicate flag";
    /// A meta flag's number is none.
    BAD_FLAG_TOKEN = "CLIENT_ERROR bad token in command line format";
    /// `b` with a key that is not base64.
    BAD_BASE64 = "CLIENT_ERROR error decoding key";
    /// `M` wants one letter.
    BAD_MODE_LENGTH = "CLIENT_ERROR incorrect length for M token";
    /// `ms` with an unknown mode.
    BAD_SET_MODE = "CLIENT_ERROR invalid mode for ms M token";
    /// `ma` with an unknown mode.
    BAD_ARITHMETIC_MODE = "CLIENT_ERROR invalid mode for ma M token";
    /// An opaque of more than 31 bytes.
    OPAQUE_TOO_LONG = "CLIENT_ERROR opaque token too long";
    /// `mg` with more flags than fit.
    GET_FLAGS_TOO_LONG = "CLIENT_ERROR options flags are too long";
    /// `ms`, `md`, `ma` with more flags than fit.
    FLAGS_TOO_LONG = "CLIENT_ERROR options flags too long";
    /// `stats detail` without a known word.
    STATS_DETAIL_USAGE = "CLIENT_ERROR usage: stats detail on|off|dump";
    /// `stats cachedump` without class and limit.
    BAD_CACHEDUMP = "CLIENT_ERROR bad command line";
    /// `stats cachedump` of a class that cannot be.
    ILLEGAL_SLAB = "CLIENT_ERROR Illegal slab id";
    /// `shutdown`
    NO_SHUTDOWN = "ERROR: shutdown not enabled";
    /// `watch`, as with memcached's option `-W`.
    NO_WATCH = "CLIENT_ERROR watch commands not allowed";
    /// `slabs reassign`, as with `no_slab_reassign`.
    NO_REASSIGN = "CLIENT_ERROR slab reassignment disabled";
    /// `lru_crawler`, as where the crawler is off.
    NO_CRAWLER = "CLIENT_ERROR lru crawler disabled";
    /// `lru_crawler enable`, as where it cannot run.
    NO_CRAWLER_THREAD = "ERROR failed to start lru crawler thread";
    /// `lru_crawler sleep`
    SLEEP_TOO_LONG = "CLIENT_ERROR sleep must be one second or less";
    /// `lru tune`
    TUNE_SHARES = "ERROR hot and warm pcts must not exceed 80";
    /// See `TUNE_SHARES`.
    TUNE_FACTORS = "ERROR hot/warm age factors must be greater than 0";
    /// `cache_memlimit` with a number of bytes.
    MEMLIMIT_NOT_BYTES = "MEMLIMIT_ADJUST_FAILED input value is megabytes not bytes";
    /// `cache_memlimit` with too small a number.
    MEMLIMIT_TOO_SMALL = "MEMLIMIT_TOO_SMALL cannot set maxbytes to less than 8m";
    /// A value over the limit.
    TOO_LARGE = "SERVER_ERROR object too large for cache";
    /// Over `--memory-limit`.
    OUT_OF_MEMORY = "SERVER_ERROR out of memory";
    /// `flush_all`, `verbosity`.
    OK = "OK";
    /// `stats reset`.
    RESET = "RESET";
    /// `mn`.
    META_NOOP = "MN";
    /// The end of a retrieval or of statistics.
    END = "END";
    /// `mg` and `me`: no such key.
    META_MISS = "EN";
}

lines! {
    /// No copy of the key is on a server that is up.
    NO_SERVER = "SERVER_ERROR no server for this key is up";
    /// Every server that was asked failed before it answered.
    SERVER_LOST = "SERVER_ERROR the server for this key was lost before it answered";
    /// No answer within the time limit; the outcome is unknown.
    TIMED_OUT = "SERVER_ERROR the server for this key did not answer in time";
    /// Its turn did not come within the time limit: it was not asked at all.
    SERVER_BUSY = "SERVER_ERROR the server for this key has too much to do: nothing was done";
    /// A meta command, but the servers are too old for it.
    NO_META = "SERVER_ERROR the servers do not understand meta commands";
    /// The key of the proxy's own stamps.
    STAMP_IS_OURS = "CLIENT_ERROR this key is the proxy's own";
    /// `lru_crawler metadump`: memcached's own tools read on until `END`, whatever comes.
    NO_METADUMP = "CLIENT_ERROR lru crawler disabled\r\nEND";
    /// Over `-n`.
    TOO_MANY_CONNECTIONS = "SERVER_ERROR too many open connections";
}
