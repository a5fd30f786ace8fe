<?php
// php-memcached, which is libmemcached, in both protocols.
require __DIR__ . '/ordinary.php';

$cache = new Memcached();
$cache->setOption(Memcached::OPT_BINARY_PROTOCOL, $protocol === 'binary');
$cache->setOption(Memcached::OPT_TCP_NODELAY, true);
$cache->setOption(Memcached::OPT_CONNECT_TIMEOUT, 20000);
$cache->setOption(Memcached::OPT_POLL_TIMEOUT, 20000);
$cache->addServer('127.0.0.1', $port);

function good($result, $what) {
    global $cache;
    if ($result === false) {
        throw new Exception("$what: " . $cache->getResultMessage());
    }
    return $result;
}

run(function ($name) use ($cache) {
    good($cache->set($name, ['a' => 1], 60), 'set');
    same($cache->get($name), ['a' => 1], 'get');
    $many = [];
    for ($n = 0; $n < 100; $n++) {
        $many["$name$n"] = $n;
    }
    good($cache->setMulti($many, 60), 'setMulti');
    same(count($cache->getMulti(array_merge(array_keys($many), ['nothing']))), 100, 'getMulti');
    $found = $cache->get($name, null, Memcached::GET_EXTENDED);
    good($cache->cas($found['cas'], $name, 'newer'), 'cas');
    same($cache->cas($found['cas'], $name, 'newest'), false, 'a used cas');
    same($cache->getResultCode(), Memcached::RES_DATA_EXISTS, 'what is said of a used cas');
    same($cache->add($name, 'x'), false, 'add of what is there');
    good($cache->replace($name, 10), 'replace');
    same($cache->increment($name, 5), 15, 'increment');
    same($cache->decrement($name, 3), 12, 'decrement');
    same($cache->increment("$name-none"), false, 'increment of nothing');
    good($cache->touch($name, 30), 'touch');
    good($cache->delete($name), 'delete');
    same($cache->delete($name), false, 'delete of nothing');
    same($cache->getResultCode(), Memcached::RES_NOTFOUND, 'what is said of nothing');
    foreach ($cache->deleteMulti(array_keys($many)) as $done) {
        same($done, true, 'deleteMulti');
    }
    same(current($cache->getStats())['pid'] > 0, true, 'stats');
    same(current($cache->getVersion()) !== '255.255.255', true, 'version');
    good($cache->set($name, 'x'), 'set');
    good($cache->flush(), 'flush');
    same($cache->get($name), false, 'flushed');
}, function ($n) use ($cache) {
    $key = 'key' . $n % 50;
    good($cache->set($key, $n, 60), 'set');
    same(good($cache->get($key), 'get'), $n, 'get');
    same(good($cache->increment($key), 'increment'), $n + 1, 'increment');
    same($cache->getMulti([$key, 'nothing']), [$key => $n + 1], 'getMulti');
    good($cache->delete($key), 'delete');
});
