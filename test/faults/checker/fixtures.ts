/** The images that clients import, described by whoever made them: what must be there when such an image is. */
import { readFileSync } from 'node:fs';

export interface Fixtures {
  readonly images: readonly ImageFixture[];
  /** Blobs that an import brings along and nothing refers to, like the archive's index.json. */
  readonly loose: readonly string[];
}

export interface ImageFixture {
  /** What an image's record points at. */
  readonly target: string;
  /** Everything below the target, itself included: digest → bytes. */
  readonly blobs: Readonly<Record<string, number>>;
  /** From the bottom up. */
  readonly layers: readonly LayerFixture[];
}

export interface LayerFixture {
  readonly chainId: string;
  /** Regular files by path, without leading slash: bytes, and sha256 in hex. */
  readonly files: Files;
}

export type Files = Readonly<Record<string, readonly [size: number, sha256: string]>>;

export function readFixtures(path: string): Fixtures {
  return JSON.parse(readFileSync(path, 'utf8')) as Fixtures;
}
