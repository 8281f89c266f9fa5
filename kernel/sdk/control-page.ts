/**
 * Memory that a thread and its watchers both see, so that they can tell a busy thread from a dead one without a message. Workers have one, and so has
 * the kernel's own thread, which the workers watch in turn (kernel-watch.ts).
 *
 *     i32[0]   beats       counts up every 200 ms while the event loop turns
 *     i32[1]   busy depth  number of nested busy() sections the thread is in
 *     f64[1]   busy until  milliseconds since the epoch by which the innermost section has promised to end
 *     f64[2]   busy since  when it was entered
 *     i32[6]   taken       calls and messages that have been handed to a plugin's code
 *     i32[7]   waiting     batches that have come and have not been looked at, at the last beat
 *     u8[32]   length of   what it is busy with, in UTF-8, from u8[33] on
 *     i32[30]  letting go  1 from the moment that the kernel wants no more calls taken until the worker has heard that it is to hold
 *     i32[31]  thread id   as in /proc/self/task; 0 until it is known
 */
export const beatMs = 200;
export const pageBytes = 128;

const takenAt = 6;
const waitingAt = 7;
const textAt = 32;
const threadIdAt = pageBytes / 4 - 1;
const lettingGoAt = threadIdAt - 1;
const maxText = lettingGoAt * 4 - textAt - 1;

export interface Busy {
  readonly what: string;
  /** Milliseconds since the epoch. */
  readonly since: number;
  readonly until: number;
}

export interface PageView {
  readonly beats: number;
  readonly taken: number;
  readonly waiting: number;
  /** What it says that it is inside of, whether or not the time that it promised is over. */
  readonly busy: Busy | undefined;
}

/** What a watcher sees. Text and times are written by another thread meanwhile: they are for people, and for limits that bear a torn read. */
export function look(page: SharedArrayBuffer): PageView {
  const numbers = new Int32Array(page);
  const depth = Atomics.load(numbers, 1);
  return {
    beats: Atomics.load(numbers, 0),
    taken: Atomics.load(numbers, takenAt),
    waiting: Atomics.load(numbers, waitingAt),
    busy: depth > 0 ? busyOf(page) : undefined,
  };
}

/** Of the thread whose page it is, to Linux; 0 before it has said so. */
export function threadIdOf(page: SharedArrayBuffer): number {
  return Atomics.load(new Int32Array(page), threadIdAt);
}

/** Ahead of the message that says so, which waits until the worker has gone through all that has come before it. */
export function letGo(page: SharedArrayBuffer): void {
  Atomics.store(new Int32Array(page), lettingGoAt, 1);
}

function busyOf(page: SharedArrayBuffer): Busy {
  const [, until, since] = new Float64Array(page, 0, 3);
  const bytes = new Uint8Array(page);
  const length = Math.min(bytes[textAt]!, maxText);
  // A decoder does not read shared memory.
  const what = new TextDecoder().decode(bytes.slice(textAt + 1, textAt + 1 + length));
  return { what, since: since!, until: until! };
}

export class ControlPage {
  readonly #numbers: Int32Array;
  readonly #times: Float64Array;
  readonly #bytes: Uint8Array;
  readonly #sections: Busy[] = [];

  constructor(page: SharedArrayBuffer) {
    this.#numbers = new Int32Array(page);
    this.#times = new Float64Array(page, 0, 3);
    this.#bytes = new Uint8Array(page);
  }

  /** Starts the beat, with `also` at each. The timer does not keep the thread alive. Returns what stops it. */
  beat(also: () => void = () => {}): () => void {
    const timer = setInterval(() => {
      this.turned();
      also();
    }, beatMs);
    timer.unref();
    return () => clearInterval(timer);
  }

  /** One beat. A thread that has not beaten yet is taken to be loading, and not for hanging, however long. */
  turned(): void {
    Atomics.add(this.#numbers, 0, 1);
  }

  /** A call or a message is handed to the plugin's code now. */
  take(): void {
    Atomics.add(this.#numbers, takenAt, 1);
  }

  /** Not atomic, as every call asks: one call more or less is taken. */
  get lettingGo(): boolean {
    return this.#numbers[lettingGoAt] === 1;
  }

  /** It holds now by its own knowledge. */
  holds(): void {
    Atomics.store(this.#numbers, lettingGoAt, 0);
  }

  set threadId(id: number) {
    Atomics.store(this.#numbers, threadIdAt, id);
  }

  set waiting(batches: number) {
    Atomics.store(this.#numbers, waitingAt, batches);
  }

  busy<T>(what: string, limitMs: number, work: () => T): T {
    const since = Date.now();
    this.#sections.push({ what, since, until: since + limitMs });
    this.#show();
    Atomics.add(this.#numbers, 1, 1);
    try {
      return work();
    } finally {
      this.#sections.pop();
      Atomics.sub(this.#numbers, 1, 1);
      this.#show();
    }
  }

  #show(): void {
    const section = this.#sections.at(-1);
    if (section === undefined) return;
    this.#times[1] = section.until;
    this.#times[2] = section.since;
    const text = new TextEncoder().encode(section.what).subarray(0, maxText);
    this.#bytes[textAt] = text.byteLength;
    this.#bytes.set(text, textAt + 1);
  }
}
