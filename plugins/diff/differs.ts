/**
 * Which differ does a call: those of the config's `default` in their order, as with containerd. One that does not know the media type answers Unimplemented,
 * and the next is asked. `walking` is this plugin; any other is a plugin that serves the same contract under its name (a proxy, or somebody's own).
 */
import { Failure, type PluginContext, type Service } from 'troupe/plugin';
import { DiffDefinition } from 'troupe/proto/containerd/services/diff/v1/diff.ts';
import type { Verifiers } from '../lib/verifier/verifiers.ts';

type Differ = Service<typeof DiffDefinition>;

export interface DiffersOptions {
  readonly order: readonly string[];
  readonly ctx: Pick<PluginContext, 'call' | 'providers'>;
  readonly verifiers: Verifiers;
}

export function throughDiffers(own: Differ, { order, ctx, verifiers }: DiffersOptions): Differ {
  /** Looked up at each call: they come and go while this one runs. A name that nobody has may be of a differ that containerd comes with. */
  const differs = (): Differ[] => {
    const known = ctx.providers(DiffDefinition);
    return order.flatMap((name): Differ[] => {
      if (name === 'walking') return [own];
      return known.includes(name) ? [ctx.call(DiffDefinition, { name })] : [];
    });
  };
  const first = async <T>(work: (differ: Differ) => Promise<T> | T): Promise<T> => {
    let unknown: unknown = new Failure('Unimplemented', 'no differ is configured that is here: not implemented');
    for (const differ of differs()) {
      try {
        return await work(differ);
      } catch (error) {
        if (!Failure.is(error, 'Unimplemented')) throw error;
        unknown = error;
      }
    }
    throw unknown;
  };
  return {
    async apply(request, call) {
      if (request.diff !== undefined) await verifiers.require(request.diff, call);
      return first((differ) => differ.apply(request, call));
    },

    diff: (request, call) => first((differ) => differ.diff(request, call)),
  };
}
