<?php
// The session handler of php-memcached, with its locks, in both protocols (binary is its default).
require __DIR__ . '/ordinary.php';

ini_set('session.save_handler', 'memcached');
ini_set('session.save_path', "127.0.0.1:$port");
ini_set('session.use_cookies', '0');
ini_set('session.cache_limiter', '');
ini_set('memcached.sess_binary_protocol', $protocol === 'binary' ? '1' : '0');
ini_set('memcached.sess_locking', '1');

set_error_handler(function ($level, $message) {
    throw new Exception($message);
});

function visit($id, $work) {
    session_id($id);
    session_start();
    try {
        $work();
    } finally {
        session_write_close();
    }
}

run(function ($name) use ($port) {
    $id = "visitor$name";
    visit($id, function () { $_SESSION = ['cart' => 1]; });
    visit($id, function () { same($_SESSION, ['cart' => 1], 'the session'); });
    // Its lock is gone, and holds while a visit lasts.
    $lock = "memc.sess.key.lock.$id";
    $cache = new Memcached();
    $cache->addServer('127.0.0.1', $port);
    same($cache->get($lock), false, 'no lock');
    visit($id, function () use ($cache, $lock) { same($cache->get($lock) !== false, true, 'the lock'); });
    session_id($id);
    session_start();
    session_destroy();
    visit($id, function () { same($_SESSION, [], 'destroyed'); });
}, function ($n) {
    visit('visitor', function () use ($n) {
        if ($n > 1) {
            same($_SESSION['round'] ?? null, $n - 1, 'the session');
        }
        $_SESSION['round'] = $n;
    });
});
