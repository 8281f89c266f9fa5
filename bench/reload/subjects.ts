/** What the calls of a load are about, known to the process that makes them and to the one that prepares and judges. */
import { createHash } from 'node:crypto';

export type PressureKind = 'content' | 'records' | 'snapshots' | 'events';

export interface Pressure {
  readonly calls: number;
  readonly failures: number;
  /** Each with how often. */
  readonly failed: readonly string[];
  /** Milliseconds. */
  readonly p50: number;
  readonly p99: number;
  readonly max: number;
  /** Calls of each lane. */
  readonly lanes: readonly number[];
}

export const namespace = 'bench';
export const inFlight = 64;
/** What nothing refers to is collected otherwise. */
export const kept = { 'containerd.io/gc.root': 'bench' };
/** Topic of the events that the lanes publish, `LANE N` each. */
export const numbers = '/bench/number';

const blobs = 32;
export const blobData = Array.from({ length: blobs }, (_, index) => Buffer.alloc(4096, index));
const digests = blobData.map((data) => `sha256:${createHash('sha256').update(data).digest('hex')}`);
export const blobDigest = (index: number): string => digests[index % blobs]!;
export const containerId = (lane: number): string => `container-${lane}`;
