/** Layers unpacked while their files grow: nothing of it depends on how they come, and a thread is not held for what does not come. */
import { createHash } from 'node:crypto';
import { closeSync, existsSync, openSync, readdirSync, readFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import test, { type ExecutionContext } from 'ava';
import { Failure } from 'troupe/plugin';
import { eventually } from '../../../test/helpers/eventually.ts';
import { archive, entry } from '../tar/craft.ts';
import { LayerPool, type PoolOptions } from './pool.ts';
import { scratch } from './scratch.ts';

const sha256 = (bytes: Uint8Array): string => `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
const patient = 60_000;
const never = new AbortController().signal;

/** Bytes that no compressor makes small, so that a part of the blob is a part of the layer. */
const noise = (seed: number): Buffer => {
  const bytes = Buffer.alloc(1 << 20);
  for (let at = 0, state = seed; at < bytes.length; at += 4) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    bytes.writeUInt32LE(state, at);
  }
  return bytes;
};
const files = 6;
const plain = archive(...Array.from({ length: files }, (_, i) => entry({ name: `f${i}`, body: noise(i + 1) })));

function setUp(t: ExecutionContext, options: Partial<PoolOptions> = {}) {
  const s = scratch(t);
  const pool = new LayerPool({ threads: 2, queue: 4, ...options });
  t.teardown(() => pool.close());
  let count = 0;
  /** A blob of which nothing is there yet. */
  const coming = (bytes: Buffer) => {
    const blob = join(s.path, `blob${count}`);
    const root = s.directory(`root${count++}`);
    const fd = openSync(blob, 'w');
    t.teardown(() => closeSync(fd));
    let at = 0;
    const task = {
      subject: `layer ${count}`,
      blob,
      digest: sha256(bytes),
      size: bytes.length,
      mounts: [{ type: 'bind', source: root, options: ['rw', 'rbind'] }],
      scratch: s.directory('scratch'),
      sync: false,
    };
    return {
      task,
      root,
      come(length: number): void {
        at += writeSync(fd, bytes, at, Math.min(Math.ceil(length), bytes.length - at), at);
      },
    };
  };
  return { pool, coming };
}

const compressed = { gzip: gzipSync(plain), zstd: zstdCompressSync(plain), plain };
for (const inflate of ['auto', 'zlib'] as const) {
  for (const [name, bytes] of Object.entries(compressed)) {
    test(`${name} by ${inflate}: a layer is unpacked as far as it has come, and is the same in the end`, async (t) => {
      const { pool, coming } = setUp(t, { inflate });
      const { task, root, come } = coming(bytes);
      come(1);
      const work = pool.follow(task, patient, never);
      come(bytes.length / 2);
      await eventually(t, 'a file of the first half', () => existsSync(join(root, 'f1')));
      t.false(existsSync(join(root, 'f5')));
      come(bytes.length);
      const { diffId, size } = await work;
      t.deepEqual([diffId, size], [sha256(plain), plain.length]);
      t.is(readdirSync(root).length, files);
      for (let i = 0; i < files; i++) t.true(readFileSync(join(root, `f${i}`)).equals(noise(i + 1)));
    });
  }
}

test('what does not come is given up', async (t) => {
  const { pool, coming } = setUp(t);
  const { task, come } = coming(compressed.gzip);
  come(1000);
  const why = await t.throwsAsync(pool.follow(task, 50, never), { instanceOf: Failure });
  t.is(why?.message, `layer 1: cannot be unpacked while it comes: no byte has come for 50 ms: aborted`);
});

test('its thread goes to what is complete as soon as it waits for bytes', async (t) => {
  const { pool, coming } = setUp(t, { threads: 1 });
  const [follower, whole] = [coming(compressed.gzip), coming(compressed.gzip)];
  follower.come(compressed.gzip.length / 2);
  whole.come(compressed.gzip.length);
  const following = pool.follow(follower.task, patient, never);
  following.catch(() => {});
  await eventually(t, 'a file of the first half', () => existsSync(join(follower.root, 'f1')));
  const { diffId } = await pool.apply(whole.task, never);
  t.is(diffId, sha256(plain));
  const why = await t.throwsAsync(following, { instanceOf: Failure });
  t.is((why as Failure).code, 'Aborted');
  t.regex(why!.message, /what is complete needs the thread/);
});

test('one thread is left for what is complete, and a busy pool follows nothing', async (t) => {
  const { pool, coming } = setUp(t, { threads: 2 });
  const [first, second] = [coming(compressed.gzip), coming(compressed.gzip)];
  const stop = new AbortController();
  const following = pool.follow(first.task, patient, stop.signal);
  const why = await t.throwsAsync(pool.follow(second.task, patient, never), { instanceOf: Failure });
  t.regex(why!.message, /no thread is free/);
  second.come(compressed.gzip.length);
  t.is((await pool.apply(second.task, never)).diffId, sha256(plain));
  stop.abort(new Failure('Canceled', 'enough: context canceled'));
  t.is((await t.throwsAsync(following, { instanceOf: Failure }))?.message, 'enough: context canceled');
});

test('a follower whose blob turns out to be another is told so: InvalidArgument or another diff id, never silence', async (t) => {
  const { pool, coming } = setUp(t);
  const bytes = Buffer.from(compressed.gzip);
  bytes[bytes.length - 5000]! ^= 0xff;
  const { task, come } = coming(bytes);
  come(bytes.length);
  const outcome = await pool.follow({ ...task, digest: sha256(compressed.gzip) }, patient, never).then(
    ({ diffId }) => diffId,
    (error) => error,
  );
  t.not(outcome, sha256(plain));
  if (typeof outcome !== 'string') t.true(Failure.is(outcome, 'InvalidArgument'), String(outcome));
});
