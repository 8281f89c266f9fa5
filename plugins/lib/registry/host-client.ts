/**
 * One host of a registry and one repository: requests with whatever they need to be answered. Challenges are met, redirects followed; what is secret stays with
 * the host that it belongs to.
 */
import { Failure } from 'troupe/plugin';
import { type Allowed, allowedBy } from './address.ts';
import { parseChallenges } from './challenge.ts';
import type { Credential, CredentialSource } from './credentials.ts';
import type { Capability, RegistryHost } from './hosts.ts';
import { type Answer, discard, type Outgoing, shown, type Transport } from './http.ts';
import { basic, fetchToken, type Token } from './token.ts';

/** A request and its answer, for people who look at what goes on. */
export interface Hop {
  readonly method: string;
  readonly url: string;
  readonly capability: string;
  /** 0: no answer. */
  readonly status: number;
  readonly ms: number;
  readonly note: string;
  readonly address: string;
}

export interface HostClientOptions {
  readonly host: RegistryHost;
  readonly transport: Transport;
  /** In the registry: `team/app`. */
  readonly repository: string;
  /** The host that the reference names, which a mirror may not be. */
  readonly upstream: string;
  readonly reference: string;
  readonly credentials: CredentialSource;
  /** The client's own, for every request to this host. */
  readonly headers: Readonly<Record<string, string>>;
  readonly trusted: readonly string[];
  readonly onHop?: (hop: Hop) => void;
}

export interface Asked {
  readonly method: 'GET' | 'HEAD' | 'PUT' | 'POST' | 'PATCH' | 'DELETE';
  /** Below the repository (`manifests/1.2`), or a whole URL that the registry gave. */
  readonly target: string | URL;
  readonly capability: Capability;
  readonly query?: Readonly<Record<string, string>>;
  readonly headers?: Readonly<Record<string, string>>;
  /** Made anew for each attempt. */
  readonly body?: () => Uint8Array | AsyncIterable<Uint8Array>;
  /** Scopes beyond the repository's own. */
  readonly scopes?: readonly string[];
  readonly signal: AbortSignal;
}

const mostRedirects = 10;
/** 401 answers to one request, tokens in between. */
const mostChallenges = 3;
const redirects = [301, 302, 303, 307, 308];

export class HostClient {
  readonly host: RegistryHost;
  readonly #options: HostClientOptions;
  #scheme: 'http' | 'https';
  #fallback: boolean;
  /** Authorization by scopes, once the host has asked for it. */
  readonly #authorization = new Map<string, Token>();
  #credential: Promise<Credential | undefined> | undefined;

  constructor(options: HostClientOptions) {
    this.host = options.host;
    this.#options = options;
    this.#scheme = options.host.scheme;
    this.#fallback = options.host.plainFallback;
  }

  can(capability: Capability): boolean {
    return this.host.capabilities.has(capability);
  }

  /** The address of a place in this repository. */
  url(target: string, query: Readonly<Record<string, string>> = {}): URL {
    const { host, path } = this.host;
    const url = new URL(`${this.#scheme}://${host}${path}/${this.#options.repository}/${target}`);
    for (const [name, value] of Object.entries(query)) url.searchParams.set(name, value);
    // A mirror of several registries is told which is meant (containerd's convention).
    if (this.#isMirror) url.searchParams.set('ns', this.#options.upstream);
    return url;
  }

  get #isMirror(): boolean {
    const { upstream } = this.#options;
    return this.host.host !== upstream && !(upstream === 'docker.io' && this.host.host === 'registry-1.docker.io');
  }

  /**
   * Any answer that is not a challenge or a redirect, whatever its status.
   *
   * @throws Failure Unavailable when there is none, Unauthenticated when the host is not content with who asks
   */
  async ask(asked: Asked): Promise<Answer> {
    const scopes = [this.#scope(asked.capability), ...(asked.scopes ?? [])];
    for (let challenges = 0; ; challenges++) {
      const answer = await this.#follow(asked, scopes);
      if (answer.status !== 401) return answer;
      discard(answer);
      const header = answer.headers['www-authenticate'];
      const written = header === undefined ? [] : [header];
      if (challenges >= mostChallenges || !(await this.#meet(written, answer, scopes, challenges, asked.signal)))
        throw new Failure(
          'Unauthenticated',
          `${asked.method} ${shown(answer.url)}: ${written.length === 0 ? 'refused without saying how to ask' : 'authorization failed'}: unauthenticated`,
        );
    }
  }

  #scope(capability: Capability): string {
    return `repository:${this.#options.repository}:${capability === 'push' ? 'pull,push' : 'pull'}`;
  }

  /** Redirects, of requests that may be made twice. */
  async #follow(asked: Asked, scopes: readonly string[]): Promise<Answer> {
    const first = typeof asked.target === 'string' ? this.url(asked.target, asked.query) : asked.target;
    let url = first;
    let allowed: Allowed = 'any';
    for (let count = 0; ; count++) {
      const own = isSameOrigin(url, this.url(''));
      const answer = await this.#send(asked, url, { own, allowed, scopes, redirected: count > 0 });
      const location = answer.headers.location;
      const follows = redirects.includes(answer.status) && (asked.method === 'GET' || asked.method === 'HEAD');
      if (!follows || location === undefined) return answer;
      discard(answer);
      if (count >= mostRedirects)
        throw new Failure(
          'Unavailable',
          `${asked.method} ${shown(first)}: more than ${mostRedirects} redirects: unavailable`,
        );
      // The place that sends on decides what may be reached; a chain cannot lead inside by way of the outside.
      const reach = allowedBy(answer.address);
      const next = redirectTarget(location, url, `${asked.method} ${shown(first)}`);
      allowed = isSameOrigin(next, this.url('')) ? 'any' : allowed === 'public' ? 'public' : reach;
      url = next;
    }
  }

  async #send(
    asked: Asked,
    url: URL,
    {
      own,
      allowed,
      scopes,
      redirected,
    }: { own: boolean; allowed: Allowed; scopes: readonly string[]; redirected: boolean },
  ): Promise<Answer> {
    const { method, signal } = asked;
    const authorization = own ? this.#authorization.get(keyOf(scopes)) : undefined;
    const headers = {
      'user-agent': 'troupe',
      'accept-encoding': 'identity',
      ...(own && { ...lowered(this.host.headers), ...lowered(this.#options.headers) }),
      ...asked.headers,
      ...(authorization !== undefined && authorization.expires > Date.now() && { authorization: authorization.value }),
    };
    const body = asked.body?.();
    const outgoing = { method, url, headers, allowed, signal, ...(body !== undefined && { body }) };
    const capability = redirected ? 'redirect' : asked.capability;
    try {
      const answer = await this.#timed(outgoing, capability);
      if (own) this.#fallback = false;
      return answer;
    } catch (error) {
      if (!own || !this.#fallback || this.#scheme !== 'https' || !speaksPlain(error) || asked.body !== undefined)
        throw error;
      this.#fallback = false;
      this.#scheme = 'http';
      const plain = new URL(url);
      plain.protocol = 'http:';
      return this.#timed({ ...outgoing, url: plain }, capability);
    }
  }

  async #timed(outgoing: Outgoing, capability: string): Promise<Answer> {
    const began = performance.now();
    const hop = (status: number, note: string, address: string): void =>
      this.#options.onHop?.({
        method: outgoing.method,
        url: shown(outgoing.url),
        capability,
        status,
        ms: performance.now() - began,
        note,
        address,
      });
    try {
      const answer = await this.#options.transport.send(outgoing);
      const { location, 'www-authenticate': challenge, 'content-type': type } = answer.headers;
      const place = location === undefined ? undefined : `→ ${placeOf(location, outgoing.url)}`;
      hop(answer.status, place ?? challenge?.slice(0, 300) ?? type ?? '', answer.address ?? '');
      return answer;
    } catch (error) {
      hop(0, Failure.from(error).message, '');
      throw error;
    }
  }

  /** @returns false when nothing is left to try */
  async #meet(
    written: readonly string[],
    { url, address }: Answer,
    scopes: readonly string[],
    before: number,
    signal: AbortSignal,
  ): Promise<boolean> {
    if (!isSameOrigin(url, this.url(''))) return false;
    const challenges = parseChallenges(written);
    this.#credential ??= this.#options.credentials({
      host: this.host.host,
      reference: this.#options.reference,
      challenges: written,
      signal,
    });
    const credential = await this.#credential;
    const key = keyOf(scopes);
    const bearer = challenges.find(({ scheme }) => scheme === 'bearer');
    if (credential?.kind === 'header') {
      if (before > 0) return false;
      this.#authorization.set(key, { value: credential.value, expires: Number.POSITIVE_INFINITY });
      return true;
    }
    if (bearer !== undefined) {
      // Once more with a new token, which is what an old one needs; a third would be as good as the second.
      if (before > 1) return false;
      const wanted = bearer.parameters.scope?.split(' ') ?? [];
      const { trusted } = this.#options;
      const request = {
        challenge: bearer,
        scopes: unique([...scopes, ...wanted.filter(isScope)]),
        credential,
        registry: url,
        address,
        trusted,
        signal,
      };
      const token = await fetchToken(request, (outgoing) => this.#timed(outgoing, 'token'));
      this.#authorization.set(key, { value: `Bearer ${token.value}`, expires: token.expires });
      return true;
    }
    if (challenges.every(({ scheme }) => scheme !== 'basic') || credential?.kind !== 'basic' || before > 0)
      return false;
    this.#authorization.set(key, { value: basic(credential), expires: Number.POSITIVE_INFINITY });
    return true;
  }
}

function keyOf(scopes: readonly string[]): string {
  return scopes.join(' ');
}

function unique(items: readonly string[]): string[] {
  return [...new Set(items)].slice(0, 16);
}

function isScope(text: string): boolean {
  return text.length > 0 && text.length <= 512 && text.startsWith('repository:');
}

export function isSameOrigin(one: URL, other: URL): boolean {
  return one.protocol === other.protocol && one.host === other.host;
}

/** @throws Failure Unavailable for a place that must not be gone to */
export function redirectTarget(location: string, from: URL, what: string): URL {
  const refuse = (problem: string): Failure =>
    new Failure(
      'Unavailable',
      `${what}: is sent to ${JSON.stringify(location.slice(0, 200))}: ${problem}: unavailable`,
    );
  let url: URL;
  try {
    url = new URL(location, from);
  } catch {
    throw refuse('not a URL');
  }
  if (url.protocol !== 'http:' && url.protocol !== 'https:') throw refuse('not http');
  if (url.username !== '' || url.password !== '') throw refuse('has a user in it');
  if (from.protocol === 'https:' && url.protocol === 'http:') throw refuse('without TLS, while the way there had it');
  return url;
}

function placeOf(location: string, from: URL): string {
  try {
    return shown(new URL(location, from));
  } catch {
    return 'nowhere';
  }
}

function lowered(
  headers: Readonly<Record<string, string | readonly string[]>>,
): Record<string, string | readonly string[]> {
  return Object.fromEntries(Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]));
}

/** What TLS says of an answer that is none of its own. */
function speaksPlain(error: unknown): boolean {
  const cause = (error as Failure).cause as NodeJS.ErrnoException | undefined;
  return (
    cause !== undefined &&
    ['ERR_SSL_WRONG_VERSION_NUMBER', 'EPROTO', 'ERR_SSL_PACKET_LENGTH_TOO_LONG', 'ECONNRESET'].includes(
      cause.code ?? '',
    )
  );
}
