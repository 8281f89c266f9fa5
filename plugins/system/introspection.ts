/** containerd.services.introspection.v1.Introspection. */
import { dirname, join } from 'node:path';
import { Failure, type PluginContext, type Service } from 'troupe/plugin';
import type {
  IntrospectionDefinition,
  Plugin,
} from 'troupe/proto/containerd/services/introspection/v1/introspection.ts';
import { KernelDefinition, type Plugin as KernelPlugin } from 'troupe/proto/troupe/kernel/v1/kernel.ts';
import { SnapshotterDefinition } from 'troupe/proto/troupe/snapshots/v1/snapshots.ts';
import { engines } from '../lib/compression/decoder.ts';
import { type Adaptor, absent, field, parseFilters } from '../lib/filter/filter.ts';
import { quote } from '../lib/identifier/quote.ts';
import { toPlugins } from './convert.ts';
import { pidNamespace, type ServerId } from './server-id.ts';

const snapshotters = 'io.containerd.snapshotter.v1.';

export interface IntrospectionOptions {
  readonly ctx: Pick<PluginContext, 'call' | 'rootOf' | 'daemon'>;
  readonly serverId: ServerId;
  /** What io.containerd.internal.v1.opt exports. */
  readonly optPath: string;
}

export function serveIntrospection(options: IntrospectionOptions): Service<typeof IntrospectionDefinition> {
  const { ctx, serverId, optPath } = options;

  /** Roots of snapshotters, which the config may have put elsewhere, by id and generation. */
  const roots = new Map<string, string>();
  const rootOf = async ({ id, generation, state }: KernelPlugin): Promise<string> => {
    const key = `${id} ${generation}`;
    const known = roots.get(key);
    if (known !== undefined || state !== 'ready') return known ?? ctx.rootOf(id);
    try {
      const name = id.slice(snapshotters.length);
      const { root } = await ctx.call(SnapshotterDefinition, { name }).info({}, { timeoutMs: 2000 });
      roots.set(key, dirname(root));
      return dirname(root);
    } catch {
      return ctx.rootOf(id);
    }
  };
  const exportsOf = (uri: string): { readonly [key: string]: string } => {
    switch (uri) {
      case 'io.containerd.content.v1.content':
        return { root: ctx.rootOf(uri) };
      case 'io.containerd.metadata.v1.bolt':
        return { path: join(ctx.rootOf('troupe.records.v1.records'), 'records.db') };
      case 'io.containerd.internal.v1.opt':
        return { path: optPath };
      case 'io.containerd.differ.v1.walking':
        // Of this machine; the plugin's config may have it otherwise, and its log says so.
        return engines('auto');
      default:
        return {};
    }
  };
  const list = async (): Promise<Plugin[]> => {
    const { plugins } = await ctx.call(KernelDefinition).list({ ids: [] }, { timeoutMs: 10_000 });
    // What is not configured is not there, as with containerd; kernel's own workers have no type.
    const known = plugins.filter(({ id, state }) => state !== 'disabled' && id.includes('.'));
    const entries = known.map(async (plugin) => {
      if (!plugin.id.startsWith(snapshotters)) return toPlugins(plugin, exportsOf);
      const root = await rootOf(plugin);
      return toPlugins(plugin, () => ({ root }));
    });
    return (await Promise.all(entries)).flat();
  };

  return {
    async plugins(request) {
      const matches = parseFilters(request.filters);
      return { plugins: (await list()).filter((plugin) => matches(adaptor(plugin))) };
    },

    server() {
      return { uuid: serverId.uuid(), pid: BigInt(ctx.daemon.pid), pidns: pidNamespace(), deprecations: [] };
    },

    async pluginInfo(request) {
      const plugin = (await list()).find(({ type, id }) => type === request.type && id === request.id);
      const name = quote(`${request.type}.${request.id}`);
      if (plugin === undefined) throw new Failure('NotFound', `plugin ${name}: not found`);
      if (plugin.initErr !== undefined) {
        throw new Failure('FailedPrecondition', `plugin ${name}: ${plugin.initErr.message}: failed precondition`);
      }
      if (request.options !== undefined) {
        throw new Failure('Unimplemented', `plugin ${name} gives no information for options: not implemented`);
      }
      return { plugin, extra: undefined };
    },
  };
}

function adaptor(plugin: Plugin): Adaptor {
  return ([name]) => (name === 'type' ? field(plugin.type) : name === 'id' ? field(plugin.id) : absent);
}
