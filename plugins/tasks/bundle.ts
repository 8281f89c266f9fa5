/**
 * The directory that a shim works in, laid out as containerd lays it out, since shims and tools of others read it:
 *
 *   <state>/                    0711  io.containerd.runtime.v2.task
 *     <namespace>/              0711
 *       <id>/                   0700  the bundle; 0710 and the container's root group where that is not root
 *         config.json                 the container's OCI spec, its Any's value as it is
 *         rootfs/               0711  mounted by the shim
 *         work -> <root>/<namespace>/<id>
 *         log                   FIFO  the shim writes its log to it
 *         shim-binary-path      0600  written before the shim is started
 *         address                     where the shim listens: written by shims up to 1.7, by the daemon for the others that speak version 2
 *         bootstrap.json        0600  the same for version 3
 *         init.pid, options.json, runtime, log.json    the shim's and runc's own
 *       .<id>/                        a bundle on its way out: anything with a dot is trash
 *     .checkpoint-XXXXXX/             a checkpoint on its way to or from the content store
 *   <root>/
 *     <namespace>/<id>/         0711  the shim's work directory (checkpoints)
 *
 * A bundle is made from the outside in and removed by one rename, so what carries an id is whole up to `shim-binary-path`, or a shim was never started in it.
 */

import { closeSync, constants, existsSync, fstatSync, openSync, readdirSync, readSync, rmSync } from 'node:fs';
import { chmod, chown, mkdir, rename, rm, rmdir, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Failure, failpoint } from 'troupe/plugin';
import { isErrno, MNT_DETACH, mountsBelow, unmountAll } from 'troupe/sys';
import { type ShimAddress, socketPath } from './shim-address.ts';

/** Of the small files that hold a path or an address. */
const smallFileBytes = 4096;

/** Of config.json when it is read back: the spec arrived in a message of at most 16 MiB. */
const specBytes = 16 << 20;

export class Bundle {
  readonly namespace: string;
  readonly id: string;
  readonly path: string;
  readonly work: string;

  /** Names a bundle that is there or will be. `namespace` and `id` are valid identifiers. */
  constructor(state: string, root: string, namespace: string, id: string) {
    this.namespace = namespace;
    this.id = id;
    this.path = join(state, namespace, id);
    this.work = join(root, namespace, id);
  }

  /** Makes it. @throws Failure AlreadyExists when there is one; leaves nothing behind when it fails. */
  async create(spec: Uint8Array): Promise<void> {
    await mkdir(join(this.path, '..'), { recursive: true, mode: 0o711 });
    await mkdir(join(this.work, '..'), { recursive: true, mode: 0o711 });
    try {
      await mkdir(this.path, { mode: 0o700 });
    } catch (error) {
      if (!isErrno(error, 'EEXIST')) throw error;
      const name = `bundle of task ${this.id} in namespace "${this.namespace}"`;
      throw new Failure('AlreadyExists', `${name}: already exists`, { cause: error });
    }
    failpoint('tasks.bundle.made');
    try {
      const group = rootGroup(spec);
      if (group !== 0) {
        await chown(this.path, process.getuid?.() ?? 0, group);
        await chmod(this.path, 0o710);
      }
      await mkdir(join(this.path, 'rootfs'), { mode: 0o711 });
      await rm(this.work, { recursive: true, force: true });
      await mkdir(this.work, { mode: 0o711 });
      await symlink(this.work, join(this.path, 'work'));
      await writeFile(join(this.path, 'config.json'), spec);
      failpoint('tasks.bundle.written');
    } catch (error) {
      await this.remove();
      throw error;
    }
  }

  exists(): boolean {
    return existsSync(this.path);
  }

  async writeBinary(binary: string): Promise<void> {
    await writeFile(join(this.path, 'shim-binary-path'), binary, { mode: 0o600 });
  }

  /** What the daemon needs to find the shim again; a shim that has written its address itself is left its file. */
  async writeAddress({ path, version }: ShimAddress): Promise<void> {
    const address = `unix://${path}`;
    if (version === 2) {
      if (this.#read('address') === undefined) await writeFile(join(this.path, 'address'), address, { mode: 0o600 });
      return;
    }
    const partial = join(this.path, '.bootstrap.json');
    await writeFile(partial, JSON.stringify({ version, address, protocol: 'ttrpc' }), { mode: 0o600 });
    await rename(partial, join(this.path, 'bootstrap.json'));
  }

  /** Undefined when it was not written, or what is there is no file, too long or no absolute path. */
  binary(): string | undefined {
    const path = this.#read('shim-binary-path');
    return path?.startsWith('/') && !path.includes('\0') ? path : undefined;
  }

  /** The shim's address as written down; undefined when there is none that makes sense. */
  address(): ShimAddress | undefined {
    const bootstrap = this.#read('bootstrap.json');
    try {
      if (bootstrap !== undefined) {
        const { version, address, protocol } = JSON.parse(bootstrap) as Record<string, unknown>;
        if (typeof address !== 'string' || (version !== 2 && version !== 3) || protocol !== 'ttrpc') return undefined;
        return { path: socketPath(address), version };
      }
      const address = this.#read('address');
      return address === undefined ? undefined : { path: socketPath(address.trim()), version: 2 };
    } catch {
      return undefined;
    }
  }

  /** The pid that the shim wrote for the container's first process; only a hint, it may be another's by now. */
  initPid(): number | undefined {
    const pid = Number(this.#read('init.pid'));
    return Number.isInteger(pid) && pid > 1 ? pid : undefined;
  }

  /** Where the spec wants the container's control groups; empty when it does not say. */
  cgroupsPath(): string {
    try {
      const { cgroupsPath } = record(parse(readRegular(join(this.path, 'config.json'), specBytes)).linux);
      return typeof cgroupsPath === 'string' ? cgroupsPath : '';
    } catch {
      return '';
    }
  }

  /** The shim's group of tasks: the sandbox's id for one that shares a shim, else its own. */
  group(): string {
    try {
      const annotations = annotationsOf(readRegular(join(this.path, 'config.json'), specBytes));
      const group = annotations['io.containerd.runc.v2.group'] ?? annotations['io.kubernetes.cri.sandbox-id'];
      return typeof group === 'string' && group !== '' ? group : this.id;
    } catch {
      return this.id;
    }
  }

  /**
   * Takes it away with its work directory: unmounts what is mounted below, and only when nothing is left mounted removes any file, so that a container's files
   * are never reached through a mount. @throws SysError EBUSY when something cannot be unmounted.
   */
  async remove(): Promise<void> {
    const trash = join(this.path, '..', `.${this.id}`);
    if (existsSync(trash)) await removeTree(trash);
    clearMounts(this.path);
    failpoint('tasks.bundle.unmounted');
    try {
      await rename(this.path, trash);
      failpoint('tasks.bundle.renamed');
    } catch (error) {
      if (!isErrno(error, 'ENOENT')) throw error;
    }
    // Before the bundle: as long as that lies there, somebody comes back for what is left of both.
    await rm(this.work, { recursive: true, force: true });
    // A dozen small files: going to and from a thread for each would take longer than this does.
    rmSync(trash, { recursive: true, force: true });
  }

  #read(name: string): string | undefined {
    try {
      return readRegular(join(this.path, name), smallFileBytes).toString();
    } catch {
      return undefined;
    }
  }
}

/** Bundles on disk, by namespace and id; `trash` are the paths of what was on its way out, or is left of a checkpoint. */
export function scanBundles(state: string): { bundles: { namespace: string; id: string }[]; trash: string[] } {
  const bundles: { namespace: string; id: string }[] = [];
  const trash: string[] = [];
  for (const namespace of directories(state)) {
    if (namespace.startsWith('.')) {
      trash.push(join(state, namespace));
      continue;
    }
    for (const id of directories(join(state, namespace))) {
      if (id.startsWith('.')) trash.push(join(state, namespace, id));
      else bundles.push({ namespace, id });
    }
  }
  return { bundles, trash };
}

function directories(path: string): string[] {
  try {
    return readdirSync(path, { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map((entry) => entry.name);
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return [];
    throw error;
  }
}

/** Removes a directory and what it holds, once nothing is mounted in it. @throws as clearMounts */
export async function removeTree(path: string): Promise<void> {
  clearMounts(path);
  await rm(path, { recursive: true, force: true });
}

/** Unmounts what is mounted at and below `path`. @throws SysError, Failure FailedPrecondition when something stays. */
function clearMounts(path: string): void {
  const mounts = (): Buffer[] => {
    try {
      return mountsBelow(path);
    } catch (error) {
      if (isErrno(error, 'ENOENT', 'ENOTDIR')) return [];
      throw error;
    }
  };
  if (mounts().length === 0) return;
  unmountAll(path, MNT_DETACH);
  const [left] = mounts();
  if (left !== undefined) throw new Failure('FailedPrecondition', `${left} is mounted: failed precondition`);
}

/** Removes work directories that no bundle in `state` belongs to, and namespaces' directories that are empty. */
export async function sweepWork(
  state: string,
  root: string,
  owned: (namespace: string, id: string) => boolean,
): Promise<void> {
  for (const namespace of directories(root)) {
    for (const id of directories(join(root, namespace))) {
      if (!owned(namespace, id)) await removeTree(join(root, namespace, id));
    }
  }
  for (const top of [state, root]) {
    for (const namespace of directories(top)) {
      try {
        await rmdir(join(top, namespace));
      } catch {
        // Not empty: in use.
      }
    }
  }
}

/** A regular file of at most `limit` bytes; a link, FIFO or device in its place is not opened or at least not read. */
function readRegular(path: string, limit: number): Buffer {
  const fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  try {
    const { size } = fstatSync(fd);
    if (!fstatSync(fd).isFile() || size > limit)
      throw new Failure('Unknown', `${path} is no file of at most ${limit} bytes`);
    const bytes = Buffer.alloc(size);
    return bytes.subarray(0, readSync(fd, bytes, 0, size, 0));
  } finally {
    closeSync(fd);
  }
}

/** The host's gid of the container's gid 0: who must get through the bundle when the container has a user namespace. */
function rootGroup(spec: Uint8Array): number {
  const linux = record(parse(spec).linux);
  const mappings = Array.isArray(linux.gidMappings) ? linux.gidMappings : [];
  for (const mapping of mappings) {
    const { containerID, hostID } = record(mapping);
    if ((containerID ?? 0) === 0 && typeof hostID === 'number' && Number.isSafeInteger(hostID)) return hostID;
  }
  return 0;
}

function annotationsOf(spec: Uint8Array): Record<string, unknown> {
  return record(parse(spec).annotations);
}

/** A spec that does not parse is runc's to refuse, with its own words. */
function parse(spec: Uint8Array): Record<string, unknown> {
  try {
    return record(JSON.parse(Buffer.from(spec).toString()));
  } catch {
    return {};
  }
}

function record(value: unknown): Record<string, unknown> {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {};
}
