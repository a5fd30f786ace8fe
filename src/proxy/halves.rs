//! Flow: half requests, which clients have begun and not gone on with, have a share of the memory of their own. Over it the
//! largest go, and their clients with them: nobody else is refused anything for their sake.

use super::client::{Client, Input};
use super::events::Kind;
use super::ids::{Action, ClientId};
use super::Proxy;
use crate::time::Span;

/// The share of those who have been silent for a while, of the whole; twice that for all of them.
const SHARE: usize = 4;

/// Whoever has sent nothing for so long may have forgotten it.
const SILENT: Span = Span::from_millis(1000);

/// Smaller ones are not looked at: what has been read at once, and is gone in the next turn.
const HALF_MIN: usize = 4096;

/// Memory that half a request of the client keeps; 0 for requests that only wait.
fn half_of(client: &Client) -> usize {
    if client.stalled {
        return 0;
    }
    let block = match &client.input {
        Input::Data(pending) => pending.data.capacity(),
        _ => 0,
    };
    block + client.partial.capacity()
}

impl Proxy {
    /// More has come of half requests. Their clients are looked at one by one only when the whole account has grown.
    pub(super) fn note_half(&mut self) {
        if self.memory.used() > self.halves_at {
            self.limit_halves();
        }
    }

    /// Lets go what is over the share. Also to be called now and then, for those that have become silent.
    pub(super) fn limit_halves(&mut self) {
        let limit = self.memory.limit();
        let share = limit / SHARE;
        if self.memory.used() <= share {
            self.halves_at = share;
            return;
        }
        let now = self.now;
        let mut all = Vec::new();
        for (index, client) in &self.clients {
            let size = half_of(client);
            if size >= HALF_MIN {
                let id = ClientId {
                    index: index as u32,
                    generation: client.generation,
                };
                let silent = client.last_active + SILENT <= now;
                all.push((silent, size, client.last_active, id));
            }
        }
        let mut sum: usize = all.iter().map(|half| half.1).sum();
        // The silent ones first, of these the largest, of these the oldest.
        all.sort_by(|a, b| (b.0, b.1, a.2).cmp(&(a.0, a.1, b.2)));
        for (silent, size, _, id) in all {
            let most = if silent { share } else { 2 * share };
            if sum <= most {
                break;
            }
            sum -= size;
            self.counters.halves_closed += 1;
            self.remove_client(id);
            self.actions.push_back(Action::CloseClient(id));
            let detail = "half requests take too much memory: a client was closed";
            self.happened(Kind::LimitHit, "--memory-limit", detail, now);
        }
        self.halves_at = share.max(self.memory.used() + share / 4);
    }
}
