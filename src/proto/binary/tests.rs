use proptest::prelude::*;

use super::reply::{encode, Reply};
use super::request::{parse, Parsed};
use super::*;
use crate::proto::request as text;
use crate::proto::{replies, Verb};

const STORAGE: [u8; 8] = [0, 0, 0, 5, 0, 0, 0, 60];
const COUNTER: [u8; 20] = [0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 60];
const ONLY_COUNTED: [u8; 20] = [
    0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 7, 255, 255, 255, 255,
];
const TTL: [u8; 4] = [0, 0, 0, 60];

fn frame(opcode: u8, cas: u64, extras: &[u8], key: &[u8], value: &[u8]) -> Vec<u8> {
    let body = extras.len() + key.len() + value.len();
    let mut out = vec![REQUEST, opcode];
    out.extend_from_slice(&(key.len() as u16).to_be_bytes());
    out.extend_from_slice(&[extras.len() as u8, 0, 0, 0]);
    out.extend_from_slice(&(body as u32).to_be_bytes());
    out.extend_from_slice(&0x1234_5678u32.to_be_bytes());
    out.extend_from_slice(&cas.to_be_bytes());
    for part in [extras, key, value] {
        out.extend_from_slice(part);
    }
    out
}

fn line(bytes: &[u8]) -> String {
    let Parsed::Request(_, frame) = parse(bytes) else {
        panic!("{:?}", parse(bytes));
    };
    let mut line = Vec::new();
    let request = frame.compose(true, &mut line).unwrap();
    words(&request).escape_ascii().to_string()
}

/// The line of a request; of a retrieval it has the key alone.
fn words(request: &text::Request<'_>) -> Vec<u8> {
    let begin = match request.verb {
        Verb::Gets => "gets ".to_string(),
        Verb::Gats => format!("gats {} ", request.exptime),
        _ => String::new(),
    };
    [begin.as_bytes(), request.line].concat()
}

/// Opcode, CAS, extras, key, value, and the line.
type Case = (
    u8,
    u64,
    &'static [u8],
    &'static [u8],
    &'static [u8],
    &'static str,
);

#[test]
fn frames_in_words() {
    let cases: [Case; 24] = [
        (0x00, 0, b"", b"k", b"", "gets k"),
        (0x0d, 0, b"", b"k", b"", "gets k"),
        (0x00, 0, b"", b"a b", b"", "mg YSBi b v f c"),
        (0x01, 0, &STORAGE, b"k", b"abc", "ms k 3 c F5 T60"),
        (0x01, 0, &[0; 8], b"k", b"", "ms k 0 c"),
        (0x11, 9, &STORAGE, b"k", b"abc", "ms k 3 c F5 T60 C9"),
        (0x01, 0, &[0; 8], b"a b", b"x", "ms YSBi 1 b c"),
        (0x02, 0, &[0; 8], b"k", b"x", "ms k 1 ME c"),
        (0x02, 9, &[0; 8], b"k", b"x", "ms k 1 c C9"),
        (0x03, 0, &[0; 8], b"k", b"x", "ms k 1 MR c"),
        (0x0e, 9, b"", b"k", b"x", "ms k 1 MA c C9"),
        (0x1a, 0, b"", b"k", b"x", "ms k 1 MP c"),
        (0x04, 0, b"", b"k", b"", "md k"),
        (0x04, 9, b"", b"a b", b"", "md YSBi b C9"),
        (0x05, 0, &COUNTER, b"k", b"", "ma k D2 J7 N60 v c"),
        (0x16, 9, &ONLY_COUNTED, b"k", b"", "ma k MD D2 C9 v c"),
        (0x1c, 0, &TTL, b"k", b"", "mg k T60 f c"),
        (0x1d, 0, &TTL, b"k", b"", "gats 60 k"),
        (0x24, 0, &TTL, b"a b", b"", "mg YSBi b T60 v f c"),
        // A moment over 31 bits is never.
        (0x1d, 0, &[0xff; 4], b"k", b"", "gats 0 k"),
        (0x08, 0, b"", b"", b"", "flush_all"),
        (0x0a, 0, b"", b"", b"", ""),
        (0x10, 0, b"", b"items", b"", "stats items"),
        (0x10, 0, b"", b"", b"", "stats "),
    ];
    for (opcode, cas, extras, key, value, wanted) in cases {
        let bytes = frame(opcode, cas, extras, key, value);
        assert_eq!(line(&bytes), wanted, "{opcode:#x}");
    }
}

#[test]
fn frames_for_servers_without_meta_commands() {
    let classic = |opcode, cas, extras: &[u8], key: &[u8], value: &[u8]| {
        let bytes = frame(opcode, cas, extras, key, value);
        let Parsed::Request(_, frame) = parse(&bytes) else {
            panic!("{:?}", parse(&bytes));
        };
        let mut line = Vec::new();
        let request = frame.compose(false, &mut line);
        request.map(|request| words(&request).escape_ascii().to_string())
    };
    let cases: [Case; 10] = [
        (0x00, 0, b"", b"k", b"", "gets k"),
        (0x01, 0, &STORAGE, b"k", b"abc", "set k 5 60 3"),
        (0x12, 0, &STORAGE, b"k", b"abc", "add k 5 60 3"),
        (0x03, 0, &STORAGE, b"k", b"abc", "replace k 5 60 3"),
        (0x01, 9, &STORAGE, b"k", b"abc", "cas k 5 60 3 9"),
        (0x0e, 0, b"", b"k", b"abc", "append k 0 0 3"),
        (0x04, 0, b"", b"k", b"", "delete k"),
        (0x05, 0, &ONLY_COUNTED, b"k", b"", "incr k 2"),
        (0x16, 0, &ONLY_COUNTED, b"k", b"", "decr k 2"),
        (0x1c, 0, &TTL, b"k", b"", "touch k 60"),
    ];
    for (opcode, cas, extras, key, value, wanted) in cases {
        let line = classic(opcode, cas, extras, key, value);
        assert_eq!(line, Ok(wanted.to_string()), "{opcode:#x}");
    }
    for line in [
        classic(0x05, 0, &COUNTER, b"k", b""),
        classic(0x04, 9, b"", b"k", b""),
        classic(0x0e, 9, b"", b"k", b"x"),
        classic(0x00, 0, b"", b"a b", b""),
    ] {
        assert_eq!(line, Err(replies::NO_META));
    }
}

#[test]
fn what_is_not_carried_out() {
    let refused = |bytes: &[u8]| match parse(bytes) {
        Parsed::Refused { reply, rest, .. } => (reply, rest),
        other => panic!("{other:?}"),
    };
    let unknown = refused(&frame(0x30, 0, b"1234", b"k", b"xy"));
    assert_eq!(unknown, (replies::ERROR, Some((HEADER + 5, 2))));
    let long = refused(&frame(0x00, 0, b"", &[b'k'; 251], b""));
    assert_eq!(long, (replies::BAD_FORMAT, None));
    let mut short = frame(0x00, 0, b"", b"key", b"");
    short[11] = 2;
    assert_eq!(refused(&short), (replies::ERROR, None));
    let mut other = frame(0x0a, 0, b"", b"", b"");
    other[0] = 0x81;
    assert_eq!(parse(&other), Parsed::Close);
    // In base64 it would be too long for a line.
    let bytes = frame(0x00, 0, b"", &[b' '; 200], b"");
    let Parsed::Request(_, frame) = parse(&bytes) else {
        panic!("it is well-formed");
    };
    assert!(frame.compose(true, &mut Vec::new()).is_err());
}

fn said(opcode: u8, key: Option<&[u8]>, text: &[u8]) -> Option<(u16, u64, Vec<u8>)> {
    let asked = Asked {
        opcode,
        opaque: 7,
        key: key.map(Into::into),
    };
    match encode(&asked, text, 0) {
        Reply::Silent => None,
        Reply::One(response) => {
            let head = response.head();
            assert_eq!(&head[..2], &[RESPONSE, opcode]);
            assert_eq!(&head[12..16], &[0, 0, 0, 7]);
            let body = [&head[HEADER..], response.key(), response.value()].concat();
            let length = u32::from_be_bytes([head[8], head[9], head[10], head[11]]);
            assert_eq!(length as usize, body.len());
            let status = u16::from_be_bytes([head[6], head[7]]);
            let cas = u64::from_be_bytes(std::array::from_fn(|n| head[16 + n]));
            Some((status, cas, body))
        }
        Reply::Several(bytes) => panic!("{}", bytes.escape_ascii()),
    }
}

#[test]
fn words_in_frames() {
    let hit = b"VALUE k 5 2 77\r\nab\r\n";
    assert_eq!(
        said(0x00, None, hit),
        Some((0, 77, b"\0\0\0\x05ab".to_vec()))
    );
    assert_eq!(
        said(0x0d, None, hit),
        Some((0, 77, b"\0\0\0\x05kab".to_vec()))
    );
    let meta = b"VA 2 f5 c77\r\nab\r\n";
    assert_eq!(
        said(0x0c, Some(b"a b"), meta),
        Some((0, 77, b"\0\0\0\x05a bab".to_vec()))
    );
    assert_eq!(said(0x09, None, b"END\r\n"), None);
    assert_eq!(said(0x0d, Some(b"k"), b"EN\r\n"), None);
    assert_eq!(
        said(0x0c, Some(b"k"), b"END\r\n"),
        Some((1, 0, b"k".to_vec()))
    );
    assert_eq!(
        said(0x00, None, b"END\r\n"),
        Some((1, 0, b"Not found".to_vec()))
    );
    assert_eq!(said(0x01, None, b"HD c9\r\n"), Some((0, 9, Vec::new())));
    assert_eq!(said(0x11, None, b"HD c9\r\n"), None);
    assert_eq!(said(0x12, None, b"NS\r\n").map(|said| said.0), Some(2));
    assert_eq!(said(0x03, None, b"NS\r\n").map(|said| said.0), Some(1));
    assert_eq!(said(0x0e, None, b"NS\r\n").map(|said| said.0), Some(5));
    assert_eq!(said(0x01, None, b"EX c0\r\n").map(|said| said.0), Some(2));
    assert_eq!(
        said(0x05, None, b"VA 2 c9\r\n10\r\n"),
        Some((0, 9, 10u64.to_be_bytes().to_vec()))
    );
    assert_eq!(
        said(0x1c, None, b"HD f5 c9\r\n"),
        Some((0, 9, vec![0, 0, 0, 5]))
    );
    let number = b"CLIENT_ERROR cannot increment or decrement non-numeric value\r\n";
    assert_eq!(said(0x15, None, number).map(|said| said.0), Some(6));
    assert_eq!(
        said(0x11, None, replies::TOO_LARGE).map(|said| said.0),
        Some(3)
    );
    assert_eq!(
        said(0x11, None, replies::OUT_OF_MEMORY).map(|said| said.0),
        Some(0x82)
    );
    let lost = said(0x01, None, replies::NO_SERVER);
    assert_eq!(
        lost,
        Some((0x84, 0, b"no server for this key is up".to_vec()))
    );
    assert_eq!(said(0x01, None, b""), None);
}

proptest! {
    /// Whatever comes: no panic, and what is carried out has a line that the text side takes for the same request.
    #[test]
    fn any_frame(opcode in 0u8..0x28, cas in prop_oneof![Just(0u64), any::<u64>()],
            extras in prop::sample::select(vec![0usize, 4, 8, 20, 7]).prop_flat_map(|length| prop::collection::vec(any::<u8>(), length)),
            key in prop::collection::vec(any::<u8>(), 0..260),
            value in prop::collection::vec(any::<u8>(), 0..10)) {
        let bytes = frame(opcode, cas, &extras, &key, &value);
        let head = HEADER + extras.len() + key.len();
        for cut in 0..head {
            prop_assert_eq!(parse(&bytes[..cut]), Parsed::More);
        }
        prop_assert_eq!(parse(&bytes), parse(&bytes[..head]));
        let Parsed::Request(asked, frame) = parse(&bytes) else { return Ok(()) };
        prop_assert_eq!(asked.opaque, 0x1234_5678);
        prop_assert_eq!((frame.length, frame.value_len), (head, value.len()));
        let mut line = Vec::new();
        let Ok(request) = frame.compose(value.len() % 2 == 0, &mut line) else { return Ok(()) };
        prop_assert!(!request.line.contains(&b'\n') && !request.line.contains(&0));
        if matches!(request.verb, Verb::MetaNoop | Verb::Version | Verb::Stats | Verb::FlushAll) {
            return Ok(());
        }
        let words = words(&request);
        let text::Parsed::Request(same) = text::parse(&words, false) else {
            panic!("{}", words.escape_ascii());
        };
        prop_assert_eq!(same.verb, request.verb);
        prop_assert_eq!(same.key.of(same.line), request.key.of(request.line));
        prop_assert_eq!(same.data_len, request.data_len);
        prop_assert_eq!(same.meta, request.meta);
        prop_assert_eq!(same.client_flags, request.client_flags);
        prop_assert_eq!(same.exptime, request.exptime);
        prop_assert_eq!(same.quiet, false);
    }

    /// Whatever a server says: no panic, and lengths that add up.
    #[test]
    fn any_reply(opcode in any::<u8>(), word in prop::sample::select(vec!["VALUE k", "VA", "HD", "STAT", "EN", "VERSION", "5", ""]),
            rest in prop::collection::vec(prop::sample::select(b" 0123456789cfk\r\nab".to_vec()), 0..40)) {
        let asked = Asked { opcode, opaque: 1, key: None };
        let text = [word.as_bytes(), &rest].concat();
        if let Reply::One(response) = encode(&asked, &text, 0) {
            let head = response.head();
            let body = head.len() - HEADER + response.key().len() + response.value().len();
            prop_assert_eq!(u32::from_be_bytes([head[8], head[9], head[10], head[11]]) as usize, body);
        }
    }
}
