/** The load during every fault: clients of all kinds at once, each doing one thing after another until it is told to stop, or the daemon is gone. */
import { setTimeout as sleep } from 'node:timers/promises';
import { Failure } from 'troupe/plugin';
import { containers } from './clients/containers.ts';
import { contents } from './clients/contents.ts';
import { diffs } from './clients/diffs.ts';
import { heavy } from './clients/heavy.ts';
import { imports } from './clients/imports.ts';
import { leases } from './clients/leases.ts';
import { orphans } from './clients/orphans.ts';
import { runs } from './clients/runs.ts';
import { sharers } from './clients/sharers.ts';
import { snapshots } from './clients/snapshots.ts';
import { sundries } from './clients/sundries.ts';
import { undertaker } from './clients/undertaker.ts';
import { type Ground, type Problem, Turn } from './turn.ts';

/** One round: begins with nothing of its own, and may leave things behind. */
export type Client = (turn: Turn) => Promise<void>;

export interface Member {
  readonly name: string;
  readonly client: Client;
}

const kinds: Readonly<Record<string, Client>> = {
  imports,
  contents,
  snapshots,
  containers,
  leases,
  runs,
  sundries,
  heavy,
  orphans,
  diffs,
  sharers,
  undertaker,
};

/** `{ contents: 2 }` → two clients, contents-0 and contents-1. */
export function members(counts: Readonly<Record<string, number>>): Member[] {
  return Object.entries(counts).flatMap(([kind, count]) => {
    const client = kinds[kind];
    if (client === undefined) throw new Error(`no client is called ${kind}`);
    return Array.from({ length: count }, (_, number) => ({ name: `${kind}-${number}`, client }));
  });
}

/** What a daemon in a fault run has to bear, and the same without containers. */
export const fullMix = {
  imports: 2,
  contents: 2,
  snapshots: 2,
  leases: 1,
  sundries: 1,
  sharers: 1,
  diffs: 1,
  heavy: 1,
  containers: 2,
  orphans: 1,
  runs: 1,
  undertaker: 1,
};
export const diskMix = { imports: 3, contents: 3, snapshots: 3, leases: 1, sundries: 1, sharers: 1 };

/** How long a client waits after something went wrong, ms. */
const pauseMs = 100;

export class Mix {
  readonly problems: Problem[] = [];
  /** Rounds that went well, by client. */
  readonly rounds = new Map<string, number>();
  readonly #turns: Turn[];
  readonly #running: Promise<void>[];
  readonly #done = new Set<Turn>();
  #stopping = false;

  /** Starts at once. @param rounds of each client; default until stopped */
  constructor(ground: Ground, who: readonly Member[], epoch: number, seed: string, rounds = Number.POSITIVE_INFINITY) {
    this.#turns = who.map(({ name }) => new Turn(ground, name, epoch, seed, this.problems));
    this.#running = who.map(async ({ name, client }, index) => {
      const turn = this.#turns[index]!;
      await this.#run(turn, name, client, rounds);
      this.#done.add(turn);
    });
  }

  get total(): number {
    return [...this.rounds.values()].reduce((sum, count) => sum + count, 0);
  }

  /** All rounds are over, or what hangs is told and given up. */
  async finished(limitMs = 120_000): Promise<void> {
    const timer = setTimeout(() => {
      for (const turn of this.#turns.filter((each) => !each.ended && !this.#done.has(each)))
        turn.report(turn.busyWith, { code: 'DeadlineExceeded', message: `no answer within ${limitMs} ms` });
      this.abandon();
    }, limitMs);
    await Promise.all(this.#running);
    clearTimeout(timer);
  }

  /** Lets every client finish the round that it is in. */
  async stop(): Promise<void> {
    this.#stopping = true;
    await this.finished();
    this.abandon();
  }

  /** The daemon is gone, or the clients are: what was in flight is in doubt for ever. */
  abandon(): void {
    this.#stopping = true;
    for (const turn of this.#turns) turn.end();
  }

  async #run(turn: Turn, name: string, client: Client, rounds: number): Promise<void> {
    for (let round = 0; round < rounds && !this.#stopping; round++) {
      try {
        await client(turn);
        this.rounds.set(name, (this.rounds.get(name) ?? 0) + 1);
      } catch (error) {
        if (turn.ended) return;
        // What a call said is reported already. A file that the client could not write itself is no mistake of its own, anything else is.
        if (!(error instanceof Failure)) {
          const { code, stack } = error as NodeJS.ErrnoException;
          turn.report('client', code === undefined ? { code: 'Bug', message: `${stack}` } : Failure.from(error));
        }
        await sleep(pauseMs);
      }
    }
  }
}
