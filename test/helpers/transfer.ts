/** Transfer as a client of containerd 2 uses it: ends in Anys, streams that it opens first and names, progress until the stream ends. */
import type { CallOptions } from 'troupe/plugin';
import { StreamInit, StreamingDefinition } from 'troupe/proto/containerd/services/streaming/v1/streaming.ts';
import { TransferDefinition } from 'troupe/proto/containerd/services/transfer/v1/transfer.ts';
import { ImageStore } from 'troupe/proto/containerd/types/transfer/image_store.ts';
import { Progress } from 'troupe/proto/containerd/types/transfer/progress.ts';
import {
  AuthRequest,
  AuthResponse,
  OCIRegistry,
  type RegistryResolver,
} from 'troupe/proto/containerd/types/transfer/registry.ts';
import { Data, WindowUpdate } from 'troupe/proto/containerd/types/transfer/stream.ts';
import type { Any } from 'troupe/proto/google/protobuf/any.ts';
import type { DeepPartial, MessageFns } from '../../proto/message.ts';
import { type GrpcClient, typedClient } from '../../kernel/front/client.ts';

/** A message as Go's typeurl packs it: its full name, without a prefix. */
export function pack<T, N extends string>(codec: MessageFns<T, N>, message: DeepPartial<T>): Any {
  return { typeUrl: codec.$type, value: codec.encode(codec.fromPartial(message)).finish() };
}

export function registryEnd(reference: string, resolver?: DeepPartial<RegistryResolver>): Any {
  return pack(OCIRegistry, { reference, ...(resolver !== undefined && { resolver }) });
}

export function storeEnd(store: DeepPartial<ImageStore>): Any {
  return pack(ImageStore, store);
}

/** One stream, from its StreamInit on. */
export class OpenedStream {
  readonly id: string;
  readonly #requests: Queue;
  readonly #replies: AsyncIterator<Any>;

  readonly #abort: AbortController;

  private constructor(id: string, requests: Queue, replies: AsyncIterator<Any>, abort: AbortController) {
    this.id = id;
    this.#abort = abort;
    this.#requests = requests;
    this.#replies = replies;
  }

  static async open(client: GrpcClient, id: string, call: CallOptions): Promise<OpenedStream> {
    const requests = new Queue();
    const abort = new AbortController();
    const options = { ...call, signal: abort.signal };
    const replies = typedClient(client, StreamingDefinition).stream(requests, options)[Symbol.asyncIterator]();
    requests.push(pack(StreamInit, { id }));
    const { value, done } = await replies.next();
    if (done === true || (value as Any).typeUrl !== 'google.protobuf.Empty')
      throw new Error('the stream was not opened');
    return new OpenedStream(id, requests, replies, abort);
  }

  send(message: Any): void {
    this.#requests.push(message);
  }

  async receive<T>(codec: MessageFns<T, string>): Promise<T | undefined> {
    const { value, done } = await this.#replies.next();
    if (done === true) return undefined;
    if (value.typeUrl !== codec.$type) throw new Error(`a ${value.typeUrl} came, not a ${codec.$type}`);
    return codec.decode(value.value);
  }

  /** Sends an archive as fast as credit comes. */
  async sendBytes(bytes: Uint8Array, piece = 32 << 10): Promise<void> {
    for (let at = 0, credit = 0; at < bytes.length; ) {
      while (credit <= 0) {
        const update = await this.receive(WindowUpdate);
        if (update === undefined) return;
        credit += update.update;
      }
      const data = bytes.subarray(at, at + Math.min(piece, credit));
      this.send(pack(Data, { data }));
      at += data.length;
      credit -= data.length;
    }
    this.halfClose();
  }

  /** Receives an archive, with credit of 64 KiB as containerd's client gives. */
  async receiveBytes(): Promise<Buffer> {
    const chunks: Uint8Array[] = [];
    for (let credit = 0; ; ) {
      if (credit < 64 << 10) {
        this.send(pack(WindowUpdate, { update: 64 << 10 }));
        credit += 64 << 10;
      }
      const message = await this.receive(Data);
      if (message === undefined) return Buffer.concat(chunks);
      credit -= message.data.length;
      chunks.push(message.data);
    }
  }

  halfClose(): void {
    this.#requests.end();
  }

  /** Also of one that the daemon never took. Who waits for a message of it gets an error. */
  close(): void {
    this.#requests.end();
    this.#abort.abort();
  }
}

class Queue implements AsyncIterable<Any> {
  readonly #messages: Any[] = [];
  #ended = false;
  #wake = (): void => {};

  push(message: Any): void {
    this.#messages.push(message);
    this.#wake();
  }

  end(): void {
    this.#ended = true;
    this.#wake();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Any> {
    for (;;) {
      const head = this.#messages.shift();
      if (head !== undefined) yield head;
      else if (this.#ended) return;
      else {
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
      }
    }
  }
}

let streams = 0;

/** A transfer with its progress. Rejects as the call does. */
export async function transfer(
  client: GrpcClient,
  source: Any,
  destination: Any,
  call: CallOptions,
): Promise<Progress[]> {
  const stream = await OpenedStream.open(client, `progress-${process.pid}-${++streams}`, call);
  const seen: Progress[] = [];
  const watching = (async () => {
    for (let each = await stream.receive(Progress); each !== undefined; each = await stream.receive(Progress))
      seen.push(each);
  })();
  try {
    await typedClient(client, TransferDefinition).transfer(
      { source, destination, options: { progressStream: stream.id } },
      call,
    );
    await watching;
    return seen;
  } finally {
    stream.close();
    await watching.catch(() => {});
  }
}

/** Answers questions for credentials until the stream ends; what was asked. */
export async function answerAuth(
  stream: OpenedStream,
  answer: (request: AuthRequest) => DeepPartial<AuthResponse>,
): Promise<AuthRequest[]> {
  const asked: AuthRequest[] = [];
  for (let each = await stream.receive(AuthRequest); each !== undefined; each = await stream.receive(AuthRequest)) {
    asked.push(each);
    stream.send(pack(AuthResponse, answer(each)));
  }
  return asked;
}
