/**
 * The bytes of a blob from where they are wanted to its end, whatever happens on the way: a connection that breaks is taken up at the byte where it broke, from
 * this host or the next. What the bytes are is for the digest to say, which whoever stores them computes; here their number is what was announced, or an error.
 *
 * A link that gives one connection less than it could is used by several: after the first megabytes, when they came slowly, the rest is fetched in pieces,
 * some of them at once, and handed out in order.
 */
import { Failure } from 'troupe/plugin';
import type { Descriptor } from '../image/document.ts';
import { arrivals } from './arrivals.ts';
import type { HostClient } from './host-client.ts';
import { type Answer, discard, shown, unavailable } from './http.ts';
import { type Registry, unexpectedStatus, unexpectedType } from './registry.ts';
import { type Backoff, isTransient, pause, pauseBefore } from './retry.ts';
import { type Rate, RateWatch } from './watch.ts';

export interface BlobOptions {
  readonly backoff: Backoff;
  readonly rate: Rate;
  /** Bytes of a piece; 0: never in pieces. */
  readonly piece: number;
  /** Pieces at once. */
  readonly pieces: number;
}

type Blob = Pick<Descriptor, 'digest' | 'size' | 'mediaType'>;

/** Chunks in order, as many at a time as have come. */
type Chunks = AsyncGenerator<readonly Uint8Array[], void, undefined>;

/** Bytes after which the speed is known. */
const sample = 8 << 20;
/** Bytes a second that one connection gives where several would bring no more than work. */
const fast = 64 << 20;
/** An attempt that brought this many bytes was none in vain. */
const progress = 64 << 10;

/** @yields `size - from` bytes in all */
export async function* fetchBlob(
  registry: Registry,
  blob: Blob,
  from: number,
  options: BlobOptions,
  signal: AbortSignal,
): Chunks {
  let at = from;
  const began = performance.now();
  let waited = 0;
  let last = performance.now();
  for await (const chunks of fetchRange(registry, blob, at, blob.size, options, signal)) {
    waited += performance.now() - last;
    // Before they are given away: their memory may be gone then.
    at += lengthOf(chunks);
    yield chunks;
    last = performance.now();
    const slow = at - from >= sample && waited > 0 && ((at - from) / waited) * 1000 < fast;
    if (slow && options.piece > 0 && options.pieces > 1 && blob.size - at >= 2 * options.piece && last > began) break;
  }
  if (at < blob.size) yield* inPieces(registry, blob, at, options, signal);
}

/** Pieces in order, the next ones on their way while one is handed out. */
export async function* inPieces(
  registry: Registry,
  blob: Blob,
  from: number,
  options: BlobOptions,
  signal: AbortSignal,
): Chunks {
  const stop = new AbortController();
  const both = AbortSignal.any([signal, stop.signal]);
  const fetch = async (start: number): Promise<Uint8Array[]> => {
    const end = Math.min(start + options.piece, blob.size);
    const all: (readonly Uint8Array[])[] = [];
    for await (const chunks of fetchRange(registry, blob, start, end, options, both)) all.push(chunks);
    return all.flat();
  };
  const begin = (start: number): Promise<Uint8Array[]> => {
    const piece = fetch(start);
    // Looked at in its turn.
    piece.catch(() => {});
    return piece;
  };
  const under: Promise<Uint8Array[]>[] = [];
  let next = from;
  try {
    while (under.length > 0 || next < blob.size) {
      while (under.length < options.pieces && next < blob.size) {
        under.push(begin(next));
        next += options.piece;
      }
      yield await under.shift()!;
    }
  } finally {
    stop.abort(new Failure('Canceled', `blob ${blob.digest}: context canceled`));
    await Promise.allSettled(under);
  }
}

/** Bytes `start` to `end`, over as many connections as break. */
async function* fetchRange(
  registry: Registry,
  blob: Blob,
  start: number,
  end: number,
  options: BlobOptions,
  signal: AbortSignal,
): Chunks {
  const { backoff } = options;
  const broken = new Set<HostClient>();
  let at = start;
  for (let vain = 0; ; ) {
    const before = at;
    // What fails here has been tried again already.
    const open = async (host: HostClient) => ({ host, answer: await openBlob(registry, host, blob, at, end, signal) });
    const { host, answer } = await registry.each('pull', signal, open, broken);
    try {
      for await (const chunks of bodyOf(answer, blob, at, end, options.rate, signal)) {
        at += lengthOf(chunks);
        yield chunks;
      }
      return;
    } catch (error) {
      if (signal.aborted) throw Failure.from(signal.reason);
      // All of it is here, and only the end of the answer is not.
      if (at >= end && Failure.is(error, 'Unavailable')) return;
      vain = at - before >= progress ? 1 : vain + 1;
      if (!Failure.is(error, 'Unavailable') || vain >= backoff.attempts) throw error;
      broken.add(host);
    }
    await pause(pauseBefore(vain, backoff), signal);
  }
}

/** @throws Failure when this host does not give it; the next one may */
async function openBlob(
  registry: Registry,
  host: HostClient,
  blob: Blob,
  at: number,
  end: number,
  signal: AbortSignal,
): Promise<Answer> {
  const whole = at === 0 && end === blob.size;
  const headers = { accept: `${blob.mediaType}, */*`, ...(!whole && { range: `bytes=${at}-${end - 1}` }) };
  const answer = await registry.exchange(host, {
    method: 'GET',
    target: `blobs/${blob.digest}`,
    capability: 'pull',
    headers,
    signal,
  });
  const { status } = answer;
  const where = `blob ${blob.digest} from ${shown(answer.url)}`;
  const refuse = (problem: string): Failure => {
    discard(answer);
    return new Failure('FailedPrecondition', `${where}: ${problem}: failed precondition`);
  };
  if (status !== 200 && status !== 206) {
    if (status === 416) throw refuse(`has no bytes from ${at} on, though it should have ${blob.size}`);
    const failure = unexpectedStatus(answer, 'GET', `blob ${blob.digest}`);
    throw isTransient(status) ? new Failure('Unavailable', failure.message) : failure;
  }
  if ((answer.headers['content-type'] ?? '').startsWith('text/html')) throw unexpectedType(answer);
  if (status === 206) {
    const range = /^bytes (\d+)-(\d+)\/(\d+|\*)$/.exec(answer.headers['content-range'] ?? '');
    if (range === null || Number(range[1]) !== at || Number(range[2]) > end - 1)
      throw refuse(
        `bytes ${at}-${end - 1} were asked for and ${JSON.stringify(answer.headers['content-range']?.slice(0, 100) ?? '')} came`,
      );
    if (range[3] !== '*' && Number(range[3]) !== blob.size)
      throw refuse(`has ${range[3]} bytes, its descriptor says ${blob.size}`);
    return answer;
  }
  const length = answer.headers['content-length'];
  if (length !== undefined && Number(length) !== blob.size)
    throw refuse(`has ${length} bytes, its descriptor says ${blob.size}`);
  return answer;
}

/** What of the body lies between `at` and `end`, exactly. @throws Failure Unavailable when it ends early or comes too slowly, FailedPrecondition when it does not end */
async function* bodyOf(answer: Answer, blob: Blob, at: number, end: number, rate: Rate, signal: AbortSignal): Chunks {
  const { body } = answer;
  const where = `blob ${blob.digest} from ${shown(answer.url)}`;
  const watch = new RateWatch(rate, (bytes) =>
    body.destroy(new Error(`${bytes} bytes in ${rate.windowMs} ms, less than ${rate.least} a second`)),
  );
  // A host that does not know ranges sends all of it.
  let skip = answer.status === 200 ? at : 0;
  let left = end - at;
  const ends = answer.status === 206 || end === blob.size;
  try {
    const events = { waiting: () => watch.waiting(), came: (bytes: number) => watch.came(bytes) };
    for await (const chunks of arrivals(body, events)) {
      const wanted: Uint8Array[] = [];
      for (let chunk of chunks) {
        if (skip > 0) {
          const skipped = Math.min(skip, chunk.length);
          skip -= skipped;
          chunk = chunk.subarray(skipped);
        }
        if (chunk.length > left && ends)
          throw new Failure(
            'FailedPrecondition',
            `${where}: has more than the ${blob.size} bytes of its descriptor: failed precondition`,
          );
        chunk = chunk.subarray(0, left);
        left -= chunk.length;
        if (chunk.length > 0) wanted.push(chunk);
      }
      if (wanted.length > 0) yield wanted;
      if (left === 0 && !ends) return;
    }
    if (left > 0) throw new Failure('Unavailable', `${where}: ends ${left} bytes early: unavailable`);
  } catch (error) {
    throw unavailable(error, where, signal);
  } finally {
    watch.stop();
    body.destroy();
  }
}

function lengthOf(chunks: readonly Uint8Array[]): number {
  return chunks.reduce((length, chunk) => length + chunk.length, 0);
}
