/**
 * Directories that are ours alone. A root or state directory must carry our marker, or be empty: whatever else is in it belongs to somebody,
 * and the daemon cleans up in its own trees.
 *
 *     <dir>/.troupe     "troupe <kind> 1\n", locked (flock) by the daemon that uses the directory
 */
import {
  chmodSync,
  closeSync,
  constants,
  existsSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  statSync,
  writeSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { Failure } from '../sdk/failure.ts';
import { flock, LOCK_EX, LOCK_NB } from '../sys/index.ts';

export const markerName = '.troupe';

export interface Claim {
  /** Gives the lock back; the marker stays. */
  release(): void;
}

/**
 * Makes the directory if it is not there, checks that it is ours, and locks it.
 * @param mode 0700 for a root, 0711 for a state directory, as containerd
 * @throws Failure FailedPrecondition naming what is there, or that another daemon holds it
 */
export function claim(dir: string, kind: 'root' | 'state', mode: number): Claim {
  makeDirectory(dir, kind, mode);
  requireOwn(dir, kind);
  const marker = join(dir, markerName);
  const existing = read(marker);
  if (existing === undefined) {
    const strangers = readdirSync(dir).filter((name) => !name.startsWith('.nfs') && name !== 'lost+found');
    if (strangers.length > 0) {
      const shown =
        strangers.slice(0, 5).join(', ') + (strangers.length > 5 ? `, and ${strangers.length - 5} more` : '');
      throw new Failure(
        'FailedPrecondition',
        `${kind} ${dir} is not ours: it has no ${markerName} and holds ${shown}; name an empty directory: failed precondition`,
      );
    }
  } else if (!existing.startsWith(`troupe ${kind} `)) {
    throw new Failure(
      'FailedPrecondition',
      `${kind} ${dir} is marked "${existing.trim()}", not as a ${kind}: failed precondition`,
    );
  }
  const fd = openSync(marker, constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW, 0o600);
  try {
    if (!flock(fd, LOCK_EX | LOCK_NB, marker))
      throw new Failure('FailedPrecondition', `${kind} ${dir} is in use by another daemon: failed precondition`);
    if (existing === undefined) writeSync(fd, `troupe ${kind} 1\n`);
    // An older tree, or one made under another umask, is brought to what we promise.
    chmodSync(dir, mode);
  } catch (error) {
    closeSync(fd);
    throw error;
  }
  return { release: () => closeSync(fd) };
}

/** @throws Failure FailedPrecondition */
function makeDirectory(dir: string, kind: string, mode: number): void {
  try {
    mkdirSync(dirname(dir), { recursive: true, mode: 0o711 });
    if (!existsSync(dir)) mkdirSync(dir, { mode });
    if (statSync(dir).isDirectory()) return;
  } catch (error) {
    const message = `${kind} ${dir} cannot be made: ${(error as Error).message}: failed precondition`;
    throw new Failure('FailedPrecondition', message, { cause: error });
  }
  throw new Failure('FailedPrecondition', `${kind} ${dir} is not a directory: failed precondition`);
}

/**
 * Below /tmp, where a user without a runtime directory has his, anybody can be first to make a directory of the expected name, or a link. What belongs to
 * somebody else could be changed under the daemon at any time, marker and all.
 * @throws Failure FailedPrecondition
 */
function requireOwn(dir: string, kind: string): void {
  const self = process.geteuid?.() ?? 0;
  for (const { uid } of [lstatSync(dir), statSync(dir)]) {
    if (uid === self || uid === 0) continue;
    throw new Failure(
      'FailedPrecondition',
      `${kind} ${dir} belongs to uid ${uid}, and the daemon runs as ${self}: failed precondition`,
    );
  }
}

function read(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}
