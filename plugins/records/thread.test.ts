import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { Failure } from 'troupe/plugin';
import { runThread } from './thread.ts';

test('a thread that cannot open the database is to be asked another time, and says so', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'troupe-thread-'));
  t.teardown(() => rmSync(directory, { recursive: true }));
  const marking = runThread(new URL('./mark-thread.ts', import.meta.url), { path: join(directory, 'none.db') });
  const error = await t.throwsAsync(marking, { instanceOf: Failure });
  t.is((error as Failure).code, 'Unavailable');
  t.is(error.message, 'records: unable to open database file: unavailable');
});
