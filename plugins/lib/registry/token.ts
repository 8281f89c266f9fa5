/**
 * Tokens for a registry (distribution's "token" and "oauth" specifications). The registry names the place where they are to be had, so a registry that lies
 * could have credentials sent anywhere (CVE-2026-33540, CVE-2026-48978, CVE-2026-65388): they go to a host of the registry's own domain only, never from
 * TLS to plain HTTP, and nothing goes into a network that the registry is not in itself.
 */
import { Failure } from 'troupe/plugin';
import { type Allowed, allowedBy } from './address.ts';
import type { Challenge } from './challenge.ts';
import type { Credential } from './credentials.ts';
import { type Answer, type Outgoing, readSmall, shown } from './http.ts';

export interface TokenRequest {
  readonly challenge: Challenge;
  /** What the token must be good for: `repository:team/app:pull`. */
  readonly scopes: readonly string[];
  readonly credential: Credential | undefined;
  /** The registry that asks. */
  readonly registry: URL;
  /** Its address; undefined when a proxy stands between. */
  readonly address: string | undefined;
  /** Hosts beyond the registry's domain that the operator trusts with credentials. */
  readonly trusted: readonly string[];
  readonly signal: AbortSignal;
}

export interface Token {
  readonly value: string;
  /** ms since the epoch. */
  readonly expires: number;
}

export type Send = (outgoing: Outgoing) => Promise<Answer>;

const client = 'troupe';
const largestAnswer = 1 << 20;
/** A header that no server takes. */
const longestToken = 64 << 10;
/** Seconds: the specification's own default, and what clocks that differ and lies are held to. */
const usualLife = 60;
const longestLife = 3600;

/** @throws Failure Unauthenticated, PermissionDenied for a realm that is not to be spoken to, Unavailable */
export async function fetchToken(request: TokenRequest, send: Send): Promise<Token> {
  const { challenge, registry, trusted, address } = request;
  const realm = realmOf(challenge.parameters.realm ?? '', registry);
  const own = sameHost(realm, registry);
  const credential =
    own || sameDomain(realm.hostname, registry.hostname) || trusted.includes(realm.host)
      ? request.credential
      : undefined;
  const allowed: Allowed = own ? 'any' : allowedBy(address);
  const attempts: (() => Outgoing)[] = [];
  const plain = credential === undefined || credential.kind === 'header';
  if (credential?.kind !== 'refresh')
    attempts.push(() => getRequest(realm, request, plain ? undefined : credential, allowed));
  if (!plain) attempts.push(() => postRequest(realm, request, credential, allowed));
  for (const [at, make] of attempts.entries()) {
    const answer = await send(make());
    const body = await readSmall(answer, largestAnswer, request.signal);
    if (answer.status >= 200 && answer.status < 300) return parseToken(body, realm);
    // One of the two ways is enough; a server may not know the other.
    if ([400, 401, 404, 405].includes(answer.status) && at + 1 < attempts.length) continue;
    throw refused(answer, realm, credential);
  }
  throw new Failure('Unauthenticated', `${shown(realm)}: no way to ask for a token: unauthenticated`);
}

function realmOf(text: string, registry: URL): URL {
  const refuse = (problem: string): Failure =>
    new Failure(
      'PermissionDenied',
      `${registry.host} sends for its token to ${JSON.stringify(text.slice(0, 200))}: ${problem}: permission denied`,
    );
  let realm: URL;
  try {
    realm = new URL(text);
  } catch {
    throw refuse('not a URL');
  }
  if (realm.protocol !== 'https:' && realm.protocol !== 'http:') throw refuse('not http');
  if (realm.username !== '' || realm.password !== '') throw refuse('has a user in it');
  if (registry.protocol === 'https:' && realm.protocol === 'http:')
    throw refuse('without TLS, while the registry has it');
  return realm;
}

function sameHost(realm: URL, registry: URL): boolean {
  return realm.host === registry.host && realm.protocol === registry.protocol;
}

/** Labels of the domain that somebody registered: two, or three where the second is a kind of registrant (`co.uk`). IP addresses are themselves. */
export function sameDomain(one: string, other: string): boolean {
  const [a, b] = [one, other].map((name) => name.toLowerCase().replace(/\.$/, ''));
  if (a === b) return true;
  if (/^[\d.]+$|:/.test(a!) || /^[\d.]+$|:/.test(b!)) return false;
  const domain = (name: string): string | undefined => {
    const labels = name.split('.');
    const kinds = ['co', 'com', 'org', 'net', 'ac', 'gov', 'edu', 'gob', 'or', 'ne', 'go'];
    const count = labels.at(-1)?.length === 2 && kinds.includes(labels.at(-2) ?? '') ? 3 : 2;
    return labels.length < count ? undefined : labels.slice(-count).join('.');
  };
  const registered = domain(a!);
  return registered !== undefined && registered === domain(b!);
}

function getRequest(realm: URL, request: TokenRequest, credential: Credential | undefined, allowed: Allowed): Outgoing {
  const url = new URL(realm);
  const { service } = request.challenge.parameters;
  if (service !== undefined) url.searchParams.set('service', service);
  for (const scope of request.scopes) url.searchParams.append('scope', scope);
  const headers: Record<string, string> = { accept: 'application/json', 'accept-encoding': 'identity' };
  if (credential?.kind === 'basic') {
    url.searchParams.set('account', credential.username);
    headers.authorization = basic(credential);
  }
  return { method: 'GET', url, headers, allowed, signal: request.signal };
}

function postRequest(
  realm: URL,
  request: TokenRequest,
  credential: Exclude<Credential, { kind: 'header' }>,
  allowed: Allowed,
): Outgoing {
  const form = new URLSearchParams({ client_id: client, scope: request.scopes.join(' ') });
  const { service } = request.challenge.parameters;
  if (service !== undefined) form.set('service', service);
  if (credential.kind === 'refresh') {
    form.set('grant_type', 'refresh_token');
    form.set('refresh_token', credential.token);
  } else {
    form.set('grant_type', 'password');
    form.set('username', credential.username);
    form.set('password', credential.password);
    form.set('access_type', 'offline');
  }
  const body = Buffer.from(form.toString());
  const headers = {
    accept: 'application/json',
    'accept-encoding': 'identity',
    'content-type': 'application/x-www-form-urlencoded',
    'content-length': String(body.length),
  };
  return { method: 'POST', url: realm, headers, body, allowed, signal: request.signal };
}

export function basic({ username, password }: { readonly username: string; readonly password: string }): string {
  return `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`;
}

function parseToken(body: Buffer, realm: URL): Token {
  const wrong = (problem: string): Failure =>
    new Failure('Unauthenticated', `${shown(realm)}: its answer ${problem}: unauthenticated`);
  let answer: { token?: unknown; access_token?: unknown; expires_in?: unknown };
  try {
    answer = JSON.parse(body.toString('utf8')) as typeof answer;
  } catch {
    throw wrong('is not JSON');
  }
  const value = typeof answer?.token === 'string' && answer.token !== '' ? answer.token : answer?.access_token;
  if (typeof value !== 'string' || value === '') throw wrong('has no token');
  if (value.length > longestToken || !/^[\x21-\x7e]+$/.test(value)) throw wrong('has a token that fits in no header');
  const life =
    typeof answer.expires_in === 'number' && Number.isFinite(answer.expires_in) ? answer.expires_in : usualLife;
  const seconds = Math.min(Math.max(life, usualLife), longestLife);
  // A little before its end: it has a way to go.
  return { value, expires: Date.now() + seconds * 900 };
}

function refused({ status }: Answer, realm: URL, credential: Credential | undefined): Failure {
  const who =
    credential === undefined
      ? 'anonymous'
      : `user ${'username' in credential ? JSON.stringify(credential.username) : 'of the header'}`;
  const text = `${shown(realm)}: no token for ${who}: status ${status}`;
  return status === 429 || status >= 500
    ? new Failure('Unavailable', `${text}: unavailable`)
    : new Failure('Unauthenticated', `${text}: unauthenticated`);
}
