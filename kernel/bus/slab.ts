/**
 * Shared memory for large payloads of one direction of a link.
 *
 *     Int32 × slots   0 free · 1 taken          ← the sender takes (only it), the receiver gives back with one Atomics.store
 *     slots × 64 KiB  payloads, each in a run of adjacent slots
 *
 * Measured against copying by structured clone: 2.5× at 64 KiB and 2× at 1 MiB, with one copy on each side. Handing the consumer a view
 * of the slot instead would save the second copy (2.9× and 3.1×) but would let a plugin that keeps a chunk see it change under its hands.
 * No free run is no error: the payload then rides in the batch.
 */
import { own } from '../../proto/owned.ts';

const slotBytes = 64 * 1024;
const slots = 32;
const headBytes = slots * 4;

/** Payloads below this ride in the batch. */
export const slabThreshold = 16 * 1024;

export class SlabSender {
  readonly memory = new SharedArrayBuffer(headBytes + slots * slotBytes);
  readonly #taken = new Int32Array(this.memory, 0, slots);
  readonly #bytes = new Uint8Array(this.memory, headBytes);
  #next = 0;

  /** Copies the payload in and returns its 8-byte reference; undefined when no run of slots is free. */
  put(payload: Uint8Array): Uint8Array | undefined {
    const needed = Math.ceil(payload.byteLength / slotBytes);
    const first = this.#run(needed);
    if (first === undefined) return undefined;
    for (let slot = first; slot < first + needed; slot++) Atomics.store(this.#taken, slot, 1);
    this.#bytes.set(payload, first * slotBytes);
    this.#next = (first + needed) % slots;
    const reference = new Uint8Array(8);
    const view = new DataView(reference.buffer);
    view.setUint32(0, first, true);
    view.setUint32(4, payload.byteLength, true);
    return reference;
  }

  /** First of `needed` adjacent free slots, searched from behind the last one taken: slots are given back in order. */
  #run(needed: number): number | undefined {
    if (needed > slots) return undefined;
    for (let tried = 0, first = this.#next; tried < slots; tried++, first = (first + 1) % slots) {
      if (first + needed > slots) continue;
      let length = 0;
      while (length < needed && Atomics.load(this.#taken, first + length) === 0) length++;
      if (length === needed) return first;
    }
    return undefined;
  }
}

export class SlabReceiver {
  readonly #taken: Int32Array;
  readonly #bytes: Uint8Array;

  /** @throws TypeError, RangeError when that is no memory of a slab */
  constructor(memory: SharedArrayBuffer) {
    if (!(memory instanceof SharedArrayBuffer) || memory.byteLength < headBytes + slots * slotBytes)
      throw new TypeError('no memory of a slab');
    this.#taken = new Int32Array(memory, 0, slots);
    this.#bytes = new Uint8Array(memory, headBytes);
  }

  /** Copies the payload out and gives its slots back. */
  take(reference: Uint8Array): Uint8Array {
    const view = new DataView(reference.buffer, reference.byteOffset, reference.byteLength);
    const first = view.getUint32(0, true);
    const length = view.getUint32(4, true);
    const used = Math.ceil(length / slotBytes);
    if (first + used > slots) throw new RangeError(`slab reference to slot ${first} of ${slots}, ${length} bytes`);
    // Not zeroed first: all of it is set.
    const bytes: Uint8Array = own(Buffer.allocUnsafeSlow(length));
    bytes.set(this.#bytes.subarray(first * slotBytes, first * slotBytes + length));
    for (let slot = first; slot < first + used; slot++) Atomics.store(this.#taken, slot, 0);
    return bytes;
  }
}
