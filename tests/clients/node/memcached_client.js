// memcached, the text client of most Node programs.
const { port, same, run } = require('./ordinary');
const Memcached = require('memcached');

const cache = new Memcached(`127.0.0.1:${port}`, { timeout: 20000, retries: 0 });
const call = (name, ...words) => new Promise((resolve, reject) =>
  cache[name](...words, (error, result) => (error ? reject(error) : resolve(result))));

async function life(name) {
  same(await call('set', name, 'value', 60), true, 'set');
  same(await call('get', name), 'value', 'get');
  const keys = [];
  for (let n = 0; n < 100; n++) keys.push(`${name}${n}`);
  await Promise.all(keys.map((key, n) => call('set', key, n, 60)));
  same(Object.keys(await call('getMulti', keys.concat('nothing'))).length, 100, 'getMulti');
  const token = (await call('gets', name)).cas;
  same(await call('cas', name, 'newer', token, 60), true, 'cas');
  same(await call('cas', name, 'newest', token, 60), false, 'a used cas');
  await call('add', name, 'x', 60).then(() => same(true, false, 'add of what is there'), () => {});
  same(await call('replace', name, '10', 60), true, 'replace');
  same(await call('append', name, '0'), true, 'append');
  same(await call('prepend', name, '1'), true, 'prepend');
  same(await call('set', name, 1100, 60), true, 'set a number');
  same(await call('incr', name, 5), 1105, 'incr');
  same(await call('decr', name, 105), 1000, 'decr');
  same(await call('incr', `${name}-none`, 1), false, 'incr of nothing');
  same(await call('touch', name, 30), true, 'touch');
  same(await call('del', name), true, 'del');
  same(await call('get', name), undefined, 'deleted');
  for (const what of ['stats', 'version', 'items', 'slabs', 'settings']) await call(what);
  await call('set', name, 'x', 60);
  await call('flush');
  same(await call('get', name), undefined, 'flushed');
}

async function oneRound(n) {
  const key = `key${n % 50}`;
  same(await call('set', key, n, 60), true, 'set');
  same(await call('get', key), n, 'get');
  same(await call('incr', key, 1), n + 1, 'incr');
  same(await call('getMulti', [key, 'nothing']), { [key]: n + 1 }, 'getMulti');
}

run(life, oneRound).catch((error) => { console.error(error); process.exit(1); });
