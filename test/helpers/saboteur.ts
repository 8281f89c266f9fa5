/**
 * Loaded into every thread of a daemon by `--import` (sabotage.ts): does to its thread what a test orders. The daemon's code knows nothing of it, so that what is
 * tested is what runs. An order is a file with the thread's name; it is gone before it is carried out, so that the thread's successor is left alone.
 */
import { pbkdf2Sync } from 'node:crypto';
import { openSync, readFileSync, unlinkSync } from 'node:fs';
import { join } from 'node:path';
import { isMainThread, threadName } from 'node:worker_threads';
import type { Deed } from './sabotage.ts';

const dir = process.env.TROUPE_TEST_SABOTAGE;
const name = isMainThread ? 'main' : threadName;

const deeds: Readonly<Record<Deed, () => void>> = {
  throw: () => {
    throw new Error('thrown by order');
  },
  reject: () => void Promise.reject(new Error('rejected by order')),
  spin: () => {
    for (;;);
  },
  wait: () => void Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0),
  pause: () => void Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1000),
  compute: () => void pbkdf2Sync('password', 'salt', 2 ** 31 - 1, 64, 'sha512'),
  fifo: () => void openSync(join(dir!, 'fifo'), 'r'),
};

// Threads of pools have no name of their own, and nobody orders anything of them.
if (dir !== undefined && name !== '') {
  const path = join(dir, `${name}.order`);
  setInterval(() => {
    let deed: string;
    try {
      deed = readFileSync(path, 'utf8');
      unlinkSync(path);
    } catch {
      return;
    }
    deeds[deed as Deed]();
  }, 25).unref();
}
