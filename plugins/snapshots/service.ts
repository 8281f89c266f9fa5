/** containerd.services.snapshots.v1.Snapshots: ten calls, parsed, carried out and converted. */
import { setImmediate } from 'node:timers/promises';
import { type Call, Failure, type PluginContext, type Service } from 'troupe/plugin';
import { Kind, type SnapshotsDefinition } from 'troupe/proto/containerd/services/snapshots/v1/snapshots.ts';
import { quote } from '../lib/identifier/quote.ts';
import { parseFilters } from '../lib/filter/filter.ts';
import { decodeLabels } from '../lib/label/label.ts';
import { requireNamespace } from '../lib/namespace/namespace.ts';
import { commit } from './commit.ts';
import { infoAdaptor, labelsForSnapshotter, toInfo } from './convert.ts';
import { prepare } from './prepare.ts';
import { reconcile } from './reconcile.ts';
import { remove, type TrashCollector } from './removal.ts';
import type { Sequence } from './sequence.ts';
import type { LoadedSnapshotter, Snapshotters } from './snapshotters.ts';
import type { SnapshotRow, SnapshotStore } from './store.ts';
import { changedLabels } from './update.ts';

/** Snapshots in one message of List, as containerd sends them. */
const BATCH = 100;

export interface Parts {
  readonly ctx: Pick<PluginContext, 'exclusive' | 'log' | 'signal'>;
  readonly store: SnapshotStore;
  readonly sequence: Sequence;
  readonly snapshotters: Snapshotters;
  readonly trash: TrashCollector;
}

export function serveSnapshots(parts: Parts): Service<typeof SnapshotsDefinition> {
  const { store, snapshotters } = parts;

  /** What a request names. */
  const find = async (
    request: { snapshotter: string; key: string },
    call: Call,
  ): Promise<{ snapshotter: LoadedSnapshotter; row: SnapshotRow }> => {
    const snapshotter = await snapshotters.get(request.snapshotter);
    const ns = requireNamespace(call);
    return { snapshotter, row: store.require({ ns, snapshotter: snapshotter.name, key: request.key }) };
  };

  return {
    prepare: async (request, call) => ({ mounts: await prepare(parts, request, false, call) }),

    view: async (request, call) => ({ mounts: await prepare(parts, request, true, call) }),

    async mounts(request, call) {
      const { snapshotter, row } = await find(request, call);
      if (row.kind === Kind.COMMITTED) {
        const name = quote(`${row.ns}/${row.id}/${row.key}`).slice(1, -1);
        const text = `failed to get active mount: requested snapshot ${name} not active or view: failed precondition`;
        throw new Failure('FailedPrecondition', text);
      }
      const parents = store.chain(row.parent);
      const labels = labelsForSnapshotter(decodeLabels(row.labels));
      return snapshotter.client.mounts({ id: String(row.id), parents, readonly: row.kind === Kind.VIEW, labels }, call);
    },

    async commit(request, call) {
      await commit(parts, request, call);
      return {};
    },

    async remove(request, call) {
      await remove(parts, request, call);
      return {};
    },

    async stat(request, call) {
      const { snapshotter, row } = await find(request, call);
      return { info: toInfo(row, snapshotter) };
    },

    async update(request, call) {
      const { info } = request;
      const snapshotter = await snapshotters.get(request.snapshotter);
      const ns = requireNamespace(call);
      if (info === undefined) throw new Failure('InvalidArgument', 'snapshot info is required: invalid argument');
      const name = { ns, snapshotter: snapshotter.name, key: info.name };
      for (;;) {
        const row = store.require(name);
        const labels = changedLabels(row, info.labels, request.updateMask ?? []);
        if (await store.relabel(row, labels)) return { info: toInfo(store.require(name), snapshotter) };
      }
    },

    async *list(request, call) {
      const snapshotter = await snapshotters.get(request.snapshotter);
      const ns = requireNamespace(call);
      const matches = parseFilters(request.filters);
      let batch = [];
      for (let after = ''; ; ) {
        const rows = store.page(ns, snapshotter.name, after, BATCH);
        for (const row of rows) {
          const info = toInfo(row, snapshotter);
          if (matches(infoAdaptor(info))) batch.push(info);
          if (batch.length === BATCH) {
            yield { info: batch };
            batch = [];
          }
        }
        if (rows.length < BATCH) break;
        after = rows.at(-1)!.key;
        // A filter may pass over a hundred thousand without anything to send.
        await setImmediate();
      }
      if (batch.length > 0) yield { info: batch };
    },

    async usage(request, call) {
      const { snapshotter, row } = await find(request, call);
      // A view has no files of its own, a committed one has been measured for good.
      if (row.kind !== Kind.ACTIVE) return { size: BigInt(row.size), inodes: BigInt(row.inodes) };
      return snapshotter.client.usage({ id: String(row.id) }, call);
    },

    async cleanup(request) {
      const snapshotter = await snapshotters.get(request.snapshotter);
      await parts.trash.collect(snapshotter.name);
      await reconcile(parts, snapshotter);
      return {};
    },
  };
}
