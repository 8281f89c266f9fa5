/** Which paths of the root the layer at hand has written: whiteouts spare them. */

import type { ByteString } from './name.ts';
import { listNames } from './remove.ts';

export class OwnPaths {
  /** undefined: the root was empty, so everything in it is the layer's. */
  readonly #paths: Set<ByteString> | undefined;

  /** @param root a descriptor of the root before the first entry */
  constructor(root: number) {
    this.#paths = listNames(root).length === 0 ? undefined : new Set(['']);
  }

  /** True when nothing in the root can be of a lower layer. */
  get everything(): boolean {
    return this.#paths === undefined;
  }

  has(path: ByteString): boolean {
    return this.#paths === undefined || this.#paths.has(path);
  }

  /** `path` was written, so its parents are of the layer too, whoever made them. */
  add(path: ByteString): void {
    if (this.#paths === undefined) return;
    for (let own = path; !this.#paths.has(own); own = own.slice(0, Math.max(own.lastIndexOf('/'), 0))) {
      this.#paths.add(own);
    }
  }
}
