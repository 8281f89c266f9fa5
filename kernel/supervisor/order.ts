/** Who must be there before whom, and what is said when one is not. */
import type { Plan } from '../plan/index.ts';
import type { Unit } from './unit.ts';

/** These plugins, and whatever must be there before them. */
export function withRequirements(plan: Plan, ids: readonly string[]): Set<string> {
  const found = new Set<string>();
  const add = (id: string) => {
    if (found.has(id) || !plan.manifests.has(id)) return;
    found.add(id);
    for (const { on } of plan.dependencies.get(id) ?? []) add(on);
  };
  for (const id of ids) add(id);
  return found;
}

/** `requires a, which is skipped: requires b, which is failed: …`; undefined when nobody is missing. */
export function absence(missing: Unit | undefined): string | undefined {
  if (missing === undefined) return undefined;
  return `requires ${missing.id}, which is ${missing.state}${missing.reason === '' ? '' : `: ${missing.reason}`}`;
}
