//! Places are pure; sockets are tried on loopback and in the temporary directory.

use super::*;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener as StdListener, UnixStream};

fn config(port: u16, listen: &[&str]) -> Config {
    Config {
        port,
        listen: listen.iter().map(|&l| l.to_owned()).collect(),
        ..Config::default()
    }
}

fn addresses(listen: &[&str]) -> Vec<String> {
    let places = places(&config(80, listen)).unwrap();
    places.iter().map(|p| p.address.to_string()).collect()
}

/// A place at any free port of that address.
fn place(ip: &str) -> Place {
    Place {
        address: SocketAddr::new(ip.parse().unwrap(), 0),
        asked: format!("-l {ip} -p 0"),
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
fn which_places() {
    assert_eq!(addresses(&[]), ["[::]:80"]);
    assert_eq!(
        addresses(&["127.0.0.2", "127.0.0.1", "127.0.0.2"]),
        ["127.0.0.1:80", "127.0.0.2:80"]
    );
    assert!(addresses(&["localhost"]).contains(&"127.0.0.1:80".to_owned()));
    assert!(places(&config(0, &["127.0.0.1"])).unwrap().is_empty());
}

#[test]
fn all_of_ipv6_takes_ipv4_unless_that_is_asked_for_too() {
    let only = |listen: &[&str]| {
        let places = places(&config(80, listen)).unwrap();
        places
            .iter()
            .find(|p| p.address.is_ipv6())
            .map(|p| p.only_v6)
    };
    assert_eq!(only(&[]), Some(false));
    assert_eq!(only(&["::"]), Some(false));
    assert_eq!(only(&["::", "0.0.0.0"]), Some(true));
    assert_eq!(only(&["::1"]), Some(true));
}

#[test]
fn a_name_that_does_not_resolve_is_named() {
    let error = places(&config(80, &["no-such-host.invalid"]))
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("-l no-such-host.invalid: does not resolve"),
        "{error}"
    );
}

#[test]
fn an_address_that_is_not_here_is_no_error() {
    // 192.0.2.0/24 is for documentation: no host has it.
    assert!(Listener::tcp(&place("192.0.2.7"), &Marks::default()).is_ok());
}

#[test]
fn a_port_held_by_a_stranger_is_an_error() {
    let stranger = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = stranger.local_addr().unwrap().port();
    let place = &places(&config(port, &["127.0.0.1"])).unwrap()[0];
    let error = Listener::tcp(place, &Marks::default())
        .err()
        .map(|e| e.to_string());
    let expected = format!("-l 127.0.0.1 -p {port}: address already in use by another program");
    assert_eq!(error, Some(expected));
}

#[test]
fn accepted_sockets_inherit_their_options() {
    let listener = Listener::tcp(&place("127.0.0.1"), &Marks::default())
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
