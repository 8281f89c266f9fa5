/**
 * What kernel and worker say to each other beside the bus, types only.
 *
 * Requests with an answer go through comlink ({@link WorkerControl}, exposed by the worker on `parentPort`). What needs order and no answer
 * goes as plain messages over one channel ({@link ToWorker}, {@link ToKernel}).
 */
import type { MessagePort } from 'node:worker_threads';
import type { MethodShape, Routes } from '../bus/routes.ts';
import type { HandedOver } from './handover.ts';
import type { DaemonInfo } from './plugin.ts';

/** A plugin as its worker needs to know it. */
export interface HostedPlugin {
  readonly id: string;
  /** Absolute path of its folder, or of the copy of an earlier build of it. */
  readonly dir: string;
  readonly generation: number;
  readonly config: Record<string, unknown>;
  /** Prefix of the tables it may write; empty when it keeps no records. */
  readonly prefix: string;
  /** Paths (`Service/Method`) of streams that move with a reload. */
  readonly migrating: readonly string[];
  /** Contract → .proto file of those that are not in proto/. */
  readonly protos: { readonly [contract: string]: string };
}

export interface WorkerInit {
  /** Name of the worker in thread listings. */
  readonly thread: string;
  readonly plugins: readonly HostedPlugin[];
  readonly daemon: DaemonInfo;
  readonly timeouts: { readonly [name: string]: number };
  /** By name, as in the config. */
  readonly streamProcessors: { readonly [name: string]: StreamProcessor };
  /** That of its thread from the start on, which inherits the kernel's; undefined: as it is. */
  readonly niceness: number | undefined;
  readonly routes: Routes;
  /** The records database file; readers open it themselves. */
  readonly database: string;
  /** Migration folders of all planned plugins, for the records plugin. */
  readonly migrations: readonly { prefix: string; dir: string }[];
  readonly page: SharedArrayBuffer;
  /** The kernel's own, and how long its loop may stand still before the daemon is ended; 0: it is not watched. */
  readonly kernelPage: SharedArrayBuffer;
  readonly kernelStallMs: number;
  readonly channel: MessagePort;
}

/** A program that makes a layer out of what is none. */
export interface StreamProcessor {
  readonly accepts: readonly string[];
  readonly returns: string;
  readonly path: string;
  readonly args: readonly string[];
  readonly env: readonly string[];
}

export interface PluginStats {
  readonly running: number;
  /** Of those, calls with an end in sight: unary, with a deadline, and not moved by a reload. */
  readonly brief: number;
  readonly queued: number;
  readonly pending: number;
  readonly methods: readonly {
    method: string;
    calls: number;
    failures: number;
    inFlight: number;
    p50: number;
    p99: number;
  }[];
}

/** `quiet: false`: what had to end first has not, and nothing has been asked of the plugin. */
export type Suspended = { quiet: true; state: HandedOver | undefined } | { quiet: false; running: readonly string[] };

export type StartOutcome = { t: 'started'; methods: readonly MethodShape[] } | { t: 'skipped'; reason: string };

/** Called by the kernel through comlink; every call has a deadline and is rejected by the worker's death. */
export interface WorkerControl {
  /** Imports the plugin's code: what takes long and touches nothing, so that it need not wait for what the plugin requires. */
  load(id: string): Promise<void>;
  start(id: string): Promise<StartOutcome>;
  activate(id: string, state: HandedOver | undefined): Promise<void>;
  /**
   * Stops taking calls, and asks the plugin for its state. `endMs`: every call must have ended before, within so many milliseconds, and streams of `migrate`
   * methods leave at once; undefined: calls that run finish on this generation.
   */
  suspend(id: string, endMs: number | undefined): Promise<Suspended>;
  /** Takes calls again, after a suspend that found no quiet. */
  resume(id: string): Promise<void>;
  /** The next generation serves: streams of `migrate` methods leave, the others end in their own time. */
  release(id: string): Promise<void>;
  /** Resolves when a generation that has been released runs nothing any more. No deadline: streams end in their own time. */
  drained(id: string): Promise<void>;
  configure(id: string, config: Record<string, unknown>): Promise<undefined | 'reload'>;
  stop(id: string): Promise<void>;
  stats(id: string): Promise<PluginStats>;
  /** What runs, as `2 × Service/Method`. */
  running(id: string): Promise<string[]>;
  /** Collects garbage now: what is left is what the plugins hold. */
  collect(): Promise<void>;
}

export type ToWorker =
  /** A caller's link to plugin `id` in this worker. */
  | { t: 'accept'; id: string; from: string; port: MessagePort; page: SharedArrayBuffer }
  /** The link that plugin `id` here has to `slot` from now on. */
  | { t: 'relink'; id: string; slot: string; generation: number; port: MessagePort; page: SharedArrayBuffer }
  | { t: 'down'; id: string; slot: string; reason: string }
  /** That generation of `slot` has ended: whatever waits on a link to it waits in vain, also where the link's other end never arrived. */
  | { t: 'died'; id: string; slot: string; generation: number }
  | { t: 'routes'; routes: Routes };

export type ToKernel =
  | { t: 'introduce'; id: string; slot: string; links: number }
  | {
      t: 'log';
      id: string;
      level: 'debug' | 'info' | 'warn' | 'error';
      message: string;
      fields: Record<string, unknown> | undefined;
    }
  | { t: 'child'; id: string; pid: number; running: boolean }
  /** The plugin has met what the daemon must not go on after (a failed fsync, a corrupt database). */
  | { t: 'fatal'; id: string; reason: string };
