/** A blob that is being brought, for whoever would begin with it before all of it is there. */
export class Coming {
  readonly #began = Promise.withResolvers<void>();
  readonly #there = Promise.withResolvers<void>();
  #complete = false;

  constructor() {
    // Heard of by whoever brings it as well.
    this.#there.promise.catch(() => {});
    this.#began.promise.catch(() => {});
  }

  /** Resolves when its first bytes lie in the content store, or all do; rejects when it does not come. */
  get began(): Promise<void> {
    return this.#began.promise;
  }

  /** Resolves when the blob is there. */
  get there(): Promise<void> {
    return this.#there.promise;
  }

  get complete(): boolean {
    return this.#complete;
  }

  /** @param work says when it began, if it can */
  async bring(work: (began: () => void) => Promise<void>): Promise<void> {
    try {
      await work(this.#began.resolve);
      this.#complete = true;
      this.#began.resolve();
      this.#there.resolve();
    } catch (error) {
      this.#began.reject(error);
      this.#there.reject(error);
      throw error;
    }
  }
}
