/**
 * What one generation hands over to the next, as bytes: the kernel passes them on without looking, so that its loop, which everybody's reloads and deaths wait
 * for, does not stand still for a large state; and it can give them back to the generation that they came from.
 */
import { deserialize, serialize } from 'node:v8';

/** In shared memory, so that passing it on copies nothing; nobody writes to it again. */
export type HandedOver = SharedArrayBuffer;

/** @throws DataCloneError for what structured clone does not take: functions, class instances lose their class */
export function handOver(state: unknown): HandedOver | undefined {
  if (state === undefined) return undefined;
  const bytes = serialize(state);
  const shared = new SharedArrayBuffer(bytes.byteLength);
  new Uint8Array(shared).set(bytes);
  return shared;
}

/** A copy of the state: what is done to it is seen by nobody else. */
export function takeOver(handed: HandedOver | undefined): unknown {
  return handed === undefined ? undefined : deserialize(new Uint8Array(handed).slice());
}
