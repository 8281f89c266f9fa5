import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { digestOf } from '../lib/digest/digest.ts';
import { Disk } from './disk.ts';
import { Ingest, readStatus, repairIngest } from './ingest.ts';

function useDisk(t: ExecutionContext): Disk {
  const root = mkdtempSync(join(tmpdir(), 'troupe-disk-'));
  const disk = new Disk(join(root, 'content'));
  disk.prepare();
  t.teardown(() => {
    disk.close();
    rmSync(root, { recursive: true, force: true });
  });
  return disk;
}

const options = { ref: 'n/r', total: 5n, algorithm: 'sha256' as const, signal: new AbortController().signal };
const files = (disk: Disk) =>
  readdirSync(disk.root, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());

test('the tree is containerd’s, whatever the ref is', (t) => {
  const disk = useDisk(t);
  const directory = disk.ingestDirectory('n', '../../x');
  t.regex(directory, /^[0-9a-f]{64}$/);
  t.not(disk.ingestDirectory('a', 'b/c'), disk.ingestDirectory('a/b', 'c/'));
  Ingest.create(disk, directory, { ...options, ref: 'n/../../x' }).close();
  t.deepEqual(readdirSync(disk.ingestPath(directory)).sort(), ['data', 'ref', 'startedat', 'total', 'updatedat']);
  t.is(readFileSync(disk.ingestPath(directory, 'ref'), 'utf8'), 'n/../../x');
  t.is(readFileSync(disk.ingestPath(directory, 'total'), 'utf8'), '5');
  t.is(disk.blobPath(digestOf('x')), join(disk.root, 'blobs', 'sha256', digestOf('x').slice(7)));
  t.is(statSync(disk.root).mode & 0o777, 0o700);
});

test('a blob appears whole, with mode 0444, and its ingest keeps its bytes until it is removed', async (t) => {
  const disk = useDisk(t);
  const ingest = Ingest.create(disk, 'i', options);
  await ingest.append(Buffer.from('hello'));
  t.is(ingest.digest, digestOf('hello'));
  await ingest.sync();
  await disk.placeBlob(ingest.dataPath, ingest.digest);
  const path = disk.blobPath(ingest.digest);
  t.is(readFileSync(path, 'utf8'), 'hello');
  t.is(statSync(path).mode & 0o7777, 0o444);
  t.is(statSync(ingest.dataPath).ino, statSync(path).ino);
  disk.unplaceBlob(ingest.digest, ingest.dataPath);
  t.false(existsSync(path));
  t.is(statSync(ingest.dataPath).mode & 0o777, 0o644, 'taken back, it can be written to again');
  ingest.close();
});

test('what may be a blob is not written to by whoever goes on with its ingest', async (t) => {
  const disk = useDisk(t);
  const first = Ingest.create(disk, 'i', options);
  await first.append(Buffer.from('hello'));
  await first.sync();
  await disk.placeBlob(first.dataPath, first.digest);
  first.close();
  // Died before the record; or the record is on its way still.
  t.false(repairIngest(disk, 'i', 'n/r'));
  const second = (await Ingest.resume(disk, 'i', options))!;
  t.is(second.offset, 5n);
  await second.truncate();
  await second.append(Buffer.from('HELLO, world'));
  t.is(readFileSync(disk.blobPath(first.digest), 'utf8'), 'hello');
  t.deepEqual([second.digest, readFileSync(second.dataPath, 'utf8')], [digestOf('HELLO, world'), 'HELLO, world']);
  second.close();
  disk.removeIngest('i');
  t.deepEqual(readdirSync(disk.ingestPath('.')), []);
});

test('blobs placed at the same time share the fsync of their directory', async (t) => {
  const disk = useDisk(t);
  const ingests = await Promise.all(
    Array.from({ length: 50 }, async (_, i) => {
      const ingest = Ingest.create(disk, `i${i}`, options);
      await ingest.append(Buffer.from(`blob ${i}`));
      await ingest.sync();
      return ingest;
    }),
  );
  await Promise.all(ingests.map((ingest) => disk.placeBlob(ingest.dataPath, ingest.digest)));
  t.is(readdirSync(join(disk.root, 'blobs', 'sha256')).length, 50);
  for (const ingest of ingests) ingest.close();
});

test('an ingest goes on where its data ends, with the times it had', async (t) => {
  const disk = useDisk(t);
  const first = Ingest.create(disk, 'i', options);
  await first.append(Buffer.from('hel'));
  first.close();
  const second = await Ingest.resume(disk, 'i', { ...options, total: 0n });
  t.like(second, { offset: 3n, total: 5n, startedAt: first.startedAt, updatedAt: first.updatedAt });
  t.is(second?.digest, digestOf('hel'));
  await second?.append(Buffer.from('lo'));
  t.is(second?.digest, digestOf('hello'));
  second?.close();
  t.is(await Ingest.resume(disk, 'i', { ...options, total: 6n }), undefined, 'another total');
  t.is(await Ingest.resume(disk, 'none', options), undefined);
});

test('damaged side files cost only what they said', async (t) => {
  const disk = useDisk(t);
  const ingest = Ingest.create(disk, 'i', options);
  await ingest.append(Buffer.from('hel'));
  ingest.close();
  for (const name of ['total', 'startedat', 'updatedat']) writeFileSync(disk.ingestPath('i', name), '\0garbage');
  t.like(readStatus(disk, 'i'), { offset: 3n, total: 0n });
  for (const name of ['total', 'startedat', 'updatedat', 'ref']) rmSync(disk.ingestPath('i', name));
  t.like(readStatus(disk, 'i'), { offset: 3n, total: 0n });
  rmSync(disk.ingestPath('i', 'data'));
  t.is(readStatus(disk, 'i'), undefined);
  symlinkSync('/etc/passwd', disk.ingestPath('i', 'data'));
  t.is(readStatus(disk, 'i'), undefined, 'a link is not followed');
  rmSync(disk.ingestPath('i', 'data'));
  mkdirSync(disk.ingestPath('i', 'data'));
  t.is(readStatus(disk, 'i'), undefined);
});

test('what is not a blob is not served as one', (t) => {
  const disk = useDisk(t);
  const digest = digestOf('hello');
  const path = disk.blobPath(digest);
  mkdirSync(join(disk.root, 'blobs', 'sha256'));
  t.false(disk.hasBlob(digest, 5n), 'missing');
  writeFileSync(path, 'hell');
  t.false(disk.hasBlob(digest, 5n), 'truncated');
  writeFileSync(path, 'hello');
  t.true(disk.hasBlob(digest, 5n));
  chmodSync(path, 0);
  rmSync(path);
  symlinkSync('/etc/hostname', path);
  t.false(disk.hasBlob(digest, BigInt(statSync('/etc/hostname').size)), 'a link');
  rmSync(path);
  mkdirSync(path);
  t.false(disk.hasBlob(digest, 5n), 'a directory');
});

test('a blob takes the place of whatever has its name', async (t) => {
  const disk = useDisk(t);
  const digest = digestOf('hello');
  mkdirSync(join(disk.blobPath(digest), 'in the way'), { recursive: true });
  const ingest = Ingest.create(disk, 'i', options);
  await ingest.append(Buffer.from('hello'));
  await ingest.sync();
  await disk.placeBlob(ingest.dataPath, digest);
  t.true(disk.hasBlob(digest, 5n));
  ingest.close();
  disk.removeIngest('i');
  t.deepEqual(
    files(disk).map(({ name }) => name),
    [digest.slice(7)],
  );
});
