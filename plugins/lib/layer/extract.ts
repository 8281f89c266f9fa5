/**
 * Writes the entries of one layer below a root directory (OCI image-spec, "layer.md"; where it is silent, what containerd's archive package does).
 *
 * `apply`: the root is the file system itself; a whiteout deletes what is there. `overlay`: the root is the upper directory of an overlay; a whiteout
 * becomes a device 0:0, an opaque marker the attribute trusted.overlay.opaque.
 *
 * Whiteouts speak of the layers below only, wherever in the archive they stand: what the layer itself brings stays. So the extractor must know what is
 * its own. In a root that is empty at the start that is everything, and costs nothing; otherwise it remembers each path it wrote, about 100 bytes each.
 *
 * Everything is synchronous: this runs in a pool thread.
 */

import { constants } from 'node:fs';
import type { Failure } from 'troupe/plugin';
import {
  type FileStatus,
  fstatat,
  isErrno,
  linkat,
  makedev,
  mkdirat,
  mknodat,
  openat,
  symlinkat,
  tryFstatat,
  tryMkdirat,
  unlinkat,
} from 'troupe/sys';
import type { TarHeader } from '../tar/format.ts';
import type { TarEvents } from '../tar/reader.ts';
import { type Attributes, mayOmitDevice, Omissions, setDirectory, setDirectoryTimes, setEntry } from './attributes.ts';
import { Birth } from './birth.ts';
import { copyUp } from './copyup.ts';
import { entryProblem, wantedAttributes } from './entry.ts';
import { entryFailure, invalidEntry } from './failure.ts';
import { isWhiteout, type LowerLayers } from './lower.ts';
import { type ByteString, cleanComponents, join, lastComponent, quote, toByteString, toPath } from './name.ts';
import { OpenFile } from './open-file.ts';
import { OwnPaths } from './own.ts';
import { removeTree } from './remove.ts';
import { type Directory, DirectoryTree } from './tree.ts';
import { hideLowerRoot, setOpaque, Whiteouts } from './whiteout.ts';

export type LayerMode = 'apply' | 'overlay';

const WHITEOUT = '.wh.';
/** AUFS's own bookkeeping, not content; but one of them marks a directory as opaque. */
const AUFS = '.wh..wh.';
const OPAQUE_MARKER = '.wh..wh..opq';

/** A directory that had to be made before anything said what it is. */
export interface Implied {
  readonly path: ByteString;
  /** A later entry told its attributes after all. */
  readonly listed: boolean;
}

/** What could not be known while the layers below were not there yet. Plain data, for `completeLayer`. */
export interface Deferred {
  /** Parents first. Their attributes are those of the directory below. */
  readonly implied: readonly Implied[];
  /** The layer hides everything below its root. */
  readonly rootOpaque: boolean;
  /** Something of the layer is not there without the layers below: a hard link to a file that it does not bring. */
  readonly incomplete: boolean;
}

export interface ExtractOptions {
  readonly mode: LayerMode;
  /** What is extracted, for messages: `layer sha256:…` */
  readonly subject?: string;
  /** Overlay: the layers below. Without them, what depends on them is left to `completeLayer`, as `Applied.deferred` tells. */
  readonly lower?: LowerLayers;
  /** The thread's umask is 0, so that files have the mode that they are made with. */
  readonly exactModes?: boolean;
}

export interface Extracted {
  /** Entries of the archive, whiteouts and ignored ones included. */
  readonly entries: number;
  /** Regular files written. */
  readonly files: number;
  /** Kinds of things that the process may not do and that were left out: `ownership`, `device`, `xattr`, `mode`. Empty for root. */
  readonly omitted: readonly string[];
}

export class Extractor implements TarEvents {
  readonly #root: number;
  readonly #subject: string;
  readonly #overlay: boolean;
  readonly #lower: LowerLayers | undefined;
  readonly #omissions = new Omissions();
  readonly #tree: DirectoryTree;
  readonly #own: OwnPaths;
  readonly #birth: Birth;
  readonly #whiteouts: Whiteouts;
  readonly #directoryTimes = new Map<ByteString, { atimeNs: bigint; mtimeNs: bigint }>();
  /** Path → whether an entry listed it afterwards. */
  readonly #implied = new Map<ByteString, boolean>();
  #incomplete = false;
  #file: OpenFile | undefined;
  #entries = 0;
  #files = 0;

  /** @param root a descriptor of the root directory (O_PATH will do); it stays the caller's to close. */
  constructor(root: number, options: ExtractOptions) {
    this.#root = root;
    this.#subject = options.subject ?? 'layer';
    this.#overlay = options.mode === 'overlay';
    this.#lower = options.lower;
    this.#own = new OwnPaths(root);
    this.#birth = new Birth(root, options.exactModes === true && this.#own.everything);
    this.#tree = new DirectoryTree({
      root,
      subject: this.#subject,
      overlay: this.#overlay,
      lower: options.lower,
      omissions: this.#omissions,
      onImplied: (path, copied, hidden) => {
        this.#own.add(path);
        if (!hidden) this.#implied.set(path, false);
        if (copied === undefined) return;
        this.#directoryTimes.set(path, copied);
        // With whatever the lower one has.
        this.#birth.end();
      },
    });
    this.#whiteouts = new Whiteouts(this.#tree, this.#own, this.#overlay);
  }

  entry(header: TarHeader): void {
    this.#entries++;
    if (header.type === 'global') return;
    const name = toByteString(header.name);
    try {
      const [parent, last] = lastComponent(name);
      const directory = this.#tree.known(parent);
      // Most entries stand behind another of the same directory: its path need not be taken apart again.
      if (directory !== undefined && last !== '') this.#put(header, directory, last);
      else this.#place(header, cleanComponents(name));
    } catch (error) {
      throw entryFailure(this.#subject, name, error);
    }
  }

  data(bytes: Uint8Array, position: number): void {
    const file = this.#file;
    if (file === undefined) return;
    try {
      file.write(bytes, position);
    } catch (error) {
      throw entryFailure(this.#subject, file.path, error);
    }
  }

  end(): void {
    const file = this.#file;
    if (file === undefined) return;
    this.#file = undefined;
    try {
      file.finish(this.#omissions);
    } catch (error) {
      throw entryFailure(this.#subject, file.path, error);
    }
  }

  /** All entries are in: directories get their times, which writing into them has changed. */
  finish(): Extracted {
    if (this.#whiteouts.rootOpaque && this.#lower !== undefined) hideLowerRoot(this.#root, this.#lower);
    for (const [path, { atimeNs, mtimeNs }] of this.#directoryTimes) {
      try {
        setDirectoryTimes(this.#tree.descriptor({ path }), atimeNs, mtimeNs);
      } catch (error) {
        // A later entry put something else in its place.
        if (!isErrno(error, 'ENOENT', 'ENOTDIR', 'ELOOP')) throw entryFailure(this.#subject, path, error);
      }
    }
    this.close();
    return { entries: this.#entries, files: this.#files, omitted: this.#omissions.kinds };
  }

  /** What is left for `completeLayer`; nothing unless the mode is overlay and the layers below were not given. */
  get deferred(): Deferred {
    if (!this.#overlay || this.#lower !== undefined) return { implied: [], rootOpaque: false, incomplete: false };
    return {
      implied: [...this.#implied].map(([path, listed]) => ({ path, listed })),
      rootOpaque: this.#whiteouts.rootOpaque,
      incomplete: this.#incomplete,
    };
  }

  /** Lets go of every descriptor; after a failure call this instead of `finish`. */
  close(): void {
    this.#file?.close();
    this.#file = undefined;
    this.#tree.close();
  }

  #place(header: TarHeader, components: ByteString[]): void {
    const name = components.pop();
    // The root itself: containerd ignores such entries, so the root keeps its attributes.
    if (name === undefined) return;
    if (components.some((component) => component.startsWith(AUFS))) return;
    if (name.startsWith(AUFS) && name !== OPAQUE_MARKER) return;
    const directory = this.#tree.resolve(components, true);
    if (name === OPAQUE_MARKER) {
      this.#whiteouts.makeOpaque(directory);
      return;
    }
    if (name.startsWith(WHITEOUT)) {
      const hidden = name.slice(WHITEOUT.length);
      if (hidden === '' || hidden === '.' || hidden === '..') throw this.#invalid(header, 'invalid whiteout name');
      this.#whiteouts.hide(directory, hidden);
      return;
    }
    this.#put(header, directory, name);
  }

  #put(header: TarHeader, directory: Directory, name: ByteString): void {
    const path = join(directory.path, name);
    const problem = entryProblem(header);
    if (problem !== undefined) throw this.#invalid(header, problem);
    this.#make(header, directory, name, path);
    // It now hides a symbolic link of a lower layer that an earlier entry may have gone through.
    if (this.#lower !== undefined) this.#tree.removed(path, false);
    this.#own.add(path);
  }

  #make(header: TarHeader, directory: Directory, name: ByteString, path: ByteString): void {
    switch (header.type) {
      case 'file': {
        const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;
        const born = this.#birth.of(header.mode);
        const mode = this.#birth.mode(header.mode, 0o600);
        const fd = this.#replacing(directory, name, (dirfd) => openat(dirfd, toPath(name), flags, mode));
        this.#file = new OpenFile(fd, header, path, this.#birth.look(born, fd));
        this.#files++;
        return;
      }
      case 'directory':
        this.#makeDirectory(header, directory, name, path);
        return;
      case 'symlink':
        this.#replacing(directory, name, (dirfd) => symlinkat(header.linkName, dirfd, toPath(name)));
        this.#setEntry(header, directory, name, true);
        return;
      case 'hardlink':
        this.#makeLink(header, directory, name, path);
        return;
      case 'fifo':
        this.#replacing(directory, name, (dirfd) => mknodat(dirfd, toPath(name), constants.S_IFIFO | 0o600));
        this.#setEntry(header, directory, name, false);
        return;
      case 'char':
      case 'block':
        this.#makeDevice(header, directory, name);
        return;
      default:
        throw this.#invalid(header, `unhandled tar header type ${quote(header.typeFlag)}`);
    }
  }

  #makeDirectory(header: TarHeader, directory: Directory, name: ByteString, path: ByteString): void {
    const wanted = wantedAttributes(header);
    const dirfd = this.#tree.descriptor(directory);
    const born = this.#birth.of(wanted.mode);
    const mode = this.#birth.mode(wanted.mode, 0o700);
    this.#birth.directory(wanted);
    if (tryMkdirat(dirfd, toPath(name), mode)) {
      setDirectory(dirfd, name, wanted, this.#omissions, born && { ...born, born: born.mode });
      this.#tree.made(directory, name);
    } else {
      this.#replaceByDirectory(directory, name, wanted);
    }
    this.#directoryTimes.set(path, wanted);
    if (this.#implied.has(path)) this.#implied.set(path, true);
  }

  #replaceByDirectory(directory: Directory, name: ByteString, wanted: Attributes): void {
    const existing = fstatat(this.#tree.descriptor(directory), toPath(name));
    if (existing.kind !== 'directory') {
      this.#remove(directory, name, existing);
      mkdirat(this.#tree.descriptor(directory), toPath(name), 0o700);
      // What it replaces hid the lower layers' directory of this name, and so must it.
      if (this.#overlay) setOpaque(this.#tree.descriptor(directory), name);
    }
    setDirectory(this.#tree.descriptor(directory), name, wanted, this.#omissions);
  }

  #makeDevice(header: TarHeader, directory: Directory, name: ByteString): void {
    const kind = header.type === 'char' ? constants.S_IFCHR : constants.S_IFBLK;
    const device = makedev(header.devMajor, header.devMinor);
    try {
      this.#replacing(directory, name, (dirfd) => mknodat(dirfd, toPath(name), kind | 0o600, device));
    } catch (error) {
      if (!mayOmitDevice(error)) throw error;
      this.#omissions.note('device', name);
      return;
    }
    this.#setEntry(header, directory, name, false);
  }

  /** A link to a link links the link itself, so the target's last component is not followed; its parents are, inside the root. */
  #makeLink(header: TarHeader, directory: Directory, name: ByteString, path: ByteString): void {
    const components = toByteString(header.linkName).replace(/\/+$/, '').split('/');
    const base = components.pop()!;
    if (base === '' || base === '.' || base === '..') throw this.#invalid(header, 'hard link to a directory');
    const target = this.#tree.resolveTarget(components);
    if (target !== undefined && join(target.path, base) === path) throw this.#invalid(header, 'hard link to itself');
    const status = target === undefined ? undefined : this.#linkTarget(target, base);
    if (target === undefined || status === undefined) {
      if (!this.#overlay || this.#lower !== undefined) {
        throw this.#invalid(header, 'hard link to a file that does not exist');
      }
      this.#incomplete = true;
      return;
    }
    if (status.kind === 'directory') throw this.#invalid(header, 'hard link to a directory');
    this.#replacing(directory, name, (dirfd) =>
      linkat(this.#tree.descriptor(target), toPath(base), dirfd, toPath(name)),
    );
    const isSymlink = status.kind === 'symlink';
    setEntry(this.#tree.descriptor(directory), name, wantedAttributes(header), isSymlink, this.#omissions, status);
  }

  /** The link's target in the root; a file of a lower layer is copied up first, as overlayfs does when it is linked. */
  #linkTarget(target: Directory, base: ByteString): FileStatus | undefined {
    const status = tryFstatat(this.#tree.descriptor(target), toPath(base));
    if (status !== undefined) return this.#overlay && isWhiteout(status) ? undefined : status;
    if (this.#lower === undefined || target.merged.length === 0) return undefined;
    const found = this.#lower.lookup(target.path, target.merged, base);
    if (found === undefined || found.status.kind === 'directory') return found?.status;
    this.#lower.within(target.path, found.layer, (from) =>
      copyUp(from, base, found.status, this.#tree.descriptor(target), base, this.#omissions),
    );
    this.#own.add(join(target.path, base));
    return found.status;
  }

  /** Makes an entry with a call that fails when there is one, which in most layers there never is; then what is there is removed first. */
  #replacing<T>(directory: Directory, name: ByteString, make: (dirfd: number) => T): T {
    try {
      return make(this.#tree.descriptor(directory));
    } catch (error) {
      if (!isErrno(error, 'EEXIST')) throw error;
      this.#remove(directory, name, fstatat(this.#tree.descriptor(directory), toPath(name)));
      return make(this.#tree.descriptor(directory));
    }
  }

  #remove(directory: Directory, name: ByteString, existing: FileStatus): void {
    const dirfd = this.#tree.descriptor(directory);
    const path = join(directory.path, name);
    const isDirectory = existing.kind === 'directory';
    if (isDirectory) removeTree(dirfd, name);
    else unlinkat(dirfd, toPath(name));
    this.#tree.removed(path, isDirectory);
  }

  #setEntry(header: TarHeader, directory: Directory, name: ByteString, isSymlink: boolean): void {
    setEntry(this.#tree.descriptor(directory), name, wantedAttributes(header), isSymlink, this.#omissions);
  }

  #invalid(header: TarHeader, what: string): Failure {
    return invalidEntry(this.#subject, toByteString(header.name), what);
  }
}
