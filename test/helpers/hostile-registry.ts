/**
 * A registry that has one image and misbehaves as it is told: each behaviour a number of times, then well again. What is chance in it (where an answer breaks off,
 * which byte is wrong) comes from a seed.
 *
 *     const registry = await useHostile(t, layout, { seed: 7 });
 *     registry.misbehave({ truncate: 2 });
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { createServer as createTlsServer, type ServerOptions } from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import type { ExecutionContext } from 'ava';
import { type Layout, sha256 } from './image.ts';

/** Of blobs. */
const blobBehaviours = [
  'silent',
  'stall',
  'trickle',
  'half',
  'truncate',
  'reset',
  'too long',
  'endless',
  'wrong bytes',
  'announces more',
  'range ignored',
  'other range',
  'range refused',
  'blob page',
  'gzip',
  'encodings',
  'header of a megabyte',
  'many headers',
  'hints',
  'two lengths',
  'length and chunks',
  'chunk overflow',
  'blob status',
] as const;
/** Of manifests. */
const manifestBehaviours = [
  'other digest',
  'tag moves',
  'page',
  'json type',
  'no digest',
  'status',
  'bytes differ',
] as const;
/** Of where it sends those who ask for blobs. */
const redirectBehaviours = ['redirect'] as const;
/** Of who may ask. */
const authBehaviours = ['always 401', 'bearer', 'basic'] as const;

type Behaviour =
  | (typeof blobBehaviours)[number]
  | (typeof manifestBehaviours)[number]
  | (typeof redirectBehaviours)[number]
  | (typeof authBehaviours)[number];

export interface Seen {
  readonly method: string;
  readonly url: string;
  readonly headers: IncomingMessage['headers'];
  readonly body: string;
}

export interface HostileOptions {
  readonly seed?: number;
  readonly tls?: ServerOptions;
}

export class HostileRegistry {
  /** `127.0.0.1:PORT` */
  host = '';
  readonly seen: Seen[] = [];
  /** Status of `status` and `blob status`. */
  status = 503;
  retryAfter: string | undefined;
  /** What the second half of `half` waits for. */
  rest: Promise<void> = Promise.resolve();
  /** Where `redirect` leads; `$N` is how many there have been. */
  location = '/loop/$N';
  /** Of `bearer`; empty: its own. */
  realm = '';
  service = 'hostile';
  scope: string | undefined;
  /** What the token server says; default a good token. */
  token: { readonly status?: number; readonly body: string } | undefined;
  /** User and password that `basic` and the token server take. */
  user = 'user:secret';
  readonly #layout: Layout;
  readonly #left = new Map<Behaviour, number>();
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  readonly #secure: boolean;
  #random: number;
  #redirects = 0;

  constructor(layout: Layout, options: HostileOptions = {}) {
    this.#layout = layout;
    this.#random = options.seed ?? 1;
    this.#secure = options.tls !== undefined;
    const serve = (request: IncomingMessage, response: ServerResponse): void => void this.#serve(request, response);
    this.#server = options.tls === undefined ? createServer(serve) : createTlsServer(options.tls, serve);
    this.#server.on('connection', (socket) => {
      this.#sockets.add(socket);
      socket.on('close', () => this.#sockets.delete(socket));
      socket.on('error', () => {});
    });
  }

  async start(): Promise<this> {
    await new Promise<void>((resolve) => this.#server.listen(0, '127.0.0.1', resolve));
    this.host = `127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
    return this;
  }

  async stop(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  /** How often each; Infinity: always. What was told before is forgotten. */
  misbehave(behaviours: Partial<Record<Behaviour, number>>): void {
    this.#left.clear();
    this.#redirects = 0;
    this.seen.length = 0;
    for (const [name, count] of Object.entries(behaviours)) this.#left.set(name as Behaviour, count);
  }

  /** `scheme://host` */
  get origin(): string {
    return `${this.#secure ? 'https' : 'http'}://${this.host}`;
  }

  /** Requests for blobs, with what they asked for. */
  ranges(): (string | undefined)[] {
    return this.seen
      .filter(({ method, url }) => method === 'GET' && url.includes('/blobs/'))
      .map(({ headers }) => headers.range);
  }

  #next(bound: number): number {
    // mulberry32
    this.#random = (this.#random + 0x6d2b79f5) | 0;
    let t = Math.imul(this.#random ^ (this.#random >>> 15), 1 | this.#random);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) % bound;
  }

  #does(behaviour: Behaviour): boolean {
    const left = this.#left.get(behaviour) ?? 0;
    if (left <= 0) return false;
    this.#left.set(behaviour, left - 1);
    return true;
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const chunks: Buffer[] = [];
    try {
      for await (const chunk of request) chunks.push(chunk as Buffer);
    } catch {
      return;
    }
    const { method = '', url = '', headers } = request;
    this.seen.push({ method, url, headers, body: Buffer.concat(chunks).toString('latin1') });
    const path = new URL(url, this.origin).pathname;
    if (path === '/token') return this.#tokenFor(request, response, Buffer.concat(chunks).toString());
    if (path.startsWith('/loop/')) return this.#redirect(response);
    if (!this.#admits(request, response)) return;
    if (path.includes('/manifests/')) return this.#manifest(request, response, path.split('/').at(-1)!);
    if (path.includes('/blobs/')) return this.#blob(request, response, path.split('/').at(-1)!);
    response.writeHead(404).end();
  }

  #admits(request: IncomingMessage, response: ServerResponse): boolean {
    const { authorization } = request.headers;
    const challenge = (value: string): false => {
      response.writeHead(401, { 'www-authenticate': value, 'content-type': 'application/json' }).end('{"errors":[]}');
      return false;
    };
    const bearer = (): string =>
      `Bearer realm="${this.realm || `${this.origin}/token`}",service="${this.service}"${this.scope === undefined ? '' : `,scope="${this.scope}"`}`;
    if (this.#does('always 401')) return challenge(bearer());
    if ((this.#left.get('bearer') ?? 0) > 0 && authorization !== 'Bearer good') return challenge(bearer());
    const basic = `Basic ${Buffer.from(this.user).toString('base64')}`;
    if ((this.#left.get('basic') ?? 0) > 0 && authorization !== basic) return challenge('Basic realm="hostile"');
    return true;
  }

  #tokenFor(_request: IncomingMessage, response: ServerResponse, _body: string): void {
    const { status = 200, body } = this.token ?? { body: '{"token":"good","expires_in":300}' };
    response.writeHead(status, { 'content-type': 'application/json' }).end(body);
  }

  #redirect(response: ServerResponse): void {
    response.writeHead(307, { location: this.location.replace('$N', String(++this.#redirects)) }).end();
  }

  #manifest(request: IncomingMessage, response: ServerResponse, name: string): void {
    const { target, blobs } = this.#layout;
    const digest = name.startsWith('sha256:') ? name : target.digest;
    let bytes = blobs.get(digest);
    if (bytes === undefined) return void response.writeHead(404).end();
    if (this.#does('status')) return void this.#refuse(response);
    if (this.#does('page')) return void page(request, response);
    const own =
      digest === target.digest ? target.mediaType : (JSON.parse(bytes.toString()) as { mediaType: string }).mediaType;
    const headers: Record<string, string> = { 'content-type': own, 'docker-content-digest': digest };
    if (this.#does('json type')) headers['content-type'] = 'application/json';
    if (this.#does('no digest')) delete headers['docker-content-digest'];
    if (this.#does('other digest')) headers['docker-content-digest'] = sha256(Buffer.from('other'));
    // Another document, under a tag that is asked for a second time, or under a digest that is not its own.
    if (request.method === 'GET' && (this.#does('bytes differ') || this.#does('tag moves')))
      bytes = Buffer.from(`${bytes.toString()} `);
    headers['content-length'] = String(bytes.length);
    response.writeHead(200, headers);
    response.end(request.method === 'HEAD' ? undefined : bytes);
  }

  #refuse(response: ServerResponse): void {
    response.writeHead(this.status, this.retryAfter === undefined ? {} : { 'retry-after': this.retryAfter }).end();
  }

  #blob(request: IncomingMessage, response: ServerResponse, digest: string): void {
    const bytes = this.#layout.blobs.get(digest);
    if (bytes === undefined) return void response.writeHead(404).end();
    // Configs are small, and what is done with layers is enough.
    if (bytes.length < 4096) return void response.writeHead(200, { 'content-length': bytes.length }).end(bytes);
    if (this.#does('redirect')) return void this.#redirect(response);
    if (this.#does('blob status')) return void this.#refuse(response);
    if (this.#does('blob page')) return void page(request, response);
    if (this.#raw(response, bytes)) return;
    const range = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '');
    if (range !== null && this.#does('range refused')) return void response.writeHead(416).end();
    const partial = range !== null && !this.#does('range ignored');
    const from = partial ? Number(range[1]) : 0;
    const to = partial ? Math.min(Number(range[2]) + 1, bytes.length) : bytes.length;
    let body = Buffer.from(bytes.subarray(from, to));
    const headers: Record<string, string> = { 'content-type': 'application/octet-stream' };
    if (partial) headers['content-range'] = `bytes ${from}-${to - 1}/${bytes.length}`;
    if (partial && this.#does('other range')) headers['content-range'] = `bytes ${from + 1}-${to - 1}/${bytes.length}`;
    if (this.#does('wrong bytes')) body[this.#next(body.length)]! ^= 0xff;
    if (this.#does('gzip')) headers['content-encoding'] = 'gzip';
    if (this.#does('encodings')) headers['content-encoding'] = Array(1000).fill('gzip').join(', ');
    if (this.#does('many headers')) for (let i = 0; i < 3000; i++) headers[`x-header-${i}`] = 'value';
    if (this.#does('header of a megabyte')) headers['x-header'] = 'v'.repeat(1 << 20);
    const open = this.#does('too long') || this.#does('endless');
    if (open) body = Buffer.concat([body, Buffer.alloc(1 << 20)]);
    const announced = this.#does('announces more') ? body.length + 10 : body.length;
    if (!open) headers['content-length'] = String(announced);
    response.writeHead(partial ? 206 : 200, headers);
    if (this.#does('silent')) return void response.flushHeaders();
    const cut = this.#next(Math.max(body.length - 2, 1)) + 1;
    if (this.#does('truncate')) return void response.write(body.subarray(0, cut), () => response.destroy());
    if (this.#does('reset'))
      return void response.write(body.subarray(0, cut), () => response.socket?.resetAndDestroy());
    if (this.#does('stall')) return void response.write(body.subarray(0, Math.floor(body.length * 0.99)));
    if (this.#does('half')) {
      response.write(body.subarray(0, body.length >> 1));
      return void this.rest.then(() => response.end(body.subarray(body.length >> 1)));
    }
    if (this.#does('trickle')) {
      const timer = setInterval(() => response.write(body.subarray(0, 1)), 50);
      response.on('close', () => clearInterval(timer));
      return;
    }
    response.end(body);
  }

  /** Answers that no HTTP library would send. */
  #raw(response: ServerResponse, bytes: Buffer): boolean {
    const raw = (head: string, body: Buffer | string = bytes): true => {
      response.socket?.write(`${head}\r\n\r\n`);
      response.socket?.end(body);
      return true;
    };
    const length = `content-length: ${bytes.length}`;
    if (this.#does('two lengths')) return raw(`HTTP/1.1 200 OK\r\n${length}\r\ncontent-length: 5`);
    if (this.#does('length and chunks')) return raw(`HTTP/1.1 200 OK\r\n${length}\r\ntransfer-encoding: chunked`);
    if (this.#does('chunk overflow'))
      return raw('HTTP/1.1 200 OK\r\ntransfer-encoding: chunked', 'fffffffffffffffff\r\nabc');
    if (this.#does('hints'))
      return raw(`${'HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n'.repeat(1000)}HTTP/1.1 200 OK\r\n${length}`);
    return false;
  }
}

function page(request: IncomingMessage, response: ServerResponse): void {
  const body = '<html><body>Please log in</body></html>';
  response.writeHead(200, { 'content-type': 'text/html; charset=utf-8', 'content-length': body.length });
  response.end(request.method === 'HEAD' ? undefined : body);
}

export async function useHostile(
  t: ExecutionContext,
  layout: Layout,
  options: HostileOptions = {},
): Promise<HostileRegistry> {
  const registry = await new HostileRegistry(layout, options).start();
  t.teardown(() => registry.stop());
  return registry;
}
