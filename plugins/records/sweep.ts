/** Removes what a walk found dead, step by step, each step inside a commit of the writer. */
import type { DatabaseSync, StatementSync } from 'node:sqlite';
import { findViews, type GraphNode, keyOf, type Mark } from './graph.ts';

export class Sweep {
  readonly #dead: readonly GraphNode[];
  /** Keys of what is dead and not removed yet. */
  readonly #left: Map<string, GraphNode>;
  #at = 0;
  #stepped = 0;
  /** The newest commit up to which nobody else wrote, so that what the walk found still holds; from a foreign commit on it stands still. */
  #sequence: number;
  #seen: number;

  constructor(found: Mark) {
    this.#dead = found.dead;
    this.#left = new Map(found.dead.map((node) => [keyOf(node.kind, node.ns, node.id), node]));
    this.#sequence = found.sequence;
    this.#seen = found.sequence;
  }

  get left(): number {
    return this.#dead.length - this.#at;
  }

  /**
   * Removes up to `limit` nodes. It may run twice when the batch around it was rolled back: nothing is noted before {@link forget}.
   *
   * @param sequence number of the commit it runs in.
   * @returns how many were removed.
   */
  step(database: DatabaseSync, sequence: number, limit: number): number {
    const batch = this.#dead.slice(this.#at, this.#at + limit);
    const alone = sequence === this.#sequence + 1;
    const check = alone ? undefined : new Check(database, this.#left);
    const removes = new Map<string, StatementSync>();
    let removed = 0;
    for (const node of batch) {
      if (check?.alive(node)) continue;
      let remove = removes.get(node.view);
      if (remove === undefined) {
        remove = database.prepare(`DELETE FROM ${node.view} WHERE kind = ? AND ns = ? AND id = ?`);
        removes.set(node.view, remove);
      }
      remove.run(node.kind, node.ns, node.id);
      removed += 1;
    }
    this.#stepped = batch.length;
    this.#seen = alone ? sequence : this.#sequence;
    return removed;
  }

  /** The step is durable. */
  forget(): void {
    // A node that came back leaves the list as well: whoever is reached from it is reached from something alive.
    for (const { kind, ns, id } of this.#dead.slice(this.#at, this.#at + this.#stepped))
      this.#left.delete(keyOf(kind, ns, id));
    this.#at += this.#stepped;
    this.#sequence = this.#seen;
  }
}

/** Looks, as of now, whether a node that was dead is reachable again: walks backwards from it through what was dead, to a root or to something alive. */
class Check {
  readonly #left: ReadonlyMap<string, GraphNode>;
  readonly #isRoot: readonly StatementSync[];
  readonly #isNode: readonly StatementSync[];
  readonly #referrers: readonly StatementSync[];
  readonly #known = new Map<string, boolean>();

  constructor(database: DatabaseSync, left: ReadonlyMap<string, GraphNode>) {
    this.#left = left;
    const views = findViews(database);
    const one = (view: string) =>
      database.prepare(`SELECT 1 FROM ${view} WHERE kind = ? AND ns = ? AND id = ? LIMIT 1`);
    this.#isRoot = views.root.map(one);
    this.#isNode = views.node.map(one);
    this.#referrers = views.edge.map((view) =>
      database.prepare(`SELECT kind, ns, id FROM ${view} WHERE to_kind = ? AND to_ns = ? AND to_id = ?`),
    );
  }

  alive(node: GraphNode): boolean {
    const visited = new Set<string>();
    // Each with the node that it leads to, so that all of the way there is known to be alive.
    const pending = [{ node: node as Omit<GraphNode, 'view'>, key: keyOf(node.kind, node.ns, node.id) }];
    while (pending.length > 0) {
      const { node: at, key } = pending.pop()!;
      if (visited.has(key)) continue;
      visited.add(key);
      const known = this.#known.get(key);
      if (known === false) continue;
      if (known === true || this.#isRoot.some((root) => root.get(at.kind, at.ns, at.id) !== undefined))
        return this.#note(node, visited, true);
      if (!this.#left.has(key)) {
        // Not of the dead: alive if it exists at all. An edge may start at something that is not there.
        if (this.#isNode.some((exists) => exists.get(at.kind, at.ns, at.id) !== undefined))
          return this.#note(node, visited, true);
        continue;
      }
      for (const referrer of this.#referrersOf(at))
        pending.push({ node: referrer, key: keyOf(referrer.kind, referrer.ns, referrer.id) });
    }
    return this.#note(node, visited, false);
  }

  /** Nothing alive leads to any that was visited; or something does, to this one at least. */
  #note(node: GraphNode, visited: ReadonlySet<string>, alive: boolean): boolean {
    if (alive) this.#known.set(keyOf(node.kind, node.ns, node.id), true);
    else for (const key of visited) this.#known.set(key, false);
    return alive;
  }

  *#referrersOf({ kind, ns, id }: Omit<GraphNode, 'view'>): Iterable<Omit<GraphNode, 'view'>> {
    for (const referrers of this.#referrers) yield* referrers.all(kind, ns, id) as unknown as Omit<GraphNode, 'view'>[];
  }
}
