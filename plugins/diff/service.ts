/**
 * containerd.services.diff.v1.Diff
 *
 * Apply takes the mounts that a snapshotter gives, and one form more: a single overlay mount with an `upperdir` and no `lowerdir` means a snapshot that was
 * prepared without its parent and gets it at Commit (which overlayfs here can: capability `rebase`). The layer is unpacked in overlay form, so that the
 * layers of an image need not wait for each other. One that cannot be unpacked without knowing what is below is refused with FailedPrecondition: the
 * client removes that snapshot, prepares it on its parent when that is there, and applies the layer to its mounts.
 */
import { Failure, failpoint, type Service } from 'troupe/plugin';
import type { DiffDefinition } from 'troupe/proto/containerd/services/diff/v1/diff.ts';
import type { Descriptor } from 'troupe/proto/containerd/types/descriptor.ts';
import { parseDigest } from '../lib/digest/digest.ts';
import { copyLabels } from '../lib/label/label.ts';
import { requireNamespace } from '../lib/namespace/namespace.ts';
import { type Blobs, UNCOMPRESSED } from './blobs.ts';
import { diffType, LAYER, requireLayer } from './media-type.ts';
import type { OmissionRecords } from './omissions.ts';
import type { Processors } from './processors.ts';
import type { LayerPool, LayerTask } from '../lib/layer/pool.ts';
import type { ApplyResult } from '../lib/layer/task.ts';

export interface ApplyOptions {
  /** A directory for mount points. */
  scratch(): string;
  /** Every Apply is durable when it answers. */
  readonly syncFs: boolean;
  /** 0: no limit. */
  readonly maxBytes: number;
  readonly maxEntries: number;
  readonly omissions: OmissionRecords;
  readonly processors: Processors;
}

/** With what the config says of every layer. */
export function layerTask(
  { scratch, syncFs, maxBytes, maxEntries }: ApplyOptions,
  layer: Pick<LayerTask, 'subject' | 'blob' | 'digest' | 'size' | 'mounts' | 'sync'>,
): LayerTask {
  return { ...layer, scratch: scratch(), sync: layer.sync || syncFs, maxBytes, limits: { entries: maxEntries } };
}

/** The uncompressed tar that it was. */
export function appliedOf({ diffId, size }: ApplyResult): Descriptor {
  return { mediaType: LAYER, digest: diffId, size: BigInt(size), annotations: {} };
}

export function diffService(pool: LayerPool, blobs: Blobs, options: ApplyOptions): Service<typeof DiffDefinition> {
  return {
    async apply({ diff, mounts, syncFs, payloads }, call) {
      const namespace = requireNamespace(call);
      if (diff === undefined) throw new Failure('InvalidArgument', 'no diff was given: invalid argument');
      const digest = parseDigest(diff.digest);
      const through = options.processors.find(diff.mediaType);
      requireLayer(through.returns);
      const { path, size } = blobs.file(namespace, digest);
      if (diff.size > 0n && diff.size !== BigInt(size)) {
        throw new Failure(
          'FailedPrecondition',
          `layer ${digest}: the descriptor says ${diff.size} bytes, the content has ${size}: failed precondition`,
        );
      }
      const processed = await options.processors.run(through, path, payloads, options.maxBytes, call.signal);
      failpoint('diff.apply.before-unpack');
      const applied = await pool
        .apply(
          layerTask(options, {
            subject: `layer ${digest}`,
            blob: processed?.path ?? path,
            digest: processed === undefined ? digest : parseDigest(processed.digest),
            size: processed?.size ?? size,
            mounts,
            sync: syncFs,
          }),
          call.signal,
        )
        .finally(() => processed?.remove());
      await options.omissions.keep(digest, mounts, applied.omitted, call);
      failpoint('diff.apply.before-reply');
      return { applied: appliedOf(applied) };
    },

    async diff({ left, right, mediaType: asked, ref, labels }, call) {
      requireNamespace(call);
      const { mediaType, compression } = diffType(asked);
      const wanted = copyLabels(labels);
      const stream = pool.diff({ subject: 'diff', left, right, compression, scratch: options.scratch() }, call.signal);
      try {
        const stored = await blobs.write(
          ref,
          stream.chunks,
          async () => {
            const { diffId } = await stream.result;
            return compression === 'none' ? wanted : { ...wanted, [UNCOMPRESSED]: diffId };
          },
          call,
        );
        failpoint('diff.diff.before-reply');
        return { diff: { mediaType, digest: stored.digest, size: stored.size, annotations: {} } };
      } finally {
        stream.close();
      }
    },
  };
}
