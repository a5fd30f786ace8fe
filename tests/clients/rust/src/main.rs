//! The memcache crate, in both protocols (binary is its default). usage: client PORT SECONDS [PROTOCOL]

use std::collections::HashMap;
use std::fmt::Debug;
use std::time::{Duration, Instant};

use memcache::{Client, MemcacheError};

enum Trouble {
    Wrong(String),
    Error(MemcacheError),
}

impl From<MemcacheError> for Trouble {
    fn from(error: MemcacheError) -> Trouble {
        Trouble::Error(error)
    }
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Trouble::Wrong(what) => out.write_str(what),
            Trouble::Error(error) => write!(out, "{error}"),
        }
    }
}

fn same<T: PartialEq + Debug>(got: T, wanted: T, what: &str) -> Result<(), Trouble> {
    if got == wanted {
        return Ok(());
    }
    Err(Trouble::Wrong(format!("{what}: {got:?} instead of {wanted:?}")))
}

fn life(cache: &Client, name: &str) -> Result<(), Trouble> {
    cache.set(name, "value", 60)?;
    same(cache.get(name)?, Some("value".to_string()), "get")?;
    let keys: Vec<String> = (0..100).map(|n| format!("{name}{n}")).collect();
    for key in &keys {
        cache.set(key, 5, 60)?;
    }
    let mut asked: Vec<&str> = keys.iter().map(String::as_str).collect();
    asked.push("nothing");
    let found: HashMap<String, (Vec<u8>, u32, Option<u64>)> = cache.gets(&asked)?;
    same(found.len(), 100, "gets")?;
    let token = found[&keys[0]].2.expect("gets tells the cas");
    same(cache.cas(&keys[0], "newer", 60, token)?, true, "cas")?;
    same(cache.cas(&keys[0], "newest", 60, token)?, false, "a used cas")?;
    // In text it does not tell whether it was stored.
    let _ = cache.add(name, "x", 60);
    same(cache.get(name)?, Some("value".to_string()), "add of what is there")?;
    cache.replace(name, "10", 60)?;
    cache.append(name, "0")?;
    cache.prepend(name, "1")?;
    same(cache.increment(name, 5)?, 1105, "increment")?;
    same(cache.decrement(name, 105)?, 1000, "decrement")?;
    same(cache.touch(name, 30)?, true, "touch")?;
    same(cache.delete(name)?, true, "delete")?;
    same(cache.delete(name)?, false, "delete of nothing")?;
    same(cache.get::<String>(name)?, None, "deleted")?;
    same(cache.version()?.len(), 1, "version")?;
    same(cache.stats()?.len(), 1, "stats")?;
    cache.set(name, "x", 60)?;
    cache.flush()?;
    same(cache.get::<String>(name)?, None, "flushed")
}

fn round(cache: &Client, n: u64) -> Result<(), Trouble> {
    let key = format!("key{}", n % 50);
    cache.set(&key, n, 60)?;
    same(cache.get(&key)?, Some(n), "get")?;
    same(cache.increment(&key, 1)?, n + 1, "increment")?;
    let found: HashMap<String, u64> = cache.gets(&[&key, "nothing"])?;
    same(found, HashMap::from([(key.clone(), n + 1)]), "gets")?;
    same(cache.delete(&key)?, true, "delete")
}

fn main() {
    let words: Vec<String> = std::env::args().collect();
    let protocol = words.get(3).map_or("binary", String::as_str);
    let protocol = if protocol == "text" { "ascii" } else { protocol };
    let url = format!("memcache://127.0.0.1:{}?timeout=1&protocol={protocol}", words[1]);
    let seconds: f64 = words[2].parse().expect("a number of seconds");
    let cache = Client::connect(url).expect("connected");
    let whole = |name| life(&cache, name).unwrap_or_else(|why| panic!("{name} life: {why}"));
    whole("first");
    println!("looping");
    let (mut rounds, mut errors, mut wrong, mut first) = (0, 0, 0, String::new());
    let end = Instant::now() + Duration::from_secs_f64(seconds);
    while Instant::now() < end {
        rounds += 1;
        if let Err(why) = round(&cache, rounds) {
            if first.is_empty() {
                first = format!("round {rounds}: {why}");
            }
            match why {
                Trouble::Wrong(_) => wrong += 1,
                Trouble::Error(_) => errors += 1,
            }
        }
    }
    whole("last");
    println!("rounds={rounds} errors={errors} wrong={wrong} first={first}");
}
