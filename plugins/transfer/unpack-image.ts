/** All layers of one image: brought, unpacked side by side, and named by its config, which then keeps the snapshots. */
import { Failure, type PluginContext } from 'troupe/plugin';
import type { Descriptor, ImageConfig, Manifest } from '../lib/image/document.ts';
import type { Scope } from './scope.ts';
import { together } from './together.ts';
import { Unpack } from './unpack.ts';

/**
 * @param bring resolves when the blob is there
 * @throws Failure FailedPrecondition when manifest and config disagree about how many layers there are
 */
export async function unpackImage(
  ctx: Pick<PluginContext, 'exclusive' | 'call'>,
  scope: Scope,
  { layers, config }: Manifest,
  { diffIds }: ImageConfig,
  snapshotter: string,
  bring: (layer: Descriptor, signal: AbortSignal) => Promise<void>,
): Promise<void> {
  if (layers.length !== diffIds.length)
    throw new Failure(
      'FailedPrecondition',
      `config ${config.digest}: number of layers and diffIDs don't match: ${layers.length} != ${diffIds.length}: failed precondition`,
    );
  const unpack = new Unpack({ ctx, scope, snapshotter }, layers, diffIds);
  // Large ones first: what is left for the end should be short.
  const order = layers.map((_, at) => at).toSorted((a, b) => layers[b]!.size - layers[a]!.size);
  await together(
    scope.signal,
    order.map((at) => async (signal) => {
      try {
        await bring(layers[at]!, signal);
      } catch (error) {
        unpack.fail(at, error);
        throw error;
      }
      await unpack.layer(at, signal);
    }),
  );
  if (unpack.chainId !== '')
    await scope.content.label(
      config.digest,
      { [`containerd.io/gc.ref.snapshot.${snapshotter}`]: unpack.chainId },
      scope.signal,
    );
}
