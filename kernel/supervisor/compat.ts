/** What stands against a new build of a plugin before any of its code runs: pure, of the two manifests. */
import { type Manifest, stateProblem } from '../plan/index.ts';

/**
 * @param migrations files of its `migrations/` that the database has seen, and that are there now
 * @returns what is wrong, naming both sides; undefined when nothing is
 */
export function incompatibility(
  old: Manifest,
  next: Manifest,
  migrations: { readonly before: readonly string[]; readonly now: readonly string[] },
): string | undefined {
  if (next.id !== old.id)
    return `the folder of ${old.id} holds ${next.id} now: another plugin is started, not reloaded`;
  const state = stateProblem(old, next);
  if (state !== undefined) return state.message;
  if (next.records.prefix !== old.records.prefix)
    return `${next.id}: its tables are called ${old.records.prefix}_… and not ${next.records.prefix}_…: needs a restart`;
  const added = migrations.now.filter((name) => !migrations.before.includes(name));
  if (added.length > 0) return `${next.id} brings migrations (${added.join(', ')}): needs a restart`;
  return undefined;
}
