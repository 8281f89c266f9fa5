/**
 * Blobs on their way, so many at a time over all pulls, in the order in which they came.
 *
 * Connections are opened for what they bring: the next one only while those that are open leave some of the line. Blobs that share a line which one of them
 * would fill all come at its end, and until then there is nothing to unpack: 0.3 s of a pull of 0.5 GB from near by (measured).
 */
import { Slots } from './together.ts';

interface Line {
  /** Between two looks, ms. */
  readonly everyMs: number;
  /** Bytes a second that count as a line in use. */
  readonly enough: number;
}

const line: Line = { everyMs: 30, enough: 64 << 20 };

export class Downloads {
  readonly #slots: Slots;
  readonly #line: Line;
  readonly #waiting: (() => void)[] = [];
  #running = 0;
  #came = 0;
  #since = 0;
  #timer: NodeJS.Timeout | undefined;

  /** @param limit 0: any number */
  constructor(limit: number, options: Line = line) {
    this.#slots = new Slots(limit);
    this.#line = options;
  }

  /** @param work is to say how many bytes have come */
  use<T>(signal: AbortSignal, work: (came: (bytes: number) => void) => Promise<T>): Promise<T> {
    return this.#slots.use(signal, async () => {
      await this.#begin(signal);
      try {
        return await work((bytes) => {
          this.#came += bytes;
        });
      } finally {
        this.#running--;
        if (this.#running === 0) this.#admit();
      }
    });
  }

  async #begin(signal: AbortSignal): Promise<void> {
    if (this.#running === 0) {
      this.#running++;
      return;
    }
    const admitted = Promise.withResolvers<void>();
    const admit = (): void => {
      this.#running++;
      admitted.resolve();
    };
    const leave = (): void => {
      const at = this.#waiting.indexOf(admit);
      if (at < 0) return;
      this.#waiting.splice(at, 1);
      admitted.reject(signal.reason);
    };
    this.#waiting.push(admit);
    this.#watch();
    signal.addEventListener('abort', leave, { once: true });
    try {
      await admitted.promise;
    } finally {
      signal.removeEventListener('abort', leave);
    }
  }

  #admit(): void {
    this.#waiting.shift()?.();
    if (this.#waiting.length > 0) return;
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  #watch(): void {
    if (this.#timer !== undefined) return;
    this.#came = 0;
    this.#since = performance.now();
    this.#timer = setInterval(() => {
      const now = performance.now();
      const slow = (this.#came * 1000) / (now - this.#since) < this.#line.enough;
      this.#came = 0;
      this.#since = now;
      if (slow) this.#admit();
    }, this.#line.everyMs);
  }
}
