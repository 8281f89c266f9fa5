import type { MethodTally } from './tally.ts';

/** Labels of a method as the Go library for gRPC metrics names them. */
export function labelsOf({
  kind,
  service,
  method,
}: MethodTally): Record<'grpc_type' | 'grpc_service' | 'grpc_method', string> {
  return { grpc_type: kind, grpc_service: service, grpc_method: method };
}
