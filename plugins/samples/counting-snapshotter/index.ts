/** A snapshotter that has another do the work, and counts. Ids are unique over all snapshotters, so both may keep theirs in one place. */
import { type CallOptions, definePlugin } from 'troupe/plugin';
import { SnapshotterDefinition } from 'troupe/proto/troupe/snapshots/v1/snapshots.ts';

export default definePlugin<{ readonly wraps: string }, Record<string, number>>({
  start(ctx) {
    const wrapped = ctx.call(SnapshotterDefinition, { name: ctx.config.wraps });
    const calls: Record<string, number> = {};
    const counted = Object.entries(wrapped).map(([method, call]) => [
      method,
      (request: never, options: CallOptions) => {
        calls[method] = (calls[method] ?? 0) + 1;
        return call(request, options);
      },
    ]);
    return {
      serve: {
        [SnapshotterDefinition.fullName]: Object.fromEntries(counted),
        'example.counting.v1.Counts': { get: () => ({ calls }) },
      },
      activate(state) {
        Object.assign(calls, state);
      },
      suspend: () => calls,
    };
  },
});
