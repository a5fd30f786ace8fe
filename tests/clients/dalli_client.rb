# dalli: the binary protocol (its default up to version 4), or meta commands (all that it knows from version 5 on).
require 'dalli'

port, seconds = ARGV[0], ARGV[1].to_f
Dalli.logger.level = Logger::FATAL
CACHE = Dalli::Client.new("127.0.0.1:#{port}", socket_timeout: 20, failover: false)

class Wrong < StandardError; end

def same(got, wanted, what)
  raise Wrong, "#{what}: #{got.inspect} instead of #{wanted.inspect}" unless got == wanted
end

def life(name)
  same(!!CACHE.set(name, { 'a' => 1 }, 60), true, 'set')
  same(CACHE.get(name), { 'a' => 1 }, 'get')
  CACHE.multi { 100.times { |n| CACHE.set("#{name}#{n}", n, 60) } }
  same(CACHE.get_multi((0...120).map { |n| "#{name}#{n}" }).size, 100, 'get_multi')
  same(!!CACHE.cas(name) { |old| old.merge('b' => 2) }, true, 'cas')
  value, token = CACHE.get_cas(name)
  same(value, { 'a' => 1, 'b' => 2 }, 'get_cas')
  same(!!CACHE.set_cas(name, 'newer', token), true, 'set_cas')
  same(!!CACHE.set_cas(name, 'newest', token), false, 'a used cas')
  same(!!CACHE.add(name, 'x'), false, 'add of what is there')
  same(!!CACHE.replace(name, '10', 60, raw: true), true, 'replace')
  same(CACHE.append(name, '0'), true, 'append')
  same(CACHE.prepend(name, '1'), true, 'prepend')
  same(CACHE.incr(name, 5), 1105, 'incr')
  same(CACHE.decr(name, 105), 1000, 'decr')
  same(CACHE.incr("#{name}-count", 5, 60, 7), 7, 'incr makes it')
  same(CACHE.incr("#{name}-none", 5), nil, 'incr of nothing')
  same(CACHE.touch(name, 30), true, 'touch')
  same(CACHE.gat(name, 30).to_s.strip, '1000', 'gat')
  same(CACHE.fetch("#{name}-fetched", 60) { 'made' }, 'made', 'fetch')
  same(CACHE.delete(name), true, 'delete')
  same(!!CACHE.delete(name), false, 'delete of nothing')
  same(CACHE.get(name), nil, 'deleted')
  same(CACHE.stats.values.first['pid'].to_i.positive?, true, 'stats')
  same(CACHE.stats(:items).size, 1, 'stats items')
  same(CACHE.version.values.first.start_with?('1.'), true, 'version')
  CACHE.reset_stats
  CACHE.set(name, 'x')
  same(CACHE.flush, [true], 'flush')
  same(CACHE.get(name), nil, 'flushed')
end

life('first')
puts 'looping'
$stdout.flush
rounds = errors = wrong = 0
first = ''
stop = Process.clock_gettime(Process::CLOCK_MONOTONIC) + seconds
while Process.clock_gettime(Process::CLOCK_MONOTONIC) < stop
  rounds += 1
  begin
    key = "key#{rounds % 50}"
    same(!!CACHE.set(key, rounds.to_s, 60, raw: true), true, 'set')
    same(CACHE.get(key, raw: true), rounds.to_s, 'get')
    same(CACHE.incr(key, 1), rounds + 1, 'incr')
    same(CACHE.get_multi(key, 'nothing').size, 1, 'get_multi')
    same(CACHE.delete(key), true, 'delete')
  rescue Wrong => e
    wrong += 1
    first = "round #{rounds}: #{e.message}" if first.empty?
  rescue StandardError => e
    errors += 1
    first = "round #{rounds}: #{e.class}: #{e.message}" if first.empty?
  end
end
life('last')
puts "rounds=#{rounds} errors=#{errors} wrong=#{wrong} first=#{first.tr("\n", ' ')}"
