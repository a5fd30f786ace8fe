//! The same bytes in, the same bytes out: each exchange is run against a real memcached and through the proxy.
//!
//! The tables are `tests/exchange/*.txt`; how to read them stands in `common/exchange.rs`. What the proxy must answer
//! is what the memcached beside it answers at that moment; the recorded replies keep both honest.

use crate::common;

use std::fmt::Write as _;
use std::sync::OnceLock;

use common::exchange::{Ending, Exchange, Feed, Outcome, Target};
use common::{Magent, Memcached, PATIENCE};

const TABLES: [(&str, &str); 10] = [
    ("storage", include_str!("exchange/storage.txt")),
    ("storage_cas", include_str!("exchange/storage_cas.txt")),
    ("storage_lines", include_str!("exchange/storage_lines.txt")),
    ("retrieval", include_str!("exchange/retrieval.txt")),
    ("others", include_str!("exchange/others.txt")),
    ("lines", include_str!("exchange/lines.txt")),
    (
        "administration",
        include_str!("exchange/administration.txt"),
    ),
    ("meta_get", include_str!("exchange/meta_get.txt")),
    ("meta_set", include_str!("exchange/meta_set.txt")),
    ("meta_others", include_str!("exchange/meta_others.txt")),
];

/// The version whose answers are recorded in the tables.
const RECORDED: &str = "VERSION 1.6.18";

fn tables() -> Vec<Exchange> {
    let all: Vec<_> = TABLES
        .iter()
        .flat_map(|(_, text)| Exchange::table(text))
        .collect();
    assert!(all.len() > 300, "the tables are not read: {}", all.len());
    all
}

/// An exchange with what the real server makes of it.
struct Known {
    exchange: Exchange,
    ending: Ending,
    outcome: Outcome,
}

/// Runs everything against a real server.
fn explore(exchanges: Vec<Exchange>, server: &Memcached) -> Vec<Known> {
    let mut target = Target::new("memcached", server.port());
    let know = |exchange: Exchange| {
        let (ending, outcome) = target
            .explore(&exchange)
            .unwrap_or_else(|why| panic!("{}: memcached was {why}", exchange.name));
        Known {
            exchange,
            ending,
            outcome,
        }
    };
    exchanges.into_iter().map(know).collect()
}

/// The tables with the answers of a real server, found out once for all tests here.
fn known_tables() -> &'static [Known] {
    static KNOWN: OnceLock<Vec<Known>> = OnceLock::new();
    KNOWN.get_or_init(|| explore(tables(), &Memcached::start()))
}

/// Collects what differs, to show many at once and not only the first.
#[derive(Default)]
struct Differences {
    count: usize,
    text: String,
}

impl Differences {
    fn compare(&mut self, known: &Known, feed: Feed, target: &mut Target) {
        let got = target.run(&known.exchange, known.ending, feed, PATIENCE / 4);
        if got.as_ref() == Ok(&known.outcome) {
            return;
        }
        self.count += 1;
        if self.count > 20 {
            return;
        }
        let sent = known
            .exchange
            .steps
            .join("\n    --\n    ")
            .replace("\\n", "\\n\n    ");
        let got = got.map_or_else(|why| format!("    {why}\n"), |outcome| outcome.to_string());
        let _ = write!(
            self.text,
            "== {} ({feed:?}, through {})\n  sent:\n    {}\n  memcached, {:?}:\n{}  the proxy:\n{got}",
            known.exchange.name,
            target.name,
            sent.trim_end(),
            known.ending,
            known.outcome,
        );
    }

    #[track_caller]
    fn none(self) {
        assert!(
            self.count == 0,
            "{} exchanges differ:\n{}",
            self.count,
            self.text
        );
    }
}

/// Two set-ups of the proxy, each on servers of its own.
fn with_proxies(work: impl Fn(&mut Target)) {
    {
        let server = Memcached::start();
        let proxy = Magent::front(&[server.port()], &[]).start();
        work(&mut Target::new("one server", proxy.port()));
    }
    let servers = [Memcached::start(), Memcached::start(), Memcached::start()];
    let proxy = Magent::front(
        &[servers[0].port(), servers[1].port()],
        &[servers[2].port()],
    )
    .start();
    work(&mut Target::new("two primaries and a backup", proxy.port()));
}

#[test]
fn memcached_answers_as_recorded() {
    let server = Memcached::start();
    if std::env::var_os("MAGENT_TEST_RECORD").is_some() {
        return record(&server);
    }
    if !server.client().ask("version").starts_with(RECORDED) {
        common::skipped(&format!("the memcached here is not {RECORDED}"));
        return;
    }
    let mut differences = String::new();
    for known in known_tables() {
        let (name, expect) = (&known.exchange.name, Outcome(known.exchange.expect.clone()));
        if expect != known.outcome {
            let _ = write!(
                differences,
                "== {name}\n  recorded:\n{expect}  memcached:\n{}",
                known.outcome
            );
        }
    }
    assert!(differences.is_empty(), "{differences}");
}

#[test]
fn proxy_answers_the_tables() {
    let known = known_tables();
    with_proxies(|target| {
        let mut differences = Differences::default();
        for one in known {
            differences.compare(one, Feed::Whole, target);
        }
        differences.none();
    });
}

/// What the proxy does not allow is refused as by a memcached that was told not to.
#[test]
fn proxy_refuses_as_a_restricted_memcached_does() {
    let off = "no_modern,no_lru_crawler,no_lru_maintainer,no_slab_reassign";
    let server = Memcached::with(&["-W", "-o", off]);
    let table = Exchange::table(include_str!("exchange/not_allowed.txt"));
    assert!(table.len() > 3, "the table is not read: {}", table.len());
    let known = explore(table, &server);
    with_proxies(|target| {
        let mut differences = Differences::default();
        for one in &known {
            differences.compare(one, Feed::Whole, target);
        }
        differences.none();
    });
}

#[test]
fn proxy_answers_the_tables_byte_by_byte() {
    let known = known_tables();
    with_proxies(|target| {
        let mut differences = Differences::default();
        for one in known.iter().filter(|one| !one.exchange.whole) {
            differences.compare(one, Feed::Bytewise, target);
        }
        differences.none();
    });
}

#[test]
fn proxy_answers_the_tables_split_anywhere() {
    let known = known_tables();
    let servers = [Memcached::start(), Memcached::start(), Memcached::start()];
    let proxy = Magent::front(
        &[servers[0].port(), servers[1].port()],
        &[servers[2].port()],
    )
    .start();
    let mut target = Target::new("two primaries and a backup", proxy.port());
    let mut differences = Differences::default();
    for one in known.iter().filter(|one| !one.exchange.whole) {
        let length = one.exchange.longest();
        // Every position of the short ones, a spread of the long ones.
        let stride = length.div_ceil(120);
        for at in (1..length).step_by(stride) {
            differences.compare(one, Feed::SplitAt(at), &mut target);
        }
    }
    differences.none();
}

#[test]
fn proxy_answers_exchanges_glued_together() {
    let known = known_tables();
    let single = |one: &&Known| {
        one.ending == Ending::Ready && one.exchange.steps.len() == 1 && !one.exchange.whole
    };
    let single: Vec<&Known> = known.iter().filter(single).collect();
    let mut glued = Vec::new();
    for size in [2, 9] {
        for run in single.windows(size).step_by(size - 1) {
            let names: Vec<_> = run.iter().map(|one| one.exchange.name.as_str()).collect();
            let bytes: String = run
                .iter()
                .map(|one| one.exchange.steps[0].as_str())
                .collect();
            glued.push(Exchange::new(names.join(" + "), bytes));
        }
    }
    assert!(glued.len() > 200, "only {} pairs", glued.len());
    let glued = explore(glued, &Memcached::start());
    with_proxies(|target| {
        let mut differences = Differences::default();
        for one in &glued {
            differences.compare(one, Feed::Whole, target);
        }
        differences.none();
    });
}

/// Writes the tables anew with what the memcached at hand answers:
/// `MAGENT_TEST_RECORD=1 cargo test --test all recorded`, then look at the difference.
fn record(server: &Memcached) {
    for (name, text) in TABLES {
        let mut known = explore(Exchange::table(text), server).into_iter();
        let mut steps = Vec::<Vec<String>>::new().into_iter();
        let mut out = String::new();
        let mut open = false;
        for line in text
            .lines()
            .filter(|line| !line.starts_with('<'))
            .chain(["== "])
        {
            if open && !line.starts_with('>') {
                for reply in steps.next().unwrap_or_default() {
                    let mark = if reply.starts_with('<') { "" } else { "< " };
                    let _ = writeln!(out, "{mark}{reply}");
                }
                open = line == "--";
            }
            if line.starts_with("== ") && line != "== " {
                let known = known.next().expect("as many as are in the table");
                steps = known.outcome.0.into_iter();
                open = true;
            }
            if line != "== " {
                let _ = writeln!(out, "{line}");
            }
        }
        let path = format!("{}/tests/exchange/{name}.txt", env!("CARGO_MANIFEST_DIR"));
        std::fs::write(path, out).expect("the table can be written");
    }
}

/// Tools read on until `END`, whatever comes: memcached's own among them. What is refused must end them all the same.
#[test]
fn a_refused_listing_ends() {
    let server = Memcached::start();
    let proxy = Magent::front(&[server.port()], &[]).start();
    for which in ["all", "hash", "1"] {
        let mut client = proxy.client();
        client.send(format!("lru_crawler metadump {which}\r\nmn\r\n"));
        let expected = b"CLIENT_ERROR lru crawler disabled\r\nEND\r\n";
        assert_eq!(client.read_to_end(), expected, "{which}");
    }
    let tool = "/usr/share/memcached/scripts/memcached-tool";
    if !std::path::Path::new(tool).exists() {
        return common::skipped(&format!("no {tool}"));
    }
    let needs_uri =
        std::fs::read_to_string(tool).is_ok_and(|text| text.contains("use URI::Escape"));
    let has_uri = std::process::Command::new("perl")
        .args(["-MURI::Escape", "-e1"])
        .status();
    if needs_uri && !has_uri.is_ok_and(|status| status.success()) {
        return common::skipped("memcached-tool here needs Perl's URI::Escape");
    }
    for mode in ["keys", "dump", "settings", "sizes", "display", "stats"] {
        let at = format!("127.0.0.1:{}", proxy.port());
        let mut run = common::process::mortal(tool);
        let mut run = common::process::Process::start(run.args([&at, mode]));
        let status = run.wait(PATIENCE);
        assert!(status.success(), "{mode}: {status}: {}", run.stderr());
    }
}
