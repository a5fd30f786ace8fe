//! Flow: what the proxy answers itself, and what it counts.

use super::census::Page;
use super::ids::{ClientId, CloseReason};
use super::intake::WORK_OF_STATS;
use super::server::{Server, State};
use super::stats::{Commands, Outcome};
use super::Proxy;
use crate::proto::request::Request;
use crate::proto::response::Code;
use crate::proto::token::{parse_u32, push_decimal, Tokens};
use crate::proto::{replies, Verb};

/// What `version` says before any server has said its own.
pub(super) const VERSION_UNKNOWN: [u32; 3] = [1, 4, 0];

/// memcached's highest slab class.
const SLAB_CLASS_MAX: u32 = 63;

impl Proxy {
    /// Answers what needs no server. False: the client wants to leave.
    pub(super) fn take_local(&mut self, id: ClientId, request: &Request<'_>) -> bool {
        match request.verb {
            Verb::Quit => return false,
            Verb::FlushAll => self.take_flush(id, request),
            Verb::MetaNoop => self.refuse(id, replies::META_NOOP, 0),
            Verb::Verbosity if request.quiet => self.refuse(id, b"", 0),
            Verb::Verbosity => self.refuse(id, replies::OK, 0),
            Verb::Stats => {
                self.work += WORK_OF_STATS;
                self.take_stats(id, request.line);
            }
            _ => {
                self.work += 1;
                let mut reply = b"VERSION ".to_vec();
                push_numbers(&mut reply, self.least_version().unwrap_or(VERSION_UNKNOWN));
                reply.extend_from_slice(b"\r\n");
                self.say(id, &reply);
            }
        }
        true
    }

    fn say(&mut self, id: ClientId, reply: &[u8]) {
        if let Some(client) = self.client_mut(id) {
            let seq = client.open_slot(0);
            self.finish_slot(id, seq, 0, reply);
        }
    }

    fn take_stats(&mut self, id: ClientId, line: &[u8]) {
        let tokens = Tokens::split(line);
        let word = tokens.get(1).of(line);
        if self.rendered.0 == word && !word.is_empty() {
            // Many ask for the same in this turn.
            let reply = std::mem::take(&mut self.rendered.1);
            self.say(id, &reply);
            self.rendered.1 = reply;
            return;
        }
        let mut reply = Vec::new();
        match word {
            b"" => return self.take_census(id, Page::General),
            b"settings" => return self.take_census(id, Page::Settings),
            b"servers" => self.stats_servers(&mut reply),
            b"health" => self.stats_health(&mut reply),
            b"replication" => self.stats_replication(&mut reply),
            b"resync" => self.stats_resync(&mut reply),
            b"reload" => {
                for (name, value) in self.reload_lines() {
                    push_stat(&mut reply, name, &value);
                }
            }
            b"matrix" => self.stats_matrix(&mut reply),
            b"items" => return self.inquire(id, b"stats items\r\n", false),
            b"slabs" => return self.inquire(id, b"stats slabs\r\n", false),
            b"sizes" => return self.inquire(id, b"stats sizes\r\n", false),
            b"cachedump" => return self.take_cachedump(id, line),
            // Those of the servers are the proxy's own.
            b"conns" | b"extstore" => {}
            b"reset" => {
                self.reset_stats();
                self.rendered = Default::default();
                return self.say(id, replies::RESET);
            }
            b"detail" => match tokens.get(2).of(line) {
                b"on" | b"off" => return self.say(id, replies::OK),
                b"dump" => {}
                _ => return self.say(id, replies::STATS_DETAIL_USAGE),
            },
            _ => return self.say(id, replies::ERROR),
        }
        reply.extend_from_slice(replies::END);
        self.say(id, &reply);
        if matches!(word, b"servers" | b"replication" | b"matrix") {
            self.rendered = (word.to_vec(), reply);
        }
    }

    /// `stats cachedump <class> <limit>`
    fn take_cachedump(&mut self, id: ClientId, line: &[u8]) {
        let tokens = Tokens::split(line);
        let number = |index: usize| parse_u32(tokens.get(index).of(line));
        if tokens.len() < 4 {
            return self.say(id, replies::BAD_CACHEDUMP);
        }
        match (number(2), number(3)) {
            (Some(class), Some(_)) if class > SLAB_CLASS_MAX => self.say(id, replies::ILLEGAL_SLAB),
            (Some(class), Some(limit)) => {
                let line = format!("stats cachedump {class} {limit}\r\n");
                self.inquire(id, line.as_bytes(), true);
            }
            _ => self.say(id, replies::BAD_FORMAT),
        }
    }

    pub(super) fn in_flight(&self) -> usize {
        self.servers.iter().map(Server::in_flight).sum()
    }

    /// Whether this proxy can serve every key, for those who move its address. Answered from what is known: no server is
    /// asked. One that answers but is not in use yet counts as live: it is made safe as soon as a client asks, and without
    /// an address none would.
    fn stats_health(&mut self, out: &mut Vec<u8>) {
        self.health_asked = Some(self.now);
        let (servers, up) = self.server_counts();
        let live = self.servers.iter().map(Server::is_connected);
        let lacking = self.coverage.lacking(&self.routes, live);
        let health = if lacking.is_empty() { "ok" } else { "degraded" };
        push_stat(out, "health", health);
        push_stat(out, "servers", &servers.to_string());
        push_stat(out, "servers_live", &up.to_string());
        push_stat(out, "primaries_without_copy", &lacking.len().to_string());
        if let Some(&first) = lacking.first() {
            push_stat(out, "without_copy", &self.servers[usize::from(first)].name);
        }
        for address in &self.addresses {
            let (ip, here) = (address.ip, address.is_here);
            push_stat(out, &format!("{ip}:here"), if here { "yes" } else { "no" });
            let since = self.now.since(address.since).0 / 1_000_000;
            push_stat(out, &format!("{ip}:seconds"), &since.to_string());
        }
    }

    /// Per server: `STAT <host:port>:<name> <value>`.
    fn stats_servers(&self, out: &mut Vec<u8>) {
        for server in &self.servers {
            let mut stat =
                |name: &str, value: &str| push_stat(out, &format!("{}:{name}", server.name), value);
            stat(
                "role",
                if server.is_primary {
                    "primary"
                } else {
                    "backup"
                },
            );
            stat("state", state_name(server));
            let ejected = self.routes.ejects() && !server.is_up();
            stat("ejected", yes_no(ejected));
            let since = self.now.since(server.since).0 / 1_000_000;
            stat("seconds_in_state", &since.to_string());
            let mut version = Vec::new();
            push_numbers(&mut version, server.version.unwrap_or([0; 3]));
            stat("version", &String::from_utf8_lossy(&version));
            stat("connections", &server.conns.to_string());
            stat("in_flight", &server.in_flight().to_string());
            stat("requests", &server.requests.to_string());
            stat("timeouts", &server.timeouts.to_string());
            stat("relapses", &server.relapses.to_string());
            for reason in CloseReason::ALL {
                let count = server.failures[reason as usize];
                stat(&format!("lost_{}", reason.name()), &count.to_string());
            }
            for percent in [50, 99] {
                let micros = server.latency.percentile(percent);
                stat(&format!("latency_p{percent}_us"), &micros.to_string());
            }
        }
    }

    /// What an operator needs to see that copies are equal.
    fn stats_replication(&self, out: &mut Vec<u8>) {
        let counters = &self.counters;
        push_stat(out, "view", &self.view.number.to_string());
        push_stat(out, "view_owner", &format!("{:016x}", self.view.owner));
        push_stat(out, "this_proxy", &format!("{:016x}", self.me));
        push_stat(out, "active", yes_no(self.is_active()));
        push_stat(
            out,
            "stamp_key",
            &String::from_utf8_lossy(&super::view::stamp_key_of(self.lists.own.key)),
        );
        let numbers = [
            ("views_raised", counters.views_raised),
            ("degraded_writes", counters.degraded_writes),
            ("mirrored", counters.mirrored),
            ("disagreements", counters.disagreements),
            ("heals", counters.heals),
            ("refills", counters.refills),
            ("refills_cancelled", counters.refills_cancelled),
            ("entry_flushes", counters.entry_flushes),
            ("ejected_writes", counters.ejected_writes),
            ("ejected_deletes", counters.ejected_deletes),
            ("ejected_keys", self.ejects.record.len() as u64),
            ("held", counters.held),
            ("failovers", counters.failovers),
            ("failed_reads", counters.failed_reads),
            ("failed_writes", counters.failed_writes),
        ];
        for (name, value) in numbers {
            push_stat(out, name, &value.to_string());
        }
        let complete = self.ejects.record.is_complete();
        push_stat(out, "ejected_keys_complete", yes_no(complete));
        for (index, server) in self.servers.iter().enumerate() {
            if server.state == State::Twin && server.twin_of.is_none() {
                // It has been told of by this name.
                continue;
            }
            let mut stat =
                |name: &str, value: &str| push_stat(out, &format!("{}:{name}", server.name), value);
            stat("state", state_name(server));
            let place = self.ejects.known.place(index as u16);
            stat("ejected_place", &place.to_string());
            stat("view", &server.view().number.to_string());
            stat("journal_keys", &server.journal.len().to_string());
            let complete = server.journal.is_complete();
            stat("journal_complete", yes_no(complete));
            stat("doubtful", yes_no(server.doubtful));
        }
    }

    /// How far the background copy has come.
    fn stats_resync(&self, out: &mut Vec<u8>) {
        let Some(resync) = self.resync_report() else {
            return push_stat(out, "resync", "none");
        };
        push_stat(out, "resync", resync.server);
        push_stat(out, "keys_done", &resync.done.to_string());
        push_stat(out, "keys_listed", &resync.listed.to_string());
        push_stat(out, "seconds", &resync.seconds.to_string());
        push_stat(out, "keys_per_second", &resync.rate.to_string());
        push_stat(out, "seconds_left", &resync.seconds_left.to_string());
    }

    /// What magent 0.6 printed: the primaries, from 1, with the number of connections that are kept.
    fn stats_matrix(&self, out: &mut Vec<u8>) {
        let primaries = self.servers.iter().filter(|server| server.is_primary);
        for (index, server) in primaries.enumerate() {
            let kept = if server.is_up() { server.conns } else { 0 };
            let line = format!(
                "matrix {} -> {}, pool size {kept}\r\n",
                index + 1,
                server.name
            );
            out.extend_from_slice(line.as_bytes());
        }
    }

    fn reset_stats(&mut self) {
        self.counters = super::Counters::default();
        *self.commands = Commands::default();
        for server in &mut self.servers {
            server.requests = 0;
            server.bytes_sent = 0;
            server.bytes_received = 0;
            server.timeouts = 0;
            server.failures = Default::default();
            server.latency = Default::default();
        }
    }

    /// Counts a write as it is taken in.
    pub(super) fn count_write(&mut self, verb: Verb) {
        match verb {
            Verb::Incr | Verb::Decr | Verb::Delete | Verb::Touch | Verb::Gat | Verb::Gats => {}
            Verb::MetaGet | Verb::MetaDelete | Verb::MetaArithmetic => self.counters.cmd_meta += 1,
            Verb::MetaSet => {
                self.counters.cmd_meta += 1;
                self.counters.cmd_set += 1;
            }
            _ => self.counters.cmd_set += 1,
        }
        if verb == Verb::Touch {
            self.counters.cmd_touch += 1;
        }
    }

    /// Counts the keys of a retrieval as they are answered; memcached counts a `gat` as a touch.
    pub(super) fn count_retrieval(&mut self, verb: Verb, hits: u64, keys: u64) {
        let misses = keys - hits.min(keys);
        self.commands.count(verb, Outcome::Hit, hits);
        self.commands.count(verb, Outcome::Miss, misses);
        let counters = &mut self.counters;
        if verb.is_gat() {
            counters.cmd_touch += keys;
            counters.touch_hits += hits;
            counters.touch_misses += misses;
        } else {
            counters.cmd_get += keys;
            counters.get_hits += hits;
            counters.get_misses += misses;
        }
    }

    /// Counts keys that no copy could be asked for: misses, as the client sees it.
    pub(super) fn count_failed_reads(&mut self, verb: Verb, keys: u64) {
        self.counters.failed_reads += keys;
        self.count_retrieval(verb, 0, keys);
    }

    /// Counts what a server said.
    pub(super) fn count_reply(&mut self, verb: Verb, code: Code) {
        if verb.is_gat() {
            // One of its touches; it is counted with the values.
            return;
        }
        let outcome = match (verb, code) {
            // Without `v` it is a hit all the same.
            (Verb::MetaGet, Code::MetaDone) => Outcome::Hit,
            _ => Outcome::of(code),
        };
        self.commands.count(verb, outcome, 1);
        let counters = &mut self.counters;
        counters.cmd_get += u64::from(verb == Verb::MetaGet);
        let counter = match (verb, code) {
            (Verb::MetaGet, Code::MetaMiss) => &mut counters.get_misses,
            (Verb::MetaGet, Code::MetaDone | Code::MetaValue) => &mut counters.get_hits,
            (Verb::Delete, Code::Deleted) => &mut counters.delete_hits,
            (Verb::MetaDelete, Code::MetaDone) => &mut counters.delete_hits,
            (Verb::Delete, Code::NotFound) => &mut counters.delete_misses,
            (Verb::MetaDelete, Code::MetaNotFound) => &mut counters.delete_misses,
            (Verb::Incr, Code::Number) => &mut counters.incr_hits,
            (Verb::Incr, Code::NotFound) => &mut counters.incr_misses,
            (Verb::Decr, Code::Number) => &mut counters.decr_hits,
            (Verb::Decr, Code::NotFound) => &mut counters.decr_misses,
            (Verb::Cas, Code::Stored) => &mut counters.cas_hits,
            (Verb::Cas, Code::NotFound) => &mut counters.cas_misses,
            (Verb::Cas, Code::Exists) => &mut counters.cas_badval,
            (Verb::Touch, Code::Touched) => &mut counters.touch_hits,
            (Verb::Touch, Code::NotFound) => &mut counters.touch_misses,
            _ => return,
        };
        *counter += 1;
    }
}

pub(super) fn state_name(server: &Server) -> &'static str {
    match server.state {
        State::Up if server.cold => "cold",
        State::Up => "up",
        State::Waiting => "waiting",
        State::Entering => "entering",
        State::Connecting if !server.tried => "connecting",
        State::Connecting | State::Down(_) => "down",
        State::Twin => "twin",
    }
}

pub(super) fn yes_no(is: bool) -> &'static str {
    if is {
        "yes"
    } else {
        "no"
    }
}

pub(super) fn push_stat(out: &mut Vec<u8>, name: &str, value: &str) {
    out.extend_from_slice(format!("STAT {name} {value}\r\n").as_bytes());
}

pub(super) fn push_numbers(out: &mut Vec<u8>, numbers: [u32; 3]) {
    for (index, number) in numbers.into_iter().enumerate() {
        if index > 0 {
            out.push(b'.');
        }
        push_decimal(out, u64::from(number));
    }
}
