/** The Snapshotter service over {@link SnapshotDirectories}; what differs between snapshotters is their {@link Layout}. */
import { Failure, failpoint, type Service } from 'troupe/plugin';
import { Mount } from 'troupe/proto/containerd/types/mount.ts';
import { InfoResponse, type SnapshotterDefinition } from 'troupe/proto/troupe/snapshots/v1/snapshots.ts';
import type { SnapshotDirectories } from './directories.ts';

/** A snapshot as Prepare and Mounts name it. */
export interface Snapshot {
  readonly id: string;
  /** Ids, nearest first. */
  readonly parents: readonly string[];
  readonly readonly: boolean;
  readonly labels: { readonly [key: string]: string };
}

export interface Layout {
  readonly capabilities: readonly string[];
  /** Fills the new directory. The parents' directories are there. */
  fill(directory: string, snapshot: Snapshot): Promise<void> | void;
  /** Touches no disk. */
  mounts(snapshot: Snapshot): { type: string; source: string; options: string[] }[];
  /** The part of the snapshot's directory that holds its files. */
  files(directory: string): string;
}

export function serveSnapshotter(
  directories: SnapshotDirectories,
  layout: Layout,
): Service<typeof SnapshotterDefinition> {
  const mounts = (snapshot: Snapshot): { mounts: Mount[] } => ({
    mounts: layout.mounts(snapshot).map((mount) => Mount.fromPartial(mount)),
  });
  return {
    info: () => InfoResponse.fromPartial({ capabilities: [...layout.capabilities], root: directories.path }),

    async prepare(request) {
      for (const parent of request.parents) directories.require(parent);
      await directories.make(request.id, (directory) => layout.fill(directory, request));
      failpoint('snapshotter.prepare.reply');
      return mounts(request);
    },

    mounts(request) {
      for (const id of [request.id, ...request.parents]) directories.directory(id);
      return mounts(request);
    },

    async commit(request) {
      const directory = directories.require(request.id);
      if (request.parents.includes(request.id)) {
        throw new Failure('InvalidArgument', `snapshot ${request.id} as its own parent: invalid argument`);
      }
      // At once: blocks that are only promised to a file count as well, before the sync as after it.
      const [{ size, inodes }] = await Promise.all([directories.measure(layout.files(directory)), directories.sync()]);
      failpoint('snapshotter.commit.reply');
      return { size: BigInt(size), inodes: BigInt(inodes) };
    },

    async usage(request) {
      const { size, inodes } = await directories.measure(layout.files(directories.require(request.id)));
      return { size: BigInt(size), inodes: BigInt(inodes) };
    },

    async remove(request) {
      await directories.remove(request.id);
      failpoint('snapshotter.remove.reply');
      return {};
    },

    list: () => ({ ids: directories.list() }),
  };
}
