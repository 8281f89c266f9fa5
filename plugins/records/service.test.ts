import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import type { Call, Log } from 'troupe/plugin';
import { Failure } from 'troupe/plugin';
import { CommitRequest, CommitResponse } from 'troupe/proto/troupe/records/v1/records.ts';
import { encodeCommit, openRecords } from '../../kernel/sdk/reader.ts';
import { Changes } from './changes.ts';
import { openRecordsHouse, type RecordsConfig, type RecordsHouse } from './house.ts';
import { recordsService } from './service.ts';

const plugins = join(import.meta.dirname, '..');
const config: RecordsConfig = {
  pause_threshold: 0.02,
  deletion_threshold: 0,
  mutation_threshold: 100,
  schedule_delay: 0,
  startup_delay: 3_600_000,
  content_sharing_policy: 'shared',
  no_sync: false,
  reserve: 0,
};

function useHouse(t: ExecutionContext) {
  const directory = mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'troupe-house-'));
  const path = join(directory, 'records.db');
  const lines: string[] = [];
  const waiting = new Map<string, () => void>();
  const note = (message: string) => {
    lines.push(message);
    waiting.get(message)?.();
  };
  const log: Log = { debug: note, info: note, warn: note, error: note };
  const changes = new Changes();
  let house: RecordsHouse | undefined;
  let ends = 0;
  const open = (changed: Partial<RecordsConfig> = {}) => {
    house = openRecordsHouse({
      path,
      migrations: ['leases', 'records'].map((prefix) => ({ prefix, dir: join(plugins, prefix, 'migrations') })),
      config: { ...config, ...changed },
      log,
      changes,
      onEnd: () => (ends += 1),
    });
  };
  const service = recordsService(() => {
    if (house === undefined) throw new Failure('Unavailable', 'closed: unavailable');
    return house;
  }, changes);
  const stop = new AbortController();
  const call = { signal: stop.signal } as Call;
  const leases = openRecords(path, 'leases', async (bytes) =>
    CommitResponse.encode(await service.commit(CommitRequest.decode(bytes), call)).finish(),
  );
  t.teardown(async () => {
    leases.close();
    await house?.close();
    rmSync(directory, { recursive: true, force: true });
  });
  const lease = (id: string, expire?: string) => ({
    statements: [
      {
        sql: "INSERT INTO leases_lease (ns, id, created_at, labels) VALUES ('n', ?, 1, ?)",
        params: [id, JSON.stringify(expire === undefined ? {} : { 'containerd.io/gc.expire': expire })],
      },
    ],
  });
  return {
    path,
    open,
    service,
    call,
    stop,
    leases,
    lease,
    lines,
    ends: () => ends,
    /** The next, or an earlier, line of the log with this message. */
    said: (message: string) =>
      lines.includes(message) ? Promise.resolve() : new Promise<void>((resolve) => waiting.set(message, resolve)),
    async close() {
      await house?.close();
      house = undefined;
    },
  };
}

const past = '2020-01-01T00:00:00Z';

test('commits, counts, collects', async (t) => {
  const { open, service, call, leases, lease } = useHouse(t);
  open();
  const { sequence } = await leases.commit(lease('kept'));
  await leases.commit(lease('expired', past));
  t.is(sequence, 1);
  const before = await service.stats({}, call);
  t.is(before.commits, 2n);
  t.true(before.fsyncs >= before.batches && before.batches >= 1n && before.databaseBytes > 0n && before.walBytes > 0n);
  const { swept, marked, duration } = await service.collect({}, call);
  t.is(swept, 1n);
  t.is(marked, 1n);
  t.true(duration!.nanos > 0 || duration!.seconds > 0n);
  t.deepEqual(
    leases.all<{ id: string }>('SELECT id FROM leases_lease').map(({ id }) => id),
    ['kept'],
  );
});

test('while it is closed nothing is served, and afterwards it goes on', async (t) => {
  const { open, close, service, call, leases, lease } = useHouse(t);
  t.like(await t.throwsAsync(leases.commit(lease('a'))), { code: 'Unavailable' });
  open();
  const request = CommitRequest.decode(encodeCommit(lease('a'), 'leases'));
  const first = await service.commit(request, call);
  await close();
  t.like(await t.throwsAsync(async () => service.stats({}, call)), { code: 'Unavailable' });
  open();
  t.is((await service.commit(request, call)).sequence, first.sequence, 'the outcome outlives the generation');
  t.is((await leases.commit(lease('b'))).sequence, 2);
});

test('the change feed yields the newest number, and lasts from one opening of the file to the next', async (t) => {
  const { open, close, service, call, stop, leases, lease } = useHouse(t);
  open();
  await leases.commit(lease('a'));
  const changes = service.changes({}, call)[Symbol.asyncIterator]();
  t.deepEqual(await changes.next(), { done: false, value: { sequence: 1n } });
  const next = changes.next();
  await leases.commit({ ...lease('b'), trash: [{ owner: 'o', path: 'p' }] });
  t.deepEqual(await next, { done: false, value: { sequence: 2n } });
  const later = changes.next();
  await close();
  open();
  t.deepEqual(await later, { done: false, value: { sequence: 2n } });
  const last = changes.next();
  stop.abort();
  t.true((await last).done);
});

test('collects by itself: at the start, and after changes', async (t) => {
  const { open, said, leases, lease, lines } = useHouse(t);
  open({ startup_delay: 0, mutation_threshold: 5, pause_threshold: 0 });
  await said('collected');
  lines.length = 0;
  await leases.commit(lease('expired', past));
  for (let count = 0; count < 5; count++) await leases.commit(lease(`l${count}`));
  t.is(leases.all('SELECT 1 FROM leases_lease').length, 6, 'nothing was removed, so there is nothing to collect');
  await leases.commit({ statements: [{ sql: "DELETE FROM leases_lease WHERE id = 'l0'" }] });
  await said('collected');
  t.is(leases.all('SELECT 1 FROM leases_lease').length, 4);
});

test('after an unclean stop all of the file is checked, beside the daemon', async (t) => {
  const { open, close, said, path, leases, lease, lines, ends } = useHouse(t);
  open();
  await leases.commit(lease('a'));
  await close();
  t.false(existsSync(`${path}.open`));
  open();
  await close();
  t.false(lines.includes('database checked after an unclean stop'));
  writeFileSync(`${path}.open`, '');
  open();
  t.is((await leases.commit(lease('b'))).sequence, 2);
  await said('database checked after an unclean stop');
  t.is(ends(), 0);
});

test('a schema that does not fit is said at once, and leaves the file closed', async (t) => {
  const { open, close, path } = useHouse(t);
  open();
  await close();
  const { DatabaseSync } = await import('node:sqlite');
  const database = new DatabaseSync(path);
  database.exec("UPDATE records_migration SET sha256 = 'x'");
  database.close();
  t.throws(() => open(), { message: /is not the one that made this database/ });
  t.false(existsSync(`${path}.open`));
});

test('without fsync when that is asked for', async (t) => {
  const { open, service, call, leases, lease } = useHouse(t);
  open({ no_sync: true });
  await leases.commit(lease('a'));
  t.like(await service.stats({}, call), { commits: 1n, fsyncs: 0n });
});
