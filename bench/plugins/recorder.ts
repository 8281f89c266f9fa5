/** Between a client and the daemon: passes every call on, and keeps the unary ones. HTTP/2 on both sides, so that what is kept is what the client said. */
import { connect, createServer, type Http2Server, type IncomingHttpHeaders, type ServerHttp2Stream } from 'node:http2';
import { createConnection } from 'node:net';
import type { RawCall } from '../raw-client.ts';

export class Recorder {
  readonly calls: RawCall[] = [];
  readonly #server: Http2Server;
  readonly #upstream: string;

  constructor(upstream: string) {
    this.#upstream = upstream;
    this.#server = createServer();
    this.#server.on('session', (session) => {
      const onward = connect('http://localhost', { createConnection: () => createConnection(this.#upstream) });
      onward.on('error', () => session.close());
      session.on('close', () => onward.close());
      session.on('stream', (stream, headers) => this.#pass(stream, headers, onward.request(outgoing(headers))));
    });
  }

  listen(address: string): Promise<void> {
    return new Promise((resolve) => this.#server.listen(address, resolve));
  }

  close(): void {
    this.#server.close();
  }

  #pass(
    stream: ServerHttp2Stream,
    headers: IncomingHttpHeaders,
    onward: ReturnType<ReturnType<typeof connect>['request']>,
  ) {
    const chunks: Buffer[] = [];
    let replied = 0;
    stream.on('data', (chunk: Buffer) => {
      chunks.push(chunk);
      onward.write(chunk);
    });
    stream.on('end', () => onward.end());
    onward.on('response', (head, flags) => {
      // Headers alone: the call has failed, and its status is in them.
      if ((flags & 1) !== 0) stream.respond(outgoing(head), { endStream: true });
      else stream.respond(outgoing(head), { waitForTrailers: true });
    });
    let trailers: IncomingHttpHeaders = {};
    onward.on('trailers', (each) => {
      trailers = each;
    });
    onward.on('data', (chunk: Buffer) => {
      replied += 1;
      stream.write(chunk);
    });
    onward.on('end', () => {
      this.#keep(headers, Buffer.concat(chunks), replied, trailers);
      stream.end();
    });
    stream.on('wantTrailers', () => stream.sendTrailers(outgoing(trailers)));
    stream.on('error', () => onward.close());
    onward.on('error', () => stream.close());
  }

  #keep(headers: IncomingHttpHeaders, bytes: Buffer, replied: number, trailers: IncomingHttpHeaders): void {
    const one = bytes.length >= 5 && bytes.length === 5 + bytes.readUInt32BE(1);
    if (!one || replied > 1 || trailers['grpc-status'] !== '0') return;
    this.calls.push({
      method: String(headers[':path']).slice(1),
      namespace: String(headers['containerd-namespace'] ?? ''),
      request: bytes.subarray(5),
    });
  }
}

/** Without what belongs to one hop, or to Node. */
function outgoing(headers: IncomingHttpHeaders): Record<string, string> {
  return Object.fromEntries(
    Object.entries(headers).flatMap(([name, value]) =>
      value === undefined || name === ':scheme' || name === ':authority' || name === 'connection'
        ? []
        : [[name, Array.isArray(value) ? value.join(', ') : String(value)]],
    ),
  );
}
