//! What the options make of a return.

use super::stopped::*;
use crate::common::pool::*;
use crate::common::{timed, wait_for, Pool, AT_ONCE, PATIENCE};

#[test]
fn as_magent_0_6_an_empty_primary_misses() {
    let mut pool = Pool::new(1, 1, &["--rejoin", "as-is", "--read-repair", "off"]);
    let mut client = pool.client();
    client.set("k", "value");
    pool.primaries[0].kill();
    assert_eq!(client.get("k").as_deref(), Some("value"));
    pool.primaries[0].restart();
    wait_state(&mut client, &pool.primaries[0], &["up"]);
    assert_eq!(client.get("k"), None);
    assert_eq!(client.ask("add k 0 0 1\r\nx"), "STORED");
    assert_eq!(client.get("k").as_deref(), Some("x"));
}

#[test]
fn stamps_can_be_seen_and_not_be_written() {
    let mut pool = Pool::new(1, 1, &[]);
    let mut client = pool.client();
    let key = replication(&mut client, "stamp_key");
    assert_eq!(client.get(&key), None, "nothing was missed yet");
    client.set("k", "value");
    pool.backups[0].kill();
    wait_for("the backup is left out", PATIENCE, || {
        client.set("k", "value");
        client.get(&key).is_some()
    });
    let stamp = client.get(&key).unwrap();
    let view = replication(&mut client, "view");
    assert!(stamp.starts_with(&format!("1 {view} ")), "{stamp}");
    assert_eq!(pool.primaries[0].client().get(&key), Some(stamp.clone()));
    for command in [
        "set K 0 0 1\r\nx",
        "add K 0 0 1\r\nx",
        "replace K 0 0 1\r\nx",
        "append K 0 0 1\r\nx",
        "cas K 0 0 1 1\r\nx",
        "delete K",
        "incr K 1",
        "touch K 1",
        "ms K 1\r\nx",
        "md K",
        "ma K",
    ] {
        let reply = client.ask(&command.replace('K', &key));
        assert!(reply.starts_with("CLIENT_ERROR "), "{command:?}: {reply}");
    }
    assert_eq!(client.get(&key), Some(stamp));
    assert_eq!(client.get("k").as_deref(), Some("value"));
}

#[test]
fn with_ack_primary_the_copies_follow() {
    let mut pool = Pool::new(1, 1, &["--ack", "primary"]);
    let mut client = pool.client();
    write_before_stop(&mut client);
    write_while_stopped(&mut client);
    for (key, value) in WHILE_STOPPED {
        wait_for("the copy follows", PATIENCE, || {
            pool.backups[0].client().get(key).as_deref() == value
        });
    }
    pool.primaries[0].kill();
    for (key, value) in WHILE_STOPPED {
        assert_eq!(client.get(key).as_deref(), value);
    }
    pool.primaries[0].restart();
    for (key, value) in WHILE_STOPPED {
        assert_eq!(client.get(key).as_deref(), value);
    }
    wait_state(&mut client, &pool.primaries[0], &["up"]);
    pool.backups[0].freeze();
    // A stopped backup costs nobody anything.
    let (_, time) = timed(|| client.set("k", "value"));
    assert!(time < AT_ONCE, "set took {time:?}");
    pool.backups[0].thaw();
}
