# Cache::Memcached::Fast: many commands in one packet, many of them with noreply.
use strict;
use warnings;
use Time::HiRes qw(time);
use Cache::Memcached::Fast;

my ($port, $seconds) = @ARGV;
my $cache = Cache::Memcached::Fast->new({ servers => ["127.0.0.1:$port"], connect_timeout => 20, io_timeout => 20 });
$| = 1;

sub same {
    my ($got, $wanted, $what) = @_;
    $_ = defined $_ ? "$_" : 'undef' for $got, $wanted;
    die "wrong: $what: $got instead of $wanted\n" if $got ne $wanted;
}

sub life {
    my ($name) = @_;
    same(scalar $cache->set($name, 'value', 60), 1, 'set');
    same(scalar $cache->get($name), 'value', 'get');
    my @done = $cache->set_multi(map { ["$name$_", $_, 60] } 0 .. 99);
    same(scalar(grep { $_ } @done), 100, 'set_multi');
    same(scalar(keys %{ $cache->get_multi(map { "$name$_" } 0 .. 119) }), 100, 'get_multi');
    my ($token) = @{ $cache->gets($name) };
    same(scalar $cache->cas($name, $token, 'newer'), 1, 'cas');
    same(scalar $cache->cas($name, $token, 'newest'), '', 'a used cas');
    same(scalar $cache->add($name, 'x'), '', 'add of what is there');
    same(scalar $cache->replace($name, '10'), 1, 'replace');
    same(scalar $cache->append($name, '0'), 1, 'append');
    same(scalar $cache->prepend($name, '1'), 1, 'prepend');
    same(scalar $cache->incr($name, 5), 1105, 'incr');
    same(scalar $cache->decr($name, 105), 1000, 'decr');
    same(scalar $cache->incr("$name-none", 5), '', 'incr of nothing');
    same(scalar $cache->touch($name, 30), 1, 'touch');
    same(scalar $cache->gat(30, $name), '1000', 'gat');
    same(${ $cache->gats(30, $name) }[1], '1000', 'gats');
    $cache->set("$name-quiet$_", $_) for 0 .. 199;
    same(scalar $cache->get("$name-quiet199"), 199, 'after many with noreply');
    same(scalar $cache->delete($name), 1, 'delete');
    same(scalar $cache->delete($name), '', 'delete of nothing');
    same(join(' ', values %{ $cache->server_versions }) =~ /^1\./, 1, 'version');
    $cache->set($name, 'x');
    $cache->flush_all;
    same(scalar $cache->get($name), undef, 'flushed');
}

life('first');
print "looping\n";
my ($rounds, $errors, $wrong, $first) = (0, 0, 0, '');
my $end = time + $seconds;
while (time < $end) {
    $rounds++;
    eval {
        my $key = 'key' . $rounds % 50;
        $cache->set($key, $rounds, 60) or die "set failed\n";
        same(scalar $cache->get($key), $rounds, 'get');
        same(scalar $cache->incr($key, 1), $rounds + 1, 'incr');
        same(join(' ', %{ $cache->get_multi($key, 'nothing') }), "$key " . ($rounds + 1), 'get_multi');
        $cache->delete($key) or die "delete failed\n";
        1;
    } or do {
        $@ =~ /^wrong/ ? $wrong++ : $errors++;
        $first ||= "round $rounds: $@";
    };
}
life('last');
$first =~ s/\n/ /g;
print "rounds=$rounds errors=$errors wrong=$wrong first=$first\n";
