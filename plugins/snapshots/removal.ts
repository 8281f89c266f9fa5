/**
 * Remove, and the removal of directories whose records are gone: by Remove, by the garbage collector, or by a crash between the two.
 *
 * A trash row stays until its directory is out of sight, so removal is repeated until it has happened; the rows themselves are forgotten
 * in batches, later: nobody waits for that.
 */
import { type Call, Failure, failpoint, type PluginContext } from 'troupe/plugin';
import { RecordsDefinition } from 'troupe/proto/troupe/records/v1/records.ts';
import type { RemoveSnapshotRequest } from 'troupe/proto/containerd/services/snapshots/v1/snapshots.ts';
import { requireNamespace } from '../lib/namespace/namespace.ts';
import { lockOf } from './prepare.ts';
import type { Snapshotters } from './snapshotters.ts';
import { hasChild, type SnapshotStore, type TrashRow } from './store.ts';

export interface Removing {
  readonly ctx: Pick<PluginContext, 'exclusive'>;
  readonly store: SnapshotStore;
  readonly snapshotters: Snapshotters;
  readonly trash: TrashCollector;
}

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
  await at.trash.collect([String(id)]);
  failpoint('snapshots.remove.reply');
}

export class TrashCollector {
  readonly #ctx: Pick<PluginContext, 'call' | 'log' | 'signal'>;
  readonly #store: SnapshotStore;
  readonly #snapshotters: Snapshotters;
  readonly #gone = new Set<number>();
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
    void this.#follow(following.signal);
  }

  /** Lets go of the feed and of the rows: what is not forgotten now is found again by the next to follow. */
  async stop(): Promise<void> {
    this.#following?.abort();
    await this.#forgetting;
  }

  async #follow(stopped: AbortSignal): Promise<void> {
    const signal = AbortSignal.any([stopped, this.#ctx.signal]);
    while (!signal.aborted) {
      try {
        const changes = this.#ctx.call(RecordsDefinition).changes({}, { signal });
        // What was there before the feed began.
        await this.collect();
        for await (const _ of changes) await this.collect();
      } catch (error) {
        if (signal.aborted) return;
        this.#ctx.log.warn('feed of changes broke, trash is looked at again in a second', { error: String(error) });
      }
      await pause(1000, signal);
    }
  }

  /** Removes the directories of all trash rows, or of those with these ids. A snapshotter that cannot be asked keeps its rows. */
  async collect(ids?: readonly string[]): Promise<void> {
    const rows = this.#store.trash().filter((row) => !this.#gone.has(row.seq) && (ids?.includes(row.id) ?? true));
    await Promise.all(rows.map((row) => this.#remove(row)));
    if (this.#gone.size > 0) this.#forgetting = this.#forgetting.then(() => this.#forget());
  }

  async #remove(row: TrashRow): Promise<void> {
    try {
      const { client } = await this.#snapshotters.get(row.snapshotter);
      await client.remove({ id: row.id }, { signal: this.#ctx.signal });
      this.#gone.add(row.seq);
    } catch (error) {
      if (this.#ctx.signal.aborted) return;
      this.#ctx.log.warn('directory of a removed snapshot is left for now', { ...row, error: String(error) });
    }
  }

  async #forget(): Promise<void> {
    const seqs = [...this.#gone];
    if (seqs.length === 0) return;
    failpoint('snapshots.trash.forget');
    try {
      await this.#store.forget(seqs);
      for (const seq of seqs) this.#gone.delete(seq);
    } catch (error) {
      // The rows are found again at the next start, and then there is no directory: nothing to do.
      this.#ctx.log.debug('trash rows are left for now', { error: String(error) });
    }
  }
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const end = (): void => {
      clearTimeout(timer);
      signal.removeEventListener('abort', end);
      resolve();
    };
    const timer = setTimeout(end, ms);
    signal.addEventListener('abort', end);
  });
}
