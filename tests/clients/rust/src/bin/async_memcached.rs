//! The async-memcached crate: classic commands and meta ones, quiet requests in a row. usage: async_memcached PORT SECONDS

use async_memcached::{AsciiProtocol, Client, MetaProtocol, Status};
use ordinary::{run, same, Trouble};

#[path = "../ordinary.rs"]
mod ordinary;

/// What a value is, of an item that may be there.
fn data(item: Option<async_memcached::Value>) -> Option<Vec<u8>> {
    item?.data
}

fn meta_data(item: Option<async_memcached::MetaValue>) -> Option<Vec<u8>> {
    item?.data
}

async fn classic(cache: &mut Client, name: &str) -> Result<(), Trouble> {
    cache.set(name, "value", Some(60), Some(7)).await?;
    let item = cache.get(name).await?.expect("it was set");
    same((item.data, item.flags), (Some(b"value".to_vec()), Some(7)), "get")?;
    let many: Vec<(String, u64)> = (0..100).map(|n| (format!("{name}{n}"), n)).collect();
    let stored = cache.set_multi(&many, Some(60), None).await?;
    same(stored.values().filter(|outcome| outcome.is_ok()).count(), 100, "set_multi")?;
    let found = cache.get_multi((0..120).map(|n| format!("{name}{n}"))).await?;
    same(found.len(), 100, "get_multi")?;
    let refused = cache.add(name, "x", Some(60), None).await;
    same(matches!(refused, Err(async_memcached::Error::Protocol(Status::NotStored))), true, "add of what is there")?;
    same(data(cache.get(name).await?), Some(b"value".to_vec()), "after the add")?;
    cache.set(name, 10u64, Some(60), None).await?;
    same(cache.increment(name, 5).await?, 15, "increment")?;
    same(cache.decrement(name, 5).await?, 10, "decrement")?;
    cache.increment_no_reply(name, 2).await?;
    cache.decrement_no_reply(name, 1).await?;
    same(data(cache.get(name).await?), Some(b"11".to_vec()), "without replies")?;
    cache.delete(name).await?;
    same(data(cache.get(name).await?), None, "deleted")?;
    let keys: Vec<&str> = many.iter().map(|(key, _)| key.as_str()).collect();
    cache.delete_multi_no_reply(&keys).await?;
    cache.set(keys[50], "x", Some(60), None).await?;
    // A list of which nothing is there is an error to it.
    same(cache.get_multi(&keys).await?.len(), 1, "all deleted but one")
}

async fn meta(cache: &mut Client, name: &str) -> Result<(), Trouble> {
    cache.meta_set(name, "value", false, None, Some(&["T60", "F7"])).await?;
    let item = cache.meta_get(name, false, Some(b"77"), Some(&["v", "f", "c", "t", "h", "l", "s", "k"])).await?;
    let item = item.expect("it was set");
    same((item.data, item.flags, item.size), (Some(b"value".to_vec()), Some(7), Some(5)), "mg")?;
    same((item.key, item.opaque_token), (Some(name.into()), Some(b"77".to_vec())), "mg's key and opaque")?;
    let token = item.cas.expect("mg tells the cas");
    cache.meta_set(name, "newer", false, None, Some(&[&format!("C{token}")])).await?;
    let used = cache.meta_set(name, "newest", false, None, Some(&[&format!("C{token}")])).await;
    same(matches!(used, Err(async_memcached::Error::Protocol(Status::Exists))), true, "a used cas")?;
    same(meta_data(cache.meta_get(name, false, None, Some(&["v"])).await?), Some(b"newer".to_vec()), "mg, newer")?;
    let many: Vec<(String, u64)> = (0..100).map(|n| (format!("{name}{n}"), n)).collect();
    same(cache.meta_set_multi(&many, Some(&["T60"])).await?.len(), 0, "quiet ms in a row, and none that failed")?;
    let asked: Vec<String> = (0..120).map(|n| format!("{name}{n}")).collect();
    let found = cache.meta_get_multi(&asked, Some(&["v"])).await?;
    let first = (found[0].key.clone(), found[0].data.clone());
    same(found.len(), 100, "quiet mg in a row")?;
    same(first, (Some(format!("{name}0").into()), Some(b"0".to_vec())), "the first of them")?;
    same(meta_data(cache.meta_get("nothing", true, None, Some(&["v"])).await?), None, "quiet mg of nothing")?;
    cache.meta_set(name, 10u64, true, None, None).await?;
    let up = cache.meta_increment(name, false, None, Some(5), Some(&["v"])).await?;
    same(meta_data(up), Some(b"15".to_vec()), "ma")?;
    let down = cache.meta_decrement(name, false, None, Some(5), Some(&["v"])).await?;
    same(meta_data(down), Some(b"10".to_vec()), "ma, down")?;
    cache.meta_delete(name, true, None, None).await?;
    same(meta_data(cache.meta_get(name, false, None, Some(&["v"])).await?), None, "deleted")
}

async fn life(cache: &mut Client, name: &str) -> Result<(), Trouble> {
    classic(cache, name).await?;
    meta(cache, name).await?;
    same(cache.version().await?.starts_with("1."), true, "version")?;
    same(cache.stats().await?.contains_key("pid"), true, "stats")?;
    cache.set(name, "x", Some(60), None).await?;
    cache.flush_all().await?;
    same(data(cache.get(name).await?), None, "flushed")
}

async fn round(cache: &mut Client, n: u64) -> Result<(), Trouble> {
    let key = format!("key{}", n % 50);
    cache.set(&key, n, Some(60), None).await?;
    same(data(cache.get(&key).await?), Some(n.to_string().into()), "get")?;
    same(cache.increment(&key, 1).await?, n + 1, "increment")?;
    let found = cache.meta_get_multi(&[key.as_str(), "nothing"], Some(&["v"])).await?;
    let found: Vec<_> = found.into_iter().map(|item| item.data).collect();
    same(found, vec![Some((n + 1).to_string().into())], "quiet mg in a row")?;
    Ok(cache.delete(&key).await?)
}

fn main() {
    let words: Vec<String> = std::env::args().collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut cache = runtime.block_on(Client::new(format!("tcp://127.0.0.1:{}", words[1]))).expect("connected");
    run(
        &mut cache,
        &words[2],
        |cache, name| runtime.block_on(life(cache, name)),
        |cache, n| runtime.block_on(round(cache, n)),
    );
}
