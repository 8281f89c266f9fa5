/** The decoder from hand to hand between two threads: the same bytes, whenever it changes, and nobody waits for ever. */

import { createHash } from 'node:crypto';
import { closeSync, openSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import type { ExecutionContext } from 'ava';
import { hasDecoder } from '../compression/decoder.ts';
import { Feed } from './feed.ts';
import { CHUNKS_HASHED, CHUNKS_MADE, CHUNKS_TAKEN, FeedMemory, HASHING, PIECES_READ } from './feed-memory.ts';
import { scratch } from './scratch.ts';
import { unlessLacking } from '../../../test/helpers/privilege.ts';

const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

/** Bytes that compress to about a third. */
const plain = Buffer.alloc(24 << 20);
for (let at = 0, state = 1; at < plain.length; at += 4) {
  state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
  plain.writeUInt32LE((state >>> 16) & 0x3f3f3f, at);
}
const packed = { gzip: gzipSync(plain, { level: 1 }), zstd: zstdCompressSync(plain) };

interface Assistant {
  readonly ended: Promise<number>;
  end(): Promise<number>;
}

/** A thread that offers itself; resolves when the offer is made. */
async function assistant(t: ExecutionContext, memory: FeedMemory): Promise<Assistant> {
  const [assist, feedMemory] = ['./assist.ts', './feed-memory.ts'].map((file) => new URL(file, import.meta.url).href);
  const worker = new Worker(
    `const { workerData } = require('node:worker_threads');
     Promise.all([import('${assist}'), import('${feedMemory}')]).then(([{ assistFeed }, { FeedMemory }]) => {
       assistFeed(new FeedMemory(workerData));
     });`,
    { eval: true, workerData: memory.buffers },
  );
  t.teardown(() => worker.terminate());
  const ended = new Promise<number>((resolve) => worker.once('exit', resolve));
  while (memory.is('alone')) await new Promise((resolve) => setTimeout(resolve, 1));
  return { ended, end: () => worker.terminate() };
}

function setUp(t: ExecutionContext, format: 'gzip' | 'zstd', bytes: Buffer = packed[format]) {
  const path = join(scratch(t).path, 'blob');
  writeFileSync(path, bytes);
  const fd = openSync(path, 'r');
  t.teardown(() => closeSync(fd));
  const memory = new FeedMemory();
  const hash = createHash('sha256');
  const feed = new Feed(memory, format, fd, hash);
  return { memory, hash, feed, bytes };
}

for (const format of ['gzip', 'zstd'] as const) {
  const here = unlessLacking(() => (hasDecoder(format, 'auto') ? undefined : 'ISA-L (Debian: libisal2)'));

  here(`${format}: an assistant from the beginning to the end`, async (t) => {
    const { memory, hash, feed, bytes } = setUp(t, format);
    const { ended } = await assistant(t, memory);
    const made = createHash('sha256');
    for (const chunk of feed.chunks()) {
      made.update(chunk);
      feed.digest.update(chunk);
    }
    t.is(feed.digest.hex(), sha256(plain));
    feed.close();
    t.true(memory.get(CHUNKS_MADE) > 20);
    t.true(memory.get(PIECES_READ) > 8);
    t.is(made.digest('hex'), sha256(plain));
    t.is(hash.digest('hex'), sha256(bytes));
    t.is(feed.size, bytes.length);
    t.is(await ended, 0);
  });

  here(`${format}: an assistant whose ring is full hashes what is in it`, async (t) => {
    const { memory, feed } = setUp(t, format);
    await assistant(t, memory);
    let helped = 0;
    for (const chunk of feed.chunks()) {
      // Looked at from the assistant, an unpacker that writes small files waits as this one does.
      for (let hashed = 0; memory.is('handed'); memory.wait(CHUNKS_HASHED, hashed)) {
        hashed = memory.get(CHUNKS_HASHED);
        if (hashed <= memory.get(CHUNKS_TAKEN)) continue;
        helped++;
        break;
      }
      feed.digest.update(chunk);
    }
    t.true(helped > 20);
    t.is(feed.digest.hex(), sha256(plain));
    feed.close();
  });

  here(`${format}: assistants come and go`, async (t) => {
    const { memory, hash, feed, bytes } = setUp(t, format);
    const made = createHash('sha256');
    let chunks = 0;
    let assistants = 0;
    const iterator = feed.chunks();
    for (let next = iterator.next(); next.done !== true; next = iterator.next()) {
      made.update(next.value);
      feed.digest.update(next.value);
      if (chunks % 5 === 0 && memory.is('alone') && assistants < 4) {
        await assistant(t, memory);
        assistants++;
      } else if (chunks % 5 === 3 && memory.is('handed')) memory.release();
      chunks++;
    }
    t.is(feed.digest.hex(), sha256(plain));
    feed.close();
    t.true(assistants > 1);
    t.is(made.digest('hex'), sha256(plain));
    t.is(hash.digest('hex'), sha256(bytes));
  });

  here(`${format}: what the assistant finds wrong is said as if it had been found alone`, async (t) => {
    for (const bytes of [
      packed[format].subarray(0, -20_000),
      Buffer.concat([packed[format], Buffer.from('garbage')]),
    ]) {
      const failures = [];
      for (const assisted of [false, true]) {
        const { memory, feed } = setUp(t, format, bytes);
        if (assisted) await assistant(t, memory);
        const made = createHash('sha256');
        const failure = t.throws(() => {
          for (const chunk of feed.chunks()) made.update(chunk);
        });
        feed.close();
        if (assisted) t.true(memory.get(CHUNKS_MADE) > 0);
        failures.push(failure?.message);
      }
      t.is(failures[0], failures[1]);
    }
  });

  here(`${format}: an unpacker that stops in the middle gets the decoder back`, async (t) => {
    const { memory, feed } = setUp(t, format);
    const { ended } = await assistant(t, memory);
    for (const _ of feed.chunks()) if (memory.get(CHUNKS_MADE) > 2) break;
    feed.close();
    t.true(memory.is('returned'));
    t.is(await ended, 0);
  });

  here(`${format}: an assistant whose thread ends fails the layer, not its thread`, async (t) => {
    const { memory, feed } = setUp(t, format);
    const { end } = await assistant(t, memory);
    const iterator = feed.chunks();
    let chunk: Buffer = Buffer.alloc(0);
    while (!memory.is('handed')) chunk = iterator.next().value ?? chunk;
    // Its ring is full soon, and it waits.
    await end();
    // Or it was at the digest.
    memory.enter(HASHING);
    memory.lost();
    feed.digest.update(chunk);
    const failure = t.throws(() => {
      while (iterator.next().done !== true);
    });
    t.regex(failure!.message, /thread that inflated the layer has ended: unavailable$/);
    feed.close();
    memory.lost();
    t.true(memory.is('closed'));
  });

  here(`${format}: an offer that nobody takes up is withdrawn, or ends with the layer`, async (t) => {
    const { memory, feed } = setUp(t, format);
    const first = await assistant(t, memory);
    memory.release();
    t.is(await first.ended, 0);
    t.true(memory.is('alone'));
    const second = await assistant(t, memory);
    feed.close();
    t.is(await second.ended, 0);
  });
}
