/** What each type of frame must look like before anybody acts on it (RFC 9113, section 6). */
import { ConnectionError, errorCode, frameFlag, frameType, protocolError } from './frames.ts';

interface Rule {
  readonly name: string;
  /** It belongs to the connection, to a stream, or to either. */
  readonly on: 'connection' | 'stream' | 'either';
  readonly fits: (length: number) => boolean;
}

const any = () => true;
const exactly = (bytes: number) => (length: number) => length === bytes;

const rules = new Map<number, Rule>([
  [frameType.data, { name: 'DATA', on: 'stream', fits: any }],
  [frameType.headers, { name: 'HEADERS', on: 'stream', fits: any }],
  [frameType.priority, { name: 'PRIORITY', on: 'stream', fits: exactly(5) }],
  [frameType.rstStream, { name: 'RST_STREAM', on: 'stream', fits: exactly(4) }],
  [frameType.settings, { name: 'SETTINGS', on: 'connection', fits: (length) => length % 6 === 0 }],
  [frameType.ping, { name: 'PING', on: 'connection', fits: exactly(8) }],
  [frameType.goaway, { name: 'GOAWAY', on: 'connection', fits: (length) => length >= 8 }],
  [frameType.windowUpdate, { name: 'WINDOW_UPDATE', on: 'either', fits: exactly(4) }],
  [frameType.continuation, { name: 'CONTINUATION', on: 'stream', fits: any }],
]);

/** @throws ConnectionError. Frames of unknown types have no rules. */
export function checkFrame(type: number, flags: number, streamId: number, length: number): void {
  if (type === frameType.pushPromise) throw protocolError('PUSH_PROMISE from a client');
  const rule = rules.get(type);
  if (rule === undefined) return;
  if (rule.on !== 'either' && (rule.on === 'stream') !== streamId > 0) {
    throw protocolError(`${rule.name} on stream ${streamId}`);
  }
  const acknowledges = type === frameType.settings && (flags & frameFlag.ack) !== 0;
  if (!rule.fits(length) || (acknowledges && length > 0)) {
    throw new ConnectionError(errorCode.frameSize, `${rule.name} of ${length} bytes`);
  }
}
