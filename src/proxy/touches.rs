//! Flow: the touches of a `gat`. The copies that are not asked for the value must get the new time to live as well, and the
//! client hears nothing before they have it: so each key's touch is a write of its own, in front of the retrieval in the
//! client's order of replies, of which nothing is said.

use super::op::Op;
use super::read::push_exptime;
use super::refill::RELATIVE_MAX;
use super::Proxy;
use crate::proto::token::{next_token, Token};
use crate::proto::Verb;

/// An item that has so many seconds left may have ended when a request that had to wait for others is carried out.
const SOON: i64 = 5;

/// Whether an item that is given this time to live may be gone when it is read right after. `unix`: seconds since 1970.
fn ends_soon(exptime: i32, unix: i64) -> bool {
    match i64::from(exptime) {
        0 => false,
        point if point > RELATIVE_MAX as i64 => point <= unix + SOON,
        left => left <= SOON,
    }
}

impl Proxy {
    /// Whether a request's touches are writes of their own: there are other copies than the one that is asked.
    pub(super) fn touches_apart(&self, verb: Verb) -> bool {
        verb.is_gat() && self.routes.ranks() > 1
    }

    /// Sends the `gat` `op` on its way, and its touches, of which `first` is the place of the first.
    pub(super) fn dispatch_touching(&mut self, op: &Op<'_>, first: u32) {
        let unix = self.facts.unix_micros(self.now) / 1_000_000;
        if ends_soon(op.exptime, unix as i64) {
            self.dispatch(op);
            self.touch_keys(op, first);
        } else {
            self.touch_keys(op, first);
            self.dispatch(op);
        }
    }

    fn touch_keys(&mut self, op: &Op<'_>, first: u32) {
        let mut line = Vec::with_capacity(300);
        let mut seq = first;
        let mut at = op.key.start;
        while let Some(token) = next_token(&op.line[..op.keys_end], at) {
            at = token.end;
            let key = token.of(op.line);
            line.clear();
            line.extend_from_slice(b"touch ");
            line.extend_from_slice(key);
            line.push(b' ');
            push_exptime(&mut line, op.exptime);
            let touch = Op {
                verb: Verb::Touch,
                line: &line,
                key: Token {
                    start: 6,
                    end: 6 + key.len(),
                },
                keys_end: line.len(),
                quiet: true,
                route: self.routes.of(key),
                ..Op::of_keys(op.client, seq, op.asked, op.exptime, 1)
            };
            self.dispatch(&touch);
            seq = seq.wrapping_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_to_live_that_may_leave_nothing_to_read() {
        let now = 1_700_000_000;
        for (exptime, ends) in [
            (0, false),
            (-1, true),
            (1, true),
            (5, true),
            (6, false),
            (2_592_000, false),
            (2_592_001, true),
            (1_700_000_005, true),
            (1_700_000_006, false),
        ] {
            assert_eq!(ends_soon(exptime, now), ends, "{exptime}");
        }
    }
}
