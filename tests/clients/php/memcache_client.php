<?php
// php-memcache, the older extension, in both protocols.
require __DIR__ . '/ordinary.php';

ini_set('memcache.protocol', $protocol === 'binary' ? 'binary' : 'ascii');
$cache = new Memcache();
// For an answer it has 20 s.
$cache->addServer('127.0.0.1', $port, true, 1, 20);

run(function ($name) use ($cache, $protocol) {
    same($cache->set($name, ['a' => 1], 0, 60), true, 'set');
    same($cache->get($name), ['a' => 1], 'get');
    for ($n = 0; $n < 100; $n++) {
        same($cache->set("$name$n", "$n"), true, 'set');
    }
    same(count($cache->get(array_map(fn($n) => "$name$n", range(0, 119)))), 100, 'get of many');
    same($cache->add($name, 'x'), false, 'add of what is there');
    same($cache->replace($name, '10'), true, 'replace');
    same($cache->increment($name, 5), 15, 'increment');
    same($cache->decrement($name, 3), 12, 'decrement');
    same($cache->delete($name), true, 'delete');
    same($cache->delete($name), false, 'delete of nothing');
    same($cache->getVersion() != false, true, 'version');
    if ($protocol !== 'binary') {
        same($cache->getStats()['pid'] > 0, true, 'stats');
    }
    same($cache->set($name, 'x'), true, 'set');
    same($cache->flush(), true, 'flush');
    same($cache->get($name), false, 'flushed');
}, function ($n) use ($cache) {
    $key = 'key' . $n % 50;
    same($cache->set($key, "$n"), true, 'set');
    same($cache->get($key), "$n", 'get');
    same($cache->increment($key, 1), $n + 1, 'increment');
    same($cache->get([$key, 'nothing']), [$key => (string)($n + 1)], 'get of two');
    same($cache->delete($key), true, 'delete');
});
