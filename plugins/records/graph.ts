/**
 * The graph of everything that is kept, as the nouns' views show it, and the walk that finds what nothing keeps.
 *
 *     NOUN_gc_node   NOUN_gc_root ─▶ walk ─▶ NOUN_gc_edge ─▶ …        the views are described in migrations/001-records.sql
 *     records_gc_root, records_gc_edge                                what labels say
 *
 * All edges are read once, in table order, into integer arrays and walked there: asking the database for the edges of each node costs ten
 * times as much. A million nodes and edges take about 200 MB for that moment, which is why it happens in a thread of its own.
 */
import type { DatabaseSync } from 'node:sqlite';

/** Names of the views, by suffix. */
export interface GraphViews {
  readonly node: readonly string[];
  readonly root: readonly string[];
  readonly edge: readonly string[];
  readonly flat: readonly string[];
}

export interface GraphNode {
  /** The view it was found in, and is deleted from. */
  readonly view: string;
  readonly kind: string;
  readonly ns: string;
  readonly id: string;
}

export interface Mark {
  /** The newest commit that the walk saw. */
  readonly sequence: number;
  /** Nodes that are kept. */
  readonly marked: number;
  /** Nodes that nothing keeps, each before those that it refers to (within a circle in any order). */
  readonly dead: readonly GraphNode[];
}

/** Its edges come from labels; they are not followed from what only a flat lease keeps. */
const labelView = 'records_gc_edge';

export function findViews(database: DatabaseSync): GraphViews {
  const rows = database.prepare("SELECT name FROM sqlite_master WHERE type = 'view' ORDER BY name").all();
  const names = (rows as { name: string }[]).map(({ name }) => name);
  const ending = (suffix: string) => names.filter((name) => /^[a-z0-9_]+$/.test(name) && name.endsWith(suffix));
  return { node: ending('_gc_node'), root: ending('_gc_root'), edge: ending('_gc_edge'), flat: ending('_gc_flat') };
}

export function keyOf(kind: string, ns: string, id: string): string {
  return `${kind}\0${ns}\0${id}`;
}

/** Reads and walks the graph as of one moment, whatever is committed meanwhile. */
export function mark(database: DatabaseSync): Mark {
  database.exec('BEGIN');
  try {
    const { sequence } = database
      .prepare('SELECT coalesce(max(sequence), 0) AS sequence FROM records_commit')
      .get() as {
      sequence: number;
    };
    const graph = new Graph();
    const views = findViews(database);
    for (const view of views.node) graph.readNodes(database, view);
    for (const view of views.root) graph.readRoots(database, view);
    for (const view of views.flat) graph.readFlat(database, view);
    for (const view of views.edge) graph.readEdges(database, view);
    return { sequence, ...graph.walk() };
  } finally {
    database.exec('COMMIT');
  }
}

/** How far a node is kept: not at all, itself and what its columns refer to, or with all it refers to. */
const dead = 0;
const flat = 1;
const full = 2;

class Graph {
  readonly #index = new Map<string, number>();
  readonly #nodes: (GraphNode | undefined)[] = [];
  readonly #roots: number[] = [];
  /** Those whose edges keep flatly. */
  readonly #flat = new Set<number>();
  /** Three numbers each: from, to, whether a label says so. */
  readonly #edges = new Integers();

  readNodes(database: DatabaseSync, view: string): void {
    for (const [kind, ns, id] of rowsOf(database, `SELECT kind, ns, id FROM ${view}`) as Iterable<
      [string, string, string]
    >) {
      const key = keyOf(kind, ns, id);
      if (this.#index.has(key)) continue;
      this.#index.set(key, this.#nodes.push({ view, kind, ns, id }) - 1);
    }
  }

  readRoots(database: DatabaseSync, view: string): void {
    for (const [kind, ns, id] of rowsOf(database, `SELECT kind, ns, id FROM ${view}`) as Iterable<
      [string, string, string]
    >) {
      const key = keyOf(kind, ns, id);
      let vertex = this.#index.get(key);
      if (vertex === undefined) {
        // A root that cannot be collected itself.
        vertex = this.#nodes.push(undefined) - 1;
        this.#index.set(key, vertex);
      }
      this.#roots.push(vertex);
    }
  }

  readFlat(database: DatabaseSync, view: string): void {
    for (const [kind, ns, id] of rowsOf(database, `SELECT kind, ns, id FROM ${view}`) as Iterable<
      [string, string, string]
    >) {
      const vertex = this.#index.get(keyOf(kind, ns, id));
      if (vertex !== undefined) this.#flat.add(vertex);
    }
  }

  readEdges(database: DatabaseSync, view: string): void {
    const label = view === labelView ? 1 : 0;
    const sql = `SELECT kind, ns, id, to_kind, to_ns, to_id FROM ${view}`;
    for (const [kind, ns, id, toKind, toNs, toId] of rowsOf(database, sql) as Iterable<string[]>) {
      const from = this.#index.get(keyOf(kind!, ns!, id!));
      if (from === undefined) continue;
      const to = this.#index.get(keyOf(toKind!, toNs!, toId!));
      if (to !== undefined) this.#edges.push(from, to, label);
    }
  }

  walk(): { marked: number; dead: GraphNode[] } {
    const count = this.#nodes.length;
    const edges = this.#edges.values();
    // Edges by where they start: those of vertex v lie in order[first[v] .. first[v + 1]).
    const first = new Int32Array(count + 1);
    for (let at = 0; at < edges.length; at += 3) first[edges[at]! + 1]! += 1;
    for (let vertex = 0; vertex < count; vertex++) first[vertex + 1]! += first[vertex]!;
    const order = new Int32Array(edges.length / 3);
    const next = first.slice();
    for (let at = 0; at < edges.length; at += 3) order[next[edges[at]!]!++] = at;

    const kept = new Uint8Array(count);
    const pending: number[] = [];
    const keep = (vertex: number, how: number) => {
      if (kept[vertex]! >= how) return;
      kept[vertex] = how;
      pending.push(vertex);
    };
    for (const root of this.#roots) keep(root, full);
    while (pending.length > 0) {
      const vertex = pending.pop()!;
      const deep = kept[vertex] === full;
      const how = deep && !this.#flat.has(vertex) ? full : flat;
      for (let index = first[vertex]!; index < first[vertex + 1]!; index++) {
        const at = order[index]!;
        const fromLabel = edges[at + 2] === 1;
        if (deep || !fromLabel) keep(edges[at + 1]!, how);
      }
    }
    return this.#unkept(kept, edges, first, order);
  }

  /** What is dead, referrers before what they refer to. */
  #unkept(
    kept: Uint8Array,
    edges: Int32Array,
    first: Int32Array,
    order: Int32Array,
  ): { marked: number; dead: GraphNode[] } {
    const referrers = new Int32Array(kept.length);
    for (let at = 0; at < edges.length; at += 3)
      if (kept[edges[at]!] === dead && edges[at] !== edges[at + 1]) referrers[edges[at + 1]!]! += 1;
    const taken = new Uint8Array(kept.length);
    const sorted: number[] = [];
    let marked = 0;
    const take = (vertex: number) => {
      taken[vertex] = 1;
      sorted.push(vertex);
    };
    for (let vertex = 0; vertex < kept.length; vertex++) {
      if (kept[vertex] !== dead) marked += this.#nodes[vertex] === undefined ? 0 : 1;
      else if (referrers[vertex] === 0) take(vertex);
    }
    for (let done = 0; done < sorted.length; done++) {
      const vertex = sorted[done]!;
      for (let index = first[vertex]!; index < first[vertex + 1]!; index++) {
        const to = edges[order[index]! + 1]!;
        if (kept[to] !== dead || taken[to] || to === vertex) continue;
        referrers[to]! -= 1;
        if (referrers[to] === 0) take(to);
      }
    }
    // Circles, and what hangs on them.
    for (let vertex = 0; vertex < kept.length; vertex++) if (kept[vertex] === dead && !taken[vertex]) take(vertex);
    return { marked, dead: sorted.map((vertex) => this.#nodes[vertex]).filter((node) => node !== undefined) };
  }
}

function rowsOf(database: DatabaseSync, sql: string): Iterable<unknown> {
  const statement = database.prepare(sql);
  statement.setReturnArrays(true);
  return statement.iterate();
}

/** Integers that grow in number without a boxed array of millions. */
class Integers {
  #buffer = new Int32Array(3 * 1024);
  #length = 0;

  push(a: number, b: number, c: number): void {
    if (this.#length + 3 > this.#buffer.length) {
      const larger = new Int32Array(this.#buffer.length * 2);
      larger.set(this.#buffer);
      this.#buffer = larger;
    }
    this.#buffer[this.#length] = a;
    this.#buffer[this.#length + 1] = b;
    this.#buffer[this.#length + 2] = c;
    this.#length += 3;
  }

  values(): Int32Array {
    return this.#buffer.subarray(0, this.#length);
  }
}
