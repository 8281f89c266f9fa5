/**
 * The directories of a root, each resolved by the kernel inside it, held by a descriptor, and made when an entry implies it.
 *
 * Why nothing can get out: a parent's path is resolved one component at a time against held descriptors. A component that is a symbolic link is read, and
 * its target resolved from the root or from where the link lies, `..` at the root staying there: what chroot would do. The path that comes out has no
 * link in it, and is opened with RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS, so if someone changed the tree between, the kernel
 * refuses instead of following. Entries are then made by name in that descriptor, with calls that follow no link at the end.
 *
 * (One openat2 with RESOLVE_IN_ROOT would resolve links as well, but not through directories that do not exist yet or lie in a lower layer.)
 */

import { closeSync, constants } from 'node:fs';
import {
  type FileStatus,
  fchmodat,
  fdPath,
  lsetxattr,
  mkdirat,
  O_PATH,
  openat2,
  RESOLVE_IN_ROOT,
  RESOLVE_NO_MAGICLINKS,
  RESOLVE_NO_SYMLINKS,
  readlinkat,
  tryFstatat,
  unlinkat,
} from 'troupe/sys';
import { attributesOf, type Omissions, setEntry } from './attributes.ts';
import { isOpaque, isWhiteout, type LowerEntry, type LowerLayers, OPAQUE } from './lower.ts';
import { type ByteString, join, toByteString, toPath } from './name.ts';
import { invalidEntry } from './failure.ts';

export interface Directory {
  /** From the root, free of symbolic links and dots; '' is the root. */
  readonly path: ByteString;
  /** Layers below that are merged into it; empty for all but an overlay's upper directory. */
  readonly merged: readonly number[];
  /** Nothing of the layers below shows through here: it or a parent is opaque. */
  readonly hidden: boolean;
}

type Shows = Pick<Directory, 'merged' | 'hidden'>;
const nothing: Shows = { merged: [], hidden: true };

/** Where a resolution has come: a directory that exists, and names below it that do not. */
interface Place {
  directory: Directory;
  readonly missing: ByteString[];
}

export interface TreeOptions {
  readonly root: number;
  readonly subject: string;
  /** The root is an overlay's upper directory: 0:0 devices are whiteouts, and these layers (none known: undefined) lie below. */
  readonly overlay: boolean;
  readonly lower: LowerLayers | undefined;
  readonly omissions: Omissions;
  /** A directory was made because an entry implies it, with the attributes of a lower layer's, or with those of none. */
  onImplied(path: ByteString, copied: FileStatus | undefined, hidden: boolean): void;
}

/** Linux gives up after as many links in one path (path_resolution(7)). */
const LINKS = 40;
const DESCRIPTORS = 256;
const DIRECTORIES = 16_384;
const PATH_BYTES = 4095;
const INSIDE = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS;

export class DirectoryTree {
  readonly #options: TreeOptions;
  #rootDirectory: Directory;
  /** By path as an archive writes it (cleaned), and by real path. Both only know what exists, so only removal can make them wrong. */
  #aliases = new Map<ByteString, Directory>();
  #directories = new Map<ByteString, Directory>();
  /** Real path → descriptor, least recently used first. */
  #descriptors = new Map<ByteString, number>();
  /** Real paths of the symbolic links that some resolution went through. */
  #followed = new Set<ByteString>();
  #links = 0;

  constructor(options: TreeOptions) {
    this.#options = options;
    this.#rootDirectory = { path: '', merged: options.lower?.all ?? [], hidden: !options.overlay };
    this.#aliases.set('', this.#rootDirectory);
    this.#directories.set('', this.#rootDirectory);
  }

  get root(): Directory {
    return this.#rootDirectory;
  }

  /**
   * The directory at `components`, made with all its parents where they are missing.
   * @param make false: answers undefined instead of making what no layer has
   * @throws Failure InvalidArgument when a component is no directory or links never end
   */
  resolve(components: readonly ByteString[], make: true): Directory;
  resolve(components: readonly ByteString[], make: boolean): Directory | undefined;
  resolve(components: readonly ByteString[], make: boolean): Directory | undefined {
    const key = components.join('/');
    const known = this.#aliases.get(key);
    if (known !== undefined) return known;
    // From the deepest parent that is known, component by component.
    let depth = components.length - 1;
    let prefix = key;
    let directory: Directory | undefined;
    for (; depth > 0; depth--) {
      prefix = prefix.slice(0, prefix.lastIndexOf('/'));
      directory = this.#aliases.get(prefix);
      if (directory !== undefined) break;
    }
    const place: Place = { directory: directory ?? this.#rootDirectory, missing: [] };
    for (let i = depth; i < components.length; i++) {
      this.#links = 0;
      this.#step(place, components[i]!);
    }
    if (place.missing.length > 0 && !make) return undefined;
    for (const name of place.missing) place.directory = this.#make(place.directory, name);
    if (this.#aliases.size >= DIRECTORIES) this.#aliases = new Map([['', this.#rootDirectory]]);
    this.#aliases.set(key, place.directory);
    return place.directory;
  }

  /** What `resolve` would answer for the components of `path`, which stands for none but those; undefined when it would have to look. */
  known(path: ByteString): Directory | undefined {
    return this.#aliases.get(path);
  }

  /** A link target's parents: not cleaned, so that `..` goes up from where a link has led. Makes nothing that no layer has. */
  resolveTarget(components: readonly ByteString[]): Directory | undefined {
    this.#links = 0;
    const place: Place = { directory: this.#rootDirectory, missing: [] };
    for (const component of components) this.#step(place, component);
    return place.missing.length > 0 ? undefined : place.directory;
  }

  /** A descriptor (O_PATH) of the directory, good until the next call of this tree. */
  descriptor(directory: Pick<Directory, 'path'>): number {
    const { path } = directory;
    if (path === '') return this.#options.root;
    let fd = this.#descriptors.get(path);
    if (fd !== undefined) {
      this.#descriptors.delete(path);
      this.#descriptors.set(path, fd);
      return fd;
    }
    fd = openat2(this.#options.root, toPath(path), O_PATH | constants.O_DIRECTORY, INSIDE);
    if (this.#descriptors.size >= DESCRIPTORS) {
      const [oldest, stale] = this.#descriptors.entries().next().value!;
      this.#descriptors.delete(oldest);
      closeSync(stale);
    }
    this.#descriptors.set(path, fd);
    return fd;
  }

  /** An entry has made this directory, which was not there before: to find it again needs no look at the disk. */
  made(parent: Directory, name: ByteString): void {
    // Where layers below may have it too, that is looked up when something is to be put into it.
    if (parent.merged.length === 0) this.#remember(join(parent.path, name), { merged: [], hidden: parent.hidden });
  }

  /** The child of a directory as a directory, which exists; used when an entry made it. */
  child(parent: Directory, name: ByteString): Directory {
    const path = join(parent.path, name);
    const known = this.#directories.get(path);
    return known ?? this.#remember(path, this.#below(parent, name));
  }

  /**
   * What was at `path` is gone, replaced or hidden, so no resolution that went through it may be remembered. Cheap for what no resolution can have
   * gone through: all but directories and links that were followed.
   */
  removed(path: ByteString, wasDirectory: boolean): void {
    if (wasDirectory || this.#followed.has(path)) this.forget();
  }

  /** The root is opaque: from now on nothing of the layers below shows anywhere. */
  hideRoot(): void {
    this.#rootDirectory = { path: '', ...nothing };
    this.forget();
  }

  /** Forgets every resolution; descriptors given out before are closed. */
  forget(): void {
    this.#followed.clear();
    this.#aliases = new Map([['', this.#rootDirectory]]);
    this.#directories = new Map([['', this.#rootDirectory]]);
    this.close();
  }

  /** Closes every descriptor; the tree may be used again. */
  close(): void {
    for (const fd of this.#descriptors.values()) closeSync(fd);
    this.#descriptors.clear();
  }

  /**
   * Goes one component further. Below what does not exist there is only text, where `..` takes a component away, as containerd resolves it: a link
   * `missing/../etc` is `etc`, and `missing` is not made.
   */
  #step(place: Place, name: ByteString): void {
    if (name === '' || name === '.') return;
    if (name === '..') {
      if (place.missing.pop() === undefined) place.directory = this.#parentOf(place.directory);
      return;
    }
    const path = join(place.directory.path, [...place.missing, name].join('/'));
    if (path.length > PATH_BYTES) throw invalidEntry(this.#options.subject, path, 'path is too long');
    if (place.missing.length > 0) {
      place.missing.push(name);
      return;
    }
    const parent = place.directory;
    const known = this.#directories.get(path);
    if (known !== undefined) {
      place.directory = known;
      return;
    }
    const dirfd = this.descriptor(parent);
    const status = tryFstatat(dirfd, toPath(name));
    if (status === undefined) this.#stepLower(place, name, path);
    else if (status.kind === 'directory') {
      place.directory = this.#remember(path, this.#below(parent, name));
    } else if (status.kind === 'symlink') this.#follow(place, path, readlinkat(dirfd, toPath(name)));
    else if (this.#options.overlay && isWhiteout(status)) place.missing.push(name);
    else throw invalidEntry(this.#options.subject, path, 'is not a directory');
  }

  #stepLower(place: Place, name: ByteString, path: ByteString): void {
    const parent = place.directory;
    const lower = this.#options.lower;
    const found = parent.merged.length === 0 ? undefined : lower!.lookup(parent.path, parent.merged, name);
    if (found === undefined) place.missing.push(name);
    else if (found.status.kind === 'directory') place.directory = this.#copyUp(parent, name, found);
    else if (found.status.kind === 'symlink') {
      const target = lower!.within(parent.path, found.layer, (fd) => readlinkat(fd, toPath(name)));
      this.#follow(place, path, target);
    } else throw invalidEntry(this.#options.subject, path, 'is not a directory');
  }

  #parentOf(directory: Directory): Directory {
    const slash = directory.path.lastIndexOf('/');
    if (slash <= 0) return this.#rootDirectory;
    const path = directory.path.slice(0, slash);
    // It may have been forgotten, but it exists, and no component of a real path is a link.
    return this.#directories.get(path) ?? this.#reopen(path);
  }

  #reopen(path: ByteString): Directory {
    let directory = this.#rootDirectory;
    for (const component of path.split('/')) directory = this.child(directory, component);
    return directory;
  }

  #follow(place: Place, link: ByteString, target: Buffer): void {
    if (++this.#links > LINKS) {
      throw invalidEntry(this.#options.subject, link, 'too many levels of symbolic links');
    }
    this.#followed.add(link);
    const text = toByteString(target);
    if (text.startsWith('/')) place.directory = this.#rootDirectory;
    for (const component of text.split('/')) this.#step(place, component);
  }

  /** What an existing directory of the root shows of the layers below it. */
  #below(parent: Directory, name: ByteString): Shows {
    if (parent.hidden || isOpaque(this.descriptor(parent), name)) return nothing;
    const lower = parent.merged.length === 0 ? undefined : this.#options.lower;
    return { merged: lower?.lookup(parent.path, parent.merged, name)?.merged ?? [], hidden: false };
  }

  /** A directory that no layer has, or that the layer itself has hidden: 0755, the extracting process's own, as containerd makes it. */
  #make(parent: Directory, name: ByteString): Directory {
    const dirfd = this.descriptor(parent);
    const path = toPath(name);
    const hidden = this.#options.overlay && tryFstatat(dirfd, path) !== undefined;
    if (hidden) unlinkat(dirfd, path);
    mkdirat(dirfd, path, 0o755);
    fchmodat(dirfd, path, 0o755);
    if (hidden) lsetxattr(fdPath(dirfd, path), OPAQUE, Buffer.from('y'));
    const made = join(parent.path, name);
    const shows = hidden ? nothing : { merged: [], hidden: parent.hidden };
    this.#options.onImplied(made, undefined, shows.hidden);
    return this.#remember(made, shows);
  }

  /** The upper directory gets a directory of its own with the attributes of the lower one, as overlayfs makes it when something below is written. */
  #copyUp(parent: Directory, name: ByteString, found: LowerEntry): Directory {
    const dirfd = this.descriptor(parent);
    const attributes = this.#options.lower!.within(parent.path, found.layer, (fd) =>
      attributesOf(fd, name, found.status),
    );
    mkdirat(dirfd, toPath(name), 0o700);
    setEntry(dirfd, name, attributes, false, this.#options.omissions);
    const path = join(parent.path, name);
    this.#options.onImplied(path, found.status, false);
    return this.#remember(path, { merged: found.merged, hidden: false });
  }

  #remember(path: ByteString, shows: Shows): Directory {
    if (this.#directories.size >= DIRECTORIES) this.#directories = new Map([['', this.#rootDirectory]]);
    const directory: Directory = { path, ...shows };
    this.#directories.set(path, directory);
    return directory;
  }
}
