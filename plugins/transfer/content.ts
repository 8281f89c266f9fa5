/**
 * Content of one namespace, over the bus: what is there, and what comes. Bytes on their way are an ingest of their own lifetime, a day, whatever becomes of the
 * transfer: who asks again goes on where they end. What they become is in the transfer's lease before it exists, so that no collection comes in between.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { type CallOptions, type Client, Failure } from 'troupe/plugin';
import type { ContentDefinition } from 'troupe/proto/containerd/services/content/v1/content.ts';
import type { LeasesDefinition } from 'troupe/proto/containerd/services/leases/v1/leases.ts';
import { type Digest, parseDigest } from '../lib/digest/digest.ts';
import { type Descriptor, requireBytes } from '../lib/image/document.ts';
import { refKey } from '../lib/image/media-type.ts';
import { ContentWrite } from './content-write.ts';

export type Labels = Readonly<Record<string, string>>;

/** Bytes in order, some chunks at a time. Their memory is lent until the next are asked for. */
export type Chunks = AsyncIterable<readonly Uint8Array[]>;

export interface WriteOptions {
  /** Asked for when all bytes are there. */
  readonly labels: () => Labels;
  /** The bytes from that offset to the end. */
  readonly source: (offset: number, signal: AbortSignal) => Chunks;
  readonly onProgress: (offset: number) => void;
  /** The source can be read one time only. */
  readonly once?: boolean;
}

/** Between two attempts at a ref that somebody else writes, ms. */
const lockedPause = 500;
const abortMs = 30_000;
/** Times that a blob is gone which the store has just said to have. */
const maxLost = 3;

export class Content {
  readonly #content: Client<typeof ContentDefinition>;
  readonly #leases: Client<typeof LeasesDefinition>;
  readonly #call: CallOptions & { readonly namespace: string; readonly lease: string };

  constructor(
    clients: { readonly content: Client<typeof ContentDefinition>; readonly leases: Client<typeof LeasesDefinition> },
    call: CallOptions & { readonly namespace: string; readonly lease: string },
  ) {
    this.#content = clients.content;
    this.#leases = clients.leases;
    this.#call = call;
  }

  /** Labels of what is there; undefined when it is not. */
  async find(digest: string, signal: AbortSignal): Promise<Labels | undefined> {
    try {
      const { info } = await this.#content.info({ digest }, { ...this.#call, signal });
      return info?.labels ?? {};
    } catch (error) {
      if (Failure.is(error, 'NotFound')) return undefined;
      throw error;
    }
  }

  /** The transfer's lease keeps it, whether it is there or will be. */
  async keep(digest: string, signal: AbortSignal): Promise<void> {
    await this.#leases.addResource(
      { id: this.#call.lease, resource: { type: 'content', id: digest } },
      { namespace: this.#call.namespace, signal },
    );
  }

  /** All bytes of a small one, which are what its descriptor says. */
  async read(descriptor: Pick<Descriptor, 'digest' | 'size'>, signal: AbortSignal): Promise<Uint8Array> {
    const chunks: Uint8Array[] = [];
    for await (const chunk of this.bytes(descriptor.digest, 0, signal)) chunks.push(chunk);
    const bytes = Buffer.concat(chunks);
    requireBytes(bytes, descriptor);
    return bytes;
  }

  async *bytes(digest: string, offset: number, signal: AbortSignal): AsyncGenerator<Uint8Array, void, undefined> {
    const request = { digest, offset: BigInt(offset), size: 0n };
    for await (const { data } of this.#content.read(request, { namespace: this.#call.namespace, signal })) yield data;
  }

  /** Sets labels that are missing or different; others stay. */
  async label(digest: string, labels: Labels, signal: AbortSignal): Promise<void> {
    const current = await this.find(digest, signal);
    const changed = Object.entries(labels).filter(([key, value]) => current?.[key] !== value);
    if (current === undefined || changed.length === 0) return;
    const info = { digest, size: 0n, createdAt: undefined, updatedAt: undefined, labels: Object.fromEntries(changed) };
    await this.#content.update(
      { info, updateMask: changed.map(([key]) => `labels.${key}`) },
      { ...this.#call, signal },
    );
  }

  /**
   * Makes a blob of what the source gives. An earlier attempt's bytes are gone on from; if they turn out to be wrong they are thrown away, once.
   *
   * @returns whether it was there already
   * @throws Failure FailedPrecondition when the bytes are not what the descriptor says; then nothing of them is left
   */
  async write(
    descriptor: Pick<Descriptor, 'mediaType' | 'digest' | 'size'>,
    options: WriteOptions,
    signal: AbortSignal,
  ): Promise<'written' | 'there'> {
    await this.keep(descriptor.digest, signal);
    const { digest, size } = descriptor;
    const target = { ref: refKey(descriptor), digest, size };
    let again = options.once !== true;
    for (let lost = 0; ; ) {
      const write = new ContentWrite(this.#content, target, { namespace: this.#call.namespace, signal });
      try {
        return await write.run(options, signal);
      } catch (error) {
        if (isLocked(error)) {
          await sleep(lockedPause, undefined, { signal }).catch(() => signal.throwIfAborted());
          continue;
        }
        // Another namespace had it, and it was collected there before it was this one's. Nothing of the source has been taken; now all of it will be.
        if (Failure.is(error, 'NotFound') && write.began === size && ++lost < maxLost) continue;
        if (!write.mismatched) throw error;
        await this.abort(target.ref);
        if (!again || write.began === 0) throw error;
        again = false;
      }
    }
  }

  /** Makes a blob of bytes whose digest nobody has said, and it may be their number neither. @returns the digest */
  async writeUnknown(ref: string, size: number | undefined, source: Chunks, signal: AbortSignal): Promise<Digest> {
    const { namespace, lease } = this.#call;
    const write = new ContentWrite(this.#content, { ref, size, digest: '' }, { namespace, lease, signal });
    const options = { labels: () => ({}), source: () => source, onProgress: () => {} };
    try {
      await write.run(options, signal);
    } catch (error) {
      await this.abort(ref);
      throw error;
    }
    return parseDigest(write.digest);
  }

  async abort(ref: string): Promise<void> {
    await this.#content.abort({ ref }, { namespace: this.#call.namespace, timeoutMs: abortMs }).catch(() => {});
  }
}

function isLocked(error: unknown): boolean {
  return Failure.is(error, 'Unavailable') && /locked for/.test(error.message);
}
