/**
 * Content as layers need it. Reads go past the bus: the record says that a namespace has the blob, its file is where the content store keeps it, and a pool
 * thread reads it at the kernel's speed. Writes go over the bus, because refs, digests and leases are the content store's to guard.
 *
 *   <root of content>/blobs/sha256/<hex>      read only
 *   <root of content>/ingest/<directory>/data read only, while it grows
 */
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { type Call, type Client, Failure, failpoint, type Records } from 'troupe/plugin';
import {
  type ContentDefinition,
  type WriteContentRequest,
  WriteAction,
} from 'troupe/proto/containerd/services/content/v1/content.ts';
import { type Digest, digestAlgorithm, digestHex } from '../lib/digest/digest.ts';

export const UNCOMPRESSED = 'containerd.io/uncompressed';
/** Larger messages would wait for all of their bytes at each hop. */
const MESSAGE = 1 << 20;

export class Blobs {
  readonly #records: Records;
  readonly #root: string;
  readonly #content: Client<typeof ContentDefinition>;

  constructor(records: Records, root: string, content: Client<typeof ContentDefinition>) {
    this.#records = records;
    this.#root = root;
    this.#content = content;
  }

  /** @throws Failure NotFound when the namespace does not have it */
  file(namespace: string, digest: Digest): { path: string; size: number } {
    const row = this.#records.get<{ size: number | bigint }>(
      'SELECT size FROM content_blob WHERE ns = ? AND digest = ?',
      namespace,
      digest,
    );
    if (row === undefined) throw new Failure('NotFound', `content ${digest}: not found`);
    return { path: join(this.#root, 'blobs', digestAlgorithm(digest), digestHex(digest)), size: Number(row.size) };
  }

  /** Where the bytes lie that somebody writes under `ref`, to become that digest; undefined when nobody does. */
  arriving(namespace: string, ref: string, digest: Digest): string | undefined {
    const row = this.#records.get<{ directory: string }>(
      'SELECT directory FROM content_ingest WHERE ns = ? AND ref = ? AND expected = ?',
      namespace,
      ref,
      digest,
    );
    return row && join(this.#root, 'ingest', row.directory, 'data');
  }

  /**
   * Stores `chunks` as a blob. Its labels are asked for when all bytes are there, since some tell what the bytes turned out to be.
   *
   * A namespace that has the same blob already keeps it; labels that it lacks are added.
   */
  async write(
    ref: string,
    chunks: AsyncIterable<Uint8Array>,
    labels: () => Promise<Readonly<Record<string, string>>>,
    call: Call,
  ): Promise<{ digest: string; size: bigint }> {
    const name = ref === '' ? `diff-${randomBytes(12).toString('hex')}` : ref;
    let wanted: Readonly<Record<string, string>> = {};
    let known = { digest: '', size: 0n };
    let ours: { error: unknown } | undefined;
    async function* requests(): AsyncGenerator<WriteContentRequest, void, undefined> {
      try {
        yield message(WriteAction.STAT, { ref: name });
        // Offset 0 with data starts over what an earlier attempt under this ref left.
        let offset = 0n;
        for await (const chunk of chunks) {
          for (let at = 0; at < chunk.length; at += MESSAGE) {
            const data = chunk.subarray(at, at + MESSAGE);
            yield message(WriteAction.WRITE, { data, offset });
            offset += BigInt(data.length);
          }
        }
        wanted = await labels();
        failpoint('diff.diff.before-commit');
        yield message(WriteAction.COMMIT, { labels: { ...wanted }, total: offset, offset });
      } catch (error) {
        ours = { error };
        throw error;
      }
    }
    try {
      for await (const reply of this.#content.write(requests(), call)) {
        known = { digest: reply.digest, size: reply.offset };
        if (reply.action === WriteAction.COMMIT) return known;
      }
      throw new Failure('Unavailable', `ref ${name}: the content store ended the write: unavailable`);
    } catch (error) {
      const reason = ours === undefined ? error : (ours as { error: unknown }).error;
      if (ref === '') await this.#content.abort({ ref: name }, { namespace: call.namespace }).catch(() => {});
      if (!Failure.is(reason, 'AlreadyExists')) throw reason;
      await this.#addLabels(known.digest, wanted, call);
      return known;
    }
  }

  async #addLabels(digest: string, wanted: Readonly<Record<string, string>>, call: Call): Promise<void> {
    const { info } = await this.#content.info({ digest }, call);
    const missing = Object.entries(wanted).filter(([key]) => !Object.hasOwn(info?.labels ?? {}, key));
    if (missing.length === 0) return;
    await this.#content.update(
      {
        info: { digest, size: 0n, createdAt: undefined, updatedAt: undefined, labels: Object.fromEntries(missing) },
        updateMask: missing.map(([key]) => `labels.${key}`),
      },
      call,
    );
  }
}

function message(action: WriteAction, fields: Partial<WriteContentRequest>): WriteContentRequest {
  return { action, ref: '', total: 0n, expected: '', offset: 0n, data: new Uint8Array(0), labels: {}, ...fields };
}
