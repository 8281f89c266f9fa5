/**
 * The layers of one image made into snapshots: each as soon as its blob is there, or while that comes, all at once where the snapshotter can put a layer on its parent afterwards, and
 * committed from the bottom up.
 *
 * A layer that is applied before the one below is there goes into an overlay mount of which only the upper directory is known. One that leans on what is
 * below (a hard link to a file of a lower layer) is refused there, and has its turn when its parent is committed.
 *
 * Following a blob that comes is an attempt. It uses the processors that a pull would leave idle until its first blob is complete; whatever is wrong with it, the layer
 * is unpacked anew when its blob is there and known to be good, and only what that says is told. Nothing is committed before.
 */
import { createHash, randomBytes } from 'node:crypto';
import { Failure, type PluginContext } from 'troupe/plugin';
import type { Descriptor as ProtoDescriptor } from 'troupe/proto/containerd/types/descriptor.ts';
import type { Mount } from 'troupe/proto/containerd/types/mount.ts';
import { SnapshotterDefinition } from 'troupe/proto/troupe/snapshots/v1/snapshots.ts';
import type { Descriptor } from '../lib/image/document.ts';
import { refKey } from '../lib/image/media-type.ts';
import type { Coming } from './coming.ts';
import type { Scope } from './scope.ts';

export interface UnpackParts {
  readonly ctx: Pick<PluginContext, 'exclusive' | 'call'>;
  readonly scope: Scope;
  readonly snapshotter: string;
}

/** `in order`: what is below must be there. `again`: what it came to is of no use. */
type Unpacked = 'made' | 'in order' | 'again';

interface Step {
  readonly layer: Descriptor;
  readonly diffId: string;
  readonly chainId: string;
  readonly parent: string;
  /** Resolves when the parent is committed, rejects when it never will be. */
  readonly below: Promise<void>;
  readonly done: PromiseWithResolvers<void>;
}

const cleanupMs = 60_000;
const UNCOMPRESSED = 'containerd.io/uncompressed';
const SNAPSHOT_REF = 'containerd.io/snapshot.ref';

export class Unpack {
  readonly #parts: UnpackParts;
  readonly #steps: readonly Step[];
  readonly #rebase: Promise<boolean>;

  /** @param layers bottom first, with the digests of what they unpack to */
  constructor(parts: UnpackParts, layers: readonly Descriptor[], diffIds: readonly string[]) {
    this.#parts = parts;
    this.#rebase = this.#canRebase();
    this.#rebase.catch(() => {});
    const steps: Step[] = [];
    for (const [at, layer] of layers.entries()) {
      const before = steps.at(-1);
      const diffId = diffIds[at]!;
      const done = Promise.withResolvers<void>();
      // Heard of by the layer above, or by nobody when that has failed already.
      done.promise.catch(() => {});
      steps.push({
        layer,
        diffId,
        chainId: before === undefined ? diffId : chainId(before.chainId, diffId),
        parent: before?.chainId ?? '',
        below: before?.done.promise ?? Promise.resolve(),
        done,
      });
    }
    this.#steps = steps;
  }

  /** The name of the snapshot with all layers; empty when there are none. */
  get chainId(): string {
    return this.#steps.at(-1)?.chainId ?? '';
  }

  /** Unpacks one layer, and waits for its blob and those below. @param at its place, 0 the bottom */
  async layer(at: number, blob: Coming, signal: AbortSignal): Promise<void> {
    const { ctx, scope, snapshotter } = this.#parts;
    const step = this.#steps[at]!;
    try {
      await blob.began;
      // Whoever else unpacks the same layers waits here, and then finds the snapshot. Layers wait only for those below them, so nobody waits in a circle.
      const lock = `unpack:${scope.namespace}/${snapshotter}/${step.chainId}`;
      await ctx.exclusive(lock, () => this.#unpack(step, blob, signal), signal);
    } catch (error) {
      step.done.reject(error);
      throw error;
    }
  }

  async #unpack(step: Step, blob: Coming, signal: AbortSignal): Promise<void> {
    const { scope } = this.#parts;
    const { layer } = step;
    if (await this.#isThere(step, signal)) {
      await blob.there;
      await waitFor(step.below, signal);
      step.done.resolve();
      return;
    }
    if (!(await this.#early(step, blob, signal))) {
      await blob.there;
      await waitFor(step.below, signal);
      await this.#made(step, step.parent, (mounts) => this.#apply(step, mounts, signal), signal);
    }
    // The layer above waits for this, and for nothing that is still to be said of this one.
    step.done.resolve();
    scope.progress.update('extracted', layer, layer.size);
    await scope.content.label(layer.digest, { [UNCOMPRESSED]: step.diffId }, signal);
  }

  /** Without what is below. @returns false when the layer has to wait for that after all */
  async #early(step: Step, blob: Coming, signal: AbortSignal): Promise<boolean> {
    if (step.parent !== '' && !(await this.#rebase)) return false;
    if (!blob.complete) {
      const followed = await this.#made(step, '', (mounts) => this.#follow(step, mounts, blob, signal), signal);
      if (followed !== 'again') return followed === 'made';
    }
    await blob.there;
    return (await this.#made(step, '', (mounts) => this.#apply(step, mounts, signal), signal)) === 'made';
  }

  /** A snapshot on `parent`, if only for as long as it is unpacked into. What is not committed by then is removed. */
  async #made(
    step: Step,
    parent: string,
    unpack: (mounts: readonly Mount[]) => Promise<Unpacked>,
    signal: AbortSignal,
  ): Promise<Unpacked> {
    const { scope, snapshotter } = this.#parts;
    const { namespace, lease, trace, clients } = scope;
    const { chainId } = step;
    const key = `extract-${process.hrtime.bigint() % 1_000_000_000n}-${randomBytes(3).toString('base64url')} ${chainId}`;
    const labels = { [SNAPSHOT_REF]: chainId };
    let mounts: readonly Mount[];
    try {
      ({ mounts } = await clients.snapshots.prepare(
        { snapshotter, key, parent, labels },
        { namespace, lease, trace, signal },
      ));
    } catch (error) {
      // A snapshotter that has the layer from elsewhere says so in this way.
      if (Failure.is(error, 'AlreadyExists')) return 'made';
      // It may have been made while nobody waited any more.
      if (signal.aborted) await this.#remove(key);
      throw error;
    }
    let committed = false;
    try {
      const ahead = parent !== step.parent;
      const unpacked = await unpack(ahead ? mounts.map(withoutLower) : mounts);
      if (unpacked !== 'made') return unpacked;
      await waitFor(step.below, signal);
      committed = await this.#commit(step, key, ahead ? step.parent : '', signal);
      return 'made';
    } finally {
      if (!committed) await this.#remove(key);
    }
  }

  /** Harmless for what is not there, or is committed without our having heard of it: then its key is free already. */
  async #remove(key: string): Promise<void> {
    const { scope, snapshotter } = this.#parts;
    await scope.clients.snapshots
      .remove({ snapshotter, key }, { namespace: scope.namespace, timeoutMs: cleanupMs })
      .catch(() => {});
  }

  async #apply(step: Step, mounts: readonly Mount[], signal: AbortSignal): Promise<Unpacked> {
    const { scope } = this.#parts;
    const { layer, diffId } = step;
    const { namespace, trace, clients } = scope;
    scope.progress.update('extracting', layer, 0);
    const request = { diff: diffOf(layer), mounts: [...mounts], payloads: {}, syncFs: false };
    try {
      const { applied } = await clients.diff.apply(request, { namespace, trace, signal });
      if (applied?.digest === diffId) return 'made';
      throw new Failure(
        'InvalidArgument',
        `layer ${layer.digest}: wrong diff id calculated on extraction: ${applied?.digest}, its config says ${diffId}: invalid argument`,
      );
    } catch (error) {
      if (isInOrder(error, mounts)) return 'in order';
      throw error;
    }
  }

  async #follow(step: Step, mounts: readonly Mount[], blob: Coming, signal: AbortSignal): Promise<Unpacked> {
    const { namespace, trace, clients } = this.#parts.scope;
    const request = { ref: refKey(step.layer), diff: diffOf(step.layer), mounts: [...mounts] };
    try {
      const { applied } = await clients.arrivals.follow(request, { namespace, trace, signal });
      if (applied?.digest !== step.diffId) return 'again';
    } catch (error) {
      signal.throwIfAborted();
      return isInOrder(error, mounts) ? 'in order' : 'again';
    }
    await blob.there;
    return 'made';
  }

  /** @returns false when somebody else has made the same: then `key` is left over */
  async #commit({ chainId }: Step, key: string, parent: string, signal: AbortSignal): Promise<boolean> {
    const { scope, snapshotter } = this.#parts;
    const { namespace, lease, trace, clients } = scope;
    const labels = { [SNAPSHOT_REF]: chainId };
    try {
      await clients.snapshots.commit(
        { snapshotter, name: chainId, key, parent, labels },
        { namespace, lease, trace, signal },
      );
      return true;
    } catch (error) {
      if (!Failure.is(error, 'AlreadyExists')) throw error;
      await this.#keep(chainId, signal);
      return false;
    }
  }

  async #isThere({ chainId }: Step, signal: AbortSignal): Promise<boolean> {
    const { scope, snapshotter } = this.#parts;
    // In the lease before it is looked at, so that it is not collected in between.
    await this.#keep(chainId, signal);
    try {
      await scope.clients.snapshots.stat({ snapshotter, key: chainId }, { namespace: scope.namespace, signal });
      return true;
    } catch (error) {
      if (Failure.is(error, 'NotFound')) return false;
      throw error;
    }
  }

  async #keep(chainId: string, signal: AbortSignal): Promise<void> {
    const { scope, snapshotter } = this.#parts;
    await scope.clients.leases.addResource(
      { id: scope.lease, resource: { type: `snapshots/${snapshotter}`, id: chainId } },
      { namespace: scope.namespace, signal },
    );
  }

  async #canRebase(): Promise<boolean> {
    const { ctx, snapshotter } = this.#parts;
    try {
      const { capabilities } = await ctx
        .call(SnapshotterDefinition, { name: snapshotter })
        .info({}, { timeoutMs: 10_000 });
      return capabilities.includes('rebase');
    } catch {
      // Whether there is one at all is told better by the snapshots service.
      return false;
    }
  }
}

/** What the differ says of a layer that was to be unpacked without what is below. */
function isInOrder(error: unknown, [mount]: readonly Mount[]): boolean {
  const detached = mount?.type === 'overlay' && !mount.options.some((option) => option.startsWith('lowerdir='));
  return detached && Failure.is(error, 'FailedPrecondition');
}

function diffOf({ mediaType, digest, size }: Descriptor): ProtoDescriptor {
  return { mediaType, digest, size: BigInt(size), annotations: {} };
}

/** A snapshot without a parent is a bind mount of the directory that becomes an upper one. Backslashes, commas and colons are escaped in overlay's options. */
function withoutLower(mount: Mount): Mount {
  if (mount.type !== 'bind') return mount;
  return { ...mount, type: 'overlay', options: [`upperdir=${mount.source.replace(/[\\,:]/g, '\\$&')}`] };
}

/** OCI image spec, "Layer ChainID". */
export function chainId(parent: string, diffId: string): string {
  return `sha256:${createHash('sha256').update(`${parent} ${diffId}`).digest('hex')}`;
}

async function waitFor(promise: Promise<void>, signal: AbortSignal): Promise<void> {
  signal.throwIfAborted();
  const aborted = Promise.withResolvers<never>();
  const abort = (): void => aborted.reject(Failure.from(signal.reason));
  signal.addEventListener('abort', abort, { once: true });
  try {
    await Promise.race([promise, aborted.promise]);
  } finally {
    signal.removeEventListener('abort', abort);
  }
}
