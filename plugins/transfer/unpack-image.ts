/** All layers of one image: brought, unpacked side by side, and named by its config, which then keeps the snapshots. */
import { Failure, type PluginContext } from 'troupe/plugin';
import type { Descriptor, ImageConfig, Manifest } from '../lib/image/document.ts';
import { Coming } from './coming.ts';
import type { Scope } from './scope.ts';
import { together } from './together.ts';
import { Unpack } from './unpack.ts';

/**
 * @param bring resolves when the blob is there, and may say when its first bytes are
 * @throws Failure FailedPrecondition when manifest and config disagree about how many layers there are
 */
export async function unpackImage(
  ctx: Pick<PluginContext, 'exclusive' | 'call'>,
  scope: Scope,
  { layers, config }: Manifest,
  { diffIds }: ImageConfig,
  snapshotter: string,
  bring: (layer: Descriptor, signal: AbortSignal, began: () => void) => Promise<void>,
): Promise<void> {
  if (layers.length !== diffIds.length)
    throw new Failure(
      'FailedPrecondition',
      `config ${config.digest}: number of layers and diffIDs don't match: ${layers.length} != ${diffIds.length}: failed precondition`,
    );
  const unpack = new Unpack({ ctx, scope, snapshotter }, layers, diffIds);
  // Large ones first: what is left for the end should be short.
  const order = layers.map((_, at) => at).toSorted((a, b) => layers[b]!.size - layers[a]!.size);
  const blobs = layers.map(() => new Coming());
  await together(scope.signal, [
    ...order.map((at) => (signal: AbortSignal) => blobs[at]!.bring((began) => bring(layers[at]!, signal, began))),
    ...order.map((at) => (signal: AbortSignal) => unpack.layer(at, blobs[at]!, signal)),
  ]);
  if (unpack.chainId !== '')
    await scope.content.label(
      config.digest,
      { [`containerd.io/gc.ref.snapshot.${snapshotter}`]: unpack.chainId },
      scope.signal,
    );
}
