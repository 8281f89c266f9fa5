/**
 * Where a plugin's generations come from. Each gets a number, and a worker: the one that the plugin shares with others for the first, and one of its own for
 * every other.
 */
import type { Manifest } from '../plan/index.ts';
import type { HostedPlugin } from '../sdk/protocol.ts';
import { type Build, inBuild } from './builds.ts';
import type { Generation } from './generation.ts';
import type { Member } from './threads.ts';
import type { UnitWorld } from './unit-world.ts';

export class Generations implements Member {
  readonly #world: Pick<UnitWorld, 'threads' | 'clock'>;
  readonly #build: () => Build;
  #thread: string;
  #nextNumber = 1;

  /**
   * @param thread name of its worker; its id: it has one to itself
   * @param build what would be started now: a shared worker is made from what its members would start by themselves
   */
  constructor(thread: string, world: Pick<UnitWorld, 'threads' | 'clock'>, build: () => Build) {
    this.#thread = thread;
    this.#world = world;
    this.#build = build;
    world.threads.join(thread, this);
  }

  get id(): string {
    return this.#build().manifest.id;
  }

  get manifest(): Manifest {
    return this.#build().manifest;
  }

  hosted(build: Build = this.#build()): HostedPlugin {
    return hostedPlugin(build, this.#nextNumber++);
  }

  /** The name for the worker of the next, beside the one that serves. */
  get nextThread(): string {
    return `${this.id}#${this.#nextNumber}`;
  }

  /** Not loaded yet. */
  make(build: Build): Generation {
    const { threads, clock } = this.#world;
    const madeAt = clock.now();
    const shared = this.#thread === this.id ? undefined : threads.shared(this.#thread, this);
    if (shared === undefined) return this.makeOwn(build, this.id);
    return { number: this.#nextNumber - 1, handle: shared, own: false, build, madeAt, shapes: [], expected: false };
  }

  /** In a worker of its own, not loaded yet. */
  makeOwn(build: Build, thread: string): Generation {
    const { threads, clock } = this.#world;
    const madeAt = clock.now();
    const member: Member = { id: this.id, manifest: build.manifest, hosted: () => this.hosted(build) };
    const handle = threads.own(member, thread);
    return { number: this.#nextNumber - 1, handle, own: true, build, madeAt, shapes: [], expected: false };
  }

  /** One that has a worker of its own serves. The plugin's modules stay in the worker that it shared; the others live on there without it. */
  moveOut(): void {
    if (this.#thread === this.id) return;
    this.#world.threads.leave(this.#thread, this);
    this.#thread = this.id;
  }
}

/** What a worker is told of the plugin that it is to run. */
function hostedPlugin(build: Build, generation: number): HostedPlugin {
  const { dir } = build;
  const { id, records, serves } = build.manifest;
  const migrating = Object.entries(serves).flatMap(([contract, serve]) =>
    Object.entries(serve.methods)
      .filter(([, method]) => method.onReload === 'migrate')
      .map(([method]) => `${contract}/${method}`),
  );
  const protos = Object.fromEntries(
    Object.entries(serves).flatMap(([contract, { proto }]) =>
      proto === undefined ? [] : [[contract, inBuild(build, proto)]],
    ),
  );
  const config = { ...build.config };
  return { id, dir, generation, config, prefix: records.prefix, migrating, protos };
}
