/**
 * What both ends of a link share: posting in batches, slabs, reading through the scheduler, and a close that comes after the last frame.
 */
import { Batch, BatchReader } from './codec.ts';
import type { Frame, Port, PortMessage, Priority } from './frames.ts';
import type { Scheduler } from './scheduler.ts';
import { SlabReceiver, SlabSender, slabThreshold } from './slab.ts';

/**
 * A batch of so many frames goes at once. Kept to the end of the tick, all that is under way between two threads travels to and fro in one batch, and one of them is
 * always idle: 16 make 64 calls in flight half as fast again, and a post costs less than one frame in ten.
 */
const fullFrames = 16;

/** Bytes of a stream that may be under way in one direction before the receiver has consumed any. One message may overdraw it. */
export const streamWindow = 256 * 1024;

/** Credit is given back when so much of it has come together, and not by the message: whoever waits for some has far more than this under way. */
export const creditStep = streamWindow / 4;

/**
 * Memory both ends of a link see, made with the channel. The callee notes the id of a call, by priority, before it runs: when it dies, the
 * caller knows which calls never ran, without an acknowledgement frame per call (which cost a post each, since it must be out before the handler runs).
 * The fourth number is how many headers the callee keeps: none, if it is of a build from before it could, or has not begun.
 */
export function dispatchPage(): SharedArrayBuffer {
  return new SharedArrayBuffer(4 * 4);
}

/** Index of that fourth number. */
export const keepsHeaders = 3;

export abstract class LinkEnd {
  /** Plugin id at the other end, for messages. */
  readonly peer: string;
  protected readonly dispatched: Int32Array;
  readonly #port: Port;
  readonly #scheduler: Scheduler;
  readonly #batches: [Batch, Batch, Batch] = [new Batch(), new Batch(), new Batch()];
  #flushing = false;
  #queued = 0;
  #closed = false;
  #slabOut: SlabSender | undefined;
  #slabIn: SlabReceiver | undefined;

  constructor(peer: string, port: Port, page: SharedArrayBuffer, scheduler: Scheduler) {
    this.peer = peer;
    this.dispatched = new Int32Array(page);
    this.#port = port;
    this.#scheduler = scheduler;
    port.on('message', (message) => this.#received(message));
    port.on('close', () => this.#portClosed());
  }

  get closed(): boolean {
    return this.#closed;
  }

  protected abstract frame(frame: Frame, priority: Priority): void;
  /** The other end is gone and its last frame has been read. Called once. */
  protected abstract ended(): void;

  protected post(header: readonly unknown[], payload: Uint8Array | undefined, priority: Priority): void {
    if (this.#closed) return;
    const reference =
      payload !== undefined && payload.byteLength >= slabThreshold ? this.#intoSlab(payload) : undefined;
    const batch = this.#batches[priority];
    batch.add(header, reference ?? payload, reference !== undefined);
    if (batch.frames >= fullFrames) {
      this.#send(priority);
      return;
    }
    if (this.#flushing) return;
    this.#flushing = true;
    // nextTick runs when the microtasks of this turn are done: the replies of all handlers that settle now go in one post.
    process.nextTick(this.#flush);
  }

  close(): void {
    if (this.#closed) return;
    this.#flush();
    this.#port.close();
  }

  readonly #flush = (): void => {
    this.#flushing = false;
    for (const p of [0, 1, 2] as const) this.#send(p);
  };

  #send(p: Priority): void {
    const b = this.#batches[p].take();
    if (b !== undefined) this.#port.postMessage({ p, b }, [b.buffer]);
  }

  #intoSlab(payload: Uint8Array): Uint8Array | undefined {
    if (this.#slabOut === undefined) {
      this.#slabOut = new SlabSender();
      this.#port.postMessage({ slab: this.#slabOut.memory });
    }
    return this.#slabOut.put(payload);
  }

  #received(message: PortMessage): void {
    // A plugin's code can reach the port as well, and whatever it posts must not throw here: that would end the thread at this end.
    if (!isBatch(message)) {
      this.#takeSlab(message);
      return;
    }
    const reader = new BatchReader(message.b, (reference) => this.#fromSlab(reference));
    const p = message.p;
    this.#queued += 1;
    this.#scheduler.push(
      {
        step: () => {
          let frame: Frame;
          try {
            frame = reader.next();
          } catch (error) {
            // A batch that cannot be read is the peer's defect; there is no telling what else it got wrong.
            reader.abandon();
            this.#queued -= 1;
            this.malformed(error);
            return;
          }
          if (reader.done) this.#queued -= 1;
          this.frame(frame, p);
        },
        get done() {
          return reader.done;
        },
      },
      p,
    );
  }

  #takeSlab(message: unknown): void {
    try {
      this.#slabIn = new SlabReceiver((message as { slab: SharedArrayBuffer }).slab);
    } catch (error) {
      this.malformed(error);
    }
  }

  /** The peer sent bytes that are no frames. */
  protected malformed(_error: unknown): void {
    this.close();
  }

  #fromSlab(reference: Uint8Array): Uint8Array {
    if (this.#slabIn === undefined) throw new RangeError('slab reference before any slab');
    return this.#slabIn.take(reference);
  }

  #portClosed(): void {
    // Frames that arrived before the close may still wait in the scheduler: they count.
    if (this.#queued > 0) {
      setImmediate(() => this.#portClosed());
      return;
    }
    if (this.#closed) return;
    this.#closed = true;
    this.ended();
  }
}

function isBatch(message: unknown): message is { p: Priority; b: Uint8Array } {
  if (typeof message !== 'object' || message === null || !('b' in message) || !('p' in message)) return false;
  const { p, b } = message;
  return b instanceof Uint8Array && (p === 0 || p === 1 || p === 2);
}
