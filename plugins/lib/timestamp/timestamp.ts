/**
 * Wall-clock time with real nanoseconds. Clients check that a time they are told lies between two of their own clock
 * readings tens of microseconds apart, so Date's milliseconds fail them: the monotonic clock counts, the wall clock says where from.
 */
import type { Timestamp } from 'troupe/proto/google/protobuf/timestamp.ts';

/** How far the two clocks may seem apart before the wall clock is read anew, ns: more than a few instructions between two readings take. */
const tolerance = 200_000n;
const millisecond = 1_000_000n;

let origin = calibrate();
let newest = 0n;

/**
 * Nanoseconds since the epoch. Never goes back by less than the tolerance between two calls, so that records made in
 * order have times in order; follows the wall clock when that is set.
 */
export function nowNanoseconds(): bigint {
  let now = origin + process.hrtime.bigint();
  // Date.now() is cut to the millisecond, so a good clock is ahead of it by up to one.
  const ahead = now - BigInt(Date.now()) * millisecond;
  if (ahead < -tolerance || ahead > tolerance + millisecond) {
    origin = calibrate();
    now = origin + process.hrtime.bigint();
  }
  if (now <= newest && newest - now < tolerance) now = newest + 1n;
  newest = now;
  return now;
}

/** Now, as protobuf has it. */
export function now(): Timestamp {
  return fromNanoseconds(nowNanoseconds());
}

/** @param nanoseconds since the epoch; may be negative, `nanos` of the result never is. */
export function fromNanoseconds(nanoseconds: bigint): Timestamp {
  const nanos = ((nanoseconds % 1_000_000_000n) + 1_000_000_000n) % 1_000_000_000n;
  return { seconds: (nanoseconds - nanos) / 1_000_000_000n, nanos: Number(nanos) };
}

/** Nanoseconds since the epoch, as columns hold them (INTEGER). Undefined is 0: Go's zero time is not representable, and nobody asks for it. */
export function toNanoseconds(timestamp: Timestamp | undefined): bigint {
  return timestamp === undefined ? 0n : timestamp.seconds * 1_000_000_000n + BigInt(timestamp.nanos);
}

/** RFC 3339 in UTC with as many digits as the time has, as Go's time.RFC3339Nano. */
export function formatRfc3339(nanoseconds: bigint): string {
  const { seconds, nanos } = fromNanoseconds(nanoseconds);
  const fraction = nanos === 0 ? '' : `.${nanos.toString().padStart(9, '0').replace(/0+$/, '')}`;
  return `${new Date(Number(seconds) * 1000).toISOString().slice(0, 19)}${fraction}Z`;
}

/**
 * Wall clock minus monotonic clock. Waits, at most a millisecond and once in a thread, for the wall clock's millisecond to change: only then is
 * it known better than to a millisecond. performance.timeOrigin will not do: it is the wall clock of process start, and keeps its error when the clock is set.
 */
function calibrate(): bigint {
  for (let attempt = 0; ; attempt++) {
    let wall = Date.now();
    let earlier = process.hrtime.bigint();
    for (;;) {
      const next = Date.now();
      const monotonic = process.hrtime.bigint();
      if (next !== wall) {
        // A thread that was put aside between the readings knows nothing; on a machine that always does this, something is better than nothing.
        if ((next === wall + 1 && monotonic - earlier < 20_000n) || attempt === 20)
          return BigInt(next) * millisecond - monotonic;
        break;
      }
      wall = next;
      earlier = monotonic;
    }
  }
}
