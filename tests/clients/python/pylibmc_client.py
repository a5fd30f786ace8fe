"""pylibmc, which is libmemcached; the binary protocol on request."""
import pylibmc
from ordinary import PORT, PROTOCOL, run, same

cache = pylibmc.Client(
    ["127.0.0.1:%d" % PORT],
    binary=PROTOCOL == "binary",
    behaviors={"tcp_nodelay": True, "cas": True, "connect_timeout": 20000, "receive_timeout": 20000000, "send_timeout": 20000000},
)


def life(name):
    same(cache.set(name, "value", time=60), True, "set")
    same(cache.get(name), "value", "get")
    same(cache.set_multi({f"{name}{n}": n for n in range(100)}), [], "set_multi")
    same(len(cache.get_multi([f"{name}{n}" for n in range(120)])), 100, "get_multi")
    value, token = cache.gets(name)
    same(cache.cas(name, "newer", token), True, "cas")
    same(cache.cas(name, "newest", token), False, "a used cas")
    same(cache.add(name, "x"), False, "add of what is there")
    same(cache.replace(name, "10"), True, "replace")
    same(cache.append(name, "0"), True, "append")
    same(cache.prepend(name, "1"), True, "prepend")
    same(cache.set(name, 1100), True, "set a number")
    same(cache.incr(name, 5), 1105, "incr")
    same(cache.decr(name, 105), 1000, "decr")
    try:
        cache.incr(name + "-none")
        raise AssertionError("incr of nothing")
    except pylibmc.NotFound:
        pass
    same(cache.touch(name, 30), True, "touch")
    same(cache.delete(name), True, "delete")
    same(cache.delete(name), False, "delete of nothing")
    same(cache.delete_multi([f"{name}{n}" for n in range(100)]), True, "delete_multi")
    same(cache.get_multi([f"{name}{n}" for n in range(100)]), {}, "all deleted")
    assert int(cache.get_stats()[0][1]["pid"]) > 0
    cache.set(name, "x")
    same(cache.flush_all(), True, "flush_all")
    same(cache.get(name), None, "flushed")


def one_round(n):
    key = f"key{n % 50}"
    same(cache.set(key, n), True, "set")
    same(cache.get(key), n, "get")
    same(cache.incr(key), n + 1, "incr")
    same(cache.get_multi([key, "nothing"]), {key: n + 1}, "get_multi")
    same(cache.delete(key), True, "delete")


run(life, one_round)
