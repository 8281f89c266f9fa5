/**
 * Length-prefixed messages (gRPC over HTTP/2, "Length-Prefixed-Message"): a flag, 32 bits of length, the bytes. Memory is allocated as bytes arrive,
 * never by what a prefix says.
 */
import { own, release } from '../../proto/owned.ts';
import { Failure } from '../sdk/failure.ts';

export const prefixBytes = 5;
const firstCapacity = 16 * 1024;
/** A growing message gets this much more each time: at most so many times what has arrived is allocated. */
const growth = 4;

export class MessageReader {
  readonly #limit: number;
  readonly #prefix = new Uint8Array(prefixBytes);
  #prefixBytes = 0;
  /** The message that is arriving; its buffer may be shorter than it will be. */
  #partial: Uint8Array | undefined;
  #length = 0;
  #have = 0;
  readonly #messages: Uint8Array[] = [];
  #waiting = 0;
  /** Messages that were complete. */
  count = 0;

  /** @param limit bytes of one message */
  constructor(limit: number) {
    this.#limit = limit;
  }

  /** Bytes that are held for the caller. */
  get held(): number {
    return this.#waiting + (this.#partial?.length ?? 0);
  }

  /** A message has begun and is not complete. */
  get partial(): boolean {
    return this.#partial !== undefined || this.#prefixBytes > 0;
  }

  /** `next` has one. */
  get waiting(): boolean {
    return this.#messages.length > 0;
  }

  next(): Uint8Array | undefined {
    const message = this.#messages.shift();
    if (message !== undefined) this.#waiting -= message.length;
    return message;
  }

  /** @throws Failure ResourceExhausted, Internal; the reader is of no use after that */
  push(chunk: Uint8Array): void {
    let at = 0;
    while (at < chunk.length) {
      if (this.#partial !== undefined) {
        const taken = Math.min(this.#length - this.#have, chunk.length - at);
        this.#grow(this.#partial, this.#have + taken).set(chunk.subarray(at, at + taken), this.#have);
        this.#have += taken;
        at += taken;
        if (this.#have === this.#length) this.#complete(this.#partial);
        continue;
      }
      if (this.#prefixBytes === 0 && chunk.length - at >= prefixBytes) {
        const length = this.#check(chunk, at);
        const from = at + prefixBytes;
        if (chunk.length - from >= length) {
          this.#keep(cut(chunk, from, from + length));
          at = from + length;
          continue;
        }
      }
      const taken = Math.min(prefixBytes - this.#prefixBytes, chunk.length - at);
      this.#prefix.set(chunk.subarray(at, at + taken), this.#prefixBytes);
      this.#prefixBytes += taken;
      at += taken;
      if (this.#prefixBytes < prefixBytes) return;
      this.#prefixBytes = 0;
      this.#length = this.#check(this.#prefix, 0);
      this.#have = 0;
      this.#partial = unfilled(Math.min(this.#length, firstCapacity));
      if (this.#length === 0) this.#complete(this.#partial);
    }
  }

  #check(bytes: Uint8Array, at: number): number {
    const flag = bytes[at]!;
    const length = bytes[at + 1]! * 0x100_0000 + ((bytes[at + 2]! << 16) | (bytes[at + 3]! << 8) | bytes[at + 4]!);
    if (flag === 1) throw new Failure('Internal', 'message is marked as compressed, but no encoding was agreed on');
    if (flag !== 0) throw new Failure('Internal', `message has flag ${flag}, which means nothing`);
    if (length > this.#limit) {
      throw new Failure(
        'ResourceExhausted',
        `message of ${length} bytes is larger than ${this.#limit}: resource exhausted`,
      );
    }
    return length;
  }

  #grow(partial: Uint8Array, needed: number): Uint8Array {
    if (partial.length >= needed) return partial;
    const grown = unfilled(Math.min(this.#length, Math.max(needed, partial.length * growth)));
    grown.set(partial.subarray(0, this.#have));
    release(partial);
    this.#partial = grown;
    return grown;
  }

  #complete(message: Uint8Array): void {
    this.#partial = undefined;
    this.#keep(message);
  }

  #keep(message: Uint8Array): void {
    this.count += 1;
    this.#waiting += message.length;
    this.#messages.push(message);
  }
}

/** Memory that is filled to its end before anybody sees it: zeroing a message of 1 MiB first costs as much as its copying. */
function unfilled(bytes: number): Uint8Array {
  return own(Buffer.allocUnsafeSlow(bytes));
}

/** A view keeps the whole read buffer alive, for as long as a Wait is open: only a message that is most of its buffer may do that. */
function cut(chunk: Uint8Array, from: number, to: number): Uint8Array {
  const view = chunk.subarray(from, to);
  return view.length * 4 >= chunk.buffer.byteLength ? view : new Uint8Array(view);
}
