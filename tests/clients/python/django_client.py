"""Django's cache over pymemcache or pylibmc, and its sessions."""
from ordinary import PORT, PROTOCOL, run, same
from django.conf import settings

backend = {"pymemcache": "PyMemcacheCache", "pylibmc": "PyLibMCCache"}[PROTOCOL]
settings.configure(
    CACHES={"default": {"BACKEND": f"django.core.cache.backends.memcached.{backend}", "LOCATION": "127.0.0.1:%d" % PORT}},
    SESSION_ENGINE="django.contrib.sessions.backends.cache",
    INSTALLED_APPS=["django.contrib.sessions"],
)
import django

django.setup()
from django.contrib.sessions.backends.cache import SessionStore
from django.core.cache import cache


def life(name):
    cache.set(name, {"a": [1, 2]}, 60)
    same(cache.get(name), {"a": [1, 2]}, "get")
    same(cache.add(name, 1), False, "add of what is there")
    same(cache.get_or_set(name + "2", 5), 5, "get_or_set")
    same(cache.set_many({f"{name}-{n}": n for n in range(50)}), [], "set_many")
    same(len(cache.get_many([f"{name}-{n}" for n in range(60)])), 50, "get_many")
    cache.set("count", 5)
    same(cache.incr("count"), 6, "incr")
    same(cache.decr("count", 2), 4, "decr")
    same(cache.touch("count", 30), True, "touch")
    cache.delete_many([f"{name}-{n}" for n in range(50)])
    same(cache.get(f"{name}-7", "none"), "none", "delete_many")
    same(cache.delete(name), True, "delete")
    same(cache.delete(name), False, "delete of nothing")
    session = SessionStore()
    session["user"] = 42
    session.create()
    same(SessionStore(session.session_key)["user"], 42, "a session")
    session.flush()
    cache.set(name, 1)
    cache.clear()
    same(cache.get(name), None, "cleared")


session = None


def one_round(n):
    global session
    key = f"key{n % 50}"
    cache.set(key, n)
    same(cache.get(key), n, "get")
    same(cache.incr(key), n + 1, "incr")
    if session is None:
        session = SessionStore()
        session["user"] = n
        session.create()
    session["round"] = n
    session.save()
    same(SessionStore(session.session_key)["round"], n, "the session")


run(life, one_round)
