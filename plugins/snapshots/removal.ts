/**
 * Remove, and the removal of directories whose records are gone: by Remove, by the garbage collector, or by a crash between the two.
 *
 * A trash row stays until its directory is out of sight, so removal is repeated until it has happened; the rows themselves are forgotten
 * in batches, later: nobody waits for that.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { type Call, Failure, failpoint, type PluginContext } from 'troupe/plugin';
import type { RemoveSnapshotRequest } from 'troupe/proto/containerd/services/snapshots/v1/snapshots.ts';
import { RecordsDefinition } from 'troupe/proto/troupe/records/v1/records.ts';
import { requireNamespace } from '../lib/namespace/namespace.ts';
import { lockOf } from './prepare.ts';
import type { Snapshotters } from './snapshotters.ts';
import { hasChild, type SnapshotStore } from './store.ts';

export interface Removing {
  readonly ctx: Pick<PluginContext, 'exclusive'>;
  readonly store: SnapshotStore;
  readonly snapshotters: Snapshotters;
  readonly trash: TrashCollector;
}

/** Between two looks at the trash, however many commits there are: what the collector took may wait that long. */
const LOOK_MS = 250;
/** To the next attempt at what could not be removed. */
const RETRY_MS = 1000;
/** From a directory's end to that of its row, so that many rows go in one commit. */
const FORGET_MS = 1000;

export async function remove(at: Removing, request: RemoveSnapshotRequest, call: Call): Promise<void> {
  const snapshotter = await at.snapshotters.get(request.snapshotter);
  const ns = requireNamespace(call);
  const name = { ns, snapshotter: snapshotter.name, key: request.key };
  const id = await at.ctx.exclusive(
    lockOf(name),
    async () => {
      const row = at.store.require(name);
      if (at.store.hasChildren(row.id)) throw hasChild();
      failpoint('snapshots.remove.record');
      try {
        await at.store.remove(row, call.lease);
      } catch (error) {
        // A lease that is gone has nothing to let go of; everything else the second attempt says again.
        if (call.lease === '' || !Failure.is(error, 'NotFound')) throw error;
        await at.store.remove(row, '');
      }
      failpoint('snapshots.remove.directory');
      return row.id;
    },
    call.signal,
  );
  await at.trash.remove({ id: String(id), snapshotter: snapshotter.name });
  failpoint('snapshots.remove.reply');
}

export class TrashCollector {
  readonly #ctx: Pick<PluginContext, 'call' | 'log' | 'signal'>;
  readonly #store: SnapshotStore;
  readonly #snapshotters: Snapshotters;
  /** Ids of directories that are gone and whose rows are not. */
  readonly #gone = new Set<string>();
  readonly #removing = new Map<string, Promise<void>>();
  #timer: NodeJS.Timeout | undefined;
  #again: NodeJS.Timeout | undefined;
  #forgetting: Promise<void> = Promise.resolve();
  #following: AbortController | undefined;

  constructor(ctx: Pick<PluginContext, 'call' | 'log' | 'signal'>, store: SnapshotStore, snapshotters: Snapshotters) {
    this.#ctx = ctx;
    this.#store = store;
    this.#snapshotters = snapshotters;
  }

  /** Collects what is there, and from now on what the garbage collector leaves. */
  follow(): void {
    const following = new AbortController();
    this.#following = following;
    void this.#follow(AbortSignal.any([following.signal, this.#ctx.signal]));
  }

  /** Lets go of the feed. */
  leave(): void {
    this.#following?.abort();
    clearTimeout(this.#again);
  }

  /** What is not forgotten then is found again by the next to follow. */
  async stop(): Promise<void> {
    this.leave();
    await this.#forget();
  }

  /** A busy daemon wakes this thread a few times a second, an idle one never: changes while it pauses are one. The first is what was there before. */
  async #follow(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      try {
        for await (const _ of this.#ctx.call(RecordsDefinition).changes({}, { signal })) {
          // Not waited for: a snapshotter that takes its time keeps only its own.
          void this.#look();
          await sleep(LOOK_MS, undefined, { signal });
        }
      } catch (error) {
        if (signal.aborted) return;
        this.#ctx.log.warn('feed of changes broke, trash is looked at again soon', { error: String(error) });
        void this.#look();
      }
      await sleep(LOOK_MS, undefined, { signal }).catch(() => {});
    }
  }

  async #look(): Promise<void> {
    await this.collect().catch((error) => this.#ctx.log.warn('trash is left for now', { error: String(error) }));
  }

  /** Removes the directories of all trash rows, or those of one snapshotter; what is being removed already is waited for. */
  async collect(snapshotter?: string): Promise<void> {
    const rows = this.#store.trash().filter((row) => {
      return !this.#gone.has(row.id) && (snapshotter === undefined || row.snapshotter === snapshotter);
    });
    await Promise.all(rows.map((row) => this.#removing.get(row.id) ?? this.remove(row)));
  }

  /** Removes the directory of one. It stays in the trash when its snapshotter cannot be asked. */
  remove(trash: { readonly id: string; readonly snapshotter: string }): Promise<void> {
    const removing = this.#remove(trash).finally(() => this.#removing.delete(trash.id));
    this.#removing.set(trash.id, removing);
    return removing;
  }

  async #remove({ id, snapshotter }: { readonly id: string; readonly snapshotter: string }): Promise<void> {
    try {
      const { client } = await this.#snapshotters.get(snapshotter);
      await client.remove({ id }, { signal: this.#ctx.signal });
      this.#gone.add(id);
      this.#timer ??= setTimeout(() => void this.#forget(), FORGET_MS).unref();
    } catch (error) {
      if (this.#ctx.signal.aborted) return;
      this.#ctx.log.warn('directory of a removed snapshot is left for now', { id, snapshotter, error: String(error) });
      this.#retry();
    }
  }

  #retry(): void {
    this.#again ??= setTimeout(() => {
      this.#again = undefined;
      if (this.#following?.signal.aborted || this.#ctx.signal.aborted) return;
      void this.#look();
      void this.#forget();
    }, RETRY_MS).unref();
  }

  /** Never rejects: rows that stay are found again, and then there is no directory and nothing to do. */
  #forget(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#forgetting = this.#forgetting.then(async () => {
      const gone = new Set(this.#gone);
      if (gone.size === 0) return;
      try {
        failpoint('snapshots.trash.forget');
        const rows = this.#store.trash().filter(({ id }) => gone.has(id));
        await this.#store.forget(rows.map(({ seq }) => seq));
        for (const id of gone) this.#gone.delete(id);
      } catch (error) {
        this.#ctx.log.debug('trash rows are left for now', { error: String(error) });
        this.#retry();
      }
    });
    return this.#forgetting;
  }
}
