/**
 * google.rpc.Status ↔ Failure, by number. The numbers are those of google.rpc.Code, which gRPC and ttrpc share.
 */

import { Status } from 'troupe/proto/google/rpc/status.ts';
import { Failure, type FailureCode, failureCodes } from '../sdk/failure.ts';

const codeNames = new Map<number, FailureCode>(
  (Object.keys(failureCodes) as FailureCode[]).map((name) => [failureCodes[name], name]),
);

/** What a Failure becomes on a ttrpc connection. Its details travel when they decode; a Failure whose details are not a Status loses only them. */
export function statusOf(failure: Failure): Status {
  const status = Status.fromPartial({ code: failureCodes[failure.code], message: failure.message });
  if (failure.details !== undefined) {
    try {
      status.details = Status.decode(failure.details).details;
    } catch {
      // Foreign bytes in `details` must not turn an answer into a broken connection.
    }
  }
  return status;
}

/** A Status other than 0 (OK) as a Failure; a number that google.rpc.Code does not define is Unknown. */
export function failureOf(status: Status): Failure {
  const code = codeNames.get(status.code) ?? 'Unknown';
  if (status.details.length === 0) return new Failure(code, status.message);
  return new Failure(code, status.message, { details: Status.encode(status).finish() });
}
