/** Bytes from a pool thread to the thread that owns the pool, a few chunks ahead of the reader and no more. */

import type { MessagePort } from 'node:worker_threads';

/** Chunks that may be under way. */
const AHEAD = 8;

type Message = { readonly chunk: Uint8Array } | { readonly end: true };

/** The writing end. */
export class ChunkSender {
  readonly #port: MessagePort;
  #unread = 0;
  #closed = false;
  #wake: (() => void) | undefined;

  constructor(port: MessagePort) {
    this.#port = port;
    port.on('message', () => {
      this.#unread--;
      this.#wake?.();
    });
    port.on('close', () => {
      this.#closed = true;
      this.#wake?.();
    });
  }

  /** Resolves when there is room for the next; false when nobody reads any more. */
  async send(bytes: Uint8Array): Promise<boolean> {
    // A copy of its own, which then moves: what compression gives lies in larger memory.
    const chunk = new Uint8Array(bytes);
    this.#port.postMessage({ chunk } satisfies Message, [chunk.buffer]);
    this.#unread++;
    while (this.#unread >= AHEAD && !this.#closed) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    return !this.#closed;
  }

  end(): void {
    this.#port.postMessage({ end: true } satisfies Message);
    this.#port.close();
  }
}

/** The reading end. Leaving the loop closes it, which the sender learns; so does the death of the sender's thread, which ends the loop. */
export async function* receiveChunks(port: MessagePort): AsyncGenerator<Uint8Array, void, undefined> {
  const queue: Message[] = [];
  let wake: (() => void) | undefined;
  let closed = false;
  port.on('message', (message: Message) => {
    queue.push(message);
    wake?.();
  });
  port.on('close', () => {
    closed = true;
    wake?.();
  });
  try {
    for (;;) {
      const message = queue.shift();
      if (message === undefined) {
        if (closed) return;
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
        continue;
      }
      if ('end' in message) return;
      yield message.chunk;
      port.postMessage(null);
    }
  } finally {
    port.close();
  }
}
