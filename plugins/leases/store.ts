/**
 * Leases in SQL.
 *
 *     leases_lease (ns, id, created_at, labels)
 *     records_lease_resource (ns, lease, type, id)     of records; written through the lease field of a commit
 */
import { Failure, type LeaseResource, type Records } from 'troupe/plugin';
import { quote } from '../lib/identifier/quote.ts';
import { decodeLabels, encodeLabels, type Labels } from '../lib/label/label.ts';

export interface Lease {
  /** Free text, not empty. */
  readonly id: string;
  /** Nanoseconds since the epoch. */
  readonly createdAt: bigint;
  readonly labels: Labels;
}

export class LeaseStore {
  readonly #records: Records;

  constructor(records: Records) {
    this.#records = records;
  }

  /** Makes the namespace too. @throws Failure AlreadyExists. */
  async create(ns: string, { id, createdAt, labels }: Lease): Promise<void> {
    await this.#records.commit({
      namespace: ns,
      statements: [
        {
          sql: 'INSERT INTO leases_lease (ns, id, created_at, labels) VALUES (?, ?, ?, ?)',
          params: [ns, id, createdAt, encodeLabels(labels)],
          conflict: { code: 'AlreadyExists', message: `lease ${quote(id)}: already exists` },
        },
      ],
    });
  }

  /** Lets go of all it holds. @throws Failure NotFound. */
  async delete(ns: string, id: string): Promise<void> {
    await this.#records.commit({
      statements: [
        { sql: 'DELETE FROM leases_lease WHERE ns = ? AND id = ?', params: [ns, id], rows: 1, otherwise: notFound(id) },
      ],
    });
  }

  /** In order of their ids. */
  list(ns: string): Lease[] {
    const rows = this.#records.all<{ id: string; created_at: number | bigint; labels: string }>(
      'SELECT id, created_at, labels FROM leases_lease WHERE ns = ? ORDER BY id',
      ns,
    );
    return rows.map((row) => ({
      id: row.id,
      createdAt: BigInt(row.created_at),
      labels: decodeLabels(row.labels),
    }));
  }

  /** Adding what it holds already is no error. @throws Failure NotFound when there is no such lease. */
  async add(ns: string, id: string, resource: LeaseResource): Promise<void> {
    await this.#records.commit({ statements: [], lease: { namespace: ns, id, add: [resource] } });
  }

  /** Removing what it does not hold is no error. @throws Failure NotFound when there is no such lease. */
  async remove(ns: string, id: string, resource: LeaseResource): Promise<void> {
    await this.#records.commit({ statements: [], lease: { namespace: ns, id, remove: [resource] } });
  }

  /** In order of type and id. @throws Failure NotFound when there is no such lease. */
  resources(ns: string, id: string): LeaseResource[] {
    if (this.#records.get('SELECT 1 FROM leases_lease WHERE ns = ? AND id = ?', ns, id) === undefined)
      throw notFound(id);
    return this.#records.all<LeaseResource>(
      'SELECT type, id FROM records_lease_resource WHERE ns = ? AND lease = ? ORDER BY type, id',
      ns,
      id,
    );
  }
}

function notFound(id: string): Failure {
  return new Failure('NotFound', `lease ${quote(id)}: not found`);
}
