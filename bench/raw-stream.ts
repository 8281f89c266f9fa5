/**
 * A call of RawClient's whose messages go both ways. A large message is laid out as its frames, in memory that a file is read into and a socket written from: what a client
 * does with an archive is a read and a write of each piece, and the rest is the daemon's.
 */
import { defaultFrameSize, frameFlag, frameHeadBytes, frameType, writeHead } from '../kernel/front/http2/frames.ts';
import { MessageReader, prefixBytes } from '../kernel/front/message-reader.ts';

export interface StreamWire {
  write(bytes: Uint8Array): void;
  /** What it takes on the whole connection, of which each stream takes its part. */
  readonly peer: { window: number };
}

const largestReply = 1 << 20;

export class RawStream {
  readonly id: number;
  readonly #wire: StreamWire;
  readonly #reader = new MessageReader(largestReply);
  #window: number;
  #ended: Error | undefined;
  #wake = (): void => {};

  constructor(id: number, window: number, wire: StreamWire) {
    this.id = id;
    this.#window = window;
    this.#wire = wire;
  }

  /** One message at a time. Its memory is the socket's until the peer has shown that it has it. @throws Error when the call has ended */
  async send(message: FramedMessage): Promise<void> {
    await this.#until(() => Math.min(this.#window, this.#wire.peer.window) >= message.bytes);
    if (this.#ended !== undefined) throw this.#ended;
    this.#window -= message.bytes;
    this.#wire.peer.window -= message.bytes;
    this.#wire.write(message.frames(this.id));
  }

  /** No more messages come from this side. */
  finish(): void {
    const end = Buffer.alloc(frameHeadBytes);
    writeHead(end, 0, 0, frameType.data, frameFlag.endStream, this.id);
    this.#wire.write(end);
  }

  /** The next message of the peer's. @throws Error when the call has ended */
  async receive(): Promise<Uint8Array> {
    await this.#until(() => this.#reader.waiting);
    return this.#reader.next()!;
  }

  async #until(condition: () => boolean): Promise<void> {
    while (!condition()) {
      if (this.#ended !== undefined) throw this.#ended;
      await new Promise<void>((resolve) => {
        const before = this.#wake;
        this.#wake = () => {
          before();
          resolve();
        };
      });
    }
  }

  /** Something has changed that a sender or a receiver may wait for. */
  turn(): void {
    const wake = this.#wake;
    this.#wake = () => {};
    wake();
  }

  widen(bytes: number): void {
    this.#window += bytes;
    this.turn();
  }

  data(payload: Uint8Array): void {
    this.#reader.push(payload);
    this.turn();
  }

  end(why: string): void {
    this.#ended ??= new Error(why);
    this.turn();
  }
}

/** A gRPC message as DATA frames, the end of it being room for bytes that come from elsewhere. */
export class FramedMessage {
  /** Of the windows that it takes. */
  readonly bytes: number;
  readonly #memory: Buffer;
  /** The room, in order, between the heads of the frames. */
  readonly room: readonly Buffer[];

  constructor(head: Uint8Array, room = 0) {
    const length = head.length + room;
    this.bytes = prefixBytes + length;
    const frames = Math.ceil(this.bytes / defaultFrameSize);
    this.#memory = Buffer.alloc(frames * frameHeadBytes + this.bytes);
    const before = Buffer.alloc(prefixBytes + head.length);
    if (before.length > defaultFrameSize) throw new RangeError('the head of a message fills a frame');
    before.writeUInt32BE(length, 1);
    before.set(head, prefixBytes);
    before.copy(this.#memory, frameHeadBytes);
    this.room = Array.from({ length: frames }, (_, frame) => {
      const at = frame * (frameHeadBytes + defaultFrameSize) + frameHeadBytes;
      const end = Math.min(at + defaultFrameSize, this.#memory.length);
      return this.#memory.subarray(frame === 0 ? at + before.length : at, end);
    });
  }

  frames(streamId: number): Uint8Array {
    for (let at = 0; at < this.#memory.length; at += frameHeadBytes + defaultFrameSize) {
      const length = Math.min(defaultFrameSize, this.#memory.length - at - frameHeadBytes);
      writeHead(this.#memory, at, length, frameType.data, 0, streamId);
    }
    return this.#memory;
  }
}
