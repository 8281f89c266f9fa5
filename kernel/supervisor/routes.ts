/** The plan's routes in the form that callers use: per contract its providers, each with how its methods are called. */
import { priority } from '../bus/frames.ts';
import { defaultPolicy, type MethodPolicy, type MethodShape, type Provider, type Routes } from '../bus/routes.ts';
import type { MethodManifest, Plan } from '../plan/index.ts';

/** `shapes` gives what a plugin said it serves when it started; empty before. `extra` are contracts the kernel serves itself. */
export function routesOf(plan: Plan, shapes: (id: string) => readonly MethodShape[], extra: Routes): Routes {
  const routes: Record<string, readonly Provider[]> = { ...extra };
  for (const [contract, providers] of plan.routes) {
    routes[contract] = providers.map((route) => ({
      slot: route.plugin,
      name: route.name ?? '',
      public: route.public,
      methods: policies(plan.manifests.get(route.plugin)?.serves[contract]?.methods ?? {}),
      shapes: shapes(route.plugin).filter((shape) => shape.path.startsWith(`${contract}/`)),
    }));
  }
  return routes;
}

function policies(methods: Readonly<Record<string, MethodManifest>>): Record<string, MethodPolicy> {
  return Object.fromEntries(
    Object.entries(methods).map(([name, method]) => [
      name,
      {
        unbounded: method.unbounded ?? defaultPolicy.unbounded,
        deadlineMs: method.deadlineMs ?? defaultPolicy.deadlineMs,
        priority: method.priority === undefined ? defaultPolicy.priority : priority[method.priority],
        idempotent: method.idempotent ?? defaultPolicy.idempotent,
        onReload: method.onReload ?? defaultPolicy.onReload,
      },
    ]),
  );
}
