/** Bytes of a socket → frames, however they are cut. Pure: knows lengths, not meanings. */
import { ConnectionError, defaultFrameSize, errorCode, frameHeadBytes, preface, protocolError } from './frames.ts';

export interface FrameSink {
  /** The client has said that it speaks HTTP/2. */
  greeted(): void;
  /** `payload` may be a view of the socket's read buffer: to be copied by whoever keeps it for long. */
  frame(type: number, flags: number, streamId: number, payload: Buffer): void;
}

export class FrameReader {
  readonly #sink: FrameSink;
  readonly #head = Buffer.alloc(frameHeadBytes);
  #headBytes = 0;
  /** Payload of a frame that was cut, at most one frame long. */
  #cut: Buffer | undefined;
  #cutBytes = 0;
  #prefaceBytes = 0;

  constructor(sink: FrameSink) {
    this.#sink = sink;
  }

  /** Hands on every frame that is complete. @throws ConnectionError, also whatever the sink throws; the reader is of no use after that */
  push(chunk: Buffer): void {
    let at = this.#prefaceBytes < preface.length ? this.#preface(chunk) : 0;
    for (;;) {
      if (this.#cut !== undefined) {
        const taken = chunk.copy(this.#cut, this.#cutBytes, at);
        this.#cutBytes += taken;
        at += taken;
        if (this.#cutBytes < this.#cut.length) return;
        const payload = this.#cut;
        this.#cut = undefined;
        this.#emit(this.#head, 0, payload);
        continue;
      }
      if (this.#headBytes === 0 && chunk.length - at >= frameHeadBytes) {
        const length = this.#length(chunk, at);
        const from = at + frameHeadBytes;
        if (chunk.length - from >= length) {
          this.#emit(chunk, at, chunk.subarray(from, from + length));
          at = from + length;
          continue;
        }
      }
      if (at === chunk.length) return;
      const taken = chunk.copy(this.#head, this.#headBytes, at, at + frameHeadBytes - this.#headBytes);
      this.#headBytes += taken;
      at += taken;
      if (this.#headBytes < frameHeadBytes) return;
      this.#headBytes = 0;
      this.#cut = Buffer.allocUnsafeSlow(this.#length(this.#head, 0));
      this.#cutBytes = 0;
    }
  }

  #preface(chunk: Buffer): number {
    const count = Math.min(chunk.length, preface.length - this.#prefaceBytes);
    if (preface.compare(chunk, 0, count, this.#prefaceBytes, this.#prefaceBytes + count) !== 0) {
      throw protocolError('not the preface of HTTP/2');
    }
    this.#prefaceBytes += count;
    if (this.#prefaceBytes === preface.length) this.#sink.greeted();
    return count;
  }

  #length(bytes: Buffer, at: number): number {
    const length = (bytes[at]! << 16) | (bytes[at + 1]! << 8) | bytes[at + 2]!;
    if (length > defaultFrameSize) throw new ConnectionError(errorCode.frameSize, `frame of ${length} bytes`);
    return length;
  }

  #emit(head: Buffer, at: number, payload: Buffer): void {
    // The highest bit of the stream's number is reserved, and ignored.
    this.#sink.frame(head[at + 3]!, head[at + 4]!, head.readUInt32BE(at + 5) & 0x7fff_ffff, payload);
  }
}
