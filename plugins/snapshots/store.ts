/**
 * The records of snapshots: all of this noun's SQL.
 *
 *   snapshots_snapshot   id · ns · snapshotter · key · parent (id) · kind · size · inodes · created · updated · labels
 *   snapshots_sequence   next · floor                                   (one row)
 *   records_trash        seq · owner · path = "<id>/<snapshotter>"      (records': directories to remove)
 *
 * Order on disk and here. Prepare: directory, then row. Commit: sync, then row. Remove: row gone and trash there in one commit, then the
 * directory, then the trash row.
 */
import { Failure, type RecordEvent, recordEvent, type Records, type Statement } from 'troupe/plugin';
import { SnapshotCommit, SnapshotPrepare, SnapshotRemove } from 'troupe/proto/containerd/events/snapshot.ts';
import { Kind } from 'troupe/proto/containerd/services/snapshots/v1/snapshots.ts';
import { encodeLabels, type Labels } from '../lib/label/label.ts';
import { quote } from '../lib/identifier/quote.ts';
import { nowNanoseconds } from '../lib/timestamp/timestamp.ts';

export interface SnapshotRow {
  readonly id: number;
  readonly ns: string;
  readonly snapshotter: string;
  readonly key: string;
  readonly parent: number | null;
  readonly kind: number;
  readonly size: number;
  readonly inodes: number;
  /** Nanoseconds since the epoch. */
  readonly created: number | bigint;
  readonly updated: number | bigint;
  /** JSON text. */
  readonly labels: string;
  /** The parent's key; '' when there is none. */
  readonly parent_key: string;
}

/** What a snapshot is found by. */
export interface SnapshotName {
  readonly ns: string;
  readonly snapshotter: string;
  readonly key: string;
}

export interface TrashRow {
  readonly seq: number;
  readonly id: string;
  readonly snapshotter: string;
}

export const owner = 'io.containerd.service.v1.snapshots-service';

const columns = `s.id, s.ns, s.snapshotter, s.key, s.parent, s.kind, s.size, s.inodes, s.created, s.updated, s.labels,
  ifnull(p.key, '') AS parent_key FROM snapshots_snapshot AS s LEFT JOIN snapshots_snapshot AS p ON p.id = s.parent`;

export class SnapshotStore {
  readonly #records: Records;

  constructor(records: Records) {
    this.#records = records;
  }

  find({ ns, snapshotter, key }: SnapshotName): SnapshotRow | undefined {
    return this.#records.get<SnapshotRow>(
      `SELECT ${columns} WHERE s.ns = ? AND s.snapshotter = ? AND s.key = ?`,
      ns,
      snapshotter,
      key,
    );
  }

  /** @throws NotFound */
  require(name: SnapshotName): SnapshotRow {
    const row = this.find(name);
    if (row === undefined) throw missing(name.key);
    return row;
  }

  /** By key in the order of its bytes, beginning after `after`. */
  page(ns: string, snapshotter: string, after: string, limit: number): SnapshotRow[] {
    return this.#records.all<SnapshotRow>(
      `SELECT ${columns} WHERE s.ns = ? AND s.snapshotter = ? AND s.key > ? ORDER BY s.key LIMIT ?`,
      ns,
      snapshotter,
      after,
      limit,
    );
  }

  /** Ids of the committed snapshot `id` and all that it stands on, nearest first. */
  chain(id: number | null): string[] {
    if (id === null) return [];
    const rows = this.#records.all<{ id: number }>(
      `WITH RECURSIVE chain (id, parent, depth) AS (
         SELECT id, parent, 0 FROM snapshots_snapshot WHERE id = ?
         UNION ALL SELECT s.id, s.parent, depth + 1 FROM chain JOIN snapshots_snapshot AS s ON s.id = chain.parent)
       SELECT id FROM chain ORDER BY depth`,
      id,
    );
    return rows.map((row) => String(row.id));
  }

  hasChildren(id: number): boolean {
    return this.#records.get('SELECT 1 FROM snapshots_snapshot WHERE parent = ? LIMIT 1', id) !== undefined;
  }

  /**
   * Records a prepared snapshot. The parent must still be there and committed.
   * @throws AlreadyExists, NotFound (parent, lease), Unavailable when the daemon has restarted this plugin since the id was taken
   */
  async create(
    name: SnapshotName,
    snapshot: { id: number; parent: SnapshotRow | undefined; readonly: boolean; labels: Labels },
    lease: string,
  ): Promise<void> {
    const { id, parent, readonly, labels } = snapshot;
    const { ns, snapshotter, key } = name;
    const now = nowNanoseconds();
    const values = [id, ns, snapshotter, key, readonly ? Kind.VIEW : Kind.ACTIVE, now, now, encodeLabels(labels)];
    const into = 'INSERT INTO snapshots_snapshot (id, ns, snapshotter, key, kind, created, updated, labels, parent)';
    const insert: Statement = {
      sql:
        parent === undefined
          ? `${into} VALUES (?, ?, ?, ?, ?, ?, ?, ?, NULL)`
          : `${into} SELECT ?, ?, ?, ?, ?, ?, ?, ?, id FROM snapshots_snapshot WHERE id = ? AND kind = ${Kind.COMMITTED}`,
      params: parent === undefined ? values : [...values, parent.id],
      rows: 1,
      otherwise: { code: 'NotFound', message: `parent snapshot ${parent?.key ?? ''} does not exist: not found` },
      conflict: exists(key),
    };
    const message = { key, parent: parent?.key ?? '', snapshotter };
    await this.#records.commit({
      statements: [
        {
          sql: 'SELECT 1 FROM snapshots_sequence WHERE floor <= ?',
          params: [id],
          rows: 1,
          otherwise: {
            code: 'Unavailable',
            message: `snapshot ${quote(key)}: snapshots was restarted meanwhile: unavailable`,
          },
        },
        insert,
      ],
      namespace: ns,
      ...(lease !== '' && {
        lease: { namespace: ns, id: lease, add: [{ type: `snapshots/${snapshotter}`, id: key }] },
      }),
      // Views are not announced, as with containerd.
      events: readonly ? [] : [recordEvent(ns, '/snapshot/prepare', SnapshotPrepare, message)],
    });
  }

  /** An active snapshot becomes a committed one of another name. @throws AlreadyExists, NotFound (when it went meanwhile; parent; lease) */
  async commit(
    active: SnapshotRow,
    committed: { name: string; parent: SnapshotRow | undefined; labels: Labels; size: bigint; inodes: bigint },
    lease: string,
  ): Promise<void> {
    const { ns, snapshotter, key } = active;
    const { name, parent, labels, size, inodes } = committed;
    const now = nowNanoseconds();
    const statements: Statement[] = [];
    if (parent !== undefined) {
      statements.push({
        sql: `SELECT 1 FROM snapshots_snapshot WHERE id = ? AND kind = ${Kind.COMMITTED}`,
        params: [parent.id],
        rows: 1,
        otherwise: { code: 'NotFound', message: `parent snapshot ${parent.key} does not exist: not found` },
      });
    }
    statements.push({
      sql: `UPDATE snapshots_snapshot SET key = ?, kind = ${Kind.COMMITTED}, parent = ?, size = ?, inodes = ?, created = ?, updated = ?, labels = ?
            WHERE id = ? AND kind = ${Kind.ACTIVE}`,
      params: [name, parent?.id ?? null, size, inodes, now, now, encodeLabels(labels), active.id],
      rows: 1,
      otherwise: missing(key),
      conflict: exists(name),
    });
    const type = `snapshots/${snapshotter}`;
    await this.#records.commit({
      statements,
      ...(lease !== '' && {
        lease: { namespace: ns, id: lease, add: [{ type, id: name }], remove: [{ type, id: key }] },
      }),
      events: [recordEvent(ns, '/snapshot/commit', SnapshotCommit, { key, name, snapshotter })],
    });
  }

  /** @throws FailedPrecondition when it has children, NotFound (when it went meanwhile) */
  async remove(row: SnapshotRow, lease: string): Promise<void> {
    const { id, ns, snapshotter, key } = row;
    const events: RecordEvent[] = [recordEvent(ns, '/snapshot/remove', SnapshotRemove, { key, snapshotter })];
    await this.#records.commit({
      statements: [
        {
          sql: 'SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM snapshots_snapshot WHERE parent = ?)',
          params: [id],
          rows: 1,
          otherwise: hasChild(),
        },
        {
          sql: 'DELETE FROM snapshots_snapshot WHERE id = ? AND key = ?',
          params: [id, key],
          rows: 1,
          otherwise: missing(key),
        },
      ],
      trash: [{ owner, path: `${id}/${snapshotter}` }],
      ...(lease !== '' && {
        lease: { namespace: ns, id: lease, remove: [{ type: `snapshots/${snapshotter}`, id: key }] },
      }),
      events,
    });
  }

  /** False when the labels have changed since `row` was read. */
  async relabel(row: SnapshotRow, labels: Labels): Promise<boolean> {
    const changed = new Failure('Aborted', `snapshot ${row.key} was changed meanwhile: aborted`);
    try {
      await this.#records.commit({
        statements: [
          {
            sql: 'UPDATE snapshots_snapshot SET labels = ?, updated = ? WHERE id = ? AND key = ? AND labels = ?',
            params: [encodeLabels(labels), nowNanoseconds(), row.id, row.key, row.labels],
            rows: 1,
            otherwise: changed,
          },
        ],
      });
      return true;
    } catch (error) {
      if (Failure.is(error, 'Aborted')) return false;
      throw error;
    }
  }

  /** The first of `count` ids that are the caller's from now on. `restarted`: no record is made any more with an id from before. */
  async takeIds(count: number, restarted: boolean): Promise<{ first: number; floor: number }> {
    const { results } = await this.#records.commit({
      statements: [
        {
          sql: `UPDATE snapshots_sequence SET next = next + ?, floor = ${restarted ? 'next' : 'floor'} RETURNING next - ?, floor`,
          params: [count, count],
          rows: 1,
        },
      ],
    });
    const [first, floor] = results[0]!.rows[0]!;
    return { first: Number(first), floor: Number(floor) };
  }

  /** Every id that has a record, whatever its snapshotter: one may keep its directories with another. */
  ids(): Set<string> {
    return new Set(this.#records.all<{ id: number }>('SELECT id FROM snapshots_snapshot').map((row) => String(row.id)));
  }

  of(snapshotter: string): SnapshotRow[] {
    return this.#records.all<SnapshotRow>(`SELECT ${columns} WHERE s.snapshotter = ? ORDER BY s.id`, snapshotter);
  }

  trash(): TrashRow[] {
    const rows = this.#records.all<{ seq: number; path: string }>(
      'SELECT seq, path FROM records_trash WHERE owner = ?',
      owner,
    );
    return rows.map(({ seq, path }) => {
      const slash = path.indexOf('/');
      return { seq, id: path.slice(0, slash), snapshotter: path.slice(slash + 1) };
    });
  }

  /** The directories are gone. */
  async forget(seqs: readonly number[]): Promise<void> {
    if (seqs.length === 0) return;
    const sql = 'DELETE FROM records_trash WHERE seq IN (SELECT value FROM json_each(?))';
    await this.#records.commit({ statements: [{ sql, params: [JSON.stringify(seqs)] }] });
  }
}

export function missing(key: string): Failure {
  return new Failure('NotFound', `snapshot ${key} does not exist: not found`);
}

export function exists(key: string): Failure {
  return new Failure('AlreadyExists', `snapshot ${quote(key)}: already exists`);
}

export function hasChild(): Failure {
  return new Failure('FailedPrecondition', 'cannot remove snapshot with child: failed precondition');
}
