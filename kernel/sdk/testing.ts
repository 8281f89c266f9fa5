/**
 * A plugin in the thread of its test, as `troupe/testing`: its folder is read as the daemon reads it, and what it says and hears is encoded and decoded on
 * the way. For tests of a plugin's own; that it works in the daemon is told by the daemon.
 *
 *     const plugin = await startPlugin(import.meta.dirname, { config: { greeting: 'Hi' } });
 *     const hello = plugin.client<{ hello(request: object): Promise<{ text: string }> }>('example.hello.v1.Hello');
 */
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { loadManifest } from '../plan/index.ts';
import { definitionOf } from './definitions.ts';
import { Failure } from './failure.ts';
import type {
  Call,
  CallOptions,
  Client,
  Log,
  MethodDefinition,
  PluginContext,
  PluginDefinition,
  PluginInstance,
  ServiceDefinition,
} from './plugin.ts';

/** A contract that the plugin calls, played by the test. */
export interface Provided {
  readonly definition: ServiceDefinition;
  readonly service: object;
  readonly name?: string;
}

export interface StartOptions {
  /** Values beside the defaults of the manifest, as the plugin receives them. */
  readonly config?: Readonly<Record<string, unknown>>;
  readonly provide?: readonly Provided[];
  /** Where the plugin may keep files; default: nowhere that exists. */
  readonly root?: string;
}

export interface TestedPlugin {
  /** What it logged, in order. */
  readonly log: readonly { readonly level: string; readonly message: string; readonly fields?: unknown }[];
  /** Events that it published. */
  readonly published: readonly { readonly namespace: string; readonly topic: string; readonly message: unknown }[];
  /** Calls what it serves; `T` is what the test knows of the contract. */
  client<T = Client<ServiceDefinition>>(contract: string): T;
  /** As the daemon reloads: a new generation of the same code takes the state over. */
  reload(): Promise<void>;
  configure(config: Readonly<Record<string, unknown>>): Promise<'live' | 'reload'>;
  stop(): Promise<void>;
}

export async function startPlugin(dir: string, options: StartOptions = {}): Promise<TestedPlugin> {
  const manifest = loadManifest(dir);
  const { root = '/nonexistent' } = options;
  const module: { default: PluginDefinition } = await import(pathToFileURL(join(dir, 'index.ts')).href);
  const log: { level: string; message: string; fields?: unknown }[] = [];
  const published: { namespace: string; topic: string; message: unknown }[] = [];
  const definitions = new Map<string, ServiceDefinition>();
  const defaults = Object.fromEntries(Object.entries(manifest.config).map(([name, key]) => [name, key.default]));
  let config = { ...defaults, ...options.config };
  let generation = 0;
  let stopped = new AbortController();
  let running: PluginInstance;

  const provided = (fullName: string, name = ''): object => {
    const found = options.provide?.find((each) => each.definition.fullName === fullName && (each.name ?? '') === name);
    if (found === undefined) throw new Failure('Unimplemented', `no plugin serves ${fullName}: not implemented`);
    return found.service;
  };
  const context = (): PluginContext => ({
    id: manifest.id,
    generation: ++generation,
    config,
    log: logTo(log),
    daemon: daemonInfo(root),
    timeouts: {},
    root: join(root, 'root', manifest.id),
    state: join(root, 'state', manifest.id),
    rootOf: (id) => join(root, 'root', id),
    stateOf: (id) => join(root, 'state', id),
    signal: stopped.signal,
    call: (definition, { name } = {}) => clientOf(definition, () => provided(definition.fullName, name), manifest.id),
    providers: ({ fullName }) =>
      (options.provide ?? []).filter((each) => each.definition.fullName === fullName).map(({ name = '' }) => name),
    async publish({ namespace, topic, message }) {
      published.push({ namespace, topic, message });
    },
    exclusive: async (_name, work) => work(),
    busy: (_what, _limit, work) => work(),
    get records(): never {
      throw new Failure('Unavailable', 'there are no records in this test: unavailable');
    },
    spawn: (file, args, spawning = {}) => spawn(file, args, spawning),
    starting: (start) => start(),
    fatal(reason) {
      throw new Failure('Internal', `the daemon would end itself: ${reason}`);
    },
  });
  const begin = async (state: unknown): Promise<PluginInstance> => {
    const instance = await module.default.start(context());
    for (const contract of Object.keys(instance.serve)) {
      const known = instance.definitions?.find((each) => each.fullName === contract);
      definitions.set(contract, known ?? (await definitionOf(contract, manifest.serves[contract]?.proto)));
    }
    await instance.activate?.(state);
    return instance;
  };
  const end = async (instance: PluginInstance, controller: AbortController): Promise<void> => {
    controller.abort(new Failure('Unavailable', `plugin ${manifest.id} is stopping: unavailable`));
    await instance.stop?.();
  };
  running = await begin(undefined);
  return {
    log,
    published,
    client<T>(contract: string): T {
      const definition = definitions.get(contract);
      if (definition === undefined)
        throw new Failure('NotFound', `${manifest.id} does not serve ${contract}: not found`);
      return clientOf(definition, () => running.serve[contract]!, 'test') as T;
    },
    async reload() {
      const [before, controller] = [running, stopped];
      const state: unknown = structuredClone(await before.suspend?.());
      stopped = new AbortController();
      running = await begin(state);
      await end(before, controller);
    },
    async configure(next) {
      config = { ...config, ...next };
      return running.configure === undefined ? 'reload' : ((await running.configure(config)) ?? 'live');
    },
    stop: () => end(running, stopped),
  };
}

function daemonInfo(dir: string): PluginContext['daemon'] {
  const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as {
    version: string;
  };
  const address = join(dir, 'troupe.sock');
  return {
    address,
    ttrpcAddress: `${address}.ttrpc`,
    publishBinary: '/bin/false',
    root: join(dir, 'root'),
    state: join(dir, 'state'),
    version,
    revision: '',
    pid: process.pid,
  };
}

function logTo(lines: { level: string; message: string; fields?: unknown }[]): Log {
  const write = (level: string) => (message: string, fields?: unknown) => void lines.push({ level, message, fields });
  return { debug: write('debug'), info: write('info'), warn: write('warn'), error: write('error') };
}

function clientOf<D extends ServiceDefinition>(definition: D, serviceOf: () => object, from: string): Client<D> {
  const client = Object.entries(definition.methods).map(([key, method]) => [
    key,
    caller(definition, key, method, serviceOf, from),
  ]);
  return Object.fromEntries(client) as Client<D>;
}

function caller(
  definition: ServiceDefinition,
  key: string,
  method: MethodDefinition,
  serviceOf: () => object,
  from: string,
) {
  const through = (codec: MethodDefinition['requestType'], message: unknown): unknown =>
    codec.decode(codec.encode(codec.fromPartial(message as never)).finish());
  async function* each(messages: AsyncIterable<unknown>, codec: MethodDefinition['requestType']) {
    for await (const message of messages) yield through(codec, message);
  }
  return (input: unknown, options: CallOptions = {}) => {
    const call: Call = {
      from,
      method: `${definition.fullName}/${method.name}`,
      namespace: options.namespace ?? '',
      lease: options.lease ?? '',
      deadline: options.deadline ?? 0,
      trace: options.trace ?? '',
      signal: options.signal ?? new AbortController().signal,
      resume: '',
      cursor() {},
    };
    const handler = Reflect.get(serviceOf(), key) as (input: unknown, call: Call) => unknown;
    const request = method.requestStream
      ? each(input as AsyncIterable<unknown>, method.requestType)
      : through(method.requestType, input);
    if (method.responseStream) return each(handler(request, call) as AsyncIterable<unknown>, method.responseType);
    return (async () => through(method.responseType, await handler(request, call)))();
  };
}
