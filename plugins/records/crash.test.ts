import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import test, { type ExecutionContext } from 'ava';
import { sample } from '../../test/faults/sample.ts';
import { needing } from '../../test/helpers/privilege.ts';

const fixture = join(import.meta.dirname, '../../test/helpers/records-writer.ts');

function useDirectory(t: ExecutionContext) {
  const directory = mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : '/tmp', 'troupe-crash-'));
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  const path = join(directory, 'records.db');
  const oracle = join(directory, 'acknowledged');
  writeFileSync(oracle, '');
  return { directory, path, oracle, acknowledged: () => readFileSync(oracle, 'utf8').split('\n').filter(Boolean) };
}

function start(
  args: string[],
  failpoints = '',
): { child: ChildProcess; ended: Promise<{ code: number | null; signal: string | null; errors: string }> } {
  const child = spawn(process.execPath, [fixture, ...args], {
    env: { ...process.env, TROUPE_FAILPOINTS: failpoints },
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  let errors = '';
  child.stderr!.on('data', (chunk) => (errors += chunk));
  return { child, ended: once(child, 'close').then(([code, signal]) => ({ code, signal, errors })) };
}

/** Reads the file as another program would, and checks what every crash must leave. */
function check(t: ExecutionContext, path: string, acknowledged: string[]): void {
  const database = new DatabaseSync(path);
  try {
    t.deepEqual({ ...database.prepare('PRAGMA integrity_check').get() }, { integrity_check: 'ok' });
    const sets = (sql: string) =>
      new Set(
        database
          .prepare(sql)
          .all()
          .map((row) => Object.values(row)[0] as string),
      );
    const namespaces = sets('SELECT name FROM records_namespace');
    const kept = sets("SELECT ns FROM leases_lease WHERE id = 'kept'");
    const events = sets('SELECT ns FROM records_outbox');
    const lost = acknowledged.filter((name) => !namespaces.has(name));
    t.deepEqual(lost, [], 'acknowledged and gone');
    t.deepEqual([...kept].sort(), [...namespaces].sort(), 'half a commit');
    t.deepEqual([...events].sort(), [...namespaces].sort(), 'a commit without its event');
  } finally {
    database.close();
  }
}

const points: [name: string, count: number][] = [
  ['records.migrate.begin', 0],
  ['records.migrate.commit', 0],
  ['records.migrate.commit', 1],
  ['records.migrate.end', 0],
  ['records.commit.begin', 0],
  ['records.commit.begin', 40],
  ['records.commit.statements', 100],
  ['records.commit.fsync', 0],
  ['records.commit.fsync', 30],
  ['records.commit.answer', 0],
  ['records.commit.answer', 35],
  ['records.collect.mark', 0],
  ['records.collect.sweep', 0],
  ['records.collect.sweep', 2],
  ['records.checkpoint.begin', 0],
  ['records.checkpoint.end', 0],
];

// Some of each day in the suite, all in `npm run faults`.
for (const [point, count] of sample(points, 6, 'records'))
  test(`killed at ${point} after ${count}, nothing acknowledged is lost and nothing is half`, async (t) => {
    const { path, oracle, acknowledged } = useDirectory(t);
    const fault = `${point}=${count > 0 ? `${count}*off->` : ''}kill`;
    const first = await start([path, oracle, '20000'], fault).ended;
    t.is(first.signal, 'SIGKILL', `${point} was not reached: ${first.errors}`);
    t.true(existsSync(`${path}.open`));
    // The next start opens, migrates, writes and closes in good order.
    const second = await start([path, oracle, '100']).ended;
    t.is(second.code, 0, second.errors);
    t.false(existsSync(`${path}.open`));
    check(t, path, acknowledged());
  });

test('killed at any moment, ten times on the same file', async (t) => {
  const { path, oracle, acknowledged } = useDirectory(t);
  for (let round = 0; round < 10; round++) {
    const { child, ended } = start([path, oracle, '1000000']);
    const before = acknowledged().length;
    // Not a time but work done says when: a little further each round.
    while (acknowledged().length < before + 50 * round && child.exitCode === null)
      await new Promise((resolve) => setImmediate(resolve));
    child.kill('SIGKILL');
    t.is((await ended).signal, 'SIGKILL');
  }
  t.is((await start([path, oracle, '100']).ended).code, 0);
  check(t, path, acknowledged());
});

const straceTest = needing('program strace');

straceTest('a failed fsync ends writing, and nothing is answered after it', async (t) => {
  const { path, oracle, directory, acknowledged } = useDirectory(t);
  t.is((await start([path, oracle, '50']).ended).code, 0);
  const child = spawn(
    'strace',
    [
      '-f',
      '-qq',
      '-o',
      join(directory, 'trace'),
      '-e',
      'trace=fdatasync,fsync',
      '-e',
      'inject=fdatasync,fsync:error=EIO:when=12+',
      process.execPath,
      fixture,
      path,
      oracle,
      '100000',
    ],
    { stdio: ['ignore', 'ignore', 'pipe'] },
  );
  let errors = '';
  child.stderr.on('data', (chunk) => (errors += chunk));
  const [code] = await once(child, 'close');
  t.is(code, 3, errors);
  t.regex(errors, /writing has ended: disk I\/O error/);
  t.true(existsSync(`${path}.open`), 'the next start must look at the file');
  t.true(acknowledged().length < 5000);
  t.is((await start([path, oracle, '100']).ended).code, 0);
  check(t, path, acknowledged());
});

test('damaged pages and foreign files are refused, not served', async (t) => {
  const { path, oracle } = useDirectory(t);
  t.is((await start([path, oracle, '3000']).ended).code, 0);
  const good = readFileSync(path);
  const attempt = async (bytes: Uint8Array) => {
    writeFileSync(path, bytes);
    // As after a kill: that is when pages are looked at.
    writeFileSync(`${path}.open`, '');
    return start([path, oracle, '1']).ended;
  };
  for (const page of [1, 5, 20]) {
    const bytes = Buffer.from(good);
    bytes.fill(0xa5, page * 4096, page * 4096 + 4096);
    const { code, errors } = await attempt(bytes);
    t.not(code, 0, `page ${page}`);
    t.regex(errors, /data loss/);
  }
  t.regex((await attempt(good.subarray(0, 4096 * 10))).errors, /data loss/);
  t.regex(
    (await attempt(Buffer.from('this is not a database, whatever its name says'.repeat(100)))).errors,
    /file is not a database.*data loss/,
  );
  t.is((await attempt(good)).code, 0);
});

test('a database that has lost its tables, or is another program’s, is not begun anew', async (t) => {
  const { path, oracle, acknowledged } = useDirectory(t);
  t.is((await start([path, oracle, '100']).ended).code, 0);
  const good = readFileSync(path);
  const other = `${path}.other`;
  const database = new DatabaseSync(other);
  database.exec('CREATE TABLE songs (title TEXT)');
  database.close();
  const cases: [what: string, bytes: Uint8Array, words: RegExp][] = [
    ['empty', new Uint8Array(), /it is empty, and was not: .*records\.db\.made.*: data loss/],
    ['of another program', readFileSync(other), /of another program, with a table songs: failed precondition/],
    ['half a page', good.subarray(0, 2048), /data loss/],
    ['its first page', good.subarray(0, 4096), /data loss/],
    ['half', good.subarray(0, good.length >> 1), /data loss/],
  ];
  for (const [what, bytes, words] of cases) {
    for (const unclean of [false, true]) {
      writeFileSync(path, bytes);
      if (unclean) writeFileSync(`${path}.open`, '');
      const { code, errors } = await start([path, oracle, '1']).ended;
      t.not(code, 0, what);
      t.regex(errors, words, what);
      t.true(readFileSync(path).equals(bytes), `${what}: it is left as it was`);
      rmSync(`${path}.open`, { force: true });
    }
  }
  writeFileSync(path, good);
  t.is((await start([path, oracle, '1']).ended).code, 0);
  check(t, path, acknowledged());
});
