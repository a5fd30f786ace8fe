//! Sockets are tried on loopback and in the temporary directory.

use std::net::SocketAddr;

use super::*;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener as StdListener, UnixStream};

/// A place at that address; port 0: any free one.
fn place(ip: &str, port: u16) -> Place {
    Place {
        address: SocketAddr::new(ip.parse().unwrap(), port),
        asked: format!("-l {ip} -p {port}"),
        only_v6: true,
        or_v4: false,
        backlog: 16,
        reuseport: false,
    }
}

fn temporary(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("magent-{name}-{}", std::process::id()))
}

#[test]
fn an_address_that_is_not_here_is_no_error() {
    // 192.0.2.0/24 is for documentation: no host has it.
    assert!(Listener::tcp(&place("192.0.2.7", 0), &Marks::default()).is_ok());
}

#[test]
fn a_port_held_by_a_stranger_is_an_error() {
    let stranger = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = stranger.local_addr().unwrap().port();
    let place = &place("127.0.0.1", port);
    let error = Listener::tcp(place, &Marks::default())
        .err()
        .map(|e| e.to_string());
    let expected = format!("-l 127.0.0.1 -p {port}: address already in use by another program");
    assert_eq!(error, Some(expected));
}

#[test]
fn accepted_sockets_inherit_their_options() {
    let listener = Listener::tcp(&place("127.0.0.1", 0), &Marks::default())
        .ok()
        .unwrap();
    let Listener::Tcp(tcp) = &listener else {
        panic!("not TCP");
    };
    let _client = std::net::TcpStream::connect(tcp.local_addr().unwrap()).unwrap();
    let Ok(Stream::Tcp(accepted)) = listener.accept() else {
        panic!("not accepted");
    };
    assert!(accepted.nodelay().unwrap());
    assert!(socket2::SockRef::from(&accepted).keepalive().unwrap());
}

#[test]
fn a_stale_socket_file_is_replaced_and_ours_removed() {
    let path = temporary("stale");
    drop(StdListener::bind(&path).unwrap());
    let listener = Listener::unix(&Config::default(), &path, (None, None))
        .ok()
        .unwrap();
    assert!(UnixStream::connect(&path).is_ok());
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    drop(listener);
    assert!(!path.exists());
}

#[test]
fn a_live_socket_or_a_file_is_left_alone() {
    let path = temporary("live");
    let _live = StdListener::bind(&path).unwrap();
    let error = |path: &Path| {
        Listener::unix(&Config::default(), path, (None, None))
            .err()
            .map(|e| e.to_string())
    };
    let expected = format!("-f {}: already in use by another program", path.display());
    assert_eq!(error(&path), Some(expected));
    fs::remove_file(&path).unwrap();
    fs::write(&path, "x").unwrap();
    let expected = format!("-f {}: there is a file that is no socket", path.display());
    assert_eq!(error(&path), Some(expected));
    fs::remove_file(&path).unwrap();
}

#[test]
fn a_newcomers_socket_file_is_not_removed() {
    let path = temporary("newcomer");
    let ours = Listener::unix(&Config::default(), &path, (None, None))
        .ok()
        .unwrap();
    fs::remove_file(&path).unwrap();
    let _theirs = StdListener::bind(&path).unwrap();
    drop(ours);
    assert!(path.exists());
    fs::remove_file(&path).unwrap();
}
