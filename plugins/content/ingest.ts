/**
 * One ingest that somebody writes: an open data file, the digest so far, and the way into blobs/. Knows the disk and nothing of
 * records; writer.ts has the rules of the API.
 */
import {
  closeSync,
  constants,
  copyFile,
  fchmod,
  fstatSync,
  fsync,
  ftruncate,
  read,
  readFileSync,
  write,
  writeFileSync,
} from 'node:fs';
import { promisify } from 'node:util';
import { Failure, failpoint } from 'troupe/plugin';
import { type Digest, type DigestAlgorithm, Digester } from '../lib/digest/digest.ts';
import { formatRfc3339, nowNanoseconds } from '../lib/timestamp/timestamp.ts';
import { type Disk, isErrno } from './disk.ts';
import { type Mark, Marks } from './marks.ts';

const readFile = promisify(read);
const writeFile = promisify(write);
const fsyncFile = promisify(fsync);
const truncateFile = promisify(ftruncate);
const changeMode = promisify(fchmod);
const copy = promisify(copyFile);

/** Bytes per read when a digest is computed over what is on disk already. */
const chunkSize = 1 << 20;

export class Ingest {
  readonly #disk: Disk;
  readonly #directory: string;
  readonly #fd: number;
  readonly #marks: Marks;
  #digester: Digester;
  #open = true;
  /** Nanoseconds since the epoch. */
  readonly startedAt: bigint;
  updatedAt: bigint;
  total: bigint;

  private constructor(
    disk: Disk,
    directory: string,
    fd: number,
    state: { startedAt: bigint; updatedAt: bigint; total: bigint; digester: Digester },
  ) {
    this.#disk = disk;
    this.#directory = directory;
    this.#fd = fd;
    this.#digester = state.digester;
    this.#marks = new Marks(disk.ingestPath(directory, 'marks'), state.digester.size);
    this.startedAt = state.startedAt;
    this.updatedAt = state.updatedAt;
    this.total = state.total;
  }

  /** Starts at offset 0; what an earlier ingest of that directory left is gone. */
  static create(
    disk: Disk,
    directory: string,
    options: { ref: string; total: bigint; algorithm: DigestAlgorithm },
  ): Ingest {
    const startedAt = nowNanoseconds();
    const digester = new Digester(options.algorithm);
    let fd: number;
    try {
      disk.createIngest(directory, { ref: options.ref, total: options.total, startedAt: formatRfc3339(startedAt) });
      fd = disk.openData(directory);
    } catch (error) {
      // A full disk takes the directory and refuses the files in it: half an ingest that no record names would stay until the next start.
      disk.removeIngest(directory);
      throw error;
    }
    return new Ingest(disk, directory, fd, { startedAt, updatedAt: startedAt, total: options.total, digester });
  }

  /**
   * Goes on where the data was last known to be whole, reading it up to there for the digest: the file is the truth, so a state of the hash
   * kept elsewhere could lie after a crash. Costs the time to read it. What comes after is cut off. Undefined when there is nothing to go
   * on from.
   *
   * @param options.algorithm of the digest when the data does not say.
   */
  static async resume(
    disk: Disk,
    directory: string,
    options: { total: bigint; algorithm: DigestAlgorithm; signal: AbortSignal },
  ): Promise<Ingest | undefined> {
    const found = readStatus(disk, directory);
    if (found === undefined) return undefined;
    // Another total is another piece of content under the same ref.
    if (options.total > 0n && found.total > 0n && options.total !== found.total) return undefined;
    await disk.detachData(directory);
    const fd = disk.openData(directory);
    try {
      const marks = Marks.read(disk.ingestPath(directory, 'marks'));
      const digester = await digestMarked(fd, marks, options.algorithm, options.signal);
      const ingest = new Ingest(disk, directory, fd, { ...found, total: options.total || found.total, digester });
      if (found.offset > ingest.offset) await truncateFile(fd, digester.size);
      ingest.#marks.cut(digester.size);
      return ingest;
    } catch (error) {
      closeSync(fd);
      throw error;
    }
  }

  /** An ingest that starts as a copy of a blob, shared with it where the file system can. */
  static async copyOf(
    disk: Disk,
    directory: string,
    source: Digest,
    options: { ref: string; total: bigint; algorithm: DigestAlgorithm; signal: AbortSignal },
  ): Promise<Ingest> {
    const ingest = Ingest.create(disk, directory, options);
    try {
      await copy(disk.blobPath(source), ingest.dataPath, constants.COPYFILE_FICLONE);
      await changeMode(ingest.#fd, 0o644);
      ingest.#digester = await digestFile(ingest.#fd, options.algorithm, options.signal);
      ingest.#marks.add(ingest.#digester);
      return ingest;
    } catch (error) {
      ingest.close();
      throw error;
    }
  }

  get offset(): bigint {
    return BigInt(this.#digester.size);
  }

  get digest(): Digest {
    return this.#digester.digest();
  }

  /** Appends at the offset. The bytes may be reused once it resolves. A failure may leave a part of them in the file: close, then resume. */
  async append(data: Uint8Array): Promise<void> {
    failpoint('content.ingest.before-write');
    // The kernel copies the bytes on another thread while this one hashes them.
    const written = this.#write(data, this.#digester.size);
    this.#digester.update(data);
    await written;
    this.updatedAt = nowNanoseconds();
    failpoint('content.ingest.after-write');
    this.#marks.add(this.#digester);
  }

  async truncate(): Promise<void> {
    this.#marks.cut(0);
    await truncateFile(this.#fd, 0);
    this.#digester = new Digester(this.#digester.algorithm);
    this.updatedAt = nowNanoseconds();
  }

  /** The digest by another algorithm from here on; reads what is there. */
  async rehash(algorithm: DigestAlgorithm, signal: AbortSignal): Promise<void> {
    if (algorithm === this.#digester.algorithm) return;
    this.#digester = await digestFile(this.#fd, algorithm, signal);
    // Those of one file are of one algorithm.
    this.#marks.cut(0);
    this.#marks.add(this.#digester);
  }

  /**
   * Makes the data durable, with the mode of a blob.
   *
   * @throws Failure DataLoss when the fsync failed: the kernel may have dropped the pages, and a second fsync would say that all is well.
   */
  async sync(): Promise<void> {
    await changeMode(this.#fd, 0o444);
    try {
      failpoint('content.commit.before-fsync');
      await fsyncFile(this.#fd);
    } catch (error) {
      throw new Failure('DataLoss', `fsync of content ${this.digest}: ${(error as Error).message}: data loss`, {
        cause: error,
      });
    }
    failpoint('content.commit.after-fsync');
  }

  get dataPath(): string {
    return this.#disk.ingestPath(this.#directory, 'data');
  }

  /** Lets go; what has arrived stays for the next writer. */
  close(): void {
    if (!this.#open) return;
    this.#open = false;
    this.#marks.close();
    closeSync(this.#fd);
    try {
      writeFileSync(this.#disk.ingestPath(this.#directory, 'updatedat'), formatRfc3339(this.updatedAt), {
        mode: 0o644,
      });
    } catch (error) {
      // Aborted meanwhile, or committed: nobody will ask. With no space or no descriptor left, the data file's own time will do.
      if (!isErrno(error, 'ENOENT', 'ENOSPC', 'EDQUOT', 'EMFILE', 'ENFILE')) throw error;
    }
  }

  async #write(data: Uint8Array, position: number): Promise<void> {
    for (let done = 0; done < data.length; ) {
      const { bytesWritten } = await writeFile(this.#fd, data, done, data.length - done, position + done);
      done += bytesWritten;
    }
  }
}

export interface IngestFiles {
  readonly startedAt: bigint;
  readonly updatedAt: bigint;
  readonly total: bigint;
  readonly offset: bigint;
}

/** What an ingest's directory says of it; undefined when it has no data file. Damaged side files cost only what they said. */
export function readStatus(disk: Disk, directory: string): IngestFiles | undefined {
  let fd: number;
  try {
    fd = disk.openExistingData(directory);
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENOTDIR', 'ELOOP', 'ENXIO')) return undefined;
    throw error;
  }
  try {
    const stat = fstatSync(fd, { bigint: true });
    if (!stat.isFile()) return undefined;
    const total = readSmall(disk.ingestPath(directory, 'total'));
    return {
      startedAt: parseRfc3339(readSmall(disk.ingestPath(directory, 'startedat'))) ?? stat.ctimeNs,
      updatedAt: parseRfc3339(readSmall(disk.ingestPath(directory, 'updatedat'))) ?? stat.mtimeNs,
      total: /^[0-9]{1,18}$/.test(total) ? BigInt(total) : 0n,
      offset: stat.size,
    };
  } finally {
    closeSync(fd);
  }
}

/**
 * Brings an ingest in order that a crash may have left half: its directory is there and says whose it is, and no data is in it that
 * nobody was told of. Cheap: whether the bytes are really there is for {@link Ingest.resume} to see.
 *
 * @returns whether there was no data, and it begins anew.
 */
export function repairIngest(disk: Disk, directory: string, ref: string): boolean {
  const found = readStatus(disk, directory);
  if (found === undefined) {
    Ingest.create(disk, directory, { ref, total: 0n, algorithm: 'sha256' }).close();
    return true;
  }
  disk.nameIngest(directory, ref);
  const marks = Marks.read(disk.ingestPath(directory, 'marks'));
  const known = marks.findLast(({ offset }) => BigInt(offset) <= found.offset)?.offset ?? 0;
  disk.cutData(directory, known);
  return false;
}

async function digestFile(fd: number, algorithm: DigestAlgorithm, signal: AbortSignal): Promise<Digester> {
  const digester = new Digester(algorithm);
  await digestUpTo(fd, digester, Number.POSITIVE_INFINITY, signal);
  return digester;
}

/** Of the data up to the last mark that holds. */
async function digestMarked(
  fd: number,
  marks: readonly Mark[],
  algorithm: DigestAlgorithm,
  signal: AbortSignal,
): Promise<Digester> {
  const digester = new Digester(marks[0]?.algorithm ?? algorithm);
  let known = digester.copy();
  for (const mark of marks) {
    await digestUpTo(fd, digester, mark.offset, signal);
    if (!Marks.holds(mark, digester)) break;
    known = digester.copy();
  }
  return known;
}

async function digestUpTo(fd: number, digester: Digester, end: number, signal: AbortSignal): Promise<void> {
  const chunk = Buffer.allocUnsafeSlow(Math.min(chunkSize, end - digester.size));
  while (digester.size < end) {
    signal.throwIfAborted();
    const { bytesRead } = await readFile(fd, chunk, 0, Math.min(chunk.length, end - digester.size), digester.size);
    if (bytesRead === 0) return;
    digester.update(chunk.subarray(0, bytesRead));
  }
}

function readSmall(path: string): string {
  try {
    return readFileSync(path, 'latin1').slice(0, 64);
  } catch {
    return '';
  }
}

function parseRfc3339(text: string): bigint | undefined {
  const match = /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?Z$/.exec(text);
  if (match === null) return undefined;
  const seconds = Date.parse(`${match[1]}Z`);
  if (Number.isNaN(seconds)) return undefined;
  return BigInt(seconds) * 1_000_000n + BigInt((match[2] ?? '').padEnd(9, '0'));
}
