//! Flow: clients come, are written to, and go.

use std::io;

use super::client::{Client, Input};
use super::ids::{Action, ClientId};
use super::Proxy;
use crate::time::Time;

/// A table of so many clients leaves a hole worth closing when it moves: some 250 kB.
const TABLE_LARGE: usize = 1024;

impl Proxy {
    /// A client connected. `None`: over `-n`; say so to it and close.
    pub fn client_opened(&mut self, now: Time) -> Option<ClientId> {
        self.now = now;
        if self.clients.len() >= self.settings.max_conns {
            self.counters.rejected_connections += 1;
            self.conns_are_full();
            return None;
        }
        self.counters.total_connections += 1;
        self.next_generation = self.next_generation.wrapping_add(1);
        let generation = self.next_generation;
        let room = self.clients.capacity();
        let index = self
            .clients
            .insert(Client::new(generation, now, self.typical)) as u32;
        if room >= TABLE_LARGE && self.clients.capacity() > room {
            self.memory.table_moved();
        }
        let id = ClientId { index, generation };
        if self.draining {
            self.close_when_settled(id);
        }
        Some(id)
    }

    /// False while the client is held back (too much unsent or in flight): do not read it until `Action::ReadClient`.
    pub fn wants_read(&self, id: ClientId) -> bool {
        self.client(id)
            .is_some_and(|client| !client.stalled && !client.closing)
    }

    /// The client will send no more (end of file). What it asked for is still answered; `CloseClient` follows.
    pub fn client_finished(&mut self, id: ClientId, now: Time) {
        self.now = now;
        // What waits in its buffer is complete requests only if it was held back; they are still answered.
        if self.client(id).is_some_and(|client| !client.stalled) {
            self.close_when_settled(id);
        } else if let Some(client) = self.client_mut(id) {
            client.finished = true;
        }
    }

    /// The client's connection broke. The id is dead after this; what it asked for goes on without it.
    pub fn client_closed(&mut self, id: ClientId, now: Time) {
        self.now = now;
        self.remove_client(id);
    }

    pub(super) fn write_client<W: io::Write>(
        &mut self,
        id: ClientId,
        writer: &mut W,
    ) -> io::Result<bool> {
        let Some(client) = self.clients.get_mut(id.index as usize) else {
            return Ok(true);
        };
        if client.generation != id.generation {
            return Ok(true);
        }
        let before = client.out.len();
        let drained = client.out.write_to(writer, &mut self.memory)?;
        let written = before - client.out.len();
        client.note_written(written);
        self.counters.bytes_written += written as u64;
        if client.long.is_some() {
            let progress = (written, drained);
            if self.stuck.note_written((id, client), progress, self.now) {
                self.resumable.push(id);
            }
        }
        if client.stalled && client.may_resume() {
            self.resumable.push(id);
        } else if drained && client.closing && client.is_settled() {
            self.remove_client(id);
            self.actions.push_back(Action::CloseClient(id));
        }
        Ok(drained)
    }

    pub(super) fn remove_client(&mut self, id: ClientId) {
        if self.client(id).is_some() {
            self.clients
                .remove(id.index as usize)
                .release(&mut self.memory);
        }
    }

    /// Takes no more requests of the client and closes it when all is answered and written.
    pub(super) fn close_when_settled(&mut self, id: ClientId) {
        let Some(client) = self.client_mut(id) else {
            return;
        };
        client.closing = true;
        // A request that is not complete is never going to be.
        let seq = match std::mem::take(&mut client.input) {
            Input::Data(pending) => {
                let seq = pending.held.op().seq;
                self.memory.give(pending.data.len());
                Some((seq, 1))
            }
            Input::Swallow(swallow) => Some((swallow.seq, 0)),
            Input::Fresh | Input::Line | Input::Keys(_) => None,
        };
        if let Some((seq, keys)) = seq {
            self.finish_slot(id, seq, keys, b"");
        }
        let Some(client) = self.client_mut(id) else {
            return;
        };
        if client.is_settled() {
            self.remove_client(id);
            self.actions.push_back(Action::CloseClient(id));
        } else {
            self.mark_client(id);
        }
    }

    /// Puts the client on the list of connections to write, if it has anything to write.
    pub(super) fn mark_client(&mut self, id: ClientId) {
        let Some(client) = self.clients.get_mut(id.index as usize) else {
            return;
        };
        if client.generation == id.generation && !client.dirty && !client.out.is_empty() {
            client.dirty = true;
            self.dirty_clients.push(id);
        }
    }

    pub(super) fn client_ids(&self) -> impl Iterator<Item = ClientId> + '_ {
        self.clients.iter().map(|(index, client)| ClientId {
            index: index as u32,
            generation: client.generation,
        })
    }

    pub(super) fn client(&self, id: ClientId) -> Option<&Client> {
        let client = self.clients.get(id.index as usize)?;
        (client.generation == id.generation).then_some(client)
    }

    pub(super) fn client_mut(&mut self, id: ClientId) -> Option<&mut Client> {
        let client = self.clients.get_mut(id.index as usize)?;
        (client.generation == id.generation).then_some(client)
    }
}
