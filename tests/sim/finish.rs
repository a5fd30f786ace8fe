//! The end of a run: nothing is under way, nothing is kept, and the copies agree.

use magent::proxy::report::Report;
use magent::proxy::ConnId;
use magent::time::Time;

use super::item::is_expired;
use super::node::Health;
use super::profile::Copied;
use super::world::World;

impl World {
    /// What a proxy says of its servers.
    pub fn replication(&mut self) -> String {
        let now = Time(self.now);
        let proxy = self.proxy(self.active);
        let id = proxy
            .client_opened(now)
            .expect("there is room for one more client");
        proxy.client_received(id, b"stats replication\r\n", now);
        let mut reply = Vec::new();
        proxy
            .write_to(ConnId::Client(id), &mut reply, now)
            .expect("a vector takes everything");
        proxy.client_closed(id, now);
        String::from_utf8(reply).expect("statistics are text")
    }

    /// What a proxy counts.
    pub fn report(&mut self, host: usize) -> Report<'_> {
        let now = Time(self.now);
        self.proxy(host).report(now)
    }

    pub fn collect_tally(&mut self) {
        let counters = *self.report(self.active).counters;
        let tally = &mut self.tally;
        tally.failovers = counters.failovers;
        tally.failed_reads = counters.failed_reads;
        tally.held = counters.held;
        tally.mirrored = counters.mirrored;
        tally.disagreements = counters.disagreements;
        tally.checked = self.history.checked;
        tally.unchecked = self.history.unchecked;
        tally.lost = self.history.lost;
        tally.cut_off = counters.cut_off;
    }

    /// True when all is at rest; what cannot come to rest any more is a failure.
    pub fn check_end(&mut self, late: bool) -> bool {
        let report = self.report(self.active);
        let buffered = report.memory.0;
        let in_flight: usize = report.servers.iter().map(|server| server.in_flight).sum();
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
            let mut copies = self.in_force.copies(&name);
            let listed = self.listed();
            let is_listed = |copy: usize| self.plan.reloads || copy < listed;
            copies.retain(|&copy| is_listed(copy) && self.nodes[copy].health == Health::Running);
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
