//! From the tree of a file to pools.

use std::collections::HashMap;

use super::keys::{self, Draft, Row, DISTRIBUTIONS, LISTS, ROWS};
use super::mistake::{nearest, Mistake, Mistakes, Position, BEGINNING};
use super::place::{parse_backup, parse_server};
use super::yaml::{Kind, Node, DASHES, DASH_HINT};
use crate::config::options::SERVERS_MAX;
use crate::config::values::bytes_text;
use crate::config::{Config, Distribution, Rejoin, ServerSpec};
use crate::hash::{KeyHash, KEY_HASHES};

/// Most pools of one file.
pub const POOLS_MAX: usize = 1000;

/// Most shares of all servers of a pool together: some placements have an entry for each.
const WEIGHTS_MAX: u64 = 10_000_000;

/// The pools of a document; `base` is what they are where the file says nothing.
pub fn pools(root: Option<&Node>, base: &Config, mistakes: &mut Mistakes) -> Vec<Config> {
    let Some(root) = root else {
        no_pool(BEGINNING, "", mistakes);
        return Vec::new();
    };
    let Kind::Map(entries) = &root.kind else {
        let text = text_of(root);
        let what = format!(
            "{}, not pools (NAME: and below it, indented, its keys)",
            root.kind.name()
        );
        mistakes.add(Mistake::new(root.at, text, what));
        return Vec::new();
    };
    if entries.is_empty() {
        no_pool(root.at, "{}", mistakes);
    }
    if entries.len() > POOLS_MAX {
        let at = entries[POOLS_MAX].0.at;
        mistakes.add(Mistake::new(
            at,
            "",
            format!("too many pools (at most {POOLS_MAX})"),
        ));
    }
    let entries = &entries[..entries.len().min(POOLS_MAX)];
    let mut seen = Seen::default();
    let mut listens = Seen::default();
    let mut pools = Vec::with_capacity(entries.len());
    for (name, body) in entries {
        let text = text_of(name);
        seen.check(name.at, text, "the name of a pool before", mistakes);
        let before = mistakes.clone();
        let pool = Pool::read(name, body, base, &mut listens, mistakes);
        if *mistakes == before {
            pools.extend(pool);
        }
    }
    pools
}

fn no_pool(at: Position, text: &str, mistakes: &mut Mistakes) {
    mistakes.add(Mistake::new(
        at,
        text,
        "no pool (NAME: and below it, indented, at least listen: and servers:)",
    ));
}

/// Texts, and where each stood first.
#[derive(Default)]
struct Seen(HashMap<String, Position>);

impl Seen {
    /// True when it is new; otherwise that is a mistake: it was `what`.
    fn check(&mut self, at: Position, text: &str, what: &str, mistakes: &mut Mistakes) -> bool {
        if let Some(first) = self.0.get(text) {
            let wrong = format!("{what}, in line {}", first.line);
            mistakes.add(Mistake::new(at, text, wrong));
            return false;
        }
        self.0.insert(text.to_owned(), at);
        true
    }
}

struct Pool<'a> {
    at: Position,
    name: &'a str,
    draft: Draft,
    /// Where each key stood.
    keys: HashMap<&'static str, Position>,
}

impl<'a> Pool<'a> {
    fn read(
        name: &'a Node,
        body: &Node,
        base: &Config,
        listens: &mut Seen,
        mistakes: &mut Mistakes,
    ) -> Option<Config> {
        let mut pool = Pool {
            at: name.at,
            name: text_of(name),
            draft: Draft {
                config: Config {
                    pool: Some(text_of(name).to_owned()),
                    port: 0,
                    distribution: Distribution::Ketama,
                    hash: KeyHash::Fnv1ax64,
                    ..base.clone()
                },
                eject: false,
                hash: false,
                redis: false,
            },
            keys: HashMap::new(),
        };
        if pool.name.is_empty() || pool.name.chars().any(char::is_control) {
            mistakes.add(Mistake::new(name.at, pool.name, "not a name for a pool"));
        }
        let entries = match &body.kind {
            Kind::Map(entries) => entries,
            Kind::Empty if keys::all().any(|key| key == pool.name) => {
                let wrong = "a key of a pool, but it is not in one (it has to be indented below the pool's name)";
                mistakes.add(Mistake::new(name.at, pool.name, wrong));
                return None;
            }
            Kind::Empty => {
                let wrong = "an empty pool (its keys come below its name, indented)";
                mistakes.add(Mistake::new(name.at, pool.name, wrong));
                return None;
            }
            other if keys::all().any(|key| key == pool.name) => {
                let wrong = format!("{} of a pool that is not in one (NAME: comes first, and the keys below it, indented)", pool.name);
                let _ = other;
                mistakes.add(Mistake::new(name.at, pool.name, wrong));
                return None;
            }
            other => {
                let wrong = format!(
                    "{}, where the keys of pool '{}' belong",
                    other.name(),
                    pool.name
                );
                mistakes.add(Mistake::new(body.at, text_of(body), wrong));
                return None;
            }
        };
        let mut seen = Seen::default();
        for (key, value) in entries {
            if seen.check(key.at, text_of(key), "given before in this pool", mistakes) {
                pool.take(key, value, listens, mistakes);
            }
        }
        pool.check_together(mistakes);
        Some(pool.draft.config)
    }

    fn take(&mut self, key: &Node, value: &Node, listens: &mut Seen, mistakes: &mut Mistakes) {
        let word = text_of(key);
        if let Some(list) = LISTS.into_iter().find(|list| *list == word) {
            self.keys.insert(list, key.at);
            return self.take_servers(list, key, value, mistakes);
        }
        let Some(row) = ROWS.iter().find(|row| row.key == word) else {
            let wrong = match nearest(word, keys::all()) {
                Some(near) => format!("unknown key (the nearest one is {near})"),
                None => format!(
                    "unknown key (a pool has {})",
                    keys::all().collect::<Vec<_>>().join(", ")
                ),
            };
            mistakes.add(Mistake::new(key.at, word, wrong));
            return;
        };
        self.keys.insert(row.key, key.at);
        let values = match &value.kind {
            Kind::List(items) if row.key == "listen" && !items.is_empty() => &items[..],
            _ => std::slice::from_ref(value),
        };
        for value in values {
            if row.key == "listen"
                && !listens.check(value.at, text_of(value), "listened at before", mistakes)
            {
                continue;
            }
            self.take_value(row, key, value, mistakes);
        }
    }

    fn take_value(&mut self, row: &Row, key: &Node, value: &Node, mistakes: &mut Mistakes) {
        let text = match &value.kind {
            Kind::Scalar(text) => text,
            Kind::Empty => {
                let wrong = match row.key {
                    "hash_tag" => "no value (two characters, in quotation marks)".to_owned(),
                    _ => "no value".to_owned(),
                };
                mistakes.add(Mistake::new(key.at, row.key, wrong));
                return;
            }
            other => {
                let wrong = format!("{}, where {} has one value", other.name(), row.key);
                mistakes.add(Mistake::new(value.at, row.key, wrong));
                return;
            }
        };
        if let Err(wrong) = (row.set)(&mut self.draft, text) {
            let near = match row.key {
                "hash" => nearest(text, KEY_HASHES.iter().map(|(name, _)| *name)),
                "distribution" => nearest(text, DISTRIBUTIONS.iter().map(|(name, _)| *name)),
                _ => None,
            };
            let near =
                near.map_or_else(String::new, |near| format!(" (the nearest one is {near})"));
            mistakes.add(Mistake::new(
                value.at,
                text,
                format!("{}: {wrong}{near}", row.key),
            ));
        }
    }

    fn take_servers(&mut self, list: &str, key: &Node, value: &Node, mistakes: &mut Mistakes) {
        let form = "a list, each server in a line of its own behind '- '";
        let items = match &value.kind {
            Kind::List(items) if !items.is_empty() => items,
            Kind::Empty | Kind::List(_) => {
                mistakes.add(Mistake::new(key.at, list, format!("no server ({form})")));
                return;
            }
            other => {
                let dash = text_of(value).starts_with(DASHES);
                let hint = if dash { DASH_HINT } else { "" };
                let wrong = format!("{list}: {}, not {form}{hint}", other.name());
                mistakes.add(Mistake::new(value.at, text_of(value), wrong));
                return;
            }
        };
        let mut names = Seen::default();
        let mut weights = 0;
        for item in items {
            let Kind::Scalar(text) = &item.kind else {
                let wrong = format!("{list}: {}, where a server belongs", item.kind.name());
                mistakes.add(Mistake::new(item.at, text_of(item), wrong));
                continue;
            };
            let parsed = match list {
                "servers" => parse_server(text),
                _ => parse_backup(text),
            };
            let spec = match parsed {
                Ok(spec) => spec,
                Err(wrong) => {
                    // Sentences have been published as items of the list.
                    let remark = text.split_whitespace().count() > 2 || !text.contains(':');
                    let hint = if remark {
                        "; a remark begins with '#'"
                    } else {
                        ""
                    };
                    mistakes.add(Mistake::new(
                        item.at,
                        text,
                        format!("{list}: {wrong}{hint}"),
                    ));
                    continue;
                }
            };
            let name = spec.twemproxy_name();
            if !names.check(item.at, &name, "a server of this pool before", mistakes) {
                continue;
            }
            weights += u64::from(spec.weight);
            let specs: &mut Vec<ServerSpec> = match list {
                "servers" => &mut self.draft.config.servers,
                _ => &mut self.draft.config.backups,
            };
            specs.push(spec);
        }
        if weights > WEIGHTS_MAX {
            let wrong = format!("the weights are too large (at most {WEIGHTS_MAX} together)");
            mistakes.add(Mistake::new(key.at, list, wrong));
        }
        let config = &self.draft.config;
        if config.servers.len() + config.backups.len() > SERVERS_MAX {
            let wrong = format!("too many servers (at most {SERVERS_MAX} with the backups)");
            mistakes.add(Mistake::new(key.at, list, wrong));
        }
    }

    fn at(&self, key: &str) -> Position {
        self.keys.get(key).copied().unwrap_or(self.at)
    }

    /// What only the keys of a pool together can get wrong.
    fn check_together(&mut self, mistakes: &mut Mistakes) {
        for key in ["listen", "servers"] {
            if !self.keys.contains_key(key) {
                let wrong = format!("a pool without {key}:");
                mistakes.add(Mistake::new(self.at, self.name, wrong));
            }
        }
        let config = &self.draft.config;
        let mut add =
            |key: &str, wrong: String| mistakes.add(Mistake::new(self.at(key), key, wrong));
        let own = matches!(
            config.distribution,
            Distribution::Magent | Distribution::MagentKetama
        );
        if own && self.draft.hash {
            add(
                "hash",
                "not with this distribution, which has its own".into(),
            );
        }
        if config.distribution == Distribution::Random && !config.backups.is_empty() {
            add(
                "backups",
                "not with distribution random, where a key is anywhere".into(),
            );
        }
        if self.draft.eject && config.backups.is_empty() && config.rejoin == Rejoin::AsIs {
            add(
                "rejoin",
                "as-is: not with auto_eject_hosts (old values would be served)".into(),
            );
        }
        if config.memory_limit < 2 * config.max_item_size {
            let (limit, item) = (
                bytes_text(config.memory_limit),
                bytes_text(config.max_item_size),
            );
            let key = if self.keys.contains_key("memory_limit") {
                "memory_limit"
            } else {
                "max_item_size"
            };
            add(key, format!("a memory_limit of {limit} is too small for a max_item_size of {item} (at least twice as much)"));
        }
        let config = &mut self.draft.config;
        // With backups the keys of a server that is away are there.
        config.eject = self.draft.eject && config.backups.is_empty() && config.servers.len() > 1;
        if own {
            config.hash = KeyHash::Djb31;
        }
    }
}

fn text_of(node: &Node) -> &str {
    match &node.kind {
        Kind::Scalar(text) => text,
        _ => "",
    }
}
