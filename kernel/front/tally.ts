/** Counts of calls by method, kept as plain numbers on the path of a call and turned into metrics when somebody asks. */
import type { Failure } from '../sdk/failure.ts';

export type CallKind = 'unary' | 'server_stream' | 'client_stream' | 'bidi_stream';

/** Upper bounds in seconds: Prometheus' defaults, as containerd has them. */
export const histogramBounds = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10] as const;

export class MethodTally {
  readonly kind: CallKind;
  readonly service: string;
  readonly method: string;
  started = 0;
  received = 0;
  sent = 0;
  /** Ended calls by code, `OK` among them. */
  readonly ended = new Map<string, number>();
  /** Calls per bound, the last for those above all; seconds in all. */
  readonly buckets = new Array<number>(histogramBounds.length + 1).fill(0);
  seconds = 0;

  constructor(kind: CallKind, service: string, method: string) {
    this.kind = kind;
    this.service = service;
    this.method = method;
  }

  end(failure: Failure | undefined, seconds: number): void {
    const code = failure?.code ?? 'OK';
    this.ended.set(code, (this.ended.get(code) ?? 0) + 1);
    this.seconds += seconds;
    let bucket = 0;
    while (bucket < histogramBounds.length && seconds > histogramBounds[bucket]!) bucket += 1;
    this.buckets[bucket]! += 1;
  }
}

/** Calls of methods that nobody serves, under one name whatever was asked for: a label must not be a client's to choose. */
export const unknownTally = new MethodTally('unary', 'unknown', 'unknown');
