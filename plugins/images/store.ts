/**
 * All SQL of images, reads and writes:
 *
 *     images_image   (ns, name)   digest, media_type, size, annotations (the target), labels, created, updated, revision
 *
 * What a name points at is kept by collection as long as the name is there.
 */
import { Failure, type Records, recordEvent } from 'troupe/plugin';
import { ImageCreate, ImageDelete, ImageUpdate } from 'troupe/proto/containerd/services/images/v1/events.ts';
import { quote } from '../lib/identifier/quote.ts';
import { decodeLabels, encodeLabels, type Labels } from '../lib/label/label.ts';
import { nowNanoseconds } from '../lib/timestamp/timestamp.ts';

export interface Target {
  readonly digest: string;
  readonly mediaType: string;
  readonly size: bigint;
  readonly annotations: Labels;
}

export interface Image {
  readonly name: string;
  readonly target: Target;
  readonly labels: Labels;
  /** Nanoseconds since the epoch, as `updated`. */
  readonly created: bigint;
  readonly updated: bigint;
}

interface Row {
  name: string;
  digest: string;
  media_type: string;
  size: number | bigint;
  annotations: string;
  labels: string;
  created: number | bigint;
  updated: number | bigint;
  revision: number;
}

const columns = 'name, digest, media_type, size, annotations, labels, created, updated, revision';
/** Only an image with an end needs a lease to outlive it: the others are roots of the collection themselves. */
const expireLabel = 'containerd.io/gc.expire';

export class Store {
  readonly #records: Records;

  constructor(records: Records) {
    this.#records = records;
  }

  /** @throws Failure NotFound */
  get(namespace: string, name: string): Image {
    return fromRow(this.#row(namespace, name));
  }

  /** Images whose name is greater than `after`, in order. */
  page(namespace: string, after: string, limit: number): Image[] {
    return this.#records
      .all<Row>(
        `SELECT ${columns} FROM images_image WHERE ns = ? AND name > ? ORDER BY name LIMIT ?`,
        namespace,
        after,
        limit,
      )
      .map(fromRow);
  }

  /**
   * @param time of creation, when it is not now.
   * @throws Failure AlreadyExists; NotFound for an unknown lease.
   */
  async create(
    namespace: string,
    image: Pick<Image, 'name' | 'target' | 'labels'>,
    lease: string,
    time: bigint = nowNanoseconds(),
  ): Promise<Image> {
    const { name, target, labels } = image;
    await this.#records.commit({
      statements: [
        {
          sql: `INSERT INTO images_image (ns, name, digest, media_type, size, annotations, labels, created, updated)
                VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`,
          params: [
            namespace,
            name,
            target.digest,
            target.mediaType,
            target.size,
            encodeLabels(target.annotations),
            encodeLabels(labels),
            time,
            time,
          ],
          rows: 1,
          conflict: { code: 'AlreadyExists', message: `image ${show(name)}: already exists` },
        },
      ],
      namespace,
      ...membership(namespace, lease, image),
      events: [recordEvent(namespace, '/images/create', ImageCreate, { name, labels: { ...labels } })],
    });
    return { name, target, labels, created: time, updated: time };
  }

  /**
   * Replaces an image by `change` of it, which may be run again when somebody else was faster.
   *
   * @throws Failure NotFound, and whatever `change` throws.
   */
  async update(
    namespace: string,
    name: string,
    lease: string,
    change: (image: Image) => Pick<Image, 'target' | 'labels'>,
    time?: bigint,
  ): Promise<Image> {
    for (;;) {
      const row = this.#row(namespace, name);
      const current = fromRow(row);
      const { target, labels } = change(current);
      const image = { name, target, labels, created: current.created, updated: time ?? nowNanoseconds() };
      try {
        await this.#records.commit({
          statements: [
            {
              sql: `UPDATE images_image SET digest = ?, media_type = ?, size = ?, annotations = ?, labels = ?, updated = ?,
                      revision = revision + 1
                    WHERE ns = ? AND name = ? AND created = ? AND revision = ?`,
              params: [
                target.digest,
                target.mediaType,
                target.size,
                encodeLabels(target.annotations),
                encodeLabels(labels),
                image.updated,
                namespace,
                name,
                current.created,
                row.revision,
              ],
              rows: 1,
              otherwise: raced,
            },
          ],
          ...membership(namespace, lease, image),
          events: [recordEvent(namespace, '/images/update', ImageUpdate, { name, labels: { ...labels } })],
        });
        return image;
      } catch (error) {
        if (!Failure.is(error, 'Aborted')) throw error;
      }
    }
  }

  /**
   * @param digest only if it points there; empty: wherever.
   * @throws Failure NotFound
   */
  async delete(namespace: string, name: string, lease: string, digest: string): Promise<void> {
    const held =
      lease !== '' &&
      this.#records.get(
        "SELECT 1 FROM records_lease_resource WHERE ns = ? AND lease = ? AND type = 'images' AND id = ?",
        namespace,
        lease,
        name,
      ) !== undefined;
    await this.#records.commit({
      statements: [
        digest === ''
          ? {
              sql: 'DELETE FROM images_image WHERE ns = ? AND name = ?',
              params: [namespace, name],
              rows: 1,
              otherwise: notFound(name),
            }
          : {
              sql: 'DELETE FROM images_image WHERE ns = ? AND name = ? AND digest = ?',
              params: [namespace, name, digest],
              rows: 1,
              otherwise: { code: 'NotFound', message: `image ${show(name)} with target ${digest}: not found` },
            },
      ],
      ...(held && { lease: { namespace, id: lease, remove: [{ type: 'images', id: name }] } }),
      events: [recordEvent(namespace, '/images/delete', ImageDelete, { name })],
    });
  }

  #row(namespace: string, name: string): Row {
    const row = this.#records.get<Row>(
      `SELECT ${columns} FROM images_image WHERE ns = ? AND name = ?`,
      namespace,
      name,
    );
    if (row === undefined) throw notFound(name);
    return row;
  }
}

const raced = new Failure('Aborted', 'changed meanwhile: aborted');

function notFound(name: string): Failure {
  return new Failure('NotFound', `image ${show(name)}: not found`);
}

/** A name in a message: free text of any length. */
function show(name: string): string {
  return quote(name.length > 500 ? `${name.slice(0, 500)}…` : name);
}

function membership(namespace: string, lease: string, image: Pick<Image, 'name' | 'labels'>) {
  if (lease === '' || !Object.hasOwn(image.labels, expireLabel)) return {};
  return { lease: { namespace, id: lease, add: [{ type: 'images', id: image.name }] } };
}

function fromRow(row: Row): Image {
  return {
    name: row.name,
    target: {
      digest: row.digest,
      mediaType: row.media_type,
      size: BigInt(row.size),
      annotations: decodeLabels(row.annotations),
    },
    labels: decodeLabels(row.labels),
    created: BigInt(row.created),
    updated: BigInt(row.updated),
  };
}
