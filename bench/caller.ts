/**
 * Unary gRPC calls over one HTTP/2 connection with next to no work: headers are bytes that were made once, and requests of one tick are one write. The load runs on the
 * cores of the daemon that it measures, so a client like the others would be half of the figure.
 */
import { connect, type Socket } from 'node:net';
import { FrameReader } from '../kernel/front/http2/frame-reader.ts';
import {
  defaultWindow,
  frameFlag,
  frameHeadBytes,
  frameType,
  pingFrame,
  preface,
  setting,
  settingsAck,
  settingsFrame,
  windowUpdateFrame,
  writeHead,
} from '../kernel/front/http2/frames.ts';
import { HpackDecoder } from '../kernel/front/http2/hpack.ts';

const streamWindow = 16 * 2 ** 20;
const connectionWindow = 256 * 2 ** 20;
const limits = { maxListSize: 64 * 1024, maxFields: 100 };

export interface Outcome {
  /** `grpc-status`; empty when the stream ended without one. */
  readonly status: string;
  readonly message: string;
}

interface Call {
  status: string;
  message: string;
  end(outcome: Outcome): void;
}

export class Caller {
  readonly #socket: Socket;
  readonly #decoder = new HpackDecoder();
  readonly #calls = new Map<number, Call>();
  /** The block that teaches the peer our fields, and the one that names them by number from then on (RFC 7541, 6.1 and 6.2.1). */
  #block: Buffer;
  readonly #numbers: Buffer;
  #next = 1;
  /** What the peer takes on the whole connection; single requests never fill a stream's window. */
  #window = defaultWindow;
  #taken = 0;
  #out: Buffer[] = [];
  readonly #waiting: { readonly bytes: Buffer; readonly payload: number }[] = [];

  static async open(path: string, method: string, more: readonly (readonly [string, string])[]): Promise<Caller> {
    const socket = connect(path);
    await new Promise((resolve, reject) => {
      socket.once('connect', resolve);
      socket.once('error', reject);
    });
    return new Caller(socket, method, more);
  }

  private constructor(socket: Socket, method: string, more: readonly (readonly [string, string])[]) {
    this.#socket = socket;
    const fields = [
      [':method', 'POST'],
      [':scheme', 'http'],
      [':path', `/${method}`],
      [':authority', 'localhost'],
      ['content-type', 'application/grpc'],
      ['te', 'trailers'],
      ...more,
    ] as const;
    this.#block = Buffer.concat(
      fields.map(([name, value]) => Buffer.concat([Buffer.from([0x40]), text(name), text(value)])),
    );
    this.#numbers = Buffer.from(fields.map((_, index) => 0x80 | (62 + fields.length - 1 - index)));
    const reader = new FrameReader({ greeted: () => undefined, frame: (...frame) => this.#frame(...frame) });
    // It reads what clients send, which begins with the preface.
    reader.push(preface);
    socket.on('data', (chunk: Buffer) => reader.push(chunk));
    socket.on('close', () => {
      for (const call of this.#calls.values()) call.end({ status: '', message: 'the connection closed' });
      this.#calls.clear();
    });
    socket.on('error', () => undefined);
    this.#write(preface);
    this.#write(settingsFrame([[setting.initialWindowSize, streamWindow]]));
    this.#write(windowUpdateFrame(0, connectionWindow - defaultWindow));
  }

  /** @param request a length-prefixed message */
  call(request: Buffer): Promise<Outcome> {
    const id = this.#next;
    this.#next += 2;
    const block = this.#block;
    this.#block = this.#numbers;
    const bytes = Buffer.allocUnsafe(2 * frameHeadBytes + block.length + request.length);
    writeHead(bytes, 0, block.length, frameType.headers, frameFlag.endHeaders, id);
    block.copy(bytes, frameHeadBytes);
    writeHead(bytes, frameHeadBytes + block.length, request.length, frameType.data, frameFlag.endStream, id);
    request.copy(bytes, 2 * frameHeadBytes + block.length);
    return new Promise((resolve) => {
      this.#calls.set(id, { status: '', message: '', end: resolve });
      this.#waiting.push({ bytes, payload: request.length });
      this.#send();
    });
  }

  close(): void {
    this.#socket.destroy();
  }

  #send(): void {
    for (let next = this.#waiting[0]; next !== undefined && next.payload <= this.#window; next = this.#waiting[0]) {
      this.#window -= next.payload;
      this.#waiting.shift();
      this.#write(next.bytes);
    }
  }

  #write(bytes: Buffer): void {
    if (this.#out.push(bytes) > 1) return;
    setImmediate(() => {
      const out = this.#out;
      this.#out = [];
      this.#socket.write(out.length === 1 ? out[0]! : Buffer.concat(out));
    });
  }

  #frame(type: number, flags: number, streamId: number, payload: Buffer): void {
    switch (type) {
      case frameType.data:
        this.#taken += payload.length;
        if (this.#taken > connectionWindow / 2) {
          this.#write(windowUpdateFrame(0, this.#taken));
          this.#taken = 0;
        }
        if ((flags & frameFlag.endStream) !== 0) this.#end(streamId);
        return;
      case frameType.headers: {
        const call = this.#calls.get(streamId);
        for (const { name, value } of this.#decoder.decode(payload, limits).fields) {
          if (call === undefined) continue;
          if (name === 'grpc-status') call.status = value;
          else if (name === 'grpc-message') call.message = value;
        }
        if ((flags & frameFlag.endStream) !== 0) this.#end(streamId);
        return;
      }
      case frameType.rstStream:
        this.#end(streamId);
        return;
      case frameType.settings:
        if ((flags & frameFlag.ack) === 0) this.#write(settingsAck);
        return;
      case frameType.ping:
        if ((flags & frameFlag.ack) === 0) this.#write(pingFrame(Buffer.from(payload), true));
        return;
      case frameType.windowUpdate:
        if (streamId !== 0) return;
        this.#window += payload.readUInt32BE(0);
        this.#send();
    }
  }

  #end(streamId: number): void {
    const call = this.#calls.get(streamId);
    if (call === undefined) return;
    this.#calls.delete(streamId);
    call.end(call);
  }
}

/** A string of an HPACK field, without Huffman coding. */
function text(value: string): Buffer {
  const bytes = Buffer.from(value);
  if (bytes.length < 127) return Buffer.concat([Buffer.from([bytes.length]), bytes]);
  const rest: number[] = [127];
  let length = bytes.length - 127;
  for (; length >= 128; length >>= 7) rest.push((length & 127) | 128);
  return Buffer.concat([Buffer.from([...rest, length]), bytes]);
}
