/**
 * The records for a store's test: the real engine on a database of its own, in this thread, so that no worker is started.
 *
 *     const { records } = useRecords(t, 'images');                 // plugins/images/migrations, and records' own
 *     const { records, as } = useRecords(t, 'images', 'leases');   // `records` writes as the first, as('leases') as another
 */
import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import type { Records, SqlValue } from 'troupe/plugin';
import { CommitRequest, CommitResponse } from 'troupe/proto/troupe/records/v1/records.ts';
import { type OpenRecords, openRecords } from '../../kernel/sdk/reader.ts';
import { Engine, type EngineOptions } from '../../plugins/records/engine.ts';
import { type MigrationFolder, migrate } from '../../plugins/records/migrate.ts';

export interface TestRecords {
  /** As the first prefix given sees them. */
  readonly records: Records;
  readonly engine: Engine;
  /** The database file. */
  readonly path: string;
  /** The records as another noun's plugin sees them. */
  as(prefix: string): Records;
  /** Resolves when every commit that waits has been answered. */
  tick(): Promise<void>;
  /** What GC does: marks and sweeps now. */
  collect(): Promise<{ swept: number; marked: number }>;
  /** Rows of a table or SELECT, for assertions. */
  rows<T = Record<string, unknown>>(sql: string, ...params: SqlValue[]): T[];
}

/**
 * @param nouns folders under plugins/ whose migrations run, after records' own; or folders elsewhere with their prefix.
 */
export function useRecords(t: ExecutionContext, ...nouns: (string | MigrationFolder)[]): TestRecords {
  return openTestRecords(t, {}, ...nouns);
}

/** The same with options of the engine. */
export function openTestRecords(
  t: ExecutionContext,
  options: Partial<EngineOptions>,
  ...nouns: (string | MigrationFolder)[]
): TestRecords {
  // Whoever names the file has a place for it; a process that is killed could not take one away.
  const directory = options.path === undefined ? mkdtempSync(join(scratch(), 'troupe-records-')) : undefined;
  const path = options.path ?? join(directory!, 'records.db');
  const engine = new Engine({ path, ...options });
  const readers: OpenRecords[] = [];
  t.teardown(() => {
    try {
      for (const reader of readers) reader.close();
      engine.close();
    } finally {
      if (directory !== undefined) rmSync(directory, { recursive: true, force: true, maxRetries: 3 });
    }
  });
  migrate(engine.database, [folderOf('records'), ...nouns.map(folderOf)]);
  engine.ready();
  const as = (prefix: string): Records => {
    const reader = openRecords(path, prefix, async (request) =>
      CommitResponse.encode(await engine.commit(CommitRequest.decode(request))).finish(),
    );
    readers.push(reader);
    return reader;
  };
  const plain = as('');
  const first = nouns[0] === undefined ? '' : folderOf(nouns[0]).prefix;
  return {
    records: as(first),
    engine,
    path,
    as,
    tick: () => engine.idle(),
    collect: async () => (await import('../../plugins/records/collect.ts')).collect(engine, { thread: false }),
    rows: <T>(sql: string, ...params: SqlValue[]) =>
      plain.all<T>(/\s/.test(sql) ? sql : `SELECT * FROM ${sql}`, ...params),
  };
}

function folderOf(noun: string | MigrationFolder): MigrationFolder {
  if (typeof noun !== 'string') return noun;
  return { prefix: noun, dir: join(import.meta.dirname, '../../plugins', noun, 'migrations') };
}

/** Memory rather than a disk: a test commits by the hundred. */
function scratch(): string {
  return statSync('/dev/shm', { throwIfNoEntry: false })?.isDirectory() ? '/dev/shm' : tmpdir();
}
