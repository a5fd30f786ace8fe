//! The room of transactions: what is still expected for one request.

use slab::Slab;

use super::ids::ClientId;
use super::op::Op;
use super::route::Route;
use crate::proto::response::Code;
use crate::proto::Verb;

/// Names a transaction.
pub type TxnId = u32;

/// One request, from its first byte to a server until the last answer.
#[derive(Debug)]
pub struct Txn {
    /// Who asked.
    pub client: ClientId,
    /// The place of the reply in that client's order.
    pub seq: u32,
    /// The command as the client gave it.
    pub verb: Verb,
    /// Nominal replies are not wanted.
    pub quiet: bool,
    /// Retrievals: the reply ends with `END`.
    pub last: bool,
    /// `gat`: the time to live.
    pub exptime: i32,
    /// Where the key lives.
    pub route: Route,
    /// Reads and conditional writes: the rank that was asked last.
    pub rank: u8,
    /// The rank whose reply is kept for the client; `NO_RANK`: none yet.
    pub best: u8,
    /// What that reply says.
    pub code: Code,
    /// Requests in flight that name this transaction.
    pub outstanding: u16,
    /// How many of them the client's reply waits for.
    pub waiting: u16,
    /// The client has its reply (or is gone).
    pub answered: bool,
    /// A conditional write that no server has decided yet.
    pub undecided: bool,
    /// Nothing on its key may overtake it.
    pub exclusive: bool,
    /// The key has been brought over from another copy: what the server says now is final.
    pub repaired: bool,
    /// By rank: the copies that took the write, and those that refused it.
    pub took: u64,
    /// See `took`.
    pub erred: u64,
    /// What a counter was set to.
    pub number: Option<u64>,
    /// Reads of one key: the writes that had passed when it was sent.
    pub epoch: u32,
    /// Keys asked for.
    pub keys: u16,
    /// A part of a retrieval over several servers.
    pub part: Option<PartId>,
}

/// Room for so many is kept when none is open.
const ROOM_KEPT: usize = 64;

/// No rank has answered.
pub const NO_RANK: u8 = u8::MAX;

/// Beside a rank: what a cold copy said that lacks the key. Any other copy knows better.
pub const COLD: u8 = 0x40;

/// Whether the best answer is that of a cold copy that lacks the key.
pub fn lacks_cold(best: u8) -> bool {
    best != NO_RANK && best & COLD != 0
}

/// One server's share of a retrieval over several servers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PartId {
    /// Index of the retrieval.
    pub gather: u32,
    /// Index of the part in it.
    pub part: u16,
}

/// All transactions.
#[derive(Debug, Default)]
pub struct Txns {
    slab: Slab<Txn>,
}

impl Txns {
    /// A transaction for `op` with nothing in flight yet.
    pub fn open(&mut self, op: &Op<'_>) -> TxnId {
        self.slab.insert(Txn {
            client: op.client,
            seq: op.seq,
            verb: op.asked,
            quiet: op.quiet,
            last: op.last,
            exptime: op.exptime,
            route: op.route,
            rank: 0,
            best: NO_RANK,
            code: Code::Nonsense,
            outstanding: 0,
            waiting: 0,
            answered: false,
            undecided: false,
            exclusive: false,
            repaired: false,
            took: 0,
            erred: 0,
            number: None,
            epoch: 0,
            keys: op.key_count as u16,
            part: None,
        }) as TxnId
    }

    /// The transaction `id`, which must be open.
    pub fn at(&mut self, id: TxnId) -> &mut Txn {
        &mut self.slab[id as usize]
    }

    /// Ends the transaction `id` if nothing is in flight for it and its client has been answered; hands it out then.
    pub fn close_if_done(&mut self, id: TxnId) -> Option<Txn> {
        let txn = &self.slab[id as usize];
        let done = txn.outstanding == 0 && txn.answered;
        done.then(|| self.slab.remove(id as usize))
    }

    /// Gives room back that nothing needs now.
    pub fn rest(&mut self) {
        if self.slab.is_empty() && self.slab.capacity() > ROOM_KEPT {
            self.slab = Slab::new();
        }
    }

    /// True when none is open.
    pub fn is_empty(&self) -> bool {
        self.slab.is_empty()
    }
}
