/** The steps that the suite of snapshots is made of: calls through the API, and mounts. */
import { lstatSync, mkdtempSync, rmdirSync } from 'node:fs';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import { Failure, type FailureCode } from 'troupe/plugin';
import { Kind, type SnapshotsDefinition } from 'troupe/proto/containerd/services/snapshots/v1/snapshots.ts';
import { detach, mountOn } from 'troupe/sys';
import type { PartialClient } from '../helpers/in-process.ts';

type Snapshots = PartialClient<SnapshotsDefinition>;

export interface SnapshotsUnderTest {
  /** Calls carry the namespace already. */
  readonly snapshots: Snapshots;
  readonly snapshotter: string;
  /** A directory of the test's own. */
  readonly scratch: string;
}

/** Snapshots that nothing refers to are the collector's; the suite keeps its own. */
export const labels = { 'containerd.io/gc.root': '2026-01-01T00:00:00Z' };

/** Declares one test of the suite. */
export type Check = (title: string, body: (t: ExecutionContext, s: Steps) => Promise<void>) => void;

export class Steps {
  readonly snapshots: Snapshots;
  readonly snapshotter: string;
  readonly #t: ExecutionContext;
  readonly #scratch: string;
  #views = 0;

  constructor(t: ExecutionContext, { snapshots, snapshotter, scratch }: SnapshotsUnderTest) {
    this.#t = t;
    this.snapshots = snapshots;
    this.snapshotter = snapshotter;
    this.#scratch = scratch;
  }

  async prepare(key: string, parent = '', more: Record<string, string> = {}) {
    return (await this.snapshots.prepare({ ...this.#key(key), parent, labels: { ...labels, ...more } })).mounts;
  }

  async view(key: string, parent = '') {
    return (await this.snapshots.view({ ...this.#key(key), parent, labels })).mounts;
  }

  async commit(name: string, key: string, more: Record<string, string> = {}) {
    await this.snapshots.commit({ ...this.#key(key), name, labels: { ...labels, ...more } });
  }

  async mounts(key: string) {
    return (await this.snapshots.mounts(this.#key(key))).mounts;
  }

  async stat(key: string) {
    return (await this.snapshots.stat(this.#key(key))).info!;
  }

  async usage(key: string) {
    return this.snapshots.usage(this.#key(key));
  }

  async remove(key: string) {
    await this.snapshots.remove(this.#key(key));
  }

  async update(key: string, changed: Record<string, string>, updateMask: string[]) {
    const info = { name: key, labels: changed, parent: 'nowhere', kind: Kind.VIEW };
    return (await this.snapshots.update({ snapshotter: this.snapshotter, info, updateMask })).info!;
  }

  async list(...filters: string[]): Promise<string[]> {
    const names: string[] = [];
    for await (const { info } of this.snapshots.list({ snapshotter: this.snapshotter, filters })) {
      names.push(...info.map((each) => each.name));
    }
    return names;
  }

  /** A committed snapshot with what `change` makes of its parent. */
  async layer(name: string, parent: string, change: (root: string) => void): Promise<void> {
    const key = `${name}-active`;
    await this.prepare(key, parent);
    await this.mounted(key, change);
    await this.commit(name, key);
  }

  /** Runs `look` on a view of a committed snapshot. */
  async see(name: string, look: (root: string) => void): Promise<void> {
    const key = `view ${this.#views++}`;
    await this.view(key, name);
    await this.mounted(key, look);
    await this.remove(key);
  }

  /** Runs `use` on the mounted snapshot. */
  async mounted(key: string, use: (root: string) => void): Promise<void> {
    const target = mkdtempSync(join(this.#scratch, 'mount-'));
    for (const mount of await this.mounts(key)) mountOn(target, mount);
    try {
      use(target);
    } finally {
      detach(target);
      rmdirSync(target);
    }
  }

  async fails(code: FailureCode, message: string | RegExp, work: Promise<unknown>): Promise<void> {
    const error = await this.#t.throwsAsync(work, { message });
    this.#t.is(error instanceof Failure ? error.code : 'no failure', code, error?.message);
  }

  #key(key: string) {
    return { snapshotter: this.snapshotter, key };
  }
}

export function nanoseconds(time: { seconds: bigint; nanos: number } | undefined): bigint {
  return time === undefined ? 0n : time.seconds * 1_000_000_000n + BigInt(time.nanos);
}

export function attributes(path: string): { uid: number; gid: number; mode: number } {
  const { uid, gid, mode } = lstatSync(path);
  return { uid, gid, mode: mode & 0o7777 };
}
