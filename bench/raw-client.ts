/** Unary calls by raw HTTP/2 for clients that measure: a full gRPC client would be what is measured. */
import { type ClientHttp2Session, connect } from 'node:http2';
import { createConnection } from 'node:net';

export interface RawCall {
  /** `package.Service/Method` */
  readonly method: string;
  readonly namespace: string;
  readonly request: Uint8Array;
}

export interface RawOutcome {
  /** The number of the gRPC status; `none` when there was none. */
  readonly status: string;
  readonly said: string;
  readonly ms: number;
}

export class RawClient {
  readonly #session: ClientHttp2Session;

  private constructor(session: ClientHttp2Session) {
    this.#session = session;
  }

  static async connect(address: string): Promise<RawClient> {
    const session = connect('http://localhost', {
      createConnection: () => createConnection(address),
      settings: { initialWindowSize: 4 << 20 },
    });
    await new Promise((resolve) => session.once('connect', resolve));
    session.setLocalWindowSize(64 << 20);
    return new RawClient(session);
  }

  /** Always resolves. */
  call({ method, namespace, request }: RawCall): Promise<RawOutcome> {
    const began = performance.now();
    return new Promise((resolve) => {
      const stream = this.#session.request({
        ':method': 'POST',
        ':path': `/${method}`,
        'content-type': 'application/grpc',
        te: 'trailers',
        'containerd-namespace': namespace,
      });
      let status = 'none';
      let said = '';
      const heard = (headers: { [name: string]: unknown }) => {
        status = String(headers['grpc-status'] ?? status);
        said = String(headers['grpc-message'] ?? said);
      };
      stream.on('response', heard);
      stream.on('trailers', heard);
      stream.on('data', () => {});
      stream.on('error', (error) => {
        said ||= error.message;
      });
      stream.on('close', () => resolve({ status, said, ms: performance.now() - began }));
      const frame = Buffer.alloc(5 + request.length);
      frame.writeUInt32BE(request.length, 1);
      frame.set(request, 5);
      stream.end(frame);
    });
  }

  close(): void {
    this.#session.close();
  }
}

/** The value below which a share of them lies; 0 of none. */
export function quantile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0;
}
