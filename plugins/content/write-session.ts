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
    if (request.total > 0n) this.#total = request.total;
    if (request.expected !== '') {
      this.#expected = request.expected;
      // Opening has looked already.
      if (!this.#first) await this.#writer.refuseKnown(request.expected);
    }
    this.#first = false;
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

  close(): Promise<void> {
    return this.#writer.close();
  }

  async #write({ offset, data }: WriteContentRequest): Promise<void> {
    await this.#writer.seek(offset);
    await this.#writer.append(data);
  }
}
