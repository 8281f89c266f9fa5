/** The walk of an image whose parts should be here already. */
import { Failure, type PluginContext } from 'troupe/plugin';
import { type Descriptor, documentLimit } from '../lib/image/document.ts';
import { childLabels } from '../lib/image/media-type.ts';
import { rank } from '../lib/image/platform.ts';
import type { UnpackWish } from './pull.ts';
import type { Scope } from './scope.ts';
import { together } from './together.ts';
import { type Selection, type Visitor, walk } from './tree.ts';
import { unpackImage } from './unpack-image.ts';

type Parts = Pick<PluginContext, 'exclusive' | 'call'>;

/** Labels what is below `root` for collection, and unpacks what is wished for. @throws Failure NotFound for a part that is wanted and not here */
export async function adopt(
  ctx: Parts,
  scope: Scope,
  root: Descriptor,
  selection: Selection,
  unpacks: readonly UnpackWish[],
): Promise<void> {
  const { content, signal } = scope;
  const visitor: Visitor = {
    async document(descriptor, _parent, children) {
      const bytes = await readSmall(scope, descriptor);
      await content.label(descriptor.digest, childLabels(children(bytes)), signal);
      return bytes;
    },
    config: (descriptor) => readSmall(scope, descriptor),
    async image({ manifest, config }) {
      const wish =
        config &&
        unpacks.find(({ platform }) => platform === undefined || rank(config.platform, [platform]) !== undefined);
      if (config !== undefined && wish !== undefined)
        await unpackImage(ctx, scope, manifest, config, wish.snapshotter, (layer) => requireThere(scope, layer));
    },
  };
  await walk(root, selection, visitor, (work) =>
    together(
      signal,
      work.map((each) => () => each()),
    ),
  );
}

/** Every part of the images below `root` that the selection wants, each once, parents after their children. */
export async function partsOf(scope: Scope, root: Descriptor, selection: Selection): Promise<Descriptor[]> {
  const parts = new Map<string, Descriptor>();
  const documents: Descriptor[] = [];
  const visitor: Visitor = {
    document(descriptor) {
      documents.push(descriptor);
      return readSmall(scope, descriptor);
    },
    config(descriptor) {
      parts.set(descriptor.digest, descriptor);
      return readSmall(scope, descriptor);
    },
    async image({ manifest }) {
      for (const each of [manifest.config, ...manifest.layers]) parts.set(each.digest, each);
    },
  };
  await walk(root, selection, visitor, async (work) => {
    for (const each of work) await each();
  });
  return [...parts.values(), ...documents.reverse()];
}

export async function requireThere(scope: Scope, { digest }: Descriptor): Promise<void> {
  if ((await scope.content.find(digest, scope.signal)) === undefined)
    throw new Failure('NotFound', `content digest ${digest}: not found`);
}

async function readSmall(scope: Scope, descriptor: Descriptor): Promise<Uint8Array> {
  if (descriptor.size > documentLimit)
    throw new Failure(
      'InvalidArgument',
      `content ${descriptor.digest}: has ${descriptor.size} bytes, the limit is ${documentLimit}: invalid argument`,
    );
  return scope.content.read(descriptor, scope.signal);
}
