/** Failure ↔ gRPC status. The only place that knows the numbers and texts on the wire. */
import { Failure, type FailureCode, failureCodes } from '../sdk/failure.ts';
import { headerBlock } from './http2/header-block.ts';

const names = new Map<number, FailureCode>(
  Object.entries(failureCodes).map(([name, code]) => [code, name as FailureCode]),
);

/** Status text is a header: a longer one is cut, as the peer would otherwise drop the whole answer. */
const maxText = 8 * 1024;
const maxDetails = 16 * 1024;

const responseFields = [
  [':status', '200'],
  ['content-type', 'application/grpc'],
] as const;

/** Headers of an answer with messages. */
export const responseBlock = headerBlock(responseFields);
export const okTrailers = headerBlock([['grpc-status', '0']]);

/** The end of an answer, or with `alone` the whole of it. */
export function failureBlock(failure: Failure, alone: boolean): Buffer {
  const fields: [string, string][] = [['grpc-status', String(failureCodes[failure.code])]];
  const text = failure.message.length > maxText ? `${failure.message.slice(0, maxText)}…` : failure.message;
  if (text !== '') fields.push(['grpc-message', percentEncoded(text)]);
  if (failure.code === 'Unimplemented') fields.push(['grpc-accept-encoding', 'identity']);
  if (failure.details !== undefined && failure.details.length <= maxDetails) {
    fields.push(['grpc-status-details-bin', Buffer.from(failure.details).toString('base64')]);
  }
  return headerBlock(alone ? [...responseFields, ...fields] : fields);
}

/** gRPC over HTTP/2, "Status-Message": the UTF-8 bytes, all but printable ASCII and `%` escaped. */
export function percentEncoded(text: string): string {
  if (/^[\x20-\x24\x26-\x7e]*$/.test(text)) return text;
  let encoded = '';
  for (const byte of Buffer.from(text)) {
    const plain = byte >= 0x20 && byte <= 0x7e && byte !== 0x25;
    encoded += plain ? String.fromCharCode(byte) : `%${byte.toString(16).toUpperCase().padStart(2, '0')}`;
  }
  return encoded;
}

/** What a gRPC error of a server we called says, in our words. */
export function failureOf(error: { code?: number | undefined; details?: string; message: string }): Failure {
  return new Failure(names.get(error.code ?? 2) ?? 'Unknown', error.details ?? error.message);
}
