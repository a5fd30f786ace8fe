//! Links to servers that are full: bytes move all the time, but what is asked for takes longer than `--timeout`. No server is
//! to blame for that.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use crate::common::{wait_for, Magent, Memcached, PATIENCE};

/// Bytes in a hundredth of a second: a megabyte takes 2.5 seconds.
const STEP: usize = 4000;

/// A link to the server at `port` that carries little, each connection for itself; the port of its near end.
fn narrow(port: u16) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let near = listener.local_addr().expect("it is bound").port();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else {
                continue;
            };
            for (from, to) in [(&client, &server), (&server, &client)] {
                let (from, to) = (from.try_clone(), to.try_clone());
                let (Ok(from), Ok(to)) = (from, to) else {
                    continue;
                };
                thread::spawn(move || carry(from, to));
            }
        }
    });
    near
}

fn carry(mut from: TcpStream, mut to: TcpStream) {
    let mut piece = [0; STEP];
    while let Ok(count @ 1..) = from.read(&mut piece) {
        if to.write_all(&piece[..count]).is_err() {
            break;
        }
        thread::sleep(Duration::from_micros(10_000 * count as u64 / STEP as u64));
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}

#[test]
fn what_takes_longer_than_the_time_limit_arrives() {
    let server = Memcached::start();
    let proxy = Magent::front(&[narrow(server.port())], &[])
        .args(&["--timeout", "1000"])
        .start();
    let value = "x".repeat(1_000_000);
    let mut client = proxy.client().patience(Duration::from_secs(30));
    client.set("large", &value);
    assert_eq!(server.client().get("large").as_deref(), Some(&*value));
    assert_eq!(client.get("large").as_deref(), Some(&*value));
    assert_eq!(client.stat("magent_failed_reads"), "0");
    assert_eq!(client.stat("magent_failed_writes"), "0");
}

#[test]
fn who_waits_too_long_for_a_full_link_hears_that_nothing_was_done() {
    let server = Memcached::start();
    let proxy = Magent::front(&[narrow(server.port())], &[])
        .args(&["--timeout", "1000"])
        .start();
    let value = "x".repeat(1_000_000);
    let [mut client, mut other] = [0, 1].map(|_| proxy.client().patience(Duration::from_secs(30)));
    client.send(format!("set large 0 0 1000000\r\n{value}\r\n"));
    wait_for("it is under way", PATIENCE, || {
        other.stat("magent_in_flight") != "0"
    });
    let busy = "SERVER_ERROR the server for this key has too much to do: nothing was done";
    assert_eq!(other.ask("set small 0 0 1\r\n1"), busy);
    assert_eq!(other.stat("magent_refused_full"), "1");
    assert_eq!(client.line(), b"STORED\r\n");
    assert_eq!(server.client().get("small"), None);
    // The link is free.
    other.set("small", "2");
    assert_eq!(client.get("small").as_deref(), Some("2"));
}
