/**
 * The content store's directory, the only part of the plugin that knows paths:
 *
 *     <root>/io.containerd.content.v1.content/
 *     ├── blobs/
 *     │   └── sha256/                 one directory per algorithm
 *     │       └── <hex>               whole and verified, mode 0444; appears as a second name of an ingest's data after its fsync
 *     └── ingest/
 *         └── <sha256 of NS/REF>/     one directory per ingest
 *             ├── ref                 NS/REF
 *             ├── total               bytes expected, decimal; missing when the client did not say
 *             ├── startedat           RFC 3339
 *             ├── updatedat           RFC 3339, written when a writer lets go
 *             ├── data                what has arrived; its size is the offset
 *             └── marks               what is known of the data, see marks.ts
 *
 * Data that has a second name is never written to: it may be a blob, or become one yet. Its first name goes when the record is there,
 * so that at every moment either the ingest has its bytes or the blob is recorded.
 *
 * Which blobs and ingests exist is for the records to say (store.ts). A file that no record names is a leftover.
 */
import {
  chmodSync,
  closeSync,
  constants,
  copyFile,
  existsSync,
  fstatSync,
  fsyncSync,
  linkSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmdirSync,
  rmSync,
  statSync,
  truncateSync,
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
import { SyncedDirectory } from './synced-directory.ts';

const copy = promisify(copyFile);
const { COPYFILE_FICLONE, O_CREAT, O_DIRECTORY, O_NOFOLLOW, O_NONBLOCK, O_RDONLY, O_RDWR } = constants;

const ingestFiles = ['data', 'marks', 'ref', 'startedat', 'updatedat', 'total'];

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
   * Gives a file that is synced its place and syncs the place. An older file there is replaced: no record says that it is whole.
   * The caller holds the digest's lock, and removes `source` once the record is there.
   */
  async placeBlob(source: string, digest: Digest): Promise<void> {
    const directory = this.#directory(digestAlgorithm(digest));
    const target = this.blobPath(digest);
    failpoint('content.commit.before-link');
    try {
      linkOrMove(source, target);
    } catch (error) {
      if (!isErrno(error, 'EEXIST', 'EISDIR', 'ENOTEMPTY')) throw error;
      rmSync(target, { recursive: true, force: true });
      linkOrMove(source, target);
    }
    failpoint('content.commit.after-link');
    await directory.sync();
    failpoint('content.commit.after-directory-fsync');
  }

  /** The caller holds the digest's lock and has seen that no record names it. */
  removeBlob(digest: Digest): void {
    failpoint('content.trash.before-unlink');
    rmSync(this.blobPath(digest), { recursive: true, force: true });
    failpoint('content.trash.after-unlink');
  }

  /** Takes back a {@link placeBlob} whose record was refused: the data is its ingest's alone again, so that the client may go on. */
  unplaceBlob(digest: Digest, source: string): void {
    try {
      if (existsSync(source)) unlinkIfThere(this.blobPath(digest));
      else renameSync(this.blobPath(digest), source);
      chmodSync(source, 0o644);
    } catch (error) {
      if (!isErrno(error, 'ENOENT')) throw error;
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

  /** Cuts data that is longer, unless it has a second name. */
  cutData(directory: string, bytes: number): void {
    const path = this.ingestPath(directory, 'data');
    const { size, nlink } = statSync(path);
    if (size <= bytes || nlink > 1) return;
    // A commit that was cut short left the mode of a blob; it matters to whoever is not root.
    chmodSync(path, 0o644);
    truncateSync(path, bytes);
  }

  /** The data file for reading and writing, made when it is missing. */
  openData(directory: string): number {
    const path = this.ingestPath(directory, 'data');
    const flags = O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK;
    try {
      return openSync(path, flags, 0o644);
    } catch (error) {
      // As above.
      if (!isErrno(error, 'EACCES')) throw error;
      chmodSync(path, 0o644);
      return openSync(path, flags, 0o644);
    }
  }

  /** The data file for a look; throws ENOENT when there is none. */
  openExistingData(directory: string): number {
    return openSync(this.ingestPath(directory, 'data'), O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
  }

  /** Gives the ingest bytes of its own when its data has a second name. Costs a copy where the file system cannot share blocks. */
  async detachData(directory: string): Promise<void> {
    const path = this.ingestPath(directory, 'data');
    if (statSync(path).nlink === 1) return;
    const own = this.ingestPath(directory, 'own');
    rmSync(own, { force: true });
    await copy(path, own, COPYFILE_FICLONE);
    chmodSync(own, 0o644);
    renameSync(own, path);
  }

  /** Makes the directory say whose ingest it is. After a power cut its small files may be empty, since nothing syncs them. */
  nameIngest(directory: string, ref: string): void {
    const path = this.ingestPath(directory, 'ref');
    if (readIfThere(path) !== ref) writeFileSync(path, ref, { mode: 0o644 });
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

export function isErrno(error: unknown, ...codes: string[]): boolean {
  return error instanceof Error && codes.includes((error as NodeJS.ErrnoException).code ?? '');
}

/** A file system without hard links moves it: there, a death before the record costs the ingest its bytes. */
function linkOrMove(source: string, target: string): void {
  try {
    linkSync(source, target);
  } catch (error) {
    if (!isErrno(error, 'EPERM', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS', 'EMLINK')) throw error;
    renameSync(source, target);
  }
}

function readIfThere(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return undefined;
    throw error;
  }
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
