//! Flow: the outcome of a conditional write goes to the copies that had no say.
//!
//! What is mirrored is what happened, not what was asked: a copy cannot judge an `add` or a `cas`, so it gets a `set`.
//! `append`, `prepend`, `incr`, `decr` go as themselves; the copies were equal before, so they are after. But a copy
//! that lacks the item must not make it anew (`N`), as the decider may have had it: it says so, and gets it as it is.

use std::rc::Rc;

use super::client::Reply;
use super::exact::is_untold;
use super::ids::LinkId;
use super::journal::NotedKey;
use super::read::key_token;
use super::repair::{is_base64, Then};
use super::sabotage::{is, Sabotage};
use super::server::{InFlight, Role};
use super::txn::{TxnId, NO_RANK};
use super::write::{counter, says_absent};
use super::Proxy;
use crate::proto::response::{took_effect, Code};
use crate::proto::token::{next_token, Token, Tokens};
use crate::proto::Verb;

impl Proxy {
    /// Mirrors what the server on `id` has just done for `flight`. Servers that are not up miss it.
    pub(super) fn mirror_outcome(&mut self, id: LinkId, txn_id: TxnId, flight: &InFlight) {
        let txn = self.txns.at(txn_id);
        let (route, number, asked) = (txn.route, txn.number, txn.verb);
        let decider = usize::from(id.server);
        let mut request = std::mem::take(&mut self.outcome);
        let won = self.link_mut(id).won;
        // What the proxy has turned into a meta command has nothing of that kind in it.
        let untold = asked.is_meta() && {
            let line = request_line(self.flight_bytes(id, flight));
            is_untold(flight.verb, line, number, won) && !is(Sabotage::MadeAnew)
        };
        let mut missed = false;
        for rank in 0..self.routes.ranks() {
            let server = self.routes.server(route, rank);
            let Some(server) = server.filter(|&server| server != decider) else {
                continue;
            };
            request.clear();
            let bytes = self.flight_bytes(id, flight);
            let Some((verb, key)) = compose(flight, bytes, won, untold, &mut request) else {
                break;
            };
            if !self.servers[server].is_up() {
                // Lost since the request was sent to the decider.
                let noted = self.noted_key(id, flight);
                missed |= self.misses_outcome(server, noted);
                continue;
            }
            self.counters.mirrored += 1;
            let link_id = self.link_for(server, route);
            let role = if untold { Role::Exact } else { Role::Mirror };
            let purpose = (role, verb, Some(txn_id));
            let body = flight.body.as_ref().map(Rc::clone);
            self.queue_bytes(link_id, &request, body.as_ref(), key, purpose);
            if untold {
                let noted = self.noted_key(id, flight);
                let won = won && flight.verb == Verb::MetaGet;
                self.copy_outcome(txn_id, server, &noted, won);
            }
        }
        self.outcome = request;
        if missed {
            self.fence(txn_id);
        }
    }

    /// The key of what is in flight on `link`.
    fn noted_key(&self, link: LinkId, flight: &InFlight) -> NotedKey {
        let bytes = self.flight_bytes(link, flight);
        NotedKey::new(key_token(flight).of(bytes), is_base64(flight.verb, bytes))
    }

    /// A server that is not up misses an outcome. True: the view has been raised for that.
    pub(super) fn misses_outcome(&mut self, server: usize, noted: NotedKey) -> bool {
        self.servers[server].journal.note(noted);
        let raises = self.is_safe() && self.needs_view_without(server);
        if raises {
            self.leave_out(server);
        }
        raises
    }

    /// A copy has taken over an outcome.
    pub(super) fn mirror_answered(
        &mut self,
        link: LinkId,
        id: TxnId,
        flight: &InFlight,
        code: Code,
        tail: &[u8],
    ) {
        let server = usize::from(link.server);
        let txn = self.txns.at(id);
        let route = txn.route;
        let same_number = txn.number == counter(flight.verb, code, tail);
        let differs = !took_effect(code) || !same_number;
        if differs && !is(Sabotage::MirrorNotHealed) {
            let noted = self.noted_key(link, flight);
            if !says_absent(flight.verb, code) {
                self.heal(server, route, &noted);
            }
            // What it lacks now is brought over, as long as nothing else passes.
            return self.wait_for_repair(id, &noted, server, Then::Answer(id));
        }
        self.answer_if_all_did(id);
    }

    /// The item that a write left has been brought to a copy that lacked it, or is nowhere.
    pub(super) fn stop_waiting(&mut self, id: TxnId, found: bool) {
        let txn = self.txns.at(id);
        txn.outstanding -= 1;
        txn.waiting = txn.waiting.saturating_sub(1);
        let (client, seq, answered) = (txn.client, txn.seq, txn.answered);
        let (route, rank) = (txn.route, usize::from(txn.rank));
        let decider = self.routes.server(route, rank);
        let lost = decider.is_none_or(|server| !self.servers[server].is_up());
        if !found && lost && !answered {
            // It went with the server that decided.
            self.replace_reply(client, seq, Reply::None);
            self.txns.at(id).best = NO_RANK;
        }
        self.answer_if_all_did(id);
        self.close_txn(id);
    }
}

impl Proxy {
    /// Nothing, unless a bug is planted: what has just been asked on `id` is mirrored before it is decided.
    pub(super) fn mirror_early(&mut self, id: LinkId, txn_id: TxnId) {
        if !is(Sabotage::MirroredEarly) {
            return;
        }
        if let Some(asked) = self.link_mut(id).fifo.back_mut() {
            let body = asked.body.clone();
            let flight = InFlight { body, ..*asked };
            self.mirror_outcome(id, txn_id, &flight);
        }
    }

    /// A plain `mg` of a stale item has won the right to refill it: the other copies must not give it away once more.
    pub(super) fn mirror_win(&mut self, id: LinkId, txn_id: TxnId, flight: &InFlight) {
        if self.routes.ranks() == 1 {
            return;
        }
        let route = self.txns.at(txn_id).route;
        let decider = usize::from(id.server);
        let mut request = b"mg ".to_vec();
        let bytes = self.flight_bytes(id, flight);
        let name = key_token(flight).of(bytes);
        request.extend_from_slice(name);
        let key = Token {
            start: 3,
            end: request.len(),
        };
        if is_base64(flight.verb, bytes) {
            request.extend_from_slice(b" b");
        }
        request.extend_from_slice(b"\r\n");
        for rank in 0..self.routes.ranks() {
            let server = self.routes.server(route, rank);
            let Some(server) = server.filter(|&server| server != decider) else {
                continue;
            };
            if self.servers[server].is_up() {
                let link_id = self.link_for(server, route);
                let purpose = (Role::Echo, Verb::MetaGet, None);
                self.queue_bytes(link_id, &request, None, key, purpose);
            }
        }
    }
}

/// Writes to `out` the request that brings a copy to where the decider is now. `request` is what was asked (and a small
/// data block); `won`: the answer gave the right to refill; `makes`: the copy may make an item where it has
/// none, which is put right. `None`: nothing has changed.
fn compose(
    flight: &InFlight,
    request: &[u8],
    won: bool,
    makes: bool,
    out: &mut Vec<u8>,
) -> Option<(Verb, Token)> {
    let newline = memchr::memchr(b'\n', request)?;
    let line = &request[..newline - 1];
    let data = &request[newline + 1..];
    let key = key_token(flight).of(request);
    let verb = match flight.verb {
        Verb::Add | Verb::Replace | Verb::Cas => {
            let tokens = Tokens::split(line);
            out.extend_from_slice(b"set ");
            for index in 1..5 {
                out.extend_from_slice(tokens.get(index).of(line));
                out.push(b' ');
            }
            out.pop();
            Verb::Set
        }
        Verb::MetaSet => {
            let appends = Tokens::split(line)
                .as_slice()
                .iter()
                .skip(3)
                .any(|token| matches!(token.of(line), b"MA" | b"MP" | b"Ma" | b"Mp"));
            let keep: &[u8] = match (appends, makes) {
                (true, true) => b"bTFEMN",
                (true, false) => b"bTFEM",
                (false, _) => b"bTFE",
            };
            push_meta(line, b"ms", 3, keep, out);
            Verb::MetaSet
        }
        Verb::MetaArithmetic => {
            let makes = makes || is(Sabotage::MadeAnew);
            let keep: &[u8] = if makes { b"bNJDTMEv" } else { b"bDTMEv" };
            push_meta(line, b"ma", 2, keep, out);
            Verb::MetaArithmetic
        }
        Verb::MetaDelete => {
            push_meta(line, b"md", 2, b"bITxE", out);
            Verb::MetaDelete
        }
        Verb::MetaGet => {
            let tokens = Tokens::split(line);
            let touches = tokens
                .as_slice()
                .iter()
                .skip(2)
                .any(|t| line[t.start] == b'T');
            if !touches && !won {
                return None;
            }
            let keep: &[u8] = if makes { b"bNTRE" } else { b"bTRE" };
            push_meta(line, b"mg", 2, keep, out);
            Verb::MetaGet
        }
        verb => {
            out.extend_from_slice(line);
            verb
        }
    };
    let at = out.windows(key.len()).position(|window| window == key)?;
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(data);
    let key = Token {
        start: at,
        end: at + key.len(),
    };
    Some((verb, key))
}

/// The line of a request, without its end.
fn request_line(request: &[u8]) -> &[u8] {
    let newline = memchr::memchr(b'\n', request).unwrap_or(request.len());
    request[..newline].trim_ascii_end()
}

/// The command, its first words (key, length), and of its flags those in `keep`.
fn push_meta(line: &[u8], command: &[u8], fixed: usize, keep: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(command);
    let tokens = Tokens::split(line);
    for (index, token) in tokens.as_slice().iter().enumerate().skip(1) {
        let text = token.of(line);
        if index < fixed || keep.contains(&text[0]) {
            out.push(b' ');
            out.extend_from_slice(text);
        }
    }
}

/// Whether a meta reply has the flag `letter` alone.
pub(super) fn has_flag(line: &[u8], letter: u8) -> bool {
    let mut at = 0;
    while let Some(token) = next_token(line, at) {
        at = token.end;
        if token.of(line) == [letter] {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::server::Role;
    use crate::time::Time;

    fn mirrored(verb: Verb, request: &[u8], won: bool) -> Option<String> {
        let key_at = 1 + request.iter().position(|&byte| byte == b' ').unwrap();
        let flight = InFlight {
            role: Role::Decide,
            verb,
            txn: None,
            key_at: key_at as u16,
            key_len: 1,
            start: 0,
            end: request.len() as u64,
            queued: Time(0),
            sent: Time(0),
            cost: 0,
            body: None,
        };
        let mut out = Vec::new();
        let (_, key) = compose(&flight, request, won, false, &mut out)?;
        assert_eq!(key.of(&out), &request[key_at..=key_at]);
        Some(String::from_utf8(out).unwrap())
    }

    #[test]
    fn outcomes() {
        let cases: [(Verb, &[u8], &str); 8] = [
            (Verb::Add, b"add k 5 60 1\r\nx\r\n", "set k 5 60 1\r\nx\r\n"),
            (
                Verb::Cas,
                b"cas k 5 60 1 77\r\nx\r\n",
                "set k 5 60 1\r\nx\r\n",
            ),
            (
                Verb::Append,
                b"append k 0 0 1\r\nx\r\n",
                "append k 0 0 1\r\nx\r\n",
            ),
            (Verb::Incr, b"incr k 5\r\n", "incr k 5\r\n"),
            (
                Verb::MetaSet,
                b"ms k 1 ME T5 F7 O1 c\r\nx\r\n",
                "ms k 1 T5 F7\r\nx\r\n",
            ),
            (
                Verb::MetaSet,
                b"ms k 1 MA N5 k\r\nx\r\n",
                "ms k 1 MA\r\nx\r\n",
            ),
            (Verb::MetaDelete, b"md k C5 I T3 O9\r\n", "md k I T3\r\n"),
            (Verb::MetaArithmetic, b"ma k N0 J5 v t\r\n", "ma k v\r\n"),
        ];
        for (verb, request, expected) in cases {
            assert_eq!(mirrored(verb, request, false).as_deref(), Some(expected));
        }
    }

    #[test]
    fn a_copy_makes_nothing_anew() {
        let cases: [(Verb, &[u8], &str); 3] = [
            (Verb::MetaArithmetic, b"ma k N0 J5 D2\r\n", "ma k D2\r\n"),
            (
                Verb::MetaSet,
                b"ms k 1 MA N5\r\nx\r\n",
                "ms k 1 MA\r\nx\r\n",
            ),
            (Verb::MetaGet, b"mg k N5 v R9\r\n", "mg k R9\r\n"),
        ];
        for (verb, request, expected) in cases {
            let sent = mirrored(verb, request, true);
            assert_eq!(sent.as_deref(), Some(expected));
        }
    }

    #[test]
    fn a_lease_is_mirrored_when_it_was_won() {
        let get = b"mg k v R30\r\n";
        assert_eq!(mirrored(Verb::MetaGet, get, false), None);
        let won = mirrored(Verb::MetaGet, get, true);
        assert_eq!(won.as_deref(), Some("mg k R30\r\n"));
        let touch = mirrored(Verb::MetaGet, b"mg k T9 v\r\n", false);
        assert_eq!(touch.as_deref(), Some("mg k T9\r\n"));
    }
}
