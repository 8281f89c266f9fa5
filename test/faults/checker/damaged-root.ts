/** A root as the checker wants it, made without a daemon, for its tests to damage: one blob, one ingest, a snapshot with its child, a lease, an image. */
import { createHash } from 'node:crypto';
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import type { ExecutionContext } from 'ava';
import { scratchBase } from '../../helpers/scratch.ts';
import { databasePath, readRows } from './database.ts';
import type { Listing } from './listing.ts';
import { Folding, type Line } from './oracle.ts';
import type { Picture } from './subject.ts';

type Writable<T> = { -readonly [K in keyof T]: T[K] };

export interface DamagedRoot {
  readonly root: string;
  readonly state: string;
  readonly blob: string;
  readonly ingest: string;
  /** The committed snapshot's directory, and its file. */
  readonly snapshot: string;
  readonly file: string;
  /** What the daemon would say; to be changed. */
  readonly listing: Writable<Listing>;
  readonly lines: Line[];
  sql(text: string): void;
  picture(changes?: Partial<Picture>): Picture;
}

const bytes = Buffer.from('a blob');
const hex = (content: Uint8Array): string => createHash('sha256').update(content).digest('hex');
const digest = `sha256:${hex(bytes)}`;
const child = 'sha256:child';

export function useRoot(t: ExecutionContext): DamagedRoot {
  const dir = mkdtempSync(join(scratchBase(), 'troupe-checker-'));
  t.teardown(() => rmSync(dir, { recursive: true, force: true }));
  const [root, state] = [join(dir, 'root'), join(dir, 'state')];
  const content = join(root, 'io.containerd.content.v1.content');
  const snapshots = join(root, 'io.containerd.snapshotter.v1.overlayfs/snapshots');
  const blob = join(content, 'blobs', digest.replace(':', '/'));
  const ingest = join(content, 'ingest/one');
  const file = join(snapshots, '1/fs/file');
  mkdirSync(root, { mode: 0o700 });
  mkdirSync(state, { mode: 0o711 });
  chmodSync(state, 0o711);
  mkdirSync(join(content, 'blobs/sha256'), { recursive: true });
  writeFileSync(blob, bytes, { mode: 0o444 });
  mkdirSync(ingest, { recursive: true });
  writeFileSync(join(ingest, 'ref'), 'ns/ref');
  writeFileSync(join(ingest, 'data'), '12345');
  for (const id of ['1', '2']) mkdirSync(join(snapshots, id, 'fs'), { recursive: true, mode: 0o700 });
  writeFileSync(file, bytes);
  mkdirSync(join(root, 'troupe.records.v1.records'), { mode: 0o700 });
  const sql = (text: string): void => {
    const database = new DatabaseSync(databasePath(root));
    database.exec(text);
    database.close();
  };
  sql(`
    CREATE TABLE content_blob (ns TEXT, digest TEXT, size INTEGER);
    CREATE TABLE content_ingest (ns TEXT, ref TEXT, directory TEXT);
    CREATE TABLE snapshots_snapshot (id INTEGER, ns TEXT, snapshotter TEXT, key TEXT, parent INTEGER, kind INTEGER);
    CREATE TABLE records_trash (owner TEXT, path TEXT);
    INSERT INTO content_blob VALUES ('ns', '${digest}', ${bytes.length});
    INSERT INTO content_ingest VALUES ('ns', 'ref', 'one');
    INSERT INTO snapshots_snapshot VALUES (1, 'ns', 'overlayfs', 'layer', NULL, 3), (2, 'ns', 'overlayfs', '${child}', 1, 2);
  `);
  chmodSync(databasePath(root), 0o600);
  writeFileSync(join(dir, 'socket'), '', { mode: 0o660 });
  chmodSync(join(dir, 'socket'), 0o660);

  const listing: Writable<Listing> = {
    images: [],
    containers: [],
    leases: [{ ns: 'ns', id: 'lease', labels: { a: 'b' } }],
    snapshots: [
      { ns: 'ns', snapshotter: 'overlayfs', key: 'layer', parent: '', kind: 'committed' },
      { ns: 'ns', snapshotter: 'overlayfs', key: child, parent: 'layer', kind: 'active' },
    ],
    blobs: [{ ns: 'ns', digest, size: bytes.length, labels: {} }],
    ingests: [{ ns: 'ns', ref: 'ref', offset: 5, total: 0 }],
    tasks: [],
  };
  const files = { file: [bytes.length, hex(bytes)] };
  const lines: Line[] = [
    {
      n: 1,
      say: 'ask',
      call: 'everything',
      whole: false,
      wants: [
        { object: 'lease/ns/lease', state: { labels: { a: 'b' } } },
        { object: 'snapshot/ns/overlayfs/layer', state: { kind: 'committed', parent: '', files } },
        { object: `snapshot/ns/overlayfs/${child}`, state: { kind: 'active', parent: 'layer' } },
        { object: `content/ns/${digest}`, state: { size: bytes.length } },
        { object: 'ingest/ns/ref', state: { min: 5, max: 5 } },
      ],
    },
    { n: 1, say: 'done' },
  ];
  return {
    root,
    state,
    blob,
    ingest,
    snapshot: join(snapshots, '1'),
    file,
    listing,
    lines,
    sql,
    picture: (changes) => ({
      root,
      state,
      address: join(dir, 'socket'),
      pid: process.pid,
      namespaces: [],
      oracle: new Folding().add(lines),
      fixtures: { images: [], loose: [] },
      empty: false,
      baseline: undefined,
      listing,
      rows: readRows(root),
      ...changes,
    }),
  };
}
