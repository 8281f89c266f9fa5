/**
 * troupe.snapshots.v1.Snapshotter by containerd.services.snapshots.v1.Snapshots. The other side keeps records of its own, and its names are our ids:
 *
 *     active-12    what was prepared as 12: a key over there
 *     12           the same, committed; a name that others have as their parent
 *
 * A daemon may die between the other side's commit and its own record, or between its record and the other side's removal. So nothing is kept here: each call
 * looks at what is over there, and goes on from that.
 */
import { type Call, type CallOptions, type Client, Failure, type Service } from 'troupe/plugin';
import { Kind, type SnapshotsDefinition } from 'troupe/proto/containerd/services/snapshots/v1/snapshots.ts';
import type { SnapshotterDefinition } from 'troupe/proto/troupe/snapshots/v1/snapshots.ts';
import type { Remote } from '../lib/proxy/remote.ts';

export interface ProxyOptions {
  readonly remote: Pick<Remote, 'options' | 'failure'>;
  readonly snapshots: Client<typeof SnapshotsDefinition>;
  readonly snapshotter: string;
  readonly namespace: string;
  readonly root: string;
}

/** Where the other side collects garbage, ours is none: what it is for is known here alone. */
const kept = { 'containerd.io/gc.root': 'troupe' };
/** Asks the other side to make a committed snapshot at once, under a name that it would choose: none of our ids. */
const remoteTarget = 'containerd.io/snapshot.ref';

export function proxySnapshotter(options: ProxyOptions): Service<typeof SnapshotterDefinition> {
  const { remote, snapshots, snapshotter, namespace, root } = options;
  const active = (id: string): string => `active-${numbered(id)}`;

  /** One call over there; `otherwise` is what a code of failure means instead. */
  const ask = async <T>(
    call: Call,
    length: 'short' | 'long',
    work: (options: CallOptions) => Promise<T>,
    otherwise: Partial<Record<Failure['code'], (failure: Failure) => Promise<T> | T>> = {},
  ): Promise<T> => {
    try {
      // The lease is ours, and nobody's over there.
      return await work(remote.options({ ...pick(call), namespace }, length));
    } catch (error) {
      const failure = remote.failure(error);
      const instead = otherwise[failure.code];
      if (instead === undefined) throw failure;
      return instead(failure);
    }
  };
  const kindOf = (key: string, call: Call): Promise<Kind | undefined> =>
    ask(call, 'short', async (o) => (await snapshots.stat({ snapshotter, key }, o)).info?.kind, {
      NotFound: () => undefined,
    });
  const mountsOf = (id: string, call: Call) =>
    ask(call, 'short', (o) => snapshots.mounts({ snapshotter, key: active(id) }, o), {
      async NotFound(failure) {
        if ((await kindOf(numbered(id), call)) !== Kind.COMMITTED) throw failure;
        const text = `snapshot ${id} was committed when the daemon died: commit it again, or remove it: failed precondition`;
        throw new Failure('FailedPrecondition', text);
      },
    });
  const usageOf = (key: string, call: Call) => ask(call, 'long', (o) => snapshots.usage({ snapshotter, key }, o));
  const removals = new Set<Promise<unknown>>();
  const removeOne = async (key: string, call: Call): Promise<void> => {
    for (;;) {
      const others = [...removals];
      const removal = ask<unknown>(call, 'long', (o) => snapshots.remove({ snapshotter, key }, o), {
        NotFound: () => ({}),
      });
      removals.add(removal);
      try {
        await removal;
        return;
      } catch (error) {
        // It has a child, whose removal may be under way: over there the order counts.
        if (!Failure.is(error, 'FailedPrecondition') || others.length === 0) throw error;
      } finally {
        removals.delete(removal);
      }
      await Promise.race(others.map((other) => other.catch(() => undefined)));
    }
  };

  return {
    // Asked before anybody needs the other side, so the other side is not asked.
    info: () => ({ capabilities: [], root }),

    prepare({ id, parents, readonly, labels }, call) {
      const { [remoteTarget]: _, ...others } = labels;
      const parent = parents[0] === undefined ? '' : numbered(parents[0]);
      const request = { snapshotter, key: active(id), parent, labels: { ...others, ...kept } };
      return ask(call, 'long', (o) => (readonly ? snapshots.view(request, o) : snapshots.prepare(request, o)), {
        AlreadyExists: () => mountsOf(id, call),
      });
    },

    mounts: ({ id }, call) => mountsOf(id, call),

    async commit({ id }, call) {
      const name = numbered(id);
      const request = { snapshotter, name, key: active(id), labels: kept, parent: '' };
      const done = async (failure: Failure): Promise<object> => {
        if ((await kindOf(name, call)) !== Kind.COMMITTED) throw failure;
        return {};
      };
      await ask<object>(call, 'long', (o) => snapshots.commit(request, o), { NotFound: done, AlreadyExists: done });
      return usageOf(name, call);
    },

    async usage({ id }, call) {
      const isActive = (await kindOf(active(id), call)) !== undefined;
      return usageOf(isActive ? active(id) : numbered(id), call);
    },

    async remove({ id }, call) {
      await removeOne(active(id), call);
      await removeOne(numbered(id), call);
      return {};
    },

    async list(_request, call) {
      const names: string[] = [];
      await ask(call, 'long', async (o) => {
        for await (const { info } of snapshots.list({ snapshotter, filters: [] }, o))
          names.push(...info.map((each) => each.name));
      });
      const ids = names.flatMap((name) => /^(?:active-)?(\d+)$/.exec(name)?.[1] ?? []);
      return { ids: [...new Set(ids)] };
    },
  };
}

/** What of a call goes along: its abort, its end and its trace. */
function pick({ signal, deadline, trace }: Call): Pick<Call, 'signal' | 'deadline' | 'trace'> {
  return { signal, deadline, trace };
}

function numbered(id: string): string {
  if (/^\d+$/.test(id)) return id;
  throw new Failure('InvalidArgument', `snapshot id "${id}" is not a number: invalid argument`);
}
