/** Headers of a gRPC request → what the call needs of them, or why it is none. */
import { Failure } from '../sdk/failure.ts';
import type { HeaderBlock } from './http2/hpack.ts';

export interface GrpcRequest {
  /** `:path` as it came. */
  readonly path: string;
  readonly namespace: string;
  readonly lease: string;
  readonly trace: string;
  /** Milliseconds since the epoch; 0 when the client sets none. */
  readonly deadline: number;
  /** -1 when it is not said. */
  readonly contentLength: number;
}

export type ReadRequest =
  | { readonly t: 'request'; readonly request: GrpcRequest }
  /** No valid HTTP/2 request: its stream is reset. */
  | { readonly t: 'malformed' }
  /** HTTP, but not gRPC. */
  | { readonly t: 'http'; readonly status: '405' | '415' }
  | { readonly t: 'failed'; readonly path: string; readonly failure: Failure };

const connectionSpecific = new Set(['connection', 'keep-alive', 'proxy-connection', 'transfer-encoding', 'upgrade']);
const base64 = /^[A-Za-z0-9+/]*={0,2}$/;
const pseudo = new Set([':method', ':path', ':scheme', ':authority']);

export function readRequest(block: HeaderBlock, now: number): ReadRequest {
  // A field that comes twice counts with its first value: clients that nest namespaces or leases put the innermost in front.
  const values = new Map<string, string>();
  let regular = false;
  for (const { name, value, valid } of block.fields) {
    if (!valid) return { t: 'malformed' };
    if (name.charCodeAt(0) === 0x3a) {
      if (regular || values.has(name) || !pseudo.has(name)) return { t: 'malformed' };
    } else {
      regular = true;
      if (connectionSpecific.has(name) || (name === 'te' && value !== 'trailers')) return { t: 'malformed' };
      if (values.has(name)) continue;
    }
    values.set(name, value);
  }
  const path = values.get(':path');
  const method = values.get(':method');
  const length = values.get('content-length');
  if (block.oversize) {
    return {
      t: 'failed',
      path: path ?? '',
      failure: new Failure('ResourceExhausted', 'headers are too large: resource exhausted'),
    };
  }
  if (path === undefined || path === '' || method === undefined || !values.has(':scheme')) return { t: 'malformed' };
  if (length !== undefined && !/^\d{1,15}$/.test(length)) return { t: 'malformed' };
  if (method !== 'POST') return { t: 'http', status: '405' };
  if (!/^application\/grpc(?:$|[+;])/i.test(values.get('content-type') ?? '')) return { t: 'http', status: '415' };
  const encoding = values.get('grpc-encoding') ?? 'identity';
  if (encoding !== 'identity') {
    return { t: 'failed', path, failure: new Failure('Unimplemented', `grpc-encoding "${encoding}": not implemented`) };
  }
  for (const [name, value] of values) {
    if (!name.endsWith('-bin') || isBinary(value)) continue;
    const problem = `header "${name.slice(0, 100)}" is malformed: its value is not base64: internal`;
    return { t: 'failed', path, failure: new Failure('Internal', problem) };
  }
  const timeout = values.get('grpc-timeout');
  const ms = timeout === undefined ? undefined : timeoutMs(timeout);
  if (ms === undefined && timeout !== undefined) {
    return { t: 'failed', path, failure: new Failure('Internal', `grpc-timeout "${timeout}" is no duration`) };
  }
  return {
    t: 'request',
    request: {
      path,
      namespace: values.get('containerd-namespace') ?? '',
      lease: values.get('containerd-lease') ?? '',
      trace: values.get('traceparent') ?? '',
      deadline: ms === undefined ? 0 : now + ms,
      contentLength: length === undefined ? -1 : Number(length),
    },
  };
}

/** Binary metadata, of which several may stand in one field. Nothing here reads any: what is none is refused because gRPC's servers do. */
function isBinary(value: string): boolean {
  return value.split(',').every((each) => base64.test(each.trim()));
}

const units: Readonly<Record<string, number>> = { H: 3_600_000, M: 60_000, S: 1000, m: 1, u: 1e-3, n: 1e-6 };

/** `TimeoutValue` of at most 8 digits and `TimeoutUnit`; undefined for anything else. */
export function timeoutMs(text: string): number | undefined {
  const parsed = /^(\d{1,8})([HMSmun])$/.exec(text);
  return parsed === null ? undefined : Number(parsed[1]) * units[parsed[2]!]!;
}
