// As python/ordinary.py. usage: SCRIPT PORT SECONDS
const assert = require('assert');

exports.port = Number(process.argv[2]);
const seconds = Number(process.argv[3]);

exports.same = (got, wanted, what) => assert.deepStrictEqual(got, wanted, `${what}: ${got} instead of ${wanted}`);

exports.run = async (life, oneRound) => {
  await life('first');
  console.log('looping');
  let rounds = 0, errors = 0, wrong = 0, first = '';
  const end = Date.now() + seconds * 1000;
  while (Date.now() < end) {
    rounds++;
    try {
      await oneRound(rounds);
    } catch (error) {
      if (error instanceof assert.AssertionError) wrong++; else errors++;
      first = first || `round ${rounds}: ${error.message.split('\n')[0]}`;
    }
  }
  await life('last');
  console.log(`rounds=${rounds} errors=${errors} wrong=${wrong} first=${first}`);
  process.exit(0);
};
