/**
 * Calls of the gRPC socket with nothing but HTTP/2 and a walk over protobuf's wire format (protobuf.dev/programming-guides/encoding), so that
 * the checker does not believe what the daemon's own codecs would make of it.
 */
import { type ClientHttp2Session, connect as connectHttp2 } from 'node:http2';
import { connect as connectSocket } from 'node:net';

/** Fields of one message by number: varints as bigint, everything with a length as bytes. */
export type Fields = ReadonlyMap<number, readonly (bigint | Buffer)[]>;

export class Rpc {
  readonly #session: ClientHttp2Session;
  #failure: Error | undefined;

  constructor(socket: string) {
    this.#session = connectHttp2('http://localhost', { createConnection: () => connectSocket(socket) });
    this.#session.on('error', (error) => {
      this.#failure = error;
    });
  }

  close(): void {
    this.#session.close();
  }

  /**
   * All messages that the server answers.
   *
   * @param path `containerd.services.images.v1.Images/List`
   * @throws Error with the status when it is not 0
   */
  call(path: string, namespace: string, request: Buffer = Buffer.alloc(0)): Promise<Fields[]> {
    return new Promise((resolve, reject) => {
      if (this.#failure !== undefined) return reject(this.#failure);
      const stream = this.#session.request({
        ':method': 'POST',
        ':path': `/${path}`,
        'content-type': 'application/grpc',
        te: 'trailers',
        'containerd-namespace': namespace,
      });
      const chunks: Buffer[] = [];
      let status: string | undefined;
      let message = '';
      const look = (headers: Record<string, unknown>): void => {
        if (headers['grpc-status'] === undefined) return;
        status = String(headers['grpc-status']);
        message = decodeURIComponent(String(headers['grpc-message'] ?? ''));
      };
      stream.setTimeout(30_000, () => stream.destroy(new Error(`${path}: no answer within 30 s`)));
      stream.on('response', look);
      stream.on('trailers', look);
      stream.on('data', (chunk: Buffer) => chunks.push(chunk));
      stream.on('error', reject);
      stream.on('close', () => {
        if (status !== '0')
          reject(new Error(`${path} in namespace "${namespace}": status ${status ?? 'missing'} ${message}`));
        else resolve(messages(Buffer.concat(chunks)).map(fieldsOf));
      });
      const frame = Buffer.alloc(5 + request.length);
      frame.writeUInt32BE(request.length, 1);
      request.copy(frame, 5);
      stream.end(frame);
    });
  }
}

/** A message whose only field is the text `value` under `number` (below 16). */
export function textField(number: number, value: string): Buffer {
  const text = Buffer.from(value);
  if (text.length > 127) throw new Error(`${value}: too long for a length of one byte`);
  return Buffer.concat([Buffer.from([(number << 3) | 2, text.length]), text]);
}

function messages(bytes: Buffer): Buffer[] {
  const found: Buffer[] = [];
  for (let at = 0; at < bytes.length; ) {
    const length = bytes.readUInt32BE(at + 1);
    found.push(bytes.subarray(at + 5, at + 5 + length));
    at += 5 + length;
  }
  return found;
}

export function fieldsOf(bytes: Buffer): Fields {
  const fields = new Map<number, (bigint | Buffer)[]>();
  let at = 0;
  const varint = (): bigint => {
    let value = 0n;
    for (let shift = 0n; ; shift += 7n) {
      const byte = bytes[at++];
      if (byte === undefined) throw new Error('message ends inside a varint');
      value |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
  };
  while (at < bytes.length) {
    const tag = Number(varint());
    const number = tag >> 3;
    let value: bigint | Buffer;
    if ((tag & 7) === 0) value = varint();
    else if ((tag & 7) === 2) {
      const length = Number(varint());
      value = bytes.subarray(at, at + length);
      at += length;
    } else throw new Error(`wire type ${tag & 7} in field ${number} is not one that is asked for here`);
    const values = fields.get(number);
    if (values === undefined) fields.set(number, [value]);
    else values.push(value);
  }
  return fields;
}

export function text(fields: Fields, number: number): string {
  return fields.get(number)?.at(-1)?.toString() ?? '';
}

export function integer(fields: Fields, number: number): number {
  return Number(fields.get(number)?.at(-1) ?? 0n);
}

export function inner(fields: Fields, number: number): Fields[] {
  return (fields.get(number) ?? []).map((value) => fieldsOf(value as Buffer));
}

/** A `map<string, string>`. */
export function textMap(fields: Fields, number: number): Record<string, string> {
  return Object.fromEntries(inner(fields, number).map((entry) => [text(entry, 1), text(entry, 2)]));
}
