/**
 * Content of one namespace, over the bus: what is there, and what comes. Bytes on their way are an ingest of their own lifetime, a day, whatever becomes of the
 * transfer: who asks again goes on where they end. What they become is in the transfer's lease before it exists, so that no collection comes in between.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { type CallOptions, type Client, Failure } from 'troupe/plugin';
import {
  type ContentDefinition,
  WriteAction,
  type WriteContentRequest,
  type WriteContentResponse,
} from 'troupe/proto/containerd/services/content/v1/content.ts';
import type { LeasesDefinition } from 'troupe/proto/containerd/services/leases/v1/leases.ts';
import { type Descriptor, requireBytes } from '../lib/image/document.ts';
import { refKey } from '../lib/image/media-type.ts';
import { Pipe } from '../lib/pipe/pipe.ts';

export type Labels = Readonly<Record<string, string>>;

export interface WriteOptions {
  /** Asked for when all bytes are there. */
  readonly labels: () => Labels;
  /** The bytes from that offset to the end. */
  readonly source: (offset: number, signal: AbortSignal) => AsyncIterable<Uint8Array>;
  readonly onProgress: (offset: number) => void;
}

/** Bytes of one message. Larger ones wait for all of their bytes at each hop, smaller ones pay for the hop more often. */
const messageBytes = 1 << 20;
/** Messages that have no answer yet. */
const ahead = 3;
/** Between two attempts at a ref that somebody else writes, ms. */
const lockedPause = 500;

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
    for (let again = true; ; again = false) {
      const attempt = new Attempt(this.#content, { namespace: this.#call.namespace, signal }, descriptor);
      try {
        return await attempt.run(options, signal);
      } catch (error) {
        if (Failure.is(error, 'Unavailable') && /locked for/.test(error.message)) {
          await sleep(lockedPause, undefined, { signal }).catch(() => signal.throwIfAborted());
          again = true;
          continue;
        }
        if (!attempt.mismatched) throw error;
        await this.#content.abort({ ref: refKey(descriptor) }, { namespace: this.#call.namespace }).catch(() => {});
        if (!again || attempt.began === 0) throw error;
      }
    }
  }
}

/** One stream of Content.Write. */
class Attempt {
  readonly #descriptor: Pick<Descriptor, 'mediaType' | 'digest' | 'size'>;
  readonly #requests = new Pipe<WriteContentRequest>();
  readonly #replies: AsyncIterator<WriteContentResponse>;
  #unanswered = 0;
  /** The offset that an earlier attempt had reached. */
  began = 0;
  /** All bytes were there, and were not what they should have been. */
  mismatched = false;

  constructor(
    content: Client<typeof ContentDefinition>,
    call: CallOptions,
    descriptor: Pick<Descriptor, 'mediaType' | 'digest' | 'size'>,
  ) {
    this.#descriptor = descriptor;
    this.#replies = content.write(this.#requests, call)[Symbol.asyncIterator]();
  }

  async run({ labels, source, onProgress }: WriteOptions, signal: AbortSignal): Promise<'written' | 'there'> {
    const { size } = this.#descriptor;
    try {
      await this.#send(WriteAction.STAT, {});
      let offset = Number((await this.#reply()).offset);
      if (offset > size) {
        await this.#send(WriteAction.WRITE, { offset: 0n, data: new Uint8Array(0) });
        offset = Number((await this.#reply()).offset);
      }
      this.began = offset;
      onProgress(offset);
      if (offset < size) {
        for await (const data of inMessages(source(offset, signal))) {
          await this.#send(WriteAction.WRITE, { offset: BigInt(offset), data });
          offset += data.length;
          while (this.#unanswered > ahead) onProgress(Number((await this.#reply()).offset));
        }
      }
      while (this.#unanswered > 0) await this.#reply();
      onProgress(offset);
      this.mismatched = true;
      await this.#send(WriteAction.COMMIT, { offset: BigInt(offset), labels: { ...labels() } });
      await this.#reply();
      this.mismatched = false;
      return 'written';
    } catch (error) {
      if (!Failure.is(error, 'FailedPrecondition')) this.mismatched = false;
      if (Failure.is(error, 'AlreadyExists')) return 'there';
      throw error;
    } finally {
      this.#requests.end();
      await this.#replies.return?.();
    }
  }

  async #send(action: WriteAction, fields: Partial<WriteContentRequest>): Promise<void> {
    const { digest, size } = this.#descriptor;
    this.#unanswered++;
    // The pipe ends with the answer, which says more than that it ended.
    await this.#requests.write({
      action,
      ref: refKey(this.#descriptor),
      total: BigInt(size),
      expected: digest,
      offset: 0n,
      data: new Uint8Array(0),
      labels: {},
      ...fields,
    });
  }

  async #reply(): Promise<WriteContentResponse> {
    const { done, value } = await this.#replies.next();
    if (done === true)
      throw new Failure('Unavailable', `content ${this.#descriptor.digest}: the write ended early: unavailable`);
    this.#unanswered--;
    return value;
  }
}

/** The same bytes in messages of a good size. Memory of a message is used again when its answer must have come. */
async function* inMessages(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array, void, undefined> {
  // Unanswered ones, the one that is filled, and one between the two.
  const memory = Array.from({ length: ahead + 3 }, () => undefined as Buffer | undefined);
  let turn = 0;
  let filled = 0;
  for await (const chunk of chunks) {
    for (let at = 0; at < chunk.length; ) {
      memory[turn] ??= Buffer.allocUnsafeSlow(messageBytes);
      const taken = Math.min(chunk.length - at, messageBytes - filled);
      memory[turn]!.set(chunk.subarray(at, at + taken), filled);
      at += taken;
      filled += taken;
      if (filled < messageBytes) continue;
      yield memory[turn]!;
      turn = (turn + 1) % memory.length;
      filled = 0;
    }
  }
  if (filled > 0) yield memory[turn]!.subarray(0, filled);
}
