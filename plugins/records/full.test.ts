import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, unlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import { Failure } from 'troupe/plugin';
import { MNT_DETACH, mount, unmountAll } from 'troupe/sys';
import { needing } from '../../test/helpers/privilege.ts';
import { openTestRecords } from '../../test/helpers/records.ts';

/** A disk of a few megabytes, in memory. */
function useSmallDisk(t: ExecutionContext, size: string): string {
  const directory = mkdtempSync(join(tmpdir(), 'troupe-full-'));
  mount('tmpfs', directory, 'tmpfs', 0, `size=${size}`);
  t.teardown(() => {
    unmountAll(directory, MNT_DETACH);
    rmSync(directory, { recursive: true, force: true });
  });
  return directory;
}

const onSmallDisk = needing('mount');

const lease = (id: string, size = 2000) => ({
  statements: [
    {
      sql: "INSERT INTO leases_lease (ns, id, created_at, labels) VALUES ('default', ?, 1, ?)",
      params: [id, JSON.stringify({ filler: 'x'.repeat(size) })],
    },
  ],
});

const remove = (id: string) => ({
  statements: [
    {
      sql: "DELETE FROM leases_lease WHERE ns = 'default' AND id = ?",
      params: [id],
      rows: 1,
      otherwise: new Failure('NotFound', 'gone: not found'),
    },
  ],
});

async function fill(records: ReturnType<typeof openTestRecords>['records']): Promise<string[]> {
  const written: string[] = [];
  for (let round = 0; ; round++) {
    const names = Array.from({ length: 50 }, (_, index) => `l${round}-${index}`);
    const results = await Promise.allSettled(names.map((name) => records.commit(lease(name))));
    results.forEach((result, index) => {
      if (result.status === 'fulfilled') written.push(names[index]!);
    });
    const refused = results.find((result) => result.status === 'rejected');
    if (refused !== undefined) {
      if (!Failure.is(refused.reason, 'ResourceExhausted')) throw refused.reason;
      return written;
    }
  }
}

onSmallDisk('on a full disk commits are refused, and deletes work, however many', async (t) => {
  const directory = useSmallDisk(t, '24m');
  const path = join(directory, 'records.db');
  let ended = false;
  const { records, engine } = openTestRecords(t, { path, reserve: 8 << 20, onEnd: () => (ended = true) }, 'leases');
  t.true(existsSync(`${path}.reserve`));
  const written = await fill(records);
  t.true(written.length > 2000, `${written.length} fitted`);

  const kept = () => records.all<{ id: string }>('SELECT id FROM leases_lease ORDER BY id').map(({ id }) => id);
  t.deepEqual(kept(), [...written].sort(), 'what was acknowledged is what is there');

  // One whole batch of deletes at once, then one by one.
  const [together, single] = [written.slice(0, 1000), written.slice(1000, 1500)];
  await Promise.all(together.map((id) => records.commit(remove(id))));
  for (const id of single) await records.commit(remove(id));
  t.deepEqual(kept(), written.slice(1500).sort());
  t.false(ended);

  t.is(engine.database.isTransaction, false);
});

onSmallDisk('when somebody else makes room, writing goes on by itself', async (t) => {
  const directory = useSmallDisk(t, '32m');
  const { records } = openTestRecords(t, { path: join(directory, 'records.db'), reserve: 8 << 20 }, 'leases');
  await records.commit(lease('first'));
  const filler = join(directory, 'filler');
  writeFileSync(filler, new Uint8Array(1));
  // All but nothing.
  spawnSync('dd', ['if=/dev/zero', `of=${filler}`, 'bs=64k']);
  await fill(records);
  await records.commit(remove('first'));
  const failure = (await t.throwsAsync(records.commit(lease('second')))) as Failure;
  t.is(failure.code, 'ResourceExhausted');
  t.regex(failure.message, /no space left on device/);
  unlinkSync(filler);
  let result: unknown;
  do result = await records.commit(lease('third')).catch((error: unknown) => error);
  while (result instanceof Failure);
  t.truthy(records.get("SELECT 1 FROM leases_lease WHERE id = 'third'"));
  t.true(existsSync(join(directory, 'records.db.reserve')));
});

onSmallDisk('one commit too big does not take its neighbours with it', async (t) => {
  const directory = useSmallDisk(t, '8m');
  const { records } = openTestRecords(t, { path: join(directory, 'records.db') }, 'leases');
  const big = lease('big', 9 << 20);
  const results = await Promise.allSettled([
    records.commit(lease('a')),
    records.commit(big),
    records.commit(lease('b')),
  ]);
  t.deepEqual(
    results.map((result) => (result.status === 'fulfilled' ? 'done' : (result.reason as Failure).code)),
    ['done', 'ResourceExhausted', 'done'],
  );
  t.is(records.all('SELECT 1 FROM leases_lease').length, 2);
});
