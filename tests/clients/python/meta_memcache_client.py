"""meta-memcache: meta commands only, keys in base64 where they are no plain words, leases."""
from meta_memcache import CacheClient, Key, ServerAddress, connection_pool_factory_builder
from ordinary import PORT, run, same

cache = CacheClient.cache_client_from_servers(
    servers=[ServerAddress(host="127.0.0.1", port=PORT)],
    connection_pool_factory_fn=connection_pool_factory_builder(connection_timeout=20, recv_timeout=20),
)


def life(name):
    same(cache.set(key=name, value={"a": 1}, ttl=60), True, "set")
    same(cache.get(key=name), {"a": 1}, "get")
    beer = Key(f"\N{BEER MUG} {name}")
    same(cache.set(key=beer, value="cold", ttl=60), True, "set of a key that is no word")
    same(cache.get(key=beer), "cold", "get of a key that is no word")
    for n in range(100):
        cache.set(key=f"{name}{n}", value=n, ttl=60, no_reply=True)
    found = cache.multi_get(keys=[f"{name}{n}" for n in range(120)])
    same(len([value for value in found.values() if value is not None]), 100, "multi_get")
    value, token = cache.get_cas(key=name)
    # 4.3.0 reads no token over 32 bits, and those of a service with several servers are longer.
    if token is not None:
        same(cache.set(key=name, value="newer", ttl=60, cas_token=token), True, "cas")
        same(cache.set(key=name, value="newest", ttl=60, cas_token=token), False, "a used cas")
    same(cache.refill(key=name, value="x", ttl=60), False, "refill of what is there")
    same(cache.touch(key=name, ttl=30), True, "touch")
    same(cache.delta_initialize(key=name + "-count", delta=1, initial_value=7, initial_ttl=60), True, "a counter")
    same(cache.delta_and_get(key=name + "-count", delta=5), 12, "delta")
    same(cache.delta_and_get(key=name + "-count", delta=-2), 10, "delta down")
    same(cache.delete(key=name), True, "delete")
    same(cache.delete(key=name), False, "delete of nothing")


def one_round(n):
    key = f"key{n % 50}"
    same(cache.set(key=key, value=n, ttl=60), True, "set")
    same(cache.get(key=key), n, "get")
    same(cache.delta_and_get(key=key, delta=1), n + 1, "delta")
    found = cache.multi_get(keys=[key, "nothing"])
    same(sorted(v for v in found.values() if v is not None), [n + 1], "multi_get")


run(life, one_round)
