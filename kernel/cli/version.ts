/** Which build this is. */
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';

/** Above kernel/. */
export const installDir: string = dirname(dirname(import.meta.dirname));

export interface DaemonVersion {
  /** Ours, from package.json. */
  readonly version: string;
  /** Commit of the checkout; empty for an installed package. */
  readonly revision: string;
}

export function daemonVersion(): DaemonVersion {
  const { version } = JSON.parse(readFileSync(join(installDir, 'package.json'), 'utf8')) as { version: string };
  return { version, revision: revision(installDir) };
}

/** NAME PACKAGE VERSION REVISION, the four words that containerd prints. */
export function versionLine(): string {
  const { version, revision: commit } = daemonVersion();
  return `trouped troupe ${version} ${commit}`.trimEnd();
}

/** Read from the files of git, since starting git takes longer than all else that --version does. */
function revision(checkout: string): string {
  const git = join(checkout, '.git');
  try {
    const head = readFileSync(join(git, 'HEAD'), 'utf8').trim();
    if (!head.startsWith('ref: ')) return head;
    const ref = head.slice(5);
    try {
      return readFileSync(join(git, ref), 'utf8').trim();
    } catch {
      const packed = readFileSync(join(git, 'packed-refs'), 'utf8').split('\n');
      return packed.find((line) => line.endsWith(` ${ref}`))?.slice(0, 40) ?? '';
    }
  } catch {
    return ''; // no checkout, or a worktree
  }
}
