/** Failure ↔ gRPC status. The only place that knows the numbers on the wire. */
import { Metadata, type StatusObject } from '@grpc/grpc-js';
import { Failure, type FailureCode, failureCodes } from '../sdk/failure.ts';

const names = new Map<number, FailureCode>(
  Object.entries(failureCodes).map(([name, code]) => [code, name as FailureCode]),
);

/** Status text is an HTTP/2 header: longer ones are cut, as the peer would otherwise drop the whole answer. */
const maxText = 8 * 1024;

export function statusOf(failure: Failure): Partial<StatusObject> {
  const metadata = new Metadata();
  if (failure.details !== undefined) metadata.set('grpc-status-details-bin', Buffer.from(failure.details));
  const text = failure.message.length > maxText ? `${failure.message.slice(0, maxText)}…` : failure.message;
  return { code: failureCodes[failure.code], details: text, metadata };
}

/** What a gRPC error of a server we called says, in our words. */
export function failureOf(error: { code?: number | undefined; details?: string; message: string }): Failure {
  return new Failure(names.get(error.code ?? 2) ?? 'Unknown', error.details ?? error.message);
}
