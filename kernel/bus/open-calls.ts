/**
 * Calls that are open, by a number that only grows. Most are short, so an array that is walked round and round has all but those that stay for long.
 *
 * A Map makes itself a new table every so many calls, and each table refers to the next. Once one of them counts as old for V8's collector, all tables after it stay
 * until the whole heap is marked, and all calls that were ever in them: five times what was open, copied twice each (measured).
 */
const firstSlots = 8;
const mostSlots = 4096;

export class OpenCalls<T extends { readonly id: number }> {
  #slots: (T | undefined)[] = new Array(firstSlots).fill(undefined);
  /** How many are in the slots. */
  #recent = 0;
  /** Those that were open when their slot's turn came again. */
  readonly #lasting = new Map<number, T>();
  readonly #shift: number;

  /** @param shift how many of a number's last bits are the same in all: 1 for the odd ones that an HTTP/2 client gives its streams */
  constructor(shift = 0) {
    this.#shift = shift;
  }

  get size(): number {
    return this.#recent + this.#lasting.size;
  }

  add(call: T): void {
    if (this.#recent * 2 >= this.#slots.length && this.#slots.length < mostSlots) this.#widen();
    const at = this.#slot(call.id);
    const before = this.#slots[at];
    if (before === undefined) this.#recent += 1;
    else if (before.id !== call.id) this.#lasting.set(before.id, before);
    this.#slots[at] = call;
  }

  get(id: number): T | undefined {
    const call = this.#slots[this.#slot(id)];
    return call !== undefined && call.id === id ? call : this.#lasting.get(id);
  }

  delete(id: number): boolean {
    const at = this.#slot(id);
    if (this.#slots[at]?.id !== id) return this.#lasting.delete(id);
    this.#slots[at] = undefined;
    this.#recent -= 1;
    return true;
  }

  /** All of them, in the order of their numbers. */
  values(): T[] {
    const recent = this.#slots.filter((call) => call !== undefined);
    return [...this.#lasting.values(), ...recent].sort((one, other) => one.id - other.id);
  }

  clear(): void {
    this.#slots = new Array(firstSlots).fill(undefined);
    this.#recent = 0;
    this.#lasting.clear();
  }

  #slot(id: number): number {
    return (id >>> this.#shift) & (this.#slots.length - 1);
  }

  #widen(): void {
    const before = this.#slots;
    this.#slots = new Array(before.length * 2).fill(undefined);
    for (const call of before) if (call !== undefined) this.#slots[this.#slot(call.id)] = call;
  }
}
