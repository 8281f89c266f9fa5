/**
 * Events to subscribers: numbered, the newest kept for streams that move to another generation, one bounded queue per subscriber.
 *
 *   publish ─→ number ─→ recent (ring) ─┬→ filter ─→ queue ─→ stream
 *                                       └→ filter ─→ queue ─→ stream
 *
 * A subscriber that does not read costs at most its queue and delays nobody.
 */
import { randomUUID } from 'node:crypto';
import { Failure } from 'troupe/plugin';
import type { Filter } from '../lib/filter/filter.ts';
import type { Event } from './envelope.ts';
import { eventAdaptor } from './fields.ts';

/** Of a subscriber's queue, and of the ring. */
export interface Bounds {
  readonly events: number;
  /** Bytes of the messages, with what an envelope has besides. */
  readonly bytes: number;
}

export const defaultBounds: Bounds = { events: 10_000, bytes: 8 * 1024 * 1024 };

/** A published event. */
export interface Numbered {
  /** 1 for the first of this exchange. */
  readonly sequence: number;
  readonly event: Event;
  readonly size: number;
}

/** What the next generation goes on from. */
export interface ExchangeState {
  readonly life: string;
  readonly sequence: number;
  readonly recent: readonly Numbered[];
}

export class Exchange {
  /** Tells cursors of this exchange from those of one that died. */
  readonly #life: string;
  readonly #bounds: Bounds;
  #sequence: number;
  readonly #recent: Fifo;
  readonly #subscriptions = new Set<Subscription>();

  constructor(state?: ExchangeState, bounds: Bounds = defaultBounds) {
    this.#life = state?.life ?? randomUUID();
    this.#sequence = state?.sequence ?? 0;
    this.#bounds = bounds;
    this.#recent = new Fifo(state?.recent);
  }

  publish(event: Event): Numbered {
    this.#sequence += 1;
    const size =
      event.event.value.byteLength + event.event.typeUrl.length + event.topic.length + event.namespace.length + 64;
    const numbered = { sequence: this.#sequence, event, size };
    this.#recent.push(numbered);
    while (this.#recent.exceeds(this.#bounds)) this.#recent.shift();
    if (this.#subscriptions.size === 0) return numbered;
    const adaptor = eventAdaptor(event);
    for (const subscription of this.#subscriptions) {
      if (subscription.filter(adaptor)) subscription.offer(numbered);
    }
    return numbered;
  }

  /**
   * From now on, after what of `missed` it asks for; or from after `cursor`, which an earlier subscription gave. `moving` is told where the next exchange has to go on
   * from: should that be among what was missed, what came between it and the subscription comes along.
   * @throws ResourceExhausted when what followed the cursor is no longer kept
   */
  subscribe(
    filter: Filter,
    cursor = '',
    moving: (cursor: string) => void = () => {},
    missed: Iterable<Numbered> = [],
  ): Subscription {
    const leave = () => this.#subscriptions.delete(subscription);
    const subscription = new Subscription(filter, this.#bounds, leave, moving);
    if (cursor === '') {
      for (const numbered of missed) if (filter(eventAdaptor(numbered.event))) subscription.offer(numbered);
    } else {
      const [life, number] = cursor.split(' ');
      // A cursor of an exchange that crashed: all that this one has published came after it, or is told of again.
      const after = life === this.#life ? Number(number) : 0;
      const oldest = this.#recent.first?.sequence ?? this.#sequence + 1;
      if (life === this.#life && after + 1 < oldest) throw slow(after);
      for (const numbered of this.#recent) {
        if (numbered.sequence > after && filter(eventAdaptor(numbered.event))) subscription.offer(numbered);
      }
    }
    this.#subscriptions.add(subscription);
    return subscription;
  }

  /** For `subscribe` after a move. Without a sequence: after all that was published. */
  cursor(sequence = this.#sequence): string {
    return `${this.#life} ${sequence}`;
  }

  get subscribers(): number {
    return this.#subscriptions.size;
  }

  /**
   * For the next exchange. Subscribers are told where they are, those that have heard nothing for long because nothing was for them too; of the recent events only those
   * that one of them still waits for go along, since calls are held until the next exchange has read them.
   */
  state(): ExchangeState {
    let after = this.#sequence;
    for (const subscription of this.#subscriptions) {
      const behind = subscription.waiting === undefined ? this.#sequence : subscription.waiting - 1;
      subscription.moving(this.cursor(behind));
      after = Math.min(after, behind);
    }
    return {
      life: this.#life,
      sequence: this.#sequence,
      recent: [...this.#recent].filter(({ sequence }) => sequence > after),
    };
  }
}

/** The queue of one subscriber. One reader at a time. */
export class Subscription {
  readonly filter: Filter;
  readonly moving: (cursor: string) => void;
  readonly #bounds: Bounds;
  readonly #leave: () => void;
  readonly #queue = new Fifo();
  #last = 0;
  #failure: Failure | undefined;
  #wake: (() => void) | undefined;

  constructor(filter: Filter, bounds: Bounds, leave: () => void, moving: (cursor: string) => void) {
    this.filter = filter;
    this.moving = moving;
    this.#bounds = bounds;
    this.#leave = leave;
  }

  /** Number of the first event that has not been taken. */
  get waiting(): number | undefined {
    return this.#queue.first?.sequence;
  }

  offer(numbered: Numbered): void {
    if (this.#failure !== undefined) return;
    // One event alone is let through however big it is.
    if (
      this.#queue.length > 0 &&
      this.#queue.exceeds({ events: this.#bounds.events - 1, bytes: this.#bounds.bytes - numbered.size })
    ) {
      this.#failure = slow(this.#last);
      this.#queue.clear();
      this.#leave();
    } else {
      this.#queue.push(numbered);
    }
    this.#wake?.();
  }

  /** The next event, in order; waits for one. @throws ResourceExhausted when the reader was too slow; the signal's reason. */
  async next(signal: AbortSignal): Promise<Numbered> {
    for (;;) {
      if (this.#failure !== undefined) throw this.#failure;
      const numbered = this.#queue.shift();
      if (numbered !== undefined) {
        this.#last = numbered.sequence;
        return numbered;
      }
      signal.throwIfAborted();
      await new Promise<void>((resolve) => {
        const wake = (): void => {
          signal.removeEventListener('abort', wake);
          this.#wake = undefined;
          resolve();
        };
        this.#wake = wake;
        signal.addEventListener('abort', wake);
      });
    }
  }

  close(): void {
    this.#queue.clear();
    this.#leave();
  }
}

function slow(last: number): Failure {
  return new Failure('ResourceExhausted', `slow consumer, last sequence ${last}: resource exhausted`);
}

/** First in, first out; knows its bytes. */
class Fifo {
  #items: Numbered[];
  #head = 0;
  #bytes = 0;

  constructor(items: readonly Numbered[] = []) {
    this.#items = [...items];
    for (const { size } of items) this.#bytes += size;
  }

  get length(): number {
    return this.#items.length - this.#head;
  }

  get first(): Numbered | undefined {
    return this.#items[this.#head];
  }

  exceeds({ events, bytes }: Bounds): boolean {
    return this.length > events || (this.#bytes > bytes && this.length > 0);
  }

  push(item: Numbered): void {
    this.#items.push(item);
    this.#bytes += item.size;
  }

  shift(): Numbered | undefined {
    const item = this.first;
    if (item === undefined) return undefined;
    this.#head += 1;
    this.#bytes -= item.size;
    // Moves what is left to the front now and then, so that shifting stays cheap and nothing consumed is held for long.
    if (this.#head > 1024 || this.#head === this.#items.length) {
      this.#items = this.#items.slice(this.#head);
      this.#head = 0;
    }
    return item;
  }

  clear(): void {
    this.#items = [];
    this.#head = 0;
    this.#bytes = 0;
  }

  *[Symbol.iterator](): Generator<Numbered> {
    for (let at = this.#head; at < this.#items.length; at++) yield this.#items[at]!;
  }
}
