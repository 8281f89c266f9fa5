/** HTTP/2 frames (RFC 9113, sections 4, 6 and 7): numbers, and the bytes of those that a server sends. */

export const frameType = {
  data: 0,
  headers: 1,
  priority: 2,
  rstStream: 3,
  settings: 4,
  pushPromise: 5,
  ping: 6,
  goaway: 7,
  windowUpdate: 8,
  continuation: 9,
} as const;

export const frameFlag = { endStream: 1, ack: 1, endHeaders: 4, padded: 8, priority: 0x20 } as const;

export const errorCode = {
  none: 0,
  protocol: 1,
  internal: 2,
  flowControl: 3,
  settingsTimeout: 4,
  streamClosed: 5,
  frameSize: 6,
  refusedStream: 7,
  cancel: 8,
  compression: 9,
  enhanceYourCalm: 11,
} as const;

export const setting = {
  headerTableSize: 1,
  enablePush: 2,
  maxConcurrentStreams: 3,
  initialWindowSize: 4,
  maxFrameSize: 5,
  maxHeaderListSize: 6,
} as const;

export const frameHeadBytes = 9;
/** What we accept, and what we send unless the peer takes more: the default of the protocol, which keeps streams of one connection fair to each other. */
export const defaultFrameSize = 16_384;
export const defaultWindow = 65_535;
export const largestWindow = 0x7fff_ffff;

/** What a client sends first. */
export const preface = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');

/** The whole connection is at fault: GOAWAY, then the socket closes. */
export class ConnectionError extends Error {
  readonly code: number;

  constructor(code: number, message: string) {
    super(message);
    this.name = 'ConnectionError';
    this.code = code;
  }
}

export function protocolError(what: string): ConnectionError {
  return new ConnectionError(errorCode.protocol, what);
}

export function writeHead(
  into: Buffer,
  at: number,
  length: number,
  type: number,
  flags: number,
  streamId: number,
): void {
  into[at] = length >>> 16;
  into[at + 1] = length >>> 8;
  into[at + 2] = length;
  into[at + 3] = type;
  into[at + 4] = flags;
  into.writeUInt32BE(streamId, at + 5);
}

function frame(length: number, type: number, flags: number, streamId: number): Buffer {
  const bytes = Buffer.allocUnsafe(frameHeadBytes + length);
  writeHead(bytes, 0, length, type, flags, streamId);
  return bytes;
}

export function settingsFrame(values: readonly (readonly [id: number, value: number])[]): Buffer {
  const bytes = frame(values.length * 6, frameType.settings, 0, 0);
  let at = frameHeadBytes;
  for (const [id, value] of values) {
    bytes.writeUInt16BE(id, at);
    bytes.writeUInt32BE(value, at + 2);
    at += 6;
  }
  return bytes;
}

export const settingsAck = frame(0, frameType.settings, frameFlag.ack, 0);

/** @param opaque 8 bytes */
export function pingFrame(opaque: Uint8Array, ack: boolean): Buffer {
  const bytes = frame(8, frameType.ping, ack ? frameFlag.ack : 0, 0);
  bytes.set(opaque, frameHeadBytes);
  return bytes;
}

export function goawayFrame(lastStreamId: number, code: number, text = ''): Buffer {
  const debug = Buffer.from(text);
  const bytes = frame(8 + debug.length, frameType.goaway, 0, 0);
  bytes.writeUInt32BE(lastStreamId, frameHeadBytes);
  bytes.writeUInt32BE(code, frameHeadBytes + 4);
  bytes.set(debug, frameHeadBytes + 8);
  return bytes;
}

export function windowUpdateFrame(streamId: number, bytes: number): Buffer {
  const update = frame(4, frameType.windowUpdate, 0, streamId);
  update.writeUInt32BE(bytes, frameHeadBytes);
  return update;
}

export function rstStreamFrame(streamId: number, code: number): Buffer {
  const bytes = frame(4, frameType.rstStream, 0, streamId);
  bytes.writeUInt32BE(code, frameHeadBytes);
  return bytes;
}

/** A header block as one HEADERS frame, and as many CONTINUATIONs as a peer's frame size asks for. */
export function headerFrames(streamId: number, block: Uint8Array, endStream: boolean, maxFrameSize: number): Buffer {
  const count = Math.max(1, Math.ceil(block.length / maxFrameSize));
  const bytes = Buffer.allocUnsafe(block.length + count * frameHeadBytes);
  for (let part = 0, at = 0; part < count; part++) {
    const from = part * maxFrameSize;
    const length = Math.min(maxFrameSize, block.length - from);
    const flags = (part === count - 1 ? frameFlag.endHeaders : 0) | (part === 0 && endStream ? frameFlag.endStream : 0);
    writeHead(bytes, at, length, part === 0 ? frameType.headers : frameType.continuation, flags, streamId);
    bytes.set(block.subarray(from, from + length), at + frameHeadBytes);
    at += frameHeadBytes + length;
  }
  return bytes;
}
