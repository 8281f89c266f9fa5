/**
 * A writer of one ref, from its lock to its end: what one stream of Content.Write does, in terms of content.
 *
 * Content that another namespace has already is `shared`: complete without an ingest. It becomes a real ingest (a copy) at the first
 * byte or truncation that says the client wants something else.
 */
import { Failure, failpoint } from 'troupe/plugin';
import { type Digest, digestAlgorithm, digestOf, isDigest } from '../lib/digest/digest.ts';
import { quote } from '../lib/identifier/quote.ts';
import type { Labels } from '../lib/label/label.ts';
import { nowNanoseconds } from '../lib/timestamp/timestamp.ts';
import type { Disk } from './disk.ts';
import { Ingest } from './ingest.ts';
import { ingestNotFound, shorten } from './ingest-store.ts';
import { contentExists, type SharingPolicy, type Store } from './store.ts';
import type { Exclusive, OpenRequest } from './writers.ts';

export interface WriterOptions extends OpenRequest {
  readonly store: Store;
  readonly disk: Disk;
  readonly exclusive: Exclusive;
  readonly policy: SharingPolicy;
  readonly ingest: { ingest: Ingest } | { shared: { size: bigint } };
  /** An fsync failed: nobody may write any more. */
  readonly broken: (failure: Failure) => void;
  /** The blob's file is in place, and whether its record will be is not known. */
  readonly doubtful: (digest: Digest) => void;
  readonly released: () => void;
}

export class Writer {
  readonly #options: WriterOptions;
  readonly openedAt = nowNanoseconds();
  #ingest: Ingest | undefined;
  #shared: { size: bigint } | undefined;
  #abandoned = false;
  #closed = false;
  /** The step that runs, settled or not; never rejects. A file must not be closed under it: its number could be somebody else's by then. */
  #step: Promise<unknown> = Promise.resolve();

  constructor(options: WriterOptions) {
    this.#options = options;
    if ('ingest' in options.ingest) this.#ingest = options.ingest.ingest;
    else this.#shared = options.ingest.shared;
  }

  get offset(): bigint {
    return this.#ingest?.offset ?? this.#shared?.size ?? 0n;
  }

  get total(): bigint {
    return this.#ingest?.total ?? this.#shared?.size ?? 0n;
  }

  get startedAt(): bigint {
    return this.#ingest?.startedAt ?? this.openedAt;
  }

  get updatedAt(): bigint {
    return this.#ingest?.updatedAt ?? this.openedAt;
  }

  /** Of what has arrived so far. */
  get digest(): Digest {
    return this.#ingest?.digest ?? (this.#shared === undefined ? digestOf('') : (this.#options.expected as Digest));
  }

  /** @throws Failure OutOfRange when an offset is given that is not the current one. Offset 0 starts over. */
  seek(offset: bigint): Promise<void> {
    return this.#run(() => this.#seek(offset));
  }

  append(data: Uint8Array): Promise<void> {
    if (data.length === 0) return Promise.resolve();
    return this.#run(async () => (await this.#own('copy')).append(data));
  }

  /**
   * The client has learned that the content is there: the ingest goes, its lease gets the content.
   *
   * @throws Failure AlreadyExists always, unless the content is not there: then it returns.
   */
  refuseKnown(expected: string): Promise<void> {
    return this.#run(() => this.#refuseKnown(expected));
  }

  /**
   * Makes a blob of it: checked, durable, recorded. After a failed check the ingest stays as it is.
   *
   * @param total 0 or less: not checked. `expected` empty: not checked.
   * @throws Failure FailedPrecondition, AlreadyExists, NotFound when aborted meanwhile.
   */
  commit(total: bigint, expected: string, labels: Labels): Promise<void> {
    return this.#run(() => this.#commit(total, expected, labels));
  }

  /** Somebody aborts the ref: whatever comes next fails, and the ref is free once this resolves. */
  abandon(): Promise<void> {
    this.#abandoned = true;
    return this.close();
  }

  /** Lets go of the ref, after the step that runs. What has arrived stays, unless it was committed or aborted. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#step;
    try {
      this.#ingest?.close();
    } finally {
      this.#options.released();
    }
  }

  #run<T>(step: () => Promise<T>): Promise<T> {
    if (this.#abandoned) return Promise.reject(ingestNotFound(this.#options.ref));
    if (this.#closed)
      return Promise.reject(
        new Failure('Unavailable', `ref ${shorten(this.#options.ref)}: writer is closed: unavailable`),
      );
    const running = step();
    this.#step = running.catch(() => {});
    return running;
  }

  async #refuseKnown(expected: string): Promise<void> {
    const { store, disk, namespace, lease } = this.#options;
    const blob = store.find(namespace, expected);
    if (blob === undefined || !disk.hasBlob(blob.digest, blob.size)) return;
    if (!(await store.leaseBlob(namespace, expected, lease))) return;
    await this.#discard();
    throw new Failure('AlreadyExists', `blob with expected digest ${expected} exists: already exists`);
  }

  async #seek(offset: bigint): Promise<void> {
    if (offset > 0n && offset !== this.offset)
      throw new Failure('OutOfRange', `write @${offset} must occur at current offset ${this.offset}: out of range`);
    if (offset === 0n && this.offset > 0n) await (await this.#own('empty')).truncate();
  }

  async #commit(total: bigint, expected: string, labels: Labels): Promise<void> {
    const { ref, signal } = this.#options;
    if (total > 0n && total !== this.offset)
      throw new Failure(
        'FailedPrecondition',
        `${quoted(ref)} failed size validation: ${this.offset} != ${total}: failed precondition`,
      );
    if (this.#ingest !== undefined && isDigest(expected)) await this.#ingest.rehash(digestAlgorithm(expected), signal);
    const { digest } = this;
    if (expected !== '' && expected !== digest) throw mismatch(digest, expected);
    await this.#options.exclusive(`digest:${digest}`, () => this.#place(digest, labels), signal);
  }

  /** Under the digest's lock: nobody removes the file between its rename and its record. */
  async #place(digest: Digest, labels: Labels): Promise<void> {
    const { store, disk, namespace, ref, lease, policy } = this.#options;
    const size = this.offset;
    const ingest = this.#ingest;
    const own = store.find(namespace, digest);
    const damaged = own !== undefined && !disk.hasBlob(digest, own.size);
    if (own !== undefined && !damaged && (await store.leaseBlob(namespace, digest, lease))) {
      await this.#discard();
      throw contentExists(digest);
    }

    const blob = { digest, size, labels };
    if (ingest === undefined) {
      if (!disk.hasBlob(digest, size)) throw new Failure('NotFound', `content digest ${digest}: not found`);
      failpoint('content.share.before-record');
      await store.commitBlob(namespace, ref, blob, lease, { shared: policy });
      failpoint('content.share.after-record');
      return;
    }

    // Somebody else's good copy serves as well and is durable already.
    const there = own === undefined && store.isNamed(digest) && disk.hasBlob(digest, size);
    if (!there) await this.#placeFile(ingest, digest);
    try {
      failpoint('content.commit.before-record');
      await store.commitBlob(namespace, ref, blob, lease, { heal: damaged });
    } catch (error) {
      if (!there && !store.isNamed(digest)) {
        if (refused(error)) disk.unplaceBlob(digest, ingest.dataPath);
        else this.#options.doubtful(digest);
      }
      throw error;
    }
    failpoint('content.commit.after-record');
    this.#drop();
  }

  async #sync(ingest: Ingest): Promise<void> {
    try {
      await ingest.sync();
    } catch (error) {
      if (Failure.is(error, 'DataLoss')) {
        // The pages may be gone while the file looks whole: it must not be gone on from, and begins anew.
        this.#drop();
        this.#options.broken(stopped(error));
      }
      throw error;
    }
  }

  async #placeFile(ingest: Ingest, digest: Digest): Promise<void> {
    const { disk, store, ref, broken } = this.#options;
    await this.#sync(ingest);
    try {
      await disk.placeBlob(ingest.dataPath, digest);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).syscall === 'fsync') broken(stopped(error as Error));
      else if (!store.isNamed(digest)) disk.unplaceBlob(digest, ingest.dataPath);
      throw (error as NodeJS.ErrnoException).code === 'ENOENT' ? ingestNotFound(ref) : error;
    }
  }

  /** The ingest to write to; shared content becomes one first. */
  async #own(start: 'copy' | 'empty'): Promise<Ingest> {
    if (this.#ingest !== undefined) return this.#ingest;
    const { store, disk, namespace, ref, expected, total, lease, signal } = this.#options;
    const directory = disk.ingestDirectory(namespace, ref);
    const options = { ref: `${namespace}/${ref}`, total, algorithm: digestAlgorithm(expected as Digest), signal };
    try {
      const ingest =
        start === 'empty'
          ? Ingest.create(disk, directory, options)
          : await Ingest.copyOf(disk, directory, expected as Digest, options);
      this.#ingest = ingest;
      await store.ingests.put({ ns: namespace, ref, directory, expected }, lease);
      this.#shared = undefined;
      return ingest;
    } catch (error) {
      this.#drop();
      throw error;
    }
  }

  /** Row and directory go; the ref stays locked until close. */
  async #discard(): Promise<void> {
    const { store, namespace, ref, lease } = this.#options;
    if (this.#ingest === undefined) return;
    await store.ingests.delete(namespace, ref, lease).catch((error) => {
      if (!Failure.is(error, 'NotFound')) throw error;
    });
    this.#drop();
  }

  #drop(): void {
    const { disk, namespace, ref } = this.#options;
    this.#abandoned = true;
    disk.removeIngest(disk.ingestDirectory(namespace, ref));
  }
}

/** Whether the record is certain not to be there: a commit whose answer got lost may have happened, or happen yet. */
function refused(error: unknown): boolean {
  return (
    error instanceof Failure &&
    !['Unavailable', 'DeadlineExceeded', 'Canceled', 'Internal', 'Unknown'].includes(error.code)
  );
}

function mismatch(digest: Digest, expected: string): Failure {
  const shown = expected.length > 200 ? `${expected.slice(0, 200)}…` : expected;
  return new Failure(
    'FailedPrecondition',
    `unexpected commit digest ${digest}, expected ${shown}: failed precondition`,
  );
}

function stopped(error: Error): Failure {
  return new Failure('Unavailable', `content is read-only since an fsync failed (${error.message}): unavailable`, {
    cause: error,
  });
}

function quoted(ref: string): string {
  const text = shorten(ref);
  return text.startsWith('"') ? text : quote(text);
}
