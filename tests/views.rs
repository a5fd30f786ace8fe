//! Views: whichever write leaves a server out, the others say so before a second proxy can ask them.

use crate::common;

use common::pool::{replication, wait_state};
use common::{wait_for, Magent, Memcached, PATIENCE};

#[test]
fn a_write_in_flight_to_a_server_that_is_lost_leaves_it_out() {
    let (primary, backup) = (Memcached::start(), Memcached::start());
    let proxy = Magent::front(&[primary.port()], &[backup.port()]).start();
    let mut client = proxy.client();
    client.set("k", "old");
    assert_eq!(replication(&mut client, "views_raised"), "0");
    primary.freeze();
    client.set("k", "new");
    assert_eq!(replication(&mut client, "views_raised"), "1");
    primary.thaw();
    wait_state(&mut client, &primary, &["up"]);
    assert_eq!(client.get("k").as_deref(), Some("new"));
}

#[test]
fn a_write_behind_vain_attempts_to_connect_leaves_the_server_out() {
    let (mut primary, backup) = (Memcached::start(), Memcached::start());
    let proxy = Magent::front(&[primary.port()], &[backup.port()]).start();
    let mut client = proxy.client();
    let unrefused = format!("STAT 127.0.0.1:{}:lost_refused 0\r", primary.port());
    // The second time it had the present view, and this proxy raised that.
    for _ in 0..2 {
        client.ask("stats reset");
        primary.kill();
        wait_for("a connection is refused", PATIENCE, || {
            !client.ask("stats servers").contains(&unrefused)
        });
        client.set("k", "value");
        assert_eq!(replication(&mut client, "views_raised"), "1");
        primary.restart();
        wait_state(&mut client, &primary, &["up"]);
    }
}

#[test]
fn a_proxy_beside_lets_in_what_the_other_has_made_safe() {
    let (primary, backup) = (Memcached::start(), Memcached::start());
    let fronts = [(); 2].map(|()| Magent::front(&[primary.port()], &[backup.port()]).start());
    let [mut client, mut beside] = [0, 1].map(|n| fronts[n].client());
    let name = format!("127.0.0.1:{}:state", primary.port());
    client.set("k", "old");
    primary.freeze();
    wait_for("both know that it is down", PATIENCE, || {
        let _ = client.ask("get no-such-key");
        [&mut client, &mut beside].map(|one| replication(one, &name)) == ["down", "down"]
    });
    client.set("k", "new");
    wait_for("the other has seen the view", PATIENCE, || {
        let _ = client.ask("get no-such-key");
        [&mut client, &mut beside].map(|one| replication(one, "view"))[1] != "0"
    });
    primary.thaw();
    wait_state(&mut client, &primary, &["up"]);
    // It was asked for nothing; and when it is, there is nothing to flush.
    wait_for("the other lets it in", PATIENCE, || {
        replication(&mut beside, &name) == "up"
    });
    drop(client);
    assert_eq!(beside.get("k").as_deref(), Some("new"));
    assert_eq!(replication(&mut beside, "entry_flushes"), "0");
}
