/** The snapshotters of this daemon by name, as the snapshots service calls them. */
import { type Client, Failure, type PluginContext } from 'troupe/plugin';
import { KernelDefinition, type Plugin } from 'troupe/proto/troupe/kernel/v1/kernel.ts';
import { SnapshotterDefinition } from 'troupe/proto/troupe/snapshots/v1/snapshots.ts';

export interface LoadedSnapshotter {
  readonly name: string;
  readonly client: Client<typeof SnapshotterDefinition>;
  /** A snapshot may be committed onto a parent that it was not prepared with. */
  readonly rebase: boolean;
  /** Labels that every snapshot shows, from capabilities `label:KEY=TEMPLATE`; the template holds {id}, {root} is filled in already. */
  readonly labels: ReadonlyMap<string, string>;
}

const type = 'io.containerd.snapshotter.v1.';

const isAbsent = (state: string): boolean => state === 'skipped' || state === 'disabled';

export class Snapshotters {
  readonly #ctx: Pick<PluginContext, 'call'>;
  readonly #loaded = new Map<string, Promise<LoadedSnapshotter>>();

  constructor(ctx: Pick<PluginContext, 'call'>) {
    this.#ctx = ctx;
  }

  /** @throws InvalidArgument when there is none of that name, Unavailable when it cannot be asked now */
  get(name: string): Promise<LoadedSnapshotter> {
    if (name === '') {
      return Promise.reject(new Failure('InvalidArgument', 'snapshotter argument missing: invalid argument'));
    }
    const known = this.#loaded.get(name);
    if (known !== undefined) return known;
    const loading = this.#load(name);
    this.#loaded.set(name, loading);
    loading.catch(() => this.#loaded.delete(name));
    return loading;
  }

  async #load(name: string): Promise<LoadedSnapshotter> {
    const client = this.#ctx.call(SnapshotterDefinition, { name });
    try {
      const { capabilities, root } = await client.info({}, { timeoutMs: 10_000 });
      const labels = capabilities
        .filter((capability) => capability.startsWith('label:') && capability.includes('='))
        .map((capability): [string, string] => {
          const equals = capability.indexOf('=');
          return [capability.slice('label:'.length, equals), capability.slice(equals + 1).replaceAll('{root}', root)];
        });
      return { name, client, rebase: capabilities.includes('rebase'), labels: new Map(labels) };
    } catch (error) {
      const absent = await this.#absence(name, error);
      if (absent === undefined) throw error;
      const text = `snapshotter not loaded: ${name}${absent === '' ? '' : `: ${absent}`}: invalid argument`;
      throw new Failure('InvalidArgument', text, { cause: error });
    }
  }

  /** Names of those that work here, or will once they have been restarted. */
  async names(): Promise<string[]> {
    const plugins = await this.#plugins();
    return plugins
      .filter(({ id, state }) => id.startsWith(type) && !isAbsent(state))
      .map(({ id }) => id.slice(type.length));
  }

  async #plugins(): Promise<readonly Plugin[]> {
    return (await this.#ctx.call(KernelDefinition).list({ ids: [] }, { timeoutMs: 10_000 })).plugins;
  }

  /** Why there is no such snapshotter: '' when nobody ever heard of it. Undefined: there is one, which `error` of a call to it is about. */
  async #absence(name: string, error: unknown): Promise<string | undefined> {
    if (!Failure.is(error, 'Unimplemented') && !Failure.is(error, 'Unavailable')) return undefined;
    try {
      const plugin = (await this.#plugins()).find(({ id }) => id === `${type}${name}`);
      if (plugin === undefined) return '';
      if (isAbsent(plugin.state)) return plugin.reason;
    } catch {
      // Nobody to ask: only what the bus itself says is known.
    }
    return Failure.is(error, 'Unimplemented') ? '' : undefined;
  }
}
