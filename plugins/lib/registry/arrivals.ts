/**
 * The body of an answer as it comes: all that has come since the last time at once. Each turn of a chain of async iterators takes as long as the system needs to
 * hand over some ten KiB, and a body of half a GB comes in nine thousand chunks.
 */
import type { Readable } from 'node:stream';
import { finished } from 'node:stream';

/** Bytes that lie ready at most, and the chunk that passes it: from there on the connection waits. */
const most = 512 << 10;
/** The same of chunks, which may be as small as a byte. */
const mostChunks = 256;

export interface ArrivalEvents {
  /** Nothing is there, and the reader waits. */
  waiting(): void;
  came(bytes: number): void;
}

/** @yields chunks in order, one or more. @throws what ended the body before its end */
export async function* arrivals(
  body: Readable,
  events: ArrivalEvents,
): AsyncGenerator<readonly Buffer[], void, undefined> {
  let chunks: Buffer[] = [];
  let size = 0;
  let ended: { readonly error: Error | null | undefined } | undefined;
  let wake = (): void => {};
  const onData = (chunk: Buffer): void => {
    events.came(chunk.length);
    chunks.push(chunk);
    size += chunk.length;
    if (size >= most || chunks.length >= mostChunks) body.pause();
    // Behind the others that the system has: they come one by one, before the loop turns.
    if (chunks.length === 1) setImmediate(() => wake());
  };
  const forget = finished(body, { writable: false }, (error) => {
    ended = { error };
    wake();
  });
  body.on('data', onData);
  try {
    for (;;) {
      if (chunks.length === 0) {
        if (ended !== undefined) break;
        events.waiting();
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
        continue;
      }
      const come = chunks;
      chunks = [];
      size = 0;
      body.resume();
      yield come;
    }
    if (ended.error) throw ended.error;
  } finally {
    forget();
    body.off('data', onData);
  }
}
