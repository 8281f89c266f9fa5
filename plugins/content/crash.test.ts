/** kill -9 (at some points of each day; at every one in `npm run faults`) and failure at every named point of content, images and containers: nothing acknowledged is lost, nothing half is left. */
import { execFile } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { sample } from '../../test/faults/sample.ts';
import { sha256 } from '../../test/suites/content.ts';

const program = join(import.meta.dirname, '../../test/suites/content-crash.ts');
const points = ['content', 'images', 'containers'].flatMap((noun) => {
  const folder = join(import.meta.dirname, '..', noun);
  return readdirSync(folder)
    .filter((name) => name.endsWith('.ts') && !name.endsWith('.test.ts'))
    .flatMap((name) =>
      [...readFileSync(join(folder, name), 'utf8').matchAll(/failpoint\('([^']+)'\)/g)].map((match) => match[1]!),
    );
});

interface Found {
  blobs: { [key: string]: object };
  ingests: { [ref: string]: number };
  images: { [name: string]: object };
  containers: { [id: string]: object };
}

function useDirectory(t: ExecutionContext): string {
  const memory = statSync('/dev/shm', { throwIfNoEntry: false })?.isDirectory() ? '/dev/shm' : tmpdir();
  const dir = mkdtempSync(join(memory, 'troupe-crash-'));
  t.teardown(() => rmSync(dir, { recursive: true, force: true }));
  return dir;
}

let running = 0;
const waiting: (() => void)[] = [];

/** As many at a time as this machine has any use for. */
async function run(...parameters: Parameters<typeof start>): ReturnType<typeof start> {
  if (running >= 2) await new Promise<void>((resolve) => waiting.push(resolve));
  else running += 1;
  try {
    return await start(...parameters);
  } finally {
    const next = waiting.shift();
    if (next === undefined) running -= 1;
    else next();
  }
}

function start(
  mode: string,
  dir: string,
  failpoints = '',
): Promise<{ lines: string[]; signal: string | undefined; code: number; errors: string }> {
  return new Promise((resolve) => {
    const env = { ...process.env, ...(failpoints && { TROUPE_FAILPOINTS: failpoints }) };
    const child = execFile(process.execPath, [program, mode, dir], { env }, (error, stdout, stderr) => {
      resolve({
        lines: stdout.split('\n').filter((line) => line !== ''),
        signal: child.signalCode ?? undefined,
        code: error === null ? 0 : (child.exitCode ?? -1),
        errors: stderr,
      });
    });
  });
}

/** What has to be there once a step was answered, and what must not. */
const promises: { readonly [step: string]: (t: ExecutionContext, found: Found) => void } = {
  partial: (t, { ingests }) => t.is(ingests.partial, 5),
  kept: (t, { blobs }) => t.like(blobs[`n ${sha256('kept')}`], { a: 'b' }),
  big: (t, { blobs }) => t.truthy(blobs[`n ${sha256(Buffer.alloc(300_000, 'big'))}`]),
  shared: (t, { blobs }) => t.truthy(blobs[`m ${sha256('kept')}`]),
  labelled: (t, { blobs }) => t.like(blobs[`n ${sha256('kept')}`], { c: 'd' }),
  aborted: (t, { ingests }) => t.is(ingests.aborted, undefined),
  deleted: (t, { blobs }) => t.is(blobs[`n ${sha256('deleted')}`], undefined),
  image: (t, { images }) => t.truthy(images.i),
  'image updated': (t, { images }) => t.like(images.i, { a: 'b' }),
  'image deleted': (t, { images }) => t.is(images.j, undefined),
  container: (t, { containers }) => t.truthy(containers.c),
  'container updated': (t, { containers }) => t.like(containers.c, { a: 'b' }),
  'container deleted': (t, { containers }) => t.is(containers.d, undefined),
};

/** What a program that was killed had answers to, and what the next one found, did, and left. */
async function resume(t: ExecutionContext, dir: string, answered: readonly string[], failpoints = ''): Promise<Found> {
  const { lines, code, errors } = await run('resume', dir, failpoints);
  t.is(code, 0, errors);
  const [before, ...steps] = lines.map((line) => JSON.parse(line));
  const after = steps.pop();
  t.deepEqual(steps, Object.keys(promises));
  for (const [report, names] of [
    [before, answered],
    [after, steps],
  ] as [{ problems: string[]; found: Found }, string[]][]) {
    t.deepEqual(report.problems, []);
    for (const name of names) promises[name]!(t, report.found);
  }
  return before.found;
}

test('without a fault every step is answered and kept', async (t) => {
  const dir = useDirectory(t);
  const { lines, code, errors } = await run('work', dir);
  t.is(code, 0, errors);
  t.deepEqual(
    lines.map((line) => JSON.parse(line)),
    Object.keys(promises),
  );
  await resume(t, dir, Object.keys(promises));
});

const ofCommit = (point: string) => point.startsWith('content.commit.');
const named = [...new Set(points)];
for (const point of [
  ...named.filter(ofCommit),
  ...sample(
    named.filter((point) => !ofCommit(point)),
    6,
    'content',
  ),
]) {
  test(`killed at ${point}`, async (t) => {
    const dir = useDirectory(t);
    const { lines, signal, errors } = await run('work', dir, `${point}=kill`);
    t.is(signal, 'SIGKILL', `the point was not reached: ${errors}`);
    const found = await resume(
      t,
      dir,
      lines.map((line) => JSON.parse(line)),
    );
    // At every moment of a commit there is the ingest or the blob.
    if (ofCommit(point)) t.is(found.ingests.kept === 4, found.blobs[`n ${sha256('kept')}`] === undefined);
  });
}

test('failed once at every point, and asked again', async (t) => {
  // A failed fsync ends writing; it has a test of its own.
  const failing = [...new Set(points)].filter((point) => point !== 'content.commit.before-fsync');
  await resume(t, useDirectory(t), [], failing.map((point) => `${point}=1*error(injected)`).join(';'));
});

test('a failed fsync ends writing until the next start, and its data is not trusted', async (t) => {
  const dir = useDirectory(t);
  const { code, errors } = await run('resume', dir, 'content.commit.before-fsync=1*error(EIO)');
  t.not(code, 0);
  t.regex(errors, /content is read-only since an fsync failed/);
  await resume(t, dir, ['partial']);
});
