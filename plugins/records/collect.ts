/**
 * Mark and sweep.
 *
 * The walk runs on a snapshot, beside the writer; what it found dead is removed by commits that look again, under the writer, whether each node
 * is still dead: only if something was committed since, and only at what leads to that node. So a lost race costs a few reads and never a second walk.
 *
 * A sweep is cut into commits of bounded size, referrers first. Between two of them the database is whole: what is left of
 * the dead still has all it refers to, and can be brought back by a new edge.
 */
import type { DatabaseSync } from 'node:sqlite';
import { failpoint } from 'troupe/plugin';
import type { Engine } from './engine.ts';
import { type Mark, mark } from './graph.ts';
import { Sweep } from './sweep.ts';
import { runThread } from './thread.ts';

export interface Collected {
  /** Nodes removed. */
  readonly swept: number;
  /** Nodes found reachable. */
  readonly marked: number;
  readonly durationMs: number;
}

export interface CollectOptions {
  /** Whether to mark in a thread of its own; default: when the database is too large to do it here between two batches. */
  readonly thread?: boolean;
  readonly signal?: AbortSignal;
  /** Called between mark and sweep. */
  readonly marked?: (mark: Mark) => Promise<void> | void;
}

/** Pages of a database that is walked in some ten milliseconds: starting a thread takes longer, and a client that deletes with `sync` waits for it. */
const smallDatabase = 512;
/** Nodes removed by one commit: some tens of milliseconds under the writer. */
const sweepSize = 500;

/** Marks and sweeps once. Resolves when the last removal is durable. */
export async function collect(engine: Engine, options: CollectOptions = {}): Promise<Collected> {
  const begin = performance.now();
  failpoint('records.collect.mark');
  const inThread = options.thread ?? pagesOf(engine.database) > smallDatabase;
  const found = inThread ? await markInThread(engine.database, options.signal) : mark(engine.database);
  await options.marked?.(found);
  const sweep = new Sweep(found);
  let swept = 0;
  while (sweep.left > 0) {
    options.signal?.throwIfAborted();
    swept += await engine.run((database, sequence) => {
      failpoint('records.collect.sweep');
      return sweep.step(database, sequence, sweepSize);
    });
    sweep.forget();
  }
  return { swept, marked: found.marked, durationMs: performance.now() - begin };
}

function pagesOf(database: DatabaseSync): number {
  return (database.prepare('PRAGMA page_count').get() as { page_count: number }).page_count;
}

function markInThread(database: DatabaseSync, signal: AbortSignal | undefined): Promise<Mark> {
  return runThread<Mark>(new URL('./mark-thread.ts', import.meta.url), { path: database.location() }, signal);
}

/** Collections one after another: who asks while one runs gets the next, together with all others who asked. */
export class Collector {
  readonly #collect: () => Promise<Collected>;
  #running: Promise<Collected> | undefined;
  #next: Promise<Collected> | undefined;

  constructor(collect: () => Promise<Collected>) {
    this.#collect = collect;
  }

  /** A collection that begins after this call: it sees every commit answered before. */
  collect(): Promise<Collected> {
    if (this.#running === undefined) return this.#start();
    // Whatever became of the one that runs, the next is asked for.
    this.#next ??= this.#running.then(
      () => this.#start(),
      () => this.#start(),
    );
    return this.#next;
  }

  #start(): Promise<Collected> {
    this.#next = undefined;
    const running = this.#collect().finally(() => {
      if (this.#running === running) this.#running = undefined;
    });
    this.#running = running;
    return running;
  }
}
