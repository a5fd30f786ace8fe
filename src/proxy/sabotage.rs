//! Bugs that the simulator plants in the core, one at a time, to see that its checks find them.
//!
//! Without the feature `sabotage` (that is, in every program that serves) [`is`] is false at compile time, and nothing of this
//! is left.

/// The bugs. Each is a mechanism left out or done wrongly, at the place where it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sabotage {
    /// A write leaves a server out, and no view is raised.
    StampSkipped,
    /// A server is lost with writes in flight, and no view is raised.
    LossUnstamped,
    /// Stamps of other proxies are not heeded.
    ForeignStampIgnored,
    /// A conditional write is mirrored before it is decided.
    MirroredEarly,
    /// What goes to all copies passes an undecided conditional write on its key.
    HoldSkipped,
    /// A key on its way to a cold server is put there though a write has passed.
    RefillNotCancelled,
    /// A copy that took a write otherwise than the acting primary is left as it is.
    MirrorNotHealed,
    /// A copy that lacks what is counted makes it anew.
    MadeAnew,
    /// An item without end is brought over as one that ends at once.
    ForeverAsNow,
    /// The remaining time of an item is not brought over.
    TimeForgotten,
    /// More than a month of it is brought over as a relative time.
    MonthAsRelative,
    /// Keys whose writes a server missed are not deleted on its return.
    JournalIgnored,
    /// A journal that is full forgets keys without saying so.
    OverflowUnnoticed,
    /// A write whose outcome nobody has heard is not noted.
    UnknownKept,
    /// A server that was stopped is used at once.
    NotSettled,
    /// A `flush_all` that a server missed is not made up for.
    FlushForgotten,
    /// One process under two names counts as two.
    TwinsApart,
    /// Another process behind a server's address passes for one that started anew, and is empty.
    OtherTrusted,
    /// It is not noted that keys have gone elsewhere with another ring.
    LeftoversForgotten,
    /// `flush_all` goes over one connection of each server only.
    FlushOvertaken,
    /// The refusal of a copy counts though its client has been told that another one took the write.
    LateRefusalCounts,
    /// A copy that is late has answered for another one, too.
    LateCountedTwice,
    /// A copy that does not answer in time counts as one that lacks the key.
    LateIsAbsent,
    /// A miss of a cold server is believed.
    MissBelieved,
    /// A server that came back empty counts as warm.
    WarmTooEarly,
    /// A write is answered when the acting primary has answered.
    AnsweredEarly,
    /// A read goes over another connection than the writes to its key.
    ReadNotOrdered,
    /// A CAS token does not name the server that gave it.
    TokenWithoutServer,
    /// A quiet frame hears nothing of a failure either.
    QuietFailureHidden,
    /// A reply that waits its turn is put into the frame of the request behind.
    FrameMisplaced,
    /// The background copy takes a cold copy for one that has what it is asked for.
    ColdVouches,
    /// A repair that writes have passed a few times is dropped.
    OvertakenDropped,
    /// A long value goes on from another copy with what the client has had already.
    PassedTwice,
    /// What another copy says is not compared with what the client has had.
    PassingUnchecked,
    /// A long value goes on from another copy though a write has passed.
    PassingOvertaken,
    /// A long value does not go on from another copy.
    PassingGivenUp,
    /// What was stamped under another list of servers is not heeded.
    OtherListsIgnored,
    /// The time limit of a request counts what it waited behind others on a full link.
    QueueIsLate,
    /// After a change of the list no view is raised ahead of the first write.
    ListUnsettled,
}

#[cfg(feature = "sabotage")]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Sabotage>> = const { std::cell::Cell::new(None) };
}

/// Plants `bug` in all proxies of this thread, in place of the one before.
#[cfg(feature = "sabotage")]
pub fn plant(bug: Option<Sabotage>) {
    PLANTED.set(bug);
}

/// Whether `bug` is planted.
#[cfg(feature = "sabotage")]
pub(super) fn is(bug: Sabotage) -> bool {
    PLANTED.get() == Some(bug)
}

/// No bug is planted.
#[cfg(not(feature = "sabotage"))]
pub(super) const fn is(_: Sabotage) -> bool {
    false
}
