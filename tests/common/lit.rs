//! A proxy whose `--admin` is on.

use super::{Magent, Memcached, Port};

/// A proxy with an endpoint, two primaries and a backup.
pub struct Lit {
    pub primaries: [Memcached; 2],
    pub backup: Memcached,
    pub proxy: Magent,
    admin: Port,
}

impl Lit {
    /// With these options besides.
    pub fn new(more: &[&str]) -> Lit {
        let primaries = [Memcached::start(), Memcached::start()];
        let backup = Memcached::start();
        let admin = Port::claim();
        let address = format!("127.0.0.1:{}", admin.number());
        let ports = [primaries[0].port(), primaries[1].port()];
        let proxy = Magent::front(&ports, &[backup.port()])
            .args(&["--admin", &address])
            .args(more)
            .start();
        Lit {
            primaries,
            backup,
            proxy,
            admin,
        }
    }

    /// Where the endpoint is.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.admin.number())
    }
}
