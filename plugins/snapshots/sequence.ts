/** Ids for new snapshots, taken from the records in blocks: one durable write for many snapshots, at the price of gaps. */
import type { SnapshotStore } from './store.ts';

const BLOCK = 64;

/** What a generation hands over: the rest of its block, so that the next need not write before it serves. */
export interface SequenceState {
  readonly next: number;
  readonly end: number;
  readonly floor: number;
  readonly abandoned: readonly number[];
}

export class Sequence {
  readonly #store: SnapshotStore;
  #next = 0;
  #end = 0;
  #floor = 0;
  #taking: Promise<void> | undefined;
  readonly #abandoned = new Set<number>();

  constructor(store: SnapshotStore) {
    this.#store = store;
  }

  /** Takes the first block, or the one that was handed over. Without one whoever had ids before is dead, and makes no record with them any more. */
  async start(state: SequenceState | undefined): Promise<void> {
    if (state === undefined) {
      await this.#take(true);
      return;
    }
    this.#next = state.next;
    this.#end = state.end;
    this.#floor = state.floor;
    for (const id of state.abandoned) this.#abandoned.add(id);
  }

  /** Lets go of the block: calls that still run here take one of their own. */
  handOver(): SequenceState {
    const state = { next: this.#next, end: this.#end, floor: this.#floor, abandoned: [...this.#abandoned] };
    this.#next = this.#end;
    return state;
  }

  async next(): Promise<number> {
    while (this.#next === this.#end) {
      this.#taking ??= this.#take(false).finally(() => {
        this.#taking = undefined;
      });
      await this.#taking;
    }
    return this.#next++;
  }

  async #take(restarted: boolean): Promise<void> {
    const { first, floor } = await this.#store.takeIds(BLOCK, restarted);
    this.#next = first;
    this.#end = first + BLOCK;
    this.#floor = floor;
  }

  /** No record will ever be made with this id. */
  abandon(id: number): void {
    this.#abandoned.add(id);
  }

  /** Whether a directory of this id is nobody's when it has no record; others may get one yet. */
  isAbandoned(id: number): boolean {
    return id < this.#floor || this.#abandoned.has(id);
  }
}
