/**
 * One stream of Content.Write, some messages ahead of their answers: the store hashes and writes one while the next is on its way.
 */
import { type CallOptions, type Client, Failure } from 'troupe/plugin';
import {
  type ContentDefinition,
  WriteAction,
  type WriteContentRequest,
  type WriteContentResponse,
} from 'troupe/proto/containerd/services/content/v1/content.ts';
import { Pipe } from '../lib/pipe/pipe.ts';
import type { Chunks, WriteOptions } from './content.ts';

export interface Target {
  readonly ref: string;
  /** Empty: unknown. */
  readonly digest: string;
  /** Undefined: as many as come. */
  readonly size: number | undefined;
}

/** Bytes of one message. Larger ones wait for all of their bytes at each hop, smaller ones pay for the hop more often. */
const messageBytes = 512 << 10;
/** Messages that have no answer yet. */
const ahead = 3;

export class ContentWrite {
  readonly #target: Target;
  readonly #requests = new Pipe<WriteContentRequest>();
  readonly #replies: AsyncIterator<WriteContentResponse>;
  #unanswered = 0;
  /** The offset that an earlier attempt had reached. */
  began = 0;
  /** All bytes were there, and were not what they should have been. */
  mismatched = false;

  /** Of all bytes that have come; what the blob has when `run` is done. */
  digest = '';

  constructor(content: Client<typeof ContentDefinition>, target: Target, call: CallOptions) {
    this.#target = target;
    this.digest = target.digest;
    this.#replies = content.write(this.#requests, call)[Symbol.asyncIterator]();
  }

  /** @throws Failure FailedPrecondition when the bytes are not what they should be: then `mismatched` */
  async run({ labels, source, onProgress }: WriteOptions, signal: AbortSignal): Promise<'written' | 'there'> {
    const { size = Number.POSITIVE_INFINITY } = this.#target;
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
      if (Failure.is(error, 'AlreadyExists')) {
        this.digest ||= /sha256:[0-9a-f]{64}/.exec(error.message)?.[0] ?? '';
        return 'there';
      }
      throw error;
    } finally {
      this.#requests.end();
      await this.#replies.return?.();
    }
  }

  async #send(action: WriteAction, fields: Partial<WriteContentRequest>): Promise<void> {
    const { ref, digest, size = 0 } = this.#target;
    this.#unanswered++;
    // The pipe ends with the answer, which says more than that it ended.
    await this.#requests.write({
      action,
      ref,
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
    if (done === true) throw new Failure('Unavailable', `ref ${this.#target.ref}: the write ended early: unavailable`);
    this.#unanswered--;
    if (value.digest !== '') this.digest = value.digest;
    return value;
  }
}

/** The same bytes in messages of a good size. Memory of a message is used again when its answer must have come. */
async function* inMessages(source: Chunks): AsyncGenerator<Uint8Array, void, undefined> {
  // Unanswered ones, the one that is filled, and one between the two.
  const memory = Array.from({ length: ahead + 3 }, () => undefined as Buffer | undefined);
  let turn = 0;
  let filled = 0;
  try {
    for await (const chunks of source) {
      for (const chunk of chunks) {
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
    }
  } catch (error) {
    // What came before the failure is worth keeping.
    if (filled > 0) yield memory[turn]!.subarray(0, filled);
    throw error;
  }
  if (filled > 0) yield memory[turn]!.subarray(0, filled);
}
