//! Every command, with what memcached answers when nothing has happened.

use crate::common::pool::item;
use crate::common::{Client, Pool};

/// Before: what is set under `K`, with flags 7 and 300 seconds; nothing if empty. Then a command, its reply, and the item
/// after it. A `*` at the end stands for anything.
pub type Row = (&'static str, &'static str, &'static str, &'static str);

const AB: &str = "VALUE K 7 2\r\nab\r\nEND";
const SAME: &str = "VA 2 f7 t300\r\nab";
const NO_NUMBER: &str = "CLIENT_ERROR cannot increment or decrement non-numeric value";

pub const ROWS: [Row; 61] = [
    ("ab", "get K", AB, SAME),
    ("ab", "gets K", "VALUE K 7 2 *", SAME),
    (
        "ab",
        "get K K nothing-there",
        "VALUE K 7 2\r\nab\r\nVALUE K 7 2\r\nab\r\nEND",
        SAME,
    ),
    ("ab", "gat 900 K", AB, "VA 2 f7 t900\r\nab"),
    ("ab", "gats 900 K", "VALUE K 7 2 *", "VA 2 f7 t900\r\nab"),
    ("ab", "mg K v f", "VA 2 f7\r\nab", SAME),
    ("ab", "mg K", "HD", SAME),
    ("ab", "me K", "ME K exp=*", SAME),
    ("ab", "mg K T900 v", "VA 2\r\nab", "VA 2 f7 t900\r\nab"),
    ("ab", "mg K N100 v", "VA 2\r\nab", SAME),
    ("ab", "mg K R30 v", "VA 2\r\nab", SAME),
    // To this one it is given to refill the item that is about to end; the next one is told that somebody does.
    ("ab", "mg K R400 v", "VA 2 W\r\nab", "VA 2 f7 t300 Z\r\nab"),
    ("ab", "set K 8 100 1\r\nx", "STORED", "VA 1 f8 t100\r\nx"),
    ("ab", "add K 0 0 1\r\nx", "NOT_STORED", SAME),
    ("ab", "replace K 3 0 1\r\nx", "STORED", "VA 1 f3 t-1\r\nx"),
    ("ab", "append K 0 0 1\r\nx", "STORED", "VA 3 f7 t300\r\nabx"),
    (
        "ab",
        "prepend K 0 0 1\r\nx",
        "STORED",
        "VA 3 f7 t300\r\nxab",
    ),
    ("ab", "cas K 0 0 1 1\r\nx", "EXISTS", SAME),
    ("10", "incr K 5", "15", "VA 2 f7 t300\r\n15"),
    ("90", "decr K 5", "85", "VA 2 f7 t300\r\n85"),
    ("ab", "incr K 1", NO_NUMBER, SAME),
    ("ab", "touch K 900", "TOUCHED", "VA 2 f7 t900\r\nab"),
    ("ab", "delete K", "DELETED", "EN"),
    ("ab", "ms K 1 T100\r\nx", "HD", "VA 1 f0 t100\r\nx"),
    ("ab", "ms K 1 ME\r\nx", "NS", SAME),
    ("ab", "ms K 1 MA\r\nx", "HD", "VA 3 f7 t300\r\nabx"),
    ("ab", "ms K 1 MP\r\nx", "HD", "VA 3 f7 t300\r\nxab"),
    ("ab", "ms K 1 MR T100 F5\r\nx", "HD", "VA 1 f5 t100\r\nx"),
    ("ab", "ms K 1 C1\r\nx", "EX", SAME),
    ("10", "ma K v", "VA 2\r\n11", "VA 2 f7 t300\r\n11"),
    ("90", "ma K MD D5 v", "VA 2\r\n85", "VA 2 f7 t300\r\n85"),
    ("10", "ma K N100 J5 v", "VA 2\r\n11", "VA 2 f7 t300\r\n11"),
    ("10", "ma K C1 v", "EX", "VA 2 f7 t300\r\n10"),
    ("ab", "ma K", NO_NUMBER, SAME),
    ("ab", "md K", "HD", "EN"),
    ("ab", "md K C1", "EX", SAME),
    // Stale, and the first who looks is to refill it.
    ("ab", "md K I T200", "HD", "VA 2 f7 t200 X W\r\nab"),
    // Of keys that are nowhere.
    ("", "get K", "END", "EN"),
    ("", "gets K", "END", "EN"),
    ("", "gat 100 K", "END", "EN"),
    ("", "mg K v", "EN", "EN"),
    ("", "me K", "EN", "EN"),
    ("", "mg K T100 v", "EN", "EN"),
    ("", "mg K N100 v", "VA 0 W\r\n", "VA 0 f0 t100 Z"),
    ("", "set K 7 300 1\r\nx", "STORED", "VA 1 f7 t300\r\nx"),
    ("", "add K 7 300 1\r\nx", "STORED", "VA 1 f7 t300\r\nx"),
    ("", "replace K 0 0 1\r\nx", "NOT_STORED", "EN"),
    ("", "append K 0 0 1\r\nx", "NOT_STORED", "EN"),
    ("", "prepend K 0 0 1\r\nx", "NOT_STORED", "EN"),
    ("", "cas K 0 0 1 1\r\nx", "NOT_FOUND", "EN"),
    ("", "incr K 1", "NOT_FOUND", "EN"),
    ("", "touch K 100", "NOT_FOUND", "EN"),
    ("", "delete K", "NOT_FOUND", "EN"),
    ("", "ms K 1 F7 T300\r\nx", "HD", "VA 1 f7 t300\r\nx"),
    ("", "ms K 1 ME\r\nx", "HD", "VA 1 f0 t-1\r\nx"),
    ("", "ms K 1 MR\r\nx", "NS", "EN"),
    ("", "ms K 1 MA\r\nx", "NS", "EN"),
    ("", "ma K", "NF", "EN"),
    ("", "ma K N100 J5 v", "VA 1\r\n5", "VA 1 f0 t100\r\n5"),
    ("", "md K", "NF", "EN"),
    ("", "md K C1", "NF", "EN"),
];

/// What is expected, for the key of this row; true: something more may follow.
fn expected(text: &str, key: &str) -> (String, bool) {
    let text = text.replace('K', key);
    match text.strip_suffix('*') {
        Some(head) => (head.to_string(), true),
        None => (text, false),
    }
}

#[track_caller]
fn assert_reply(reply: &str, text: &str, key: &str, what: &str) {
    let (head, open) = expected(text, key);
    let fits = reply == head || (open && reply.starts_with(&head));
    assert!(fits, "{what}: {reply:?}, not {head:?}");
}

/// The key of a row.
pub fn key(n: usize) -> String {
    format!("k{n}")
}

/// The command of a row.
pub fn command(n: usize) -> String {
    ROWS[n].1.replace('K', &key(n))
}

/// What is heard where no copy can be asked: reads miss, and what would write is refused in these words.
pub fn from_nobody(n: usize, refused: &'static str) -> &'static str {
    let line = command(n);
    let words: Vec<&str> = line.split(' ').collect();
    let writes = |word: &&str| matches!(word.as_bytes()[0], b'T' | b'N' | b'R');
    match words[0] {
        "get" | "gets" | "gat" | "gats" => "END",
        "me" => "EN",
        "mg" if !words[2..].iter().any(writes) => "EN",
        _ => refused,
    }
}

/// Sets what the rows expect to be there.
pub fn set_all(client: &mut Client) {
    for (n, (before, ..)) in ROWS.iter().enumerate() {
        if !before.is_empty() {
            let set = format!("set {} 7 300 {}\r\n{before}", key(n), before.len());
            assert_eq!(client.ask(&set), "STORED");
        }
    }
}

/// The answer of a row is memcached's, and so is the item after it.
#[track_caller]
pub fn assert_usual(n: usize, reply: &str, client: &mut Client, when: &str) {
    let (before, _, answer, after) = ROWS[n];
    let what = format!("{when}: {:?} on {before:?}", command(n));
    assert_reply(reply, answer, &key(n), &what);
    assert_reply(
        &item(client, &key(n)),
        after,
        &key(n),
        &format!("after {what}"),
    );
}

/// All rows, one after the other.
#[track_caller]
pub fn run_all(client: &mut Client, when: &str) {
    for n in 0..ROWS.len() {
        let reply = client.ask(&command(n));
        assert_usual(n, &reply, client, when);
    }
}

/// All commands at the same moment, each on a connection of its own; `meanwhile`; then the answers.
pub fn all_at_once(pool: &mut Pool, meanwhile: impl FnOnce(&mut Pool)) -> Vec<String> {
    let mut clients: Vec<Client> = ROWS.iter().map(|_| pool.client()).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        client.send(command(n) + "\r\n");
    }
    meanwhile(pool);
    let replies = clients.iter_mut().map(|client| {
        let reply = String::from_utf8_lossy(&client.reply()).into_owned();
        reply.strip_suffix("\r\n").unwrap_or(&reply).to_string()
    });
    replies.collect()
}
