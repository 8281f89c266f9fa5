/** What a client of the mix works with: calls to the daemon, its oracle file, and names that nobody else uses. */
import { type ChildProcess, spawn } from 'node:child_process';
import { Failure, type ServiceDefinition } from 'troupe/plugin';
import { ContainersDefinition } from 'troupe/proto/containerd/services/containers/v1/containers.ts';
import { ContentDefinition } from 'troupe/proto/containerd/services/content/v1/content.ts';
import { DiffDefinition } from 'troupe/proto/containerd/services/diff/v1/diff.ts';
import { EventsDefinition } from 'troupe/proto/containerd/services/events/v1/events.ts';
import { ImagesDefinition } from 'troupe/proto/containerd/services/images/v1/images.ts';
import { IntrospectionDefinition } from 'troupe/proto/containerd/services/introspection/v1/introspection.ts';
import { LeasesDefinition } from 'troupe/proto/containerd/services/leases/v1/leases.ts';
import { NamespacesDefinition } from 'troupe/proto/containerd/services/namespaces/v1/namespaces.ts';
import { SnapshotsDefinition } from 'troupe/proto/containerd/services/snapshots/v1/snapshots.ts';
import { TasksDefinition } from 'troupe/proto/containerd/services/tasks/v1/tasks.ts';
import { GrpcClient, typedClient } from '../../kernel/front/client.ts';
import type { PartialClient } from '../helpers/in-process.ts';
import type { Want } from './checker/oracle.ts';
import type { BaseImage, ImageArchive } from './images.ts';
import { OracleFile } from './oracle-file.ts';
import { Random } from './random.ts';

/** What all clients of a run share. */
export interface Ground {
  readonly address: string;
  readonly ns: string;
  /** Of the oracle files. */
  readonly oracle: string;
  readonly archives: readonly ImageArchive[];
  /** The image with busybox that containers are made of; it is there all the time. */
  readonly base: BaseImage;
  /** For files that containers write. */
  readonly scratch: string;
}

/** Something that went wrong for a client. */
export interface Problem {
  readonly client: string;
  readonly call: string;
  readonly code: string;
  readonly message: string;
}

export function renderProblem({ client, call, code, message }: Problem): string {
  return `${client}: ${call}: ${code}: ${message}`;
}

/** Keeps what nobody else refers to from collection. */
export const rooted = { 'containerd.io/gc.root': 'faults' } as const;

export class Turn {
  readonly ground: Ground;
  readonly name: string;
  readonly epoch: number;
  readonly random: Random;
  readonly problems: Problem[];
  readonly #grpc: GrpcClient;
  readonly #oracle: OracleFile;
  readonly #processes = new Set<ChildProcess>();
  #count = 0;
  #ended = false;
  /** The call that it waits for. */
  busyWith = '';

  readonly content;
  readonly images;
  readonly containers;
  readonly snapshots;
  readonly leases;
  readonly tasks;
  readonly events;
  readonly diff;
  readonly namespaces;
  readonly introspection;

  constructor(ground: Ground, name: string, epoch: number, seed: string, problems: Problem[]) {
    this.ground = ground;
    this.name = name;
    this.epoch = epoch;
    this.problems = problems;
    this.random = new Random(`${seed}/${epoch}/${name}`);
    this.#oracle = new OracleFile(ground.oracle, `${String(epoch).padStart(6, '0')}-${name}`);
    const grpc = new GrpcClient(ground.address, { namespace: ground.ns });
    this.#grpc = grpc;
    const typed = <D extends ServiceDefinition>(definition: D) =>
      typedClient(grpc, definition) as unknown as PartialClient<D>;
    this.content = typed(ContentDefinition);
    this.images = typed(ImagesDefinition);
    this.containers = typed(ContainersDefinition);
    this.snapshots = typed(SnapshotsDefinition);
    this.leases = typed(LeasesDefinition);
    this.tasks = typed(TasksDefinition);
    this.diff = typed(DiffDefinition);
    this.events = typed(EventsDefinition);
    this.namespaces = typed(NamespacesDefinition);
    this.introspection = typed(IntrospectionDefinition);
  }

  get ended(): boolean {
    return this.#ended;
  }

  /** A name for something new. */
  unique(prefix: string): string {
    return `${prefix}-${this.epoch}-${this.name}-${++this.#count}`;
  }

  /** `kind/namespace/name`, as the oracle names things. */
  object(kind: string, ...name: string[]): string {
    return [kind, this.ground.ns, ...name].join('/');
  }

  /**
   * Asks for one thing, and writes down what was asked and what was answered.
   *
   * @param wants what is so afterwards, in one commit
   * @throws Failure as the call does
   */
  ask<T>(call: string, wants: readonly Want[], work: () => Promise<T>): Promise<T> {
    return this.#ask(call, wants, true, work);
  }

  /** Says what may be so from now on, for all that is known. */
  suppose(wants: readonly Want[]): void {
    this.#oracle.ask('supposed', wants, false);
  }

  /** The same as {@link ask} for what takes several commits. */
  askInSteps<T>(call: string, wants: readonly Want[], work: () => Promise<T>): Promise<T> {
    return this.#ask(call, wants, false, work);
  }

  async #ask<T>(call: string, wants: readonly Want[], whole: boolean, work: () => Promise<T>): Promise<T> {
    const n = this.#oracle.ask(call, wants, whole);
    this.busyWith = call;
    try {
      const result = await work();
      if (!this.#ended) this.#oracle.done(n);
      return result;
    } catch (error) {
      const failure = Failure.from(error);
      const lost = ['Unavailable', 'Canceled', 'DeadlineExceeded', 'Internal'].includes(failure.code);
      if (!this.#ended) this.#oracle.failed(n, lost ? 'lost' : 'refused', `${failure.code}: ${failure.message}`);
      this.report(call, failure);
      throw failure;
    }
  }

  /** A call that changes nothing, or nothing that the oracle knows. */
  async call<T>(call: string, work: () => Promise<T>): Promise<T> {
    this.busyWith = call;
    try {
      return await work();
    } catch (error) {
      this.report(call, Failure.from(error));
      throw error;
    }
  }

  report(call: string, { code, message }: { code: string; message: string }): void {
    if (!this.#ended) this.problems.push({ client: this.name, call, code, message });
  }

  /** Runs `ctr` to its end. @throws Failure Unknown with what it printed when it does not end well */
  ctr(...args: string[]): Promise<string> {
    const child = spawn('ctr', ['--address', this.ground.address, '--namespace', this.ground.ns, ...args], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.#processes.add(child);
    const output: Buffer[] = [];
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk: Buffer) => output.push(chunk));
    return new Promise((resolve, reject) => {
      child.once('error', reject);
      child.once('close', (code, signal) => {
        this.#processes.delete(child);
        const text = Buffer.concat(output).toString().trim();
        if (code === 0) resolve(text);
        else reject(new Failure('Unknown', `ctr ${args.join(' ')}: ${code ?? signal}: ${text.slice(-1000)}`));
      });
    });
  }

  /** Its client is gone: connections close, `ctr` dies, what arrives from now on was not heard. */
  end(): void {
    if (this.#ended) return;
    this.#ended = true;
    for (const child of this.#processes) child.kill('SIGKILL');
    this.#grpc.close();
    this.#oracle.close();
  }
}
