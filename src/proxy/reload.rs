//! Flow and room: another configuration, while clients are served.
//!
//! ```text
//!   reload -> new servers are connected to and made safe, as any that returns, while the old ring serves
//!          -> the barrier: what is in flight ends on the old ring, what comes waits
//!          -> servers, ring and settings are exchanged; what waited goes to its places on the new ring
//!          -> with a handover, for a while keys that moved are fetched from where they were; then the same once more
//! ```
//!
//! Servers that stay keep their connections, journals and all that is known of them.

use super::events::Kind;
use super::server::{Role, Server, State};
use super::{view, Proxy, Routes};
use crate::config::Config;
use crate::time::{Span, Time};

/// How long servers that are new may take to be made safe, besides twice the timeout: longer than one is suspected that may
/// have been stopped.
const JOIN_MAX: Span = Span::from_millis(3000);

/// A configuration that is not in force yet.
#[derive(Debug)]
pub(super) struct Next {
    pub(super) config: Box<Config>,
    pub(super) handover: Span,
    /// Its servers, by their present index.
    pub(super) servers: Vec<usize>,
    /// New servers are waited for until then at most.
    until: Time,
    at_barrier: bool,
    /// It only ends a handover.
    pub(super) ends: bool,
}

/// What `stats reload` tells of the last one.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) count: u64,
    failed: u64,
    pub(super) error: String,
    pub(super) at: Option<Time>,
    pub(super) added: usize,
    pub(super) removed: usize,
    /// Hundredths of a percent.
    pub(super) moved: usize,
}

/// Reloads, and what came of them.
#[derive(Debug, Default)]
pub struct Reload {
    pub(super) next: Option<Next>,
    pub(super) told: Told,
    /// When the handover ends, and what is in force.
    pub(super) handover: Option<(Time, Box<Config>)>,
    /// For the edge: the new index of each server, by the old one.
    pub(super) moves: Option<Vec<Option<u16>>>,
}

impl Reload {
    /// Whether one is about to be carried out: nothing of the proxy's own may begin now.
    pub fn is_near(&self) -> bool {
        self.next.as_ref().is_some_and(|next| next.at_barrier) || self.moves.is_some()
    }

    /// What was told before the core began anew is told still; what was under way is not.
    pub fn keep_told(&mut self, old: Reload) {
        self.told = old.told;
    }

    /// Whether the edge has to follow; see [`Proxy::take_moves`].
    pub fn has_moved(&self) -> bool {
        self.moves.is_some()
    }
}

impl Proxy {
    /// Takes over `config` as soon as its servers are ready and what is in flight is finished. Returns which of its servers
    /// (primaries, then backups) are new: they stand behind those that there are, in this order, and are connected to.
    ///
    /// For the time `handover` a key that moves is looked for at its old place as well; 0: not at all.
    pub fn reload(&mut self, config: Config, handover: Span, now: Time) -> Vec<usize> {
        self.now = now;
        self.begin_reload(config, handover, false)
    }

    /// `ends`: it only ends a handover.
    fn begin_reload(&mut self, config: Config, handover: Span, ends: bool) -> Vec<usize> {
        let now = self.now;
        let names = view::pool_names(&config);
        let copies = Routes::new(&config).places() > 1;
        let conns = config.server_conns.max(1);
        let mut taken = vec![false; self.servers.len()];
        let (mut servers, mut joining) = (Vec::new(), Vec::new());
        let mut names_so_far = Vec::new();
        let all = config.servers.iter().map(|spec| (spec, true));
        let all = all.chain(config.backups.iter().map(|spec| (spec, false)));
        for (position, (spec, is_primary)) in all.enumerate() {
            let name = spec.address();
            let given_before = names_so_far.contains(&name);
            names_so_far.push(name.clone());
            let present = self.servers.iter().enumerate().position(|(index, server)| {
                !taken[index] && server.name == name && server.conns == conns
            });
            if let Some(present) = present {
                taken[present] = true;
                servers.push(present);
                continue;
            }
            let place = view::place_among(&names, &name);
            servers.push(self.servers.len());
            joining.push(position);
            taken.push(true);
            let mut server =
                Server::new((name, place), is_primary, conns, config.journal_keys, now);
            server.joined = copies;
            if given_before {
                // The same word once more.
                server.state = State::Twin;
                server.tried = true;
                server.joined = false;
            }
            self.servers.push(server);
        }
        let until = now + config.timeout + config.timeout + JOIN_MAX;
        if self.reload.is_near() {
            self.barrier.drop_reload();
        }
        self.reload.next = Some(Next {
            config: Box::new(config),
            handover,
            servers,
            until,
            at_barrier: false,
            ends,
        });
        self.advance_reload();
        joining
    }

    /// Whether a configuration is not in force yet, or keys are handed over.
    pub fn is_reloading(&self) -> bool {
        self.reload.next.is_some() || self.reload.handover.is_some()
    }

    /// A reload failed before the core heard of it; `error` says why. Nothing has changed.
    pub fn reload_failed(&mut self, error: &str, now: Time) {
        self.now = now;
        let told = &mut self.reload.told;
        told.failed += 1;
        told.at = Some(now);
        told.error = error.lines().next().unwrap_or_default().to_owned();
        let detail = format!("failed: {}", told.error);
        self.happened(Kind::Reload, "", detail, now);
    }

    /// The servers have new indices: by the old one, the new one, or none. To be asked after the actions, before anything is
    /// written.
    pub fn take_moves(&mut self) -> Option<Vec<Option<u16>>> {
        self.reload.moves.take()
    }

    /// Goes on with a reload when its servers are ready, and ends a handover. Called with each tick.
    pub(super) fn advance_reload(&mut self) {
        let handover_over = self
            .reload
            .handover
            .as_ref()
            .is_some_and(|(until, _)| *until <= self.now);
        if handover_over && self.reload.next.is_none() {
            if let Some((_, config)) = self.reload.handover.take() {
                log::info!("handover over: keys are looked for at their new places only");
                // The servers of the configuration in force are there.
                self.begin_reload(*config, Span(0), true);
            }
            return;
        }
        let active = self.is_active();
        let Some(next) = &self.reload.next else {
            return;
        };
        let ready = |&index: &usize| {
            let server = &self.servers[index];
            match server.state {
                State::Up | State::Twin => true,
                State::Down(_) => server.tried,
                // Only a proxy that serves makes servers safe.
                State::Waiting | State::Entering => !active,
                State::Connecting => server.tried,
            }
        };
        // What a former ring has left would be old where its keys come back.
        let tidied = !(active && self.has_leftovers());
        let ready = tidied && next.servers.iter().all(ready);
        if next.at_barrier || !(next.until <= self.now || ready) {
            return;
        }
        self.end_resync();
        self.end_survey();
        if let Some(next) = &mut self.reload.next {
            next.at_barrier = true;
        }
        self.barrier.hold_reload();
        self.pass_barrier();
    }

    /// When [`Proxy::advance_reload`] has to be called, if nothing happens before.
    pub(super) fn reload_timeout(&self) -> Option<Time> {
        let next = self.reload.next.as_ref().filter(|next| !next.at_barrier);
        let handover = self.reload.handover.as_ref().map(|(until, _)| *until);
        // A handover ends behind a reload that waits.
        match &self.reload.next {
            Some(_) => next.map(|next| next.until),
            None => handover,
        }
    }

    /// Nothing is under way that knows servers by their index.
    pub(super) fn is_quiet(&self) -> bool {
        let only_looks = |role| matches!(role, Role::Probe | Role::Stamp | Role::Process);
        let mut links = self.servers.iter().flat_map(|server| &server.links);
        self.actions.is_empty()
            && self.txns.is_empty()
            && self.gathers.is_empty()
            && self.repairs.is_empty()
            && !self.order.is_holding()
            && !self.order.is_undecided()
            && self.ejects.due == 0
            && links.all(|link| link.fifo.iter().all(|flight| only_looks(flight.role)))
    }

    /// Lines for `stats reload`.
    pub(super) fn reload_lines(&self) -> Vec<(&'static str, String)> {
        let told = &self.reload.told;
        let state = match (&self.reload.next, &self.reload.handover) {
            (Some(_), _) => "under way",
            (None, Some(_)) => "handing over",
            (None, None) => "none",
        };
        let mut lines = vec![
            ("reload", state.to_owned()),
            ("reloads", told.count.to_string()),
            ("reloads_failed", told.failed.to_string()),
        ];
        if let Some(at) = told.at {
            lines.push((
                "seconds_ago",
                (self.now.since(at).0 / 1_000_000).to_string(),
            ));
        }
        lines.push(("servers_added", told.added.to_string()));
        lines.push(("servers_removed", told.removed.to_string()));
        let moved = format!("{}.{:02}", told.moved / 100, told.moved % 100);
        lines.push(("moved_percent", moved));
        if let Some((until, _)) = &self.reload.handover {
            lines.push((
                "handover_seconds_left",
                (until.since(self.now).0 / 1_000_000).to_string(),
            ));
        }
        lines.push(("handed_over", self.counters.handed_over.to_string()));
        if !told.error.is_empty() {
            lines.push(("error", told.error.clone()));
        }
        lines
    }
}
