/** Snapshots for clients: keys, kinds, parents, labels, leases and usage are records here; directories and mounts are the snapshotters'. */
import { definePlugin } from 'troupe/plugin';
import { SnapshotsDefinition } from 'troupe/proto/containerd/services/snapshots/v1/snapshots.ts';
import { reconcile } from './reconcile.ts';
import { TrashCollector } from './removal.ts';
import { Sequence, type SequenceState } from './sequence.ts';
import { serveSnapshots } from './service.ts';
import { Snapshotters } from './snapshotters.ts';
import { SnapshotStore } from './store.ts';

export default definePlugin<Record<string, never>, { ids: SequenceState }>({
  start(ctx) {
    const store = new SnapshotStore(ctx.records);
    const snapshotters = new Snapshotters(ctx);
    const sequence = new Sequence(store);
    const trash = new TrashCollector(ctx, store, snapshotters);
    const parts = { ctx, store, sequence, snapshotters, trash };

    const reconcileAll = async (): Promise<void> => {
      // Side by side: one that does not answer must not keep the others from it.
      const reconcileOne = async (name: string): Promise<void> => {
        try {
          await reconcile(parts, await snapshotters.get(name));
        } catch (error) {
          if (!ctx.signal.aborted)
            ctx.log.warn('snapshots are not reconciled', { snapshotter: name, error: String(error) });
        }
      };
      await Promise.all((await snapshotters.names()).map(reconcileOne));
    };

    return {
      serve: { [SnapshotsDefinition.fullName]: serveSnapshots(parts) },
      async activate(state) {
        await sequence.start(state?.ids);
        trash.follow();
        // At boot and after a crash. Serving does not wait for it: what it removes is nobody's.
        if (state === undefined)
          reconcileAll().catch((error) => ctx.log.warn('snapshots are not reconciled', { error: String(error) }));
      },
      suspend() {
        // Callers wait: what is not forgotten by now is found again by the next generation.
        trash.leave();
        return { ids: sequence.handOver() };
      },
      stop: () => trash.stop(),
    };
  },
});
