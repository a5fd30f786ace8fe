//! The check finds what it is there for: made-up histories that no server could have answered are refused, those that one
//! could are not, and a proxy that lets servers return blindly, as magent 0.6 did, is caught by the very same run.

use std::time::Duration;

use super::check::{Event, Heard, History};
use super::{run, Layout};

/// Client, when it asks and when it hears (seconds), what, and the answer; the keys are `k0` and `user:1`.
type Line<'a> = (usize, u64, u64, &'a str, &'a str);

/// Answers that are none.
const SILENT: &str = "(silent)";
const UNKNOWN: &str = "(unknown)";
const REFUSED: &str = "(refused)";

fn judge(lines: &[Line]) -> Result<(), String> {
    let mut events = Vec::new();
    for (number, &(client, asked, answered, request, answer)) in (1..).zip(lines) {
        let asks = Event::Asks(client, number, format!("{request}\r\n").into());
        events.push((asked * 1_000_000, asks));
        let heard = match answer {
            SILENT => Heard::Silent,
            UNKNOWN => Heard::Unknown,
            REFUSED => Heard::Refused,
            "" => Heard::Reply(Vec::new()),
            line => Heard::Reply(format!("{line}\r\n").into()),
        };
        events.push((
            answered * 1_000_000,
            Event::Hears(client, number, None, heard),
        ));
    }
    events.sort_by_key(|(time, _)| *time);
    History::new(2).take(events, false)
}

const A: &str = "VALUE k0 0 1\r\na";
const B: &str = "VALUE k0 0 1\r\nb";
const SET_A: &str = "set k0 0 0 1\r\na";
const SET_B: &str = "set k0 0 0 1\r\nb";

#[test]
fn what_cannot_be_is_found() {
    let tales: [(&str, &[Line]); 16] = [
        (
            "a value that was overwritten",
            &[
                (0, 1, 2, SET_A, "STORED"),
                (1, 3, 4, SET_B, "STORED"),
                (0, 5, 6, "get k0", A),
            ],
        ),
        (
            "a write that is lost",
            &[(0, 1, 2, SET_A, "STORED"), (1, 3, 4, "get k0", "")],
        ),
        (
            "a silent write that is lost",
            &[
                (0, 1, 2, "set k0 0 0 1 noreply\r\na", SILENT),
                (1, 3, 4, "get k0", ""),
            ],
        ),
        (
            "a write that was refused and done",
            &[(0, 1, 2, SET_A, REFUSED), (1, 3, 4, "get k0", A)],
        ),
        (
            "a value that was deleted",
            &[
                (0, 1, 2, SET_A, "STORED"),
                (1, 3, 4, "delete k0", "DELETED"),
                (0, 5, 6, "mg k0 v", "VA 1\r\na"),
            ],
        ),
        (
            "a value that was flushed",
            &[
                (0, 1, 2, SET_A, "STORED"),
                (1, 3, 4, "flush_all", "OK"),
                (0, 5, 6, "get k0", A),
            ],
        ),
        (
            "a lock that two hold",
            &[
                (0, 1, 2, "add k0 0 0 1\r\na", "STORED"),
                (1, 3, 4, "add k0 0 0 1\r\nb", "STORED"),
            ],
        ),
        (
            "appended twice",
            &[
                (0, 1, 2, SET_A, "STORED"),
                (0, 3, 4, "append k0 0 0 1\r\nb", "STORED"),
                (1, 5, 6, "get k0", "VALUE k0 0 3\r\nabb"),
            ],
        ),
        (
            "counted from an older number",
            &[
                (0, 1, 2, "set k0 0 0 1\r\n5", "STORED"),
                (0, 3, 4, "incr k0 1", "6"),
                (1, 5, 6, "ma k0 v", "VA 1\r\n6"),
            ],
        ),
        (
            "other flags",
            &[
                (0, 1, 2, SET_A, "STORED"),
                (1, 3, 4, "get k0", "VALUE k0 7 1\r\na"),
            ],
        ),
        (
            "a longer life",
            &[
                (0, 1, 2, "set k0 0 100 1\r\na", "STORED"),
                (1, 3, 4, "mg k0 t", "HD t900"),
            ],
        ),
        (
            "an unknown write that was seen and is gone",
            &[
                (0, 1, 2, SET_A, "STORED"),
                (0, 3, 4, SET_B, UNKNOWN),
                (1, 5, 6, "get k0", B),
                (1, 7, 8, "get k0", A),
            ],
        ),
        (
            "two writes at a time that take turns",
            &[
                (0, 1, 3, SET_A, "STORED"),
                (1, 1, 3, SET_B, "STORED"),
                (0, 4, 5, "get k0", A),
                (0, 6, 7, "get k0", B),
            ],
        ),
        (
            "another key's value",
            &[
                (0, 1, 2, SET_A, "STORED"),
                (1, 3, 4, "get user:1", "VALUE user:1 0 1\r\na"),
            ],
        ),
        (
            "a token from before a write",
            &[
                (0, 1, 2, SET_A, "STORED"),
                (0, 3, 4, "gets k0", "VALUE k0 0 1 77\r\na"),
                (1, 5, 6, SET_B, "STORED"),
                (0, 7, 8, "cas k0 0 0 1 77\r\nc", "STORED"),
            ],
        ),
        (
            "a token that nobody was given",
            &[
                (0, 1, 2, SET_A, "STORED"),
                (0, 3, 4, "ms k0 1 C78\r\nb", "HD"),
            ],
        ),
    ];
    for (name, lines) in tales {
        assert!(judge(lines).is_err(), "{name}");
    }
}

#[test]
fn what_can_be_is_not_complained_of() {
    let tales: [(&str, &[Line]); 7] = [
        (
            "one after the other",
            &[
                (0, 1, 2, SET_A, "STORED"),
                (0, 3, 4, "gets k0", "VALUE k0 0 1 77\r\na"),
                (0, 5, 6, "cas k0 0 0 1 77\r\nb", "STORED"),
                (1, 7, 8, "get k0", B),
                (1, 9, 10, "md k0 q", ""),
                (1, 11, 12, "get k0", ""),
            ],
        ),
        (
            "an unknown write that was done",
            &[
                (0, 1, 2, SET_A, "STORED"),
                (0, 3, 4, SET_B, UNKNOWN),
                (1, 5, 6, "get k0", B),
            ],
        ),
        (
            "one that was not",
            &[
                (0, 1, 2, SET_A, "STORED"),
                (0, 3, 4, SET_B, UNKNOWN),
                (1, 5, 6, "get k0", A),
            ],
        ),
        (
            "one that is done late",
            &[
                (0, 1, 2, SET_A, "STORED"),
                (0, 3, 4, SET_B, UNKNOWN),
                (1, 4, 5, "get k0", A),
                (1, 5, 6, "get k0", B),
            ],
        ),
        (
            "two at a time",
            &[
                (0, 1, 3, SET_A, "STORED"),
                (1, 1, 3, SET_B, "STORED"),
                (1, 4, 5, "get k0", A),
            ],
        ),
        (
            "a read beside a write",
            &[
                (0, 1, 2, SET_A, "STORED"),
                (0, 3, 6, SET_B, "STORED"),
                (1, 4, 5, "get k0", A),
            ],
        ),
        (
            "a token that is out of date, refused",
            &[
                (0, 1, 2, SET_A, "STORED"),
                (0, 3, 4, "gets k0", "VALUE k0 0 1 77\r\na"),
                (1, 5, 6, SET_B, "STORED"),
                (0, 7, 8, "cas k0 0 0 1 77\r\nc", "EXISTS"),
                (1, 9, 10, "get k0", B),
            ],
        ),
    ];
    for (name, lines) in tales {
        if let Err(why) = judge(lines) {
            panic!("{name}: {why}");
        }
    }
}

#[test]
fn blind_returns_as_in_magent_0_6_are_caught() {
    let layout = Layout {
        primaries: 2,
        backups: 1,
    };
    let blind = ["--rejoin", "as-is", "--read-repair", "off"];
    let result = run(&layout, &blind, 1, Duration::from_secs(60));
    let why = result.expect_err("servers that return empty, or with old values, and are believed");
    assert!(why.contains("no order explains"), "{why}");
}
