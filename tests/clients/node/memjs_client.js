// memjs: the binary protocol only.
const { port, same, run } = require('./ordinary');
const memjs = require('memjs');

const cache = memjs.Client.create(`127.0.0.1:${port}`, { timeout: 20, retries: 0, failover: false });
const text = (found) => found.value && found.value.toString();

async function life(name) {
  same(await cache.set(name, 'value', { expires: 60 }), true, 'set');
  same(text(await cache.get(name)), 'value', 'get');
  const keys = [];
  for (let n = 0; n < 100; n++) keys.push(`${name}${n}`);
  await Promise.all(keys.map((key, n) => cache.set(key, `${n}`, { expires: 60 })));
  const all = await Promise.all(keys.map((key) => cache.get(key)));
  same(all.map(text), keys.map((_, n) => `${n}`), 'many calls at once');
  same(await cache.add(name, 'x', { expires: 60 }), false, 'add of what is there');
  same(await cache.replace(name, '10', { expires: 60 }), true, 'replace');
  same(await cache.replace(`${name}-none`, '10', { expires: 60 }), false, 'replace of nothing');
  same(await cache.append(name, '0'), true, 'append');
  same(await cache.prepend(name, '1'), true, 'prepend');
  // (1.3.2 says append when asked for prepend.)
  same(await cache.set(name, '1100', { expires: 60 }), true, 'set');
  same((await cache.increment(name, 5, {})).value, 1105, 'increment');
  same((await cache.decrement(name, 105, {})).value, 1000, 'decrement');
  same((await cache.increment(`${name}-count`, 5, { initial: 7 })).value, 7, 'increment makes it');
  same(await cache.touch(name, 30), true, 'touch');
  same(await cache.delete(name), true, 'delete');
  same(await cache.delete(name), false, 'delete of nothing');
  same(text(await cache.get(name)), null, 'deleted');
  await new Promise((resolve, reject) => cache.stats((error, server, stats) =>
    (error || !stats.pid ? reject(error || new Error('no pid')) : resolve())));
  await cache.set(name, 'x', { expires: 60 });
  await new Promise((resolve, reject) => cache.flush((error) => (error ? reject(error) : resolve())));
  same(text(await cache.get(name)), null, 'flushed');
}

async function oneRound(n) {
  const key = `key${n % 50}`;
  same(await cache.set(key, `${n}`, { expires: 60 }), true, 'set');
  same(text(await cache.get(key)), `${n}`, 'get');
  same((await cache.increment(key, 1, {})).value, n + 1, 'increment');
  same(await cache.delete(key), true, 'delete');
}

run(life, oneRound).catch((error) => { console.error(error); process.exit(1); });
