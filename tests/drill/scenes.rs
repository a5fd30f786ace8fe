//! The drills: what is broken, and for how long it is looked at.

use std::time::Duration;

use nix::sys::signal::Signal;

use super::lab::{Lab, Side};
use super::Outcome;

/// A drill.
#[derive(Clone, Copy)]
pub struct Scene {
    /// One word, for the command line.
    pub name: &'static str,
    /// What is done, for the table.
    pub title: &'static str,
    /// Which setup it needs.
    pub kind: Kind,
    /// The outage that is aimed at, in milliseconds: profile fast, profile classic.
    pub goal: [Option<u64>; 2],
    /// Does it.
    pub act: fn(&mut Lab) -> Outcome<()>,
}

/// How the pair is set up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// As `keepalived/render` does it unless told otherwise.
    Stays,
    /// With `--preempt`.
    Preempts,
    /// The old guides' way.
    Guide,
}

const A: Side = Side::A;
const B: Side = Side::B;

/// Long enough for anything but a search for what is gone. It cannot fail: scenes end with it.
fn look(lab: &Lab) -> Outcome<()> {
    lab.work(Duration::from_millis(2500));
    Ok(())
}

/// The longest of all takeovers is over, with its gratuitous ARPs.
fn look_long(lab: &Lab) -> Outcome<()> {
    lab.work(Duration::from_millis(5500));
    Ok(())
}

macro_rules! scene {
    ($name:expr, $kind:ident, $fast:expr, $classic:expr, $title:expr, $act:expr) => {
        Scene {
            name: $name,
            title: $title,
            kind: Kind::$kind,
            goal: [$fast, $classic],
            act: $act,
        }
    };
}

/// All of them, in the order of the table.
pub const ALL: &[Scene] = &[
    scene!(
        "proxy-killed",
        Stays,
        Some(250),
        None,
        "proxy killed, not started again",
        |lab| {
            lab.node(A).kill_proxy()?;
            look(lab)
        }
    ),
    scene!(
        "proxy-dies",
        Stays,
        Some(250),
        None,
        "proxy killed, started again after 100 ms",
        |lab| {
            lab.node(A).kill_proxy()?;
            lab.work(Duration::from_millis(100));
            lab.node(A).start_proxy()?;
            look(lab)
        }
    ),
    scene!(
        "proxy-restart",
        Stays,
        Some(100),
        Some(100),
        "systemctl restart of the proxy",
        |lab| {
            lab.node(A).drain()?;
            lab.node(A).start_proxy()?;
            look(lab)
        }
    ),
    scene!(
        "proxy-hung",
        Stays,
        Some(1000),
        None,
        "proxy hung, killed and started again after 5 s",
        |lab| {
            lab.node(A).signal_proxy(Signal::SIGSTOP)?;
            lab.work(Duration::from_secs(5));
            lab.node(A).kill_proxy()?;
            lab.work(Duration::from_millis(100));
            lab.node(A).start_proxy()?;
            look(lab)
        }
    ),
    scene!(
        "proxy-wakes",
        Stays,
        Some(1000),
        None,
        "proxy hung for 3 s, then goes on",
        |lab| {
            lab.node(A).signal_proxy(Signal::SIGSTOP)?;
            lab.work(Duration::from_secs(3));
            lab.node(A).signal_proxy(Signal::SIGCONT)?;
            look(lab)
        }
    ),
    scene!(
        "drain",
        Stays,
        Some(100),
        Some(100),
        "systemctl stop of the proxy (drain)",
        |lab| {
            lab.node(A).drain()?;
            look(lab)
        }
    ),
    scene!(
        "keepalived-stopped",
        Stays,
        Some(100),
        Some(100),
        "keepalived stopped",
        |lab| {
            lab.node(A).stop_keepalived()?;
            look(lab)
        }
    ),
    scene!(
        "keepalived-killed",
        Stays,
        None,
        None,
        "keepalived killed, started again after 1 s",
        |lab| {
            lab.node(A).kill_keepalived();
            lab.work(Duration::from_secs(1));
            lab.node(A).start_keepalived()?;
            look_long(lab)
        }
    ),
    scene!(
        "power-off",
        Stays,
        Some(600),
        Some(3700),
        "node loses power",
        |lab| {
            lab.power_off(A)?;
            look_long(lab)
        }
    ),
    scene!(
        "power-on",
        Stays,
        Some(100),
        Some(100),
        "it returns, empty; the address stays",
        |lab| {
            lose_node(lab, A, B)?;
            look(lab)?;
            lab.mark();
            lab.power_on(A)?;
            lab.wait_whole(B)?;
            look(lab)
        }
    ),
    scene!(
        "power-on-preempt",
        Preempts,
        Some(100),
        Some(100),
        "it returns, empty, and takes the address back",
        |lab| {
            lose_node(lab, A, B)?;
            look(lab)?;
            lab.mark();
            lab.power_on(A)?;
            lab.wait_held(A)?;
            look(lab)
        }
    ),
    scene!(
        "return-preempt",
        Preempts,
        Some(100),
        Some(100),
        "keepalived starts again and takes the address back",
        |lab| {
            lab.node(A).stop_keepalived()?;
            lab.wait_held_by(B)?;
            look(lab)?;
            lab.mark();
            lab.node(A).start_keepalived()?;
            lab.wait_held(A)?;
            look(lab)
        }
    ),
    scene!(
        "cable",
        Stays,
        Some(600),
        Some(3700),
        "node's cable pulled, plugged in after 5 s",
        |lab| {
            lab.network().unplug("a")?;
            look_long(lab)?;
            lab.network().plug("a")?;
            look_long(lab)
        }
    ),
    scene!(
        "split",
        Stays,
        None,
        None,
        "nodes cut apart for 5 s (split brain), healed",
        |lab| {
            lab.network().part(true)?;
            look_long(lab)?;
            lab.network().part(false)?;
            look_long(lab)
        }
    ),
    scene!(
        "node-frozen",
        Stays,
        None,
        None,
        "all processes of the node frozen for 4 s",
        |lab| {
            lab.node(A).freeze(Signal::SIGSTOP)?;
            lab.work(Duration::from_secs(4));
            lab.node(A).freeze(Signal::SIGCONT)?;
            look_long(lab)
        }
    ),
    scene!(
        "primary-killed",
        Stays,
        Some(20),
        Some(20),
        "primary memcached killed, started again after 2 s",
        |lab| {
            replace_memcached(lab, A, Duration::from_secs(2))?;
            look(lab)
        }
    ),
    scene!(
        "backup-killed",
        Stays,
        Some(20),
        Some(20),
        "backup memcached killed, started again after 2 s",
        |lab| {
            replace_memcached(lab, B, Duration::from_secs(2))?;
            look(lab)
        }
    ),
    scene!(
        "primary-hung",
        Stays,
        Some(215),
        Some(215),
        "primary memcached hung for 3 s",
        |lab| hang_memcached(lab, A)
    ),
    scene!(
        "backup-hung",
        Stays,
        Some(215),
        Some(215),
        "backup memcached hung for 3 s",
        |lab| hang_memcached(lab, B)
    ),
    scene!(
        "memcached-in-turn",
        Stays,
        Some(20),
        Some(20),
        "one memcached killed and back, then the other",
        |lab| {
            for side in [A, B] {
                replace_memcached(lab, side, Duration::from_secs(1))?;
            }
            look(lab)
        }
    ),
    scene!(
        "nodes-in-turn",
        Stays,
        Some(600),
        Some(3700),
        "one node loses power and returns, then the other",
        |lab| {
            for (side, other) in [(A, B), (B, A)] {
                lose_node(lab, side, other)?;
                lab.power_on(side)?;
                lab.wait_whole(other)?;
                look(lab)?;
            }
            Ok(())
        }
    ),
    scene!(
        "guide-stopped",
        Guide,
        None,
        None,
        "guides' way: keepalived stopped",
        |lab| {
            lab.node(A).stop_keepalived()?;
            look_long(lab)
        }
    ),
    scene!(
        "guide-proxy",
        Guide,
        None,
        None,
        "guides' way: proxy killed",
        |lab| {
            lab.node(A).kill_proxy()?;
            look_long(lab)
        }
    ),
    scene!(
        "guide-power",
        Guide,
        None,
        None,
        "guides' way: node loses power, returns",
        |lab| {
            lab.power_off(A)?;
            look_long(lab)?;
            lab.power_on(A)?;
            lab.wait_held(A)?;
            look_long(lab)
        }
    ),
];

/// The drill of that name.
pub fn named(name: &str) -> Option<&'static Scene> {
    ALL.iter().find(|scene| scene.name == name)
}

/// `node` loses power, and `other` takes its place.
fn lose_node(lab: &mut Lab, node: Side, other: Side) -> Outcome<()> {
    lab.power_off(node)?;
    lab.wait_held_by(other)?;
    lab.wait_working()
}

/// A memcached is killed and started again, empty, `pause` later; the address is at A.
fn replace_memcached(lab: &mut Lab, side: Side, pause: Duration) -> Outcome<()> {
    lab.node(side).kill_memcached();
    lab.work(pause);
    lab.node(side).start_memcached()?;
    lab.wait_whole(A)
}

fn hang_memcached(lab: &mut Lab, side: Side) -> Outcome<()> {
    lab.node(side).signal_memcached(Signal::SIGSTOP)?;
    lab.work(Duration::from_secs(3));
    lab.node(side).signal_memcached(Signal::SIGCONT)?;
    lab.wait_whole(A)?;
    look(lab)
}
