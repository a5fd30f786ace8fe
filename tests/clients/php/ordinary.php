<?php
// As python/ordinary.py. usage: SCRIPT PORT SECONDS [PROTOCOL]
class Wrong extends Exception {}

$port = (int)$argv[1];
$seconds = (float)$argv[2];
$protocol = $argv[3] ?? '';

function same($got, $wanted, $what) {
    if ($got !== $wanted) {
        throw new Wrong("$what: " . var_export($got, true) . ' instead of ' . var_export($wanted, true));
    }
}

function run($life, $round) {
    global $seconds;
    $life('first');
    echo "looping\n";
    $rounds = $errors = $wrong = 0;
    $first = '';
    $end = microtime(true) + $seconds;
    while (microtime(true) < $end) {
        $rounds++;
        try {
            $round($rounds);
        } catch (Wrong $error) {
            $wrong++;
            $first = $first ?: "round $rounds: " . $error->getMessage();
        } catch (Throwable $error) {
            $errors++;
            $first = $first ?: "round $rounds: " . $error->getMessage();
        }
    }
    $life('last');
    echo "rounds=$rounds errors=$errors wrong=$wrong first=", strtr($first, "\n", ' '), "\n";
}
