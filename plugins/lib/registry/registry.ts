/** A repository of a registry, through all the hosts that may be asked for it: mirrors in order, then the registry itself. */
import { Failure, type FailureCode } from 'troupe/plugin';
import { type Digest, digestAlgorithm, digestOf, isDigest } from '../digest/digest.ts';
import { type Descriptor, documentLimit, requireBytes } from '../image/document.ts';
import {
  DOCKER_INDEX,
  DOCKER_MANIFEST,
  isIndex,
  isManifest,
  isSchema1,
  OCI_INDEX,
  OCI_MANIFEST,
} from '../image/media-type.ts';
import { formatReference, type Reference } from '../reference/reference.ts';
import type { CredentialSource } from './credentials.ts';
import { type Asked, type Hop, HostClient } from './host-client.ts';
import type { Capability, RegistryHost } from './hosts.ts';
import { type Answer, discard, readSmall, shown } from './http.ts';
import { type Backoff, isTransient, pause, pauseBefore } from './retry.ts';
import type { Transports } from './transports.ts';

export interface RegistryOptions {
  readonly reference: Reference;
  readonly hosts: readonly RegistryHost[];
  readonly transports: Transports;
  readonly credentials: CredentialSource;
  readonly headers?: Readonly<Record<string, string>>;
  /** Hosts that credentials may go to beyond the registry's own domain. */
  readonly trusted?: readonly string[];
  readonly backoff: Backoff;
  readonly onHop?: (hop: Hop) => void;
}

export type Resolved = Pick<Descriptor, 'mediaType' | 'digest' | 'size'> & {
  /** When they had to be read to know the digest. */
  readonly bytes: Uint8Array | undefined;
};

const accept = [OCI_INDEX, DOCKER_INDEX, OCI_MANIFEST, DOCKER_MANIFEST].join(', ');

export class Registry {
  readonly reference: Reference;
  readonly #options: RegistryOptions;
  readonly #hosts: readonly HostClient[];

  constructor(options: RegistryOptions) {
    const { reference, credentials, headers = {}, trusted = [], onHop } = options;
    this.reference = reference;
    this.#options = options;
    this.#hosts = options.hosts.map(
      (host) =>
        new HostClient({
          host,
          transport: options.transports.get(host.connecting),
          repository: reference.repository,
          upstream: reference.hostname,
          reference: formatReference(reference),
          credentials,
          headers,
          trusted,
          ...(onHop !== undefined && { onHop }),
        }),
    );
  }

  /**
   * What the reference names now. A digest in it is believed; a tag is what the first host that knows it says.
   *
   * @throws Failure NotFound when no host has it; the last host's failure otherwise
   */
  async resolve(signal: AbortSignal): Promise<Resolved> {
    const { tag, digest } = this.reference;
    const name = digest ?? tag;
    if (name === undefined)
      throw new Failure('InvalidArgument', `reference ${this.#name}: has neither tag nor digest: invalid argument`);
    return this.each('resolve', signal, async (host) => {
      const asked = { target: `manifests/${name}`, capability: 'resolve', headers: { accept }, signal } as const;
      const head = await this.exchange(host, { ...asked, method: 'HEAD' });
      discard(head);
      if (head.status === 200) {
        const found = fromHeaders(head, digest);
        if (found !== undefined) return found;
      } else if (head.status !== 405 && head.status !== 501) throw this.#unexpected(head, 'HEAD');
      return this.#readManifest(host, { ...asked, method: 'GET' }, digest);
    });
  }

  /** The bytes of a manifest or index, as the descriptor says. @throws Failure FailedPrecondition when something else comes */
  manifest(descriptor: Pick<Descriptor, 'mediaType' | 'digest' | 'size'>, signal: AbortSignal): Promise<Uint8Array> {
    return this.each('pull', signal, async (host) => {
      const answer = await this.exchange(host, {
        method: 'GET',
        target: `manifests/${descriptor.digest}`,
        capability: 'pull',
        headers: { accept: descriptor.mediaType === '' ? accept : `${descriptor.mediaType}, ${accept}` },
        signal,
      });
      if (answer.status !== 200) throw this.#unexpected(answer, 'GET');
      const bytes = await this.#document(answer, signal);
      requireBytes(bytes, descriptor);
      return bytes;
    });
  }

  async #readManifest(host: HostClient, asked: Asked, digest: Digest | undefined): Promise<Resolved> {
    const answer = await this.exchange(host, asked);
    if (answer.status !== 200) throw this.#unexpected(answer, 'GET');
    const bytes = await this.#document(answer, asked.signal);
    const mediaType = manifestType(answer) ?? ownType(bytes) ?? '';
    const own = digestOf(bytes, digest === undefined ? 'sha256' : digestAlgorithm(digest));
    if (digest !== undefined && own !== digest)
      throw new Failure(
        'FailedPrecondition',
        `${shown(answer.url)}: its bytes have digest ${own}: failed precondition`,
      );
    if (!isManifest(mediaType) && !isIndex(mediaType)) throw unexpectedType(answer);
    return { mediaType, digest: own, size: bytes.length, bytes };
  }

  /** @throws Failure InvalidArgument for an answer that is no document, such as a page to log in */
  async #document(answer: Answer, signal: AbortSignal): Promise<Uint8Array> {
    const encoding = answer.headers['content-encoding'];
    if (isPage(answer)) throw unexpectedType(answer);
    if (encoding !== undefined && encoding !== 'identity') {
      discard(answer);
      throw new Failure(
        'InvalidArgument',
        `${shown(answer.url)}: unexpected content encoding ${JSON.stringify(encoding.slice(0, 100))}: invalid argument`,
      );
    }
    return readSmall(answer, documentLimit, signal);
  }

  /**
   * One request to one host, again while it fails in a way that may pass.
   *
   * @param options.attempts fewer than usual, where somebody else can be asked
   */
  async exchange(host: HostClient, asked: Asked, options: { readonly attempts?: number } = {}): Promise<Answer> {
    const { backoff } = this.#options;
    const last = this.#hosts.filter((each) => each.can(asked.capability)).at(-1);
    const attempts = options.attempts ?? (host === last ? backoff.attempts : Math.min(2, backoff.attempts));
    for (let attempt = 1; ; attempt++) {
      let after: string | undefined;
      try {
        const answer = await host.ask(asked);
        if (!isTransient(answer.status) || attempt >= attempts) return answer;
        discard(answer);
        after = answer.headers['retry-after'];
      } catch (error) {
        if (attempt >= attempts || !Failure.is(error, 'Unavailable') || isFinal(error)) throw error;
      }
      await pause(pauseBefore(attempt, backoff, after), asked.signal);
    }
  }

  /** What the first host that can do it gives. @throws Failure the last host's, since that is the registry itself; NotFound only when all say so or cannot be asked */
  async each<T>(
    capability: Capability,
    signal: AbortSignal,
    work: (host: HostClient) => Promise<T>,
    last: ReadonlySet<HostClient> = new Set(),
  ): Promise<T> {
    const able = this.#hosts.filter((host) => host.can(capability));
    const hosts = [...able.filter((host) => !last.has(host)), ...able.filter((host) => last.has(host))];
    let failed: unknown;
    for (const host of hosts) {
      try {
        return await work(host);
      } catch (error) {
        signal.throwIfAborted();
        failed = error;
      }
    }
    throw failed ?? new Failure('NotFound', `${this.#name}: no host is configured that may ${capability}: not found`);
  }

  get #name(): string {
    return formatReference(this.reference);
  }

  #unexpected(answer: Answer, method: string): Failure {
    return unexpectedStatus(answer, method, this.#name);
  }
}

/** What a status that was not wanted says, with the registry's own words where it has some. */
export function unexpectedStatus(answer: Answer, method: string, name: string): Failure {
  discard(answer);
  const { status } = answer;
  const codes: Readonly<Record<number, FailureCode>> = {
    401: 'Unauthenticated',
    403: 'PermissionDenied',
    404: 'NotFound',
  };
  const code: FailureCode = codes[status] ?? (isTransient(status) ? 'Unavailable' : 'Unknown');
  if (status === 404) return new Failure('NotFound', `${name}: not found`);
  const suffix = code.replace(/([a-z])([A-Z])/g, '$1 $2').toLowerCase();
  return new Failure(
    code,
    `${name}: unexpected status from ${method} request to ${shown(answer.url)}: ${status}: ${suffix}`,
  );
}

function isFinal(error: unknown): boolean {
  const code = ((error as Failure).cause as NodeJS.ErrnoException | undefined)?.code ?? '';
  // A certificate that is not believed now will not be in a second.
  return /CERT|SIGNATURE|SELF_SIGNED|ALTNAME|UNABLE_TO_VERIFY/.test(code) || code === 'ENOTFOUND';
}

function fromHeaders(answer: Answer, wanted: Digest | undefined): Resolved | undefined {
  const mediaType = manifestType(answer);
  if (isPage(answer)) throw unexpectedType(answer);
  const said = answer.headers['docker-content-digest'];
  const digest = wanted ?? (typeof said === 'string' && isDigest(said) ? said : undefined);
  const size = Number(answer.headers['content-length'] ?? Number.NaN);
  if (mediaType === undefined || digest === undefined || !Number.isSafeInteger(size) || size <= 0) return undefined;
  if (wanted !== undefined && typeof said === 'string' && said !== wanted) return undefined;
  if (isSchema1(mediaType))
    throw new Failure(
      'InvalidArgument',
      `${shown(answer.url)}: schema 1 image manifests are no longer supported: invalid argument`,
    );
  if (size > documentLimit)
    throw new Failure(
      'ResourceExhausted',
      `${shown(answer.url)}: has ${size} bytes, the limit is ${documentLimit}: resource exhausted`,
    );
  return { mediaType, digest, size, bytes: undefined };
}

/** The type of a manifest or index that the headers give; undefined for one that says nothing. */
function manifestType(answer: Answer): string | undefined {
  const type = typeOf(answer);
  return isManifest(type) || isIndex(type) || isSchema1(type) ? type : undefined;
}

function typeOf(answer: Answer): string {
  return (answer.headers['content-type'] ?? '').split(';', 1)[0]!.trim().toLowerCase();
}

function isPage(answer: Answer): boolean {
  return ['text/html', 'application/xhtml+xml'].includes(typeOf(answer));
}

/** Of a document whose host calls all of them `application/json`. */
function ownType(bytes: Uint8Array): string | undefined {
  try {
    const { mediaType } = JSON.parse(Buffer.from(bytes).toString('utf8')) as { mediaType?: unknown };
    return typeof mediaType === 'string' ? mediaType : undefined;
  } catch {
    return undefined;
  }
}

export function unexpectedType(answer: Answer): Failure {
  discard(answer);
  return new Failure(
    'InvalidArgument',
    `${shown(answer.url)}: unexpected media type ${JSON.stringify(typeOf(answer).slice(0, 100))}: invalid argument`,
  );
}
