/** Who serves what: the routes that every worker is told, and the links that those who ask are given. The kernel is in it like any plugin. */
import { isDeepStrictEqual } from 'node:util';
import type { Routes } from '../bus/routes.ts';
import { kernelContract, type Plan } from '../plan/index.ts';
import type { Log, ServiceDefinition } from '../sdk/plugin.ts';
import type { Generation } from './generation.ts';
import { KernelPeer, kernelSlot } from './kernel-peer.ts';
import { Links } from './links.ts';
import { Parties } from './parties.ts';
import { routesOf } from './routes.ts';
import type { WorkerHandle } from './worker-handle.ts';

export interface DirectoryWorld {
  plan(): Plan;
  /** The generation of a plugin that serves now. */
  serving(id: string): Generation | undefined;
  /** Every worker that lives. */
  handles(): Iterable<WorkerHandle>;
}

export class Directory {
  readonly #world: DirectoryWorld;
  readonly #links = new Links();
  readonly #parties = new Parties(this.#links);
  #kernel: KernelPeer | undefined;
  #routes: Routes = {};

  constructor(world: DirectoryWorld) {
    this.#world = world;
  }

  /** As a worker that is made now is told. */
  get routes(): Routes {
    return this.#routes;
  }

  serveKernel(log: Log, definition: ServiceDefinition, service: object): void {
    this.#kernel = new KernelPeer(log, definition, service);
    this.#links.serving(kernelSlot, this.#kernel, 1);
    this.refresh();
  }

  /** The plan, or what plugins serve, is another: workers that are made from now on are told. */
  refresh(): void {
    const shapes = this.#kernel?.dispatcher.methods();
    const kernel: Routes =
      shapes === undefined
        ? {}
        : { [kernelContract]: [{ slot: kernelSlot, name: '', public: true, methods: {}, shapes }] };
    this.#routes = routesOf(this.#world.plan(), (id) => this.#world.serving(id)?.shapes ?? [], kernel);
  }

  /**
   * As `refresh`, and those that live are told as well: not what they know already. A reload as a rule serves what was served before, and its calls would
   * wait for a copy to everybody.
   */
  publish(): void {
    const before = this.#routes;
    this.refresh();
    if (isDeepStrictEqual(before, this.#routes)) return;
    for (const handle of this.#world.handles()) handle.send({ t: 'routes', routes: this.#routes });
  }

  /** A generation serves, for the first time or again: who calls it moves over. */
  serving(id: string, generation: Generation): void {
    this.publish();
    this.#links.serving(id, this.#parties.of(id, generation.handle), generation.number);
  }

  /** Nothing serves it for the moment: what asks for a link meanwhile waits for the next generation. */
  interrupted(id: string): void {
    this.#links.interrupted(id);
  }

  died(id: string, generation: Generation): void {
    this.#links.died(id, generation.number);
  }

  /** Nothing serves it until it is started by hand. */
  ended(id: string, reason: string): void {
    this.#links.ended(id, reason);
  }

  /** A plugin in a worker asks for a link. */
  introduce(id: string, handle: WorkerHandle, slot: string, links: number): void {
    this.#links.introduce(this.#parties.of(id, handle), slot, links);
  }

  /** A worker has ended. */
  left(handle: WorkerHandle): void {
    this.#parties.left(handle);
  }
}
