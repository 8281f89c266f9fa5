/** One thing that is not as it must be. */
export interface Breach {
  /** Number of the invariant in the list of main.ts. */
  readonly invariant: number;
  /** A path, a record, a pid: where to look. */
  readonly where: string;
  readonly what: string;
  /** The daemon's background work may still put it right: it counts once it has outlasted the time to settle. */
  readonly settles: boolean;
}

/** Collects the breaches of one invariant. */
export class Ledger {
  readonly breaches: Breach[] = [];
  readonly #invariant: number;

  constructor(invariant: number) {
    this.#invariant = invariant;
  }

  /** For good: nothing that happens later makes it right. */
  breach(where: string, what: string): void {
    this.breaches.push({ invariant: this.#invariant, where, what, settles: false });
  }

  /** Wrong unless it is gone soon. */
  unsettled(where: string, what: string): void {
    this.breaches.push({ invariant: this.#invariant, where, what, settles: true });
  }
}

export function renderBreach({ invariant, where, what }: Breach): string {
  return `invariant ${invariant}: ${where}: ${what}`;
}
