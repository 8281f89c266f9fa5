/**
 * The stable name of a plugin, as a caller sees it: the link to the generation that serves now, and the calls that wait in line while there is none (not yet
 * asked for, crashed, or held during a reload), within the bounds below. They begin in the order in which they were made, whatever order messages of different
 * ports come in: a caller may hear of the new generation before it hears what the old one has refused.
 */
import { Failure } from '../sdk/failure.ts';
import type { CallerLink, CallSink } from './caller.ts';

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
/** How long calls wait for those before them to come back from a generation that has let go: it does nothing else by then. One that hangs keeps nobody for longer. */
const defaultReturningMs = 1000;
/** From one look to the next for those of them that were begun after all. */
const lookMs = 5;

/** A call that stands in line. */
export interface Waiting {
  /** In the order in which its caller's calls were made. */
  readonly number: number;
  /** By the generation that it was sent to last. */
  readonly begun: boolean;
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
  /** Calls on the link before that nobody had begun when it was left. They are refused, and were made before all that wait: the line goes on when they are in it. */
  readonly #returning = new Set<Waiting>();
  readonly #returningMs: number;
  #look: NodeJS.Timeout | undefined;

  constructor(name: string, introducer: Introducer, returningMs = defaultReturningMs) {
    this.name = name;
    this.#introducer = introducer;
    this.#returningMs = returningMs;
  }

  /** Open calls and waiting ones. */
  get pending(): number {
    return this.#waiting.size + (this.#link?.pending ?? 0);
  }

  /** The link for a call whose turn it is; undefined: it is in line. @throws Failure when nothing will serve it, or the line is too long */
  admit(call: Waiting): CallerLink | undefined {
    if (this.#failure !== undefined) throw this.#failure;
    const link = this.#reach();
    if (link !== undefined && this.#waiting.size === 0 && this.#returning.size === 0) return link;
    this.#wait(call);
    // The last that was waited for may be this one.
    this.#advance();
    return undefined;
  }

  /** Another generation begins to serve. */
  relink(link: CallerLink): void {
    // The link before stays open: calls that run on its generation finish there.
    this.#leave();
    this.#link = link;
    this.#links += 1;
    this.#asked = false;
    this.#failure = undefined;
    this.#advance();
  }

  /** It has no generation and gets none for now (failed, stopped, disabled): those who wait are told. */
  down(failure: Failure): void {
    this.#leave();
    this.#asked = false;
    this.#failure = failure;
    for (const call of this.#emptied()) call.give(failure);
  }

  /** The generation behind the link takes no more calls, this one for a start; the kernel tells when the next one does. */
  refused(link: CallerLink, call: Waiting): void {
    this.#returning.delete(call);
    if (this.#link !== link) return;
    this.#leave();
    this.#reach();
  }

  /** Nobody waits for the call any more. */
  settled(call: Waiting): void {
    if (this.#waiting.delete(call)) this.#bytes -= call.bytes;
    if (this.#returning.delete(call)) this.#advance();
  }

  /** The link that takes calls now, asked for when there is none. */
  #reach(): CallerLink | undefined {
    if (this.#link !== undefined && !this.#link.closed) return this.#link;
    this.#link = undefined;
    this.#ask();
    // Set when the introduction was made at once.
    return this.#link;
  }

  #leave(): void {
    // All calls of a caller's links are its own.
    for (const call of this.#link?.undispatched ?? []) this.#returning.add(call as CallSink & Waiting);
    this.#link = undefined;
    if (this.#returning.size === 0 || this.#look !== undefined) return;
    const end = performance.now() + this.#returningMs;
    this.#look = setInterval(() => {
      const late = performance.now() > end;
      for (const call of this.#returning) if (late || call.begun) this.#returning.delete(call);
      if (this.#returning.size > 0) return;
      clearInterval(this.#look);
      this.#look = undefined;
      this.#advance();
    }, lookMs);
  }

  #wait(call: Waiting): void {
    if (this.#waiting.size >= waitingCalls || this.#bytes + call.bytes > waitingBytes) {
      throw new Failure(
        'ResourceExhausted',
        `plugin ${this.name} is restarting and ${this.#waiting.size} calls wait for it: resource exhausted`,
      );
    }
    this.#waiting.add(call);
    this.#bytes += call.bytes;
  }

  /** Sends what waits, in the order in which it was made, if there is where to and nothing before it is still to come back. */
  #advance(): void {
    if (this.#returning.size > 0 || this.#waiting.size === 0 || this.#link === undefined) return;
    for (const call of this.#emptied().sort((one, other) => one.number - other.number)) call.begin();
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
