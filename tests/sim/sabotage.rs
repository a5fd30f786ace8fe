//! Planted bugs: the world lies in one chosen way, and the checks must notice. What a server or a link does wrong here is
//! what the core would cause if it did the same thing wrong.

use super::memcached::Lie;
use super::profile::Plan;
use super::rng::Rng;

/// The ways.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bug {
    None,
    /// What is mirrored to a backup is answered and forgotten.
    MirrorDropped,
    /// A backup keeps the first of two values written in a row: the order on the two streams differs.
    MirrorSwapped,
    /// A time to live of none is mirrored as one.
    MirrorTimed,
    /// A number is added twice: a request that was sent is sent again.
    AppliedTwice,
    /// A write is acknowledged and not done.
    WriteLost,
    /// A read sees what was there before the last write.
    StaleRead,
    /// A key is read for another.
    WrongKey,
    /// `add` takes the place of what is there.
    AddOverwrites,
    /// A conditional write with an old version is taken.
    OldVersion,
    /// An answer is left out.
    ReplyLost,
    /// Two answers in a row change places.
    RepliesSwapped,
    /// A proxy closes what it has given up in the ordinary way: its kernel goes on to deliver it.
    ClosedWithoutReset,
}

impl Bug {
    /// Those that runs without returning servers find.
    pub const ALL: [Bug; 11] = [
        Bug::MirrorDropped,
        Bug::MirrorSwapped,
        Bug::MirrorTimed,
        Bug::AppliedTwice,
        Bug::WriteLost,
        Bug::StaleRead,
        Bug::WrongKey,
        Bug::AddOverwrites,
        Bug::OldVersion,
        Bug::ReplyLost,
        Bug::RepliesSwapped,
    ];
}

pub struct Sabotage {
    bug: Bug,
    rng: Rng,
}

impl Sabotage {
    pub fn new(bug: Bug, seed: u64) -> Sabotage {
        Sabotage {
            bug,
            rng: Rng::new(seed ^ 0xbad),
        }
    }

    pub fn none() -> Sabotage {
        Sabotage::new(Bug::None, 0)
    }

    /// What the server is going to do wrong in its next turn.
    pub fn at_server(&mut self, server: usize, plan: &Plan) -> Option<Lie> {
        let backup = server >= plan.config.servers.len();
        let lie = match self.bug {
            Bug::MirrorDropped if backup => Lie::Forget,
            Bug::MirrorSwapped if backup => Lie::KeepFirst,
            Bug::MirrorTimed if backup => Lie::Timed,
            Bug::AppliedTwice => Lie::Twice,
            Bug::WriteLost => Lie::Forget,
            Bug::StaleRead => Lie::Stale,
            Bug::WrongKey => Lie::WrongKey,
            Bug::AddOverwrites => Lie::AddOverwrites,
            Bug::OldVersion => Lie::OldVersion,
            _ => return None,
        };
        self.rng.one_in(4).then_some(lie)
    }

    /// Whether connections that are given up are reset.
    pub fn resets(&self) -> bool {
        self.bug != Bug::ClosedWithoutReset
    }

    /// Spoils what a proxy reads from a server, whole lines at a time.
    pub fn on_reply(&mut self, bytes: &mut Vec<u8>) {
        if !matches!(self.bug, Bug::ReplyLost | Bug::RepliesSwapped) || !self.rng.one_in(10) {
            return;
        }
        let simple =
            |line: &[u8]| line == b"STORED\r\n" || line == b"END\r\n" || line == b"DELETED\r\n";
        let lines: Vec<&[u8]> = bytes.split_inclusive(|&byte| byte == b'\n').collect();
        match self.bug {
            Bug::ReplyLost if lines.len() > 1 && simple(lines[0]) => {
                let length = lines[0].len();
                bytes.drain(..length);
            }
            Bug::RepliesSwapped
                if lines.len() > 1 && simple(lines[0]) && lines[1].ends_with(b"\r\n") =>
            {
                let swapped = [lines[1], lines[0]].concat();
                bytes[..swapped.len()].copy_from_slice(&swapped);
            }
            _ => {}
        }
    }
}
