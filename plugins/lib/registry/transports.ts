/** Connections that are kept from one transfer to the next, by how they are made. */
import { type Connecting, Transport } from './http.ts';

/** Ways to connect that are kept; the one not used for longest goes first. */
const most = 64;

export class Transports {
  readonly #kept = new Map<string, Transport>();
  readonly #patienceMs: number | undefined;

  /** @param patienceMs for answers; default: a minute */
  constructor(patienceMs?: number) {
    this.#patienceMs = patienceMs;
  }

  get(connecting: Connecting): Transport {
    const key = JSON.stringify(connecting);
    const transport = this.#kept.get(key) ?? new Transport(connecting, this.#patienceMs);
    this.#kept.delete(key);
    this.#kept.set(key, transport);
    // Not closed: who still reads through it goes on, and its idle connections end by themselves.
    if (this.#kept.size > most) this.#kept.delete(this.#kept.keys().next().value!);
    return transport;
  }

  close(): void {
    for (const transport of this.#kept.values()) transport.close();
    this.#kept.clear();
  }
}
