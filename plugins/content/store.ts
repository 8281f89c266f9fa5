/**
 * All SQL of content, reads and writes (that of ingests is in ingest-store.ts):
 *
 *     content_blob    (ns, digest)    size, created, updated, labels      what is whole; the file is shared by all namespaces that list it
 *     content_ingest  (ns, ref)       directory, expected, expires        what is on its way
 *     records_trash                   seq, owner, path                    files to remove, "blobs/DIGEST" or "ingest/DIRECTORY/NS/REF"
 *
 * Rows say what exists, the files of disk.ts hold the bytes. The order that keeps them together: a blob's file is in place and synced
 * before its row, and goes after the last row; an ingest's directory is there before its row, and goes after it.
 */
import { Failure, type Records, recordEvent } from 'troupe/plugin';
import { ContentDelete } from 'troupe/proto/containerd/events/content.ts';
import type { Digest } from '../lib/digest/digest.ts';
import { decodeLabels, encodeLabels, type Labels } from '../lib/label/label.ts';
import { nowNanoseconds } from '../lib/timestamp/timestamp.ts';
import { deleteIngestStatement, IngestStore, membership, unlease } from './ingest-store.ts';

export interface Blob {
  readonly digest: Digest;
  readonly size: bigint;
  /** Nanoseconds since the epoch, as `updated`. */
  readonly created: bigint;
  readonly updated: bigint;
  readonly labels: Labels;
}

interface BlobRow {
  digest: Digest;
  size: number | bigint;
  created: number | bigint;
  updated: number | bigint;
  labels: string;
}

/** Whose content may be taken over without uploading it: everybody's, or only that of namespaces labelled shareable. */
export type SharingPolicy = 'shared' | 'isolated';

/** As the migration's triggers write it. */
const owner = 'io.containerd.content.v1.content';
const columns = 'digest, size, created, updated, labels';

export class Store {
  readonly #records: Records;
  readonly ingests: IngestStore;

  constructor(records: Records) {
    this.#records = records;
    this.ingests = new IngestStore(records);
  }

  /** @throws Failure NotFound */
  get(namespace: string, digest: Digest): Blob {
    const blob = this.find(namespace, digest);
    if (blob === undefined) throw contentNotFound(digest);
    return blob;
  }

  find(namespace: string, digest: string): Blob | undefined {
    const row = this.#records.get<BlobRow>(
      `SELECT ${columns} FROM content_blob WHERE ns = ? AND digest = ?`,
      namespace,
      digest,
    );
    return row === undefined ? undefined : fromRow(row);
  }

  /** Blobs whose digest is greater than `after`, in order: a page at a time, so that no read is open while a client is slow. */
  page(namespace: string, after: string, limit: number): Blob[] {
    return this.#records
      .all<BlobRow>(
        `SELECT ${columns} FROM content_blob WHERE ns = ? AND digest > ? ORDER BY digest LIMIT ?`,
        namespace,
        after,
        limit,
      )
      .map(fromRow);
  }

  /** containerd has the key in its metadata plugin, whose place records takes and which may have noted it. The stricter one counts. */
  sharingPolicy(configured: SharingPolicy): SharingPolicy {
    const noted = this.#records.get<{ value: string }>(
      "SELECT value FROM records_meta WHERE key = 'content_sharing_policy'",
    );
    return noted?.value === 'isolated' ? 'isolated' : configured;
  }

  /** The same content as another namespace has it, when the policy lets this one take it over. */
  findShared(namespace: string, digest: string, policy: SharingPolicy): { size: bigint } | undefined {
    const row = this.#records.get<{ size: number | bigint }>(sharedSql(policy), digest, namespace);
    return row === undefined ? undefined : { size: BigInt(row.size) };
  }

  /** Whether any namespace has it. */
  isNamed(digest: string): boolean {
    return this.#records.get('SELECT 1 FROM content_blob WHERE digest = ? LIMIT 1', digest) !== undefined;
  }

  /** Those that have it, in order. */
  namespacesOf(digest: Digest): string[] {
    return this.#records
      .all<{ ns: string }>('SELECT ns FROM content_blob WHERE digest = ? ORDER BY ns', digest)
      .map(({ ns }) => ns);
  }

  /** All digests of all namespaces in order, after the given one. */
  digests(after: string, limit: number): { digest: Digest; size: bigint }[] {
    return this.#records
      .all<{ digest: Digest; size: number | bigint }>(
        'SELECT digest, max(size) AS size FROM content_blob WHERE digest > ? GROUP BY digest ORDER BY digest LIMIT ?',
        after,
        limit,
      )
      .map(({ digest, size }) => ({ digest, size: BigInt(size) }));
  }

  /**
   * Changes labels by `change`, which may be run again when somebody else was faster.
   *
   * @throws Failure NotFound
   */
  async updateLabels(namespace: string, digest: Digest, change: (labels: Labels) => Labels): Promise<Blob> {
    for (;;) {
      const current = this.get(namespace, digest);
      const updated = nowNanoseconds();
      const before = encodeLabels(current.labels);
      const labels = change(current.labels);
      try {
        await this.#records.commit({
          statements: [
            {
              sql: 'UPDATE content_blob SET labels = ?, updated = ? WHERE ns = ? AND digest = ? AND labels = ?',
              params: [encodeLabels(labels), updated, namespace, digest, before],
              rows: 1,
              otherwise: raced,
            },
          ],
        });
        return { ...current, updated, labels };
      } catch (error) {
        if (!Failure.is(error, 'Aborted')) throw error;
      }
    }
  }

  /**
   * The namespace's claim to it; the file follows when it was the last (trash.ts).
   *
   * @throws Failure NotFound
   */
  async delete(namespace: string, digest: Digest, lease: string): Promise<void> {
    await this.#records.commit({
      statements: [
        {
          sql: 'DELETE FROM content_blob WHERE ns = ? AND digest = ?',
          params: [namespace, digest],
          rows: 1,
          otherwise: contentNotFound(digest),
        },
      ],
      ...unlease(this.#records, namespace, lease, { type: 'content', id: digest }),
      events: [recordEvent(namespace, '/content/delete', ContentDelete, { digest })],
    });
  }

  /**
   * The ingest has become a blob, whose file is in place. Under the digest's lock.
   *
   * @param options.shared there is no ingest, another namespace's file is taken over, which must still be there.
   * @param options.heal the row is there and its file was not what it says.
   * @throws Failure AlreadyExists; NotFound when the ingest was aborted meanwhile or the shared content is gone.
   */
  async commitBlob(
    namespace: string,
    ref: string,
    blob: { digest: Digest; size: bigint; labels: Labels },
    lease: string,
    options: { shared?: SharingPolicy | undefined; heal?: boolean },
  ): Promise<void> {
    const time = nowNanoseconds();
    const { digest, size } = blob;
    const labels = encodeLabels(blob.labels);
    await this.#records.commit({
      statements: [
        options.shared === undefined
          ? deleteIngestStatement(namespace, ref)
          : {
              sql: sharedSql(options.shared),
              params: [digest, namespace],
              rows: 1,
              otherwise: contentNotFound(digest),
            },
        {
          sql: `INSERT INTO content_blob (ns, digest, size, created, updated, labels) VALUES (?, ?, ?, ?, ?, ?)
                ${options.heal ? 'ON CONFLICT (ns, digest) DO UPDATE SET size = excluded.size, updated = excluded.updated' : ''}`,
          params: [namespace, digest, size, time, time, labels],
          rows: 1,
          conflict: contentExists(digest),
        },
      ],
      namespace,
      ...this.#commitMembership(namespace, ref, digest, lease),
    });
  }

  /** Keeps what is there already for the lease. False when it is gone. @throws Failure NotFound for an unknown lease. */
  async leaseBlob(namespace: string, digest: string, lease: string): Promise<boolean> {
    if (lease === '') return true;
    try {
      await this.#records.commit({
        statements: [
          {
            sql: 'SELECT 1 FROM content_blob WHERE ns = ? AND digest = ?',
            params: [namespace, digest],
            rows: 1,
            otherwise: raced,
          },
        ],
        ...membership(namespace, lease, [{ type: 'content', id: digest }]),
      });
      return true;
    } catch (error) {
      if (Failure.is(error, 'Aborted')) return false;
      throw error;
    }
  }

  trash(limit: number): { seq: number; path: string }[] {
    return this.#records.all('SELECT seq, path FROM records_trash WHERE owner = ? ORDER BY seq LIMIT ?', owner, limit);
  }

  async forgetTrash(seqs: readonly number[]): Promise<void> {
    await this.#records.commit({
      statements: [
        {
          sql: 'DELETE FROM records_trash WHERE owner = ? AND seq IN (SELECT value FROM json_each(?))',
          params: [owner, JSON.stringify(seqs)],
        },
      ],
    });
  }

  #commitMembership(namespace: string, ref: string, digest: string, lease: string) {
    if (lease === '') return {};
    return {
      lease: {
        namespace,
        id: lease,
        add: [{ type: 'content', id: digest }],
        remove: [{ type: 'ingests', id: ref }],
      },
    };
  }
}

const raced = new Failure('Aborted', 'changed meanwhile: aborted');

export function contentNotFound(digest: string): Failure {
  return new Failure('NotFound', `content digest ${digest}: not found`);
}

export function contentExists(digest: string): Failure {
  return new Failure('AlreadyExists', `content ${digest}: already exists`);
}

function sharedSql(policy: SharingPolicy): string {
  const shareable =
    policy === 'shared'
      ? ''
      : `AND EXISTS (SELECT 1 FROM records_namespace n
           WHERE n.name = b.ns AND n.labels ->> '$."containerd.io/namespace.shareable"' = 'true')`;
  return `SELECT size FROM content_blob b WHERE digest = ? AND ns <> ? ${shareable} LIMIT 1`;
}

function fromRow(row: BlobRow): Blob {
  return {
    digest: row.digest,
    size: BigInt(row.size),
    created: BigInt(row.created),
    updated: BigInt(row.updated),
    labels: decodeLabels(row.labels),
  };
}
