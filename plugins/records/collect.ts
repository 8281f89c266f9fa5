/** Mark and sweep; the walk and its rules are in graph.ts. */
import type { Engine } from './engine.ts';
export async function collect(
  _engine: Engine,
  _options: { thread: boolean },
): Promise<{ swept: number; marked: number }> {
  return { swept: 0, marked: 0 };
}
