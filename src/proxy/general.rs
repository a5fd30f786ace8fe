//! Flow: `stats` and `stats settings`: what this proxy counts and was told, and what only its servers know.

use super::census::Page;
use super::local::{push_numbers, push_stat, yes_no, VERSION_UNKNOWN};
use super::sums::Sums;
use super::Proxy;
use crate::config::Config;

/// What memcached 1.6 says to `stats` of itself and magent has none of: it is asked of the servers. There is a line for each of
/// them even while no server answers; what else a server says comes behind them.
const OF_SERVERS: [&str; 56] = [
    "response_obj_oom",
    "response_obj_count",
    "response_obj_bytes",
    "read_buf_count",
    "read_buf_bytes",
    "read_buf_bytes_free",
    "read_buf_oom",
    "reserved_fds",
    "get_expired",
    "get_flushed",
    "auth_cmds",
    "auth_errors",
    "limit_maxbytes",
    "listen_disabled_num",
    "time_in_listen_disabled_us",
    "threads",
    "conn_yields",
    "hash_power_level",
    "hash_bytes",
    "hash_is_expanding",
    "slab_reassign_rescues",
    "slab_reassign_chunk_rescues",
    "slab_reassign_evictions_nomem",
    "slab_reassign_inline_reclaim",
    "slab_reassign_busy_items",
    "slab_reassign_busy_deletes",
    "slab_reassign_running",
    "slabs_moved",
    "lru_crawler_running",
    "lru_crawler_starts",
    "lru_maintainer_juggles",
    "malloc_fails",
    "log_worker_dropped",
    "log_worker_written",
    "log_watcher_skipped",
    "log_watcher_sent",
    "log_watchers",
    "unexpected_napi_ids",
    "round_robin_fallback",
    "bytes",
    "curr_items",
    "total_items",
    "slab_global_page_pool",
    "expired_unfetched",
    "evicted_unfetched",
    "evicted_active",
    "evictions",
    "reclaimed",
    "crawler_reclaimed",
    "crawler_items_checked",
    "lrutail_reflocked",
    "moves_to_cold",
    "moves_to_warm",
    "moves_within_lru",
    "direct_reclaims",
    "lru_bumps_dropped",
];

/// What `stats` begins with, of the process.
const OWN_HEAD: [&str; 7] = [
    "pid",
    "uptime",
    "time",
    "version",
    "pointer_size",
    "rusage_user",
    "rusage_system",
];

/// Gives a number to what no server has said.
pub(super) fn fill_general(sums: &mut Sums) {
    sums.set_if_missing("accepting_conns", 1);
    for name in OF_SERVERS {
        sums.set_if_missing(name, 0);
    }
}

/// What `stats settings` says of the proxy itself, in memcached's names where they mean the same.
pub(super) fn own_settings(config: &Config) -> Vec<(&'static str, String)> {
    let none_or = |text: String| if text.is_empty() { "NULL".into() } else { text };
    let socket = config.socket.as_ref();
    let socket = socket.map_or_else(String::new, |path| path.display().to_string());
    let idle = config.idle_timeout.map_or(0, |span| span.0 / 1_000_000);
    vec![
        ("maxconns", config.max_conns.to_string()),
        ("tcpport", config.port.to_string()),
        ("udpport", "0".into()),
        ("inter", none_or(config.listen.join(","))),
        ("verbosity", config.verbose.to_string()),
        ("domain_socket", none_or(socket)),
        ("umask", format!("{:o}", config.socket_mode)),
        ("shutdown_command", "no".into()),
        ("num_threads", "1".into()),
        ("num_threads_per_udp", "0".into()),
        ("detail_enabled", "no".into()),
        ("cas_enabled", "yes".into()),
        ("tcp_backlog", config.backlog.to_string()),
        ("binding_protocol", "auto-negotiate".into()),
        ("auth_enabled_sasl", "no".into()),
        ("auth_enabled_ascii", "no".into()),
        ("maxconns_fast", "yes".into()),
        ("flush_enabled", "yes".into()),
        ("idle_timeout", idle.to_string()),
        ("ssl_enabled", "no".into()),
        ("magent_memory_limit", config.memory_limit.to_string()),
        ("magent_timeout_ms", (config.timeout.0 / 1000).to_string()),
        ("magent_eject", yes_no(config.eject).into()),
    ]
}

impl Proxy {
    /// `stats`
    pub(super) fn stats_general(&self, out: &mut Vec<u8>) {
        let counters = &self.counters;
        let uptime = self.now.since(self.started).0 / 1_000_000;
        let (user, system) = (self.facts.rusage)();
        let mut version = Vec::new();
        push_numbers(
            &mut version,
            self.least_version().unwrap_or(VERSION_UNKNOWN),
        );
        let mut stat = |name: &str, value: u64| push_stat(out, name, &value.to_string());
        stat("pid", u64::from(self.facts.pid));
        stat("uptime", uptime);
        stat("time", self.facts.unix(self.now));
        push_stat(out, "version", &String::from_utf8_lossy(&version));
        push_stat(out, "magent_version", env!("CARGO_PKG_VERSION"));
        push_stat(out, "pointer_size", &usize::BITS.to_string());
        push_stat(out, "rusage_user", &seconds(user));
        push_stat(out, "rusage_system", &seconds(system));
        let is_up = |&index: &usize| self.servers[self.routes.identity(index)].is_up();
        let up = (0..self.servers.len()).filter(is_up).count();
        let known = &self.census[Page::General as usize].known;
        // What magent refuses never gets to a server.
        let refused = |name, own| known.number(name).unwrap_or(0).wrapping_add(own);
        let numbers = [
            ("max_connections", self.settings.max_conns as u64),
            ("curr_connections", self.clients.len() as u64),
            ("connection_structures", self.clients.capacity() as u64),
            ("total_connections", counters.total_connections),
            ("rejected_connections", counters.rejected_connections),
            ("cmd_get", counters.cmd_get),
            ("cmd_set", counters.cmd_set),
            ("cmd_flush", counters.cmd_flush),
            ("cmd_touch", counters.cmd_touch),
            ("cmd_meta", counters.cmd_meta),
            ("get_hits", counters.get_hits),
            ("get_misses", counters.get_misses),
            ("delete_misses", counters.delete_misses),
            ("delete_hits", counters.delete_hits),
            ("incr_misses", counters.incr_misses),
            ("incr_hits", counters.incr_hits),
            ("decr_misses", counters.decr_misses),
            ("decr_hits", counters.decr_hits),
            ("cas_misses", counters.cas_misses),
            ("cas_hits", counters.cas_hits),
            ("cas_badval", counters.cas_badval),
            ("touch_hits", counters.touch_hits),
            ("touch_misses", counters.touch_misses),
            (
                "store_too_large",
                refused("store_too_large", counters.store_too_large),
            ),
            (
                "store_no_memory",
                refused("store_no_memory", counters.store_no_memory),
            ),
            ("bytes_read", counters.bytes_read),
            ("bytes_written", counters.bytes_written),
            ("magent_servers", self.servers.len() as u64),
            ("magent_servers_up", up as u64),
            ("magent_in_flight", self.in_flight() as u64),
            ("magent_buffered_bytes", self.memory.used() as u64),
            ("magent_memory_limit", self.memory.limit() as u64),
            ("magent_failovers", counters.failovers),
            ("magent_failed_reads", counters.failed_reads),
            ("magent_cut_off", counters.cut_off),
            ("magent_set_aside", counters.set_aside),
            ("magent_begun_anew", counters.begun_anew),
            ("magent_failed_writes", counters.failed_writes),
            ("magent_mirrored", counters.mirrored),
            ("magent_disagreements", counters.disagreements),
            ("magent_held", counters.held),
            ("magent_refused_full", counters.refused_full),
            ("magent_halves_closed", counters.halves_closed),
        ];
        for (name, value) in numbers {
            push_stat(out, name, &value.to_string());
        }
        known.write(out, |name| {
            let is_own = |(own, _): &(&str, u64)| own.as_bytes() == name;
            let is_head = OWN_HEAD.iter().any(|own| own.as_bytes() == name);
            !is_head && !name.starts_with(b"magent_") && !numbers.iter().any(is_own)
        });
    }

    /// `stats settings`
    pub(super) fn stats_settings(&self, out: &mut Vec<u8>) {
        let known = &self.census[Page::Settings as usize].known;
        let item_max = self.settings.max_item_size as u64;
        let item_max = known
            .number("item_size_max")
            .unwrap_or(item_max)
            .min(item_max);
        let maxbytes = known.number("maxbytes").unwrap_or(0);
        push_stat(out, "maxbytes", &maxbytes.to_string());
        push_stat(out, "item_size_max", &item_max.to_string());
        for (name, value) in &self.own_settings {
            push_stat(out, name, value);
        }
        known.write(out, |name| {
            let is_own = |(own, _): &(&str, String)| own.as_bytes() == name;
            let is_head = name == b"maxbytes" || name == b"item_size_max";
            !is_head && !name.starts_with(b"magent_") && !self.own_settings.iter().any(is_own)
        });
    }
}

fn seconds(micros: u64) -> String {
    format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000)
}
