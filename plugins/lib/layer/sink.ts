/** The lower half of an unpack: the bytes of a tar archive are counted, parsed, written and hashed, as they come. */

import { Failure } from 'troupe/plugin';
import { type TarLimits, TarReader } from '../tar/reader.ts';
import { type ArchiveDigest, LocalDigest } from './archive-digest.ts';
import { type Deferred, type Extracted, Extractor, type LayerMode } from './extract.ts';
import type { LowerLayers } from './lower.ts';

export interface SinkOptions {
  /** What is read, for messages: `layer sha256:…` */
  readonly subject: string;
  readonly mode: LayerMode;
  readonly lower?: LowerLayers;
  readonly exactModes?: boolean;
  readonly limits?: Partial<TarLimits>;
  /** Uncompressed bytes beyond which the layer is refused; 0 or absent: no limit. */
  readonly maxBytes?: number;
  /** Called with the uncompressed bytes so far, about every `progressBytes` (default 16 MiB). */
  progress?(bytes: number): void;
  readonly progressBytes?: number;
  /** Given each chunk when it has been written; absent: this thread does it all. */
  readonly digest?: ArchiveDigest;
  /** Called when so many entries have come that it is time to have the disk begin with them; see `WRITE_AHEAD_ENTRIES`. */
  writeAhead?(): void;
  /** Another thread asks for an end by making the first element non-zero. Looked at once a chunk, at most 1 MiB of the tar. */
  readonly cancel?: Int32Array;
}

export interface Sunk extends Extracted {
  /** `sha256:…` of the archive, its end blocks and whatever is behind them included. */
  readonly diffId: string;
  /** Bytes of the archive. */
  readonly size: number;
  readonly deferred: Deferred;
}

const PROGRESS = 16 << 20;
/**
 * A sync of so many small files takes a tenth of a second, on a disk as fast as memory; made beside the unpacking of the next ones it took an eighth off a layer of
 * 55,000. A layer of fewer is done before that would help.
 */
export const WRITE_AHEAD_ENTRIES = 8192;

export class LayerSink {
  readonly #options: SinkOptions;
  readonly #digest: ArchiveDigest;
  readonly #extractor: Extractor;
  readonly #reader: TarReader;
  #size = 0;
  #reported = 0;
  /** Entries that the disk was told of. */
  #ahead = 0;

  /** @param root a descriptor of the directory; it stays the caller's */
  constructor(root: number, options: SinkOptions) {
    const { mode, subject, lower, limits, exactModes = false } = options;
    this.#options = options;
    this.#digest = options.digest ?? new LocalDigest();
    this.#extractor = new Extractor(root, { mode, subject, exactModes, ...(lower === undefined ? {} : { lower }) });
    this.#reader = new TarReader(this.#extractor, subject, limits);
  }

  /**
   * @param chunk lent for the call
   * @throws Failure InvalidArgument for a malformed archive or one whose entries no file system can hold; ResourceExhausted beyond a budget and for a full
   * disk; Canceled when asked to stop
   */
  push(chunk: Uint8Array): void {
    const { subject, maxBytes = 0, progressBytes = PROGRESS, cancel } = this.#options;
    if (cancel !== undefined && Atomics.load(cancel, 0) !== 0)
      throw new Failure('Canceled', `${subject}: context canceled`);
    this.#size += chunk.length;
    if (maxBytes > 0 && this.#size > maxBytes)
      throw new Failure('ResourceExhausted', `${subject}: more than ${maxBytes} bytes unpacked: resource exhausted`);
    this.#reader.push(chunk);
    this.#digest.update(chunk);
    if (this.#reader.entries - this.#ahead >= WRITE_AHEAD_ENTRIES) {
      this.#ahead = this.#reader.entries;
      this.#options.writeAhead?.();
    }
    if (this.#size - this.#reported < progressBytes) return;
    this.#reported = this.#size;
    this.#options.progress?.(this.#size);
  }

  finish(): Sunk {
    this.#reader.finish();
    const extracted = this.#extractor.finish();
    return {
      ...extracted,
      diffId: `sha256:${this.#digest.hex()}`,
      size: this.#size,
      deferred: this.#extractor.deferred,
    };
  }

  /** After a failure, in place of `finish`. */
  close(): void {
    this.#extractor.close();
  }
}
