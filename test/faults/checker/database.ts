/** The records as they lie in the file, read without the daemon's help. */
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';

export interface Rows {
  readonly blobs: readonly { ns: string; digest: string; size: number }[];
  readonly ingests: readonly { ns: string; ref: string; directory: string }[];
  readonly snapshots: readonly {
    id: number;
    ns: string;
    snapshotter: string;
    key: string;
    parent: number | null;
    kind: number;
  }[];
  readonly trash: readonly { owner: string; path: string }[];
  /** Of SQLite's own check: `ok`. */
  readonly integrity: string;
}

export const databasePath = (root: string): string => join(root, 'troupe.records.v1.records', 'records.db');

export function readRows(root: string): Rows {
  const database = new DatabaseSync(databasePath(root), { readOnly: true, timeout: 5000 });
  try {
    // One transaction: what a commit changes together is seen together.
    database.exec('BEGIN');
    const all = <T>(sql: string): T[] => database.prepare(sql).all() as unknown as T[];
    return {
      blobs: all('SELECT ns, digest, size FROM content_blob'),
      ingests: all('SELECT ns, ref, directory FROM content_ingest'),
      snapshots: all('SELECT id, ns, snapshotter, key, parent, kind FROM snapshots_snapshot'),
      trash: all('SELECT owner, path FROM records_trash'),
      integrity: all<{ integrity_check: string }>('PRAGMA integrity_check')
        .map((row) => row.integrity_check)
        .join('; '),
    };
  } finally {
    database.close();
  }
}
