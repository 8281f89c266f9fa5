/**
 * All SQL of containers, reads and writes:
 *
 *     containers_container   (ns, id)   image, runtime, runtime_options, spec, snapshotter, snapshot_key, sandbox,
 *                                       extensions, labels, created, updated, revision
 *
 * Specs, options and extensions are somebody else's messages: kept byte for byte, never looked into.
 */
import { Failure, type Records, recordEvent } from 'troupe/plugin';
import { ContainerCreate, ContainerDelete, ContainerUpdate } from 'troupe/proto/containerd/events/container.ts';
import { Container as ContainerMessage } from 'troupe/proto/containerd/services/containers/v1/containers.ts';
import { Any } from 'troupe/proto/google/protobuf/any.ts';
import { quote } from '../lib/identifier/quote.ts';
import { decodeLabels, encodeLabels, type Labels } from '../lib/label/label.ts';
import { nowNanoseconds } from '../lib/timestamp/timestamp.ts';

export interface Container {
  readonly id: string;
  readonly image: string;
  readonly runtime: { readonly name: string; readonly options: Any | undefined };
  readonly spec: Any;
  readonly snapshotter: string;
  readonly snapshotKey: string;
  readonly sandbox: string;
  readonly extensions: { readonly [name: string]: Any };
  readonly labels: Labels;
  /** Nanoseconds since the epoch, as `updated`. */
  readonly created: bigint;
  readonly updated: bigint;
}

interface Row {
  id: string;
  image: string;
  runtime: string;
  runtime_options: Uint8Array | null;
  spec: Uint8Array;
  snapshotter: string;
  snapshot_key: string;
  sandbox: string;
  extensions: Uint8Array;
  labels: string;
  created: number | bigint;
  updated: number | bigint;
  revision: number;
}

const columns =
  'id, image, runtime, runtime_options, spec, snapshotter, snapshot_key, sandbox, extensions, labels, created, updated, revision';

export class Store {
  readonly #records: Records;

  constructor(records: Records) {
    this.#records = records;
  }

  /** @throws Failure NotFound */
  get(namespace: string, id: string): Container {
    return fromRow(this.#row(namespace, id));
  }

  /** Containers whose id is greater than `after`, in order: a page at a time, so that no read is open while a client is slow. */
  page(namespace: string, after: string, limit: number): Container[] {
    return this.#records
      .all<Row>(
        `SELECT ${columns} FROM containers_container WHERE ns = ? AND id > ? ORDER BY id LIMIT ?`,
        namespace,
        after,
        limit,
      )
      .map(fromRow);
  }

  /** @throws Failure AlreadyExists */
  async create(namespace: string, container: Omit<Container, 'created' | 'updated'>): Promise<Container> {
    const time = nowNanoseconds();
    const { id, image, runtime, snapshotter, snapshotKey, sandbox } = container;
    await this.#records.commit({
      statements: [
        {
          sql: `INSERT INTO containers_container (ns, id, image, runtime, runtime_options, spec, snapshotter, snapshot_key, sandbox,
                  extensions, labels, created, updated)
                VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
          params: [
            namespace,
            id,
            image,
            runtime.name,
            runtime.options === undefined ? null : Any.encode(runtime.options).finish(),
            Any.encode(container.spec).finish(),
            snapshotter,
            snapshotKey,
            sandbox,
            encodeExtensions(container.extensions),
            encodeLabels(container.labels),
            time,
            time,
          ],
          rows: 1,
          conflict: { code: 'AlreadyExists', message: `container ${quote(id)}: already exists` },
        },
      ],
      namespace,
      events: [recordEvent(namespace, '/containers/create', ContainerCreate, { id, image, runtime })],
    });
    return { ...container, created: time, updated: time };
  }

  /**
   * Replaces what may change by `change` of it, which may be run again when somebody else was faster.
   *
   * @throws Failure NotFound, and whatever `change` throws.
   */
  async update(namespace: string, id: string, change: (container: Container) => Container): Promise<Container> {
    for (;;) {
      const row = this.#row(namespace, id);
      const container = { ...change(fromRow(row)), updated: nowNanoseconds() };
      const { image, snapshotKey, labels } = container;
      try {
        await this.#records.commit({
          statements: [
            {
              sql: `UPDATE containers_container SET image = ?, spec = ?, snapshot_key = ?, extensions = ?, labels = ?, updated = ?,
                      revision = revision + 1
                    WHERE ns = ? AND id = ? AND created = ? AND revision = ?`,
              params: [
                image,
                Any.encode(container.spec).finish(),
                snapshotKey,
                encodeExtensions(container.extensions),
                encodeLabels(labels),
                container.updated,
                namespace,
                id,
                row.created,
                row.revision,
              ],
              rows: 1,
              otherwise: { code: 'Aborted', message: `container ${quote(id)} changed meanwhile: aborted` },
            },
          ],
          events: [
            recordEvent(namespace, '/containers/update', ContainerUpdate, {
              id,
              image,
              labels: { ...labels },
              snapshotKey,
            }),
          ],
        });
        return container;
      } catch (error) {
        if (!Failure.is(error, 'Aborted')) throw error;
      }
    }
  }

  /** @throws Failure NotFound */
  async delete(namespace: string, id: string): Promise<void> {
    await this.#records.commit({
      statements: [
        {
          sql: 'DELETE FROM containers_container WHERE ns = ? AND id = ?',
          params: [namespace, id],
          rows: 1,
          otherwise: notFound(namespace, id),
        },
      ],
      events: [recordEvent(namespace, '/containers/delete', ContainerDelete, { id })],
    });
  }

  #row(namespace: string, id: string): Row {
    const row = this.#records.get<Row>(
      `SELECT ${columns} FROM containers_container WHERE ns = ? AND id = ?`,
      namespace,
      id,
    );
    if (row === undefined) throw notFound(namespace, id);
    return row;
  }
}

function notFound(namespace: string, id: string): Failure {
  return new Failure(
    'NotFound',
    `container ${quote(id.length > 300 ? `${id.slice(0, 300)}…` : id)} in namespace ${quote(namespace)}: not found`,
  );
}

function encodeExtensions(extensions: Container['extensions']): Uint8Array {
  return ContainerMessage.encode(ContainerMessage.fromPartial({ extensions })).finish();
}

function fromRow(row: Row): Container {
  return {
    id: row.id,
    image: row.image,
    runtime: {
      name: row.runtime,
      options: row.runtime_options === null ? undefined : Any.decode(row.runtime_options),
    },
    spec: Any.decode(row.spec),
    snapshotter: row.snapshotter,
    snapshotKey: row.snapshot_key,
    sandbox: row.sandbox,
    extensions: row.extensions.length === 0 ? {} : ContainerMessage.decode(row.extensions).extensions,
    labels: decodeLabels(row.labels),
    created: BigInt(row.created),
    updated: BigInt(row.updated),
  };
}
