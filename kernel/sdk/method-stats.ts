/** What a method has done so far, cheap enough to be always on: a count, a failure count, and a histogram in powers of √2 from 8 µs. */
const buckets = 48;
const firstMs = 0.008;
const perOctave = 2;

export class MethodStats {
  calls = 0;
  failures = 0;
  inFlight = 0;
  readonly #histogram = new Uint32Array(buckets);

  begin(): void {
    this.calls += 1;
    this.inFlight += 1;
  }

  end(ms: number, failed: boolean): void {
    this.inFlight -= 1;
    if (failed) this.failures += 1;
    const index = Math.max(0, Math.min(buckets - 1, Math.ceil(Math.log2(ms / firstMs) * perOctave)));
    this.#histogram[index]! += 1;
  }

  /** Upper bound in milliseconds of the bucket that holds the quantile; 0 when nothing has ended yet. */
  quantile(q: number): number {
    const total = this.#histogram.reduce((sum, count) => sum + count, 0);
    if (total === 0) return 0;
    let seen = 0;
    for (let index = 0; index < buckets; index++) {
      seen += this.#histogram[index]!;
      if (seen >= q * total) return firstMs * 2 ** (index / perOctave);
    }
    return firstMs * 2 ** ((buckets - 1) / perOctave);
  }
}
