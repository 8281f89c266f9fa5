/** What a crash or a power cut leaves of an ingest's data, and where it is gone on from. */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { digestOf } from '../lib/digest/digest.ts';
import { Disk } from './disk.ts';
import { Ingest, readStatus, repairIngest } from './ingest.ts';
import { Marks } from './marks.ts';
import { needing } from '../../test/helpers/privilege.ts';

const window = 256 << 10;
const options = { ref: 'n/r', total: 0n, algorithm: 'sha256' as const, signal: new AbortController().signal };
const pieces = [1, 100, window, 3 * window - 7, 5].map((size, index) => Buffer.alloc(size, `piece ${index}`));
const whole = Buffer.concat(pieces);
const ends = pieces.map((_, index) => pieces.slice(0, index + 1).reduce((sum, piece) => sum + piece.length, 0));

/** An ingest whose pieces were written and answered, one after the other, by a daemon that died then. */
async function useIngest(t: ExecutionContext): Promise<{ disk: Disk; data: string; marks: string }> {
  const root = mkdtempSync(join(tmpdir(), 'troupe-marks-'));
  const disk = new Disk(root);
  disk.prepare();
  const ingest = Ingest.create(disk, 'i', options);
  t.teardown(() => {
    ingest.close();
    disk.close();
    rmSync(root, { recursive: true, force: true });
  });
  for (const piece of pieces) await ingest.append(piece);
  return { disk, data: disk.ingestPath('i', 'data'), marks: disk.ingestPath('i', 'marks') };
}

/** Where a new daemon goes on. */
async function resumed(t: ExecutionContext, disk: Disk): Promise<number> {
  repairIngest(disk, 'i', 'n/r');
  const ingest = (await Ingest.resume(disk, 'i', options))!;
  const { offset, digest } = ingest;
  t.is(digest, digestOf(whole.subarray(0, Number(offset))), 'what is there was sent');
  // To its end, as the client sends it, and as the next daemon finds it.
  await ingest.append(whole.subarray(Number(offset)));
  t.is(ingest.digest, digestOf(whole));
  ingest.close();
  t.is(readStatus(disk, 'i')?.offset, BigInt(whole.length));
  const again = await Ingest.resume(disk, 'i', options);
  t.is(again?.digest, digestOf(whole));
  again?.close();
  return Number(offset);
}

function zero(path: string, at: number, length: number): void {
  const bytes = readFileSync(path);
  bytes.fill(0, at, at + length);
  writeFileSync(path, bytes);
}

test('nothing is lost: it goes on at its end', async (t) => {
  const { disk } = await useIngest(t);
  t.is(await resumed(t, disk), whole.length);
});

test('what was not answered is not gone on from, and not listed', async (t) => {
  const { disk, data } = await useIngest(t);
  writeFileSync(data, 'half a piece', { flag: 'a' });
  repairIngest(disk, 'i', 'n/r');
  t.is(readStatus(disk, 'i')?.offset, BigInt(whole.length));
  t.is(await resumed(t, disk), whole.length);
});

const losses: [what: string, damage: (paths: { data: string; marks: string }) => void, offset: number][] = [
  ['its last bytes are zeros', ({ data }) => zero(data, whole.length - 4096, 4096), ends[2]!],
  ['a page in its middle is zeros', ({ data }) => zero(data, window + 4096, 4096), ends[2]!],
  ['its first page is zeros', ({ data }) => zero(data, 0, 4096), 0],
  ['its end is missing', ({ data }) => truncateSync(data, 2 * window), ends[2]!],
  ['its length is all that is left', ({ data }) => zero(data, 0, whole.length), 0],
  ['it is empty', ({ data }) => truncateSync(data, 0), 0],
  ['its data file is gone', ({ data }) => rmSync(data), 0],
  ['the marks are gone', ({ marks }) => rmSync(marks), 0],
  ['the marks are cut in one', ({ marks }) => truncateSync(marks, 40), ends[2]!],
  ['the last mark is zeros', ({ marks }) => zero(marks, statSync(marks).size - 16, 16), ends[2]!],
  ['a mark is of another offset', ({ marks }) => zero(marks, 16, 6), ends[4]!],
  ['the marks are garbage', ({ marks }) => writeFileSync(marks, Buffer.alloc(64, 0xa5)), 0],
];

for (const [what, damage, offset] of losses)
  test(`it goes on where the bytes are those that were sent: ${what}`, async (t) => {
    const { disk, data, marks } = await useIngest(t);
    damage({ data, marks });
    t.is(await resumed(t, disk), offset);
  });

test('the other files of its directory may be empty', async (t) => {
  const { disk } = await useIngest(t);
  for (const name of ['ref', 'startedat']) truncateSync(disk.ingestPath('i', name), 0);
  t.is(await resumed(t, disk), whole.length);
  t.is(readFileSync(disk.ingestPath('i', 'ref'), 'utf8'), 'n/r');
});

test('its directory is gone: it begins anew', async (t) => {
  const { disk } = await useIngest(t);
  disk.removeIngest('i');
  t.true(repairIngest(disk, 'i', 'n/r'));
  t.like(readStatus(disk, 'i'), { offset: 0n });
});

test('marks of one algorithm are none of another', async (t) => {
  const { disk, marks } = await useIngest(t);
  const ingest = (await Ingest.resume(disk, 'i', { ...options, algorithm: 'sha512' }))!;
  t.is(ingest.offset, BigInt(whole.length));
  await ingest.rehash('sha512', options.signal);
  t.is(ingest.digest, digestOf(whole, 'sha512'));
  ingest.close();
  t.deepEqual(
    Marks.read(marks).map(({ offset, algorithm }) => [offset, algorithm]),
    [[whole.length, 'sha512']],
  );
  const again = await Ingest.resume(disk, 'i', options);
  t.is(again?.digest, digestOf(whole, 'sha512'));
  again?.close();
});

test('a copy of a blob is marked as a whole', async (t) => {
  const { disk } = await useIngest(t);
  const source = (await Ingest.resume(disk, 'i', options))!;
  await source.sync();
  await disk.placeBlob(source.dataPath, source.digest);
  source.close();
  const copy = await Ingest.copyOf(disk, 'j', source.digest, options);
  t.is(copy.offset, BigInt(whole.length));
  copy.close();
  const again = await Ingest.resume(disk, 'j', options);
  t.is(again?.digest, digestOf(whole));
  again?.close();
});

const straceTest = needing('program strace');

straceTest('a file system without hard links moves what becomes a blob', async (t) => {
  const { disk, data } = await useIngest(t);
  const program = `
    const { Disk } = await import(${JSON.stringify(join(import.meta.dirname, 'disk.ts'))});
    const disk = new Disk(${JSON.stringify(disk.root)});
    await disk.placeBlob(${JSON.stringify(data)}, ${JSON.stringify(digestOf(whole))});
    disk.close();`;
  const { status, stderr } = spawnSync(
    'strace',
    [
      ...['-f', '-qq', '-o', '/dev/null', '-e', 'trace=link,linkat', '-e', 'inject=link,linkat:error=EPERM'],
      ...[process.execPath, '--input-type=module', '--eval', program],
    ],
    { encoding: 'utf8' },
  );
  t.is(status, 0, stderr);
  t.false(existsSync(data));
  t.true(disk.hasBlob(digestOf(whole), BigInt(whole.length)));
  disk.unplaceBlob(digestOf(whole), data);
  t.false(disk.hasBlob(digestOf(whole), BigInt(whole.length)));
  t.is(await resumed(t, disk), whole.length);
});
