/** Bytes of messages that have begun to arrive or wait to leave: one sum for the thread, one for each connection, both with a limit. */

export class MemoryBudget {
  readonly #limit: number;
  readonly #perAccount: number;
  #used = 0;

  constructor(limit: number, perAccount: number) {
    this.#limit = limit;
    this.#perAccount = perAccount;
  }

  get used(): number {
    return this.#used;
  }

  account(): MemoryAccount {
    return new MemoryAccount(this.#perAccount, (bytes) => {
      if (bytes > 0 && this.#used + bytes > this.#limit) return false;
      this.#used += bytes;
      return true;
    });
  }
}

export class MemoryAccount {
  readonly #limit: number;
  readonly #change: (bytes: number) => boolean;
  #used = 0;

  constructor(limit: number, change: (bytes: number) => boolean) {
    this.#limit = limit;
    this.#change = change;
  }

  get used(): number {
    return this.#used;
  }

  /** False, and nothing is taken, when this connection or all of them together would have too much. */
  take(bytes: number): boolean {
    if (this.#used + bytes > this.#limit || !this.#change(bytes)) return false;
    this.#used += bytes;
    return true;
  }

  give(bytes: number): void {
    this.#used -= bytes;
    this.#change(-bytes);
  }
}
