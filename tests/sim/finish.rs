//! The end of a run: nothing is under way, nothing is kept, and the copies agree.

use magent::proxy::ConnId;
use magent::time::Time;

use super::item::is_expired;
use super::node::Health;
use super::profile::Copied;
use super::request::parse;
use super::world::World;

/// What `stats` says.
pub struct Stats(Vec<u8>);

impl Stats {
    pub fn number(&self, name: &str) -> u64 {
        let head = format!("STAT {name} ");
        let lines = self.0.split(|&byte| byte == b'\n');
        let mut values =
            lines.filter_map(|line| line.trim_ascii_end().strip_prefix(head.as_bytes()));
        values
            .next()
            .and_then(parse)
            .unwrap_or_else(|| panic!("no {name} in stats"))
    }
}

impl World {
    /// What a proxy says of its servers.
    pub fn replication(&mut self) -> String {
        let Stats(text) = self.ask_stats(self.active, b"stats replication\r\n");
        String::from_utf8(text).expect("statistics are text")
    }

    /// What a proxy counts.
    pub fn stats(&mut self, host: usize) -> Stats {
        self.ask_stats(host, b"stats\r\n")
    }

    /// Asks a proxy for its statistics, without the network.
    fn ask_stats(&mut self, host: usize, request: &[u8]) -> Stats {
        let now = Time(self.now);
        let proxy = self.proxy(host);
        let id = proxy
            .client_opened(now)
            .expect("there is room for one more client");
        proxy.client_received(id, request, now);
        let mut reply = Vec::new();
        proxy
            .write_to(ConnId::Client(id), &mut reply, now)
            .expect("a vector takes everything");
        proxy.client_closed(id, now);
        Stats(reply)
    }

    pub fn collect_tally(&mut self) {
        let stats = self.stats(self.active);
        let tally = &mut self.tally;
        tally.failovers = stats.number("magent_failovers");
        tally.failed_reads = stats.number("magent_failed_reads");
        tally.held = stats.number("magent_held");
        tally.mirrored = stats.number("magent_mirrored");
        tally.disagreements = stats.number("magent_disagreements");
        tally.checked = self.history.checked;
        tally.unchecked = self.history.unchecked;
        tally.lost = self.history.lost;
        tally.cut_off = stats.number("magent_cut_off");
    }

    /// True when all is at rest; what cannot come to rest any more is a failure.
    pub fn check_end(&mut self, late: bool) -> bool {
        let stats = self.stats(self.active);
        let (buffered, in_flight) = (
            stats.number("magent_buffered_bytes"),
            stats.number("magent_in_flight"),
        );
        if buffered != 0 || in_flight != 0 {
            if late {
                self.fail(format!(
                    "at rest, yet {buffered} bytes are buffered and {in_flight} requests in flight"
                ));
            }
            return false;
        }
        self.collect_tally();
        if self.tally.disagreements > 0
            && self.guarantees.copies == Copied::Equal
            && !self.plan.short_times
        {
            self.fail(format!(
                "{} disagreements between copies",
                self.tally.disagreements
            ));
        }
        self.check_copies();
        true
    }

    /// I1: each copy that is up holds what the acting primary holds, or nothing.
    fn check_copies(&mut self) {
        if self.guarantees.copies == Copied::Whatever
            || (self.plan.short_times && !self.guarantees.clocks)
        {
            return;
        }
        let now = self.now;
        for node in &mut self.nodes {
            let unix = node.unix(now);
            node.process.set_now(unix);
        }
        let names: Vec<_> = self.history.names().cloned().collect();
        for (key, name) in names.into_iter().enumerate() {
            if self.history.is_torn(key) {
                continue;
            }
            let mut copies = self.faults.copies(&name);
            copies.retain(|&copy| self.nodes[copy].health == Health::Running);
            let Some((&acting, others)) = copies.split_first() else {
                continue;
            };
            for &other in others {
                if let Some(why) = self.difference(&name, acting, other) {
                    self.fail(format!(
                        "key {}: servers {acting} and {other}: {why}",
                        name.escape_ascii()
                    ));
                }
            }
        }
    }

    fn difference(&self, key: &[u8], acting: usize, other: usize) -> Option<String> {
        let first = self.nodes[acting].process.items.get(key);
        let second = self.nodes[other].process.items.get(key);
        // Their seconds begin at different moments.
        let now = self.nodes[acting].process.env.now;
        let surely_gone = |exp: i64| is_expired(exp, now - 3);
        let surely_there = |exp: i64| !is_expired(exp, now + 3);
        match (first, second) {
            (None, None) => None,
            (Some(first), Some(second)) => {
                if surely_gone(first.exp) && surely_gone(second.exp) {
                    return None;
                }
                let apart = 2 + self.history.returns();
                let times = (first.exp == 0) == (second.exp == 0)
                    && (first.exp - second.exp).abs() <= apart;
                let same = first.value == second.value && first.flags == second.flags && times;
                (!same).then(|| format!("{first} differs from {second}"))
            }
            (Some(first), None) => {
                let must = self.guarantees.copies == Copied::Equal && surely_there(first.exp);
                must.then(|| format!("{first} is absent on the second"))
            }
            (None, Some(second)) => surely_there(second.exp)
                .then(|| format!("absent on the first, {second} on the second")),
        }
    }
}
