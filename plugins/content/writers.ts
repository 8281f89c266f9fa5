/**
 * Who writes which ref. One writer per (namespace, ref), over all plugins and generations: the lock `ref:NS/REF`.
 *
 *     open ── nothing there ────────────────── new ingest at offset 0
 *          ── an ingest of that ref ────────── goes on at its offset
 *          ── this namespace has `expected` ── AlreadyExists (and the caller's lease gets it)
 *          ── another namespace has it ─────── complete from the start, if the sharing policy allows; no bytes are moved
 */
import { Failure } from 'troupe/plugin';
import { type Digest, digestAlgorithm, isDigest } from '../lib/digest/digest.ts';
import { formatRfc3339, nowNanoseconds } from '../lib/timestamp/timestamp.ts';
import type { Disk } from './disk.ts';
import { Ingest, readStatus } from './ingest.ts';
import { ingestNotFound, shorten } from './ingest-store.ts';
import { contentExists, type SharingPolicy, type Store } from './store.ts';
import { Writer } from './writer.ts';

export type Exclusive = <T>(name: string, work: () => Promise<T> | T, signal?: AbortSignal) => Promise<T>;

export interface OpenRequest {
  readonly namespace: string;
  readonly ref: string;
  /** 0: unknown. */
  readonly total: bigint;
  /** Empty: unknown. */
  readonly expected: string;
  readonly lease: string;
  readonly signal: AbortSignal;
}

export interface IngestStatus {
  readonly ref: string;
  readonly offset: bigint;
  readonly total: bigint;
  readonly expected: string;
  readonly startedAt: bigint;
  readonly updatedAt: bigint;
}

/** How long a writer waits for the one before it to let go, ms: a client that reconnects after a broken stream should not have to try twice. */
const lockPatience = 500;

export class Writers {
  readonly #store: Store;
  readonly #disk: Disk;
  readonly #exclusive: Exclusive;
  readonly #policy: () => SharingPolicy;
  readonly #doubtful: (digest: Digest) => void;
  readonly #fatal: (reason: string) => void;
  /** Those of this generation, by `NS/REF`. */
  readonly #active = new Map<string, Writer>();
  #broken: Failure | undefined;

  /**
   * @param doubtful told of a blob whose file is in place while nobody knows whether its record will be.
   * @param fatal told that an fsync has failed: writes are refused from then on.
   */
  constructor(
    store: Store,
    disk: Disk,
    exclusive: Exclusive,
    policy: () => SharingPolicy,
    doubtful: (digest: Digest) => void,
    fatal: (reason: string) => void = () => {},
  ) {
    this.#doubtful = doubtful;
    this.#fatal = fatal;
    this.#store = store;
    this.#disk = disk;
    this.#exclusive = exclusive;
    this.#policy = policy;
  }

  /**
   * The caller closes it, whatever happens.
   *
   * @throws Failure Unavailable while another writer holds the ref; AlreadyExists; NotFound for an unknown lease.
   */
  async open(request: OpenRequest): Promise<Writer> {
    if (this.#broken !== undefined) throw this.#broken;
    const key = `${request.namespace}/${request.ref}`;
    const release = await this.#lock(key, request);
    try {
      const ingest = await this.#ingest(request);
      const writer = new Writer({
        ...request,
        store: this.#store,
        disk: this.#disk,
        exclusive: this.#exclusive,
        policy: this.#policy(),
        ingest,
        broken: (failure) => {
          this.#broken = failure;
          this.#fatal(failure.message);
        },
        doubtful: this.#doubtful,
        released: () => {
          this.#active.delete(key);
          release();
        },
      });
      this.#active.set(key, writer);
      return writer;
    } catch (error) {
      release();
      throw error;
    }
  }

  /** @throws Failure NotFound `reference REF: not found` */
  async abort(request: Omit<OpenRequest, 'total' | 'expected'>): Promise<void> {
    const { namespace, ref, lease } = request;
    if (this.#store.ingests.find(namespace, ref) === undefined) throw ingestNotFound(ref);
    const key = `${namespace}/${ref}`;
    await this.#active.get(key)?.abandon();
    const release = await this.#lock(key, request);
    try {
      await this.#store.ingests.delete(namespace, ref, lease);
      this.#disk.removeIngest(this.#disk.ingestDirectory(namespace, ref));
    } finally {
      release();
    }
  }

  /** @throws Failure NotFound `could not get status for ref "REF": reference REF: not found` */
  status(namespace: string, ref: string): IngestStatus {
    const row = this.#store.ingests.find(namespace, ref);
    const status = row && this.#status(row);
    if (status === undefined)
      throw new Failure(
        'NotFound',
        `could not get status for ref ${shorten(ref).startsWith('"') ? shorten(ref) : `"${ref}"`}: ${ingestNotFound(ref).message}`,
      );
    return status;
  }

  statuses(namespace: string): IngestStatus[] {
    return this.#store.ingests.of(namespace).flatMap((row) => this.#status(row) ?? []);
  }

  /** Closes all of them; for the end of a generation. */
  async close(): Promise<void> {
    await Promise.all([...this.#active.values()].map((writer) => writer.close()));
  }

  #status(row: { ns: string; ref: string; directory: string; expected: string }): IngestStatus | undefined {
    const active = this.#active.get(`${row.ns}/${row.ref}`);
    const found = active ?? readStatus(this.#disk, row.directory);
    if (found === undefined) return undefined;
    const { offset, total, startedAt, updatedAt } = found;
    return { ref: row.ref, offset, total, expected: row.expected, startedAt, updatedAt };
  }

  /** What is written to; undefined for content that is taken over from another namespace. */
  async #ingest(request: OpenRequest): Promise<{ ingest: Ingest } | { shared: { size: bigint } }> {
    const { namespace, ref, expected, total, lease, signal } = request;
    if (expected !== '') {
      const blob = this.#store.find(namespace, expected);
      // A blob whose file is damaged may be uploaded again: the record alone must not stand in the way of healing it.
      if (blob !== undefined && this.#disk.hasBlob(blob.digest, blob.size)) {
        if (await this.#store.leaseBlob(namespace, expected, lease)) throw contentExists(expected);
      } else if (blob === undefined && isDigest(expected) && this.#store.ingests.find(namespace, ref) === undefined) {
        const shared = this.#store.findShared(namespace, expected, this.#policy());
        // A size that disagrees is for the upload and its digest to settle.
        if (shared !== undefined && (total <= 0n || total === shared.size) && this.#disk.hasBlob(expected, shared.size))
          return { shared };
      }
    }

    const directory = this.#disk.ingestDirectory(namespace, ref);
    const algorithm = isDigest(expected) ? digestAlgorithm(expected) : 'sha256';
    const known = this.#store.ingests.find(namespace, ref) !== undefined;
    let ingest = known ? await Ingest.resume(this.#disk, directory, { total, algorithm, signal }) : undefined;
    ingest ??= Ingest.create(this.#disk, directory, { ref: `${namespace}/${ref}`, total, algorithm });
    try {
      await this.#store.ingests.put(
        { ns: namespace, ref, directory, expected: isDigest(expected) ? expected : '' },
        lease,
      );
    } catch (error) {
      ingest.close();
      // An unknown lease, most likely: nothing may stay that no record names.
      if (!known) this.#disk.removeIngest(directory);
      throw error;
    }
    return { ingest };
  }

  /** Takes the lock and keeps it until the returned function is called. */
  async #lock(key: string, request: Pick<OpenRequest, 'ref' | 'signal'>): Promise<() => void> {
    const patience = new AbortController();
    const timer = setTimeout(() => patience.abort(), lockPatience);
    const signal = AbortSignal.any([patience.signal, request.signal]);
    const granted = Promise.withResolvers<void>();
    const held = Promise.withResolvers<void>();
    const asked = nowNanoseconds();
    this.#exclusive(
      `ref:${key}`,
      () => {
        granted.resolve();
        return held.promise;
      },
      signal,
    ).catch(granted.reject);
    try {
      await granted.promise;
    } catch (error) {
      if (!patience.signal.aborted) throw error;
      const since = this.#active.get(key)?.openedAt ?? asked;
      throw new Failure(
        'Unavailable',
        `ref ${shorten(request.ref)} locked for ${Number((nowNanoseconds() - since) / 1_000_000n) / 1000}s (since ${formatRfc3339(since)}): unavailable`,
      );
    } finally {
      clearTimeout(timer);
    }
    return held.resolve;
  }
}
