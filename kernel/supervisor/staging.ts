/** Finds out which build a generation runs once it serves, and keeps a copy of it, so that this build can be started again. */
import type { Build, Builds } from './builds.ts';
import { type Generation, messageOf } from './generation.ts';
import type { Unit } from './unit.ts';

export class Staging {
  readonly #builds: Builds;
  readonly #log: (message: string, fields: Record<string, unknown>) => void;
  /** One after the other: nobody waits for it, and what starts meanwhile should not have to share the disk. */
  #turn: Promise<void>;
  #running: Promise<void> = Promise.resolve();
  #stopped = false;

  /** @param settled nothing is copied before: the daemon's start comes first */
  constructor(builds: Builds, settled: Promise<void>, log: (message: string, fields: Record<string, unknown>) => void) {
    this.#builds = builds;
    this.#turn = settled;
    this.#log = log;
  }

  staged(unit: Unit, generation: Generation): Promise<void> {
    this.#turn = this.#turn.then(async () => {
      if (this.#stopped) return;
      try {
        this.#running = this.#stage(unit, generation);
        await this.#running;
      } catch (error) {
        this.#log('no copy of a build', { plugin: unit.id, error: messageOf(error) });
      }
    });
    return this.#turn;
  }

  /** After it nothing is written: who stops may take the directory away. */
  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#running.catch(() => {});
  }

  /** The build, to be started from its copy when its folder holds something else by now. */
  async startable(build: Build): Promise<Build> {
    if (build.copy === undefined || build.digest === undefined) return build;
    const closure = await this.#builds.read(build.manifest).catch(() => undefined);
    return { ...build, dir: closure?.digest === build.digest ? build.manifest.dir : build.copy };
  }

  async #stage(unit: Unit, generation: Generation): Promise<void> {
    if (unit.serving !== generation) return;
    if (generation.build.digest === undefined) {
      const { manifest } = generation.build;
      const closure = await this.#builds.read(manifest);
      // Files that have changed since are not what it runs; what it runs is not to be had any more.
      if (closure.changedAt >= generation.madeAt) return;
      const copy = await this.#builds.keep(manifest, closure);
      const known = { digest: closure.digest, copy };
      generation.build = { ...generation.build, ...known };
      if (unit.serving === generation) unit.build = { ...unit.build, ...known };
    }
    await this.#builds.forget(unit.id, unit.keptCopies);
  }
}
