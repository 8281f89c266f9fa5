/**
 * What a transfer tells its client while it runs, with containerd's names of events. A client that reads slowly holds nobody up: of what changes it gets the
 * newest, and the rest of the words wait for it in order.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { Progress as ProgressMessage } from 'troupe/proto/containerd/types/transfer/progress.ts';
import type { Descriptor } from '../lib/image/document.ts';
import { refKey } from '../lib/image/media-type.ts';
import type { ClientStream } from './client-stream.ts';

/** Between two messages about the same thing, ms. */
const pause = 100;
/** For the last words, ms. */
const patience = 2000;

type Told = Pick<Descriptor, 'mediaType' | 'digest' | 'size'> & {
  readonly annotations?: Readonly<Record<string, string>>;
};

export class Progress {
  readonly #stream: ClientStream | undefined;
  readonly #pending = new Map<string, ProgressMessage>();
  readonly #parents = new Map<string, readonly string[]>();
  #words = 0;
  #pump: Promise<void> | undefined;
  #hurry = new AbortController();
  #ended = false;

  /** @param stream undefined when nobody looks */
  constructor(stream: ClientStream | undefined) {
    this.#stream = stream;
  }

  /** Something that is said once. */
  say(event: string, name = '', descriptor?: Told): void {
    this.#put(`word ${this.#words++}`, {
      event,
      name,
      parents: [],
      progress: 0n,
      total: 0n,
      desc: descriptorOf(descriptor),
    });
  }

  /** A thing of the image, and what it belongs to. */
  add(descriptor: Told, parent: Told | undefined, root: string): void {
    const key = refKey(descriptor);
    if (this.#parents.has(key)) return;
    this.#parents.set(key, [parent === undefined ? root : refKey(parent)]);
    this.update('waiting', descriptor, 0);
  }

  update(event: string, descriptor: Told, progress: number, total = descriptor.size): void {
    const name = refKey(descriptor);
    this.#put(event === 'waiting' ? `${name} waiting` : name, {
      event,
      name,
      parents: [...(this.#parents.get(name) ?? [])],
      progress: BigInt(progress),
      total: BigInt(total),
      desc: descriptorOf(descriptor),
    });
  }

  /** Says the rest, and ends the stream. */
  async end(): Promise<void> {
    this.#ended = true;
    this.#hurry.abort();
    const late = new AbortController();
    await Promise.race([this.#pump, sleep(patience, undefined, { signal: late.signal }).catch(() => {})]);
    late.abort();
    this.#stream?.close();
  }

  #put(key: string, message: ProgressMessage): void {
    if (this.#stream === undefined) return;
    this.#pending.set(key, message);
    this.#pump ??= this.#send(this.#stream);
  }

  async #send(stream: ClientStream): Promise<void> {
    try {
      while (this.#pending.size > 0) {
        for (const [key, message] of this.#pending) {
          this.#pending.delete(key);
          if (!(await stream.send(ProgressMessage, message))) return;
        }
        if (!this.#ended) await sleep(pause, undefined, { signal: this.#hurry.signal }).catch(() => {});
      }
    } finally {
      this.#pump = undefined;
    }
  }
}

function descriptorOf(descriptor: Told | undefined): ProgressMessage['desc'] {
  if (descriptor === undefined) return undefined;
  const { mediaType, digest, size, annotations = {} } = descriptor;
  return { mediaType, digest, size: BigInt(size), annotations: { ...annotations } };
}
