/** Streams between the call that a client opened and the one inside the daemon that takes it, by namespace and id. */
import { Failure } from 'troupe/plugin';
import type { Any } from 'troupe/proto/google/protobuf/any.ts';
import { quote } from '../lib/identifier/quote.ts';
import { Pipe } from '../lib/pipe/pipe.ts';

/** Both directions of one stream. */
export class OpenStream {
  readonly fromClient = new Pipe<Any>();
  readonly toClient = new Pipe<Any>();
  taken = false;

  /** Neither side goes on. */
  end(reason?: Failure): void {
    this.fromClient.end(reason);
    this.toClient.end(reason);
  }
}

export class OpenStreams {
  readonly #limit: number;
  readonly #open = new Map<string, OpenStream>();

  constructor(limit: number) {
    this.#limit = limit;
  }

  /** @throws Failure InvalidArgument, AlreadyExists, ResourceExhausted */
  open(namespace: string, id: string): OpenStream {
    if (id === '' || id.length > 1024)
      throw new Failure('InvalidArgument', 'a stream needs an id of 1 to 1024 characters: invalid argument');
    const key = keyOf(namespace, id);
    if (this.#open.has(key)) throw new Failure('AlreadyExists', `stream ${quote(id)}: already exists`);
    if (this.#open.size >= this.#limit)
      throw new Failure('ResourceExhausted', `${this.#limit} streams are open: resource exhausted`);
    const stream = new OpenStream();
    this.#open.set(key, stream);
    return stream;
  }

  close(namespace: string, id: string): void {
    this.#open.delete(keyOf(namespace, id));
  }

  /** @throws Failure NotFound when nobody opened it, or somebody has it */
  take(namespace: string, id: string): OpenStream {
    const stream = this.#open.get(keyOf(namespace, id));
    if (stream === undefined || stream.taken)
      throw new Failure('NotFound', `stream ${quote(id.slice(0, 200))}: not found`);
    stream.taken = true;
    return stream;
  }
}

function keyOf(namespace: string, id: string): string {
  return `${namespace}/${id}`;
}
