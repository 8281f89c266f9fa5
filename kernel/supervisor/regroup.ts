/** Which plugins answer for each other: those that share a thread, those whose manifests name one group, and everybody else for itself. */
import type { Clock } from './clock.ts';
import { RestartGroup } from './restart-group.ts';
import type { Unit } from './unit.ts';

/** @param units in the order of starting. Groups that are there keep what they remember. */
export function regroup(units: readonly Unit[], threadName: (unit: Unit) => string, clock: Clock): void {
  const members = new Map<string, Unit[]>();
  for (const unit of units) {
    const thread = threadName(unit);
    const key = thread === unit.id ? `group ${unit.manifest.group}` : `thread ${thread}`;
    members.set(key, [...(members.get(key) ?? []), unit]);
  }
  for (const group of members.values()) {
    const { strategy, backoff } = group[0]!.manifest;
    const existing = group.find((unit) => unit.group !== undefined)?.group;
    const shared = existing ?? new RestartGroup(strategy, backoff, clock);
    shared.members = group;
    for (const unit of group) unit.group = shared;
  }
}
