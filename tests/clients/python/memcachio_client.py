"""memcachio: asyncio, requests of several tasks in a row on one connection."""
import asyncio

from memcachio import Client
from ordinary import PORT, run, same

loop = asyncio.new_event_loop()
cache = Client(("127.0.0.1", PORT), read_timeout=20)


def values(items):
    return {key: item.value for key, item in items.items()}


async def life(name):
    key = name.encode()
    same(await cache.set(name, b"value", flags=7, expiry=60), True, "set")
    item = (await cache.get(name))[key]
    same((item.value, item.flags), (b"value", 7), "get")
    # All at once: they share a connection or two.
    stored = await asyncio.gather(*(cache.set(f"{name}{n}", b"%d" % n) for n in range(100)))
    same(stored, [True] * 100, "sets in a row")
    found = await cache.get(*(f"{name}{n}" for n in range(120)))
    same(values(found), {b"%s%d" % (key, n): b"%d" % n for n in range(100)}, "get of many")
    many = await asyncio.gather(*(cache.get(f"{name}{n}") for n in range(100)))
    same([values(one) for one in many], [{b"%s%d" % (key, n): b"%d" % n} for n in range(100)], "gets in a row")
    token = (await cache.gets(name))[key].cas
    same(await cache.cas(name, b"newer", token), True, "cas")
    same(await cache.cas(name, b"newest", token), False, "a used cas")
    same(await cache.add(name, b"x"), False, "add of what is there")
    same(await cache.replace(name, b"10"), True, "replace")
    same(await cache.append(name, b"0"), True, "append")
    same(await cache.prepend(name, b"1"), True, "prepend")
    same(await cache.incr(name, 5), 1105, "incr")
    same(await cache.decr(name, 105), 1000, "decr")
    same(await cache.incr(name + "-none", 1), None, "incr of nothing")
    same(await cache.touch(name, 30), True, "touch")
    same(values(await cache.gat(name, expiry=60)), {key: b"1000"}, "gat")
    same(values(await cache.gats(name, f"{name}1", expiry=60)), {key: b"1000", key + b"1": b"1"}, "gats")
    await cache.set(name, b"quiet", noreply=True)
    same(values(await cache.get(name)), {key: b"quiet"}, "set, noreply")
    same(await cache.delete(name), True, "delete")
    same(await cache.delete(name), False, "delete of nothing")
    same(await cache.get(name), {}, "deleted")
    same([text[0] for text in (await cache.version()).values()], ["1"], "version")
    same([int(of[b"pid"]) > 0 for of in (await cache.stats()).values()], [True], "stats")
    await cache.stats("settings")
    await cache.set(name, b"x")
    same(await cache.flushall(), True, "flushall")
    same(await cache.get(name), {}, "flushed")


async def one_round(n):
    key = f"key{n % 50}"
    same(await cache.set(key, b"%d" % n), True, "set")
    found, counted = await asyncio.gather(cache.get(key), cache.incr("count" + key, 1))
    same(values(found), {key.encode(): b"%d" % n}, "get")
    same(counted, None, "incr of nothing")
    same(await cache.incr(key, 1), n + 1, "incr")
    same(values(await cache.gets(key, "nothing")), {key.encode(): b"%d" % (n + 1)}, "gets")
    same(await cache.delete(key), True, "delete")


run(lambda name: loop.run_until_complete(life(name)), lambda n: loop.run_until_complete(one_round(n)))
