/**
 * Namespaces in SQL.
 *
 *     records_namespace (name, labels)       of records, since every commit may create a namespace by naming it
 *     NOUN_gc_node (kind, ns, id)            read to tell what a namespace still has
 *
 * A namespace takes its leases and ingests with it when it goes: triggers of those nouns see to it.
 */
import { Failure, type RecordEvent, type Records } from 'troupe/plugin';
import { quote } from '../lib/identifier/quote.ts';
import { decodeLabels, encodeLabels, type Labels } from '../lib/label/label.ts';

export interface Namespace {
  readonly name: string;
  readonly labels: Labels;
}

/** How often a change is tried against others of the same namespace. */
const attempts = 10;

export class NamespaceStore {
  readonly #records: Records;

  constructor(records: Records) {
    this.#records = records;
  }

  get(name: string): Namespace | undefined {
    const row = this.#records.get<{ labels: string }>('SELECT labels FROM records_namespace WHERE name = ?', name);
    return row && { name, labels: decodeLabels(row.labels) };
  }

  /** In order of their names. */
  list(): Namespace[] {
    return this.#records
      .all<{ name: string; labels: string }>('SELECT name, labels FROM records_namespace ORDER BY name')
      .map(({ name, labels }) => ({ name, labels: decodeLabels(labels) }));
  }

  /** @throws Failure AlreadyExists. */
  async create({ name, labels }: Namespace, event: RecordEvent): Promise<void> {
    await this.#records.commit({
      statements: [
        {
          sql: 'INSERT INTO records_namespace (name, labels) VALUES (?, ?)',
          params: [name, encodeLabels(labels)],
          conflict: { code: 'AlreadyExists', message: `namespace ${quote(name)}: already exists` },
        },
      ],
      events: [event],
    });
  }

  /**
   * Replaces the labels by what `change` makes of them; a namespace that is not there is made, as containerd makes it.
   *
   * @throws Failure Aborted when others kept changing it at the same time.
   */
  async update(name: string, change: (labels: Labels) => Labels, event: RecordEvent): Promise<Namespace> {
    for (let attempt = 0; ; attempt++) {
      const before = encodeLabels(this.get(name)?.labels ?? {});
      const labels = change(decodeLabels(before));
      const changed = new Failure('Aborted', `namespace ${quote(name)}: changed by others at the same time: aborted`);
      try {
        await this.#records.commit({
          namespace: name,
          statements: [
            {
              sql: 'UPDATE records_namespace SET labels = ? WHERE name = ? AND labels = ?',
              params: [encodeLabels(labels), name, before],
              rows: 1,
              otherwise: changed,
            },
          ],
          events: [event],
        });
        return { name, labels };
      } catch (error) {
        if (!Failure.is(error, 'Aborted') || attempt === attempts) throw error;
      }
    }
  }

  /** @throws Failure NotFound, or FailedPrecondition naming what the namespace still has. */
  async delete(name: string, event: RecordEvent): Promise<void> {
    const has = this.#contents(name);
    const occupied = (what: string) =>
      new Failure(
        'FailedPrecondition',
        `namespace ${quote(name)} must be empty, but it still has ${what}: failed precondition`,
      );
    if (has.length > 0) throw occupied(has.join(', '));
    await this.#records.commit({
      statements: [
        // Looked at above for the message, and here for the truth: something may have come in between.
        {
          sql: `SELECT kind FROM (${this.#nodes()}) WHERE ns = ? AND ${ownedKinds} LIMIT 1`,
          params: [name],
          rows: 0,
          otherwise: occupied('something new'),
        },
        {
          sql: 'DELETE FROM records_namespace WHERE name = ?',
          params: [name],
          rows: 1,
          otherwise: { code: 'NotFound', message: `namespace ${quote(name)}: not found` },
        },
      ],
      events: [event],
    });
  }

  /** In containerd's words and order: `images`, `blobs`, `containers`, `snapshots on "overlayfs" snapshotter`. */
  #contents(name: string): string[] {
    const kinds = this.#records
      .all<{ kind: string }>(`SELECT DISTINCT kind FROM (${this.#nodes()}) WHERE ns = ? AND ${ownedKinds}`, name)
      .map(({ kind }) => kind);
    const found = Object.entries(words)
      .filter(([kind]) => kinds.includes(kind))
      .map(([, word]) => word);
    const snapshotters = kinds.filter((kind) => kind.startsWith('snapshot/')).sort();
    return [
      ...found,
      ...snapshotters.map((kind) => `snapshots on ${quote(kind.slice('snapshot/'.length))} snapshotter`),
    ];
  }

  /** All that exists, from the views of the nouns that are planned. */
  #nodes(): string {
    const views = this.#records
      .all<{ name: string }>(
        "SELECT name FROM sqlite_master WHERE type = 'view' AND name GLOB '*_gc_node' ORDER BY name",
      )
      .map(({ name }) => `SELECT kind, ns FROM ${name}`);
    return views.length === 0 ? "SELECT '' AS kind, '' AS ns WHERE 0" : views.join(' UNION ALL ');
  }
}

const words: { readonly [kind: string]: string } = { image: 'images', content: 'blobs', container: 'containers' };
const ownedKinds = "(kind IN ('image', 'content', 'container') OR kind GLOB 'snapshot/*')";
