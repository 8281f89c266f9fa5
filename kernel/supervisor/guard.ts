/** Looks after the workers: what does not show signs of life or holds too much is told, and ended by a ladder whose last step is the daemon's own end. */
import type { Busy } from '../sdk/control-page.ts';
import type { Clock } from './clock.ts';
import { hotFrames } from './hot-frames.ts';
import type { Incident } from './incident.ts';
import { MemoryWatch } from './memory-watch.ts';
import { Watch, type WatchLimits } from './watch.ts';
import type { WorkerHandle } from './worker-handle.ts';

export interface GuardWorld {
  log(level: 'info' | 'warn' | 'error', message: string, fields: Record<string, unknown>): void;
  witness(incident: Incident): void;
  /** A worker cannot be ended. */
  fatal(reason: string): void;
}

export class Guard {
  readonly #world: GuardWorld;
  readonly #watch: Watch;
  readonly #memory: MemoryWatch;

  constructor(handles: () => Iterable<WorkerHandle>, limits: WatchLimits, world: GuardWorld, clock: Clock) {
    this.#world = world;
    const kill = (handle: WorkerHandle, reason: string) => void this.end(handle, reason);
    this.#watch = new Watch(
      handles,
      limits,
      {
        unresponsive: (handle, silentMs, why) => void this.#unresponsive(handle, silentMs, why),
        responsive: (handle) => this.#responsive(handle),
        kill,
      },
      clock,
    );
    this.#memory = new MemoryWatch(handles, { kill }, clock);
  }

  start(): void {
    this.#watch.start();
    this.#memory.start();
  }

  stop(): void {
    this.#watch.stop();
    this.#memory.stop();
  }

  responsive(handle: WorkerHandle): boolean {
    return this.#watch.responsive(handle);
  }

  busy(handle: WorkerHandle): Busy | undefined {
    return this.#watch.busy(handle);
  }

  /** Ends a worker, and the daemon when it cannot be ended: process.exit() would hang with it. */
  async end(handle: WorkerHandle, reason: string): Promise<void> {
    const { thread: worker, plugins } = handle;
    this.#world.log('error', 'worker is ended', { worker, reason });
    this.#world.witness({ t: 'ended', worker, plugins, reason });
    if (!(await handle.terminate(reason))) this.#world.fatal(`worker ${worker} cannot be ended: ${reason}`);
  }

  async #unresponsive(handle: WorkerHandle, silentMs: number, why: string): Promise<void> {
    const { thread: worker, plugins } = handle;
    this.#world.log('warn', 'worker is unresponsive', { worker, silentMs, why });
    const hot = await hotFrames(handle.worker);
    const cpu = hot.cpu === undefined ? undefined : `${Math.round(100 * hot.cpu)} %`;
    const fields = { worker, cpu, hot: hot.profile.join(', ') };
    this.#world.log('warn', 'what the unresponsive worker does', fields);
    this.#world.witness({ t: 'unresponsive', worker, plugins, silentMs, why, hot });
  }

  #responsive(handle: WorkerHandle): void {
    const { thread: worker, plugins } = handle;
    this.#world.log('info', 'worker is responsive again', { worker });
    this.#world.witness({ t: 'responsive', worker, plugins });
  }
}
