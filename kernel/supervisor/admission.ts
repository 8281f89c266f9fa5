/** A plan with one manifest changed: what is wrong with it that was not wrong before, or the plan. Pure. */
import { type Manifest, type Plan, type PlanOptions, plan, type Refused } from '../plan/index.ts';

/** @param provided contract → version of what the kernel serves itself */
export function planWith(
  current: Plan,
  manifest: Manifest,
  provided: NonNullable<PlanOptions['provided']>,
): { readonly plan: Plan } | { readonly problem: string } {
  const options = { required: [...current.required], provided };
  const before = plan([...current.manifests.values()], options);
  const after: Plan | Refused = plan(
    [...current.manifests.values()].map((each) => (each.id === manifest.id ? manifest : each)),
    options,
  );
  // Whom it leaves out was decided with their manifests in sight.
  if (after.ok) return { plan: { ...current, ...after, ...withheld(current) } };
  // What it has always been like is not this manifest's fault: the plan was made with plugins in sight that are disabled.
  const known = new Set(before.ok ? [] : before.problems.map(({ message }) => message));
  const fresh = after.problems.map(({ message }) => message).filter((message) => !known.has(message));
  return fresh.length > 0 ? { problem: fresh.join('; ') } : { plan: { ...current, ...replaced(current, manifest) } };
}

function withheld(current: Plan): Partial<Plan> {
  const kept = Object.entries(current).filter(([key]) => key === 'skipped' || key === 'leftOut');
  return Object.fromEntries(kept) as Partial<Plan>;
}

function replaced(current: Plan, manifest: Manifest): Pick<Plan, 'manifests'> {
  return { manifests: new Map([...current.manifests, [manifest.id, manifest]]) };
}
