"""pymemcache, with its defaults: writes carry noreply."""
from ordinary import PORT, run, same
from pymemcache.client.base import Client

cache = Client(("127.0.0.1", PORT), connect_timeout=20, timeout=20, no_delay=True)


def life(name):
    same(cache.set(name, b"value", expire=60), True, "set, noreply")
    same(cache.get(name), b"value", "get")
    cache.set_many({f"{name}{n}": b"%d" % n for n in range(100)}, noreply=False)
    found = cache.get_many([f"{name}{n}" for n in range(120)])
    same(len(found), 100, "get_many")
    value, token = cache.gets(name)
    same(cache.cas(name, b"newer", token), True, "cas")
    same(cache.cas(name, b"newest", token), False, "a used cas")
    same(cache.cas(name + "-none", b"x", token), None, "cas of nothing")
    same(cache.add(name, b"x", noreply=False), False, "add of what is there")
    same(cache.replace(name, b"10", noreply=False), True, "replace")
    same(cache.append(name, b"0", noreply=False), True, "append")
    same(cache.prepend(name, b"1", noreply=False), True, "prepend")
    same(cache.incr(name, 5), 1105, "incr")
    same(cache.decr(name, 105), 1000, "decr")
    same(cache.incr(name + "-none", 1), None, "incr of nothing")
    same(cache.touch(name, 30, noreply=False), True, "touch")
    same(cache.delete(name, noreply=False), True, "delete")
    same(cache.delete(name, noreply=False), False, "delete of nothing")
    same(cache.delete_many([f"{name}{n}" for n in range(100)]), True, "delete_many")
    same(cache.get_many([f"{name}{n}" for n in range(100)]), {}, "all deleted")
    same(cache.version().startswith(b"1."), True, "version")
    same(cache.cache_memlimit(64), True, "cache_memlimit")
    assert cache.stats()[b"pid"] > 0
    assert b"maxconns" in cache.stats("settings")
    cache.stats("items"), cache.stats("slabs")
    cache.set(name, b"x")
    same(cache.flush_all(noreply=False), True, "flush_all")
    same(cache.get(name), None, "flushed")


def one_round(n):
    key = f"key{n % 50}"
    same(cache.set(key, b"%d" % n, noreply=False), True, "set")
    same(cache.get(key), b"%d" % n, "get")
    same(cache.incr(key, 1), n + 1, "incr")
    same(cache.get_many([key, "nothing"]), {key: b"%d" % (n + 1)}, "get_many")
    cache.set("quiet", b"%d" % n)
    same(cache.get("quiet"), b"%d" % n, "after a noreply")


run(life, one_round)
