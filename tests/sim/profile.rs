//! What may go wrong in a run, and what must hold all the same.

use magent::config::{Config, Copies, ServerSpec};
use magent::time::Span;

use super::rng::Rng;
use super::{ejecting, identity, lags, lists, narrow, overlap, pieces, reloads};

/// The kinds of runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Profile {
    /// No server fails; bytes are late and cut, clients misbehave.
    Calm,
    /// Servers crash or are cut off, and never return.
    Failover,
    /// Servers are stopped, cut off or slow, restart or continue.
    Slow,
    /// One server after the other goes and returns; the next one goes when all is whole again: nothing may be noticed.
    Return,
    /// The same with few keys, and with clients in a hurry while a server is cold.
    Cold,
    /// Backups are out of memory now and then.
    Full,
    /// Servers say what memcached never would.
    Garbage,
    /// Two proxies: the address moves between them, they crash and start anew, while servers go and return as above.
    Takeover,
    /// Without backups, `--eject`: see `ejecting`.
    Eject,
    /// As `Calm`, `Return`, `Takeover` and `Slow`; but some of the clients speak the binary protocol, on the same keys.
    FramesCalm,
    FramesReturn,
    FramesTakeover,
    FramesSlow,
    /// As `FramesReturn` and `FramesSlow`; but with long values, servers that go in the middle of one, and more: see `pieces`.
    Pieces,
    PiecesSlow,
    /// As `Return`; but servers that live are slow, one at a time: see `lags`.
    Lags,
    /// As `Takeover`; but the list of servers changes when a proxy is started: see `lists`.
    Lists,
    /// As `Return`; but faults overlap: see `overlap`.
    Overlap,
    /// As `Return`; but the configuration changes: see `reloads`.
    Reload,
    /// As `Calm`; but the links to servers are full now and then: see `narrow`.
    Narrow,
    /// As `Return` and `Takeover`; but a server has two names or two roles: see `identity`.
    Twins,
    TwinsTakeover,
    /// As `Return`; but another process may be behind a server's address.
    Moving,
}

/// What the runs of a profile are like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Circumstances {
    /// The profile without the following.
    pub base: Profile,
    /// Some clients speak the binary protocol.
    pub frames: bool,
    /// Values come in several pieces.
    pub pieces: bool,
    /// Servers live, but are slow.
    pub lags: bool,
    /// The list of servers changes.
    pub lists: bool,
    /// Faults overlap.
    pub overlap: bool,
    /// The configuration changes.
    pub reloads: bool,
    /// Links carry little.
    pub narrow: bool,
    /// A server is given twice.
    pub twins_given: bool,
    /// An address may lead to another process.
    pub moving: bool,
}

impl Profile {
    pub const ALL: [Profile; 23] = [
        Profile::Calm,
        Profile::Failover,
        Profile::Slow,
        Profile::Return,
        Profile::Cold,
        Profile::Full,
        Profile::Garbage,
        Profile::Takeover,
        Profile::Eject,
        Profile::FramesCalm,
        Profile::FramesReturn,
        Profile::FramesTakeover,
        Profile::FramesSlow,
        Profile::Pieces,
        Profile::PiecesSlow,
        Profile::Lags,
        Profile::Lists,
        Profile::Overlap,
        Profile::Reload,
        Profile::Narrow,
        Profile::Twins,
        Profile::TwinsTakeover,
        Profile::Moving,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Profile::Calm => "calm",
            Profile::Failover => "failover",
            Profile::Slow => "slow",
            Profile::Return => "return",
            Profile::Cold => "cold",
            Profile::Full => "full",
            Profile::Garbage => "garbage",
            Profile::Takeover => "takeover",
            Profile::Eject => "eject",
            Profile::FramesCalm => "frames-calm",
            Profile::FramesReturn => "frames-return",
            Profile::FramesTakeover => "frames-takeover",
            Profile::FramesSlow => "frames-slow",
            Profile::Pieces => "pieces",
            Profile::PiecesSlow => "pieces-slow",
            Profile::Lags => "lags",
            Profile::Lists => "lists",
            Profile::Overlap => "overlap",
            Profile::Reload => "reload",
            Profile::Narrow => "narrow",
            Profile::Twins => "twins",
            Profile::TwinsTakeover => "twins-takeover",
            Profile::Moving => "moving",
        }
    }

    pub fn named(name: &str) -> Option<Profile> {
        Profile::ALL
            .into_iter()
            .find(|profile| profile.name() == name)
    }

    /// The circumstances of its runs. With frames the same seed is the same servers and faults as without.
    pub fn circumstances(self) -> Circumstances {
        let (base, frames, pieces) = match self {
            Profile::FramesCalm => (Profile::Calm, true, false),
            Profile::FramesReturn => (Profile::Return, true, false),
            Profile::FramesTakeover => (Profile::Takeover, true, false),
            Profile::FramesSlow => (Profile::Slow, true, false),
            Profile::Pieces => (Profile::Return, true, true),
            Profile::PiecesSlow => (Profile::Slow, true, true),
            Profile::Lags => (Profile::Return, false, false),
            Profile::Lists => (Profile::Takeover, false, false),
            Profile::Narrow => (Profile::Calm, false, true),
            Profile::Overlap | Profile::Reload | Profile::Twins | Profile::Moving => {
                (Profile::Return, false, false)
            }
            Profile::TwinsTakeover => (Profile::Takeover, false, false),
            profile => (profile, false, false),
        };
        Circumstances {
            base,
            frames,
            pieces,
            lags: self == Profile::Lags,
            lists: self == Profile::Lists,
            overlap: self == Profile::Overlap,
            reloads: self == Profile::Reload,
            narrow: self == Profile::Narrow,
            twins_given: matches!(self, Profile::Twins | Profile::TwinsTakeover),
            moving: self == Profile::Moving,
        }
    }

    /// Servers return, and are made whole before the next one goes.
    pub fn returns(self) -> bool {
        matches!(self, Profile::Return | Profile::Cold | Profile::Takeover)
    }

    /// What the core promises. Nothing here is ever loosened again.
    pub fn guarantees(self) -> Guarantees {
        let all = Guarantees {
            history: true,
            lossy: false,
            session: true,
            cas: true,
            leases: true,
            copies: Copied::Equal,
            clocks: false,
            errors: false,
        };
        match self.circumstances().base {
            // Who is told to refill a stale value is looked into elsewhere; seed 99 has one who is not.
            Profile::Calm if self == Profile::Narrow => Guarantees {
                leases: false,
                ..all
            },
            Profile::Calm => all,
            Profile::Full => Guarantees {
                cas: false,
                leases: false,
                copies: Copied::EqualOrAbsent,
                errors: true,
                ..all
            },
            Profile::Failover | Profile::Return | Profile::Cold | Profile::Takeover => Guarantees {
                session: false,
                cas: false,
                leases: false,
                copies: Copied::EqualOrAbsent,
                errors: true,
                ..all
            },
            Profile::Eject => Guarantees {
                lossy: true,
                session: false,
                cas: false,
                leases: false,
                copies: Copied::Whatever,
                errors: true,
                ..all
            },
            _ => Guarantees {
                history: false,
                lossy: false,
                session: false,
                cas: false,
                leases: false,
                copies: Copied::Whatever,
                clocks: false,
                errors: true,
            },
        }
    }
}

/// What is checked besides form, order and liveness, which always are.
#[derive(Clone, Copy, Debug)]
pub struct Guarantees {
    /// Every reply is explained by an order of the operations on its key (I2, I3, I4).
    pub history: bool,
    /// But a key may be missed at any time, and be there again.
    pub lossy: bool,
    /// A client's read never sees what the same client asked for behind it. Not so after a failover: the read is asked
    /// again, behind what was mirrored meanwhile.
    pub session: bool,
    /// A token is good for the version that it was handed out with. That it is good for no other always holds; but where
    /// servers change, a good one may be refused.
    pub cas: bool,
    /// Of several clients that find an item stale or about to end, one is told to refill it, also over a failover.
    pub leases: bool,
    /// What the copies hold when nothing is in flight.
    pub copies: Copied,
    /// That also holds for items that expire: a copy whose second begins later is healed when it judges otherwise.
    pub clocks: bool,
    /// A client may be told that the outcome is unknown.
    pub errors: bool,
}

/// What the copies of a key hold when nothing is in flight for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Copied {
    Equal,
    EqualOrAbsent,
    Whatever,
}

/// The circumstances of one run, drawn from its seed.
#[derive(Clone, Debug)]
pub struct Plan {
    pub profile: Profile,
    pub config: Config,
    pub clients: usize,
    pub keys: usize,
    /// One way through the network, in microseconds.
    pub delay_min: u64,
    pub delay_max: u64,
    /// How long a server thinks about a connection's commands at most.
    pub service_max: u64,
    /// Longest pause of a client between two batches.
    pub think_max: u64,
    /// Clients do not think while a server goes, or is being filled.
    pub hurry: bool,
    /// Once in so many turns a backup has no memory; 0: never.
    pub out_of_memory: u64,
    /// Bytes a kernel holds for one direction of a connection.
    pub window: usize,
    pub short_writes: u64,
    /// Once in so many batches a client disconnects or half-closes; 0: never.
    pub client_faults: u64,
    /// Once in so many requests `flush_all`; 0: never.
    pub flushes: u64,
    pub batch_max: u64,
    /// A client with so many requests under way asks for no more.
    pub pipeline: usize,
    /// Times to live are used; and such that run out within the run.
    pub times: bool,
    pub short_times: bool,
    /// `gat` with a time to live that ends the item at once. When its server dies, the touch has ended it on the next copy
    /// before the `gat` is asked again there; that is not promised to be right yet.
    pub deadly_gats: bool,
    /// `N`: an item is made where there is none. Nobody is told whether it was, so on a copy that had lost the key by itself
    /// something else is made than on the one that decided.
    pub vivify: bool,
    /// Bytes may be on their way for a whole time limit, though nobody has failed.
    pub stalls: bool,
    pub version: [u32; 3],
    pub item_max: usize,
    /// Long values, bytes cut where parts end, clients that rest, keys that are no words: see `pieces`.
    pub pieces: bool,
    /// Servers that live may be slow: see `lags`.
    pub lags: bool,
    /// What the link to a server carries in a second, in each direction; 0: anything.
    pub rate: u64,
    /// Values are put in as stale ones.
    pub marks: bool,
    /// Proxies are started with another list of servers: see `lists`.
    pub lists: bool,
    /// Faults overlap, and all keys are in two buckets: see `overlap`.
    pub overlap: bool,
    /// The configuration changes while the proxy serves: see `reloads`.
    pub reloads: bool,
    /// A server is given twice, by the same word or by another: see `identity`.
    pub twins_given: bool,
    /// Behind a server's address another process may be found.
    pub moving: bool,
    pub twins: bool,
}

impl Plan {
    pub fn draw(circumstances: Circumstances, rng: &mut Rng) -> Plan {
        let profile = circumstances.base;
        let primaries = rng.range(1, 3);
        let strict = profile.returns() || matches!(profile, Profile::Failover | Profile::Full);
        let backups = rng.range(u64::from(strict), 2);
        let spec = |index: u64| ServerSpec {
            host: "10.0.0.1".into(),
            port: 11211 + index as u16,
            weight: 1,
            name: None,
        };
        // Where only the dead may be late, windows are small and values large, and time limits long.
        let returns = profile.returns() || profile == Profile::Eject;
        let quick = strict || returns || profile == Profile::Calm;
        let timeout_ms = match profile {
            Profile::Calm | Profile::Full => 2000,
            Profile::Failover => rng.pick(&[500, 1000]),
            Profile::Return | Profile::Cold | Profile::Takeover | Profile::Eject => {
                rng.pick(&[200, 500])
            }
            _ => rng.pick(&[20, 50, 200]),
        };
        let times = rng.one_in(2);
        let copies = if rng.one_in(4) {
            Copies::AtMost(1)
        } else {
            Copies::All
        };
        // A request may wait for a chain of others on its key; in calm runs none of them may take a whole time limit.
        let delay_max = rng.pick(&[30, 200, 800]).min(timeout_ms * 20);
        let clients = rng.range(1, 5) as usize;
        let keys = match profile {
            Profile::Cold => rng.pick(&[2, 3, 5, 8]),
            _ => rng.pick(&[3, 8, 16, 40]),
        } as usize;
        // With more requests under way for a key the search for their order is given up more often than it is worth.
        let deep = rng.one_in(10);
        let pipeline = match rng.pick(&[1, 20, 20, 100]) {
            any if deep => any,
            most => most.min(5 * keys / clients).max(1),
        };
        let mut plan = Plan {
            profile,
            config: Config {
                servers: (0..primaries).map(spec).collect(),
                backups: (primaries..primaries + backups).map(spec).collect(),
                server_conns: match profile {
                    Profile::Cold => rng.pick(&[1, 2, 2]),
                    _ => rng.range(1, 2) as usize,
                },
                timeout: Span::from_millis(timeout_ms),
                copies,
                max_item_size: if rng.one_in(3) { 4096 } else { 1 << 20 },
                journal_keys: rng.pick(&[0, 2, 1_000_000, 1_000_000]),
                resync_rate: if profile == Profile::Cold {
                    rng.pick(&[100, 100, 1000])
                } else {
                    rng.pick(&[100, 1000, 20_000])
                },
                ..Config::default()
            },
            clients,
            keys,
            delay_min: rng.range(1, delay_max / 2),
            delay_max,
            service_max: rng.pick(&[5, 50, 200]),
            think_max: if returns {
                500_000
            } else {
                rng.pick(&[100, 3000, 30_000])
            },
            hurry: profile == Profile::Cold || (profile == Profile::Takeover && rng.one_in(2)),
            out_of_memory: if profile == Profile::Full { 20 } else { 0 },
            window: if rng.one_in(3) {
                rng.range(if quick { 1500 } else { 300 }, 3000) as usize
            } else {
                256 * 1024
            },
            short_writes: rng.pick(&[0, 3, 20]),
            client_faults: rng.pick(&[0, 30, 100]),
            flushes: if profile == Profile::Cold {
                rng.pick(&[0, 30])
            } else {
                rng.pick(&[0, 0, 100])
            },
            batch_max: if returns {
                rng.pick(&[1, 2, 4])
            } else {
                rng.pick(&[1, 4, 20])
            },
            pipeline,
            times,
            short_times: times && !(returns || profile == Profile::Failover),
            deadly_gats: !(returns || profile == Profile::Failover),
            vivify: profile != Profile::Full,
            stalls: !quick,
            version: [1, 6, if rng.one_in(4) { 27 } else { 18 }],
            item_max: 1 << 20,
            pieces: false,
            lags: false,
            rate: 0,
            marks: false,
            lists: circumstances.lists,
            overlap: false,
            reloads: false,
            twins_given: false,
            moving: circumstances.moving,
            twins: false,
        };
        if profile == Profile::Eject {
            ejecting::configure(&mut plan.config, rng);
        }
        if circumstances.lists {
            lists::configure(&mut plan.config);
        }
        if circumstances.overlap {
            overlap::configure(&mut plan, rng);
        }
        if circumstances.reloads {
            reloads::configure(&mut plan, rng);
        }
        if circumstances.twins_given {
            identity::give_twice(&mut plan, rng);
        }
        if circumstances.pieces {
            pieces::configure(&mut plan, rng);
        }
        if circumstances.lags {
            lags::configure(&mut plan, rng);
        }
        if circumstances.narrow {
            narrow::configure(&mut plan, rng);
        }
        plan
    }
}
