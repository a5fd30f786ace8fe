//! Lines, and what they mean.

use super::*;
use crate::proto::line::{find_line, LineEnd};

fn request(line: &[u8]) -> Request<'_> {
    match parse(line, false) {
        Parsed::Request(request) => request,
        other => panic!("{}: {other:?}", line.escape_ascii()),
    }
}

fn reply(line: &[u8]) -> (&'static [u8], bool, usize) {
    match parse(line, false) {
        Parsed::Refused {
            reply,
            silent,
            swallow,
        } => (reply, silent, swallow),
        other => panic!("{}: {other:?}", line.escape_ascii()),
    }
}

#[test]
fn lines_end_as_memcached_sees_them() {
    let at = |end, next| LineEnd::At { end, next };
    assert_eq!(find_line(b"get a\r\nx", 0), at(5, 7));
    assert_eq!(find_line(b"get a\n", 3), at(5, 6));
    assert_eq!(find_line(b"\r\n", 0), at(1, 2));
    assert_eq!(find_line(b"get a", 0), LineEnd::Missing);
    assert_eq!(find_line(&[b'x'; 2049], 0), LineEnd::TooLong);
    let mut long = b"get ".to_vec();
    long.resize(5000, b'k');
    assert_eq!(find_line(&long, 0), LineEnd::Missing);
}

#[test]
fn the_parts_of_a_set() {
    let line = b"set key 5 0 3 noreply";
    let set = request(line);
    assert_eq!(set.verb, Verb::Set);
    assert_eq!(set.key.of(line), b"key");
    assert_eq!((set.data_len, set.quiet, set.client_flags), (3, true, true));
    assert_eq!(set.strip.of(line), b" noreply");
    assert!(!request(b"set key 0 0 3").client_flags);
}

#[test]
fn wrong_numbers_and_counts() {
    assert_eq!(reply(b"set k 0 0 -1"), (replies::BAD_FORMAT, false, 0));
    assert_eq!(
        reply(b"set k 0 x 1 noreply"),
        (replies::BAD_FORMAT, true, 0)
    );
    assert_eq!(reply(b"set k 0 0"), (replies::ERROR, false, 0));
    assert_eq!(reply(b"incr k x"), (replies::BAD_DELTA, false, 0));
    assert_eq!(reply(b"delete k 5"), (replies::BAD_DELETE, false, 0));
    assert_eq!(reply(b"ms k 5 Z"), (replies::INVALID_FLAG, false, 7));
    assert_eq!(reply(b"gat 5"), (replies::END, false, 0));
    assert_eq!(reply(b" "), (replies::ERROR, false, 0));
}

#[test]
fn keys_of_a_get() {
    for line in [
        &b"get a bb ccc"[..],
        b"  get  a bb   ccc ",
        b"gat 5 a bb ccc",
    ] {
        let get = request(line);
        assert_eq!(get.key.of(line), b"a");
    }
    let mut line = b"get a ".to_vec();
    line.resize(6 + 251, b'k');
    assert_eq!(reply(&line).0, replies::BAD_FORMAT);
    line.pop();
    assert_eq!(request(&line).verb, Verb::Get);
}

#[test]
fn a_nul_ends_the_line() {
    let get = request(b"get a\0b");
    assert_eq!(get.line, b"get a");
    assert_eq!(reply(b"set a\0 0 0 1").0, replies::ERROR);
}

#[test]
fn quiet_meta_flags_are_stripped() {
    let line = b"mg k v q t";
    assert_eq!(request(line).strip.of(line), b" q");
    assert_eq!(request(b"mg q v").strip, Token::default());
}

#[test]
fn http_is_closed() {
    assert!(matches!(parse(b"GET / HTTP/1.1", false), Parsed::Close));
    assert_eq!(reply(b"GET /").0, replies::ERROR);
    assert_eq!(reply(b"dance HTTP/1.1").0, replies::ERROR);
}
