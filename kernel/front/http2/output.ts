/**
 * Frames on their way to a socket: those of one turn leave in one write. Small ones are copied into a page, large payloads go as they are.
 */
import type { Duplex } from 'node:stream';
import { frameHeadBytes, writeHead } from './frames.ts';

const pageBytes = 64 * 1024;
/** From here on copying costs more than another entry in the vector that the socket writes. */
const copyLimit = 2048;

export class Output {
  readonly #socket: Duplex;
  readonly #writable: () => void;
  #page: Buffer | undefined;
  /** What of the page has not been handed on yet lies between these. */
  #from = 0;
  #to = 0;
  #parts: Uint8Array[] = [];
  #partBytes = 0;
  #scheduled = false;
  #idle = true;

  /** `writable` is called whenever frames have left: there may be room for more. The socket's `drain` is the caller's to hear. */
  constructor(socket: Duplex, writable: () => void) {
    this.#socket = socket;
    this.#writable = writable;
  }

  /** Bytes that the socket has not taken. */
  get pending(): number {
    return this.#partBytes + this.#to - this.#from + this.#socket.writableLength;
  }

  /** The socket has as much as it should hold; its `drain` tells when to go on. */
  get full(): boolean {
    return this.#socket.writableNeedDrain || this.#partBytes + this.#to - this.#from >= 128 * 1024;
  }

  add(frame: Uint8Array): void {
    if (frame.length > copyLimit) this.#attach(frame);
    else this.#room(frame.length).set(frame, this.#to - frame.length);
    this.#schedule();
  }

  /** A frame in two parts: its head, and a payload that must not change until it is written. */
  addFrame(type: number, flags: number, streamId: number, payload: Uint8Array): void {
    const copied = payload.length <= copyLimit;
    const size = frameHeadBytes + (copied ? payload.length : 0);
    const page = this.#room(size);
    const at = this.#to - size;
    writeHead(page, at, payload.length, type, flags, streamId);
    if (copied) page.set(payload, at + frameHeadBytes);
    else this.#attach(payload);
    this.#schedule();
  }

  /** The page with `size` bytes reserved before `#to`. */
  #room(size: number): Buffer {
    if (this.#page === undefined || this.#page.length - this.#to < size) {
      this.#cut();
      this.#page = Buffer.allocUnsafeSlow(pageBytes);
      this.#from = 0;
      this.#to = 0;
    }
    this.#to += size;
    return this.#page;
  }

  #attach(bytes: Uint8Array): void {
    this.#cut();
    this.#parts.push(bytes);
    this.#partBytes += bytes.length;
  }

  #cut(): void {
    if (this.#page === undefined || this.#to === this.#from) return;
    this.#parts.push(this.#page.subarray(this.#from, this.#to));
    this.#partBytes += this.#to - this.#from;
    this.#from = this.#to;
  }

  #schedule(): void {
    this.#idle = false;
    if (this.#scheduled) return;
    this.#scheduled = true;
    // After the microtasks and the bus' scheduler have had their turn: all answers of one batch go out together.
    process.nextTick(this.flush);
  }

  readonly flush = (): void => {
    this.#scheduled = false;
    if (this.#socket.destroyed || this.#socket.writableEnded) {
      this.#parts = [];
      this.#partBytes = 0;
      this.#from = this.#to;
      return;
    }
    this.#cut();
    const parts = this.#parts;
    if (parts.length === 0) return;
    this.#parts = [];
    this.#partBytes = 0;
    if (parts.length === 1) this.#socket.write(parts[0]!);
    else {
      this.#socket.cork();
      for (const part of parts) this.#socket.write(part);
      this.#socket.uncork();
    }
    if (!this.#socket.writableNeedDrain) this.#writable();
  };

  /** Called now and then: a connection that has nothing to say keeps no page. */
  relax(): void {
    if (this.#idle && this.#from === this.#to) this.#page = undefined;
    this.#idle = true;
  }
}
