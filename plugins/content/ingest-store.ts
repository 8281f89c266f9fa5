/**
 * All SQL of what is on its way:
 *
 *     content_ingest  (ns, ref)       directory, expected, expires
 *
 * The directory holds the bytes (disk.ts); it is made before the row and goes after it.
 */
import { Failure, failpoint, type LeaseResource, type Records, type Statement } from 'troupe/plugin';
import { quote } from '../lib/identifier/quote.ts';
import { nowNanoseconds } from '../lib/timestamp/timestamp.ts';

export interface IngestRow {
  readonly ns: string;
  readonly ref: string;
  readonly directory: string;
  readonly expected: string;
}

const columns = 'ns, ref, directory, expected';
/** How long an ingest without a lease is kept, ns. */
const ingestLifetime = 24n * 3_600_000_000_000n;

export class IngestStore {
  readonly #records: Records;

  constructor(records: Records) {
    this.#records = records;
  }

  of(namespace: string): IngestRow[] {
    return this.#records.all<IngestRow>(`SELECT ${columns} FROM content_ingest WHERE ns = ? ORDER BY ref`, namespace);
  }

  all(): IngestRow[] {
    return this.#records.all<IngestRow>(`SELECT ${columns} FROM content_ingest`);
  }

  find(namespace: string, ref: string): IngestRow | undefined {
    return this.#records.get<IngestRow>(
      `SELECT ${columns} FROM content_ingest WHERE ns = ? AND ref = ?`,
      namespace,
      ref,
    );
  }

  findDirectory(directory: string): IngestRow | undefined {
    return this.#records.get<IngestRow>(`SELECT ${columns} FROM content_ingest WHERE directory = ?`, directory);
  }

  /** Makes the row, or renews it: a lease or a day from now keeps it. @throws Failure NotFound for an unknown lease. */
  async put(row: IngestRow, lease: string): Promise<void> {
    failpoint('content.ingest.before-record');
    await this.#records.commit({
      statements: [
        {
          sql: `INSERT INTO content_ingest (ns, ref, directory, expected, expires) VALUES (?, ?, ?, ?, ?)
                ON CONFLICT (ns, ref) DO UPDATE SET expected = excluded.expected, expires = coalesce(excluded.expires, expires)`,
          params: [
            row.ns,
            row.ref,
            row.directory,
            row.expected,
            lease === '' ? nowNanoseconds() + ingestLifetime : null,
          ],
        },
      ],
      namespace: row.ns,
      ...membership(row.ns, lease, [{ type: 'ingests', id: row.ref }]),
    });
    failpoint('content.ingest.after-record');
  }

  /** @throws Failure NotFound `reference REF: not found` */
  async delete(namespace: string, ref: string, lease: string): Promise<void> {
    failpoint('content.abort.before-record');
    await this.#records.commit({
      statements: [deleteIngestStatement(namespace, ref)],
      ...unlease(this.#records, namespace, lease, { type: 'ingests', id: ref }),
    });
    failpoint('content.abort.after-record');
  }
}

export function ingestNotFound(ref: string): Failure {
  return new Failure('NotFound', `reference ${shorten(ref)}: not found`);
}

/** A ref in a message: free text of any length. */
export function shorten(ref: string): string {
  const text = quote(ref.length > 200 ? `${ref.slice(0, 200)}…` : ref);
  return text.slice(1, -1) === ref ? ref : text;
}

export function deleteIngestStatement(namespace: string, ref: string): Statement {
  return {
    sql: 'DELETE FROM content_ingest WHERE ns = ? AND ref = ?',
    params: [namespace, ref],
    rows: 1,
    otherwise: ingestNotFound(ref),
  };
}

/** The field of a commit that gives the caller's lease what it made. */
export function membership(namespace: string, lease: string, add: readonly LeaseResource[]) {
  return lease === '' ? {} : { lease: { namespace, id: lease, add } };
}

/** Only when the lease holds it: leaving a lease that is gone is no failure. */
export function unlease(records: Records, namespace: string, lease: string, resource: LeaseResource) {
  if (lease === '') return {};
  const held = records.get(
    'SELECT 1 FROM records_lease_resource WHERE ns = ? AND lease = ? AND type = ? AND id = ?',
    namespace,
    lease,
    resource.type,
    resource.id,
  );
  return held === undefined ? {} : { lease: { namespace, id: lease, remove: [resource] } };
}
