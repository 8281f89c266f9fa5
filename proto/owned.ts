/**
 * Memory of large messages, let go of by who is done with it.
 *
 * Left to the collector, the messages of a GB have it mark the heap some hundred times in each thread that they pass, since all it sees of them is how fast they
 * become more: a seventh of the processor time of an import through Transfer (measured).
 */

/** Bytes below which it is not worth the bookkeeping, nor a look at it with every small message; Node's pool, 64 KiB, is below. */
const worthwhile = 128 * 1024;

/** Buffers that hold one message and nothing else. */
const buffers = new WeakSet<ArrayBufferLike>();

/** Notes that the buffer of these bytes holds nothing beside them, and is known to nobody else. */
export function own<T extends Uint8Array>(bytes: T): T {
  if (bytes.buffer.byteLength >= worthwhile) buffers.add(bytes.buffer);
  return bytes;
}

/**
 * Frees the message that these bytes are a part of, now, if its memory is known to hold nothing else; otherwise nothing happens. Who calls has seen to it that
 * nobody has use for any byte of it, a system call on another thread included: every view of it is empty from now on.
 */
export function release({ buffer }: Uint8Array): void {
  if (buffer.byteLength >= worthwhile && buffer instanceof ArrayBuffer && buffers.delete(buffer)) buffer.transfer(0);
}
