/**
 * What the clients were told. Each client appends to a file of its own, opened O_DSYNC, on a file system that the fault does not touch:
 *
 *     {"n":7,"say":"ask","call":"snapshots.commit","whole":true,"wants":[{"object":"snapshot/ns/overlayfs/key","state":null},{"object":…,"state":{…}}]}
 *     {"n":7,"say":"done"}                 written after the reply
 *     {"n":8,"say":"refused","why":…}      the daemon said no
 *     {"n":9,"say":"lost","why":…}         no answer came: it may have happened or not
 *     {"say":"power cut"}                 written by the run: of what was not committed nothing was promised
 *
 * `state` null is "not there". An object belongs to one client, which asks for one thing after another.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

/** What is comparable of an object that is there; what it says depends on the kind, see acknowledged.ts. */
export type State = Readonly<Record<string, unknown>> | null;

export interface Want {
  /** `kind/namespace/…`: an image's name, a snapshot's `snapshotter/key`, a digest, a ref, an id. */
  readonly object: string;
  readonly state: State;
}

export type Line =
  | {
      readonly n: number;
      readonly say: 'ask';
      readonly call: string;
      readonly wants: readonly Want[];
      /** One commit: all of it happens, or nothing. */
      readonly whole: boolean;
    }
  | { readonly n: number; readonly say: 'done' }
  | { readonly say: 'power cut' }
  | { readonly n: number; readonly say: 'refused' | 'lost'; readonly why: string };

/** The states that an object may be in, given all that was said. One: it was acknowledged. */
export type Possible = Map<string, State[]>;

/** A request without a good answer, after which nothing else was asked of its objects: all of it happened, or nothing. */
export interface Doubt {
  readonly call: string;
  readonly wants: readonly Want[];
  /** States that each object may have been in before. */
  before: readonly (readonly State[])[];
}

export interface Oracle {
  readonly possible: Possible;
  readonly doubts: readonly Doubt[];
}

/** Reads all `*.jsonl` of a directory. A last line without end was being written when its client died, and was not said. */
export function readOracle(directory: string): Oracle {
  const folding = new Folding();
  for (const name of readdirSync(directory).sort()) {
    if (!name.endsWith('.jsonl')) continue;
    const lines = readFileSync(join(directory, name), 'utf8').split('\n').slice(0, -1);
    folding.add(lines.map((line) => JSON.parse(line) as Line));
  }
  return folding;
}

export class Folding implements Oracle {
  readonly possible: Possible = new Map();
  readonly #doubts = new Set<Doubt>();
  /** The doubt that an object is part of. */
  readonly #doubtOf = new Map<string, Doubt>();

  get doubts(): readonly Doubt[] {
    return [...this.#doubts];
  }

  /** Lines of one client, in their order. */
  add(lines: Iterable<Line>): this {
    const asked = new Map<number, Doubt>();
    for (const line of lines) {
      if (line.say === 'ask') asked.set(line.n, this.#ask(line.call, line.wants, line.whole));
      else if (line.say === 'done') {
        const doubt = asked.get(line.n);
        if (doubt === undefined) continue;
        this.#doubts.delete(doubt);
        for (const { object, state } of doubt.wants) this.possible.set(object, [state]);
      } else if (line.say === 'power cut') this.#cut();
      // Refused and lost: it was asked for, so it may have happened; the states stay as many as they are.
    }
    return this;
  }

  /** Ingests may have shrunk, to nothing at worst; they are there as before, or are not. */
  #cut(): void {
    for (const [object, states] of this.possible) this.possible.set(object, shrunk(object, states));
    for (const doubt of this.#doubts)
      doubt.before = doubt.before.map((states, index) => shrunk(doubt.wants[index]!.object, states));
  }

  #ask(call: string, wants: readonly Want[], whole: boolean): Doubt {
    const doubt = { call, wants, before: wants.map(({ object }) => this.possible.get(object) ?? [null]) };
    for (const { object, state } of wants) {
      const older = this.#doubtOf.get(object);
      if (older !== undefined) this.#doubts.delete(older);
      this.#doubtOf.set(object, doubt);
      this.possible.set(object, [...(this.possible.get(object) ?? [null]), state]);
    }
    if (whole && wants.length > 1) this.#doubts.add(doubt);
    return doubt;
  }
}

function shrunk(object: string, states: readonly State[]): State[] {
  if (!object.startsWith('ingest/')) return [...states];
  return states.map((state) => (state === null ? null : { ...state, min: 0 }));
}
