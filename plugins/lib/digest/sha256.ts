/**
 * SHA-256 (FIPS 180-4) whose state lies in shared memory, so that a thread can go on where another has stopped, which hashes of node:crypto cannot. By OpenSSL's
 * SHA256_Update(3) as Node brings it: as fast as node:crypto, whose calls end there as well.
 */

import { createHash } from 'node:crypto';
import { type ForeignLibrary, ownLibrary } from 'troupe/sys';
import { NativeMemory } from '../compression/memory.ts';

/** Bytes: SHA256_CTX has 112; behind it the digest. */
export const SHA256_STATE = 160;
const DIGEST = 128;
const DIGEST_BYTES = 32;

interface Sha256 {
  readonly library: ForeignLibrary;
  init(state: bigint): number;
  update(state: bigint, bytes: bigint, length: number): number;
  final(digest: bigint, state: bigint): number;
}

let loaded: Sha256 | null | undefined;

function load(): Sha256 | undefined {
  if (loaded === undefined) loaded = open() ?? null;
  return loaded ?? undefined;
}

function open(): Sha256 | undefined {
  try {
    const library = ownLibrary();
    const sha256: Sha256 = {
      library,
      init: library.bind('SHA256_Init', 'int', ['uint64_t']),
      update: library.bind('SHA256_Update', 'int', ['uint64_t', 'uint64_t', 'size_t']),
      final: library.bind('SHA256_Final', 'int', ['uint64_t', 'uint64_t']),
    };
    return works(sha256) ? sha256 : undefined;
  } catch {
    // A Node that was linked against a shared library.
    return undefined;
  }
}

/** Whether there is one in this process: the same answer in each of its threads. */
export function sharedSha256Available(): boolean {
  return load() !== undefined;
}

export class SharedSha256 {
  readonly #sha256: Sha256;
  readonly #memory: NativeMemory;
  readonly #at: number;
  readonly #state: bigint;

  /** @param at offset in `buffer` of SHA256_STATE bytes, on a multiple of 8 */
  constructor(buffer: SharedArrayBuffer, at: number) {
    this.#sha256 = load()!;
    this.#memory = new NativeMemory(this.#sha256.library, buffer);
    this.#at = at;
    this.#state = this.#memory.address(at);
  }

  reset(): void {
    this.#sha256.init(this.#state);
  }

  /** Of the same buffer. */
  update(offset: number, length: number): void {
    this.#sha256.update(this.#state, this.#memory.address(offset), length);
  }

  /** In lower-case hexadecimal, once. */
  hex(): string {
    this.#sha256.final(this.#state + BigInt(DIGEST), this.#state);
    return this.#memory.bytes.toString('hex', this.#at + DIGEST, this.#at + DIGEST + DIGEST_BYTES);
  }
}

/** That the state fits is believed of the library's version; what lies behind it must be as it was, and the digest right. */
function works(sha256: Sha256): boolean {
  loaded = sha256;
  const bytes = Buffer.from('some bytes to hash, more of them than one block has, in two pieces of odd lengths');
  const buffer = new SharedArrayBuffer(1024);
  const memory = Buffer.from(buffer as unknown as ArrayBuffer).fill(0xa5);
  const from = memory.length - bytes.copy(memory, memory.length - bytes.length);
  const hash = new SharedSha256(buffer, 0);
  hash.reset();
  hash.update(from, 7);
  hash.update(from + 7, bytes.length - 7);
  const kept = memory.subarray(DIGEST - 16, DIGEST).every((byte) => byte === 0xa5);
  return kept && hash.hex() === createHash('sha256').update(bytes).digest('hex');
}
