/**
 * The plan of what can be planned: plugins that come with the daemon must be right, and one from somebody's folder that is not is left out with what is wrong
 * with it. Leaving one out may leave others without what they require, so this goes on until nothing is wrong.
 */
import { type Problem, renderProblem } from '../config/problem.ts';
import type { BrokenFolder } from './folders.ts';
import type { Manifest } from './manifest.ts';
import { type LeftOut, type Plan, type PlanOptions, plan, type Refused } from './plan.ts';

export interface Planned<C> {
  readonly plan: Plan | Refused;
  /** Those of the plan, and those that are disabled. */
  readonly manifests: readonly Manifest[];
  readonly configs: C;
  /** What leaving somebody's plugin out does not help against. */
  readonly problems: readonly Problem[];
  /** Of what was left out, each with the place it is to be mended at. */
  readonly leftOut: readonly (LeftOut & { readonly problems: readonly Problem[] })[];
}

/**
 * @param others of somebody else's, in the order of their folders; they yield to the built-in ones and to those before them
 * @param configsOf what the config says of plugins, with what is wrong in it
 */
export function planWithout<C extends { readonly problems: readonly Problem[] }>(
  builtin: readonly Manifest[],
  others: readonly Manifest[],
  broken: readonly BrokenFolder[],
  configsOf: (manifests: readonly Manifest[]) => C,
  options: Omit<PlanOptions, 'leftOut'>,
): Planned<C> {
  const leftOut = broken.map((folder) => ({ ...folder, reason: reasonOf(folder.problems) }));
  for (let manifests = [...builtin, ...others]; ; ) {
    const planned = plan(manifests, { ...options, leftOut });
    const wrong = planned.ok ? [] : planned.problems;
    let blamed = blamedOf(manifests, others, wrong);
    const configs = configsOf(manifests);
    // Two of the same id would be blamed for each other's keys, so one thing after the other.
    if (blamed.size === 0) blamed = blamedOf(manifests, others, configs.problems);
    if (blamed.size === 0)
      return { plan: planned, manifests, configs, problems: [...wrong, ...configs.problems], leftOut };
    for (const [{ id, dir }, problems] of blamed) leftOut.push({ id, dir, problems, reason: reasonOf(problems) });
    manifests = manifests.filter((manifest) => !blamed.has(manifest));
  }
}

/** Of each problem the first that is somebody's. */
function blamedOf(
  manifests: readonly Manifest[],
  others: readonly Manifest[],
  problems: readonly Problem[],
): Map<Manifest, Problem[]> {
  const blamed = new Map<Manifest, Problem[]>();
  for (const problem of problems) {
    const at = problem.blames?.map((file) => others.find((each) => each.file === file && manifests.includes(each)));
    const manifest = at?.find((each) => each !== undefined);
    if (manifest !== undefined) blamed.set(manifest, [...(blamed.get(manifest) ?? []), problem]);
  }
  return blamed;
}

function reasonOf(problems: readonly Problem[]): string {
  return [...new Set(problems.map(renderProblem))].join('; ');
}
