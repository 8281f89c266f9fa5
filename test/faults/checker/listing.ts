/** What the daemon says that there is: every list a client can ask for, in every namespace. */
import { inner, integer, Rpc, text, textField, textMap } from './rpc.ts';

export interface Listing {
  readonly images: readonly { ns: string; name: string; digest: string; labels: Record<string, string> }[];
  readonly containers: readonly {
    ns: string;
    id: string;
    image: string;
    snapshotter: string;
    snapshotKey: string;
    labels: Record<string, string>;
  }[];
  readonly leases: readonly { ns: string; id: string; labels: Record<string, string> }[];
  readonly snapshots: readonly { ns: string; snapshotter: string; key: string; parent: string; kind: SnapshotKind }[];
  readonly blobs: readonly { ns: string; digest: string; size: number; labels: Record<string, string> }[];
  readonly ingests: readonly { ns: string; ref: string; offset: number; total: number }[];
  readonly tasks: readonly { ns: string; id: string; pid: number; status: TaskStatus }[];
}

export type SnapshotKind = 'view' | 'active' | 'committed' | 'unknown';
export type TaskStatus = 'unknown' | 'created' | 'running' | 'stopped' | 'paused' | 'pausing';

const kinds: readonly SnapshotKind[] = ['unknown', 'view', 'active', 'committed'];
const statuses: readonly TaskStatus[] = ['unknown', 'created', 'running', 'stopped', 'paused', 'pausing'];
export const snapshotters = ['overlayfs', 'native'] as const;

/** @throws Error when the daemon does not answer, or answers a list with an error */
export async function list(address: string): Promise<Listing> {
  const rpc = new Rpc(address);
  try {
    return await listAll(rpc);
  } finally {
    rpc.close();
  }
}

async function listAll(rpc: Rpc): Promise<Listing> {
  const v1 = (service: string) => `containerd.services.${service}`;
  const names = (await rpc.call(v1('namespaces.v1.Namespaces/List'), 'default'))
    .flatMap((reply) => inner(reply, 1))
    .map((namespace) => text(namespace, 1));
  const everywhere = async <T>(
    path: string,
    field: number,
    convert: (ns: string, item: ReturnType<typeof inner>[number]) => T,
    request?: Buffer,
  ): Promise<T[]> => {
    const found: T[] = [];
    for (const ns of names) {
      const replies = await rpc.call(v1(path), ns, request);
      found.push(...replies.flatMap((reply) => inner(reply, field)).map((item) => convert(ns, item)));
    }
    return found;
  };
  const [images, containers, leases, blobs, ingests, tasks, ...snapshots] = await Promise.all([
    everywhere('images.v1.Images/List', 1, (ns, item) => ({
      ns,
      name: text(item, 1),
      digest: text(inner(item, 3)[0] ?? new Map(), 2),
      labels: textMap(item, 2),
    })),
    // Those of clients that died with theirs may be too much for one answer.
    everywhere('containers.v1.Containers/ListStream', 1, (ns, item) => ({
      ns,
      id: text(item, 1),
      image: text(item, 3),
      snapshotter: text(item, 6),
      snapshotKey: text(item, 7),
      labels: textMap(item, 2),
    })),
    everywhere('leases.v1.Leases/List', 1, (ns, item) => ({ ns, id: text(item, 1), labels: textMap(item, 3) })),
    everywhere('content.v1.Content/List', 1, (ns, item) => ({
      ns,
      digest: text(item, 1),
      size: integer(item, 2),
      labels: textMap(item, 5),
    })),
    everywhere('content.v1.Content/ListStatuses', 1, (ns, item) => ({
      ns,
      ref: text(item, 3),
      offset: integer(item, 4),
      total: integer(item, 5),
    })),
    everywhere('tasks.v1.Tasks/List', 1, (ns, item) => ({
      ns,
      id: text(item, 1) || text(item, 2),
      pid: integer(item, 3),
      status: statuses[integer(item, 4)] ?? 'unknown',
    })),
    ...snapshotters.map((snapshotter) =>
      everywhere(
        'snapshots.v1.Snapshots/List',
        1,
        (ns, item) => ({
          ns,
          snapshotter,
          key: text(item, 1),
          parent: text(item, 2),
          kind: kinds[integer(item, 3)] ?? 'unknown',
        }),
        textField(1, snapshotter),
      ),
    ),
  ]);
  return { images, containers, leases, blobs, ingests, tasks, snapshots: snapshots.flat() };
}
