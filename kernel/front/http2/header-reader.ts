/** HEADERS and its CONTINUATIONs → one header block, within limits of frames and bytes. */
import { ConnectionError, errorCode, frameFlag } from './frames.ts';
import { type HeaderBlock, type HeaderLimits, HpackDecoder } from './hpack.ts';
import { unpadded } from './padding.ts';

/** A block without an end is the attack of CVE-2024-27316. */
const maxContinuations = 8;

export class HeaderReader {
  readonly #decoder = new HpackDecoder();
  readonly #limits: HeaderLimits;
  #parts: Buffer[] = [];
  /** A block has begun and not ended. */
  open = false;
  streamId = 0;
  endStream = false;
  selfDependent = false;

  constructor(limits: HeaderLimits) {
    this.#limits = limits;
  }

  /** @returns the block when it is complete */
  begin(flags: number, streamId: number, payload: Buffer): HeaderBlock | undefined {
    let fragment = unpadded(flags, payload);
    this.streamId = streamId;
    this.endStream = (flags & frameFlag.endStream) !== 0;
    this.selfDependent = false;
    if ((flags & frameFlag.priority) !== 0) {
      if (fragment.length < 5) throw new ConnectionError(errorCode.frameSize, 'HEADERS without their priority');
      this.selfDependent = (fragment.readUInt32BE(0) & 0x7fff_ffff) === streamId;
      fragment = fragment.subarray(5);
    }
    if ((flags & frameFlag.endHeaders) !== 0) return this.#decoder.decode(fragment, this.#limits);
    this.open = true;
    this.#parts = [Buffer.from(fragment)];
    return undefined;
  }

  proceed(flags: number, payload: Buffer): HeaderBlock | undefined {
    if (this.#parts.length > maxContinuations) {
      throw new ConnectionError(
        errorCode.enhanceYourCalm,
        `header block of more than ${maxContinuations} CONTINUATIONs`,
      );
    }
    this.#parts.push(Buffer.from(payload));
    if ((flags & frameFlag.endHeaders) === 0) return undefined;
    const block = Buffer.concat(this.#parts);
    this.open = false;
    this.#parts = [];
    return this.#decoder.decode(block, this.#limits);
  }
}
