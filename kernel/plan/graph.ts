/** Two questions to a graph given as node → the nodes that come before it: may it be ordered, and how. Nodes named only as targets are ignored. */

export type Edges = ReadonlyMap<string, readonly string[]>;

/**
 * One cycle for each knot of nodes that wait for each other, the shortest through the knot's first node, written `a, b, c, a` in the direction
 * of waiting. Reporting every cycle of a knot could be exponentially many; cutting this one shows the next.
 */
export function findCycles(edges: Edges): string[][] {
  return knots(edges).map((knot) => shortestCycle(edges, knot));
}

/** Strongly connected components that hold a cycle, by Tarjan's algorithm with a stack of its own: depth is the caller's data. */
function knots(edges: Edges): Set<string>[] {
  const index = new Map<string, number>();
  const low = new Map<string, number>();
  const open: string[] = [];
  const isOpen = new Set<string>();
  const found: Set<string>[] = [];
  for (const root of edges.keys()) {
    if (index.has(root)) continue;
    const frames = [{ node: root, next: 0 }];
    while (frames.length > 0) {
      const frame = frames.at(-1)!;
      const { node } = frame;
      if (frame.next === 0) {
        index.set(node, index.size);
        low.set(node, index.get(node)!);
        open.push(node);
        isOpen.add(node);
      }
      const target = edges.get(node)![frame.next++];
      if (target !== undefined) {
        if (!edges.has(target)) continue;
        if (!index.has(target)) frames.push({ node: target, next: 0 });
        else if (isOpen.has(target)) low.set(node, Math.min(low.get(node)!, index.get(target)!));
        continue;
      }
      frames.pop();
      const parent = frames.at(-1);
      if (parent !== undefined) low.set(parent.node, Math.min(low.get(parent.node)!, low.get(node)!));
      if (low.get(node) !== index.get(node)) continue;
      const component = new Set(open.splice(open.lastIndexOf(node)));
      for (const member of component) isOpen.delete(member);
      if (component.size > 1 || edges.get(node)!.includes(node)) found.push(component);
    }
  }
  return found;
}

function shortestCycle(edges: Edges, knot: ReadonlySet<string>): string[] {
  const start = [...edges.keys()].find((node) => knot.has(node))!;
  const cameFrom = new Map<string, string>();
  for (let level = [start]; level.length > 0; ) {
    const nextLevel: string[] = [];
    for (const node of level) {
      for (const target of edges.get(node)!) {
        if (target === start) return [...trace(cameFrom, node), start];
        if (!knot.has(target) || cameFrom.has(target)) continue;
        cameFrom.set(target, node);
        nextLevel.push(target);
      }
    }
    level = nextLevel;
  }
  return [start, start];
}

function trace(cameFrom: ReadonlyMap<string, string>, end: string): string[] {
  const path = [end];
  for (let node = cameFrom.get(end); node !== undefined; node = cameFrom.get(node)) path.unshift(node);
  return path;
}

/** Waves in which each node's predecessors are all in earlier waves; inside a wave in the order of the map. For graphs without cycles. */
export function topologicalWaves(edges: Edges): string[][] {
  const waiting = new Map(
    [...edges].map(([node, before]) => [node, before.filter((target) => edges.has(target)).length]),
  );
  const followers = new Map<string, string[]>();
  for (const [node, before] of edges) {
    for (const target of before) followers.set(target, [...(followers.get(target) ?? []), node]);
  }
  const rank = new Map([...edges.keys()].map((node, i) => [node, i]));
  const waves: string[][] = [];
  let wave = [...edges.keys()].filter((node) => waiting.get(node) === 0);
  while (wave.length > 0) {
    waves.push(wave);
    const next: string[] = [];
    for (const node of wave) {
      for (const follower of followers.get(node) ?? []) {
        waiting.set(follower, waiting.get(follower)! - 1);
        if (waiting.get(follower) === 0) next.push(follower);
      }
    }
    wave = next.sort((a, b) => rank.get(a)! - rank.get(b)!);
  }
  return waves;
}
