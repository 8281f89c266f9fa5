/** For tests: a client that sends the frames it is told to, right or wrong, and collects what comes back. */
import type { Socket } from 'node:net';
import { frameFlag, frameHeadBytes, frameType, preface, writeHead } from './http2/frames.ts';
import { headerBlock } from './http2/header-block.ts';
import { HpackDecoder } from './http2/hpack.ts';
import { contract, until } from './rig.ts';

export interface RawFrame {
  readonly type: number;
  readonly flags: number;
  readonly streamId: number;
  readonly payload: Buffer;
}

export function frame(type: number, flags: number, streamId: number, payload: Uint8Array = Buffer.alloc(0)): Buffer {
  const bytes = Buffer.alloc(frameHeadBytes + payload.length);
  writeHead(bytes, 0, payload.length, type, flags, streamId);
  bytes.set(payload, frameHeadBytes);
  return bytes;
}

export const settings = frame(frameType.settings, 0, 0);
export const greeting = Buffer.concat([preface, settings]);

export type Fields = readonly (readonly [name: string, value: string])[];

export function fieldsOf(path: string, more: Fields = []): Fields {
  return [
    [':method', 'POST'],
    [':scheme', 'http'],
    [':path', path],
    [':authority', 'localhost'],
    ['content-type', 'application/grpc'],
    ['te', 'trailers'],
    ...more,
  ];
}

export function headers(streamId: number, fields: Fields, endStream = false): Buffer {
  return frame(
    frameType.headers,
    frameFlag.endHeaders | (endStream ? frameFlag.endStream : 0),
    streamId,
    headerBlock(fields),
  );
}

/** Length-prefixed, as gRPC has it. */
export function message(payload: Uint8Array, flag = 0, length = payload.length): Buffer {
  const bytes = Buffer.alloc(5 + payload.length);
  bytes[0] = flag;
  bytes.writeUInt32BE(length, 1);
  bytes.set(payload, 5);
  return bytes;
}

export function data(streamId: number, payload: Uint8Array, endStream = false): Buffer {
  return frame(frameType.data, endStream ? frameFlag.endStream : 0, streamId, payload);
}

export function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value >>> 0);
  return bytes;
}

/** A whole unary call. */
export function call(
  streamId: number,
  method: string,
  payload: Uint8Array = Buffer.alloc(0),
  more: Fields = [],
): Buffer {
  return Buffer.concat([
    headers(streamId, fieldsOf(`/${contract}/${method}`, more)),
    data(streamId, message(payload), true),
  ]);
}

export class RawPeer {
  readonly socket: Socket;
  readonly frames: RawFrame[] = [];
  closed = false;
  readonly #decoder = new HpackDecoder();
  readonly #fields = new Map<number, Map<string, string>>();
  #rest: Buffer = Buffer.alloc(0);

  constructor(socket: Socket) {
    this.socket = socket;
    socket.on('data', (chunk: Buffer) => this.#read(chunk));
    socket.on('error', () => {});
    socket.on('close', () => {
      this.closed = true;
    });
  }

  send(...frames: Uint8Array[]): void {
    this.socket.write(Buffer.concat(frames));
  }

  #read(chunk: Buffer): void {
    let rest = Buffer.concat([this.#rest, chunk]);
    while (rest.length >= frameHeadBytes) {
      const end = frameHeadBytes + rest.readUIntBE(0, 3);
      if (rest.length < end) break;
      const read: RawFrame = {
        type: rest[3]!,
        flags: rest[4]!,
        streamId: rest.readUInt32BE(5),
        payload: rest.subarray(frameHeadBytes, end),
      };
      this.frames.push(read);
      rest = rest.subarray(end);
      if (read.type === frameType.headers) this.#headers(read);
    }
    this.#rest = rest;
  }

  #headers({ streamId, payload }: RawFrame): void {
    const fields = this.#fields.get(streamId) ?? new Map<string, string>();
    for (const { name, value } of this.#decoder.decode(payload, { maxListSize: 1 << 20, maxFields: 100 }).fields)
      fields.set(name, value);
    this.#fields.set(streamId, fields);
  }

  field(streamId: number, name: string): string | undefined {
    return this.#fields.get(streamId)?.get(name);
  }

  /** The code of GOAWAY, when one has come. */
  get goaway(): number | undefined {
    return this.frames.find((each) => each.type === frameType.goaway)?.payload.readUInt32BE(4);
  }

  reset(streamId: number): number | undefined {
    return this.frames
      .find((each) => each.type === frameType.rstStream && each.streamId === streamId)
      ?.payload.readUInt32BE(0);
  }

  /** Payload bytes of a stream's DATA. */
  body(streamId: number): Buffer {
    return Buffer.concat(
      this.frames
        .filter((each) => each.type === frameType.data && each.streamId === streamId)
        .map((each) => each.payload),
    );
  }

  /** What became of a stream: `status N`, `http N` or `reset N`. */
  outcome(streamId: number): string | undefined {
    const status = this.field(streamId, 'grpc-status');
    if (status !== undefined) return `status ${status}`;
    const http = this.field(streamId, ':status');
    if (http !== undefined && http !== '200') return `http ${http}`;
    const reset = this.reset(streamId);
    return reset === undefined ? undefined : `reset ${reset}`;
  }

  /** What became of the connection or the stream, whichever is told first. */
  async ends(streamId = 1, what = 'a call'): Promise<string> {
    const told = () =>
      this.outcome(streamId) ??
      (this.goaway === undefined ? undefined : `goaway ${this.goaway}`) ??
      (this.closed ? 'closed' : undefined);
    await until(() => told() !== undefined, `${what}: the end of stream ${streamId}`);
    return told()!;
  }
}
