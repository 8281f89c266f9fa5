/**
 * The stable name of a plugin, as a caller sees it: the link to the generation that serves now, and the calls that wait in line while there is none (not yet
 * asked for, crashed, or held during a reload), within the bounds below.
 */
import { Failure } from '../sdk/failure.ts';
import type { CallerLink } from './caller.ts';

export interface Introducer {
  /**
   * Asks the kernel for a link to the generation that serves `slot` now; the answer comes as {@link Slot.relink}.
   * @param links how many have come for it: when another is on its way, that is the answer. Two to one generation would not keep calls in order.
   */
  introduce(slot: string, links: number): void;
}

/** Calls and bytes that may wait for a slot that has no generation. Above it calls fail at once. */
const waitingCalls = 4096;
const waitingBytes = 64 * 1024 * 1024;

/** A call that stands in line. */
export interface Waiting {
  /** What it holds while it waits. */
  readonly bytes: number;
  /** It may go. */
  begin(): void;
  /** It need not wait any more. */
  give(failure: Failure): void;
}

export class Slot {
  readonly name: string;
  readonly #introducer: Introducer;
  #link: CallerLink | undefined;
  /** How many have come. */
  #links = 0;
  #asked = false;
  /** The kernel has said that nothing will serve it until it says otherwise. */
  #failure: Failure | undefined;
  readonly #waiting = new Set<Waiting>();
  #bytes = 0;

  constructor(name: string, introducer: Introducer) {
    this.name = name;
    this.#introducer = introducer;
  }

  /** Open calls and waiting ones. */
  get pending(): number {
    return this.#waiting.size + (this.#link?.pending ?? 0);
  }

  /** The link that takes calls now, asked for when there is none; undefined: wait. @throws Failure when nothing will serve it */
  reach(): CallerLink | undefined {
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#link !== undefined && !this.#link.closed) return this.#link;
    this.#link = undefined;
    this.#ask();
    // Set when the introduction was made at once.
    return this.#link;
  }

  /** Another generation begins to serve. */
  relink(link: CallerLink): void {
    // The link before stays open: calls that run on its generation finish there.
    this.#link = link;
    this.#links += 1;
    this.#asked = false;
    this.#failure = undefined;
    for (const call of this.#emptied()) call.begin();
  }

  /** It has no generation and gets none for now (failed, stopped, disabled): those who wait are told. */
  down(failure: Failure): void {
    this.#link = undefined;
    this.#asked = false;
    this.#failure = failure;
    for (const call of this.#emptied()) call.give(failure);
  }

  /** The generation behind the link takes no more calls; the kernel tells when the next one does. */
  refused(link: CallerLink): void {
    if (this.#link !== link) return;
    this.#link = undefined;
    this.#ask();
  }

  /** @throws Failure ResourceExhausted */
  wait(call: Waiting): void {
    if (this.#waiting.size >= waitingCalls || this.#bytes + call.bytes > waitingBytes) {
      throw new Failure(
        'ResourceExhausted',
        `plugin ${this.name} is restarting and ${this.#waiting.size} calls wait for it: resource exhausted`,
      );
    }
    this.#waiting.add(call);
    this.#bytes += call.bytes;
  }

  unwait(call: Waiting): void {
    if (this.#waiting.delete(call)) this.#bytes -= call.bytes;
  }

  #ask(): void {
    if (this.#asked) return;
    this.#asked = true;
    this.#introducer.introduce(this.name, this.#links);
  }

  #emptied(): Waiting[] {
    const waiting = [...this.#waiting];
    this.#waiting.clear();
    this.#bytes = 0;
    return waiting;
  }
}
