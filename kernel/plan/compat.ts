/** Whether a build may take over from the one that runs. */
import type { Problem } from '../config/problem.ts';
import type { Manifest } from './manifest.ts';

/** State is handed over as the running build made it, so its successor has to say that it reads that version. */
export function stateProblem(running: Manifest, next: Manifest): Problem | undefined {
  const { version } = running.state;
  if (next.state.reads.includes(version)) return undefined;
  const reads = next.state.reads.join(', ');
  return {
    file: next.file,
    message: `${next.id}: what runs hands over state of version ${version}, and this build reads ${reads}: add ${version} to state.reads, or restart the plugin, which hands nothing over`,
  };
}
