/** troupe.diff.v1.Arrivals: the walking differ's, for layers that nothing else has a say in. Everything else is for Diff.Apply, when the blob is there. */
import { Failure, type Service } from 'troupe/plugin';
import type { ArrivalsDefinition } from 'troupe/proto/troupe/diff/v1/arrivals.ts';
import { parseDigest } from '../lib/digest/digest.ts';
import { givenUp } from '../lib/layer/arrival.ts';
import type { LayerPool } from '../lib/layer/pool.ts';
import { requireNamespace } from '../lib/namespace/namespace.ts';
import type { Verifiers } from '../lib/verifier/verifiers.ts';
import type { Blobs } from './blobs.ts';
import { requireLayer } from './media-type.ts';
import { type ApplyOptions, appliedOf, layerTask } from './service.ts';

/** A line that is slower than this leaves the processors idle anyway; and a file that nobody writes to any more is noticed. */
const patienceMs = 2000;

export interface ArrivalsOptions extends ApplyOptions {
  readonly verifiers: Verifiers;
  /** Of the differs, the one that is asked first. */
  readonly first: string | undefined;
}

export function arrivalsService(
  pool: LayerPool,
  blobs: Blobs,
  options: ArrivalsOptions,
): Service<typeof ArrivalsDefinition> {
  return {
    async follow({ ref, diff, mounts }, call) {
      const namespace = requireNamespace(call);
      if (diff === undefined) throw new Failure('InvalidArgument', 'no diff was given: invalid argument');
      const digest = parseDigest(diff.digest);
      const subject = `layer ${digest}`;
      requireLayer(diff.mediaType);
      if (diff.size <= 0n) throw givenUp(subject, 'its size is not known');
      if (options.first !== 'walking') throw givenUp(subject, `differ "${options.first}" comes first`);
      if (options.processors.find(diff.mediaType).steps.length > 0)
        throw givenUp(subject, 'stream processors need all of it');
      await options.verifiers.require(diff, call);
      const blob = blobs.arriving(namespace, ref, digest);
      if (blob === undefined) throw givenUp(subject, `nothing of it comes under ref ${ref}`);
      const task = layerTask(options, { subject, blob, digest, size: Number(diff.size), mounts, sync: false });
      const applied = await pool.follow(task, patienceMs, call.signal);
      await options.omissions.keep(digest, mounts, applied.omitted, call);
      return { applied: appliedOf(applied) };
    },
  };
}
