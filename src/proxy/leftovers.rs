//! Flow: after keys have gone elsewhere with another ring, what is left of them on their former servers is deleted.
//!
//! Under the ring in force nobody asks for it there. But should a later ring give such a key back to that server, it would be an
//! old value: so until this is done, a server that gets keys back is flushed first (`Server::leftovers`), and a reload waits for
//! it for a moment. It goes by the listing of `survey`, when no server is cold: then what is deleted is no copy's only source.

use super::lists::Share;
use super::server::Server;
use super::Proxy;

impl Proxy {
    /// Does what can be done now. Called now and then.
    pub(super) fn tidy_leftovers(&mut self) {
        if let Some(source) = self.ejects.survey.source() {
            if !self.servers[source].is_up() {
                // Deletions may have gone with it.
                return self.end_survey();
            }
        } else if !self.has_leftovers() {
            return;
        }
        // Only a proxy that serves decides, and not before it knows what others did.
        let decides = self.is_active() && self.recheck.is_none() && !self.barrier.is_raised();
        let cold = |server: &Server| server.is_up() && server.cold;
        if !decides || !self.lists.settled || self.servers.iter().any(cold) {
            return;
        }
        self.survey();
    }

    /// Whether a server that is used has to be tidied up.
    pub(super) fn has_leftovers(&self) -> bool {
        self.has_views()
            && !self.routes.ejects()
            && self
                .servers
                .iter()
                .any(|server| server.is_up() && server.leftovers)
    }

    /// The servers that have to be listed for it.
    pub(super) fn with_leftovers(&self) -> Vec<usize> {
        let all = 0..self.servers.len();
        let has = |index: &usize| self.servers[*index].is_up() && self.servers[*index].leftovers;
        all.filter(has).collect()
    }

    /// What is said on a server of what it holds.
    pub(super) fn share(&self, index: usize) -> Share {
        let primaries = self.routes.primaries();
        let backups = self.routes.servers() - primaries;
        Share {
            all: match index < primaries {
                true => primaries == 1,
                false => self.routes.ranks() > backups,
            },
            leftovers: self.servers[index].leftovers,
        }
    }

    /// Nothing is left on the server.
    pub(super) fn end_leftovers(&mut self, index: usize) {
        self.servers[index].leftovers = false;
        log::info!(
            "server {}: keys that lie elsewhere are gone",
            self.servers[index].name
        );
        self.announce(index);
    }
}
