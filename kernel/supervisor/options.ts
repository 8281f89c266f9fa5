/** What a supervisor is given by the daemon that it runs in. */
import type { Logger } from '../log.ts';
import type { Manifest, Plan } from '../plan/index.ts';
import type { DaemonInfo } from '../sdk/plugin.ts';
import type { WorkerInit } from '../sdk/protocol.ts';
import type { Clock } from './clock.ts';
import type { MakeWorker } from './worker-handle.ts';

export const defaultHoldMs = 1000;
export const defaultStallMs = 4000;

export interface SupervisorOptions {
  readonly plan: Plan;
  /** Plugin id → its validated config. */
  readonly configs: ReadonlyMap<string, Record<string, unknown>>;
  /** Plugin id → name of its worker. */
  readonly threads: ReadonlyMap<string, string>;
  /** Plugins that the front waits for beside the required ones. */
  readonly first: readonly string[];
  /** The front's manifest and config: a plugin of the kernel's own, started last. */
  readonly front: { readonly manifest: Manifest; readonly config: Record<string, unknown> };
  readonly daemon: DaemonInfo;
  readonly timeouts: Readonly<Record<string, number>>;
  /** `[stream_processors]` of the config, for the plugin that unpacks. */
  readonly streamProcessors?: WorkerInit['streamProcessors'];
  /** Where plugins' threads are, when the kernel's own is elsewhere. */
  readonly niceness?: number;
  readonly unresponsiveMs: number;
  readonly killMs: number;
  readonly logger: Logger;
  /** What the daemon cannot go on after; it must end itself at once, by a signal. */
  readonly fatal: (reason: string) => void;
  /** A plugin that the daemon cannot do without is not coming back: stop in order, and exit 1. Default: `fatal`. */
  readonly giveUp?: (reason: string) => void;
  /** Milliseconds that calls may be held while a generation hands over to the next, which is dropped beyond it. Default {@link defaultHoldMs}. */
  readonly holdMs?: number;
  /** Milliseconds without a turn of the kernel's own loop after which a worker ends the daemon; 0: never. Default {@link defaultStallMs}. */
  readonly stallMs?: number;
  readonly clock?: Clock;
  readonly makeWorker?: MakeWorker;
}
