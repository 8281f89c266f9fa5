import { createHash, randomBytes } from 'node:crypto';
import { Worker } from 'node:worker_threads';
import { SHA256_STATE, SharedSha256, sharedSha256Available } from './sha256.ts';
import { unlessLacking } from '../../../test/helpers/privilege.ts';

const here = unlessLacking(() => (sharedSha256Available() ? undefined : 'a Node that brings OpenSSL'));

const setUp = (length: number) => {
  const buffer = new SharedArrayBuffer(SHA256_STATE + length);
  const bytes = Buffer.from(buffer as unknown as ArrayBuffer, SHA256_STATE);
  randomBytes(length).copy(bytes);
  return { buffer, bytes, expected: createHash('sha256').update(bytes).digest('hex') };
};

here('pieces of every length around a block give what node:crypto gives', (t) => {
  const { buffer, expected } = setUp(20_000);
  for (const piece of [1, 55, 56, 63, 64, 65, 127, 128, 129, 20_000]) {
    const hash = new SharedSha256(buffer, 0);
    hash.reset();
    for (let at = 0; at < 20_000; at += piece) hash.update(SHA256_STATE + at, Math.min(piece, 20_000 - at));
    t.is(hash.hex(), expected, `${piece}`);
  }
  const empty = new SharedSha256(buffer, 0);
  empty.reset();
  t.is(empty.hex(), createHash('sha256').digest('hex'));
});

here('another thread goes on', async (t) => {
  const { buffer, expected } = setUp(100_001);
  const hash = new SharedSha256(buffer, 0);
  hash.reset();
  hash.update(SHA256_STATE, 33_333);
  const worker = new Worker(
    `const { workerData } = require('node:worker_threads');
     import('${new URL('./sha256.ts', import.meta.url).href}').then(({ SHA256_STATE, SharedSha256 }) => {
       new SharedSha256(workerData, 0).update(SHA256_STATE + 33_333, 33_333);
     });`,
    { eval: true, workerData: buffer },
  );
  t.is(await new Promise((resolve) => worker.once('exit', resolve)), 0);
  hash.update(SHA256_STATE + 66_666, 33_335);
  t.is(hash.hex(), expected);
});
