/** Padding of DATA and HEADERS (RFC 9113, 6.1): one byte for its length in front, that many behind. */
import { ConnectionError, errorCode, frameFlag, protocolError } from './frames.ts';

export function unpadded(flags: number, payload: Buffer): Buffer {
  if ((flags & frameFlag.padded) === 0) return payload;
  const padding = payload[0];
  if (padding === undefined) throw new ConnectionError(errorCode.frameSize, 'padded frame of 0 bytes');
  if (padding >= payload.length) throw protocolError(`padding of ${padding} bytes in a frame of ${payload.length}`);
  return payload.subarray(1, payload.length - padding);
}
