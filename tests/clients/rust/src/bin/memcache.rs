//! The memcache crate, in both protocols (binary is its default). usage: memcache PORT SECONDS [PROTOCOL]

use std::collections::HashMap;

use memcache::Client;
use ordinary::{run, same, Trouble};

#[path = "../ordinary.rs"]
mod ordinary;

fn life(cache: &mut Client, name: &str) -> Result<(), Trouble> {
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

fn round(cache: &mut Client, n: u64) -> Result<(), Trouble> {
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
    let url = format!("memcache://127.0.0.1:{}?timeout=20&protocol={protocol}", words[1]);
    let mut cache = Client::connect(url).expect("connected");
    run(&mut cache, &words[2], life, round);
}
