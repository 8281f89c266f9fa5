/** containerd.services.introspection.v1.Introspection. */
import { join } from 'node:path';
import { Failure, type PluginContext, type Service } from 'troupe/plugin';
import type {
  IntrospectionDefinition,
  Plugin,
} from 'troupe/proto/containerd/services/introspection/v1/introspection.ts';
import { KernelDefinition } from 'troupe/proto/troupe/kernel/v1/kernel.ts';
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

  const exportsOf = (uri: string): { readonly [key: string]: string } => {
    if (uri.startsWith(snapshotters) || uri === 'io.containerd.content.v1.content') return { root: ctx.rootOf(uri) };
    switch (uri) {
      case 'io.containerd.metadata.v1.bolt':
        return { path: join(ctx.rootOf('troupe.records.v1.records'), 'records.db') };
      case 'io.containerd.internal.v1.opt':
        return { path: optPath };
      default:
        return {};
    }
  };
  const list = async (): Promise<Plugin[]> => {
    const { plugins } = await ctx.call(KernelDefinition).list({ ids: [] }, { timeoutMs: 10_000 });
    // What is not configured is not there, as with containerd; kernel's own workers have no type.
    const known = plugins.filter(({ id, state }) => state !== 'disabled' && id.includes('.'));
    return known.flatMap((plugin) => toPlugins(plugin, exportsOf));
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
