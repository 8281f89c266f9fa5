/**
 * A stream of a client's that a transfer takes part in: messages, or an archive's bytes under the credit that containerd's streams have
 * (`containerd.types.transfer.Data` and `WindowUpdate`).
 */
import { type CallOptions, type Client, Failure } from 'troupe/plugin';
import { StreamInit } from 'troupe/proto/containerd/services/streaming/v1/streaming.ts';
import { Data, WindowUpdate } from 'troupe/proto/containerd/types/transfer/stream.ts';
import type { Any } from 'troupe/proto/google/protobuf/any.ts';
import { End, type StreamsDefinition } from 'troupe/proto/troupe/streaming/v1/streams.ts';
import { Pipe } from '../lib/pipe/pipe.ts';

/** Any message that knows its name. */
interface Named<T> {
  readonly $type: string;
  encode(message: T): { finish(): Uint8Array };
  decode(bytes: Uint8Array): T;
}

/** Credit for the client, bytes: containerd gives 64 KiB, and its clients send as much as they may in pieces of 32 KiB. */
const window = 2 << 20;
/** Most bytes of one message to a client that reads an archive; one of containerd's gives credit for 64 KiB at a time, and never gets more. */
const piece = 1 << 20;

export class ClientStream {
  readonly #sent: Pipe<Any>;
  readonly #received: AsyncIterator<Any>;

  private constructor(sent: Pipe<Any>, received: AsyncIterator<Any>) {
    this.#sent = sent;
    this.#received = received;
  }

  /** @throws Failure NotFound */
  static async take(streams: Client<typeof StreamsDefinition>, id: string, call: CallOptions): Promise<ClientStream> {
    const sent = new Pipe<Any>();
    const received = streams
      .attach(sent, { namespace: call.namespace ?? '', ...(call.signal && { signal: call.signal }) })
      [Symbol.asyncIterator]();
    const init = StreamInit.encode({ id }).finish();
    const [, first] = await Promise.all([sent.write({ typeUrl: StreamInit.$type, value: init }), received.next()]);
    if (first.done === true) throw new Failure('NotFound', `stream ${JSON.stringify(id)} has ended: not found`);
    return new ClientStream(sent, received);
  }

  /** @returns false when the client does not listen any more */
  send<T>(type: Named<T>, message: T): Promise<boolean> {
    return this.#sent.write({ typeUrl: type.$type, value: type.encode(message).finish() });
  }

  /** The next message; undefined when the client has no more. @throws Failure InvalidArgument for another type; what ended the stream */
  async receive<T>(type: Named<T>): Promise<T | undefined> {
    const { done, value } = await this.#received.next();
    if (done === true) return undefined;
    const name = value.typeUrl.slice(value.typeUrl.lastIndexOf('/') + 1);
    if (name === type.$type) return type.decode(value.value);
    if (name === End.$type) return undefined;
    throw new Failure('InvalidArgument', `stream: a ${name.slice(0, 100)} came, not a ${type.$type}: invalid argument`);
  }

  /** The bytes of an archive, as the client sends them. */
  async *bytes(): AsyncGenerator<Uint8Array, void, undefined> {
    let credit = 0;
    try {
      for (;;) {
        if (credit <= window / 2) {
          const update = window - credit;
          if (await this.send(WindowUpdate, { update })) credit += update;
        }
        const message = await this.receive(Data);
        if (message === undefined) return;
        credit -= message.data.length;
        yield message.data;
      }
    } finally {
      this.close();
    }
  }

  /** Sends an archive's bytes as far as the client has given credit. @throws Failure Canceled when it stops listening */
  async write(chunks: AsyncIterable<Uint8Array>): Promise<void> {
    let credit = 0;
    for await (const chunk of chunks) {
      for (let at = 0; at < chunk.length; ) {
        while (credit <= 0) {
          const message = await this.receive(WindowUpdate);
          if (message === undefined) throw new Failure('Canceled', 'the client closed its stream: context canceled');
          credit += message.update;
        }
        const data = chunk.subarray(at, at + Math.min(piece, credit));
        if (!(await this.send(Data, { data })))
          throw new Failure('Canceled', 'the client closed its stream: context canceled');
        credit -= data.length;
        at += data.length;
      }
    }
  }

  /**
   * Ends the stream for the client, once it has what was sent. What it still says is thrown away; its end, or its failure, is nobody's business any
   * more.
   */
  close(): void {
    this.#sent.end();
    this.#drain().catch(() => {});
  }

  async #drain(): Promise<void> {
    while ((await this.#received.next()).done !== true);
  }
}
