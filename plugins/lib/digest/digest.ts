/**
 * Digests as the OCI image spec writes them: `sha256:` and the hash in lower-case hexadecimal.
 *
 * A {@link Digest} has been checked: its algorithm is one we compute, its hex has that algorithm's length. Both parts are
 * therefore safe as names of a directory and a file.
 */
import { createHash, type Hash } from 'node:crypto';
import { Failure } from 'troupe/plugin';

declare const checked: unique symbol;
export type Digest = string & { readonly [checked]: true };

/** Algorithm → length of its hash in hexadecimal. */
const algorithms = { sha256: 64, sha384: 96, sha512: 128 } as const;
export type DigestAlgorithm = keyof typeof algorithms;

const hexadecimal = /^[0-9a-f]+$/;
// What the image spec allows in general; a digest of this form with an algorithm that we do not know is unsupported, not malformed.
const general = /^[A-Za-z0-9]+(?:[.+_-][A-Za-z0-9]+)*:[A-Za-z0-9=_-]+$/;

/** @throws Failure InvalidArgument: `invalid checksum digest format`, `invalid checksum digest length` or `unsupported digest algorithm`. */
export function parseDigest(text: string): Digest {
  const problem = digestProblem(text);
  if (problem !== undefined) throw new Failure('InvalidArgument', `${problem}: invalid argument`);
  return text as Digest;
}

export function isDigest(text: string): text is Digest {
  return digestProblem(text) === undefined;
}

/** What is wrong with it, without the class's suffix; undefined when it is a digest. */
export function digestProblem(text: string): string | undefined {
  const colon = text.indexOf(':');
  if (colon <= 0 || colon === text.length - 1) return 'invalid checksum digest format';
  const algorithm = text.slice(0, colon);
  if (!Object.hasOwn(algorithms, algorithm))
    return text.length < 1024 && general.test(text) ? 'unsupported digest algorithm' : 'invalid checksum digest format';
  if (text.length - colon - 1 !== algorithms[algorithm as DigestAlgorithm]) return 'invalid checksum digest length';
  return hexadecimal.test(text.slice(colon + 1)) ? undefined : 'invalid checksum digest format';
}

export function digestAlgorithm(digest: Digest): DigestAlgorithm {
  return digest.slice(0, digest.indexOf(':')) as DigestAlgorithm;
}

/** The part after the colon. */
export function digestHex(digest: Digest): string {
  return digest.slice(digest.indexOf(':') + 1);
}

/** The digest of a whole piece of content. */
export function digestOf(bytes: Uint8Array | string, algorithm: DigestAlgorithm = 'sha256'): Digest {
  return `${algorithm}:${createHash(algorithm).update(bytes).digest('hex')}` as Digest;
}

/** A digest over bytes that come in pieces; {@link Digester.digest} may be asked at any time and does not end it. */
export class Digester {
  readonly algorithm: DigestAlgorithm;
  #hash: Hash;
  #digest: Digest | undefined;
  /** Bytes seen. */
  size = 0;

  constructor(algorithm: DigestAlgorithm = 'sha256') {
    this.algorithm = algorithm;
    this.#hash = createHash(algorithm);
  }

  update(bytes: Uint8Array): void {
    this.#digest = undefined;
    this.#hash.update(bytes);
    this.size += bytes.length;
  }

  digest(): Digest {
    this.#digest ??= `${this.algorithm}:${this.#hash.copy().digest('hex')}` as Digest;
    return this.#digest;
  }

  /** Another one that has seen the same bytes. */
  copy(): Digester {
    const copy = new Digester(this.algorithm);
    copy.#hash = this.#hash.copy();
    copy.size = this.size;
    return copy;
  }
}
