/**
 * The layer that makes one file system of another, as a tar (OCI image-spec, "layer.md").
 *
 * Two ways to find it. An overlay's upper directory is a difference already: it is walked alone, its 0:0 devices and opaque attributes become whiteouts,
 * and what was copied up and left as it was is not told. Two directories are walked side by side.
 *
 * Entries come in byte order, parents first, and nothing of the moment goes in (a whiteout has the time 0), so the same trees give the same bytes. A
 * directory is told when it changed or something below it did. Further links to a file are told as links to its first name; if only some of an inode's
 * names are new, the others are told again, so that they stay links of each other.
 */

import { closeSync, constants, readSync } from 'node:fs';
import { Failure } from 'troupe/plugin';
import { type FileStatus, fdPath, lgetxattr, isErrno, major, minor, openat, readlinkat, tryFstatat } from 'troupe/sys';
import { encodeHeader, endOfArchive, padding, type TarEntry } from '../tar/writer.ts';
import { type Below, type BelowEntry, nothingBelow } from './below.ts';
import { archivedXattrs, isSame, openRegular } from './compare.ts';
import { entryFailure } from './failure.ts';
import { isOpaque, isWhiteout } from './lower.ts';
import { type ByteString, join, quote, toPath } from './name.ts';
import { listNames } from './remove.ts';

const CHUNK = 1 << 20;
const SECOND = 1_000_000_000n;
const types: Readonly<Partial<Record<FileStatus['kind'], TarEntry['type']>>> = {
  file: 'file',
  directory: 'directory',
  symlink: 'symlink',
  character: 'char',
  block: 'block',
  fifo: 'fifo',
};

export interface DiffOptions {
  /** The directory is an overlay's upper: whiteouts and opaque directories are marks. Else deletions are what only `below` has. */
  readonly overlay: boolean;
  /** For messages. */
  readonly subject?: string;
}

/**
 * An upper directory that is not a difference by itself: directories renamed with redirect_dir=on, files whose data stayed below with metacopy=on. Mounted,
 * it can be compared with what is below.
 */
export class NotPlain extends Error {}

interface Frame {
  readonly path: ByteString;
  readonly fd: number;
  /** Its own entry, made while its parent is open; undefined for the root, which a layer does not tell. */
  readonly entry: TarEntry | undefined;
  readonly below: Below;
  readonly names: ByteString[];
  told: boolean;
}

/**
 * @param root a readable descriptor of the newer tree
 * @param below what it is compared with; closed by nobody here
 * @throws Failure FailedPrecondition for a name that a layer cannot hold, Aborted for a file that shrank while it was read; NotPlain
 */
export function* diffLayer(root: number, below: Below, options: DiffOptions): Generator<Buffer, void, undefined> {
  const walk = new Walk(options);
  try {
    yield* walk.run(root, below);
    yield endOfArchive;
  } finally {
    walk.close();
  }
}

class Walk {
  readonly #overlay: boolean;
  readonly #subject: string;
  readonly #stack: Frame[] = [];
  /** Inode → the name under which it was told. */
  readonly #told = new Map<string, Buffer>();
  /** Inode → names that are the same below; told only if another name of it is new. */
  readonly #unchanged = new Map<string, { name: Buffer; parents: Frame[] }[]>();

  constructor(options: DiffOptions) {
    this.#overlay = options.overlay;
    this.#subject = options.subject ?? 'diff';
  }

  *run(root: number, below: Below): Generator<Buffer, void, undefined> {
    this.#stack.push(this.#frame('', root, undefined, below));
    for (let frame = this.#stack.at(-1); frame !== undefined; frame = this.#stack.at(-1)) {
      const name = frame.names.pop();
      if (name !== undefined) {
        try {
          yield* this.#visit(frame, name);
        } catch (error) {
          if (error instanceof NotPlain) throw error;
          throw entryFailure(this.#subject, join(frame.path, name), error);
        }
        continue;
      }
      this.#stack.pop();
      this.#release(frame);
    }
  }

  close(): void {
    for (const frame of this.#stack) this.#release(frame);
  }

  #release(frame: Frame): void {
    if (frame.path === '') return;
    closeSync(frame.fd);
    frame.below.close();
  }

  #frame(path: ByteString, fd: number, entry: TarEntry | undefined, below: Below): Frame {
    const names = new Set([...listNames(fd), ...(this.#overlay ? [] : (below.names() ?? []))]);
    // Taken from the end.
    return { path, fd, entry, below, told: entry === undefined, names: [...names].sort().reverse() };
  }

  *#visit(frame: Frame, name: ByteString): Generator<Buffer, void, undefined> {
    const status = tryFstatat(frame.fd, toPath(name));
    const below = frame.below.lookup(name);
    const gone = status === undefined || (this.#overlay && isWhiteout(status)) || status.kind === 'socket';
    if (gone) {
      // A socket cannot be in an archive; what it replaced is gone all the same.
      if (below !== undefined && below.status.kind !== 'socket') yield* this.#tellWhiteout(frame, `.wh.${name}`);
      return;
    }
    if (name.startsWith('.wh.')) {
      throw new Failure(
        'FailedPrecondition',
        `${this.#subject}: entry ${quote(join(frame.path, name))}: the name means a deletion in a layer: failed precondition`,
      );
    }
    if (status.kind === 'directory') yield* this.#enter(frame, name, status, below);
    else yield* this.#tellLeaf(frame, name, status, below);
  }

  *#enter(
    frame: Frame,
    name: ByteString,
    status: FileStatus,
    below: BelowEntry | undefined,
  ): Generator<Buffer, void, undefined> {
    if (this.#overlay) refuseMark(frame.fd, name, 'trusted.overlay.redirect');
    const path = join(frame.path, name);
    const lower = below?.status.kind === 'directory' ? below : undefined;
    const opaque = this.#overlay && lower !== undefined && isOpaque(frame.fd, name);
    const changed = lower === undefined || !isSame(frame.fd, name, status, lower);
    const fd = openat(frame.fd, toPath(name), constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW);
    let inner: Frame;
    try {
      const rest = lower === undefined || opaque ? nothingBelow : frame.below.descend(name, lower);
      const entry = describe(frame.fd, name, status, Buffer.from(`${path}/`, 'latin1'));
      inner = this.#frame(path, fd, entry, rest);
    } catch (error) {
      closeSync(fd);
      throw error;
    }
    this.#stack.push(inner);
    if (changed) yield* this.#tellParents(this.#stack);
    if (opaque) yield* this.#tellWhiteout(inner, '.wh..wh..opq');
  }

  *#tellLeaf(
    frame: Frame,
    name: ByteString,
    status: FileStatus,
    below: BelowEntry | undefined,
  ): Generator<Buffer, void, undefined> {
    if (this.#overlay && status.kind === 'file') refuseMark(frame.fd, name, 'trusted.overlay.metacopy');
    const path = Buffer.from(join(frame.path, name), 'latin1');
    const linked = status.nlink > 1;
    const inode = `${status.dev}:${status.ino}`;
    const told = linked ? this.#told.get(inode) : undefined;
    if (told !== undefined) {
      yield* this.#tellParents(this.#stack);
      yield encodeHeader(linkEntry(frame.fd, name, status, path, told));
      return;
    }
    if (below !== undefined && isSame(frame.fd, name, status, below)) {
      if (linked) append(this.#unchanged, inode, { name: path, parents: [...this.#stack] });
      return;
    }
    yield* this.#tellParents(this.#stack);
    yield* this.#tellContent(frame.fd, name, status, path);
    if (!linked) return;
    this.#told.set(inode, path);
    for (const { name: other, parents } of this.#unchanged.get(inode) ?? []) {
      yield* this.#tellParents(parents);
      yield encodeHeader(linkEntry(frame.fd, name, status, other, path));
    }
    this.#unchanged.delete(inode);
  }

  *#tellContent(dirfd: number, name: ByteString, status: FileStatus, path: Buffer): Generator<Buffer, void, undefined> {
    const described = describe(dirfd, name, status, path);
    if (status.kind !== 'file') {
      yield encodeHeader(described);
      return;
    }
    const fd = openRegular(dirfd, name);
    try {
      yield encodeHeader(described);
      for (let at = 0; at < status.size; ) {
        const buffer = Buffer.allocUnsafe(Math.min(CHUNK, status.size - at));
        const length = readSync(fd, buffer, 0, buffer.length, at);
        if (length === 0) {
          throw new Failure('Aborted', `${this.#subject}: entry ${quote(path.toString('latin1'))}: shrank: aborted`);
        }
        yield buffer.subarray(0, length);
        at += length;
      }
      yield padding(status.size);
    } finally {
      closeSync(fd);
    }
  }

  *#tellWhiteout(frame: Frame, name: ByteString): Generator<Buffer, void, undefined> {
    yield* this.#tellParents(this.#stack);
    const path = Buffer.from(join(frame.path, name), 'latin1');
    yield encodeHeader({ type: 'file', name: path, mode: 0, mtime: { seconds: 0, nanoseconds: 0 } });
  }

  *#tellParents(frames: readonly Frame[]): Generator<Buffer, void, undefined> {
    for (const frame of frames) {
      if (frame.told) continue;
      frame.told = true;
      yield encodeHeader(frame.entry!);
    }
  }
}

function describe(dirfd: number, name: ByteString, status: FileStatus, path: Buffer): TarEntry {
  const type = types[status.kind]!;
  const isDevice = type === 'char' || type === 'block';
  return {
    type,
    name: path,
    mode: status.mode & 0o7777,
    uid: status.uid,
    gid: status.gid,
    size: type === 'file' ? status.size : 0,
    mtime: timeOf(status.mtimeNs),
    xattrs: archivedXattrs(dirfd, name),
    ...(type === 'symlink' ? { linkName: readlinkat(dirfd, toPath(name)) } : {}),
    ...(isDevice ? { devMajor: major(status.rdev), devMinor: minor(status.rdev) } : {}),
  };
}

/** A further name of a file; it repeats the attributes, since some readers set them anew for each. */
function linkEntry(dirfd: number, name: ByteString, status: FileStatus, path: Buffer, first: Buffer): TarEntry {
  return { ...describe(dirfd, name, status, path), type: 'hardlink', linkName: first, size: 0 };
}

function timeOf(ns: bigint): { seconds: number; nanoseconds: number } {
  const nanoseconds = ((ns % SECOND) + SECOND) % SECOND;
  return { seconds: Number((ns - nanoseconds) / SECOND), nanoseconds: Number(nanoseconds) };
}

function refuseMark(dirfd: number, name: ByteString, key: string): void {
  try {
    if (lgetxattr(fdPath(dirfd, toPath(name)), key) !== undefined) throw new NotPlain(key);
  } catch (error) {
    if (!isErrno(error, 'ENOTSUP')) throw error;
  }
}

function append<K, V>(map: Map<K, V[]>, key: K, value: V): void {
  const list = map.get(key);
  if (list === undefined) map.set(key, [value]);
  else list.push(value);
}
