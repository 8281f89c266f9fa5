/**
 * Headers that both ends of a link keep. Most calls on a link repeat all of one before but its deadline: spelled out they are seventy bytes of strings that one end
 * encodes and the other decodes, by number two. One table for each priority, since frames keep their order only within one.
 */
import type { CallMeta } from './frames.ts';

/** Numbers of a table. With all in use the oldest is given anew: leases come and go. */
export const keptHeaders = 64;

/** What repeats. */
export interface KeptHeader {
  readonly method: string;
  readonly flags: number;
  readonly from: string;
  readonly namespace: string;
  readonly lease: string;
}

interface Numbered extends KeptHeader {
  readonly number: number;
}

/** The caller's table: what the callee has been told to keep. */
export class HeaderNumbers {
  readonly #byMethod = new Map<string, Numbered[]>();
  readonly #inUse: Numbered[] = [];
  #next = 0;

  /** The number of such a header; -1: it has none. */
  find(method: string, flags: number, meta: CallMeta): number {
    const same = this.#byMethod
      .get(method)
      ?.find(
        (each) =>
          each.namespace === meta.namespace &&
          each.lease === meta.lease &&
          each.flags === flags &&
          each.from === meta.from,
      );
    return same === undefined ? -1 : same.number;
  }

  /** Gives it one. */
  keep(method: string, flags: number, { from, namespace, lease }: CallMeta): number {
    const number = this.#next;
    this.#next = (number + 1) % keptHeaders;
    const oldest = this.#inUse[number];
    if (oldest !== undefined) this.#forget(oldest);
    const kept = { number, method, flags, from, namespace, lease };
    this.#inUse[number] = kept;
    const others = this.#byMethod.get(method);
    if (others === undefined) this.#byMethod.set(method, [kept]);
    else others.push(kept);
    return number;
  }

  #forget(kept: Numbered): void {
    const others = this.#byMethod.get(kept.method)!.filter((each) => each !== kept);
    if (others.length === 0) this.#byMethod.delete(kept.method);
    else this.#byMethod.set(kept.method, others);
  }
}
