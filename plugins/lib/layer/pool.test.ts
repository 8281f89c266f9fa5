import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { gzipSync } from 'node:zlib';
import test, { type ExecutionContext } from 'ava';
import { Failure } from 'troupe/plugin';
import { mount, unmountAll } from 'troupe/sys';
import { needing, rootTest } from '../../../test/helpers/privilege.ts';
import { archive, entry } from '../tar/craft.ts';
import { inventory } from './inventory.ts';
import { LayerPool } from './pool.ts';
import { type Scratch, scratch } from './scratch.ts';
import { WRITE_AHEAD_ENTRIES } from './sink.ts';

function setUp(t: ExecutionContext, options = { threads: 1, queue: 4 }) {
  const s = scratch(t);
  const pool = new LayerPool(options);
  t.teardown(() => pool.close());
  const task = (bytes: Buffer, root: string) => {
    const digest = `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
    const blob = join(s.path, digest);
    writeFileSync(blob, bytes);
    return {
      subject: `layer ${digest}`,
      blob,
      digest,
      size: bytes.length,
      mounts: [{ type: 'bind', source: root, options: ['rw', 'rbind'] }],
      scratch: s.directory('scratch'),
      sync: true,
    };
  };
  return { s, pool, task };
}

const never = new AbortController().signal;
const slow = (count: number): Buffer =>
  gzipSync(
    archive(...Array.from({ length: count }, (_, i) => entry({ name: `f${i}`, body: Buffer.alloc(1 << 20, i) }))),
    {
      level: 1,
    },
  );

function overlay(s: Scratch, upper: string, lower: string): string {
  const target = s.directory('merged');
  mount('overlay', target, 'overlay', 0, `lowerdir=${lower},upperdir=${upper},workdir=${s.directory('work')}`);
  return target;
}

rootTest('a layer that is unpacked before those below it, and completed', async (t) => {
  const { s, pool, task } = setUp(t, { threads: 2, queue: 4 });
  const [lower, upper] = [s.directory('lower'), s.directory('upper')];
  const below = archive(
    entry({ name: 'etc', type: '5', mode: 0o700, uid: 7 }),
    entry({ name: 'etc/gone' }),
    entry({ name: 'lib', type: '2', link: 'usr/lib' }),
  );
  const above = archive(entry({ name: 'etc/hosts', body: 'x' }), entry({ name: 'etc/.wh.gone' }));
  const [applied] = await Promise.all([
    pool.apply({ ...task(above, upper), detached: true }, never),
    pool.apply({ ...task(below, lower), detached: true }, never),
  ]);
  t.deepEqual(applied.deferred.implied, [{ path: 'etc', listed: false }]);
  t.true(await pool.complete({ upper, lower: [lower], deferred: applied.deferred, sync: true }, never));
  t.deepEqual(
    inventory(overlay(s, upper, lower)).map((line) => line.split(' ').slice(0, 4).join(' ')),
    ['"etc" directory 700 7:0', '"etc/hosts" file 644 0:0', '"lib" symlink 777 0:0'],
  );
  const through = await pool.apply(
    { ...task(archive(entry({ name: 'lib/x' })), s.directory('other')), detached: true },
    never,
  );
  t.false(
    await pool.complete(
      { upper: join(s.path, 'other'), lower: [lower], deferred: through.deferred, sync: false },
      never,
    ),
  );
});

needing('loop')('files that are many are on their way to the disk before anybody asks for a sync', async (t) => {
  const { s, pool, task } = setUp(t);
  const image = join(s.path, 'image');
  execFileSync('truncate', ['-s', '64M', image]);
  execFileSync('mkfs.ext4', ['-q', '-F', '-N', '65536', image]);
  const at = s.directory('disk');
  // Nothing else is to write its journal.
  execFileSync('mount', ['-o', 'loop,commit=3600', image, at]);
  t.teardown(() => unmountAll(at));
  const device = basename(execFileSync('findmnt', ['-no', 'SOURCE', at], { encoding: 'utf8' }).trim());
  const transactions = (): number =>
    Number(/^(\d+) transactions/.exec(readFileSync(`/proc/fs/jbd2/${device}-8/info`, 'utf8'))![1]);
  const few = Array.from({ length: 100 }, (_, i) => entry({ name: `few${i}` }));
  const before = transactions();
  await pool.apply({ ...task(archive(...few), at), sync: false }, never);
  t.is(transactions(), before);
  const many = Array.from({ length: 2 * WRITE_AHEAD_ENTRIES }, (_, i) => entry({ name: `many${i}` }));
  await pool.apply({ ...task(archive(...many), at), sync: false }, never);
  await pool.close();
  t.true(transactions() > before);
});

test('a task that waits is cancelled without having begun; one that runs, soon', async (t) => {
  const { s, pool, task } = setUp(t);
  const first = new AbortController();
  const second = new AbortController();
  const running = pool.apply(task(slow(200), s.root), first.signal);
  const waiting = pool.apply(task(archive(entry({ name: 'never' })), s.directory('other')), second.signal);
  second.abort(new Failure('DeadlineExceeded', 'context deadline exceeded'));
  first.abort(new Failure('Canceled', 'context canceled'));
  const failures = (await Promise.allSettled([running, waiting])).map(
    (each) => (each as PromiseRejectedResult).reason as Failure,
  );
  t.deepEqual(
    failures.map(({ code }) => code),
    ['Canceled', 'DeadlineExceeded'],
  );
  t.deepEqual(readdirSync(join(s.path, 'other')), []);
  t.true(readdirSync(s.root).length < 200);
});

test('more tasks than may wait are refused, and those that wait go on', async (t) => {
  const { s, pool, task } = setUp(t, { threads: 1, queue: 2 });
  const bytes = archive(entry({ name: 'a' }));
  const tasks = Array.from({ length: 8 }, (_, i) => pool.apply(task(bytes, s.directory(`r${i}`)), never));
  const outcomes = await Promise.allSettled(tasks);
  const refused = outcomes.flatMap((each) => (each.status === 'rejected' ? [each.reason as Failure] : []));
  t.true(refused.length > 0 && refused.length < 8);
  t.true(refused.every(({ code }) => code === 'ResourceExhausted'));
});

test('closing ends what runs and waits for it', async (t) => {
  const { s, pool, task } = setUp(t);
  const running = pool.apply(task(slow(200), s.root), never);
  const failed = t.throwsAsync(running, { instanceOf: Failure });
  await pool.close();
  await failed;
});

test('a diff that nobody reads ends', async (t) => {
  const { s, pool } = setUp(t);
  writeFileSync(join(s.root, 'large'), Buffer.alloc(64 << 20));
  const diff = (compression: 'none' | 'gzip') =>
    pool.diff(
      {
        subject: 'diff',
        left: [],
        right: [{ type: 'bind', source: s.root, options: ['ro'] }],
        compression,
        scratch: s.path,
      },
      never,
    );
  for (const compression of ['none', 'gzip'] as const) {
    const unread = diff('none');
    unread.close();
    await t.throwsAsync(unread.result, { instanceOf: Failure, message: /context canceled/ });
    const left = diff('none');
    for await (const _ of left.chunks) break;
    await t.throwsAsync(left.result, { instanceOf: Failure, message: /context canceled/ });
    const read = diff(compression);
    let size = 0;
    for await (const chunk of read.chunks) size += chunk.length;
    // A header with an extension, the content, the end.
    t.is((await read.result).size, (64 << 20) + 3 * 512 + 1024);
    t.true(compression === 'gzip' ? size < 1 << 20 : size > 64 << 20);
  }
});

test('a task that fails leaves the thread to the next', async (t) => {
  const { s, pool, task } = setUp(t);
  const broken = { ...task(archive(entry({ name: 'a' })), s.root), size: 0, blob: join(s.path, 'missing') };
  const failure = (await t.throwsAsync(pool.apply(broken, never), { instanceOf: Failure })) as Failure;
  t.is(failure.code, 'NotFound');
  await pool.apply(task(archive(entry({ name: 'b', body: 'fine' })), s.root), never);
  t.is(readFileSync(join(s.root, 'b'), 'utf8'), 'fine');
});
