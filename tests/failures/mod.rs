//! What docs/failures.md promises: every command while a server is dead, empty, stopped or gone with the command in
//! flight. All on real servers, but for one that must be late on purpose.
//!
//! `rows` has the commands and memcached's answers, `verbs` the columns of the table, `in_flight` what becomes of requests
//! that are on their way, `tokens` those with a CAS token.

mod in_flight;
mod rows;
mod tokens;
mod verbs;
