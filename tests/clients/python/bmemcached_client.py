"""python-binary-memcached: the binary protocol only."""
import bmemcached
from ordinary import PORT, run, same

cache = bmemcached.Client(["127.0.0.1:%d" % PORT], socket_timeout=20)


def life(name):
    same(cache.set(name, "value", time=60), True, "set")
    same(cache.get(name), "value", "get")
    same(cache.set_multi({f"{name}{n}": n for n in range(2000)}), [], "set_multi")
    same(len(cache.get_multi([f"{name}{n}" for n in range(2100)])), 2000, "get_multi")
    value, token = cache.gets(name)
    same(cache.cas(name, "newer", token), True, "cas")
    same(cache.cas(name, "newest", token), False, "a used cas")
    same(cache.add(name, "x"), False, "add of what is there")
    same(cache.replace(name, "10"), True, "replace")
    same(cache.replace(name + "-none", "10"), False, "replace of nothing")
    same(cache.incr(name + "-count", 5, default=7), 7, "incr makes it")
    same(cache.incr(name + "-count", 5), 12, "incr")
    same(cache.decr(name + "-count", 2), 10, "decr")
    same(cache.delete(name), True, "delete")
    cache.delete(name)
    same(cache.delete_multi([f"{name}{n}" for n in range(2000)]), True, "delete_multi")
    same(cache.get_multi([f"{name}{n}" for n in range(2000)]), {}, "all deleted")
    stats = list(cache.stats().values())[0]
    assert int(stats["pid"]) > 0
    cache.stats("settings"), cache.stats("items")
    cache.set(name, "x")
    same(cache.flush_all(), True, "flush_all")
    same(cache.get(name), None, "flushed")


def one_round(n):
    key = f"key{n % 50}"
    same(cache.set(key, "%d" % n), True, "set")
    same(cache.get(key), "%d" % n, "get")
    same(cache.get_multi([key, "nothing"]), {key: "%d" % n}, "get_multi")
    same(cache.delete(key), True, "delete")


run(life, one_round)
