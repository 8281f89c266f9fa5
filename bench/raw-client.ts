/**
 * gRPC calls over one HTTP/2 connection with next to no work: fields that were sent before are sent as numbers, and requests of one tick are one write. The load
 * runs on the cores of the daemon that it measures, so a client like the others would be half of the figure.
 */
import { connect, type Socket } from 'node:net';
import { FrameReader } from '../kernel/front/http2/frame-reader.ts';
import {
  defaultFrameSize,
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
import { RawStream } from './raw-stream.ts';

export interface RawCall {
  /** `package.Service/Method` */
  readonly method: string;
  readonly namespace: string;
  /** Up to 64 KiB, which every peer takes without asking. */
  readonly request: Uint8Array;
}

export interface RawOutcome {
  /** The number of the gRPC status; `none` when there was none. */
  readonly status: string;
  readonly said: string;
  readonly ms: number;
}

interface Running {
  status: string;
  said: string;
  readonly began: number;
  resolve(outcome: RawOutcome): void;
}

const streamWindow = 16 * 2 ** 20;
const connectionWindow = 256 * 2 ** 20;
const limits = { maxListSize: 64 * 1024, maxFields: 100 };
/** Fields that the peer's table has room for, whatever it holds: beyond them they are sent in full. */
const maxTaught = 30;
/** The first number of the dynamic table (RFC 7541, 2.3.3); the newest entry has it. */
const firstTaught = 62;

export class RawClient {
  readonly #socket: Socket;
  readonly #decoder = new HpackDecoder();
  readonly #calls = new Map<number, Running>();
  readonly #streams = new Map<number, RawStream>();
  /** Fields that the peer knows by now, by how many it knew before. */
  readonly #taught = new Map<string, number>();
  #next = 1;
  /** What the peer takes on the whole connection. */
  readonly #peer = { window: defaultWindow };
  /** What it takes on a stream that is new. */
  readonly #settled = Promise.withResolvers<number>();
  #taken = 0;
  #out: Uint8Array[] = [];
  readonly #waiting: { readonly id: number; readonly call: RawCall }[] = [];

  static async connect(address: string): Promise<RawClient> {
    const socket = connect(address);
    await new Promise((resolve, reject) => {
      socket.once('connect', resolve);
      socket.once('error', reject);
    });
    return new RawClient(socket);
  }

  private constructor(socket: Socket) {
    this.#socket = socket;
    const reader = new FrameReader({ greeted: () => undefined, frame: (...frame) => this.#frame(...frame) });
    // Heard of by who opens a stream.
    this.#settled.promise.catch(() => {});
    // It reads what clients send, which begins with the preface.
    reader.push(preface);
    let failed = 'the connection was closed';
    socket.on('data', (chunk: Buffer) => reader.push(chunk));
    socket.on('error', (error) => {
      failed = error.message;
    });
    socket.on('close', () => {
      for (const [id, running] of this.#calls) {
        running.said ||= failed;
        this.#end(id);
      }
      for (const id of this.#streams.keys()) this.#endStream(id, failed);
      this.#settled.reject(new Error(failed));
    });
    this.#write(preface);
    this.#write(settingsFrame([[setting.initialWindowSize, streamWindow]]));
    this.#write(windowUpdateFrame(0, connectionWindow - defaultWindow));
  }

  /** Always resolves. */
  call(call: RawCall): Promise<RawOutcome> {
    return new Promise((resolve) => {
      const id = this.#next;
      this.#next += 2;
      this.#calls.set(id, { status: 'none', said: '', began: performance.now(), resolve });
      if (this.#socket.destroyed) {
        this.#end(id);
        return;
      }
      this.#waiting.push({ id, call });
      this.#send();
    });
  }

  /** A call that lasts until one of both ends it; it ends with the connection. */
  async open(method: string, namespace: string): Promise<RawStream> {
    const window = await this.#settled.promise;
    const id = this.#next;
    this.#next += 2;
    const stream = new RawStream(id, window, { write: (bytes) => this.#write(bytes), peer: this.#peer });
    this.#streams.set(id, stream);
    this.#write(this.#headers(id, method, namespace));
    return stream;
  }

  close(): void {
    this.#socket.destroy();
  }

  #send(): void {
    for (let next = this.#waiting[0]; next !== undefined; next = this.#waiting[0]) {
      const bytes = 5 + next.call.request.length;
      if (bytes > this.#peer.window) return;
      this.#peer.window -= bytes;
      this.#waiting.shift();
      this.#write(this.#request(next.id, next.call));
    }
  }

  #headers(id: number, method: string, namespace: string): Buffer {
    const block = Buffer.concat(
      [
        [':method', 'POST'] as const,
        [':scheme', 'http'] as const,
        [':path', `/${method}`] as const,
        [':authority', 'localhost'] as const,
        ['content-type', 'application/grpc'] as const,
        ['te', 'trailers'] as const,
        ['containerd-namespace', namespace] as const,
      ].map(([name, value]) => this.#field(name, value)),
    );
    return Buffer.concat([head(block.length, frameType.headers, frameFlag.endHeaders, id), block]);
  }

  #request(id: number, { method, namespace, request }: RawCall): Buffer {
    const message = Buffer.alloc(5 + request.length);
    message.writeUInt32BE(request.length, 1);
    message.set(request, 5);
    const frames = [this.#headers(id, method, namespace)];
    for (let at = 0; at < message.length; at += defaultFrameSize) {
      const part = message.subarray(at, at + defaultFrameSize);
      const last = at + part.length === message.length;
      frames.push(head(part.length, frameType.data, last ? frameFlag.endStream : 0, id), part);
    }
    return Buffer.concat(frames);
  }

  /** RFC 7541: 6.1 for what the peer knows, 6.2.1 for what it is to know from now on, 6.2.2 for the rest. */
  #field(name: string, value: string): Buffer {
    const key = `${name}: ${value}`;
    const taught = this.#taught.get(key);
    if (taught !== undefined) return Buffer.from([0x80 | (firstTaught + this.#taught.size - 1 - taught)]);
    const teach = this.#taught.size < maxTaught;
    if (teach) this.#taught.set(key, this.#taught.size);
    return Buffer.concat([Buffer.from([teach ? 0x40 : 0]), stringOf(name), stringOf(value)]);
  }

  #write(bytes: Uint8Array): void {
    if (this.#out.push(bytes) > 1) return;
    setImmediate(() => {
      const out = this.#out;
      this.#out = [];
      if (this.#socket.destroyed) return;
      if (this.#streams.size === 0) this.#socket.write(out.length === 1 ? out[0]! : Buffer.concat(out));
      // What is large is not copied.
      else for (const each of out) this.#socket.write(each);
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
        this.#streams.get(streamId)?.data(payload);
        if ((flags & frameFlag.endStream) !== 0) this.#end(streamId);
        return;
      case frameType.headers: {
        const running = this.#calls.get(streamId);
        let said = 'the call ended';
        for (const { name, value } of this.#decoder.decode(payload, limits).fields) {
          if (name === 'grpc-message') said = value;
          if (running === undefined) continue;
          if (name === 'grpc-status') running.status = value;
          else if (name === 'grpc-message') running.said = value;
        }
        if ((flags & frameFlag.endStream) !== 0) this.#end(streamId, said);
        return;
      }
      case frameType.rstStream:
        this.#end(streamId);
        return;
      case frameType.settings:
        if ((flags & frameFlag.ack) !== 0) return;
        this.#write(settingsAck);
        this.#settled.resolve(initialWindow(payload));
        return;
      case frameType.ping:
        if ((flags & frameFlag.ack) === 0) this.#write(pingFrame(Buffer.from(payload), true));
        return;
      case frameType.windowUpdate:
        if (streamId !== 0) {
          this.#streams.get(streamId)?.widen(payload.readUInt32BE(0));
          return;
        }
        this.#peer.window += payload.readUInt32BE(0);
        for (const stream of this.#streams.values()) stream.turn();
        this.#send();
    }
  }

  #endStream(streamId: number, said: string): void {
    this.#streams.get(streamId)?.end(said);
    this.#streams.delete(streamId);
  }

  #end(streamId: number, said = 'the call ended'): void {
    this.#endStream(streamId, said);
    const running = this.#calls.get(streamId);
    if (running === undefined) return;
    this.#calls.delete(streamId);
    running.resolve({ status: running.status, said: running.said, ms: performance.now() - running.began });
  }
}

/** Of a SETTINGS frame's payload: pairs of 16 and 32 bits (RFC 9113, 6.5.1). */
function initialWindow(payload: Buffer): number {
  let window = defaultWindow;
  for (let at = 0; at < payload.length; at += 6)
    if (payload.readUInt16BE(at) === setting.initialWindowSize) window = payload.readUInt32BE(at + 2);
  return window;
}

function head(length: number, type: number, flags: number, streamId: number): Buffer {
  const bytes = Buffer.allocUnsafe(frameHeadBytes);
  writeHead(bytes, 0, length, type, flags, streamId);
  return bytes;
}

/** A string of a field, without Huffman coding (RFC 7541, 5.1 and 5.2). */
function stringOf(value: string): Buffer {
  const bytes = Buffer.from(value);
  if (bytes.length < 127) return Buffer.concat([Buffer.from([bytes.length]), bytes]);
  const rest: number[] = [127];
  let length = bytes.length - 127;
  for (; length >= 128; length >>= 7) rest.push((length & 127) | 128);
  return Buffer.concat([Buffer.from([...rest, length]), bytes]);
}

/** The value below which a share of them lies; 0 of none. */
export function quantile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0;
}
