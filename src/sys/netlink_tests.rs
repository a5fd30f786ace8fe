//! Messages as the kernel makes them, and what is made of them.

use super::*;

/// A message as the kernel makes it.
fn made(kind: u16, family: i32, interface: u32, attributes: &[(u16, &[u8])]) -> Vec<u8> {
    let mut body = vec![family as u8, 24, 0, 0];
    body.extend_from_slice(&interface.to_ne_bytes());
    for (kind, value) in attributes {
        body.extend_from_slice(&(4 + value.len() as u16).to_ne_bytes());
        body.extend_from_slice(&kind.to_ne_bytes());
        body.extend_from_slice(value);
        body.resize(body.len().next_multiple_of(4), 0);
    }
    let mut bytes = ((HEADER + body.len()) as u32).to_ne_bytes().to_vec();
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(&[0; 10]);
    bytes.extend_from_slice(&body);
    bytes
}

fn v4(last: u8) -> IpAddr {
    Ipv4Addr::new(192, 0, 2, last).into()
}

#[test]
fn messages_are_read_and_broken_ones_do_no_harm() {
    let label = (3, &b"eth0:1\0"[..]);
    let mut bytes = made(
        libc::RTM_NEWADDR,
        libc::AF_INET,
        2,
        // The peer of a line from point to point, its own address, and a name of odd length before them.
        &[
            label,
            (IFA_ADDRESS, &[10, 0, 0, 1]),
            (IFA_LOCAL, &[192, 0, 2, 1]),
        ],
    );
    let v6 = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 9);
    let second = made(
        libc::RTM_DELADDR,
        libc::AF_INET6,
        3,
        &[(IFA_ADDRESS, &v6.octets())],
    );
    bytes.extend_from_slice(&second);
    bytes.extend_from_slice(&made(libc::NLMSG_DONE as u16, 0, 0, &[]));
    let kinds: Vec<Kind> = messages(&bytes).map(|event| event.kind).collect();
    let expect = [
        Kind::Here((v4(1), 2)),
        Kind::Gone((v6.into(), 3)),
        Kind::Done,
    ];
    assert_eq!(kinds, expect);
    // Cut anywhere, and with any byte changed, it is read without harm.
    for end in 0..bytes.len() {
        assert!(messages(&bytes[..end]).count() <= 3);
        for value in [0, 1, 3, 255] {
            let mut changed = bytes.clone();
            changed[end] = value;
            assert!(messages(&changed).count() <= changed.len());
        }
    }
}

#[test]
fn changes_are_told_by_what_holds_in_the_end() {
    let event = |kind| Event {
        kind,
        interrupted: false,
    };
    let here = |last, interface| event(Kind::Here((v4(last), interface)));
    let gone = |last, interface| event(Kind::Gone((v4(last), interface)));
    let cases: [(&[Event], &[u8], &[u8]); 7] = [
        (&[here(9, 1)], &[9], &[]),
        (&[gone(1, 1)], &[], &[1]),
        // Gone and back, known already, and gone from one of two interfaces.
        (&[gone(1, 1), here(1, 1)], &[], &[]),
        (&[here(1, 1)], &[], &[]),
        (&[gone(2, 1)], &[], &[]),
        (&[gone(2, 1), gone(2, 2)], &[], &[2]),
        // Only there for a moment: a client may have come by it.
        (&[here(9, 1), gone(9, 1)], &[], &[9]),
    ];
    for (events, came, left) in cases {
        let mut set: HashSet<Entry> = [(v4(1), 1), (v4(2), 1), (v4(2), 2)].into();
        let mut tracked = Tracked::default();
        for event in events {
            tracked.apply(&mut set, event);
        }
        let changes = tracked.changes(&set);
        let ips = |lasts: &[u8]| lasts.iter().map(|&last| v4(last)).collect::<Vec<_>>();
        assert_eq!(
            (changes.came, changes.left),
            (ips(came), ips(left)),
            "{events:?}"
        );
    }
}

#[test]
fn a_list_read_anew_stands_for_what_was_lost() {
    let mut set: HashSet<Entry> = [(v4(1), 1), (v4(2), 1)].into();
    let mut tracked = Tracked::default();
    tracked.replace(&mut set, [(v4(2), 1), (v4(3), 1)].into());
    let changes = tracked.changes(&set);
    assert_eq!((changes.came, changes.left), (vec![v4(3)], vec![v4(1)]));
}

#[test]
fn the_loopback_address_is_here() {
    let mut addresses = Addresses::open().unwrap();
    // In a network namespace whose loopback is down there is none at all.
    let up = std::net::TcpListener::bind("127.0.0.1:0").is_ok();
    assert_eq!(addresses.has(Ipv4Addr::LOCALHOST.into()), up);
    assert!(!addresses.has(v4(77)));
    assert_eq!(addresses.take(), Changes::default());
}
