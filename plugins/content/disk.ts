/**
 * The content store's directory, the only part of the plugin that knows paths:
 *
 *     <root>/io.containerd.content.v1.content/
 *     ├── blobs/
 *     │   └── sha256/                 one directory per algorithm
 *     │       └── <hex>               whole and verified, mode 0444; appears by rename after its fsync
 *     └── ingest/
 *         └── <sha256 of NS/REF>/     one directory per ingest
 *             ├── ref                 NS/REF
 *             ├── total               bytes expected, decimal; missing when the client did not say
 *             ├── startedat           RFC 3339
 *             ├── updatedat           RFC 3339, written when a writer lets go
 *             └── data                what has arrived; its size is the offset
 *
 * Which blobs and ingests exist is for the records to say (store.ts). A file that no record names is a leftover.
 */
import {
  chmodSync,
  closeSync,
  constants,
  fstatSync,
  fsync,
  fsyncSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmdirSync,
  rmSync,
  statSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { failpoint } from 'troupe/plugin';
import {
  type Digest,
  type DigestAlgorithm,
  digestAlgorithm,
  digestHex,
  digestOf,
  isDigest,
} from '../lib/digest/digest.ts';

const fsyncFile = promisify(fsync);
const { O_CREAT, O_DIRECTORY, O_NOFOLLOW, O_NONBLOCK, O_RDONLY, O_RDWR } = constants;

const ingestFiles = ['data', 'ref', 'startedat', 'updatedat', 'total'];

export class Disk {
  readonly root: string;
  readonly #directories = new Map<DigestAlgorithm, SyncedDirectory>();

  constructor(root: string) {
    this.root = root;
  }

  /** Makes the directories. Nothing may be called before. */
  prepare(): void {
    makeDirectory(this.root, 0o700);
    for (const name of ['blobs', 'ingest']) makeDirectory(join(this.root, name), 0o755);
  }

  close(): void {
    for (const directory of this.#directories.values()) directory.close();
    this.#directories.clear();
  }

  blobPath(digest: Digest): string {
    return join(this.root, 'blobs', digestAlgorithm(digest), digestHex(digest));
  }

  /**
   * A blob's file, open for reading; undefined when it is missing, of another size or not a regular file: damaged, in short.
   * Symbolic links are not followed and a FIFO does not block.
   */
  openBlob(digest: Digest, size: bigint): number | undefined {
    let fd: number;
    try {
      fd = openSync(this.blobPath(digest), O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
    } catch (error) {
      if (isErrno(error, 'ENOENT', 'ELOOP', 'ENXIO', 'ENOTDIR')) return undefined;
      throw error;
    }
    const stat = fstatSync(fd);
    if (stat.isFile() && BigInt(stat.size) === size) return fd;
    closeSync(fd);
    return undefined;
  }

  /** Whether the blob's file is there and of that size. */
  hasBlob(digest: Digest, size: bigint): boolean {
    const fd = this.openBlob(digest, size);
    if (fd !== undefined) closeSync(fd);
    return fd !== undefined;
  }

  /**
   * Moves a file that is synced into its place and syncs the place. An older file there is replaced: it has the same content, or is damaged.
   * The caller holds the digest's lock.
   */
  async placeBlob(source: string, digest: Digest): Promise<void> {
    const directory = this.#directory(digestAlgorithm(digest));
    const target = this.blobPath(digest);
    failpoint('content.commit.before-rename');
    try {
      renameSync(source, target);
    } catch (error) {
      if (!isErrno(error, 'EISDIR', 'ENOTEMPTY', 'EEXIST')) throw error;
      // Something that is not a file took the name; nobody but an accident makes that.
      rmSync(target, { recursive: true, force: true });
      renameSync(source, target);
    }
    failpoint('content.commit.after-rename');
    await directory.sync();
    failpoint('content.commit.after-directory-fsync');
  }

  /** The caller holds the digest's lock and has seen that no record names it. */
  removeBlob(digest: Digest): void {
    failpoint('content.trash.before-unlink');
    rmSync(this.blobPath(digest), { recursive: true, force: true });
    failpoint('content.trash.after-unlink');
  }

  /** Takes back a {@link placeBlob} whose record failed: the data goes back to its ingest, so that the client may try again. */
  unplaceBlob(digest: Digest, source: string): void {
    try {
      renameSync(this.blobPath(digest), source);
      chmodSync(source, 0o644);
    } catch (error) {
      if (!isErrno(error, 'ENOENT')) throw error;
      unlinkIfThere(this.blobPath(digest));
    }
  }

  /** Digests of all files under blobs/, and paths of what is no blob by its name. */
  *blobs(): Generator<{ digest: Digest } | { stray: string }> {
    for (const algorithm of list(join(this.root, 'blobs'))) {
      const directory = join(this.root, 'blobs', algorithm);
      if (!statSync(directory, { throwIfNoEntry: false })?.isDirectory()) {
        yield { stray: directory };
        continue;
      }
      for (const hex of list(directory)) {
        const digest = `${algorithm}:${hex}`;
        yield isDigest(digest) ? { digest } : { stray: join(directory, hex) };
      }
    }
  }

  removeStray(path: string): void {
    rmSync(path, { recursive: true, force: true });
  }

  /** The name of an ingest's directory. A namespace has no slash, so no two pairs are one text. */
  ingestDirectory(namespace: string, ref: string): string {
    return digestHex(digestOf(`${namespace}/${ref}`));
  }

  ingestPath(directory: string, ...file: string[]): string {
    return join(this.root, 'ingest', directory, ...file);
  }

  /** Synchronous as a whole: nobody on this thread sees half of it. Leftovers of an earlier ingest are cleared. */
  createIngest(directory: string, ingest: { ref: string; total: bigint; startedAt: string }): void {
    const path = this.ingestPath(directory);
    failpoint('content.ingest.before-mkdir');
    try {
      mkdirSync(path, { mode: 0o755 });
    } catch (error) {
      if (!isErrno(error, 'EEXIST')) throw error;
      rmSync(path, { recursive: true, force: true });
      mkdirSync(path, { mode: 0o755 });
    }
    writeFileSync(join(path, 'ref'), ingest.ref, { mode: 0o644 });
    writeFileSync(join(path, 'startedat'), ingest.startedAt, { mode: 0o644 });
    if (ingest.total > 0n) writeFileSync(join(path, 'total'), ingest.total.toString(), { mode: 0o644 });
    failpoint('content.ingest.after-mkdir');
  }

  /** The data file for reading and writing, made when it is missing. */
  openData(directory: string): number {
    const path = this.ingestPath(directory, 'data');
    const flags = O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK;
    try {
      return openSync(path, flags, 0o644);
    } catch (error) {
      // A commit that was cut short between its fsync and the rename left the mode of a blob; it matters to whoever is not root.
      if (!isErrno(error, 'EACCES')) throw error;
      chmodSync(path, 0o644);
      return openSync(path, flags, 0o644);
    }
  }

  /** The data file for a look; throws ENOENT when there is none. */
  openExistingData(directory: string): number {
    return openSync(this.ingestPath(directory, 'data'), O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
  }

  /** Whether the directory says that it is this ingest's. After a power cut its small files may be empty, since nothing syncs them. */
  isIngestOf(directory: string, ref: string): boolean {
    try {
      return readFileSync(this.ingestPath(directory, 'ref'), 'utf8') === ref;
    } catch (error) {
      if (isErrno(error, 'ENOENT', 'ENOTDIR', 'EISDIR')) return false;
      throw error;
    }
  }

  removeIngest(directory: string): void {
    failpoint('content.ingest.before-remove');
    const path = this.ingestPath(directory);
    try {
      // By name, since a removal that has to look what is there takes three times as long.
      for (const file of ingestFiles) unlinkIfThere(join(path, file));
      rmdirSync(path);
    } catch (error) {
      if (!isErrno(error, 'ENOENT')) rmSync(path, { recursive: true, force: true });
    }
    failpoint('content.ingest.after-remove');
  }

  ingestDirectories(): string[] {
    return list(join(this.root, 'ingest'));
  }

  #directory(algorithm: DigestAlgorithm): SyncedDirectory {
    let directory = this.#directories.get(algorithm);
    if (directory === undefined) {
      const path = join(this.root, 'blobs', algorithm);
      makeDirectory(path, 0o755);
      directory = new SyncedDirectory(path);
      this.#directories.set(algorithm, directory);
    }
    return directory;
  }
}

/**
 * A directory whose fsyncs are shared: those that ask while one runs all get the next one. With many small blobs at a time that is one
 * fsync for all of them instead of one each.
 */
class SyncedDirectory {
  readonly #fd: number;
  #running: Promise<void> | undefined;
  #next: Promise<void> | undefined;

  constructor(path: string) {
    this.#fd = openSync(path, O_RDONLY | O_DIRECTORY);
  }

  sync(): Promise<void> {
    if (this.#running === undefined) return this.#start();
    this.#next ??= this.#running.then(
      () => this.#start(),
      () => this.#start(),
    );
    return this.#next;
  }

  close(): void {
    closeSync(this.#fd);
  }

  #start(): Promise<void> {
    this.#next = undefined;
    this.#running = fsyncFile(this.#fd).finally(() => {
      this.#running = undefined;
    });
    return this.#running;
  }
}

export function isErrno(error: unknown, ...codes: string[]): boolean {
  return error instanceof Error && codes.includes((error as NodeJS.ErrnoException).code ?? '');
}

function list(path: string): string[] {
  try {
    return readdirSync(path);
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENOTDIR')) return [];
    throw error;
  }
}

/** Makes a directory that survives a power cut: its entry is synced too, once. */
function makeDirectory(path: string, mode: number): void {
  const made = mkdirSync(path, { recursive: true, mode });
  if (made === undefined) return;
  const fd = openSync(dirname(made), O_RDONLY | O_DIRECTORY);
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

function unlinkIfThere(path: string): void {
  try {
    unlinkSync(path);
  } catch (error) {
    if (!isErrno(error, 'ENOENT')) throw error;
  }
}
