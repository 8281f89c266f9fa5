/**
 * Content into a registry (OCI distribution spec, "Push"). What it has already is not sent, what another repository of it has is mounted, and what must be sent goes
 * in chunks, so that a connection that breaks costs a chunk and not the blob.
 */
import { Failure } from 'troupe/plugin';
import type { Descriptor } from '../image/document.ts';
import { type HostClient, redirectTarget } from './host-client.ts';
import { type Answer, discard, shown } from './http.ts';
import { type Registry, unexpectedStatus } from './registry.ts';
import { type Backoff, pause, pauseBefore } from './retry.ts';

export interface BlobSource {
  /** The bytes from that offset on. */
  bytes(offset: number, signal: AbortSignal): AsyncIterable<Uint8Array>;
  /** Repositories of the registry that may have it. */
  readonly repositories: readonly string[];
  readonly onProgress: (offset: number) => void;
}

export interface PushOptions {
  readonly backoff: Backoff;
  /** Bytes of one request. */
  readonly chunk: number;
}

type Blob = Pick<Descriptor, 'mediaType' | 'digest' | 'size'>;

/** Repositories that are tried: each costs a request. */
const mostMounts = 3;

/** @returns whether it was there, or could be mounted */
export async function pushBlob(
  registry: Registry,
  blob: Blob,
  source: BlobSource,
  options: PushOptions,
  signal: AbortSignal,
): Promise<'sent' | 'there'> {
  return registry.each('push', signal, async (host) => {
    if (await exists(registry, host, `blobs/${blob.digest}`, signal)) return 'there';
    const upload = await begin(registry, host, blob, source, signal);
    if (upload === undefined) return 'there';
    await new Upload(registry, host, blob, source, options, signal).send(upload);
    return 'sent';
  });
}

/** A manifest or index under a tag, or its own digest. */
export async function pushManifest(
  registry: Registry,
  descriptor: Blob,
  bytes: Uint8Array,
  name: string,
  signal: AbortSignal,
): Promise<'sent' | 'there'> {
  return registry.each('push', signal, async (host) => {
    const target = `manifests/${name}`;
    if (name === descriptor.digest && (await exists(registry, host, target, signal))) return 'there';
    const answer = await registry.exchange(host, {
      method: 'PUT',
      target,
      capability: 'push',
      headers: { 'content-type': descriptor.mediaType, 'content-length': String(bytes.length) },
      body: () => bytes,
      signal,
    });
    if (answer.status < 200 || answer.status > 299)
      throw unexpectedStatus(answer, 'PUT', `${target} of ${registry.reference.locator}`);
    discard(answer);
    const said = answer.headers['docker-content-digest'];
    if (typeof said === 'string' && said !== descriptor.digest)
      throw new Failure(
        'FailedPrecondition',
        `${shown(answer.url)}: took ${descriptor.digest} for ${said.slice(0, 100)}: failed precondition`,
      );
    return 'sent';
  });
}

async function exists(registry: Registry, host: HostClient, target: string, signal: AbortSignal): Promise<boolean> {
  const answer = await registry.exchange(host, {
    method: 'HEAD',
    target,
    capability: 'push',
    headers: { accept: '*/*' },
    signal,
  });
  discard(answer);
  if (answer.status === 200) return true;
  if (answer.status === 404) return false;
  throw unexpectedStatus(answer, 'HEAD', target);
}

/** Where to send it; undefined when it was mounted from another repository. */
async function begin(
  registry: Registry,
  host: HostClient,
  blob: Blob,
  source: BlobSource,
  signal: AbortSignal,
): Promise<URL | undefined> {
  const own = registry.reference.repository;
  const mounts = source.repositories.filter((each) => each !== own).slice(-mostMounts);
  let answer: Answer | undefined;
  for (const from of mounts) {
    // A mount that is refused begins an upload as well.
    answer = await post(registry, host, { mount: blob.digest, from }, [`repository:${from}:pull`], signal).catch(
      (error) => {
        if (Failure.is(error, 'Unavailable')) throw error;
        return undefined;
      },
    );
    if (answer?.status === 201) {
      discard(answer);
      return undefined;
    }
    if (answer?.status === 202) break;
    if (answer !== undefined) discard(answer);
    answer = undefined;
  }
  answer ??= await post(registry, host, {}, [], signal);
  if (answer.status !== 202) throw unexpectedStatus(answer, 'POST', `upload of blob ${blob.digest}`);
  discard(answer);
  return locationOf(answer);
}

function post(
  registry: Registry,
  host: HostClient,
  query: Readonly<Record<string, string>>,
  scopes: readonly string[],
  signal: AbortSignal,
): Promise<Answer> {
  const headers = { 'content-length': '0' };
  return registry.exchange(host, {
    method: 'POST',
    target: 'blobs/uploads/',
    query,
    headers,
    capability: 'push',
    scopes,
    signal,
  });
}

/** @throws Failure Unavailable for an answer without a place, or with one that must not be gone to */
function locationOf(answer: Answer): URL {
  const { location } = answer.headers;
  if (location === undefined)
    throw new Failure('Unavailable', `${shown(answer.url)}: does not say where to go on: unavailable`);
  return redirectTarget(location, answer.url, `upload to ${shown(answer.url)}`);
}

class Upload {
  readonly #registry: Registry;
  readonly #host: HostClient;
  readonly #blob: Blob;
  readonly #source: BlobSource;
  readonly #options: PushOptions;
  readonly #signal: AbortSignal;
  #at = 0;

  constructor(
    registry: Registry,
    host: HostClient,
    blob: Blob,
    source: BlobSource,
    options: PushOptions,
    signal: AbortSignal,
  ) {
    this.#registry = registry;
    this.#host = host;
    this.#blob = blob;
    this.#source = source;
    this.#options = options;
    this.#signal = signal;
  }

  async send(place: URL): Promise<void> {
    const { size } = this.#blob;
    const { chunk, backoff } = this.#options;
    let location = place;
    for (let vain = 0; ; ) {
      const before = this.#at;
      try {
        // What fits in one request, and the last of several, go with the end.
        while (size - this.#at > chunk) location = await this.#patch(location, this.#at + chunk);
        await this.#put(location);
        return;
      } catch (error) {
        this.#signal.throwIfAborted();
        vain = this.#at > before ? 1 : vain + 1;
        if (!Failure.is(error, 'Unavailable') || vain >= backoff.attempts) throw error;
      }
      await pause(pauseBefore(vain, backoff), this.#signal);
      location = await this.#resume(location);
    }
  }

  async #patch(location: URL, end: number): Promise<URL> {
    const start = this.#at;
    const answer = await this.#request('PATCH', location, end, {
      'content-type': 'application/octet-stream',
      'content-range': `${start}-${end - 1}`,
    });
    if (answer.status !== 202) throw unexpectedStatus(answer, 'PATCH', `upload of blob ${this.#blob.digest}`);
    discard(answer);
    this.#at = end;
    this.#source.onProgress(end);
    return locationOf(answer);
  }

  async #put(location: URL): Promise<void> {
    const { digest, size } = this.#blob;
    const url = new URL(location);
    url.searchParams.set('digest', digest);
    const answer = await this.#request('PUT', url, size, {
      'content-type': 'application/octet-stream',
      ...(this.#at > 0 && { 'content-range': `${this.#at}-${size - 1}` }),
    });
    if (answer.status !== 201 && answer.status !== 204) throw unexpectedStatus(answer, 'PUT', `blob ${digest}`);
    discard(answer);
    this.#source.onProgress(size);
  }

  #request(
    method: 'PATCH' | 'PUT',
    target: URL,
    end: number,
    headers: Readonly<Record<string, string>>,
  ): Promise<Answer> {
    const start = this.#at;
    const body = (): AsyncIterable<Uint8Array> => limited(this.#source.bytes(start, this.#signal), end - start);
    const asked = { method, target, capability: 'push', body, signal: this.#signal } as const;
    const length = { 'content-length': String(end - start) };
    // The chunk is sent again by whoever called: after asking how far it came.
    return this.#registry.exchange(this.#host, { ...asked, headers: { ...headers, ...length } }, { attempts: 1 });
  }

  /** How far the registry has come: it may have more of a chunk than its answer could say. A registry that does not know begins anew. */
  async #resume(location: URL): Promise<URL> {
    const answer = await this.#registry.exchange(this.#host, {
      method: 'GET',
      target: location,
      capability: 'push',
      signal: this.#signal,
    });
    discard(answer);
    const range = /^(?:bytes=)?0-(\d+)$/.exec(answer.headers.range ?? '');
    if (answer.status === 204 || answer.status === 202) {
      this.#at = range === null ? 0 : Math.min(Number(range[1]) + 1, this.#blob.size);
      // `0-0` says one byte, and is what registries say of none.
      if (range?.[1] === '0') this.#at = 0;
      return answer.headers.location === undefined ? location : locationOf(answer);
    }
    this.#at = 0;
    const anew = await post(this.#registry, this.#host, {}, [], this.#signal);
    if (anew.status !== 202) throw unexpectedStatus(anew, 'POST', `upload of blob ${this.#blob.digest}`);
    discard(anew);
    return locationOf(anew);
  }
}

async function* limited(chunks: AsyncIterable<Uint8Array>, bytes: number): AsyncGenerator<Uint8Array, void, undefined> {
  let left = bytes;
  for await (const chunk of chunks) {
    yield chunk.subarray(0, left);
    left -= Math.min(chunk.length, left);
    if (left === 0) return;
  }
}
