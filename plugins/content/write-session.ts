/** One stream of Content.Write: requests in, a response each. What the words of a request mean; what they do is the writer's. */
import { type Call, Failure } from 'troupe/plugin';
import {
  WriteAction,
  type WriteContentRequest,
  type WriteContentResponse,
} from 'troupe/proto/containerd/services/content/v1/content.ts';
import { copyLabels, validateLabels } from '../lib/label/label.ts';
import { requireNamespace } from '../lib/namespace/namespace.ts';
import { toWriteResponse } from './convert.ts';
import type { Writer } from './writer.ts';
import type { Writers } from './writers.ts';

/** Bytes from which on a write is answered before it is done; below, hashing takes no longer than the answer. */
const bulk = 128 << 10;

/** A writer, and what the client has said so far of total and digest. */
export class WriteSession {
  readonly #writer: Writer;
  #total = 0n;
  #expected = '';
  #first = true;

  private constructor(writer: Writer) {
    this.#writer = writer;
  }

  static async open(
    writers: Writers,
    { ref, total, expected }: WriteContentRequest,
    call: Call,
  ): Promise<WriteSession> {
    if (ref === '') throw new Failure('InvalidArgument', 'first message must have a reference: invalid argument');
    const { lease, signal } = call;
    const namespace = requireNamespace(call);
    return new WriteSession(await writers.open({ namespace, ref, total, expected, lease, signal }));
  }

  async step(request: WriteContentRequest): Promise<WriteContentResponse> {
    await this.#prepare(request);
    switch (request.action) {
      case WriteAction.STAT:
        break;
      case WriteAction.COMMIT:
        validateLabels(request.labels, 'info.Labels');
        await this.#write(request);
        await this.#writer.commit(this.#total, this.#expected, copyLabels(request.labels));
        break;
      case WriteAction.WRITE:
        await this.#write(request);
        break;
      default:
        throw new Failure('InvalidArgument', `write action ${request.action}: invalid argument`);
    }
    return toWriteResponse(this.#writer, request.action, this.#total);
  }

  /** Whether it is worth more to the client to hear at once that its bytes were taken than to wait until they are hashed. */
  static isBulk({ action, data }: WriteContentRequest): boolean {
    return action === WriteAction.WRITE && data.length >= bulk;
  }

  /**
   * The answer to a bulk write, which `append` is to follow. A write is durable only with its commit, so this promises no more than one that comes after. Without a digest: "implementation defined" (content.proto), and it would have to be waited for.
   */
  async accept(request: WriteContentRequest): Promise<WriteContentResponse> {
    await this.#prepare(request);
    await this.#writer.seek(request.offset);
    const response = toWriteResponse(this.#writer, request.action, this.#total);
    return { ...response, offset: response.offset + BigInt(request.data.length), digest: '' };
  }

  append({ data }: WriteContentRequest): Promise<void> {
    return this.#writer.append(data);
  }

  close(): Promise<void> {
    return this.#writer.close();
  }

  async #prepare({ total, expected }: WriteContentRequest): Promise<void> {
    if (total > 0n) this.#total = total;
    if (expected !== '') {
      this.#expected = expected;
      // Opening has looked already.
      if (!this.#first) await this.#writer.refuseKnown(expected);
    }
    this.#first = false;
  }

  async #write({ offset, data }: WriteContentRequest): Promise<void> {
    await this.#writer.seek(offset);
    await this.#writer.append(data);
  }
}
