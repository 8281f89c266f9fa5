/**
 * One HTTP request and the beginning of its answer. Node's parser refuses what has two lengths or a length beside chunks; what is added here are bounds on
 * time and size, and addresses that are looked at when they are connected to, not before (a name may mean another address by then).
 */
import { lookup as resolveName } from 'node:dns';
import { Agent as HttpAgent, type IncomingHttpHeaders, type IncomingMessage, request as plainRequest } from 'node:http';
import { Agent as HttpsAgent, request as tlsRequest } from 'node:https';
import { isIP, type LookupFunction } from 'node:net';
import type { SecureContextOptions } from 'node:tls';
import { Failure } from 'troupe/plugin';
import { type Allowed, requireAllowed } from './address.ts';

/** How a host is connected to; equal ones share connections. */
export interface Connecting {
  /** PEM. Beside the system's. */
  readonly ca: readonly string[];
  readonly client: readonly { readonly cert: string; readonly key: string }[];
  readonly skipVerify: boolean;
  readonly dialTimeoutMs: number;
}

export interface Outgoing {
  readonly method: string;
  readonly url: URL;
  readonly headers: Readonly<Record<string, string | readonly string[]>>;
  readonly body?: Uint8Array | AsyncIterable<Uint8Array>;
  readonly allowed: Allowed;
  readonly signal: AbortSignal;
}

export interface Answer {
  readonly method: string;
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly url: URL;
  /** To be read, or destroyed. */
  readonly body: IncomingMessage;
  /** Of the peer; undefined when a proxy stands between. */
  readonly address: string | undefined;
  /** For the rest of a small one. */
  readonly patienceMs: number;
}

/** From a request that has been sent to the headers of its answer, and from those to the end of a small one. */
export const usualPatienceMs = 60_000;
const mostHeaderBytes = 64 << 10;
/** Answers before the answer (100 to 199). */
const mostHints = 16;
const connectionsPerHost = 16;
const shortAnswer = 64 << 10;
const discardMs = 5000;

type Agents = { readonly http: HttpAgent; readonly https: HttpsAgent };

/** Connections of one way to connect, kept alive between requests. */
export class Transport {
  readonly #connecting: Connecting;
  readonly #patienceMs: number;
  readonly #agents = new Map<Allowed, Agents>();

  constructor(connecting: Connecting, patienceMs: number = usualPatienceMs) {
    this.#connecting = connecting;
    this.#patienceMs = patienceMs;
  }

  /** @throws Failure Unavailable when there is no connection or no answer, PermissionDenied for an address that is not allowed */
  send(outgoing: Outgoing): Promise<Answer> {
    const { method, url, headers, allowed, signal } = outgoing;
    return new Promise((resolve, reject) => {
      const refuse = (error: unknown): void => reject(unavailable(error, `${method} ${shown(url)}`, signal));
      try {
        signal.throwIfAborted();
        const host = url.hostname.replace(/^\[|\]$/g, '');
        if (isIP(host) !== 0) requireAllowed(host, allowed, url.host);
        const secure = url.protocol === 'https:';
        const agents = this.#agentsFor(allowed);
        const request = (secure ? tlsRequest : plainRequest)(url, {
          method,
          headers: headers as Record<string, string>,
          agent: secure ? agents.https : agents.http,
          maxHeaderSize: mostHeaderBytes,
          signal,
        });
        request.setNoDelay(true);
        const patience = (ms: number, what: string): NodeJS.Timeout =>
          setTimeout(() => request.destroy(new Error(`${what} within ${ms} ms`)), ms);
        let timer: NodeJS.Timeout | undefined;
        const connected = (): void => {
          clearTimeout(timer);
          timer = patience(this.#patienceMs, 'no answer');
        };
        // Until it has a socket it waits for those before it, of which each has its own limits.
        request.once('socket', (socket) => {
          // A connection that was kept is there already.
          if (request.reusedSocket) return connected();
          timer = patience(this.#connecting.dialTimeoutMs, 'no connection');
          socket.once(secure ? 'secureConnect' : 'connect', connected);
        });
        let hints = 0;
        request.on('information', () => {
          if (++hints > mostHints) request.destroy(new Error(`more than ${mostHints} answers before the answer`));
        });
        request.once('response', (body) => {
          clearTimeout(timer);
          // An error after this is the reader's to see; nobody may read at all.
          body.on('error', () => {});
          resolve({
            method,
            status: body.statusCode ?? 0,
            headers: body.headers,
            url,
            body,
            address: body.socket.remoteAddress,
            patienceMs: this.#patienceMs,
          });
        });
        request.once('error', (error) => {
          clearTimeout(timer);
          refuse(error);
        });
        void feed(request, outgoing.body, () => timer?.refresh());
      } catch (error) {
        refuse(error);
      }
    });
  }

  close(): void {
    for (const { http, https } of this.#agents.values()) {
      http.destroy();
      https.destroy();
    }
    this.#agents.clear();
  }

  #agentsFor(allowed: Allowed): Agents {
    const known = this.#agents.get(allowed);
    if (known !== undefined) return known;
    const { ca, client, skipVerify } = this.#connecting;
    const shared = {
      keepAlive: true,
      maxSockets: connectionsPerHost,
      maxFreeSockets: 4,
      // Proxies of the environment, as every other tool of the machine takes them.
      proxyEnv: process.env,
      ...(allowed !== 'any' && { lookup: guarded(allowed) }),
    };
    const tls: SecureContextOptions = {
      ...(ca.length > 0 && { ca: [...systemAuthorities(), ...ca] }),
      ...(client.length > 0 && { cert: client.map(({ cert }) => cert), key: client.map(({ key }) => key) }),
    };
    const agents = {
      http: new HttpAgent(shared),
      https: new HttpsAgent({ ...shared, ...tls, rejectUnauthorized: !skipVerify }),
    };
    this.#agents.set(allowed, agents);
    return agents;
  }
}

/** Waits for the connection to take what it has; a source that throws ends the request. */
async function feed(request: ReturnType<typeof plainRequest>, body: Outgoing['body'], sent: () => void): Promise<void> {
  if (body === undefined || body instanceof Uint8Array) {
    request.end(body);
    return;
  }
  try {
    for await (const chunk of body) {
      if (request.destroyed) return;
      // The answer comes after the body, however long that takes; who feeds it watches its rate.
      sent();
      if (!request.write(chunk)) {
        await new Promise<void>((resolve) => {
          const go = (): void => {
            request.off('drain', go);
            request.off('close', go);
            resolve();
          };
          request.on('drain', go);
          request.on('close', go);
        });
      }
    }
    request.end();
  } catch (error) {
    request.destroy(error as Error);
  }
}

/** Name to addresses, all of which must be allowed: a name with one good and one bad address would be a coin to toss. */
function guarded(allowed: Allowed): LookupFunction {
  return (hostname, options, callback) => {
    resolveName(hostname, options, (error, address, family) => {
      if (error !== null) return callback(error, address, family);
      try {
        for (const each of typeof address === 'string' ? [{ address }] : address)
          requireAllowed(each.address, allowed, hostname);
      } catch (refused) {
        return callback(refused as NodeJS.ErrnoException, address, family);
      }
      callback(null, address, family);
    });
  };
}

let authorities: readonly string[] | undefined;

/** Those that come with Node; own ones are added to them, not put in their place. */
function systemAuthorities(): readonly string[] {
  authorities ??= process.getBuiltinModule('node:tls').rootCertificates;
  return authorities;
}

/** An address for messages: what stands in a query may be a signature. */
export function shown(url: URL): string {
  return `${url.protocol}//${url.host}${url.pathname}${url.search === '' ? '' : '?…'}`;
}

export function unavailable(error: unknown, what: string, signal: AbortSignal): Failure {
  if (signal.aborted) return Failure.from(signal.reason);
  if (error instanceof Failure) return error;
  const { message, code } = error as NodeJS.ErrnoException;
  const text = message.includes(code ?? '') ? message : `${message} (${code})`;
  return new Failure('Unavailable', `${what}: ${text.trim().split('\n', 1)[0]}: unavailable`, { cause: error });
}

/** Nobody reads it: a short one is read past, so that its connection can be used again; a long one costs its connection. */
export function discard({ method, headers, body }: Answer): void {
  const length = Number(headers['content-length'] ?? Number.POSITIVE_INFINITY);
  if (method !== 'HEAD' && length > shortAnswer) {
    body.destroy();
    return;
  }
  body.setTimeout(discardMs, () => body.destroy());
  body.resume();
}

/** The whole of a small answer. @throws Failure ResourceExhausted beyond `limit` bytes, Unavailable when it breaks off or stands still */
export async function readSmall(answer: Answer, limit: number, signal: AbortSignal): Promise<Buffer> {
  const { body } = answer;
  const what = shown(answer.url);
  const announced = Number(answer.headers['content-length'] ?? 0);
  const tooLarge = (): Failure =>
    new Failure('ResourceExhausted', `${what}: the answer has more than ${limit} bytes: resource exhausted`);
  const { patienceMs } = answer;
  const timer = setTimeout(() => body.destroy(new Error(`no end within ${patienceMs} ms`)), patienceMs);
  try {
    if (announced > limit) throw tooLarge();
    const chunks: Buffer[] = [];
    let size = 0;
    for await (const chunk of body as AsyncIterable<Buffer>) {
      size += chunk.length;
      if (size > limit) throw tooLarge();
      chunks.push(chunk);
    }
    return Buffer.concat(chunks);
  } catch (error) {
    throw unavailable(error, what, signal);
  } finally {
    clearTimeout(timer);
    body.destroy();
  }
}
