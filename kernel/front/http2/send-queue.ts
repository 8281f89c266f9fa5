/** Streams with data to send, and the window that they share. */
import { ConnectionError, defaultWindow, errorCode, frameType, largestWindow } from './frames.ts';
import type { Output } from './output.ts';
import type { PeerSettings } from './settings.ts';
import type { ServerStream } from './stream.ts';

export class SendQueue {
  readonly #output: Output;
  readonly #peer: PeerSettings;
  readonly #sent: () => void;
  #ready: ServerStream[] = [];
  /** Those for which only the connection's window is shut. */
  #starved: ServerStream[] = [];
  #window = defaultWindow;
  #pumping = false;

  /** `sent` is called for every DATA frame. */
  constructor(output: Output, peer: PeerSettings, sent: () => void) {
    this.#output = output;
    this.#peer = peer;
    this.#sent = sent;
  }

  /** Gives the stream its turn, if it has anything to send. */
  add(stream: ServerStream): void {
    if (stream.queued || !stream.sendable) return;
    stream.queued = true;
    this.#ready.push(stream);
  }

  clear(): void {
    this.#ready = [];
    this.#starved = [];
  }

  /** The peer takes more on the connection. @throws ConnectionError */
  widen(bytes: number): void {
    this.#window += bytes;
    if (this.#window > largestWindow) throw new ConnectionError(errorCode.flowControl, 'the window overflows');
    this.#ready.push(...this.#starved);
    this.#starved = [];
    this.pump();
  }

  /** One frame per stream and turn, as long as windows and socket take them. */
  pump(): void {
    // The bytes of a segment being taken may bring the next one.
    if (this.#pumping) return;
    this.#pumping = true;
    while (this.#ready.length > 0 && !this.#output.full) {
      const stream = this.#ready.shift()!;
      if (stream.hasData && !stream.ended && this.#window <= 0) {
        this.#starved.push(stream);
        continue;
      }
      stream.queued = false;
      // One whose own window is shut comes back with its WINDOW_UPDATE.
      if (stream.ended || (stream.hasData && !this.#sendData(stream))) continue;
      if (stream.hasData) this.add(stream);
      else stream.conclude();
    }
    this.#pumping = false;
  }

  #sendData(stream: ServerStream): boolean {
    const limit = Math.min(stream.sendWindow, this.#window, this.#peer.maxFrameSize);
    if (limit <= 0) return false;
    const bytes = stream.take(limit)!;
    stream.sendWindow -= bytes.length;
    this.#window -= bytes.length;
    this.#sent();
    this.#output.addFrame(frameType.data, 0, stream.id, bytes);
    return true;
  }
}
